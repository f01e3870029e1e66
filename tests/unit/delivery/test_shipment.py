"""One stream to one destination: the cursor moves only over what is settled, whatever happens in between."""

from __future__ import annotations

import errno
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_audit.batch import RecordBatch
from otel_audit.delivery.deadletters import read_dead_letters
from otel_audit.delivery.shipment import Shipment, open_shipment
from otel_audit.errors import (
    BlockedExportError,
    RejectedExportError,
    RetryableExportError,
)
from otel_audit.journal.cursor import Cursor
from otel_audit.journal.files import OS_FILES, Files
from otel_audit.journal.layout import Layout
from otel_audit.journal.reader import StreamReader
from otel_audit.journal.segment import list_segments
from otel_audit.journal.streams import StreamDirectory, list_streams
from otel_audit.protocols import ExportResult
from otel_audit.testing.files import FaultyFiles
from support.delivery import Sink, dead_stream, destination

COUNT = 9
LAST = COUNT + 1  # the first record says that logging began


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A journal with one stream of a dead process, ten records with the one that says that logging began."""
    dead_stream(tmp_path / "journal", COUNT)
    yield tmp_path / "journal"


def shipment_of(root: Path, files: Files = OS_FILES, **options: object) -> Shipment:
    """The stream on its way to a destination."""
    [stream] = list_streams(Layout(root, files=files))
    shipment = open_shipment(stream, destination(None, **options))
    assert shipment is not None
    return shipment


def ship(shipment: Shipment, sink: Sink, **options: bool) -> int:
    """Move one batch."""
    return shipment.ship(sink, final=True, end=None, **options)


def stored_cursor(shipment: Shipment) -> Cursor | None:
    """What the file says."""
    return shipment.stream.cursor_file("sink").load()


def segment_of(root: Path) -> Path:
    """The file with the records."""
    [stream] = list_streams(Layout(root))
    return list_segments(stream.path)[0].path


def test_a_stream_is_delivered_and_finished(root: Path) -> None:
    """Everything arrives in order under the resource of the process that wrote it; then there is nothing more."""
    sink = Sink()
    shipment = shipment_of(root)
    assert ship(shipment, sink) == LAST
    assert not shipment.finished
    assert ship(shipment, sink) == 0
    assert shipment.finished
    assert sink.sequences == list(range(1, LAST + 1))
    assert sink.batches[0].resource == {"service.name": "test"}
    assert sink.batches[0].stream_id == shipment.stream.stream_id
    assert stored_cursor(shipment) == Cursor(acknowledged=LAST, delivered=LAST)


def test_batches_are_as_large_as_is_allowed(root: Path) -> None:
    """By count and by size; a record that is larger than a batch may be goes alone."""
    sink = Sink()
    shipment = shipment_of(root, records_max=4)
    while ship(shipment, sink):
        pass
    assert [len(request) for request in sink.requests] == [4, 4, 2]
    shipment.close()
    sink = Sink()
    shipment = shipment_of(root, name="other", bytes_max=1)
    while ship(shipment, sink):
        pass
    assert [len(request) for request in sink.requests] == [1] * LAST


def test_another_process_goes_on_where_the_cursor_is(root: Path) -> None:
    """Nothing that was acknowledged is sent again."""
    first = shipment_of(root, records_max=4)
    ship(first, Sink())
    first.close()
    sink = Sink()
    ship(shipment_of(root), sink)
    assert sink.sequences == list(range(5, LAST + 1))


def test_a_stream_is_shipped_by_one_at_a_time(root: Path) -> None:
    """The second gets nothing until the first lets go."""
    first = shipment_of(root)
    [stream] = list_streams(Layout(root))
    assert open_shipment(stream, destination(None)) is None
    other = open_shipment(stream, destination(None, "other"))
    assert other is not None
    first.close()
    assert open_shipment(stream, destination(None)) is not None


@pytest.mark.parametrize("kind", [RetryableExportError, BlockedExportError])
def test_a_failure_moves_nothing(root: Path, kind: type[RetryableExportError]) -> None:
    """The cursor stands still, and the next try sends the same again."""
    sink = Sink(kind("down"))
    shipment = shipment_of(root)
    with pytest.raises(kind):
        ship(shipment, sink)
    assert stored_cursor(shipment) is None
    assert ship(shipment, sink) == LAST
    assert sink.requests[0] == sink.requests[1]
    assert sink.sequences == list(range(1, LAST + 1))


def test_what_was_accepted_before_a_failure_is_not_sent_again(root: Path) -> None:
    """The receiver took three and then went away: the cursor is at three, and four is the next."""
    sink = Sink(RetryableExportError("gone", accepted=3))
    shipment = shipment_of(root)
    with pytest.raises(RetryableExportError):
        ship(shipment, sink)
    assert stored_cursor(shipment) == Cursor(acknowledged=3, delivered=3)
    ship(shipment, sink)
    assert sink.requests[1] == list(range(4, LAST + 1))


def test_a_refused_record_is_a_dead_letter_and_the_others_arrive(root: Path) -> None:
    """The cursor moves past it; it is counted, and kept with the reason."""
    sink = Sink(refuses=lambda record: record.sequence == 4)
    shipment = shipment_of(root)
    assert ship(shipment, sink) == LAST
    assert stored_cursor(shipment) == Cursor(acknowledged=LAST, delivered=LAST - 1, dead_lettered=1)
    [letter] = read_dead_letters(shipment.stream.layout, "sink")
    assert letter.sequence == 4
    assert letter.reason == "one of them is bad"
    assert letter.status == 400
    assert sink.sequences == [number for number in range(1, LAST + 1) if number != 4]


def test_a_named_refusal_behind_an_undecided_record_waits_for_it(root: Path) -> None:
    """The cursor and the dead letters move together: it is buried once, when everything before it is settled."""
    shipment = shipment_of(root)
    taken = [number for number in range(1, LAST + 1) if number not in (3, 5)]
    bad = RejectedExportError("bad", status=400)
    sink = Sink(
        RetryableExportError("busy", taken=taken, refused={5: bad}),
        RejectedExportError("bad", refused={5: bad}),
        None,
        bad,
    )
    with pytest.raises(RetryableExportError):
        ship(shipment, sink)
    assert stored_cursor(shipment) == Cursor(acknowledged=2, delivered=2)
    assert list(read_dead_letters(shipment.stream.layout, "sink")) == []
    ship(shipment, sink)
    assert sink.requests[1:] == [[3, 5], [3], [5]]
    assert stored_cursor(shipment) == Cursor(acknowledged=LAST, delivered=LAST - 1, dead_lettered=1)
    assert [letter.sequence for letter in read_dead_letters(shipment.stream.layout, "sink")] == [5]


def test_a_destination_that_refuses_everything_gets_no_dead_letter(root: Path) -> None:
    """A typing error in its address must not empty the journal into the dead letters."""
    shipment = shipment_of(root)
    for _ in range(3):
        with pytest.raises(BlockedExportError):
            ship(shipment, Sink(refuses=lambda _: True))
    assert stored_cursor(shipment) is None
    assert list(read_dead_letters(shipment.stream.layout, "sink")) == []
    assert shipment.refused_to == LAST


def test_evidence_that_came_since_settles_a_refused_batch(root: Path) -> None:
    """The destination refused all of this stream and accepted something else since: now they are dead letters."""
    sink = Sink(refuses=lambda _: True)
    shipment = shipment_of(root)
    with pytest.raises(BlockedExportError):
        ship(shipment, sink)
    assert ship(shipment, sink, evidence=True) == LAST
    assert len(list(read_dead_letters(shipment.stream.layout, "sink"))) == LAST
    assert stored_cursor(shipment) == Cursor(acknowledged=LAST, dead_lettered=LAST)
    assert shipment.refused_to == 0


def test_evidence_is_not_kept_over_a_failure(root: Path) -> None:
    """It accepted some, failed, and refuses all since: that may be another fault than the records'."""
    sink = Sink(
        RejectedExportError("bad"), None, RetryableExportError("gone"), refuses=lambda record: record.sequence > 5
    )
    shipment = shipment_of(root)
    with pytest.raises(RetryableExportError):
        ship(shipment, sink)
    assert stored_cursor(shipment) == Cursor(acknowledged=5, delivered=5)
    with pytest.raises(BlockedExportError, match="refuses every record"):
        ship(shipment, sink)
    assert list(read_dead_letters(shipment.stream.layout, "sink")) == []


def test_evidence_is_not_kept_over_a_failure_between_two_parts(root: Path) -> None:
    """A large batch is settled in parts; if the destination fails in between, what it refuses afterwards is kept."""
    dead_stream(root.parent / "large", 999)
    shipment = shipment_of(root.parent / "large")
    sink = Sink(refuses=lambda record: record.sequence > 1)
    ship(shipment, sink)
    settled = len(list(read_dead_letters(shipment.stream.layout, "sink")))
    assert 0 < settled < 999
    sink.script = [RetryableExportError("gone")]
    with pytest.raises(RetryableExportError):
        ship(shipment, sink)
    with pytest.raises(BlockedExportError, match="refuses every record"):
        ship(shipment, sink)
    assert len(list(read_dead_letters(shipment.stream.layout, "sink"))) == settled


def test_what_was_accepted_before_proves_nothing_now(root: Path) -> None:
    """One record was to wait, the others were taken; since then everything is refused: no record's fault."""
    waits = RetryableExportError("too many requests for record 2", taken={1, *range(3, LAST + 1)})
    sink = Sink(waits, refuses=lambda _: True)
    shipment = shipment_of(root)
    with pytest.raises(RetryableExportError):
        ship(shipment, sink)
    with pytest.raises(BlockedExportError, match="refuses every record"):
        ship(shipment, sink)
    assert list(read_dead_letters(shipment.stream.layout, "sink")) == []
    sink.refuses = lambda _: False
    ship(shipment, sink)
    assert sink.sequences == [2]
    assert stored_cursor(shipment) == Cursor(acknowledged=LAST, delivered=LAST)


def test_records_accepted_ahead_are_not_sent_again(root: Path) -> None:
    """Where one was tried out of turn and accepted, it is left out when its turn comes."""
    last_alone = [RejectedExportError("bad")] + [RejectedExportError("bad")] * 47
    sink = Sink(*last_alone, None, RetryableExportError("gone"))
    dead_stream(root.parent / "large", 99)
    shipment = shipment_of(root.parent / "large")
    with pytest.raises(RetryableExportError):
        ship(shipment, sink)
    assert sink.sequences == [100]
    ship(shipment, sink)
    assert sink.requests[-1] == list(range(sink.requests[-1][0], 100))
    assert sorted(sink.sequences) == list(dict.fromkeys(sorted(sink.sequences)))
    cursor = stored_cursor(shipment)
    assert cursor is not None
    assert cursor.acknowledged == 100


def test_a_dead_letter_is_on_the_disk_before_the_cursor_moves(root: Path) -> None:
    """A crash in between repeats the record; the other way round would lose it."""
    order: list[str] = []

    class Watching(Files):
        def fdatasync(self, fd: int) -> None:
            order.append("sync " + Path(f"/proc/self/fd/{fd}").resolve().name)
            super().fdatasync(fd)

        def pwrite(self, fd: int, data: bytes, offset: int) -> int:
            order.append("write " + Path(f"/proc/self/fd/{fd}").resolve().name)
            return super().pwrite(fd, data, offset)

    shipment = shipment_of(root, Watching())
    ship(shipment, Sink(refuses=lambda record: record.sequence == 2))
    assert order.index("sync sink.jsonl") < order.index("write sink")


def test_a_dead_letter_that_cannot_be_written_stops_the_cursor(root: Path) -> None:
    """The refused record stays in the journal until its dead letter is safe."""

    class Faulty(Files):
        broken = True

        def fdatasync(self, fd: int) -> None:
            if self.broken and Path(f"/proc/self/fd/{fd}").resolve().name == "sink.jsonl":
                raise OSError(errno.EIO, "input/output error")
            super().fdatasync(fd)

    files = Faulty()
    sink = Sink(refuses=lambda record: record.sequence == 2)
    shipment = shipment_of(root, files)
    with pytest.raises(OSError, match="input/output"):
        ship(shipment, sink)
    assert stored_cursor(shipment) is None
    files.broken = False
    ship(shipment, sink)
    assert stored_cursor(shipment) == Cursor(acknowledged=LAST, delivered=LAST - 1, dead_lettered=1)


@pytest.mark.parametrize("operation", ["pwrite", "fdatasync"])
def test_a_cursor_that_could_not_be_written_is_written_later(root: Path, operation: str) -> None:
    """What was delivered is counted and not sent again, also where nothing comes after it."""
    files = FaultyFiles()
    sink = Sink(refuses=lambda record: record.sequence == 2)
    shipment = shipment_of(root, files)
    files.fail(operation, errno.EIO, path="*/cursors/sink", times=2)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output"):
            ship(shipment, sink)
        assert shipment.cursor == Cursor()
    requests = len(sink.requests)
    ship(shipment, sink)
    assert len(sink.requests) == requests
    assert shipment.finished
    assert shipment.cursor == Cursor(acknowledged=LAST, delivered=LAST - 1, dead_lettered=1)
    assert stored_cursor(shipment) == shipment.cursor


def test_a_crash_between_dead_letter_and_cursor_repeats_and_loses_nothing(root: Path) -> None:
    """The next process sends the batch again; the dead letter is there twice, known by its stream and number."""

    class Dying(Files):
        def pwrite(self, fd: int, data: bytes, offset: int) -> int:
            if Path(f"/proc/self/fd/{fd}").resolve().name == "sink" and data.strip():
                raise KeyboardInterrupt
            return super().pwrite(fd, data, offset)

    refuses = Sink(refuses=lambda record: record.sequence == 2)
    shipment = shipment_of(root, Dying())
    with pytest.raises(KeyboardInterrupt):
        ship(shipment, refuses)
    shipment.close()
    again = shipment_of(root)
    assert stored_cursor(again) is None
    sink = Sink(refuses=lambda record: record.sequence == 2)
    ship(again, sink)
    letters = list(read_dead_letters(again.stream.layout, "sink"))
    assert {(letter.stream_id, letter.sequence) for letter in letters} == {(again.stream.stream_id, 2)}
    assert {1, *range(3, LAST + 1)} == set(sink.sequences)


def test_many_refused_records_are_settled_bit_by_bit(root: Path) -> None:
    """The cursor moves before all of a large batch is searched, and in the end everything is settled."""
    dead_stream(root.parent / "large", 999)
    shipment = shipment_of(root.parent / "large")
    sink = Sink(refuses=lambda record: record.sequence > 1)
    rounds = 0
    while ship(shipment, sink):
        rounds += 1
    assert rounds > 1
    assert sink.sequences == [1]
    assert stored_cursor(shipment) == Cursor(acknowledged=1000, delivered=1, dead_lettered=999)
    letters = [letter.sequence for letter in read_dead_letters(shipment.stream.layout, "sink")]
    assert letters == list(range(2, 1001))


def test_ids_that_the_destination_gave_are_kept(root: Path) -> None:
    """Those of accepted records, in the file of the destination."""

    def answer(batch: RecordBatch) -> ExportResult:
        return ExportResult({record.record_id: f"their-{record.sequence}" for record in batch.records})

    shipment = shipment_of(root)
    ship(shipment, Sink(answer))
    lines = shipment.stream.layout.acknowledgements("sink").read_text().splitlines()
    assert [json.loads(line)["response_id"] for line in lines] == [f"their-{n}" for n in range(1, LAST + 1)]


def test_an_exporter_that_raises_something_else_is_blocked(root: Path) -> None:
    """Its own mistake is neither a success nor the records' fault; the cause is kept for the log."""
    shipment = shipment_of(root)
    with pytest.raises(BlockedExportError, match="ZeroDivisionError") as caught:
        ship(shipment, Sink(ZeroDivisionError("oops")))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    with pytest.raises(BlockedExportError, match="ConnectionResetError"):
        ship(shipment, Sink(ConnectionResetError()))
    assert stored_cursor(shipment) is None


def test_an_exporter_that_returns_something_else_is_blocked(root: Path) -> None:
    """``return False`` may mean that it failed."""
    shipment = shipment_of(root)
    with pytest.raises(BlockedExportError, match="returned bool"):
        ship(shipment, Sink(lambda _: False))  # type: ignore[arg-type, return-value]
    assert stored_cursor(shipment) is None


def test_a_damaged_cursor_means_all_again(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Duplicates rather than a hole; and it is said."""
    shipment = shipment_of(root)
    ship(shipment, Sink())
    shipment.close()
    shipment.stream.cursor_file("sink").path.write_bytes(b'{"acknow')
    sink = Sink()
    with caplog.at_level(logging.WARNING, "otel_audit"):
        again = shipment_of(root)
        ship(again, sink)
    assert sink.sequences == list(range(1, LAST + 1))
    assert "cursor in stream" in caplog.text
    assert stored_cursor(again) == Cursor(acknowledged=LAST, delivered=LAST)


def damage(root: Path, line: int) -> None:
    """Flip a byte in the middle of a line (numbered from 0)."""
    path = segment_of(root)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[line] = lines[line][:200] + bytes([lines[line][200] ^ 1]) + lines[line][201:]
    path.write_bytes(b"".join(lines))


def test_a_damaged_record_is_counted_and_the_others_arrive(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The hole is in the cursor, in the log and in recovery.json."""
    damage(root, 4)
    sink = Sink()
    shipment = shipment_of(root)
    with caplog.at_level(logging.ERROR, "otel_audit"):
        while ship(shipment, sink):
            pass
    assert sink.sequences == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert stored_cursor(shipment) == Cursor(acknowledged=LAST, delivered=LAST - 1, damaged=1)
    [report] = json.loads((shipment.stream.path / "recovery.json").read_text())
    assert (report["kind"], report["sequence"], report["count"]) == ("hole", 5, 1)
    assert caplog.text.count("is damaged") == 1


def test_a_hole_is_counted_once_whoever_reads_it(root: Path) -> None:
    """The next process that ships the rest of the stream passes the same hole and does not count it again."""
    damage(root, 4)
    first = shipment_of(root, records_max=6)
    ship(first, Sink())
    assert stored_cursor(first) == Cursor(acknowledged=7, delivered=6, damaged=1)
    first.close()
    second = shipment_of(root)
    while ship(second, Sink()):
        pass
    assert stored_cursor(second) == Cursor(acknowledged=LAST, delivered=LAST - 1, damaged=1)
    other = shipment_of(root, name="other")
    while ship(other, Sink()):
        pass
    reports = json.loads((other.stream.path / "recovery.json").read_text())
    assert [report["kind"] for report in reports] == ["hole"]


def test_a_cursor_beyond_the_end_is_named(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Delivered, then lost here by a power failure: nothing is pending, and it is said."""
    shipment = shipment_of(root)
    ship(shipment, Sink())
    shipment.close()
    path = segment_of(root)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:6]))
    sink = Sink()
    with caplog.at_level(logging.WARNING, "otel_audit"):
        again = shipment_of(root)
        assert ship(again, sink) == 0
    assert again.finished
    assert sink.requests == []
    assert "which ends at 6" in caplog.text


def test_a_stream_that_was_removed_meanwhile_is_none(root: Path) -> None:
    """Somebody else delivered the last of it."""
    gone = StreamDirectory(Layout(root), root / "streams" / "gone")
    assert open_shipment(gone, destination(None)) is None


def test_a_living_stream_is_read_up_to_where_its_writer_is(root: Path) -> None:
    """What lies behind is perhaps only half written."""
    shipment = shipment_of(root)
    reader = StreamReader(shipment.stream.path)
    five = sum(len(record.canonical) + 88 for record in reader.read(records_max=5, bytes_max=1 << 20, final=True))
    sink = Sink()
    assert shipment.ship(sink, final=False, end=(1, five)) == 5
    assert shipment.ship(sink, final=False, end=(1, five)) == 0
    assert not shipment.finished
    assert sink.sequences == [1, 2, 3, 4, 5]
