"""Reading a stream: damage of every kind, segments, and reading beside the writer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from otel_audit.canonical import sequence_fragment
from otel_audit.journal import reader as reader_module
from otel_audit.journal.damage import DamageReport
from otel_audit.journal.files import OS_FILES, Files
from otel_audit.journal.layout import Layout
from otel_audit.journal.line import make_line
from otel_audit.journal.place import place_of
from otel_audit.journal.reader import StreamReader
from otel_audit.journal.removed import LedgerLine
from otel_audit.journal.segment import list_segments, segment_path
from otel_audit.journal.stream import StreamWriter
from support.journal import ids_of, make_entry, make_layout, make_writer, read_all


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_layout(tmp_path)


def a_stream(layout: Layout, count: int, *, segment_bytes: int = 1 << 24, size: int = 0) -> Path:
    """A stream of a process that ended: ``count`` records behind the first, control, record."""
    writer = make_writer(layout, segment_bytes=segment_bytes)
    for number in range(2, count + 2):
        writer.append(make_entry(f"r-{number}", body="x" * size))
    writer.close()
    return writer.directory


def only_segment(directory: Path) -> Path:
    (segment,) = list_segments(directory)
    return segment.path


def offsets(data: bytes) -> list[int]:
    """Where the lines begin, and where the last ends."""
    found = [0]
    while (newline := data.find(b"\n", found[-1])) >= 0:
        found.append(newline + 1)
    return found


def sequences(directory: Path, *, after: int = 0, final: bool = True) -> list[int]:
    return [record.sequence for record in read_all(directory, after=after, final=final)[0]]


# -- damage ----------------------------------------------------------------------------------------------------


def test_an_undamaged_stream_is_read_whole_and_without_a_report(layout: Layout):
    """Every record comes once, in order, over several segments, and nothing is reported."""
    directory = a_stream(layout, 50, segment_bytes=4000)
    assert len(list_segments(directory)) > 5
    records, damage = read_all(directory, records_max=7)
    assert [record.sequence for record in records] == list(range(1, 52))
    assert ids_of(records) == [f"r-{number}" for number in range(2, 52)]
    assert damage == []


def test_a_tail_torn_at_any_byte_is_reported_and_nothing_else_is_lost(layout: Layout):
    """Whichever byte of the last two lines a power loss stops at, the whole lines before it are read."""
    directory = a_stream(layout, 4)
    path = only_segment(directory)
    data = path.read_bytes()
    *_, last_but_one, last, end = offsets(data)
    for size in range(last_but_one, end):
        path.write_bytes(data[:size])
        records, damage = read_all(directory)
        whole = 3 + (size >= last - 1) + (size >= end - 1)
        assert [record.sequence for record in records] == list(range(1, whole + 1)), size
        begun = last if size >= last else last_but_one
        if size in (last - 1, end - 1):
            assert damage == [DamageReport("newline", path.name, size - 1, size, whole)], size
        elif size > begun:
            assert damage == [DamageReport("torn-tail", path.name, begun, size, whole + 1)], size
        else:
            assert damage == [], size


def test_a_tail_that_may_still_be_written_is_no_damage(layout: Layout):
    """Reading a living stream leaves an unfinished line alone, and reads it when it is whole."""
    directory = a_stream(layout, 2)
    path = only_segment(directory)
    data = path.read_bytes()
    path.write_bytes(data[:-10])
    reader = StreamReader(directory)
    assert [r.sequence for r in reader.read(records_max=9, bytes_max=9999, final=False)] == [1, 2]
    assert reader.read(records_max=9, bytes_max=9999, final=False) == []
    path.write_bytes(data)
    assert [r.sequence for r in reader.read(records_max=9, bytes_max=9999, final=False)] == [3]
    assert reader.damage == []


def test_every_single_bit_of_a_line_is_missed_if_it_flips(layout: Layout):
    """One flipped bit in a line costs that record and no other, and is reported with place and number."""
    directory = a_stream(layout, 4)
    path = only_segment(directory)
    data = path.read_bytes()
    starts = offsets(data)
    start, stop = starts[2], starts[3]  # the line of record 3
    for place in range(start, stop - 1):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            records, damage = read_all(directory)
            assert [record.sequence for record in records] == [1, 2, 4, 5], (place, bit)
            assert damage == [DamageReport("hole", path.name, start, stop, 3, 1)], (place, bit)


def test_every_single_bit_of_the_last_line_is_missed_if_it_flips(layout: Layout):
    """At the end of a dead stream a damaged line is told from one that a killed process left half written."""
    directory = a_stream(layout, 2)
    path = only_segment(directory)
    data = path.read_bytes()
    start, stop = offsets(data)[-2:]
    for place in range(start, stop - 1):
        for bit in range(8):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            path.write_bytes(changed)
            records, damage = read_all(directory)
            assert [record.sequence for record in records] == [1, 2], (place, bit)
            assert damage == [DamageReport("lost-tail", path.name, start, stop, 3, 1)], (place, bit)


def test_several_lost_lines_at_the_end_are_counted(layout: Layout):
    """As far as it can be told: zeros may have been any number of records."""
    directory = a_stream(layout, 5)
    path = only_segment(directory)
    data = path.read_bytes()
    starts = offsets(data)
    changed = bytearray(data)
    for number in (4, 5, 6):
        changed[starts[number - 1] + 200] ^= 1
    path.write_bytes(changed)
    assert read_all(directory)[1] == [DamageReport("lost-tail", path.name, starts[3], starts[6], 4, 3)]
    path.write_bytes(data[: starts[3]] + bytes(4096))
    assert read_all(directory)[1] == [DamageReport("lost-tail", path.name, starts[3], starts[3] + 4096, 4, 1)]


def test_every_single_bit_of_the_newlines_around_a_line_is_reported_and_costs_nothing(layout: Layout):
    """A newline with a flipped bit loses no record on either side."""
    directory = a_stream(layout, 4)
    path = only_segment(directory)
    data = path.read_bytes()
    starts = offsets(data)
    for number in (2, 3):  # the newline behind record 2, and that behind record 3
        for bit in range(8):
            changed = bytearray(data)
            changed[starts[number] - 1] ^= 1 << bit
            path.write_bytes(changed)
            records, damage = read_all(directory)
            assert [record.sequence for record in records] == [1, 2, 3, 4, 5]
            assert damage == [DamageReport("newline", path.name, starts[number] - 1, starts[number], number)]


def test_a_zeroed_page_is_a_hole_with_whole_lines_on_both_sides(layout: Layout):
    """What a power loss may leave of a page costs the records in it and no others."""
    directory = a_stream(layout, 60)
    path = only_segment(directory)
    data = bytearray(path.read_bytes())
    starts = offsets(bytes(data))
    page = 3 * 4096
    data[page : page + 4096] = bytes(4096)
    path.write_bytes(data)
    spoiled = [n for n in range(1, 62) if starts[n - 1] < page + 4096 and starts[n] > page]
    assert len(spoiled) > 3
    records, damage = read_all(directory)
    assert [record.sequence for record in records] == [n for n in range(1, 62) if n not in spoiled]
    first, last = spoiled[0], spoiled[-1]
    assert damage == [DamageReport("hole", path.name, starts[first - 1], starts[last], first, len(spoiled))]


def test_a_zeroed_page_inside_one_long_line_and_a_line_longer_than_a_chunk(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
):
    """Neither lines nor damage larger than what is read at once stop the reader."""
    monkeypatch.setattr(reader_module, "CHUNK_BYTES", 1000)
    directory = a_stream(layout, 5, size=20_000)
    path = only_segment(directory)
    assert sequences(directory) == [1, 2, 3, 4, 5, 6]
    data = bytearray(path.read_bytes())
    starts = offsets(bytes(data))
    data[starts[2] : starts[2] + 4096] = b"\n" * 2048 + bytes(2048)
    path.write_bytes(data)
    records, damage = read_all(directory)
    assert [record.sequence for record in records] == [1, 2, 4, 5, 6]
    assert damage == [DamageReport("hole", path.name, starts[2], starts[3], 3, 1)]


def test_two_holes_are_two_reports(layout: Layout):
    """Damage here and there is told apart."""
    directory = a_stream(layout, 9)
    path = only_segment(directory)
    data = bytearray(path.read_bytes())
    starts = offsets(bytes(data))
    for number in (3, 4, 7):
        data[starts[number - 1] + 100] ^= 1
    path.write_bytes(data)
    records, damage = read_all(directory)
    assert [record.sequence for record in records] == [1, 2, 5, 6, 8, 9, 10]
    assert damage == [
        DamageReport("hole", path.name, starts[2], starts[4], 3, 2),
        DamageReport("hole", path.name, starts[6], starts[7], 7, 1),
    ]


def test_noise_between_lines_costs_nothing(layout: Layout):
    """Bytes that somebody put between two lines are reported, and all records are read."""
    directory = a_stream(layout, 3)
    path = only_segment(directory)
    data = path.read_bytes()
    starts = offsets(data)
    path.write_bytes(data[: starts[2]] + b"who put this here?\n" + data[starts[2] :])
    records, damage = read_all(directory)
    assert [record.sequence for record in records] == [1, 2, 3, 4]
    assert damage == [DamageReport("noise", path.name, starts[2], starts[2] + 19, 3)]


def test_a_line_that_was_cut_out_is_a_hole_without_bytes(layout: Layout):
    """A record that somebody removed is missed, although every remaining byte is right."""
    directory = a_stream(layout, 4)
    path = only_segment(directory)
    data = path.read_bytes()
    starts = offsets(data)
    path.write_bytes(data[: starts[2]] + data[starts[3] :])
    records, damage = read_all(directory)
    assert [record.sequence for record in records] == [1, 2, 4, 5]
    assert damage == [DamageReport("hole", path.name, starts[2], starts[2], 3, 1)]


def test_damage_before_what_is_wanted_is_not_reported_again(layout: Layout):
    """A reader that begins behind a hole does not count it once more."""
    directory = a_stream(layout, 9)
    path = only_segment(directory)
    data = bytearray(path.read_bytes())
    starts = offsets(bytes(data))
    for number in (3, 4, 5):
        data[starts[number - 1] + 100] ^= 1
    path.write_bytes(data)
    assert read_all(directory, after=6)[1] == []
    records, damage = read_all(directory, after=4)
    assert [record.sequence for record in records] == [6, 7, 8, 9, 10]
    assert [(report.kind, report.sequence, report.count) for report in damage] == [("hole", 5, 1)]


# -- lines that do not belong ------------------------------------------------------------------------------------


def forged(
    directory: Path, sequence: int, previous_hash: str, stream_id: str | None = None, **attributes: object
) -> bytes:
    """A whole line with a right hash that this stream's writer never wrote."""
    entry = make_entry("forged", **attributes)
    fragment = sequence_fragment(sequence, previous_hash, stream_id or directory.name)
    return make_line(entry.head + fragment + entry.tail)[0]


def with_line(path: Path, place: int, line: bytes) -> None:
    data = path.read_bytes()
    at = offsets(data)[place]
    path.write_bytes(data[:at] + line + data[at:])


@pytest.mark.parametrize("place", [1, 2, 4])
@pytest.mark.parametrize(("sequence", "other"), [(3, True), (1, False), (3, False), (4, False), (1_000_000, False)])
def test_a_foreign_line_is_reported_and_hides_nothing(layout: Layout, place: int, sequence: int, other: bool):
    """A line with a right hash, of another stream or with a number out of turn, takes no record's place."""
    directory = a_stream(layout, 4)
    path = only_segment(directory)
    with_line(path, place, forged(directory, sequence, "0" * 64, "another" if other else None))
    records, damage = read_all(directory)
    assert [record.sequence for record in records] == [1, 2, 3, 4, 5]
    assert "forged" not in ids_of(records)
    assert [report.kind for report in damage] == ["foreign"]
    assert damage[0].start == offsets(path.read_bytes())[place]


def test_a_record_that_does_not_follow_its_predecessor_is_reported(layout: Layout):
    """A record in place of another one, hash and number right, is given away by the hash of the one before."""
    directory = a_stream(layout, 3)
    path = only_segment(directory)
    data = path.read_bytes()
    starts = offsets(data)
    line = forged(directory, 3, "f" * 64)
    path.write_bytes(data[: starts[2]] + line + data[starts[3] :])
    records, damage = read_all(directory)
    assert [record.sequence for record in records] == [1, 2, 3, 4]
    assert [(report.kind, report.sequence, report.start) for report in damage] == [
        ("chain", 3, starts[2]),
        ("chain", 4, starts[2] + len(line)),
    ]


def test_a_place_in_the_chain_that_stands_in_a_nested_map_is_nobodys(layout: Layout):
    """A record cannot pretend to follow by carrying the right words inside a value."""
    directory = a_stream(layout, 3)
    path = only_segment(directory)
    data = path.read_bytes()
    starts = offsets(data)
    before = read_all(directory)[0][1]
    words = {
        "audit.sequence.number": 3,
        "audit.sequence.previous_hash": before.sha256,
        "audit.sequence.stream_id": directory.name,
    }
    for name in ("aaa", "zzz"):  # before and behind the true ones
        line = forged(directory, 3, "e" * 64, **{name: words})
        assert sequence_fragment(3, before.sha256, directory.name) in line
        path.write_bytes(data[: starts[2]] + line + data[starts[3] :])
        assert [(report.kind, report.sequence) for report in read_all(directory)[1]] == [("chain", 3), ("chain", 4)]
        place = place_of(line[86:-2])
        assert place is not None
        assert place.previous_hash == "e" * 64


@pytest.mark.parametrize(
    "canonical",
    [
        b"{}",
        b"[]",
        b"not json",
        b'{"attributes":{}}',
        b'{"attributes":{"audit.sequence.number":7,"audit.sequence.stream_id":{"stringValue":"s"}}}',
        b'{"attributes":{"audit.sequence.number":{"intValue":"x"},"audit.sequence.stream_id":{"stringValue":"s"}}}',
        b'{"attributes":{"audit.sequence.number":{"intValue":"1"}}}',
        b"[" * 100_000,
    ],
)
def test_a_line_that_names_no_place_is_foreign(layout: Layout, canonical: bytes):
    """Whatever else has a right hash is stepped over."""
    directory = a_stream(layout, 2)
    path = only_segment(directory)
    with_line(path, 1, make_line(canonical)[0])
    records, damage = read_all(directory)
    assert [record.sequence for record in records] == [1, 2, 3]
    assert [report.kind for report in damage] == ["foreign"]


# -- segments --------------------------------------------------------------------------------------------------


def test_reading_may_begin_at_any_record_of_any_segment(layout: Layout):
    """``after=n`` gives exactly what comes behind, wherever segments begin."""
    directory = a_stream(layout, 30, segment_bytes=3000)
    assert len(list_segments(directory)) > 4
    for after in range(33):
        records, damage = read_all(directory, after=after, records_max=4)
        assert [record.sequence for record in records] == list(range(after + 1, 32))
        assert damage == []


def test_a_cursor_beyond_the_tail_finds_nothing_and_says_where_the_stream_ends(layout: Layout):
    """What was delivered and then lost by power loss is a state with a name, not an error."""
    directory = a_stream(layout, 5)
    reader = StreamReader(directory, after=100)
    assert reader.read(records_max=10, bytes_max=1 << 20, final=True) == []
    assert reader.last_sequence == 6
    assert reader.damage == []


def test_a_deleted_segment_is_a_hole_of_known_size(layout: Layout):
    """Whichever segment somebody deletes, the records that were in it are missed, and only those."""
    directory = a_stream(layout, 30, segment_bytes=3000)
    segments = list_segments(directory)
    kept = {segment.path: segment.path.read_bytes() for segment in segments}
    for index, segment in enumerate(segments[:-1]):
        segment.path.unlink()
        following = segments[index + 1].first
        records, damage = read_all(directory)
        assert [r.sequence for r in records] == [n for n in range(1, 32) if not segment.first <= n < following]
        assert [(d.kind, d.sequence, d.count) for d in damage] == [("hole", segment.first, following - segment.first)]
        segment.path.write_bytes(kept[segment.path])
    segments[-1].path.unlink()
    assert sequences(directory) == list(range(1, segments[-1].first))


def note_removed(layout: Layout, directory: Path, first: int, last: int) -> None:
    """A ledger that names these records as removed, and has a torn line."""
    line = LedgerLine(
        removed_ns=1, stream_id=directory.name, first=first, last=last, count=last - first + 1, bytes=1,
        first_previous_hash="", last_hash="", why="delivered", unseen={}, damage=[],
    )  # fmt: skip
    layout.ledger.write_bytes(msgspec.json.encode(line) + b"\nhalf a li")


def test_a_segment_that_the_ledger_names_was_removed_and_is_no_hole(layout: Layout):
    """What was removed in order is counted apart from what is missing."""
    directory = a_stream(layout, 30, segment_bytes=3000)
    first, second, third, *_ = list_segments(directory)
    for segment in (first, second):
        segment.path.unlink()
    note_removed(layout, directory, 1, second.first - 1)
    reader = StreamReader(directory)
    records = reader.read(records_max=100, bytes_max=1 << 20, final=True)
    assert [record.sequence for record in records] == list(range(third.first, 32))
    assert reader.removed == second.first - 1
    assert [(d.kind, d.sequence, d.count) for d in reader.damage] == [
        ("hole", second.first, third.first - second.first)
    ]


def test_a_truncated_segment_before_another_one_is_a_hole(layout: Layout):
    """A segment ends where the next one begins: what is missing at its end is known."""
    directory = a_stream(layout, 30, segment_bytes=3000)
    _, second, third, *_ = list_segments(directory)
    data = second.path.read_bytes()
    starts = offsets(data)
    second.path.write_bytes(data[: starts[1]])
    lost = third.first - second.first - 1
    records, damage = read_all(directory)
    assert len(records) == 31 - lost
    assert damage == [DamageReport("hole", second.path.name, starts[1], starts[1], second.first + 1, lost)]
    second.path.write_bytes(data[: starts[1] + 20])
    records, damage = read_all(directory)
    assert damage == [DamageReport("hole", second.path.name, starts[1], starts[1] + 20, second.first + 1, lost)]


def test_an_empty_segment_is_nothing(layout: Layout):
    """The writer died between making a segment and its first record, or has just made it."""
    directory = a_stream(layout, 3)
    segment_path(directory, 5).touch()
    for final in (False, True):
        records, damage = read_all(directory, final=final)
        assert [record.sequence for record in records] == [1, 2, 3, 4]
        assert damage == []


def moved_after_a_failed_sync(directory: Path, first: int, *, spoil: bool) -> None:
    """Repeat the records from ``first`` on in a new segment, as the writer does after a failed sync."""
    path = only_segment(directory)
    data = path.read_bytes()
    starts = offsets(data)
    segment_path(directory, first).write_bytes(data[starts[first - 1] :])
    if spoil:
        path.write_bytes(data[: starts[first - 1]] + bytes(len(data) - starts[first - 1]))


@pytest.mark.parametrize("spoil", [False, True])
@pytest.mark.parametrize("first", [2, 5, 9])
def test_records_that_a_failed_sync_moved_are_read_once(layout: Layout, first: int, spoil: bool):
    """The later segment counts; what the kernel did to the end of the earlier one is no damage."""
    directory = a_stream(layout, 8)
    moved_after_a_failed_sync(directory, first, spoil=spoil)
    for after in range(9):
        records, damage = read_all(directory, after=after, records_max=2)
        assert [record.sequence for record in records] == list(range(after + 1, 10))
        assert damage == []


def test_a_reader_that_is_ahead_of_what_a_failed_sync_moves_reads_nothing_twice(layout: Layout):
    """Records are moved while they are read: the reader goes on in the new segment, behind what it had."""
    directory = a_stream(layout, 8)
    reader = StreamReader(directory)
    got = [r.sequence for r in reader.read(records_max=6, bytes_max=1 << 20, final=False)]
    moved_after_a_failed_sync(directory, 4, spoil=True)
    while records := reader.read(records_max=2, bytes_max=1 << 20, final=False):
        got += [record.sequence for record in records]
    assert got == list(range(1, 10))
    assert reader.damage == []


def test_a_hole_in_what_was_not_moved_is_still_found(layout: Layout):
    """Damage before the moved records is a hole; only what stands in both segments is forgiven."""
    directory = a_stream(layout, 8)
    moved_after_a_failed_sync(directory, 6, spoil=True)
    path = segment_path(directory, 1)
    data = bytearray(path.read_bytes())
    starts = offsets(bytes(data))
    data[starts[4] + 200] ^= 1  # record 5, the last that was not moved
    path.write_bytes(data)
    records, damage = read_all(directory)
    assert [record.sequence for record in records] == [1, 2, 3, 4, 6, 7, 8, 9]
    assert [(d.kind, d.sequence, d.count) for d in damage] == [("hole", 5, 1)]


def test_a_stream_without_segments_or_without_a_directory_is_empty(layout: Layout, tmp_path: Path):
    """Nothing there is nothing to read, and no error."""
    empty = layout.streams / "empty"
    empty.mkdir()
    assert read_all(empty) == ([], [])
    assert read_all(tmp_path / "gone") == ([], [])
    assert StreamReader(empty).last_sequence == 0


# -- limits, and beside the writer -------------------------------------------------------------------------------


def test_reading_stops_at_the_limits_and_goes_on_from_there(layout: Layout):
    """A batch has no more records than asked for, and only its last record exceeds the bytes."""
    directory = a_stream(layout, 40, segment_bytes=3000)
    reader = StreamReader(directory)
    got: list[int] = []
    while records := reader.read(records_max=3, bytes_max=1 << 20, final=True):
        assert len(records) <= 3
        got += [record.sequence for record in records]
    assert got == list(range(1, 42))
    reader = StreamReader(directory)
    got = []
    while records := reader.read(records_max=100, bytes_max=1500, final=True):
        assert sum(len(record.canonical) for record in records[:-1]) < 1500
        got += [record.sequence for record in records]
    assert got == list(range(1, 42))


def test_nothing_behind_the_writers_end_is_read(layout: Layout):
    """Of a living stream in this process, only what the writer calls written is read."""
    writer = make_writer(layout)
    writer.append(make_entry("r-2"))
    end = writer.end
    writer.append(make_entry("r-3"))
    reader = StreamReader(writer.directory)
    assert [r.sequence for r in reader.read(records_max=9, bytes_max=9999, final=False, end=end)] == [1, 2]
    assert reader.read(records_max=9, bytes_max=9999, final=False, end=end) == []
    assert [r.sequence for r in reader.read(records_max=9, bytes_max=9999, final=False, end=writer.end)] == [3]
    writer.close()


class Counting(Files):
    """Notes the names of the reader's system calls, and how much was read."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.bytes_read = 0
        for name in ("open", "fstat", "pread", "close", "listdir"):
            setattr(self, name, self._noting(name, getattr(OS_FILES, name)))

    def _noting(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*arguments: Any) -> Any:
            self.calls.append(name)
            result = call(*arguments)
            self.bytes_read += len(result) if name == "pread" else 0
            return result

        return noting

    def taken(self) -> list[str]:
        calls, self.calls = self.calls, []
        return calls


def test_beside_the_writer_a_read_takes_three_system_calls(layout: Layout):
    """Each call gives the interpreter to a busy application: what the writer's end says need not be asked again."""
    writer = make_writer(layout)
    files = Counting()
    reader = StreamReader(writer.directory, files=files)
    assert len(reader.read(records_max=9, bytes_max=9999, final=False, end=writer.end)) == 1
    assert files.taken() == ["listdir", "open", "pread", "close"]
    for number in range(3):
        writer.append(make_entry(f"r-{number}"))
        assert len(reader.read(records_max=9, bytes_max=9999, final=False, end=writer.end)) == 1
        assert files.taken() == ["open", "pread", "close"]
        assert reader.read(records_max=9, bytes_max=9999, final=False, end=writer.end) == []
        assert files.taken() == []
    writer.close()


@pytest.mark.parametrize(("size", "most"), [(0, 64), (10_000, 2)])
def test_a_reader_beside_an_application_gives_way_often(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, size: int, most: int
):
    """After some ten microseconds of work: that is many short records or a few long ones."""
    directory = a_stream(layout, 200, size=size)
    calls: list[None] = []
    monkeypatch.setattr(reader_module, "let_others_run", lambda: calls.append(None))
    for yielding in (False, True):
        reader = StreamReader(directory, yielding=yielding)
        assert len(reader.read(records_max=999, bytes_max=1 << 30, final=True)) == 201
        assert len(calls) >= 201 / most if yielding else not calls


def test_a_directory_is_listed_once_for_each_segment_that_ended(layout: Layout):
    """However many batches are read of a segment; only behind the last one is looked every time."""
    directory = a_stream(layout, 100, segment_bytes=5000)
    segments = len(list_segments(directory))
    files = Counting()
    reader = StreamReader(directory, files=files)
    got: list[int] = []
    while not got or got[-1] < list_segments(directory)[-1].first:
        got += [record.sequence for record in reader.read(records_max=1, bytes_max=9999, final=True)]
    assert got == list(range(1, len(got) + 1))
    assert files.taken().count("listdir") == 1 + segments
    assert segments < len(got) / 4


def test_small_batches_do_not_read_a_segment_many_times_over(layout: Layout):
    """What is read from the disk and not wanted now is read once more: so it is little."""
    directory = a_stream(layout, 2000, size=2000)
    size = only_segment(directory).stat().st_size
    files = Counting()
    reader = StreamReader(directory, files=files)
    count = 0
    while records := reader.read(records_max=100, bytes_max=1 << 30, final=True):
        count += len(records)
    assert count == 2001
    assert files.bytes_read < 1.5 * size


def test_what_a_failed_sync_moved_is_not_read_where_it_stood(layout: Layout):
    """The reader leaves the earlier segment at once, however much of it is left."""
    directory = a_stream(layout, 1500, size=2000)
    moved_after_a_failed_sync(directory, 2, spoil=False)
    size = segment_path(directory, 2).stat().st_size
    files = Counting()
    reader = StreamReader(directory, files=files)
    assert len(reader.read(records_max=9999, bytes_max=1 << 30, final=True)) == 1501
    assert files.bytes_read < 1.5 * size


def test_a_segment_that_was_cut_short_behind_the_readers_back_is_read_to_its_end(layout: Layout):
    """The writer's end may be behind the file's: the rest is awaited, and a hole when the writer has moved on."""
    writer = make_writer(layout, segment_bytes=5000)
    while writer.end[0] == 1:
        before = writer.end
        writer.append(make_entry())
    path = segment_path(writer.directory, 1)
    data = path.read_bytes()
    last_but_one, last = offsets(data)[-3:-1]
    path.write_bytes(data[: last + 20])
    whole = data[:last].count(b"\n")
    reader = StreamReader(writer.directory)
    got = [r.sequence for r in reader.read(records_max=99, bytes_max=99999, final=False, end=before)]
    assert got == list(range(1, whole + 1))
    path.write_bytes(data[:last_but_one])
    assert reader.read(records_max=99, bytes_max=99999, final=False, end=before) == []
    path.write_bytes(data[: last + 20])
    first = writer.end[0]
    assert [r.sequence for r in reader.read(records_max=99, bytes_max=99999, final=False, end=writer.end)] == [first]
    assert [(d.kind, d.sequence, d.count) for d in reader.damage] == [("hole", whole + 1, first - whole - 1)]
    writer.close()


def test_a_writer_that_moves_on_after_its_end_was_asked_is_followed(layout: Layout):
    """An old end names a segment that has ended meanwhile: nothing behind it is read, and nothing is left out."""
    writer = make_writer(layout, segment_bytes=3000)
    reader = StreamReader(writer.directory)
    got: list[int] = []
    written = 1
    for number in range(40):
        end, behind = writer.end, written
        for _ in range(number % 7):
            writer.append(make_entry())
            written += 1
        new = [r.sequence for r in reader.read(records_max=99, bytes_max=99999, final=False, end=end)]
        got += new
        assert got[-1] == behind
    got += [r.sequence for r in reader.read(records_max=99, bytes_max=99999, final=False, end=writer.end)]
    assert got == list(range(1, written + 1))
    assert reader.damage == []
    assert len(list_segments(writer.directory)) > 10
    writer.close()


def test_a_segment_that_is_removed_after_it_was_seen_is_no_hole(layout: Layout):
    """The reader knows which segment comes next, and retention takes it before it is read."""
    directory = a_stream(layout, 30, segment_bytes=3000)
    _, second, third, *_ = list_segments(directory)
    reader = StreamReader(directory)
    got = [record.sequence for record in reader.read(records_max=1, bytes_max=9999, final=True)]
    second.path.unlink()
    note_removed(layout, directory, second.first, third.first - 1)
    while records := reader.read(records_max=3, bytes_max=9999, final=True):
        got += [record.sequence for record in records]
    assert got == [*range(1, second.first), *range(third.first, 32)]
    assert reader.damage == []
    assert reader.removed == third.first - second.first


def follow(writer: StreamWriter, reader: StreamReader, last: int, *, with_end: bool) -> list[int]:
    """Read until a record has come."""
    got: list[int] = []
    while not got or got[-1] < last:
        end = writer.end if with_end else None
        got += [r.sequence for r in reader.read(records_max=50, bytes_max=1 << 20, final=False, end=end)]
    return got


@pytest.mark.parametrize("with_end", [True, False], ids=["same process", "sidecar"])
def test_reading_while_the_writer_appends_and_rolls(layout: Layout, with_end: bool):
    """A reader beside the writer gets every record once, in order, while segments come."""
    writer = make_writer(layout, segment_bytes=20_000)
    count = 2000

    def write() -> None:
        for number in range(count):
            writer.append(make_entry(f"r-{number}"))

    thread = threading.Thread(target=write)
    thread.start()
    reader = StreamReader(writer.directory, yielding=True)
    got = follow(writer, reader, count + 1, with_end=with_end)
    thread.join()
    assert got == list(range(1, count + 2))
    assert reader.damage == []
    assert len(list_segments(writer.directory)) > 20
    writer.close()
