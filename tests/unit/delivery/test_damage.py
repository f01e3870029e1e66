"""Damage in the journal on the way to a destination: whole records arrive, damaged ones do not, and it is said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from otel_audit.batch import StoredRecord
from otel_audit.delivery.shipment import Shipment, open_shipment
from otel_audit.journal.cursor import Cursor
from otel_audit.journal.damage import DamageReport
from otel_audit.journal.files import Files
from otel_audit.journal.segment import list_segments
from otel_audit.journal.streams import StreamDirectory
from support.delivery import Sink, destination
from support.journal import make_entry, make_layout, make_writer, read_all


class NoSync(Files):
    """The real system calls, but for those that wait for a device: there are thousands here."""

    fsync = staticmethod(lambda _: None)
    fdatasync = staticmethod(lambda _: None)


class Stream:
    """A dead process's stream that is damaged anew for each delivery."""

    def __init__(self, root: Path, count: int) -> None:
        layout = make_layout(root, NoSync())
        writer = make_writer(layout, required=["sink"])
        for number in range(count):
            writer.append(make_entry(f"r-{number}"))
        writer.close()
        found = self.stream = StreamDirectory(layout, writer.directory)
        self.path = list_segments(found.path)[0].path
        self.data = self.path.read_bytes()
        self.records = {record.sequence: record for record in read_all(found.path)[0]}
        self.last = max(self.records)

    @property
    def ends(self) -> list[int]:
        """Offset behind each line."""
        return [place + 1 for place, byte in enumerate(self.data) if byte == 0x0A]

    def deliver(self, data: bytes) -> tuple[list[StoredRecord], Cursor, list[DamageReport]]:
        """Deliver it with these bytes: what arrived, where the cursor is, and what ``recovery.json`` says."""
        self.path.write_bytes(data)
        (self.stream.path / "cursors" / "sink").unlink(missing_ok=True)
        report = self.stream.path / "recovery.json"
        report.unlink(missing_ok=True)
        sink = Sink()
        options: dict[str, Any] = {}
        shipment = open_shipment(self.stream, destination(None, **options))
        assert isinstance(shipment, Shipment)
        while not shipment.finished:
            shipment.ship(sink, final=True, end=None)
        shipment.close()
        cursor = self.stream.cursor_file("sink").load() or Cursor()
        said = msgspec.json.decode(report.read_bytes(), type=list[DamageReport]) if report.exists() else []
        assert all(record.canonical == self.records[record.sequence].canonical for record in sink.accepted)
        assert sink.sequences == sorted(set(sink.sequences)), "once each, in order"
        return sink.accepted, cursor, said


@pytest.fixture
def stream(tmp_path: Path) -> Iterator[Stream]:
    """Five records, with the one that says that logging began."""
    yield Stream(tmp_path, 4)


each = pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.slow)])


@each
def test_a_torn_tail_is_reported_and_all_before_it_arrives(stream: Stream, step: int) -> None:
    """Cut at every byte of the last two lines: the lines that are whole are delivered."""
    begin = stream.ends[-3]
    for size in {*range(begin, len(stream.data), step), *stream.ends[-3:-1]}:
        arrived, cursor, said = stream.deliver(stream.data[:size])
        whole = sum(end - 1 <= size for end in stream.ends)  # a line without its newline is whole
        assert len(arrived) == cursor.acknowledged == whole
        on_a_border = any(size == end for end in stream.ends)
        assert bool(said) != on_a_border
        assert all(report.segment == stream.path.name and report.stop <= size for report in said)


@each
def test_each_flipped_bit_costs_that_record_at_most_and_is_reported(stream: Stream, step: int) -> None:
    """Every bit of one line in the middle and of the newlines around it."""
    begin, end = stream.ends[1] - 1, stream.ends[2]
    for place in {*range(begin, end, step), end - 1}:
        for bit in range(place % step % 8, 8, min(step, 8)):
            hurt = bytearray(stream.data)
            hurt[place] ^= 1 << bit
            arrived, cursor, said = stream.deliver(bytes(hurt))
            only_newline = place in (begin, end - 1)
            expected = [number for number in stream.records if only_newline or number != 3]
            assert [record.sequence for record in arrived] == expected, (place, bit)
            assert cursor.acknowledged == stream.last
            assert cursor.damaged == (0 if only_newline else 1)
            assert said


def test_a_zeroed_page_is_a_hole_between_what_arrives(tmp_path: Path) -> None:
    """As a power loss leaves it: both sides are delivered, and the report says which records are missing, and where."""
    stream = Stream(tmp_path, 40)
    for begin in range(0, stream.ends[-2] - 4096, 1500):
        data = stream.data[:begin] + bytes(4096) + stream.data[begin + 4096 :]
        arrived, cursor, said = stream.deliver(data)
        starts = [0, *stream.ends[:-1]]
        hit = {
            number
            for number, (start, end) in enumerate(zip(starts, stream.ends, strict=True), 1)
            if start < begin + 4096 and begin < end - 1
        }
        assert {record.sequence for record in arrived} == set(stream.records) - hit
        assert cursor.damaged == len(hit)
        (hole,) = [report for report in said if report.kind == "hole"]
        assert (hole.sequence, hole.count) == (min(hit), len(hit))
        assert hole.start <= begin
        assert hole.stop >= begin + 4096
