"""Removing what everybody has, and the ledger that says so."""

from __future__ import annotations

import errno
import itertools
import os
import time
from pathlib import Path

import msgspec
import pytest

from otel_audit.journal.creation import remove_unfinished
from otel_audit.journal.cursor import Cursor
from otel_audit.journal.layout import Layout
from otel_audit.journal.ledger import (
    LedgerLine,
    Policy,
    lock_directory,
    trim,
)
from otel_audit.journal.metadata import NAME
from otel_audit.journal.removed import count_removed, read_ledger
from otel_audit.journal.retirement import retire_destination, retired_for, retirements
from otel_audit.journal.segment import list_segments
from otel_audit.journal.stream import StreamWriter
from otel_audit.journal.streams import StreamDirectory, list_streams
from otel_audit.testing.files import FaultyFiles
from support.journal import make_entry, make_layout, make_writer, read_all

NOW = Policy()
"""No local retention."""


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
def layout(tmp_path: Path, files: FaultyFiles) -> Layout:
    return make_layout(tmp_path, files)


def a_stream(
    layout: Layout, *, required: tuple[str, ...] = ("a",), optional: tuple[str, ...] = (), living: bool = False
) -> tuple[StreamDirectory, StreamWriter]:
    """A stream with five segments."""
    writer = make_writer(layout, segment_bytes=5000, required=required, optional=optional)
    while len(list_segments(writer.directory)) < 5:
        writer.append(make_entry())
    if not living:
        writer.close()
    return StreamDirectory(layout, writer.directory), writer


def acknowledge(stream: StreamDirectory, destination: str, sequence: int) -> None:
    stream.cursor_file(destination).store(Cursor(acknowledged=sequence))


def firsts(stream: StreamDirectory) -> list[int]:
    return [segment.first for segment in list_segments(stream.path)]


def ledger(layout: Layout) -> list[LedgerLine]:
    return list(read_ledger(layout.ledger))


def age(stream: StreamDirectory, seconds: float) -> None:
    then = time.time() - seconds
    for segment in list_segments(stream.path):
        os.utime(segment.path, (then, then))


# -- what may go ---------------------------------------------------------------------------------------------------


def test_a_segment_goes_when_every_required_destination_is_past_it(layout: Layout):
    """Not before the last of them has its last record."""
    stream, writer = a_stream(layout, required=("a", "b"))
    first, second, third, *_ = firsts(stream)
    assert trim(stream, NOW, own=False) == 0
    acknowledge(stream, "a", writer.sequence)
    assert trim(stream, NOW, own=False) == 0
    acknowledge(stream, "b", second - 2)
    assert trim(stream, NOW, own=False) == 0
    size = list_segments(stream.path)[0].path.stat().st_size
    acknowledge(stream, "b", second - 1)
    assert trim(stream, NOW, own=False) == size
    assert firsts(stream)[0] == second
    acknowledge(stream, "b", third)
    trim(stream, NOW, own=False)
    assert firsts(stream)[0] == third
    assert [(line.first, line.last) for line in ledger(layout)] == [(first, second - 1), (second, third - 1)]


def test_the_ledger_says_what_went_and_why(layout: Layout):
    """Range, count, size, the hashes at both ends, the reason: enough to prove later that the chain was whole."""
    stream, writer = a_stream(layout)
    records, _ = read_all(stream.path)
    second, third = firsts(stream)[1:3]
    size = list_segments(stream.path)[1].path.stat().st_size
    acknowledge(stream, "a", third - 1)
    before = time.time_ns()
    trim(stream, NOW, own=False)
    one, two = ledger(layout)
    assert (one.first, one.first_previous_hash) == (1, "")
    assert one.last_hash == two.first_previous_hash == records[second - 2].sha256
    assert (two.first, two.last, two.count, two.bytes) == (second, third - 1, third - second, size)
    assert two.last_hash == records[third - 2].sha256
    assert {one.stream_id, two.stream_id} == {writer.stream_id}
    assert {one.why, two.why} == {"delivered"}
    assert before <= one.removed_ns <= two.removed_ns <= time.time_ns()
    assert (two.unseen, two.damage) == ({}, [])


def test_a_cursor_that_cannot_be_read_holds_everything(layout: Layout):
    """A damaged cursor counts as none."""
    stream, _ = a_stream(layout)
    acknowledge(stream, "a", 9999)
    stream.cursor_file("a").path.write_bytes(b"{")
    assert trim(stream, NOW, own=False) == 0
    assert ledger(layout) == []


def test_local_retention_keeps_what_is_delivered(layout: Layout):
    """A delivered segment stays until its time is over; a full journal is in a hurry and does not wait."""
    stream, writer = a_stream(layout)
    acknowledge(stream, "a", writer.sequence - 1)
    count = len(firsts(stream))
    assert trim(stream, Policy(retention_s=3600.0), own=False) == 0
    age(stream, 3601)
    segments = list_segments(stream.path)
    os.utime(segments[2].path)
    trim(stream, Policy(retention_s=3600.0), own=False)
    assert len(firsts(stream)) == count - 2
    trim(stream, Policy(retention_s=3600.0, hurry=True), own=False)
    assert len(firsts(stream)) == 1


@pytest.mark.parametrize("hurry", [False, True])
def test_without_a_required_destination_only_time_removes(layout: Layout, hurry: bool):
    """Nobody has the records, so neither an optional destination nor a full journal lets them go before their time."""
    stream, writer = a_stream(layout, required=(), optional=("o",))
    acknowledge(stream, "o", writer.sequence)
    age(stream, 1e6)
    assert trim(stream, Policy(hurry=hurry), own=False) == 0
    assert trim(stream, Policy(retention_s=1e7, hurry=hurry), own=False) == 0
    assert ledger(layout) == []
    assert trim(stream, Policy(retention_s=1e5, hurry=hurry), own=False) > 0
    assert {line.why for line in ledger(layout)} == {"retention"}
    assert not stream.path.exists()


def test_what_an_optional_destination_has_not_seen_is_counted_and_named(layout: Layout):
    """It does not hold a segment back, but the ledger says what it misses; one that never had anything too."""
    stream, writer = a_stream(layout, required=("a",), optional=("late", "never"))
    second, third = firsts(stream)[1:3]
    acknowledge(stream, "a", writer.sequence - 1)
    acknowledge(stream, "late", second + 1)
    acknowledge(stream, "unknown", 1)
    trim(stream, NOW, own=False)
    one, two, *_ = ledger(layout)
    assert one.unseen == {"never": second - 1, "unknown": second - 2}
    assert two.unseen == {"late": third - second - 2, "never": third - second, "unknown": third - second}


def test_a_retired_destination_is_waited_for_by_nobody(layout: Layout):
    """Its segments are free, and the ledger says what it has not seen."""
    stream, writer = a_stream(layout, required=("gone", "here"))
    second = firsts(stream)[1]
    acknowledge(stream, "here", second)
    assert trim(stream, NOW, own=False) == 0
    retire_destination(layout, "gone", [stream.stream_id])
    assert retired_for(layout, stream.stream_id) == {"gone"}
    trim(stream, NOW, own=False)
    (line,) = ledger(layout)
    assert line.unseen == {"gone": 8}
    assert line.why == "delivered"
    retire_destination(layout, "here", [stream.stream_id])
    trim(stream, NOW, own=False)
    assert not stream.path.exists()
    assert writer.closed


def test_a_stream_that_names_a_retired_destination_again_is_kept_for_it(layout: Layout):
    """Retiring lets go of the streams that were there; a configuration that still has the destination loses nothing."""
    before, _ = a_stream(layout, required=("gone",))
    retire_destination(layout, "gone", [before.stream_id])
    after, _ = a_stream(layout, required=("gone",))
    assert trim(before, NOW, own=False) > 0
    assert trim(after, NOW, own=False) == 0
    assert retired_for(layout, after.stream_id) == frozenset()
    retire_destination(layout, "gone", [after.stream_id])
    assert retirements(layout)["gone"].streams == {after.stream_id}  # the other one is not there any more
    assert trim(after, NOW, own=False) > 0


def test_a_mark_that_cannot_be_read_retires_nothing(layout: Layout):
    """Whoever damages it keeps records; nobody loses any."""
    stream, _ = a_stream(layout, required=("gone",))
    retire_destination(layout, "gone", [stream.stream_id])
    (layout.root / "retired" / "gone").write_bytes(b"{")
    assert retirements(layout) == {}
    assert trim(stream, NOW, own=False) == 0


# -- living and dead -----------------------------------------------------------------------------------------------


def test_of_our_own_stream_the_last_segment_stays(layout: Layout):
    """Only segments that the writer has left can go."""
    stream, writer = a_stream(layout, living=True)
    acknowledge(stream, "a", writer.sequence)
    assert trim(stream, NOW, own=True) > 0
    assert len(firsts(stream)) == 1
    writer.append(make_entry("r"))
    writer.close()
    assert read_all(stream.path, after=writer.sequence - 1)[1] == []


def test_of_another_processs_living_stream_nothing_goes(layout: Layout):
    """It trims itself."""
    stream, writer = a_stream(layout, living=True)
    acknowledge(stream, "a", writer.sequence)
    assert trim(stream, NOW, own=False) == 0
    assert len(firsts(stream)) == 5
    writer.close()
    assert trim(stream, NOW, own=False) > 0


def test_a_dead_stream_that_everybody_has_goes_altogether(layout: Layout):
    """With its cursors, its locks and whatever lies beside; the ledger remembers it."""
    stream, writer = a_stream(layout)
    acknowledge(stream, "a", writer.sequence)
    (stream.path / "recovery.json").write_bytes(b"[]")
    (stream.path / "cursors" / "a.lock").touch()
    (stream.path / "cursors" / ".a.0123.new").touch()
    (stream.path / ".00000000000000000001.0123.rescue").touch()
    trim(stream, NOW, own=False)
    assert not stream.path.exists()
    assert ledger(layout)[-1].last == writer.sequence
    assert sum(line.count for line in ledger(layout)) == writer.sequence
    assert trim(stream, NOW, own=False) == 0, "somebody else may have been quicker"


def test_the_last_segment_of_a_dead_stream_waits_for_its_last_record(layout: Layout):
    """One record that nobody has keeps it."""
    stream, writer = a_stream(layout)
    acknowledge(stream, "a", writer.sequence - 1)
    trim(stream, NOW, own=False)
    assert len(firsts(stream)) == 1
    acknowledge(stream, "a", writer.sequence)
    trim(stream, NOW, own=False)
    assert not stream.path.exists()


@pytest.mark.parametrize("content", [None, b"", b'{"sha256":"0123'], ids=["no segment", "empty", "torn"])
def test_a_dead_stream_without_a_record_goes(layout: Layout, content: bytes | None):
    """Its process died while it made it; there is nothing to deliver."""
    writer = make_writer(layout, required=["a"])
    writer.close()
    (segment,) = list_segments(writer.directory)
    segment.path.unlink() if content is None else segment.path.write_bytes(content)
    trim(StreamDirectory(layout, writer.directory), NOW, own=False)
    assert not writer.directory.exists()


def test_an_empty_last_segment_goes_with_its_stream(layout: Layout):
    """The writer died behind making a segment: everything before it is delivered."""
    stream, writer = a_stream(layout)
    (stream.path / f"{writer.sequence + 1:020d}.jsonl").touch()
    acknowledge(stream, "a", writer.sequence)
    trim(stream, NOW, own=False)
    assert not stream.path.exists()


# -- damage --------------------------------------------------------------------------------------------------------


def test_damage_of_a_removed_segment_is_named_in_the_ledger(layout: Layout):
    """What was missing when it went stays known when its bytes are gone."""
    stream, writer = a_stream(layout)
    second, third = firsts(stream)[1:3]
    path = list_segments(stream.path)[1].path
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    del data[-1000:]
    path.write_bytes(data)
    acknowledge(stream, "a", writer.sequence)
    _, damage = read_all(stream.path)
    trim(stream, NOW, own=False)
    lines = ledger(layout)
    spoiled = lines[1]
    assert (spoiled.first, spoiled.last) == (second, third - 1)
    assert spoiled.damage == damage
    assert [report.kind for report in spoiled.damage] == ["hole", "hole"]
    assert spoiled.count == third - second - sum(report.count for report in damage)
    assert [line.damage for line in lines if line is not spoiled] == [[]] * (len(lines) - 1)


def test_a_torn_tail_is_named_too(layout: Layout):
    """What a crash tore off at the end of a dead stream is in the last line of the ledger."""
    stream, writer = a_stream(layout)
    path = list_segments(stream.path)[-1].path
    path.write_bytes(path.read_bytes() + b'{"sha256":"')
    acknowledge(stream, "a", writer.sequence)
    trim(stream, NOW, own=False)
    (report,) = ledger(layout)[-1].damage
    assert (report.kind, report.stop - report.start) == ("torn-tail", 11)


# -- the order, and crashes in between ---------------------------------------------------------------------------------


def test_cursors_then_ledger_then_unlink(layout: Layout, files: FaultyFiles):
    """What says that a segment may go is on the disk before what says that it went, and that before it goes."""
    stream, _ = a_stream(layout)
    second, third = firsts(stream)[1:3]
    acknowledge(stream, "a", third - 1)
    del files.calls[:]
    trim(stream, NOW, own=False)
    cursor_writes = files.calls_of("fdatasync", path=str(stream.path / "cursors" / "a"))
    cursor_syncs = files.calls_of("fsync", path=str(stream.path / "cursors"))
    ledger_writes = files.calls_of("write", path=str(layout.ledger))
    ledger_syncs = files.calls_of("fdatasync", path=str(layout.ledger))
    unlinks = files.calls_of("unlink", path="*.jsonl")
    orders = [cursor_writes, cursor_syncs, ledger_writes, ledger_syncs, unlinks]
    assert list(map(len, orders)) == [2] * 5
    for steps in zip(*orders, strict=True):
        for before, after in itertools.pairwise(steps):
            assert before.ended < after.begun
    assert [str(call.path)[-8:-6] for call in unlinks] == ["01", f"{second:02d}"]


@pytest.mark.parametrize("operation", ["fsync", "open", "write", "fdatasync", "unlink"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_nothing_is_removed_that_the_ledger_does_not_name(
    layout: Layout, files: FaultyFiles, operation: str, code: int
):
    """Whatever fails, a segment that is gone has its line, and the next round goes on."""
    stream, writer = a_stream(layout, living=True)
    acknowledge(stream, "a", writer.sequence)
    before = firsts(stream)
    files.fail(
        operation,
        code,
        when=lambda call: "cursors" in str(call.path) or "ledger" in str(call.path) or operation == "unlink",
    )
    with pytest.raises(OSError, match=r"error|space"):
        trim(stream, NOW, own=True)
    gone = set(before) - set(firsts(stream))
    assert gone <= {line.first for line in ledger(layout)}
    trim(stream, NOW, own=True)
    assert firsts(stream) == before[-1:]
    assert {line.first for line in ledger(layout)} == set(before[:-1])
    writer.close()


def test_a_crash_between_ledger_and_unlink_names_the_segment_twice_and_removes_it_once(
    layout: Layout, files: FaultyFiles
):
    """The segment is still there, and goes in the next round; whoever counts counts it once."""
    stream, writer = a_stream(layout, living=True)
    acknowledge(stream, "a", writer.sequence)
    files.interrupt("unlink", path="*.jsonl", before=True)
    with pytest.raises(KeyboardInterrupt):
        trim(stream, NOW, own=True)
    second = firsts(stream)[1]
    assert firsts(stream)[0] == 1
    assert [line.first for line in ledger(layout)] == [1]
    trim(stream, NOW, own=True)
    assert [line.first for line in ledger(layout)][:2] == [1, 1]
    assert count_removed(layout.ledger, stream.stream_id, 1, second - 1) == second - 1
    writer.close()


def test_a_half_line_in_the_ledger_hides_no_other(layout: Layout):
    """A crash within a line of the ledger leaves the lines before and behind it readable."""
    stream, writer = a_stream(layout)
    second, third = firsts(stream)[1:3]
    acknowledge(stream, "a", second - 1)
    trim(stream, NOW, own=False)
    with layout.ledger.open("ab") as file:
        file.write(b'{"removed_ns":1,"stream')
    acknowledge(stream, "a", third - 1)
    trim(stream, NOW, own=False)
    assert [line.first for line in ledger(layout)] == [1, second]
    assert writer.closed


def test_ranges_in_the_ledger_are_counted_within_what_is_asked(layout: Layout):
    """Overlaps count once, other streams not at all."""

    def line(first: int, last: int, stream_id: str = "s") -> bytes:
        made = LedgerLine(
            removed_ns=1, stream_id=stream_id, first=first, last=last, count=1, bytes=1,
            first_previous_hash="", last_hash="", why="delivered", unseen={}, damage=[],
        )  # fmt: skip
        return msgspec.json.encode(made) + b"\n"

    assert count_removed(layout.ledger, "s", 1, 100) == 0
    layout.ledger.write_bytes(line(1, 10) + line(5, 12) + line(20, 29) + line(1, 100, "other") + line(1, 10))
    assert count_removed(layout.ledger, "s", 1, 100) == 22
    assert count_removed(layout.ledger, "s", 10, 21) == 5
    assert count_removed(layout.ledger, "s", 13, 19) == 0


def test_a_destination_with_one_writer_has_one_lock_in_the_journal(layout: Layout):
    """Whoever has it reads every stream; the next one waits."""
    first, second = lock_directory(layout, "file"), lock_directory(layout, "file")
    other = lock_directory(layout, "sealer")
    assert first.acquire()
    assert not second.acquire()
    assert other.acquire()
    first.release()
    assert second.acquire()
    second.release()
    other.release()


def test_two_who_trim_the_same_dead_stream_do_not_disturb_each_other(layout: Layout):
    """The stream's lock decides; the other one finds nothing to do."""
    stream, writer = a_stream(layout)
    acknowledge(stream, "a", writer.sequence)
    busy = stream.owner_lock()
    assert busy.acquire()
    assert trim(stream, NOW, own=False) == 0
    busy.release()
    assert trim(stream, NOW, own=False) > 0
    assert len({line.first for line in ledger(layout)}) == len(ledger(layout)) == 5


@pytest.mark.parametrize("nth", range(1, 7))
def test_a_removal_that_was_cut_off_is_finished(layout: Layout, files: FaultyFiles, nth: int):
    """Killed at any step, it leaves nothing that is taken for a stream, and nothing that stays for ever."""
    stream, writer = a_stream(layout)
    acknowledge(stream, "a", writer.sequence)
    begun = files.interrupt("unlink", before=True, nth=nth, when=lambda call: not str(call.path).endswith(".jsonl"))
    last = files.interrupt("rmdir", before=True, nth=2)
    with pytest.raises(KeyboardInterrupt):
        trim(stream, NOW, own=False)
    assert begun.hits + last.hits == 1
    files.heal()
    assert list_streams(layout) == []
    (left,) = layout.streams.iterdir()
    assert remove_unfinished(layout) == 0, "somebody may still be at it"
    os.utime(left, (0, 0))
    assert remove_unfinished(layout) == 1
    assert list(layout.streams.iterdir()) == []


def test_who_looks_sees_a_stream_whole_or_not_at_all(layout: Layout, files: FaultyFiles):
    """While a stream is removed, no one finds it without its description."""
    stream, writer = a_stream(layout)
    acknowledge(stream, "a", writer.sequence)
    seen: list[bool] = []
    for operation in ("rename", "unlink", "rmdir"):
        files.run(
            operation,
            lambda _: seen.append(all((each.path / NAME).exists() for each in list_streams(layout))),
            times=None,
        )
    trim(stream, NOW, own=False)
    assert not stream.path.exists()
    assert len(seen) > 8
    assert all(seen)
