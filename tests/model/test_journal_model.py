"""A model of the journal: whatever happens in whatever order, what was promised is read exactly once."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from otel_audit.errors import JournalFullError, JournalSyncError
from otel_audit.journal.cursor import Cursor
from otel_audit.journal.files import Files
from otel_audit.journal.ledger import Policy, trim
from otel_audit.journal.reader import StreamReader
from otel_audit.journal.removed import read_ledger
from otel_audit.journal.stream import StreamWriter
from otel_audit.journal.streams import DEAD, list_streams
from support.journal import make_entry, make_layout, make_writer

DESTINATION = "collector"
SEGMENT_BYTES = 4000


class Kernel(Files):
    """The real system calls, but the disk is imagined: of each file it has what was there when it was synced last."""

    def __init__(self) -> None:
        self._durable: dict[tuple[int, int], int] = {}
        self.fails = 0
        """So many of the next syncs of data fail."""
        self.room: int | None = None
        """So many bytes can still be written; what does not fit is cut, and then refused."""
        self.strike = ("", False)
        """The next call of this operation is interrupted, before it is made or afterwards."""
        self.fdatasync = self._interruptible("fdatasync", self._sync)
        self.fsync = self._interruptible("fsync", lambda _: None)
        self.write = self._interruptible("write", self._write)
        self.open = self._interruptible("open", os.open)
        self.ftruncate = self._interruptible("ftruncate", os.ftruncate)

    def _interruptible(self, operation: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            named, before = self.strike
            struck = named == operation
            if struck:
                self.strike = ("", False)
            if struck and before:
                raise KeyboardInterrupt
            result = real(*arguments)
            if struck:
                if operation == "open":
                    os.close(result)  # as if the interrupt had come before it was kept anywhere
                raise KeyboardInterrupt
            return result

        return call

    def _write(self, fd: int, data: bytes) -> int:
        if self.room is not None:
            if not self.room:
                raise OSError(errno.ENOSPC, "full")
            data = data[: self.room]
            self.room -= len(data)
        return os.write(fd, data)

    def _sync(self, fd: int) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError(errno.EIO, "refused")
        info = os.fstat(fd)
        self._durable[info.st_dev, info.st_ino] = info.st_size

    def durable_bytes(self, path: Path) -> int:
        """How much of a file a power loss leaves for certain."""
        info = path.stat()
        return self._durable.get((info.st_dev, info.st_ino), 0)


class JournalMachine(RuleBasedStateMachine):
    """One process after another writes streams, crashes and ships, and one reader per stream follows."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="otel-audit-model-"))
        self.kernel = Kernel()
        self.layout = make_layout(self.root, self.kernel)
        self.writer: StreamWriter | None = None
        self.number = 0
        self.lines: dict[str, list[str]] = {}
        """By stream: the ids of all records that were appended, in order; the first is the journal's own."""
        self.promised: dict[str, int] = {}
        """By stream: up to which number the disk was promised."""
        self.written: dict[str, int] = {}
        """By stream: up to which number ``append`` returned since the last power loss."""
        self.removed: dict[str, int] = {}
        self.delivered: dict[str, list[tuple[int, str]]] = {}
        self.earlier: dict[str, set[int]] = {}
        """By stream: what was delivered before its cursor went back; it is delivered again unless it was removed."""
        self.gone: set[str] = set()
        self.followers: dict[str, tuple[StreamReader, list[int]]] = {}

    def teardown(self) -> None:
        if self.writer is not None:
            self.writer.abandon()
        shutil.rmtree(self.root)

    # -- writing ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.writer is None)
    @rule()
    def begin(self) -> None:
        """A process begins."""
        self.writer = make_writer(self.layout, segment_bytes=SEGMENT_BYTES, required=[DESTINATION])
        self.lines[self.writer.stream_id] = ["first"]
        self.written[self.writer.stream_id] = 1
        self.promised[self.writer.stream_id] = 0

    @precondition(lambda self: self.writer is not None)
    @rule(count=st.integers(1, 6), size=st.integers(0, 2500))
    def append(self, count: int, size: int) -> None:
        """Records are emitted; a segment may be left on the way, and is synced then."""
        assert self.writer is not None
        for _ in range(count):
            self.number += 1
            name = f"r-{self.number}"
            self.writer.append(make_entry(name, body="x" * size))
            self.lines[self.writer.stream_id].append(name)
            self.written[self.writer.stream_id] = self.writer.sequence

    def note(self, name: str) -> None:
        """A record of this name is in the journal."""
        assert self.writer is not None
        self.lines[self.writer.stream_id].append(name)
        self.written[self.writer.stream_id] = self.writer.sequence

    @precondition(lambda self: self.writer is not None)
    @rule(room=st.integers(0, 3000), size=st.integers(0, 2500))
    def append_on_a_full_disk(self, room: int, size: int) -> None:
        """There is so much room: the record is there whole, or nothing of it is, and the call says which."""
        assert self.writer is not None
        self.number += 1
        name = f"r-{self.number}"
        entry = make_entry(name, body="x" * size)
        self.kernel.room = room
        try:
            self.writer.append(entry)
        except (JournalFullError, JournalSyncError) as error:  # the second where a failed sync could not be mended
            assert error.journaled is False
            assert entry.journaled is False
        else:
            self.note(name)
        self.kernel.room = None

    @precondition(lambda self: self.writer is not None)
    @rule(
        operation=st.sampled_from(["write", "fdatasync", "fsync", "open"]),
        before=st.booleans(),
        size=st.sampled_from([0, 0, 2500]),
    )
    def append_interrupted(self, operation: str, before: bool, size: int) -> None:
        """A Ctrl-C in one of the system calls: the record is there or it is not, and ``journaled`` says which."""
        assert self.writer is not None
        self.number += 1
        name = f"r-{self.number}"
        entry = make_entry(name, body="x" * size)
        self.kernel.strike = (operation, before)
        with contextlib.suppress(KeyboardInterrupt):
            self.writer.append(entry)
        self.kernel.strike = ("", False)
        assert entry.journaled is not None
        if entry.journaled:
            self.note(name)

    @precondition(lambda self: self.writer is not None)
    @rule()
    def sync(self) -> None:
        """Somebody wants the disk."""
        assert self.writer is not None
        self.promised[self.writer.stream_id] = self.writer.sync()
        assert self.writer.sequence == self.promised[self.writer.stream_id]

    @precondition(lambda self: self.writer is not None)
    @rule()
    def sync_fails(self) -> None:
        """The disk refuses once; then the promise holds all the same."""
        assert self.writer is not None
        self.kernel.fails = 1
        try:
            self.sync()
        except JournalSyncError:  # the records were to be moved already
            self.sync()
        self.kernel.fails = 0

    @precondition(lambda self: self.writer is not None)
    @rule()
    def sync_and_move_fail(self) -> None:
        """The disk refuses again when the records are moved: nothing is promised, and nothing more is taken."""
        assert self.writer is not None
        self.number += 1
        name = f"r-{self.number}"
        self.writer.append(make_entry(name))
        self.lines[self.writer.stream_id].append(name)
        self.written[self.writer.stream_id] = self.writer.sequence
        self.kernel.fails = 3
        with pytest.raises(JournalSyncError):
            self.writer.sync()
        with pytest.raises(JournalSyncError):
            self.writer.append(make_entry("refused"))
        self.kernel.fails = 0

    @precondition(lambda self: self.writer is not None)
    @rule()
    def end(self) -> None:
        """The process ends in order."""
        assert self.writer is not None
        self.writer.close()
        self.promised[self.writer.stream_id] = self.writer.sequence
        self.writer = None

    # -- crashing --------------------------------------------------------------------------------------------

    @precondition(lambda self: self.writer is not None)
    @rule(torn=st.integers(0, 400))
    def kill(self, torn: int) -> None:
        """``kill -9``, perhaps within a write: all that was written is there, and a part of a line may be."""
        assert self.writer is not None
        path = self.writer._state.segment.path
        line, _ = self.writer._state.line_of(
            make_entry("torn"), self.writer.sequence + 1, self.writer._state.previous_hash
        )
        with path.open("ab") as file:
            file.write(line[:torn])
        self.writer.abandon()
        self.writer = None

    @precondition(lambda self: self.writer is not None)
    @rule(seed=st.integers(0, 2**32), how=st.sampled_from(["cut", "zeroed", "garbage"]))
    def power_loss(self, seed: int, how: str) -> None:
        """Behind what was synced anything may be lost, torn at any byte, or be rubbish."""
        assert self.writer is not None
        dice = random.Random(seed)
        stream_id = self.writer.stream_id
        self.writer.abandon()
        self.writer = None
        for path in sorted(self.layout.streams.glob("*/*.jsonl")):
            size, durable = path.stat().st_size, self.kernel.durable_bytes(path)
            keep = dice.randint(min(durable, size), size)
            with path.open("r+b") as file:
                if how == "cut":
                    file.truncate(keep)
                else:
                    file.seek(keep)
                    lost = min(size - keep, dice.choice([1, 100, 4096]))
                    file.write(bytes(lost) if how == "zeroed" else dice.randbytes(lost))
        for other in self.written:
            self.written[other] = self.promised[other]
        self.followers = {}
        assert self.promised[stream_id] <= len(self.lines[stream_id])

    # -- shipping and removing -------------------------------------------------------------------------------

    @rule(records_max=st.integers(1, 9), share=st.floats(0, 1))
    def ship(self, records_max: int, share: float) -> None:
        """Somebody reads on from the cursor and acknowledges a part: of the living up to its end, of the dead all."""
        for stream in list_streams(self.layout):
            living = self.writer is not None and self.writer.stream_id == stream.stream_id
            lock, other = stream.ship_lock(DESTINATION), stream.ship_lock(DESTINATION)
            assert lock.acquire()
            assert not other.acquire(), "who adopts at the same moment finds that somebody has it"
            cursor = stream.cursor_file(DESTINATION).load() or Cursor()
            reader = StreamReader(stream.path, after=cursor.acknowledged)
            end = self.writer.end if self.writer is not None and living else None
            records = reader.read(records_max=records_max, bytes_max=1 << 20, final=not living, end=end)
            part = records[: round(share * len(records))]
            if part:
                self.delivered.setdefault(stream.stream_id, []).extend((r.sequence, r.record_id) for r in part)
                stream.cursor_file(DESTINATION).store(Cursor(acknowledged=part[-1].sequence))
            lock.release()

    @rule(records_max=st.integers(1, 9), keep=st.integers(0, 1024))
    def cut_a_cursor_short(self, records_max: int, keep: int) -> None:
        """Or a crash, or a bad sector: it goes back to the one before or to nothing, and never ahead."""
        for stream in list_streams(self.layout):
            path = stream.path / "cursors" / DESTINATION
            before = stream.cursor_file(DESTINATION).load() or Cursor()
            os.truncate(path, min(keep, path.stat().st_size))
            after = stream.cursor_file(DESTINATION).load() or Cursor()
            assert after.acknowledged <= before.acknowledged
            again = self.delivered.get(stream.stream_id, [])
            self.earlier.setdefault(stream.stream_id, set()).update(sequence for sequence, _ in again)
            self.delivered[stream.stream_id] = [each for each in again if each[0] <= after.acknowledged]

    @rule(records_max=st.integers(1, 9))
    def follow(self, records_max: int) -> None:
        """A sidecar reads on where it was, beside the writer, and after the writer's death."""
        for stream in list_streams(self.layout):
            living = self.writer is not None and self.writer.stream_id == stream.stream_id
            reader, seen = self.followers.setdefault(stream.stream_id, (StreamReader(stream.path), []))
            for record in reader.read(records_max=records_max, bytes_max=1 << 20, final=not living):
                assert record.sequence > (seen[-1] if seen else 0), "each once, in order"
                assert record.sequence == 1 or self.lines[stream.stream_id][record.sequence - 1] == record.record_id
                seen.append(record.sequence)
            if seen:
                certain = set(range(1, min(self.written[stream.stream_id], seen[-1]) + 1))
                assert len(certain - set(seen)) <= reader.removed, "nothing promised is passed over"

    @rule(hurry=st.booleans())
    def remove(self, hurry: bool) -> None:
        """Housekeeping: what the destination has goes."""
        for stream in list_streams(self.layout):
            own = self.writer is not None and self.writer.stream_id == stream.stream_id
            trim(stream, Policy(hurry=hurry), own=own)
            if not stream.path.exists():
                self.gone.add(stream.stream_id)

    # -- what must hold --------------------------------------------------------------------------------------

    @invariant()
    def everything_promised_is_read_once_in_order(self) -> None:
        """Streams that are there, from the first record that was not removed."""
        for line in read_ledger(self.layout.ledger):
            self.removed[line.stream_id] = max(self.removed.get(line.stream_id, 0), line.last)
        present = {stream.stream_id: stream for stream in list_streams(self.layout)}
        assert set(present) | self.gone == set(self.lines)
        for stream_id, stream in present.items():
            living = self.writer is not None and self.writer.stream_id == stream_id
            reader = StreamReader(stream.path)
            records = reader.read(records_max=10_000, bytes_max=1 << 30, final=not living)
            sequences = [record.sequence for record in records]
            assert sequences == sorted(set(sequences)), "each once, in order"
            for record in records[1:] if records and records[0].sequence == 1 else records:
                assert self.lines[stream_id][record.sequence - 1] == record.record_id, "nothing that was never appended"
            removed = self.removed.get(stream_id, 0)
            certain = set(range(removed + 1, self.written[stream_id] + 1))
            assert certain <= set(sequences), "nothing promised is missing"
            for report in reader.damage:
                assert report.kind in ("hole", "lost-tail", "torn-tail", "noise", "newline")
                assert not report.count or report.sequence > self.promised[stream_id]

    @invariant()
    def what_was_delivered_is_what_was_appended(self) -> None:
        """In order, without a promised one left out, and nothing before it was delivered is removed."""
        for stream_id, delivered in self.delivered.items():
            sequences = [sequence for sequence, _ in delivered]
            assert sequences == sorted(set(sequences)), "delivered once, in order"
            for sequence, record_id in delivered:
                assert sequence == 1 or self.lines[stream_id][sequence - 1] == record_id
            up_to = min(self.promised[stream_id], max(sequences, default=0))
            assert set(range(1, up_to + 1)) <= {*sequences, *self.earlier.get(stream_id, ())}
        for stream_id, removed in self.removed.items():
            delivered_numbers = {sequence for sequence, _ in self.delivered.get(stream_id, [])}
            delivered_numbers |= self.earlier.get(stream_id, set())
            assert set(range(1, min(removed, self.promised[stream_id]) + 1)) <= delivered_numbers

    @invariant()
    def the_dead_are_dead_and_the_living_live(self) -> None:
        """A stream can be adopted exactly when its process is gone."""
        for stream in list_streams(self.layout):
            living = self.writer is not None and self.writer.stream_id == stream.stream_id
            assert (stream.owner_state() == DEAD) != living


def explore(examples: int, *, always_the_same: bool) -> None:
    """Run the model; prints the shortest story that breaks it."""
    run_state_machine_as_test(
        JournalMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=always_the_same,
            database=None,
        ),
    )


def test_whatever_happens_what_was_promised_is_read_once():
    """Appends, syncs, crashes, shipping and removal in any order: each record is where it should be, exactly once."""
    explore(200, always_the_same=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_whatever_happens_in_many_more_stories():
    """The same, longer, and different each time."""
    explore(5_000, always_the_same=False)
