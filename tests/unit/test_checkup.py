"""Whether auditing is well: the rule, and what a web application's route gets."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import otel_audit
from otel_audit import default
from otel_audit.capture import reachability
from otel_audit.capture.stdlib import AuditHandler
from otel_audit.checkup import DEGRADED, FAILING, OK, Health, Thresholds, fullness, judge
from otel_audit.errors import BlockedExportError, ConfigurationError, NotConfiguredError, RetryableExportError
from otel_audit.health import DestinationStatus
from otel_audit.observation import Observation
from support.delivery import Sink, until
from support.provider import SOON, login, make_provider

NOW_NS = 1_800_000_000_000_000_000
MINUTE = 60 * 1_000_000_000

FINE = Observation(
    taken_ns=NOW_NS, shut_down=False, emitted=3, exported={"one": 3}, filtered={"one": 0}, dead_letters={"one": 0},
    destinations=[], counters={}, journal_bytes=10, journal_bytes_max=1000, free_bytes=10_000, syncs=1, sync_s=0.1,
    unreachable_handlers=[],
)  # fmt: skip


def destination(**more: Any) -> DestinationStatus:
    """A destination that is well."""
    fields: dict[str, Any] = {
        "name": "one", "required": True, "delivered": 3, "pending": 0, "dead_lettered": 0, "damaged": 0,
        "state": "idle", "error": "", "repair": "", "failures": 0, "last_success_ns": NOW_NS,
    }  # fmt: skip
    return DestinationStatus(**(fields | more))


def judged(limits: Thresholds | None = None, **more: Any) -> Health:
    """What is said of something that is well but for this."""
    fields = {"destinations": [destination()], **more}
    return judge(msgspec.structs.replace(FINE, **fields), limits or Thresholds(), NOW_NS)


def behind(minutes: float, **more: Any) -> DestinationStatus:
    """A destination whose oldest pending record is so old."""
    return destination(pending=7, oldest_pending_ns=NOW_NS - int(minutes * MINUTE), **more)


def test_nothing_to_do() -> None:
    """No reason, and 200."""
    health = judged()
    assert (health.status, health.reasons, health.http_status) == (OK, [], 200)


@pytest.mark.parametrize(
    ("more", "status", "reason"),
    [
        ({"destinations": [behind(4)]}, OK, ""),
        ({"destinations": [behind(6)]}, DEGRADED, "destination one: the oldest of 7 pending records is 360 s old"),
        ({"destinations": [behind(24 * 60 + 1)]}, FAILING, "pending records is 86460 s old"),
        ({"destinations": [behind(24 * 60 + 1, required=False)]}, OK, ""),
        (
            {"destinations": [destination(state="blocked", error="401", repair="a new token")]},
            DEGRADED,
            "destination one is blocked: 401; a new token",
        ),
        ({"destinations": [destination(state="retrying", error="503")]}, OK, ""),
        ({"destinations": [destination(damaged=2)]}, DEGRADED, "2 records were damaged"),
        ({"dead_letters": {"one": 1}}, DEGRADED, "destination one: 1 dead letters; see `otel-audit dlq list one`"),
        ({"journal_bytes": 799}, OK, ""),
        ({"journal_bytes": 800}, DEGRADED, "the journal is 80% full"),
        ({"journal_bytes": 950}, FAILING, "the journal is 95% full"),
        ({"journal_bytes": 99, "free_bytes": 1}, FAILING, "the journal is 99% full"),
        ({"journal_bytes": 10, "free_bytes": -1}, OK, ""),
        ({"shut_down": True}, FAILING, "auditing was shut down"),
        ({"unreachable_handlers": ["audit: its level is ERROR"]}, DEGRADED, "handler of audit: its level is ERROR"),
    ],
)
def test_each_thing_that_is_not_well(more: dict[str, Any], status: str, reason: str) -> None:
    """What it is called, and the reason with what to do."""
    health = judged(**more)
    assert health.status == status
    assert len(health.reasons) == (1 if reason else 0)
    assert all(reason in each for each in health.reasons)
    assert health.http_status == (503 if status == FAILING else 200)


def test_the_worst_counts_and_stands_first() -> None:
    """All reasons are told."""
    health = judged(shut_down=True, dead_letters={"one": 2}, destinations=[behind(10)])
    assert health.status == FAILING
    assert len(health.reasons) == 3
    assert "shut down" in health.reasons[0]
    assert (health.pending, health.oldest_pending_age_s, health.dead_letters) == (7, 600.0, 2)


def test_the_limits_can_be_moved() -> None:
    """Each by its name."""
    assert judged(Thresholds(degraded_age_s=1000), destinations=[behind(10)]).status == OK
    assert judged(Thresholds(failing_age_s=60), destinations=[behind(2)]).status == FAILING
    assert judged(Thresholds(degraded_dead_letters=5), dead_letters={"one": 4}).status == OK
    assert judged(Thresholds(failing_fullness=0.01)).status == FAILING


def test_fullness_is_measured_by_what_ends_first() -> None:
    """The limit of the journal, or the room on its disk."""
    assert fullness(FINE) == 0.01
    assert fullness(msgspec.structs.replace(FINE, free_bytes=10)) == 0.5
    assert fullness(msgspec.structs.replace(FINE, journal_bytes=2000)) == 1.0


# -- of a running provider --------------------------------------------------------------------------------------


@pytest.fixture
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes the process-wide provider."""
    made: list[Any] = []

    def configure(**options: Any) -> Any:
        provider = make_provider(tmp_path / "journal", retry=SOON, **options)
        monkeypatch.setattr(default, "_provider", provider)
        made.append(provider)
        return provider

    yield configure
    for provider in made:
        provider.shutdown(0.0)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever handlers other tests have left, on whichever loggers."""
    monkeypatch.setattr(default, "_of_captures", ())
    monkeypatch.setattr(reachability, "unreachable_handlers", list)


def test_without_a_configuration_it_is_failing() -> None:
    """It does not raise: a probe is no place for a traceback."""
    health = otel_audit.check_health()
    assert (health.status, health.http_status) == (FAILING, 503)
    assert "not configured" in health.reasons[0]


def test_a_running_provider(configured: Any) -> None:
    """Well, then blocked, then shut down; it can be written as JSON."""
    sink = Sink()
    provider = configured(destinations={"one": sink})
    login(provider.get_audit_logger(), durability="delivered", timeout_s=20)
    assert otel_audit.check_health().status == OK
    sink.script = [BlockedExportError("401", repair="a new token")] * 1_000_000
    login(provider.get_audit_logger())
    until(lambda: provider.shippers[0].state.state == "blocked")
    until(lambda: otel_audit.check_health().status == DEGRADED)
    health = otel_audit.check_health(failing_age_s=0.0)
    assert health.status == FAILING
    assert health.oldest_pending_age_s > 0
    assert "a new token" in health.reasons[-1]
    assert msgspec.json.decode(msgspec.json.encode(health))["status"] == FAILING
    provider.shutdown(0.0)
    assert "shut down" in otel_audit.check_health().reasons[0]


def test_it_never_waits_for_the_network(configured: Any) -> None:
    """A receiver that takes a connection and says nothing holds up no probe; looking again costs next to nothing."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"http://127.0.0.1:{mute.getsockname()[1]}/v1/events"
        provider = configured(destinations={"mute": {"type": "http", "url": url, "timeout": "30s"}})
        login(provider.get_audit_logger())
        until(lambda: provider.shippers[0].running)
        begun = time.monotonic()
        for _ in range(1000):
            health = otel_audit.check_health()
        assert time.monotonic() - begun < 25.0, "less than one time-out, for a thousand of them"
        assert health.status == OK
        assert health.pending == 2


def test_a_journal_that_is_gone_is_failing(configured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be seen is not well."""
    provider = configured(destinations={"one": Sink(RetryableExportError("down"))})
    login(provider.get_audit_logger())

    def fails(_: Path, **__: Any) -> int:
        raise OSError(5, "input/output error")

    monkeypatch.setattr("otel_audit.observation.usage_bytes", fails)
    health = otel_audit.check_health()
    assert health.status == FAILING
    assert health.reasons == ["the journal cannot be read: input/output error"]


# -- of handlers with a journal of their own ----------------------------------------------------------------------


@pytest.fixture
def handler(tmp_path: Path, alone: None) -> Iterator[Any]:
    """Makes such handlers."""
    made: list[AuditHandler] = []

    def make(name: str, **options: Any) -> AuditHandler:
        options = {"journal": tmp_path / name, "destinations": {}, "allow_volatile": True, **options}
        made.append(AuditHandler(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


def log(handler: AuditHandler) -> None:
    """One record, by the handler alone."""
    fields = {"msg": "user.login", "levelno": 20, "actor": "u-1", "outcome": "success"}
    handler.emit(logging.makeLogRecord(fields))


def test_a_handler_of_its_own_is_enough(handler: Any, tmp_path: Path) -> None:
    """``dictConfig`` alone is a configuration: it is well, and said that there is no process-wide provider."""
    log(handler("one", destinations={"archive": f"file:{tmp_path}/audit.jsonl"}))
    result = otel_audit.flush(30.0)
    assert (bool(result), result.delivered) == (True, 2)
    note = f"no process-wide provider; 1 AuditHandler has a journal of its own at {tmp_path / 'one'}"
    health = otel_audit.check_health()
    assert (health.status, health.reasons, health.notes) == (OK, [], [note])
    status = otel_audit.status()
    assert (status.records, status.notes, status.others) == (2, [note], [])


def test_all_handlers_count(handler: Any, configured: Any, tmp_path: Path) -> None:
    """Beside a process-wide provider too: what is not well in one of them is said, with its journal."""
    provider = configured(destinations={})
    log(handler("one"))
    log(handler("two", destinations={"down": Sink(BlockedExportError("401"))}))
    assert not otel_audit.flush(0.0)
    until(lambda: otel_audit.check_health().status == DEGRADED)
    (reason,) = otel_audit.check_health().reasons
    assert reason.startswith("destination down is blocked: 401")
    assert reason.endswith(f"(journal {tmp_path / 'two'})")
    status = otel_audit.status()
    assert status.journal == str(provider.settings.journal)
    assert [each.journal for each in status.others] == [str(tmp_path / "one"), str(tmp_path / "two")]


def test_one_that_is_closed_does_not_count(handler: Any) -> None:
    """Then nothing is configured any more."""
    made = handler("one")
    log(made)
    made.close()
    assert otel_audit.check_health().status == FAILING
    with pytest.raises(NotConfiguredError):
        otel_audit.status()
    with pytest.raises(NotConfiguredError):
        otel_audit.flush()


def test_forgotten_loggers_are_a_note(configured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """``configure()`` alone captures nothing that is logged: said while there is no record, and no failure."""
    monkeypatch.setattr(reachability, "_attached", lambda: iter(()))
    monkeypatch.setattr(reachability, "_processors", set())
    provider = configured(destinations={})
    for found in (otel_audit.check_health(), otel_audit.status()):
        assert "no logger has an AuditHandler" in found.notes[0]
    assert otel_audit.check_health().status == OK
    monkeypatch.setattr(reachability, "_attached", lambda: iter([(None, None)]))
    assert otel_audit.check_health().notes == []
    monkeypatch.setattr(reachability, "_attached", lambda: iter(()))
    login(provider.get_audit_logger())
    assert otel_audit.check_health().notes == []


@pytest.mark.parametrize("timeout_s", [None, "x", True, float("nan")])
@pytest.mark.parametrize("call", [otel_audit.flush, otel_audit.shutdown])
def test_a_time_that_is_none_is_a_clear_error(configured: Any, call: Any, timeout_s: Any) -> None:
    """Not a ``TypeError`` from some place further in."""
    provider = configured(destinations={})
    for each in (call, getattr(provider, call.__name__)):
        with pytest.raises(ConfigurationError, match="timeout_s: expected seconds"):
            each(timeout_s)
