"""Limits on our side: how many records and requests go in a second, and that waiting for them is no failure."""

from __future__ import annotations

import time
from typing import Any

import pytest

from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.delivery.pace import Bucket, PacedExporter
from otel_audit.delivery.shipper import Shipper, drain
from otel_audit.errors import PendingExportError, RetryableExportError
from otel_audit.journal.journal import Journal
from otel_audit.protocols import ExportResult
from support.delivery import Ships, Sink, append, dead_stream, destination, own_stream, until


class Clock:
    """A clock that stands still unless it is moved."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def batch_of(first: int, last: int) -> RecordBatch:
    """Records with these numbers."""
    return RecordBatch("stream", {}, [StoredRecord(number, "", b"{}") for number in range(first, last + 1)])


def accepted_of(exporter: PacedExporter, batch: RecordBatch) -> tuple[int, float | None]:
    """How many records went, and how long to wait for more."""
    try:
        exporter.export(batch, 1.0)
    except PendingExportError as error:
        return error.accepted, error.retry_after_s
    return len(batch.records), None


@pytest.mark.parametrize("per_s", [0.25, 1.0, 7.0, 33.3, 1000.0])
def test_on_the_average_the_rate_is_kept(per_s: float) -> None:
    """Whoever takes one whenever it may gets no more than the rate and the first second's, and no less."""
    clock = Clock()
    bucket = Bucket(per_s, clock)
    taken = 0
    begun = clock.now_s
    while clock.now_s - begun < 40 / per_s:
        granted, wait_s = bucket.grant(1)
        clock.now_s += wait_s
        bucket.take(granted)
        taken += granted
    assert 39 <= taken <= 41 + bucket.size


def test_no_more_records_go_than_may() -> None:
    """A second's worth at once, then as they become due; what may not go is neither sent nor lost."""
    clock = Clock()
    sink = Sink()
    exporter = PacedExporter(sink, 10.0, None, clock)
    assert accepted_of(exporter, batch_of(1, 25)) == (10, 0.5)
    assert accepted_of(exporter, batch_of(11, 25)) == (0, 0.5)
    clock.now_s += 0.75
    assert accepted_of(exporter, batch_of(11, 25)) == (7, pytest.approx(0.45))
    clock.now_s += 5.0
    assert accepted_of(exporter, batch_of(18, 25)) == (8, None)
    assert sink.sequences == list(range(1, 26))


def test_an_exporter_that_makes_many_requests_says_how_many() -> None:
    """One record a request: the limit on requests limits records."""
    clock = Clock()
    sink = Sink()
    sink.records_per_request = 2  # type: ignore[attr-defined]
    exporter = PacedExporter(sink, None, 3.0, clock)
    assert accepted_of(exporter, batch_of(1, 20)) == (6, pytest.approx(1 / 3))
    clock.now_s += 1.0
    assert accepted_of(exporter, batch_of(7, 9)) == (3, None)
    assert accepted_of(exporter, batch_of(10, 13)) == (2, pytest.approx(1 / 3))


def test_without_such_a_number_an_export_is_a_request() -> None:
    """However many records are in it."""
    clock = Clock()
    exporter = PacedExporter(Sink(), None, 0.5, clock)
    assert accepted_of(exporter, batch_of(1, 500)) == (500, None)
    assert accepted_of(exporter, batch_of(501, 502)) == (0, 2.0)


def test_errors_of_the_exporter_count_from_the_start_of_the_batch() -> None:
    """What went before the failing part is accepted, with the ids that came back."""
    exporter: Any = PacedExporter(
        Sink(ExportResult({"a": "1"}), RetryableExportError("gone", accepted=1, response_ids={"b": "2"})),
        2.0, None, clock := Clock(),
    )  # fmt: skip
    with pytest.raises(PendingExportError):
        exporter.export(batch_of(1, 5), 1.0)
    clock.now_s += 1.0
    with pytest.raises(RetryableExportError, match="gone") as caught:
        exporter.export(batch_of(3, 5), 1.0)
    assert caught.value.accepted == 1
    assert caught.value.response_ids == {"b": "2"}


def test_a_paced_destination_gets_everything_and_nothing_fails(journal: Journal, ships: Ships) -> None:
    """The shipper waits, on its own thread, and is at no time retrying or blocked."""
    sink = Sink()
    shipper = ships(sink, records_per_s=200.0)
    ids = append(journal, 450)
    begun = time.monotonic()
    shipper.start()
    assert shipper.wait_for(own_stream(journal), 451, timeout_s=60.0)
    assert time.monotonic() - begun > 1.0
    assert sink.ids == ids
    assert len(sink.requests) >= 3
    assert shipper.state.failures == 0
    assert shipper.state.state in ("delivering", "idle")
    assert shipper.state.last_success_ns > 0


def test_a_stream_that_goes_on_being_written_keeps_no_other_waiting(journal: Journal, ships: Ships) -> None:
    """Neither at a paced destination nor at one whose answers are pending: what a dead process left gets its turn."""
    left = dead_stream(journal.layout.root, 60)
    sink = Sink()
    shipper = ships(sink, records_per_s=100.0)
    append(journal, 100)
    shipper.start()
    deadline = time.monotonic() + 60
    while not set(left) <= set(sink.ids):
        assert time.monotonic() < deadline
        append(journal, 1)
        shipper.notify()
        time.sleep(0.015)


def test_a_pending_stream_lets_others_go_on(journal: Journal, ships: Ships) -> None:
    """The own stream is pending for ever, the other one is delivered."""
    left = dead_stream(journal.layout.root, 5)
    own: list[str] = []

    class Slow(Sink):
        def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
            if batch.stream_id in own:
                raise PendingExportError("not yet", retry_after_s=0.01)
            return super().export(batch, timeout_s)

    append(journal, 3)
    own.append(own_stream(journal))
    sink = Slow()
    shipper = ships(sink)
    shipper.start()
    until(lambda: sink.ids == left)
    assert shipper.state.failures == 0


def test_draining_waits_for_a_paced_destination(journal: Journal) -> None:
    """That nothing may be sent for now does not mean that nothing is left."""
    append(journal, 60)
    sink = Sink()
    shipper = Shipper(journal, destination(sink, records_per_s=40.0))
    assert drain(shipper, timeout_s=30.0)
    shipper.close()
    assert len(sink.sequences) == 61


def test_what_is_pending_is_asked_for_again_and_is_no_failure(
    journal: Journal, ships: Ships, caplog: pytest.LogCaptureFixture
) -> None:
    """A receiver that has the records and answers later: nothing is said, and the same batch is exported again."""
    sink = Sink(*[PendingExportError("not yet", retry_after_s=0.01)] * 3)
    shipper = ships(sink)
    append(journal, 2)
    shipper.start()
    assert shipper.wait_for(own_stream(journal), 3, timeout_s=20.0)
    assert [request[0] for request in sink.requests[:4]] == [1, 1, 1, 1]
    assert shipper.state.failures == 0
    assert caplog.records == []


def test_a_refusal_within_a_paced_batch_is_settled(journal: Journal, ships: Ships) -> None:
    """Splitting and pace together: one dead letter, the rest delivered."""
    sink = Sink(refuses=lambda record: record.sequence == 7)
    shipper = ships(sink, records_per_s=300.0)
    append(journal, 20)
    shipper.start()
    assert shipper.wait_for(own_stream(journal), 21, timeout_s=60.0)
    assert sink.sequences == [number for number in range(1, 22) if number != 7]
    assert (shipper.delivered, shipper.dead_lettered) == (20, 1)
