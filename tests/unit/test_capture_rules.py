"""Rules that hold in every capture alike: names, duplicates, values in errors, bounds of what is remembered."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from opentelemetry._logs import LogRecord as ApiLogRecord
from opentelemetry.sdk._logs import LoggerProvider

from otel_audit import AuditHandler, AuditLogRecordProcessor, StructlogAuditProcessor, audit_context
from otel_audit import semconv as sc
from otel_audit.capture import draft, fields, sink
from otel_audit.errors import InvalidRecordError
from otel_audit.record import AuditRecord
from otel_audit.testing import RecordingProvider

Log = Callable[..., AuditRecord]
SECRET = "jane.doe@example.com"


def by_logging(provider: RecordingProvider, message: str, given: dict[str, Any], **options: Any) -> None:
    """Through a handler."""
    logger = logging.Logger("shop", logging.INFO)
    logger.addHandler(AuditHandler(provider, **options))
    logger.info(message, extra=given)


def by_structlog(provider: RecordingProvider, message: str, given: dict[str, Any], **options: Any) -> None:
    """Through a processor."""
    processor = StructlogAuditProcessor(provider, select="all", **options)
    structlog.wrap_logger(structlog.ReturnLogger(), processors=[processor]).info(message, **given)


def by_sdk(provider: RecordingProvider, message: str, given: dict[str, Any], **options: Any) -> None:
    """Through OpenTelemetry's Logs API."""
    logs = LoggerProvider(shutdown_on_exit=False)
    logs.add_log_record_processor(AuditLogRecordProcessor(provider, select="all", **options))
    logs.get_logger("shop").emit(ApiLogRecord(body=message, attributes=given))


every_capture = pytest.mark.parametrize("log", [by_logging, by_structlog, by_sdk])


@every_capture
@pytest.mark.parametrize(
    ("message", "given", "expected"),
    [
        ("user.login", {}, ("user.login", None, "LOGIN", "unknown")),
        ("user.login.failure", {}, ("user.login.failure", None, "LOGIN", "failure")),
        ("user.login.failure", {"outcome": "success"}, ("user.login.failure", None, "LOGIN", "success")),
        ("user.login", {"action": "ENTER"}, ("user.login", None, "ENTER", "unknown")),
        ("somebody came", {}, (sc.EVENT_DEFAULT, "somebody came", "LOG", "unknown")),
        ("somebody came", {"event_name": "user.login"}, ("user.login", "somebody came", "LOGIN", "unknown")),
    ],
)
def test_the_naming_rule_is_the_same_everywhere(
    log: Callable[..., None], message: str, given: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    """Name, body, action and outcome."""
    provider = RecordingProvider()
    for _ in range(3):  # the careful way, and the quick one for shapes that come again
        log(provider, message, {"actor": "u-42", **given})
    found = [(each.event_name, each.body, each.action, each.outcome.value) for each in provider.records]
    assert found == [expected] * 3


@every_capture
@pytest.mark.parametrize("order", [1, -1])
def test_a_field_under_both_its_names_is_one_attribute(log: Callable[..., None], order: int) -> None:
    """A second value under the attribute's own name does not win, and is kept as what it is."""
    provider = RecordingProvider()
    given = [("actor", "u-42"), (sc.ACTOR_ID, "forged"), ("outcome", "failure"), (sc.OUTCOME, "success")]
    log(provider, "user.login", dict(given[::order]))
    (record,) = provider.records
    assert (record.actor.id, record.outcome.value) == ("u-42", "failure")
    assert record.attributes[sc.ORIGINAL_PREFIX + sc.ACTOR_ID] == "forged"
    assert record.attributes[sc.ORIGINAL_OUTCOME] == "success"


@every_capture
@pytest.mark.parametrize(
    "given",
    [
        {"actor": SECRET * 100},
        {"actor": "u-42", "actor_type": SECRET},
        {"actor": "u-42", "outcome": SECRET},
        {"actor": "u-42", "action": SECRET},
        {"actor": "u-42", "event_name": SECRET + " "},
        {"actor": "u-42", "severity": SECRET},
        {"actor": "u-42", "source_type": SECRET},
        {"actor": "u-42", "audit.sequence.number": SECRET},
        {"actor": "u-42", "actor.id": SECRET, "audit.actor.id": SECRET},
    ],
)
def test_an_error_shows_type_and_length_of_a_value_only(log: Callable[..., None], given: dict[str, Any]) -> None:
    """It may be personal data; the error has the field and the rule."""
    provider = RecordingProvider()
    with pytest.raises(InvalidRecordError) as caught:
        log(provider, "user.login", {"outcome": "success", **given}, strict=True)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.args)
    assert caught.value.journaled is False
    assert provider.records == []


def test_emit_and_context_show_no_value_either() -> None:
    """The same for those who call us themselves."""
    for wrong in (
        lambda: AuditRecord(SECRET, actor="u", outcome="success"),
        lambda: AuditRecord("a.b", actor="u", outcome=SECRET),
        lambda: AuditRecord("a.b", actor=SECRET * 100, outcome="success"),
        lambda: AuditRecord("a.b", actor="u", outcome="success", trace_id=SECRET),
        lambda: audit_context(actor=SECRET * 100),
        lambda: audit_context(tenant=[SECRET]),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidRecordError) as caught:
            wrong()
        assert SECRET not in str(caught.value)


def test_levels_and_addresses_are_remembered_within_bounds() -> None:
    """A program that makes up a level or sees an address for each record does not fill the memory."""
    for number in range(3000):
        draft.severity_of_level(1000 + number)
    assert len(draft._severities) <= 1024
    for number in range(9000):
        fields.address_type(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}")
    assert len(fields._address_types) <= 4096


# -- what the author of a call should look at -----------------------------------------------------------------------


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was said of any call site yet."""
    monkeypatch.setattr(sink, "_warned", set())


@every_capture
@pytest.mark.usefixtures("fresh")
def test_an_outcome_that_is_no_word_for_one_is_counted_and_said_once(
    log: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    """A typo must not go through as ``unknown`` in silence; its value is in the record alone."""
    provider = RecordingProvider()
    for _ in range(3):
        log(provider, "user.login", {"actor": "u-42", "outcome": "succes"})
    log(provider, "user.login", {"actor": "u-42", "outcome": "denied"})
    assert [record.outcome.value for record in provider] == ["unknown"] * 3 + ["failure"]
    assert provider.records[0].attributes[sc.ORIGINAL_OUTCOME] == "succes"
    (said,) = caplog.messages
    assert "an outcome that is not understood at " in said
    assert "str of length 6 stands as 'unknown'" in said
    assert provider.counters.read() == {"records.outcome_not_understood": 3}


@every_capture
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("message", ["User.Login", "user.login ", "\tuser.login", "Üser.login", "user.Login_2"])
def test_a_message_that_was_meant_as_a_name_is_said_once(
    log: Callable[..., None], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is the body of an event of the default name, and the rule is named; whether its shape is known or not."""
    provider = RecordingProvider()
    whole = {"actor": "u-42", "outcome": "success"}
    for each in ("user.login", "user.login", message, message):
        log(provider, each, whole)
    assert [(record.event_name, record.body) for record in provider][2:] == [(sc.EVENT_DEFAULT, message)] * 2
    (said,) = caplog.messages
    assert "looks like an event name and is none" in said
    assert "dotted, lower-case ASCII" in said


@every_capture
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("message", ["somebody came", "Done.", "login", "it was v1.2 of it", "a.b: no", "…", ""])
def test_a_plain_message_is_nothing_to_be_said(
    log: Callable[..., None], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Only what was probably meant as a name is."""
    provider = RecordingProvider()
    for _ in range(3):
        log(provider, message, {"actor": "u-42", "outcome": "success"})
    log(provider, message, {"actor": "u-42", "outcome": "success", "event_name": "user.login"})
    assert caplog.messages == []


@every_capture
@pytest.mark.usefixtures("fresh")
@pytest.mark.parametrize("given", [{"outcome": "success"}, {"actor": "u-42", "outcome": "succes"}])
def test_what_strict_refuses_is_not_said_to_be_filled(
    log: Callable[..., None], given: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The error has said it all, and there is no record that would lack anything."""
    provider = RecordingProvider()
    with pytest.raises(InvalidRecordError):
        log(provider, "user.login", given, strict=True)
    assert (caplog.messages, len(provider)) == ([], 0)
    assert provider.counters.read() == {"records.failed": 1}
