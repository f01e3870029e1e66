"""Faults of the system under a journal, made with real file systems and processes as far as they can be made."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_audit.batch import RecordBatch
from otel_audit.errors import JournalError, JournalFullError, JournalSyncError, UnsafeJournalError
from otel_audit.journal import creation, ledger
from otel_audit.journal.creation import HIDDEN, UNFINISHED_S
from otel_audit.journal.cursor import Cursor
from otel_audit.journal.ledger import Policy, trim
from otel_audit.journal.removed import read_ledger
from otel_audit.journal.segment import list_segments
from otel_audit.journal.streams import StreamDirectory, list_streams
from otel_audit.testing.files import FaultyFiles
from support.journal import (
    audit_all,
    ids_of,
    make_entry,
    make_journal,
    make_layout,
    make_provider,
    make_writer,
    needs,
    read_all,
    shell,
)
from support.provider import make_provider as provider_with

pytestmark = pytest.mark.timeout(120)


@contextlib.contextmanager
def mounted(kind: str, point: Path, *options: str) -> Iterator[Path]:
    """A file system of its own; the test is skipped where it cannot be had."""
    requirement = "tmpfs" if kind == "tmpfs" else "loopdev"
    needs(os.geteuid() == 0, requirement, "mounting a file system needs root")
    point.mkdir()
    if kind == "tmpfs":
        shell("mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", point)
    else:
        image = point.with_suffix(".image")
        with image.open("wb") as file:
            file.truncate(8 << 20)
        try:
            shell("mkfs.ext4", "-q", "-F", image)
            shell("mount", "-o", ",".join(("loop", *options)), image, point)
        except (AssertionError, OSError) as error:
            needs(None, requirement, f"there is no usable loop device here: {error}")
    try:
        yield point
    finally:
        shell("umount", "--lazy", point)


# -- a file system that turns read-only -------------------------------------------------------------------------


def test_a_file_system_that_turns_read_only_refuses_and_loses_nothing(tmp_path: Path):
    """As ext4 does after an error, while files are open: nothing is taken any more, what was synced stays."""
    with mounted("ext4", tmp_path / "disk") as point:
        journal = make_journal(point)
        kept = []
        for number in range(20):
            entry = make_entry(f"r-{number}")
            journal.append(entry)
            kept.append(f"r-{number}")
        journal.commit(entry.sequence)
        shell("mount", "-o", "remount,abort", point)
        refused = make_entry("refused")
        said: list[bool | None] = []
        try:
            journal.append(refused)
            journal.commit(refused.sequence)
        except JournalError as error:
            said.append(error.journaled)
        assert said
        assert said[0] is not True
        with pytest.raises(JournalError):
            journal.append(make_entry("refused too"))
            journal.sync()
        with contextlib.suppress(JournalError):
            journal.close()
        (stream,) = list_streams(journal.layout)
        assert ids_of(read_all(stream.path)[0])[:20] == kept
        shell("umount", point)
        shell("mount", "-o", "loop", point.with_suffix(".image"), point)
        records, damage = read_all(stream.path)
        assert ids_of(records)[:20] == kept
        assert not [report for report in damage if report.count]


def test_a_read_only_file_system_is_named_when_the_journal_is_opened(tmp_path: Path):
    """The message says that, and what to do, not that the user may not write."""
    with mounted("tmpfs", tmp_path / "disk", "size=1m") as point:
        shell("mount", "-o", "remount,ro", point)
        with pytest.raises(UnsafeJournalError, match=r"Mount the file system of .* for writing"):
            make_journal(point)


# -- no inode left ----------------------------------------------------------------------------------------------


def test_without_a_free_inode_the_stream_goes_on_and_what_is_delivered_goes(tmp_path: Path):
    """No segment and no stream can be made; the present segment is used for longer, and removal needs no inode."""
    with mounted("tmpfs", tmp_path / "disk", "size=8m,nr_inodes=60") as point:
        journal = make_journal(point, segment_bytes_max=4000, required=["a"])
        journal.append(make_entry("r-0"))
        writer = journal.writer
        assert writer is not None
        fillers = 0
        with pytest.raises(OSError, match="No space left"):
            while True:
                (point / f"filler-{fillers}").touch()
                fillers += 1
        for number in range(1, 30):
            journal.append(make_entry(f"r-{number}", body="x" * 400))
        assert "a new segment could not be made" in "\n".join(writer.notes)
        assert len(list_segments(writer.directory)) == 1
        with pytest.raises(UnsafeJournalError, match="df -i"):
            make_journal(point / "another")
        (stream,) = list_streams(journal.layout)
        with pytest.raises((JournalFullError, UnsafeJournalError)):
            make_journal(point).append(make_entry("another stream"))
        stream.cursor_file("a").store(Cursor(acknowledged=writer.sequence))
        (point / "filler-0").unlink()
        for number in range(30, 40):
            journal.append(make_entry(f"r-{number}", body="x" * 400))
        assert len(list_segments(writer.directory)) == 2
        with pytest.raises(OSError, match="No space left"):
            (point / "one more").touch()
        trim(stream, Policy(hurry=True), own=True)
        assert len(list_segments(writer.directory)) == 1, "and an inode is free again"
        (point / "and another").touch()
        journal.close()
        assert ids_of(read_all(stream.path)[0])[-1] == "r-39"


# -- no locks ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS])
def test_a_file_system_without_locks_is_refused_when_the_journal_is_opened(tmp_path: Path, code: int):
    """Without a lock nobody could tell the living from the dead; that is said at once, not at the first record."""
    files = FaultyFiles()
    files.fail("lock", code, times=None)
    with pytest.raises(UnsafeJournalError, match="has no file locks") as caught:
        make_journal(tmp_path, files)
    assert "Use a directory on a local file system" in str(caught.value)
    assert not any(path.is_dir() for path in (tmp_path / "journal" / "streams").iterdir())


# -- clocks -----------------------------------------------------------------------------------------------------


class Jumping:
    """A clock that is an hour off, forward or back, more at each look."""

    def __init__(self, step_s: float) -> None:
        self._offset_s = 0.0
        self._step_s = step_s

    def time(self) -> float:
        self._offset_s += self._step_s
        return time.time() + self._offset_s

    def time_ns(self) -> int:
        return int(self.time() * 1e9)


@pytest.mark.parametrize("step_s", [3600.0, -3600.0])
def test_a_clock_that_jumps_changes_no_order_and_loses_nothing(tmp_path: Path, step_s: float):
    """Numbers and hashes say the order, whatever the clock says; no timestamp follows its observation."""
    provider = make_provider(tmp_path, clock=Jumping(step_s), segment_bytes=5000)
    log = provider.get_audit_logger()
    receipts = [log.emit("user.login", actor="u", outcome="success") for _ in range(30)]
    assert [receipt.sequence for receipt in receipts] == list(range(2, 32))
    provider.shutdown()
    assert audit_all(provider.journal.layout.root) == [receipt.record_id for receipt in receipts]


@pytest.mark.parametrize("step_s", [7 * 86400.0, -7 * 86400.0])
def test_a_clock_that_jumps_takes_nothing_from_somebody_who_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step_s: float
):
    """A stream that is being made is locked, whatever its age seems to be; what is not delivered stays."""
    jumping = Jumping(step_s)
    monkeypatch.setattr(creation, "time", jumping)
    monkeypatch.setattr(ledger, "time", jumping)
    journal = make_journal(tmp_path, required=["a"], retention_s=60.0, segment_bytes_max=3000)
    for number in range(10):
        journal.append(make_entry(f"r-{number}", body="x" * 500))
    building = journal.layout.streams / f"{HIDDEN}somebodys"
    building.mkdir()
    os.utime(building, (0, 0))
    (building / "lock").touch()
    builder = StreamDirectory(journal.layout, building).owner_lock()
    assert builder.acquire()
    before = [segment.first for segment in list_segments(journal.writer.directory)]  # type: ignore[union-attr]
    journal.housekeep()
    assert building.exists()
    assert UNFINISHED_S < 3600
    assert [segment.first for segment in list_segments(journal.writer.directory)] == before  # type: ignore[union-attr]
    builder.release()
    journal.close()


# -- at the same moment -----------------------------------------------------------------------------------------


class Lines:
    """An exporter that writes the ids of the records to a file."""

    single_writer = False

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, batch: RecordBatch, timeout_s: float) -> None:
        with self._path.open("a") as file:
            file.writelines(f"{record.record_id}\n" for record in batch.records if not record.is_control)

    def close(self) -> None:
        pass


def test_two_processes_that_adopt_at_the_same_moment_deliver_each_record_once(tmp_path: Path):
    """They find the same dead streams; each is shipped by one of them, and removed and named in the ledger once."""
    needs(hasattr(os, "fork"), "fork", "there is no fork")
    layout = make_layout(tmp_path)
    expected = []
    for stream in range(12):
        writer = make_writer(layout, required=["out"], segment_bytes=2000)
        for number in range(5):
            writer.append(make_entry(f"r-{stream}-{number}", body="x" * 300))
            expected.append(f"r-{stream}-{number}")
        writer.close()
    begin, beginning = os.pipe()

    def adopt(name: str) -> None:
        os.close(beginning)
        signal.alarm(60)
        os.read(begin, 1)  # the end of the file: both begin at once
        provider = provider_with(layout.root, destinations={"out": Lines(tmp_path / name)})
        while list_streams(provider.journal.layout):
            provider.journal.housekeep()
            time.sleep(0.01)
        provider.shutdown(timeout_s=20)

    pids = []
    for name in ("one", "two"):
        pid = os.fork()
        if pid == 0:
            try:
                adopt(name)
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    os.close(begin)
    os.close(beginning)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [0, 0]
    delivered = Counter(
        line for name in ("one", "two") if (tmp_path / name).exists() for line in (tmp_path / name).read_text().split()
    )
    assert delivered == Counter(expected)
    named = Counter((line.stream_id, line.first) for line in read_ledger(layout.ledger))
    assert set(named.values()) == {1}


def test_an_error_of_a_sync_is_never_taken_for_success_by_a_second_try(tmp_path: Path):
    """The kernel reports it once: a second ``fdatasync`` of the same file says that all is well, and is not asked."""
    files = FaultyFiles()
    journal = make_journal(tmp_path, files)
    entry = make_entry("r-2")
    journal.append(entry)
    files.fail("fdatasync", errno.EIO, path="*.jsonl")
    files.fail("write", errno.ENOSPC, path="*.rescue")
    with pytest.raises(JournalSyncError):
        journal.commit(entry.sequence)
    first = files.calls_of("fdatasync", path="*.jsonl")[-1].fd
    del files.calls[:]
    journal.commit(entry.sequence)
    assert first not in [call.fd for call in files.calls_of("fdatasync")], "the lines are synced in another file"
    assert files.calls_of("rename", path="*.rescue")
    journal.close()
    assert audit_all(journal.layout.root) == ["r-2"]
