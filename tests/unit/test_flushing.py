"""``flush`` and ``shutdown``: true only where nothing is pending or damaged."""

from __future__ import annotations

import errno
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_audit import AuditProvider
from otel_audit import semconv as sc
from otel_audit.delivery.deadletters import read_dead_letters
from otel_audit.errors import BlockedExportError, RetryableExportError
from otel_audit.health import DestinationStatus, FlushResult
from otel_audit.journal.files import Files
from otel_audit.journal.layout import Layout
from otel_audit.journal.streams import StreamDirectory, list_streams
from support.delivery import Sink, dead_stream, until
from support.provider import login, make_provider, stored

DOWN = [RetryableExportError("down")] * 100_000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal"


Make = Callable[..., AuditProvider]


@pytest.fixture
def make(root: Path) -> Iterator[Make]:
    """Makes providers with destinations, and ends them."""
    made: list[AuditProvider] = []

    def make(destinations: dict[str, Any], **options: Any) -> AuditProvider:
        made.append(make_provider(root, destinations=destinations, **options))
        return made[-1]

    yield make
    for provider in made:
        provider.shutdown(0.0)


def status(**values: Any) -> DestinationStatus:
    """A destination that has everything, but for what is said."""
    defaults = {
        "name": "one", "required": True, "delivered": 5, "pending": 0, "dead_lettered": 0, "damaged": 0,
        "state": "idle", "error": "", "repair": "", "failures": 0, "last_success_ns": 1,
    }  # fmt: skip
    return DestinationStatus(**{**defaults, **values})


@pytest.mark.parametrize(
    ("destinations", "expected"),
    [
        ([], True),
        ([status()], True),
        ([status(dead_lettered=3)], True),
        ([status(pending=1)], False),
        ([status(damaged=1)], False),
        ([status(), status(pending=1)], False),
        ([status(), status(required=False, pending=9)], True),
        ([status(), status(required=False, damaged=1)], False),
    ],
)
def test_when_a_flush_is_true(destinations: list[DestinationStatus], expected: bool) -> None:
    """Dead letters are settled; what is pending for an optional destination is not waited for; damage is damage."""
    assert bool(FlushResult(tuple(destinations))) is expected


def test_the_sums_of_a_flush_are_those_of_the_required() -> None:
    """Damage is in the journal, so it is not added up over destinations."""
    result = FlushResult(
        (
            status(delivered=5, dead_lettered=1, damaged=2),
            status(delivered=3, pending=2, damaged=2),
            status(required=False, delivered=100, pending=100, dead_lettered=100),
        )
    )
    assert (result.delivered, result.pending, result.dead_lettered, result.damaged) == (8, 2, 1, 2)


def test_flush_waits_until_everything_is_delivered(make: Make) -> None:
    """Every record that was emitted before is with the destination when it returns."""
    sink = Sink()
    provider = make({"one": sink})
    ids = [login(provider.get_audit_logger()).record_id for _ in range(50)]
    result = provider.flush(20)
    assert result
    assert sink.ids == ids
    assert (result.delivered, result.pending) == (51, 0)
    assert provider.flush(0)


def test_flush_of_a_journal_without_destinations_is_true(make: Make) -> None:
    """There is nobody to wait for."""
    provider = make({})
    login(provider.get_audit_logger())
    assert provider.flush(0)


def test_flush_before_the_first_record_is_true(make: Make) -> None:
    """Nothing was written, nothing is pending."""
    assert make({"one": Sink()}).flush(5)


@pytest.mark.parametrize("error", [RetryableExportError("down"), BlockedExportError("401")])
def test_flush_to_a_destination_that_is_down_is_false(make: Make, error: Exception) -> None:
    """It says how many are pending, and why."""
    sink = Sink(*[error] * 100_000)
    provider = make({"one": sink})
    login(provider.get_audit_logger())
    result = provider.flush(0.2)
    assert not result
    assert (result.delivered, result.pending) == (0, 2)
    assert result.destinations[0].error == str(error)
    assert result.destinations[0].failures >= 1
    sink.script.clear()
    assert provider.flush(20)


def test_flush_does_not_wait_for_an_optional_destination(make: Make) -> None:
    """It is among the destinations of the result, with what it does not have."""
    provider = make({"one": Sink(), "extra": {"type": Sink(*DOWN), "required": False}})
    login(provider.get_audit_logger())
    result = provider.flush(20)
    assert result
    extra = result.destinations[1]
    assert (extra.name, extra.pending) == ("extra", 2)


def test_flush_counts_dead_letters(root: Path, make: Make) -> None:
    """Refused, kept with the reason, and not pending any more."""
    provider = make({"one": Sink(refuses=lambda record: record.body == "bad")})
    for body in ("good", "bad", "good"):
        login(provider.get_audit_logger(), body=body)
    result = provider.flush(20)
    assert result
    assert (result.delivered, result.dead_lettered) == (3, 1)
    assert len(list(read_dead_letters(Layout(root), "one"))) == 1


def test_flush_tries_at_once_what_failed_before(make: Make) -> None:
    """However long the back-off still is: somebody waits now."""
    sink = Sink(RetryableExportError("down"))
    provider = make({"one": sink})
    from support.delivery import LONG

    object.__setattr__(provider.shippers[0].destination, "retry", LONG)
    login(provider.get_audit_logger())
    until(lambda: sink.requests)
    assert provider.flush(20)


def test_flush_covers_what_dead_processes_left(root: Path, make: Make) -> None:
    """Also a stream whose owner died a moment ago, before anybody looked for it."""
    sink = Sink()
    provider = make({"sink": sink})
    login(provider.get_audit_logger())
    assert provider.flush(20)
    ids = dead_stream(root, 3)
    assert provider.flush(20)
    assert set(ids) < set(sink.ids)


def test_flush_does_not_wait_for_a_stream_that_is_gone(root: Path, make: Make) -> None:
    """Another process delivers a dead stream and removes it meanwhile: then there is nothing left to wait for."""
    dead_stream(root, 3)
    [stream] = list_streams(Layout(root))
    lock = stream.ship_lock("sink")
    assert lock.acquire()
    provider = make({"sink": Sink()})
    results: list[FlushResult] = []
    thread = threading.Thread(target=lambda: results.append(provider.flush(60)))
    thread.start()
    until(lambda: provider.shippers[0]._listeners)
    shutil.rmtree(stream.path)
    thread.join(20)
    assert results
    assert results[0]
    lock.release()


def test_a_stream_that_is_removed_while_one_looks_is_no_damage(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the listing of a journal and the look at a stream, its last destination may have had it removed."""
    provider = make({"one": Sink()})
    login(provider.get_audit_logger())
    layout = provider.journal.layout
    gone = StreamDirectory(layout, layout.streams / str(uuid.uuid4()))
    monkeypatch.setattr("otel_audit.delivery.fleet.list_streams", lambda layout: [gone, *list_streams(layout)])
    result = provider.flush(30)
    assert result
    assert result.damaged == 0


def test_flush_counts_what_dead_processes_left_as_pending(root: Path, make: Make) -> None:
    """Where it cannot be delivered, it is not forgotten."""
    dead_stream(root, 3)
    result = make({"sink": Sink(*DOWN)}).flush(0.2)
    assert not result
    assert result.pending == 4


def test_flush_does_not_wait_for_what_living_processes_write(root: Path, make: Make) -> None:
    """They flush what is theirs."""
    from support.delivery import append, make_journal

    other = make_journal(root)
    append(other, 3)
    provider = make({"sink": Sink()})
    login(provider.get_audit_logger())
    assert provider.flush(20)
    other.abandon()


def test_flush_of_a_damaged_journal_is_false(root: Path, make: Make) -> None:
    """Everything that is whole is delivered; that something was lost is said, by this flush and by the next."""
    ids = dead_stream(root, 5)
    [segment] = Path(root).glob("streams/*/*.jsonl")
    lines = segment.read_bytes().splitlines(keepends=True)
    segment.write_bytes(b"".join([*lines[:3], b"x" * len(lines[3]), *lines[4:]]))
    sink = Sink()
    provider = make({"sink": sink})
    result = provider.flush(20)
    assert not result
    assert (result.pending, result.damaged) == (0, 1)
    assert sink.ids == [ids[0], ids[1], *ids[3:]]
    provider.journal.housekeep()
    provider.shippers[0].hurry()
    until(lambda: list_streams(Layout(root)) == [])
    assert provider.flush(20).damaged == 1


def test_flush_is_false_while_a_stream_cannot_be_read(root: Path, make: Make) -> None:
    """Without its description a stream cannot be delivered; its records are counted as damaged."""
    dead_stream(root, 5)
    [description] = Path(root).glob("streams/*/stream.json")
    description.write_bytes(b"{")
    result = make({"sink": Sink()}).flush(5)
    assert not result
    assert result.damaged == 6


def fail_to_open(monkeypatch: pytest.MonkeyPatch, of: Path, error: OSError) -> None:
    """From now on this file cannot be opened."""
    real = Files.open

    def fails(path: Any, *arguments: Any) -> int:
        if Path(path) == of:
            raise error
        return real(path, *arguments)

    monkeypatch.setattr(Files, "open", staticmethod(fails))


def test_flush_is_false_where_a_disk_fails(root: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be read is damage, not an exception; what can be read is delivered."""
    dead_stream(root, 5)
    [segment] = Path(root).glob("streams/*/*.jsonl")
    fail_to_open(monkeypatch, segment, OSError(errno.EIO, "input/output error"))
    sink = Sink()
    provider = make({"sink": sink})
    login(provider.get_audit_logger())
    result = provider.flush(20)
    assert not result
    assert (result.pending, result.damaged) == (0, 1)
    assert len(sink.ids) == 1


def test_flush_does_not_wait_for_the_streams_of_other_users(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a shared journal there may be some that this process may not touch: somebody else has to deliver them."""
    dead_stream(root, 5)
    [lock] = Path(root).glob("streams/*/lock")
    fail_to_open(monkeypatch, lock, PermissionError(errno.EACCES, "permission denied"))
    provider = make({"sink": Sink()})
    login(provider.get_audit_logger())
    assert provider.flush(20)


def test_flush_cannot_be_fooled_by_a_destination_that_was_never_reached(make: Make) -> None:
    """Its exporter cannot even be made: what is in the journal is pending."""
    provider = make({"one": Sink()})

    def fails() -> Any:
        raise FileNotFoundError(2, "no certificate")

    object.__setattr__(provider.shippers[0].destination, "make_exporter", fails)
    login(provider.get_audit_logger())
    result = provider.flush(0.2)
    assert result.pending == 2
    assert "no certificate" in result.destinations[0].error


def test_without_threads_flush_delivers_by_itself(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the interpreter ends, newer Pythons start no thread: the caller's does the work."""

    def no_thread(*_: Any) -> int:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr("_thread.start_new_thread", no_thread)
    seen: list[int] = []
    sink = Sink()
    sink.before_each = lambda: seen.append(threading.get_ident())
    provider = make({"one": sink})
    login(provider.get_audit_logger())
    assert provider.flush(20)
    assert set(seen) == {threading.get_ident()}
    monkeypatch.undo()


def test_a_second_shutdown_is_harmless(root: Path, make: Make) -> None:
    """It says how things stand, and does nothing."""
    sink = Sink()
    provider = make({"one": sink})
    login(provider.get_audit_logger())
    assert provider.shutdown(20)
    assert provider.shutdown(20)
    assert sink.closed == 1
    assert sink.accepted[-1].attributes[sc.SEQUENCE_END] is True
    assert list_streams(Layout(root)) == []


def test_shutdown_with_a_destination_that_is_down_keeps_everything(root: Path, make: Make) -> None:
    """It ends in time, says what is pending, and the next process delivers it."""
    provider = make({"one": Sink(*DOWN)})
    ids = [login(provider.get_audit_logger()).record_id for _ in range(3)]
    result = provider.shutdown(0.3)
    assert not result
    assert result.pending == 5
    sink = Sink()
    assert make({"one": sink}).flush(20)
    assert sink.ids == ids


def test_after_shutdown_flush_still_counts(make: Make) -> None:
    """Nothing is started anew by asking."""
    provider = make({"one": Sink(*DOWN)})
    login(provider.get_audit_logger())
    provider.shutdown(0.1)
    assert provider.flush(0.1).pending == 3
    until(lambda: not provider.shippers[0].running)


def test_at_exit_the_journal_stays_open(root: Path, make: Make) -> None:
    """Other handlers of ``atexit`` may still log after ours."""
    sink = Sink()
    provider = make({"one": sink})
    login(provider.get_audit_logger())
    provider.flush_at_exit()
    assert len(sink.ids) == 1
    login(provider.get_audit_logger())
    assert len(stored(root)) == 2


def test_at_exit_what_is_left_is_said(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Within the time that is allowed, and with the place where it is."""
    provider = make({"one": Sink(*DOWN)}, exit_timeout=0.1)
    login(provider.get_audit_logger())
    provider.flush_at_exit()
    assert "2 records are still to be delivered" in caplog.text
