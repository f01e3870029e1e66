"""The thread of a destination: waking, waiting, stopping, and draining without it."""

from __future__ import annotations

import time

import pytest

from otel_audit import context
from otel_audit.delivery.shipper import Shipper, drain
from otel_audit.errors import RejectedExportError, RetryableExportError
from otel_audit.journal.cursor import Cursor, CursorFile
from otel_audit.journal.journal import Journal
from otel_audit.journal.streams import list_streams
from support.delivery import LONG, Ships, Sink, append, destination, make_journal, own_stream, until


def test_the_thread_delivers_what_is_written_while_it_runs(journal: Journal, ships: Ships) -> None:
    """Woken by each notice; nothing has to be asked for."""
    sink = Sink()
    shipper = ships(sink)
    journal.on_written = lambda: (shipper.start(), shipper.notify())[0]
    ids = []
    for _ in range(5):
        ids += append(journal, 3)
        time.sleep(0.01)
    until(lambda: sink.ids == ids)


def test_records_are_gathered_where_there_is_no_backlog(journal: Journal, ships: Ships) -> None:
    """A burst goes in few requests: the thread waits a moment after the first notice."""
    sink = Sink()
    shipper = ships(sink, delay_s=0.3)
    append(journal, 1)
    shipper.start()
    until(lambda: sink.requests)
    for _ in range(50):
        append(journal, 1)
        shipper.notify()
        time.sleep(0.002)
    until(lambda: len(sink.ids) == 51)
    assert len(sink.requests) <= 4


def test_waiting_for_a_record_ends_when_it_is_settled(journal: Journal, ships: Ships) -> None:
    """Gathering is cut short for somebody who waits."""
    shipper = ships(Sink(), delay_s=60.0)
    shipper.start()
    append(journal, 2)
    assert shipper.wait_for(own_stream(journal), 3, timeout_s=20.0)
    assert not shipper.wait_for(own_stream(journal), 4, timeout_s=0.05)


def test_whoever_waits_sees_what_another_process_shipped(journal: Journal, ships: Ships) -> None:
    """A sidecar has the ship lock: its cursor file says how far it is."""
    append(journal, 2)
    other = make_journal(journal.layout.root)
    sidecar = Shipper(other, destination(Sink()), for_living=True)
    assert drain(sidecar, timeout_s=10)
    shipper = ships(Sink())
    shipper.step()
    assert shipper.wait_for(own_stream(journal), 3, timeout_s=0.0)
    sidecar.close()
    other.abandon()


def test_a_cursor_is_never_seen_to_go_back(journal: Journal, ships: Ships, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is stored before the shipment's own cursor moves: whoever reads in between sees the older one, too."""
    append(journal, 2)
    shipper = ships(Sink())
    load, store = CursorFile.load, CursorFile.store
    seen: list[bool] = []

    def store_and_look(file: CursorFile, cursor: Cursor) -> None:
        store(file, cursor)
        shipments = shipper._fleet._open
        aside = dict(shipments)
        shipments.clear()  # as whoever looked before it was opened saw it

        def load_late(late: CursorFile) -> Cursor | None:
            shipments.update(aside)
            return load(late)

        monkeypatch.setattr(CursorFile, "load", load_late)
        seen.append(shipper.has(own_stream(journal), 3))
        monkeypatch.setattr(CursorFile, "load", load)
        seen.append(shipper.has(own_stream(journal), 3))

    monkeypatch.setattr(CursorFile, "store", store_and_look)
    shipper.step()
    assert seen == [False, False]
    assert shipper.has(own_stream(journal), 3)


def test_a_stream_that_somebody_deleted_is_not_delivered(journal: Journal, ships: Ships) -> None:
    """That the directory is gone is no acknowledgement of this process's records."""
    append(journal, 1)
    stream_id = own_stream(journal)
    shipper = ships(Sink())
    [stream] = list_streams(journal.layout)
    stream.path.rename(stream.path.with_name(".taken-away"))
    assert not shipper.wait_for(stream_id, 2, timeout_s=0.0)
    assert shipper.wait_for(stream_id, 2, timeout_s=0.0, or_gone=True)
    stream.path.with_name(".taken-away").rename(stream.path)


def test_stopping_ends_the_thread_and_lets_go(journal: Journal, ships: Ships) -> None:
    """Even out of a long back-off; the exporter is closed, locks are free, and it does not start again."""
    append(journal, 1)
    sink = Sink(RetryableExportError("down"))
    shipper = ships(sink, retry=LONG)
    shipper.start()
    until(lambda: sink.requests)
    assert shipper.stop(10.0)
    assert not shipper.running
    assert sink.closed == 1
    shipper.start()
    assert not shipper.running
    assert drain(ships(Sink()), timeout_s=10)


def test_an_exporter_that_cannot_be_closed_does_no_harm(
    journal: Journal, ships: Ships, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said; the thread ends all the same."""

    class Stubborn(Sink):
        def close(self) -> None:
            raise RuntimeError("no")

    append(journal, 1)
    shipper = ships(Stubborn())
    shipper.start()
    until(lambda: shipper.delivered)
    assert shipper.stop(10.0)
    assert "could not be closed" in caplog.text


@pytest.mark.parametrize("in_thread", [True, False])
def test_what_the_shipper_causes_to_be_logged_is_known_as_its_own(
    journal: Journal, ships: Ships, in_thread: bool
) -> None:
    """An HTTP client logs its requests; captured, one event would become thousands."""
    own: list[bool] = []
    sink = Sink()
    sink.before_each = lambda: own.append(context.in_own_thread())
    append(journal, 1)
    shipper = ships(sink)
    if in_thread:
        shipper.start()
        until(lambda: own)
    else:
        drain(shipper, timeout_s=10)
    assert own == [True]
    assert not context.in_own_thread()


def test_the_dead_letters_of_a_shipper_are_counted(journal: Journal, ships: Ships) -> None:
    """What it brought there, and what it buried."""
    append(journal, 4)
    shipper = ships(Sink(refuses=lambda record: record.sequence == 2))
    shipper.step()
    assert (shipper.delivered, shipper.dead_lettered) == (4, 1)


def test_draining_gives_up_when_it_is_told_to(journal: Journal, ships: Ships) -> None:
    """``give_up`` is asked after each round; draining says that something is left."""
    append(journal, 1)
    shipper = ships(Sink(*[RejectedExportError("no")] * 99, refuses=lambda _: True))
    assert not drain(shipper, timeout_s=60, give_up=lambda: shipper.state.state == "blocked")


def test_draining_says_whenever_something_moved(journal: Journal, ships: Ships) -> None:
    """``on_progress`` is called for each round that settled something, and not for the last."""
    append(journal, 9)
    calls: list[int] = []
    assert drain(ships(Sink(), records_max=4), timeout_s=10, on_progress=lambda: calls.append(1))
    assert len(calls) == 3
