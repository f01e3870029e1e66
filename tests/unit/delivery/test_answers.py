"""What a destination answers: when it is tried again, and what is said."""

from __future__ import annotations

import asyncio

import pytest

from otel_audit.delivery import shipper as shipper_module
from otel_audit.delivery.backoff import Backoff
from otel_audit.delivery.deadletters import read_dead_letters
from otel_audit.errors import BlockedExportError, RetryableExportError
from otel_audit.journal.cursor import Cursor
from otel_audit.journal.journal import Journal
from support.delivery import AT_ONCE, LONG, Ships, Sink, append, dead_stream, own_stream, until


def test_a_failure_that_passes_is_tried_again(journal: Journal, ships: Ships, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is lost, the state says so meanwhile, and that it works again is said."""
    ids = append(journal, 3)
    sink = Sink(RetryableExportError("no answer"), RetryableExportError("no answer"))
    shipper = ships(sink)
    shipper.step()
    assert (shipper.state.state, shipper.state.failures, shipper.state.error) == ("retrying", 1, "no answer")
    shipper.step()
    assert shipper.state.failures == 2
    shipper.step()
    assert sink.ids == ids
    assert (shipper.state.state, shipper.state.failures, shipper.state.error) == ("delivering", 0, "")
    assert shipper.state.last_success_ns > 0
    assert "works again after 2 failures" in caplog.text


def test_what_never_worked_is_said_at_once(journal: Journal, ships: Ships, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong address looks like a network that is down: whoever just configured it wants to know now, but once."""
    append(journal, 1)
    shipper = ships(Sink(*[RetryableExportError("no answer")] * 5))
    for _ in range(5):
        shipper.step()
    assert caplog.text.count("is retrying") == 1


def test_what_worked_before_is_said_after_a_while(
    journal: Journal, ships: Ships, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restart of the receiver is nothing to shout about; minutes are."""
    append(journal, 1)
    shipper = ships(Sink(None, *[RetryableExportError("no answer")] * 5))
    shipper.step()
    append(journal, 1)
    shipper.step()
    shipper.step()
    assert "is retrying" not in caplog.text
    monkeypatch.setattr(shipper_module, "LOUD_AFTER_S", 0.0)
    shipper.step()
    assert caplog.text.count("is retrying") == 1


def test_blocked_is_said_at_once_with_what_to_repair(
    journal: Journal, ships: Ships, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, loudly, with the repair and where the records are."""
    append(journal, 2)
    sink = Sink(None, *[BlockedExportError("401", status=401, repair="check the token")] * 4)
    shipper = ships(sink)
    shipper.step()
    ids = append(journal, 1)
    for _ in range(4):
        shipper.step()
    assert (shipper.state.state, shipper.state.repair) == ("blocked", "check the token")
    assert caplog.text.count("is blocked") == 1
    assert "check the token" in caplog.text
    assert str(journal.layout.root) in caplog.text
    shipper.step()
    assert sink.ids[-1:] == ids
    assert "works again" in caplog.text


def test_a_blocked_destination_is_left_alone_for_long(journal: Journal, ships: Ships) -> None:
    """New records do not hurry it, a flush tries once."""
    append(journal, 1)
    sink = Sink(*[BlockedExportError("401")] * 9)
    shipper = ships(sink, blocked=LONG)
    for _ in range(5):
        append(journal, 1)
        shipper.notify()
        shipper.step()
    assert len(sink.requests) == 1
    shipper.hurry()
    shipper.step()
    shipper.step()
    assert len(sink.requests) == 2


def test_a_retrying_destination_is_left_alone(journal: Journal, ships: Ships) -> None:
    """Nothing is sent before the back-off is over."""
    append(journal, 1)
    sink = Sink(RetryableExportError("down"))
    shipper = ships(sink, retry=LONG)
    for _ in range(5):
        shipper.step()
    assert len(sink.requests) == 1


def test_the_receivers_wish_is_kept_even_in_a_hurry(journal: Journal, ships: Ships) -> None:
    """Retry-After is honoured; a flush does not shorten it."""
    append(journal, 1)
    sink = Sink(RetryableExportError("busy", retry_after_s=30.0))
    shipper = ships(sink, retry=Backoff(first_s=0.0, max_s=60.0))
    shipper.step()
    shipper.hurry()
    shipper.step()
    assert len(sink.requests) == 1


def test_the_receivers_wish_has_a_cap(journal: Journal, ships: Ships) -> None:
    """A receiver that asks for a year gets the longest back-off."""
    append(journal, 1)
    sink = Sink(RetryableExportError("busy", retry_after_s=365 * 86_400.0))
    shipper = ships(sink, retry=Backoff(first_s=0.0, max_s=0.0))
    shipper.step()
    shipper.step()
    assert len(sink.requests) == 2


def test_an_unexpected_exception_keeps_everything(
    journal: Journal, ships: Ships, caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter's own mistake is blocked: nothing is lost, the traceback is in the log once."""
    ids = append(journal, 2)
    sink = Sink(*[KeyError("password")] * 3)
    shipper = ships(sink)
    for _ in range(3):
        shipper.step()
    assert shipper.state.state == "blocked"
    assert caplog.text.count("Traceback") == 1
    shipper.step()
    assert sink.ids == ids


@pytest.mark.parametrize("kind", [SystemExit, asyncio.CancelledError, GeneratorExit])
def test_what_is_no_exception_does_not_end_the_thread(
    journal: Journal, ships: Ships, kind: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    """An exporter that calls sys.exit(), or whose task is cancelled, is blocked and tried again; and that is said."""
    ids = append(journal, 2)
    raised: list[BaseException] = []

    def fail(_: object) -> None:
        if not raised:
            raised.append(kind())
            raise raised[0]

    sink = Sink(fail)
    shipper = ships(sink, blocked=AT_ONCE)
    shipper.start()
    until(lambda: sink.ids == ids)
    assert raised
    assert f"the exporter failed unexpectedly: {kind.__name__}" in caplog.text


def test_an_exporter_that_cannot_be_made_keeps_everything(journal: Journal, ships: Ships) -> None:
    """It is made when it is needed; a failure there is one of the destination."""
    ids = append(journal, 1)
    sink = Sink()
    shipper = ships(sink)
    fails = [True]

    def make() -> Sink:
        if fails[0]:
            raise FileNotFoundError(2, "no certificate")
        return sink

    object.__setattr__(shipper.destination, "make_exporter", make)
    shipper.step()
    assert shipper.state.state == "blocked"
    fails[0] = False
    shipper.step()
    assert sink.ids == ids


def test_a_refused_stream_waits_for_evidence_from_another(journal: Journal, ships: Ships) -> None:
    """All of a dead stream is bad; that another stream is accepted says that the destination works."""
    dead_stream(journal.layout.root, 2, {"bad": True})
    sink = Sink(refuses=lambda record: record.attributes.get("bad", True))
    shipper = ships(sink)
    shipper.step()
    shipper.step()
    assert shipper.state.state == "blocked"
    assert list(read_dead_letters(journal.layout, "sink")) == []
    own = append(journal, 1, bad=False)
    sink.refuses = lambda record: record.attributes.get("bad") is True
    for _ in range(3):
        shipper.step()
    assert [record_id for record_id in sink.ids if record_id in own] == own
    assert len(list(read_dead_letters(journal.layout, "sink"))) == 2
    assert shipper.state.failures == 0


def test_a_refused_stream_does_not_stop_the_others(journal: Journal, ships: Ships) -> None:
    """It rests while the others are delivered."""
    dead_stream(journal.layout.root, 2, {"bad": True})
    ids = append(journal, 2, bad=False)
    sink = Sink(refuses=lambda record: record.attributes.get("bad") is True or record.sequence == 1)
    shipper = ships(sink, blocked=LONG)
    for _ in range(4):
        shipper.step()
    assert sink.ids == ids


def test_the_next_record_is_the_evidence_against_a_bad_one(journal: Journal, ships: Ships) -> None:
    """A bad record alone is kept; the next good one is tried without waiting minutes, and the bad one is buried."""
    append(journal, 1)
    sink = Sink()
    shipper = ships(sink, blocked=LONG, retry=Backoff(first_s=0.0, max_s=0.0))
    shipper.step()
    append(journal, 1, bad=True)
    sink.refuses = lambda record: record.attributes.get("bad", False)
    shipper.step()
    shipper.step()
    assert shipper.state.state == "blocked"
    assert list(read_dead_letters(journal.layout, "sink")) == []
    ids = append(journal, 1)
    shipper.step()
    assert sink.ids[-1:] == ids
    assert len(list(read_dead_letters(journal.layout, "sink"))) == 1
    assert shipper.cursor(own_stream(journal)) == Cursor(acknowledged=4, delivered=3, dead_lettered=1)


def test_evidence_is_looked_for_with_one_request(journal: Journal, ships: Ships) -> None:
    """A destination that refuses everything is not sent the whole batch for each new record."""
    append(journal, 20)
    sink = Sink(refuses=lambda _: True)
    shipper = ships(sink, blocked=LONG, retry=Backoff(first_s=0.0, max_s=0.0))
    shipper.step()
    before = len(sink.requests)
    append(journal, 1)
    shipper.step()
    assert sink.requests[before:] == [[22]]
    shipper.step()
    assert len(sink.requests) == before + 1


def test_several_stuck_streams_mean_that_the_destination_is_blocked(journal: Journal, ships: Ships) -> None:
    """Not every one of many adopted streams is tried at a destination that takes nothing."""
    for _ in range(10):
        dead_stream(journal.layout.root, 1)
    sink = Sink(*[BlockedExportError("401")] * 99)
    shipper = ships(sink, blocked=LONG)
    for _ in range(5):
        shipper.step()
    assert len(sink.requests) == 2
