"""``AuditHandler``: from a ``LogRecord`` to a record, and what it does when that fails."""

from __future__ import annotations

import copy
import itertools
import logging
import logging.handlers
import queue
import sys
import threading
import time
import warnings
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import otel_audit.default
from otel_audit import context
from otel_audit import semconv as sc
from otel_audit.capture import kept, logrecord, sink, stdlib
from otel_audit.capture.queues import AuditContextFilter
from otel_audit.capture.stdlib import AUDIT, AuditHandler, attach, install_level
from otel_audit.context import audit_context
from otel_audit.errors import (
    ConfigurationError,
    DeliveryTimeoutError,
    InvalidRecordError,
    JournalFullError,
    NotConfiguredError,
)
from otel_audit.record import Actor, AuditRecord
from otel_audit.testing.memory import RecordingProvider

_numbers = itertools.count()
WHOLE = {"actor": "u-42", "outcome": "success"}


class Broken(RecordingProvider):
    """A provider whose journal takes nothing while ``error`` is set."""

    error: Exception | None = None

    def emit_record(self, record: AuditRecord, **options: Any) -> Any:
        if self.error is not None:
            raise self.error
        return super().emit_record(record, **options)


@pytest.fixture
def provider() -> Broken:
    return Broken()


@pytest.fixture
def logger() -> logging.Logger:
    """A logger of its own for each test, that takes everything; pytest's handlers are not on it."""
    return logging.Logger(f"test.capture.n{next(_numbers)}", 1)


def captured(logger: logging.Logger, provider: RecordingProvider, **options: Any) -> AuditHandler:
    handler = AuditHandler(provider, **options)
    logger.addHandler(handler)
    return handler


# -- what is in the record ----------------------------------------------------------------------------------


def test_a_log_call_becomes_a_record(logger: logging.Logger, provider: Broken) -> None:
    """Fields, free attributes, logger, level and time of the call."""
    captured(logger, provider)
    before = time.time_ns()
    logger.info("user.login", extra={**WHOLE, "target": "session:s-1", "amount": 7})
    (record,) = provider.records
    assert record.event_name == "user.login"
    assert record.body is None
    assert before - 1000 <= record.timestamp_ns <= time.time_ns()
    assert {**record.attributes, sc.RECORD_ID: ""} == {
        sc.RECORD_ID: "", sc.ACTOR_ID: "u-42", sc.ACTOR_TYPE: "user", sc.ACTION: "LOGIN", sc.OUTCOME: "success",
        sc.TARGET_ID: "session:s-1", "amount": 7, sc.LOGGER_NAME: logger.name, sc.SEVERITY_NUMBER: 9,
        sc.SEVERITY_TEXT: "INFO",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("message", "args", "extra", "event_name", "body", "action", "outcome"),
    [
        ("user.login", (), {}, "user.login", None, "LOGIN", "unknown"),
        ("user.login.failure", (), {}, "user.login.failure", None, "LOGIN", "failure"),
        ("user.login.failure", (), {"outcome": "success"}, "user.login.failure", None, "LOGIN", "success"),
        ("user.login", (), {"action": "SIGN_IN"}, "user.login", None, "SIGN_IN", "unknown"),
        ("user.%s", ("login",), {}, "audit.log", "user.login", "LOG", "unknown"),
        ("A user logged in", (), {}, "audit.log", "A user logged in", "LOG", "unknown"),
        ("A user logged in", (), {"event_name": "user.login"}, "user.login", "A user logged in", "LOGIN", "unknown"),
        ("%s is in", ("Ann",), {"event_name": "user.login"}, "user.login", "Ann is in", "LOGIN", "unknown"),
        ("user.login", (), {"event_name": "user.login"}, "user.login", None, "LOGIN", "unknown"),
        ("user.login", (), {"body": {"a": 1}}, "user.login", {"a": 1}, "LOGIN", "unknown"),
        ("User.Login", (), {}, "audit.log", "User.Login", "LOG", "unknown"),
        ("", (), {}, "audit.log", "", "LOG", "unknown"),
    ],
)
def test_the_naming_rule(
    logger: logging.Logger,
    provider: Broken,
    message: str,
    args: tuple[Any, ...],
    extra: dict[str, Any],
    event_name: str,
    body: Any,
    action: str,
    outcome: str,
) -> None:
    """Event name, body, action and outcome, the first time and, by the quick way, the third."""
    captured(logger, provider)
    for _ in range(3):
        logger.info(message, *args, extra={"actor": "u-1", **extra})
    for record in provider.records:
        assert (record.event_name, record.body, record.action, record.outcome.value) == (
            event_name, body, action, outcome,
        )  # fmt: skip


def test_a_body_and_a_message_are_both_kept(logger: logging.Logger, provider: Broken) -> None:
    """The body is the one that is given, and the message stands beside it."""
    captured(logger, provider)
    logger.info("A user logged in", extra={**WHOLE, "body": "b"})
    (record,) = provider.records
    assert (record.body, record.attributes["otel_audit.original.message"]) == ("b", "A user logged in")


def test_the_default_event_name(logger: logging.Logger) -> None:
    """The handler's own wins over the provider's."""
    provider = RecordingProvider(event_name="billing.log")
    handler = captured(logger, provider)
    logger.info("text", extra=WHOLE)
    logger.removeHandler(handler)
    captured(logger, provider, event_name="shop.log")
    logger.info("text", extra=WHOLE)
    assert [record.event_name for record in provider.records] == ["billing.log", "shop.log"]


@pytest.mark.parametrize(
    ("message", "body"),
    [({"a": 1}, {"a": 1}), (["a"], ["a"]), (b"raw", b"raw"), (7, 7), (ValueError("bad"), "bad")],
)
def test_a_message_that_is_no_string(logger: logging.Logger, provider: Broken, message: Any, body: Any) -> None:
    """A structure stays one; any other object is its text, as for other handlers."""
    captured(logger, provider)
    logger.info(message, extra=WHOLE)
    assert provider.records[0].body == body


def test_extras_are_what_is_not_standard(logger: logging.Logger, provider: Broken) -> None:
    """Not what a formatter sets, nor a record factory that the user excluded; its other attributes stay."""
    captured(logger, provider, exclude_attributes=["otelTraceID"])
    record = logger.makeRecord(logger.name, 20, "f.py", 1, "user.login", (), None, extra={**WHOLE, "otelTraceID": "0"})
    record.hostname = "web-1"
    logging.Formatter("%(asctime)s %(message)s").format(record)
    logger.handle(record)
    found = provider.records[0].attributes
    assert found["hostname"] == "web-1"
    assert not {"otelTraceID", "message", "asctime", "msg", "args", "taskName", "relativeCreated"} & found.keys()


@pytest.mark.parametrize("name", ["message", "asctime", "name", "args"])
def test_names_that_logging_refuses(logger: logging.Logger, provider: Broken, name: str) -> None:
    """The standard library raises at them itself, or takes them for its own: they cannot be extras."""
    captured(logger, provider)
    with pytest.raises(KeyError):
        logger.info("user.login", extra={**WHOLE, name: "x"})
    assert provider.records == []


def test_an_exception_becomes_attributes(logger: logging.Logger, provider: Broken) -> None:
    """Type, message and trace; the message is still the event name."""
    captured(logger, provider)
    for _ in range(3):
        try:
            raise LookupError("no such key")
        except LookupError:
            logger.exception("key.rotate.failure", extra={"actor": "u-1"})
    record = provider.records[-1]
    found = record.attributes
    assert (found[sc.EXCEPTION_TYPE], found[sc.EXCEPTION_MESSAGE]) == ("LookupError", "no such key")
    assert "test_an_exception_becomes_attributes" in found[sc.EXCEPTION_STACKTRACE]
    assert (record.event_name, record.outcome.value) == ("key.rotate.failure", "failure")


def test_an_exception_that_only_a_formatter_has_left(logger: logging.Logger, provider: Broken) -> None:
    """A record from another process has its trace as text."""
    captured(logger, provider)
    for _ in range(3):
        given = {"name": logger.name, "levelno": 20, "msg": "a.b", "exc_text": "Traceback …", **WHOLE}
        logger.handle(logging.makeLogRecord(given))
    assert provider.records[-1].attributes[sc.EXCEPTION_STACKTRACE] == "Traceback …"


def test_stack_info(logger: logging.Logger, provider: Broken) -> None:
    """The caller's stack, as it was asked for."""
    captured(logger, provider)
    for _ in range(3):
        logger.info("user.login", extra=WHOLE, stack_info=True)
    assert "test_stack_info" in provider.records[-1].attributes[sc.CODE_STACKTRACE]


@pytest.mark.parametrize("args", [("a",), ("a", "b", "c"), ({"x": 1},), (object(),)])
def test_arguments_that_do_not_fit_lose_nothing(
    logger: logging.Logger, provider: Broken, args: tuple[Any, ...]
) -> None:
    """The message stays as it is, the arguments stand beside it, and the record says so."""
    captured(logger, provider)
    for _ in range(3):
        logger.info("%s and %d", *args, extra=WHOLE)
    record = provider.records[-1]
    assert record.body == "%s and %d"
    assert record.attributes["otel_audit.original.args"] not in (None, [])
    assert "body: the % arguments do not fit the message" in record.attributes[sc.CONVERTED]


@pytest.mark.parametrize(
    ("message", "unused"),
    [
        ("user.login", {"ticket": 7, "user": "u-1"}),
        ("%(user)s came", {"ticket": 7}),
        ("%(user)s: %(ticket)05d", None),
        ("given: %s", None),
        ("given: %r", None),
    ],
)
@pytest.mark.parametrize("by_queue", [False, True])
def test_arguments_of_a_mapping_that_the_message_does_not_use_are_kept(
    logger: logging.Logger, provider: Broken, message: str, unused: Any, by_queue: bool
) -> None:
    """Formatting leaves them out without a word; the record does not, and nothing raises for them."""
    arguments = {"ticket": 7, "user": "u-1"}
    if by_queue:
        line = Line(logger, AuditHandler(provider), carry=True)
        logger.info(message, arguments, extra=WHOLE)
        line.drain()
    else:
        captured(logger, provider, strict=True)
        logger.info(message, arguments, extra=WHOLE)
    (record,) = provider.records
    assert record.body == message % arguments
    assert record.attributes.get("otel_audit.original.args") == unused
    assert sc.CONVERTED not in record.attributes


class Hostile(dict[str, Any]):
    """A mapping that raises when it is read."""

    def get(self, key: str, default: Any = None) -> Any:
        raise ZeroDivisionError

    items = keys = __iter__ = get  # type: ignore[assignment]


def test_a_message_that_raises_when_it_is_read_is_not_lost(logger: logging.Logger, provider: Broken) -> None:
    """Its text is journaled, and the record says why there is no more."""
    captured(logger, provider)
    logger.info(Hostile(event="user.login"), extra=WHOLE)
    (record,) = provider.records
    assert "user.login" in record.body
    assert record.attributes[sc.CONVERTED] == ["attributes: not read (ZeroDivisionError)"]


def test_include(logger: logging.Logger, provider: Broken) -> None:
    """Place, thread and process, where they are asked for, by a list or by a string with commas."""
    captured(logger, provider, include="source, thread")
    logger.addHandler(AuditHandler(other := RecordingProvider(), include={"process"}))
    for _ in range(3):
        logger.info("user.login", extra=WHOLE)
    for record in provider.records:
        found = record.attributes
        assert found[sc.CODE_FILE_PATH] == __file__
        assert (found[sc.CODE_FUNCTION_NAME], found[sc.THREAD_ID]) == ("test_include", threading.get_ident())
        assert sc.PROCESS_PID not in found
    assert {record.attributes[sc.PROCESS_PID] for record in other.records} == {logging.makeLogRecord({}).process}


@pytest.mark.parametrize(
    ("level", "severity"),
    [(5, 3), (10, 5), (15, 7), (20, 9), (25, 11), (30, 13), (40, 17), (50, 21), (55, 23), (70, 24), (AUDIT, 12)],
)
def test_levels_become_severities(logger: logging.Logger, provider: Broken, level: int, severity: int) -> None:
    """By name where OpenTelemetry knows it, else by number."""
    install_level()
    captured(logger, provider)
    logger.log(level, "user.login", extra=WHOLE)
    found = provider.records[0].attributes
    assert (found[sc.SEVERITY_NUMBER], found[sc.SEVERITY_TEXT]) == (severity, logging.getLevelName(level))


def test_loggers_are_remembered_within_bounds(provider: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their number is the application's."""
    monkeypatch.setattr(stdlib, "_ORIGINS_MAX", 10)
    handler = AuditHandler(provider)
    for number in range(100):
        handler.handle(logging.makeLogRecord({"name": f"n{number}", "levelno": 20, "msg": "a.b", **WHOLE}))
    assert len(handler._origins) <= 10
    assert len(provider.records) == 100


def test_a_painted_level_name_is_not_the_severity(logger: logging.Logger, provider: Broken) -> None:
    """Colouring formatters write on the record."""
    captured(logger, provider)
    record = logger.makeRecord(logger.name, 20, "f.py", 1, "user.login", (), None, extra=WHOLE)
    record.levelname = "\x1b[32mINFO\x1b[0m"
    logger.handle(record)
    assert provider.records[0].attributes[sc.SEVERITY_TEXT] == "INFO"


@pytest.mark.parametrize("created", [float("nan"), -1.0, 1e12, "yesterday", None])
def test_a_time_that_is_none_is_kept_besides(logger: logging.Logger, provider: Broken, created: Any) -> None:
    """The record gets the moment of emit."""
    captured(logger, provider)
    before = time.time_ns()
    for _ in range(3):
        given = {"name": logger.name, "levelno": 20, "msg": "a.b", "created": created, **WHOLE}
        logger.handle(logging.makeLogRecord(given))
    record = provider.records[-1]
    assert record.timestamp_ns >= before
    assert sc.ORIGINAL_TIMESTAMP in record.attributes


def test_context_and_trace_are_the_callers(logger: logging.Logger, provider: Broken) -> None:
    """Facts of ``audit_context`` and the current OpenTelemetry span."""
    captured(logger, provider)
    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, False, TraceFlags(1)))
    for _ in range(3):
        with trace.use_span(span), audit_context(actor="u-7", tenant="acme"):
            logger.info("user.login", extra={"outcome": "success"})
    for record in provider.records:
        assert (record.trace_id, record.span_id) == (f"{0xABC:032x}", f"{0xDEF:016x}")
        assert (record.actor.id, record.attributes[sc.TENANT]) == ("u-7", "acme")


# -- incomplete, strict -------------------------------------------------------------------------------------


def test_what_is_missing_is_filled_counted_and_said_once_per_call_site(
    logger: logging.Logger, provider: Broken, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning to the logger ``otel_audit`` for each place, not for each record."""
    captured(logger, provider)
    caplog.set_level(logging.WARNING, logger="otel_audit")
    for _ in range(5):
        logger.info("user.login")
    logger.info("user.logout")
    said = [record for record in caplog.records if "incomplete audit record" in record.getMessage()]
    assert len(said) == 2
    assert __file__ in said[0].getMessage()
    assert provider.counters.read()["records.filled"] == 6
    assert provider.records[0].attributes[sc.FILLED] == [sc.ACTOR_ID, sc.OUTCOME]


def test_call_sites_are_remembered_within_bounds(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    """Beyond the limit one last warning says that there are more."""
    monkeypatch.setattr(sink, "_warned", set())
    monkeypatch.setattr(sink, "CALL_SITES_MAX", 10)
    for line in range(100):
        sink.warn_of_filled([sc.ACTOR_ID], ("f.py", line))
    assert len(sink._warned) == 11
    assert len(caplog.records) == 11


@pytest.mark.parametrize("configured", ["handler", "provider"])
def test_strict_raises(logger: logging.Logger, configured: str) -> None:
    """Where the handler says so, or the provider for all its captures."""
    provider = RecordingProvider(strict=configured == "provider")
    captured(logger, provider, strict=configured == "handler")
    with pytest.raises(InvalidRecordError, match="actor"):
        logger.info("user.login")
    with pytest.raises(InvalidRecordError, match="% arguments"):
        logger.info("%d", "x", extra=WHOLE)
    assert provider.records == []
    logger.info("user.login", extra=WHOLE)
    assert len(provider.records) == 1


# -- filters, levels, duplicates ----------------------------------------------------------------------------


def test_filters_can_veto(logger: logging.Logger, provider: Broken) -> None:
    """Functions and objects, as for every handler."""
    handler = captured(logger, provider)
    handler.addFilter(lambda record: record.levelno > 20)
    logger.info("user.login", extra=WHOLE)
    logger.warning("user.login", extra=WHOLE)
    assert len(provider.records) == 1


@pytest.mark.skipif(sys.version_info < (3, 12), reason="before Python 3.12 what a filter returns is a truth value")
def test_a_filter_that_returns_a_new_record_is_honoured(logger: logging.Logger, provider: Broken) -> None:
    """A redacting filter must not be bypassed."""

    def redact(record: logging.LogRecord) -> logging.LogRecord:
        redacted = copy.copy(record)
        redacted.card = "****"
        return redacted

    captured(logger, provider).addFilter(redact)
    logger.info("card.read", extra={**WHOLE, "card": "4111"})
    assert provider.records[0].attributes["card"] == "****"


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="from Python 3.12 on a filter may return a record")
def test_a_filter_that_returns_a_new_record_is_a_truth_value_before_3_12(
    logger: logging.Logger, provider: Broken
) -> None:
    """As for every handler of that version: the record itself is journaled."""
    captured(logger, provider).addFilter(lambda record: logging.makeLogRecord({}))
    logger.info("user.login", extra=WHOLE)
    assert provider.records[0].event_name == "user.login"


def test_the_handlers_lock_is_not_taken(logger: logging.Logger, provider: Broken) -> None:
    """A thread that holds it (a fork, a slow flush) does not stop another one's record."""
    handler = captured(logger, provider)
    handler.acquire()
    try:
        thread = threading.Thread(target=lambda: logger.info("user.login", extra=WHOLE))
        thread.start()
        thread.join(5)
        assert len(provider.records) == 1
    finally:
        handler.release()


def test_the_level_of_the_handler(logger: logging.Logger, provider: Broken) -> None:
    """By number or by name."""
    assert captured(logger, provider, level="WARNING").level == logging.WARNING
    logger.info("user.login", extra=WHOLE)
    assert provider.records == []


def test_a_record_that_passes_two_handlers_is_journaled_once(logger: logging.Logger, provider: Broken) -> None:
    """Of one provider; another provider gets it too."""
    child = logging.Logger("child", 1)
    child.parent = logger
    other = RecordingProvider()
    captured(child, provider)
    captured(child, other)  # type: ignore[arg-type]
    captured(logger, provider)
    for _ in range(3):
        child.info("user.login", extra=WHOLE)
    assert (len(provider.records), len(other.records)) == (3, 3)
    assert provider.counters.read()["records.deduplicated"] == 3


def test_equal_records_are_not_duplicates(
    logger: logging.Logger, provider: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the clock stands still."""
    captured(logger, provider)
    monkeypatch.setattr(time, "time", lambda: 1.7e9)
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    for _ in range(10):
        logger.info("user.login", extra=WHOLE)
    assert len(provider.records) == 10


def test_a_record_that_failed_is_not_a_duplicate(logger: logging.Logger, provider: Broken) -> None:
    """The next handler tries again."""
    captured(logger, provider, on_error=lambda error, record: setattr(provider, "error", None))
    captured(logger, provider)
    provider.error = JournalFullError("full")
    logger.info("user.login", extra=WHOLE)
    assert len(provider.records) == 1


def test_what_this_package_logs_is_not_captured(logger: logging.Logger, provider: Broken) -> None:
    """Neither from its loggers nor from its threads (httpx logs its requests there); both are counted."""
    handler = AuditHandler(provider)
    for name in ("otel_audit", "otel_audit.delivery", "otel_audit_like"):
        handler.handle(logging.makeLogRecord({"name": name, "levelno": 20, "msg": "a.b", **WHOLE}))
    assert [record.attributes[sc.LOGGER_NAME] for record in provider.records] == ["otel_audit_like"]
    captured(logger, provider)
    for _ in range(3):  # from then on its records go the quick way
        logger.info("http.request", extra=WHOLE)
    provider.records.clear()

    def own() -> None:
        context.enter_own_thread()
        try:
            logger.info("http.request", extra=WHOLE)
        finally:
            context.leave_own_thread()

    thread = threading.Thread(target=own)
    thread.start()
    thread.join()
    assert provider.records == []
    assert provider.counters.read() == {"records.own_logger": 2, "records.own_thread": 1}


# -- errors -------------------------------------------------------------------------------------------------


def test_an_error_is_raised_into_the_log_call(logger: logging.Logger, provider: Broken) -> None:
    """The application must know; ``logging.raiseExceptions`` has no say in it."""
    captured(logger, provider)
    provider.error = JournalFullError("full")
    with pytest.raises(JournalFullError):
        logger.info("user.login", extra=WHOLE)
    assert provider.counters.read()["records.failed"] == 1


def test_an_error_goes_to_the_standard_error_stream(
    logger: logging.Logger, provider: Broken, capsys: pytest.CaptureFixture[str]
) -> None:
    """With event name and id, and without any value."""
    captured(logger, provider, on_error="stderr")
    provider.error = JournalFullError("no room")
    logger.info("user.login", extra={**WHOLE, "record_id": "r-1", "password": "secret"})
    said = capsys.readouterr().err
    assert said == "otel_audit: an audit record was not journaled (user.login r-1): JournalFullError: no room\n"


def test_an_error_goes_to_a_callable(logger: logging.Logger, provider: Broken) -> None:
    """With the whole record, so that it can be kept elsewhere."""
    seen: list[tuple[Exception, AuditRecord]] = []
    captured(logger, provider, on_error=lambda error, record: seen.append((error, record)))
    provider.error = JournalFullError("full")
    logger.info("user.login", extra={**WHOLE, "amount": 7})
    ((error, record),) = seen
    assert error is provider.error
    assert (record.event_name, record.attributes["amount"]) == ("user.login", 7)


def test_an_error_of_a_record_that_strict_refuses_comes_with_the_record(
    logger: logging.Logger, provider: Broken
) -> None:
    """As far as it could be read."""
    seen: list[AuditRecord] = []
    captured(logger, provider, strict=True, on_error=lambda error, record: seen.append(record))
    logger.info("user.login", extra={"amount": 7})
    assert (seen[0].event_name, seen[0].attributes["amount"]) == ("user.login", 7)


def test_a_standard_error_stream_that_is_gone_does_no_harm(
    logger: logging.Logger, provider: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon has none."""
    captured(logger, provider, on_error="stderr")
    provider.error = JournalFullError("full")
    monkeypatch.setattr(sys, "stderr", None)
    logger.info("user.login", extra=WHOLE)
    assert provider.counters.read()["records.failed"] == 1


def test_a_record_id_that_another_record_has_does_not_lose_the_second(logger: logging.Logger, provider: Broken) -> None:
    """It gets an id of its own and keeps the one it was given; the same record again is journaled once."""
    captured(logger, provider)
    for amount in (1, 1, 2):
        logger.info("user.login", extra={**WHOLE, "record_id": "r-1", "amount": amount})
    first, second = provider.records
    assert first.record_id == "r-1"
    assert second.record_id != "r-1"
    assert second.attributes[sc.ORIGINAL_PREFIX + sc.RECORD_ID] == "r-1"


def test_a_handler_finds_a_provider_that_is_configured_later(
    logger: logging.Logger, provider: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until then a log call raises; nothing is recorded in silence."""
    monkeypatch.setattr(otel_audit.default, "_provider", None)
    logger.addHandler(AuditHandler())
    with pytest.raises(NotConfiguredError):
        logger.info("user.login", extra=WHOLE)
    monkeypatch.setattr(otel_audit.default, "_provider", provider)
    logger.info("user.login", extra=WHOLE)
    assert len(provider.records) == 1


@pytest.mark.parametrize(
    "options",
    [
        {"on_error": "ignore"},
        {"durability": "eternal"},
        {"include": ["weather"]},
        {"event_name": "Login"},
        {"jurnal": "/tmp/x"},
        {"provider": RecordingProvider(), "journal": "/tmp/x"},
    ],
)
def test_a_wrong_argument_is_an_error_at_once(options: dict[str, Any]) -> None:
    """Not at the first record."""
    with pytest.raises((ConfigurationError, InvalidRecordError)):
        AuditHandler(**options)


def test_durability_is_passed_on(logger: logging.Logger) -> None:
    """The receipt's would be lost in a log call, the wait is not."""
    seen: list[Any] = []

    class Waiting(RecordingProvider):
        def emit_record(self, record: AuditRecord, **options: Any) -> Any:
            seen.append(options["durability"])
            raise DeliveryTimeoutError("late", missing=["collector"])

    captured(logger, Waiting(), durability="delivered")  # type: ignore[arg-type]
    with pytest.raises(DeliveryTimeoutError):
        logger.info("user.login", extra=WHOLE)
    assert seen == ["delivered"]


# -- queues -------------------------------------------------------------------------------------------------


class Line:
    """A logger with a ``QueueHandler``, and a listener with the handlers under test."""

    def __init__(self, logger: logging.Logger, *handlers: logging.Handler, carry: bool) -> None:
        self.queue: queue.Queue[Any] = queue.Queue()
        handler = logging.handlers.QueueHandler(self.queue)
        if carry:
            handler.addFilter(AuditContextFilter())
        logger.addHandler(handler)
        self.listener = logging.handlers.QueueListener(self.queue, *handlers)
        self.listener.start()

    def drain(self) -> None:
        """Wait until the listener has handled everything, then end it."""
        self.listener.stop()


def test_the_context_filter_carries_context_and_trace(logger: logging.Logger, provider: Broken) -> None:
    """The listener's thread has neither."""
    line = Line(logger, AuditHandler(provider), carry=True)
    span = NonRecordingSpan(SpanContext(0xABC, 0xDEF, False, TraceFlags(1)))
    with trace.use_span(span), audit_context(actor="u-7", tenant="acme"):
        logger.info("user.login", extra={"outcome": "success"})
    line.drain()
    (record,) = provider.records
    assert (record.actor.id, record.attributes[sc.TENANT]) == ("u-7", "acme")
    assert (record.trace_id, record.span_id) == (f"{0xABC:032x}", f"{0xDEF:016x}")
    assert logrecord.CARRIED not in record.attributes


def test_the_context_filter_carries_what_the_queues_handler_melts(logger: logging.Logger, provider: Broken) -> None:
    """Message and exception apart, whether there were arguments, a structlog event, arguments that do not fit."""
    line = Line(logger, AuditHandler(provider), carry=True)
    try:
        raise LookupError("no")
    except LookupError:
        logger.exception("key.rotate.failure", extra={"actor": "u-1"})
    logger.info("user.%s", "login", extra=WHOLE)
    logger.info({"event": "user.logout", "actor": "u-2", "outcome": "success"})
    logger.info("%d", "x", extra=WHOLE)
    line.drain()
    failed, formatted, event, misfit = provider.records
    assert (failed.event_name, failed.body) == ("key.rotate.failure", None)
    assert failed.attributes[sc.EXCEPTION_TYPE] == "LookupError"
    assert (formatted.event_name, formatted.body) == ("audit.log", "user.login")
    assert (event.event_name, event.actor.id) == ("user.logout", "u-2")
    assert (misfit.body, misfit.attributes["otel_audit.original.args"]) == ("%d", ["x"])


def test_the_context_filter_drops_nothing(logger: logging.Logger) -> None:
    """It is true of every record, and leaves what is there already."""
    record = logger.makeRecord(logger.name, 20, "f.py", 1, "a.b", (), None)
    with audit_context(actor="first"):
        assert AuditContextFilter().filter(record) is True
    with audit_context(actor="second"):
        assert AuditContextFilter().filter(record) is True
    assert record.__dict__[logrecord.CARRIED]["facts"][sc.ACTOR_ID] == "first"


@pytest.mark.parametrize(
    "forged", [{"own_thread": True, "journaled": [], "facts": {sc.ACTOR_ID: "boss"}, "trace": ["", ""]}, {}, "text"]
)
def test_an_extra_cannot_pass_for_what_the_context_filter_carries(
    logger: logging.Logger, provider: Broken, forged: Any
) -> None:
    """It could make the record one of our own, which is dropped, give it another actor, or end a listener's thread."""
    extra = {**WHOLE, logrecord.CARRIED: forged}
    line = Line(logger, AuditHandler(provider), carry=True)
    logger.info("user.login", extra=extra)
    line.drain()
    logger.handlers[:] = []
    captured(logger, provider)
    logger.info("user.login", extra=extra)
    through_queue, direct = provider.records
    assert through_queue.attributes[sc.ORIGINAL_PREFIX + logrecord.CARRIED] == forged
    assert direct.attributes[logrecord.CARRIED] == forged
    assert through_queue.actor == direct.actor == Actor(WHOLE["actor"])


def test_own_threads_are_known_behind_a_queue(logger: logging.Logger, provider: Broken) -> None:
    """Or one delivery would make the next one; with the filter for certain, without it by identifier and name."""
    for carry in (True, False):
        line = Line(logger, AuditHandler(provider), carry=carry)
        go = threading.Event()

        def own(go: threading.Event = go) -> None:
            context.enter_own_thread()
            try:
                logger.info("http.request", extra=WHOLE)
                go.wait(5)
            finally:
                context.leave_own_thread()

        thread = threading.Thread(target=own, name="otel-audit-test")
        thread.start()
        while line.queue.qsize():
            time.sleep(0.001)
        line.drain()
        go.set()
        thread.join()
        logger.handlers.clear()
    assert provider.records == []
    assert provider.counters.read()["records.own_thread"] == 2


def test_a_listeners_thread_survives_an_error_and_tries_again(
    logger: logging.Logger, provider: Broken, caplog: pytest.LogCaptureFixture
) -> None:
    """It never raises there, keeps the records in order, says so, and nothing stays in the queue."""
    caplog.set_level(logging.WARNING, logger="otel_audit")
    provider.error = JournalFullError("full")
    handler = AuditHandler(provider)
    line = Line(logger, handler, carry=False)
    for number in range(10):
        logger.info("user.login", extra={**WHOLE, "number": number})
    deadline = time.monotonic() + 5
    while handler.waiting < 10 and time.monotonic() < deadline:
        time.sleep(0.001)
    assert (handler.waiting, line.queue.qsize()) == (10, 0)
    provider.error = None
    logger.info("user.login", extra={**WHOLE, "number": 10})
    line.drain()
    handler.flush()
    assert [record.attributes["number"] for record in provider.records] == list(range(11))
    assert provider.counters.read()["records.kept"] >= 10
    assert any("kept in memory" in record.getMessage() for record in caplog.records)


def test_a_journal_that_takes_nothing_is_not_asked_again_for_each_record(
    logger: logging.Logger, provider: Broken
) -> None:
    """A full one may take a second to say so: the listener must not fall behind further and further."""
    asked = 0

    class Full(RecordingProvider):
        def emit_record(self, record: AuditRecord, **options: Any) -> Any:
            nonlocal asked
            asked += 1
            raise JournalFullError("full")

    handler = AuditHandler(Full())  # type: ignore[arg-type]
    line = Line(logger, handler, carry=False)
    for _ in range(1000):
        logger.info("user.login", extra=WHOLE)
    line.drain()
    assert handler.waiting == 1000
    assert asked < 100
    handler._kept.records.clear()


def test_a_forked_child_does_not_have_what_the_parent_keeps(provider: Broken) -> None:
    """Else both would journal it."""
    provider.error = JournalFullError("full")
    handler = AuditHandler(provider)
    handler._kept.add(AuditRecord("user.login", **WHOLE))
    kept._forget_in_child()  # as os.register_at_fork has it called
    assert handler.waiting == 0


def test_kept_records_are_tried_again_without_a_new_one(logger: logging.Logger, provider: Broken) -> None:
    """A timer does it."""
    provider.error = JournalFullError("full")
    handler = AuditHandler(provider)
    line = Line(logger, handler, carry=False)
    logger.info("user.login", extra=WHOLE)
    line.drain()
    assert handler.waiting == 1
    provider.error = None
    deadline = time.monotonic() + 5
    while handler.waiting and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(provider.records) == 1


def test_records_before_configure_are_kept_behind_a_queue(
    logger: logging.Logger, provider: Broken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is there who could be told by an exception."""
    monkeypatch.setattr(otel_audit.default, "_provider", None)
    handler = AuditHandler()
    line = Line(logger, handler, carry=False)
    logger.info("user.login", extra=WHOLE)
    line.drain()
    monkeypatch.setattr(otel_audit.default, "_provider", provider)
    handler.flush()
    assert len(provider.records) == 1


def test_what_has_no_room_behind_a_queue_is_said(
    logger: logging.Logger,
    provider: Broken,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Counted, and named on the standard error stream; the thread lives on."""
    monkeypatch.setattr(kept, "KEPT_MAX", 2)
    provider.error = JournalFullError("full")
    handler = AuditHandler(provider)
    line = Line(logger, handler, carry=False)
    for number in range(3):
        logger.info("user.login", extra={**WHOLE, "record_id": f"r-{number}"})
    line.drain()
    assert handler.waiting == 2
    assert "r-2" in capsys.readouterr().err
    assert provider.counters.read()["records.failed"] == 1
    provider.error = None
    handler.flush()


def test_a_record_that_can_never_be_journaled_lets_the_others_pass(logger: logging.Logger, provider: Broken) -> None:
    """A processor that raises at one record does not hold up what is kept behind it."""

    class Picky(RecordingProvider):
        picky = True

        def emit_record(self, record: AuditRecord, **options: Any) -> Any:
            if self.picky and record.attributes["number"] == 0:
                raise ZeroDivisionError
            return super().emit_record(record, **options)

    picky = Picky()
    handler = AuditHandler(picky)  # type: ignore[arg-type]
    line = Line(logger, handler, carry=False)
    for number in range(3):
        logger.info("user.login", extra={**WHOLE, "number": number})
    line.drain()
    handler.flush()
    assert [record.attributes["number"] for record in picky.records] == [1, 2]
    picky.picky = False
    handler.flush()
    assert handler.waiting == 0


def test_strict_behind_a_queue_is_said_and_not_tried_again(
    logger: logging.Logger, provider: Broken, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same record would be refused for ever."""
    handler = AuditHandler(provider, strict=True)
    line = Line(logger, handler, carry=False)
    logger.info("user.login")
    logger.info("user.login", extra=WHOLE)
    line.drain()
    assert (handler.waiting, len(provider.records)) == (0, 1)
    assert "InvalidRecordError" in capsys.readouterr().err


def test_a_callable_that_raises_does_not_end_a_listeners_thread(
    logger: logging.Logger, provider: Broken, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is told on the standard error stream."""

    def fail(error: Exception, record: AuditRecord) -> None:
        raise ZeroDivisionError

    handler = AuditHandler(provider, strict=True, on_error=fail)
    line = Line(logger, handler, carry=False)
    logger.info("user.login")
    logger.info("user.login", extra=WHOLE)
    line.drain()
    assert len(provider.records) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_a_listener_that_overrides_handle_is_recognised(logger: logging.Logger, provider: Broken) -> None:
    """By what it is, not by its code alone."""

    class Own(logging.handlers.QueueListener):
        def handle(self, record: logging.LogRecord) -> None:
            for handler in self.handlers:
                handler.handle(record)

    provider.error = JournalFullError("full")
    handler = AuditHandler(provider)
    Own(queue.Queue(), handler).handle(logger.makeRecord(logger.name, 20, "f", 1, "a.b", (), None, extra=WHOLE))
    assert handler.waiting == 1
    provider.error = None
    handler.flush()


# -- ending -------------------------------------------------------------------------------------------------


def test_flush_and_close_leave_a_shared_provider_alone(logger: logging.Logger) -> None:
    """Neither waits for a destination nor closes; a record after that is journaled."""

    class Shared(RecordingProvider):
        def flush(self, timeout_s: float = 30.0) -> Any:
            raise AssertionError

        shutdown = flush

    provider = Shared()
    handler = captured(logger, provider)
    handler.flush()
    handler.close()
    logger.info("user.login", extra=WHOLE)
    assert len(provider.records) == 1


def test_close_of_a_provider_of_its_own(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is closed without waiting (``dictConfig`` closes what it replaces); a record after that opens another."""
    made: list[RecordingProvider] = []

    class Own(RecordingProvider):
        waited: float | None = None

        def shutdown(self, timeout_s: float = 30.0) -> Any:
            self.waited = timeout_s
            return super().shutdown(timeout_s)

    def build(_: str, **options: Any) -> RecordingProvider:
        assert options == {"journal": "x"}
        made.append(Own())
        return made[-1]

    monkeypatch.setattr(sink, "build_provider", build)
    monkeypatch.setattr(otel_audit.default, "_of_captures", ())
    handler = AuditHandler(journal="x")
    logger.addHandler(handler)
    logger.info("user.login", extra=WHOLE)
    handler.close()
    assert made[0].waited == 0  # type: ignore[attr-defined]
    logger.info("user.logout", extra=WHOLE)
    assert [[record.event_name for record in provider] for provider in made] == [["user.login"], ["user.logout"]]


def test_what_is_logged_while_its_provider_opens(logger: logging.Logger, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a library that the provider loads, to this very handler: an error, not a second provider and no deadlock."""
    errors: list[Exception] = []
    handler: AuditHandler | None = None

    def build(_: str, **options: Any) -> RecordingProvider:
        if handler is not None:
            logger.info("library.loaded", extra=WHOLE)
        return RecordingProvider()

    monkeypatch.setattr(sink, "build_provider", build)
    monkeypatch.setattr(otel_audit.default, "_of_captures", ())
    handler = AuditHandler(journal="x", on_error=lambda error, record: errors.append(error))
    logger.addHandler(handler)
    handler.close()
    logger.info("user.login", extra=WHOLE)
    assert [type(error) for error in errors] == [NotConfiguredError]


def test_close_says_what_is_only_in_memory(
    logger: logging.Logger, provider: Broken, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is the last moment for it."""
    provider.error = JournalFullError("full")
    handler = AuditHandler(provider)
    line = Line(logger, handler, carry=False)
    logger.info("user.login", extra=WHOLE)
    line.drain()
    handler.close()
    assert "1 audit records are only in memory" in capsys.readouterr().err
    provider.error = None
    handler.flush()


# -- attach -------------------------------------------------------------------------------------------------


def audit_handlers(logger: logging.Logger) -> list[AuditHandler]:
    return [handler for handler in logger.handlers if isinstance(handler, AuditHandler)]


def test_attach_adds_a_handler_and_sets_the_level() -> None:
    """A fresh logger inherits WARNING, and ``info`` would vanish."""
    logger = logging.getLogger("test.attach.one")
    handler = attach(logger.name)
    assert audit_handlers(logger) == [handler]
    assert logger.level == logging.INFO
    assert attach(logger, "DEBUG") is handler
    assert logger.level == logging.DEBUG
    attach(logger, logging.WARNING)
    assert logger.level == logging.DEBUG
    assert audit_handlers(logger) == [handler]


def test_attach_to_the_root() -> None:
    """By either of its names."""
    root = logging.getLogger()
    level = root.level
    try:
        assert attach("root", 60) is attach("", 60)
        assert len(audit_handlers(root)) == 1
    finally:
        root.setLevel(level)
        for handler in audit_handlers(root):
            root.removeHandler(handler)


def test_attach_refuses_a_level_that_is_none(logger: logging.Logger) -> None:
    """With the name of the setting."""
    with pytest.raises(ConfigurationError, match="level"):
        attach(logger, "LOUD")


def test_the_audit_level() -> None:
    """Above CRITICAL, and known by name once it is installed."""
    assert install_level() == AUDIT == logging.getLevelName("AUDIT")
    logger = logging.getLogger("test.attach.two")
    attach(logger, "AUDIT")
    assert logger.level == AUDIT > logging.CRITICAL


def test_captured_warnings_are_records(provider: Broken) -> None:
    """``logging.captureWarnings`` makes a log call of each."""
    handler = AuditHandler(provider)
    logger = logging.getLogger("py.warnings")
    logger.addHandler(handler)
    logging.captureWarnings(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    finally:
        logging.captureWarnings(False)
        logger.removeHandler(handler)
    (record,) = provider.records
    assert record.event_name == "audit.log"
    assert "DeprecationWarning: old" in record.body


# -- records that are not whole -----------------------------------------------------------------------------


_PARTS = sorted(set(logging.makeLogRecord({}).__dict__) - {"taskName"})
_UNUSABLE = [("name", ["x"]), ("levelno", {}), ("thread", [1]), ("name", {"a": []})]


@pytest.mark.parametrize("change", [*_PARTS, *_UNUSABLE], ids=str)
@pytest.mark.parametrize("by_listener", [False, True], ids=["handled", "from a queue"])
def test_a_record_that_is_not_whole_keeps_the_rest(
    provider: Broken, change: str | tuple[str, Any], by_listener: bool
) -> None:
    """A filter took a part of it away, or put something unusable there: the facts are journaled, and what follows."""
    handler = AuditHandler(provider)
    sound = logging.makeLogRecord({"name": "n", "levelno": 20, "msg": "user.login", "thread": 7, **WHOLE})
    records = [logging.makeLogRecord(sound.__dict__) for _ in range(3)]
    if isinstance(change, tuple):
        records[1].__dict__[change[0]] = change[1]
    else:
        del records[1].__dict__[change]
    if by_listener:
        waiting: queue.Queue[Any] = queue.Queue()
        listener = logging.handlers.QueueListener(waiting, handler)
        listener.start()
        for record in records:
            waiting.put(record)
        listener.stop()
    else:
        for record in records:
            handler.handle(record)
            handler.handle(record)
    assert [record.actor.id for record in provider.records] == ["u-42"] * 3
    assert provider.records[1].event_name == ("audit.log" if change == "msg" else "user.login")
    outcomes = [record.outcome for record in provider.records]
    assert outcomes == [outcomes[0]] * 3
