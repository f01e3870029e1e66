"""``StructlogAuditProcessor``: from a structlog event to a record, in every place that a chain has for it."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import logging.handlers
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import structlog

import otel_audit.default
from otel_audit import context
from otel_audit import semconv as sc
from otel_audit.capture import eventdict, once
from otel_audit.capture.stdlib import AuditHandler
from otel_audit.capture.structlog import StructlogAuditProcessor
from otel_audit.context import audit_context
from otel_audit.errors import ConfigurationError, InvalidRecordError, JournalFullError, NotConfiguredError
from otel_audit.record import AuditRecord
from otel_audit.testing.memory import RecordingProvider

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


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def chain(*processors: Any, **options: Any) -> Any:
    """A structlog logger that returns what its chain made."""
    options.setdefault("logger_factory", structlog.ReturnLoggerFactory())
    return structlog.wrap_logger(options.pop("logger_factory")(), processors=list(processors), **options)


# -- what is in the record ----------------------------------------------------------------------------------


def test_an_event_becomes_a_record_and_goes_on_unchanged(provider: Broken) -> None:
    """The first time and, by the quick way, the third."""
    log = chain(StructlogAuditProcessor(provider))
    event = {"event": "document.delete", "audit": True, **WHOLE, "target": "document:7", "pages": 3}
    for _ in range(3):
        args, passed_on = log.info("document.delete", audit=True, **WHOLE, target="document:7", pages=3)
        assert (args, passed_on) == ((), event)
    for record in provider.records:
        assert (record.event_name, record.body) == ("document.delete", None)
        assert {**record.attributes, sc.RECORD_ID: ""} == {
            sc.RECORD_ID: "", sc.ACTOR_ID: "u-42", sc.ACTOR_TYPE: "user", sc.ACTION: "DELETE", sc.OUTCOME: "success",
            sc.TARGET_ID: "document:7", "pages": 3, sc.SEVERITY_NUMBER: 9, sc.SEVERITY_TEXT: "INFO",
        }  # fmt: skip
    assert len(provider.records) == 3


@pytest.mark.parametrize(
    ("select", "journaled"),
    [("audit", ["a.one"]), ("all", ["a.one", "a.two", "a.three"]), (lambda _, __, event: "x" in event, ["a.three"])],
)
def test_select(provider: Broken, select: Any, journaled: list[str]) -> None:
    """By the key ``audit``, everything, or as a callable says."""
    log = chain(StructlogAuditProcessor(provider, select=select))
    log.info("a.one", audit=True, **WHOLE)
    log.info("a.two", audit=False, **WHOLE)
    log.info("a.three", x=1, **WHOLE)
    assert [record.event_name for record in provider.records] == journaled
    assert all("audit" not in record.attributes for record in provider.records)


def test_data_under_the_marker_is_not_dropped(provider: Broken) -> None:
    """Only a bool is nothing but the marker."""
    log = chain(StructlogAuditProcessor(provider))
    for _ in range(3):
        log.info("a.b", audit={"ticket": 7}, **WHOLE)
    assert provider.records[-1].attributes["audit"] == {"ticket": 7}


@pytest.mark.parametrize(
    ("message", "args", "event_name", "body"),
    [
        ("user.login", (), "user.login", None),
        ("A user is in", (), "audit.log", "A user is in"),
        ("user.%s", ("login",), "audit.log", "user.login"),
        ("%(who)s is in", ({"who": "Ann"},), "audit.log", "Ann is in"),
    ],
)
def test_the_naming_rule(provider: Broken, message: str, args: Any, event_name: str, body: Any) -> None:
    """With the arguments of structlog's ``BoundLogger`` too."""
    log = chain(StructlogAuditProcessor(provider, select="all"), wrapper_class=structlog.stdlib.BoundLogger)
    for _ in range(3):
        log.info(message, *args, **WHOLE)
    assert {(record.event_name, record.body) for record in provider.records} == {(event_name, body)}


def test_arguments_that_do_not_fit_lose_nothing(provider: Broken) -> None:
    """The message stays as it is and the arguments stand beside it."""
    log = chain(StructlogAuditProcessor(provider, select="all"), wrapper_class=structlog.stdlib.BoundLogger)
    log.info("%d", "x", **WHOLE)
    (record,) = provider.records
    assert (record.body, record.attributes["otel_audit.original.args"]) == ("%d", ["x"])


def test_level_and_logger(provider: Broken) -> None:
    """From the processors that add them, else from the method and the logger."""
    name = structlog.stdlib.add_logger_name
    level = structlog.stdlib.add_log_level
    logger = logging.Logger("shop")
    for processors in ((), (name, level)):
        log = chain(*processors, StructlogAuditProcessor(provider, select="all"), _drop, logger_factory=lambda: logger)
        for _ in range(3):
            log.warning("a.b", **WHOLE)
            log.exception("a.b", **WHOLE)
    severities = [record.attributes[sc.SEVERITY_TEXT] for record in provider.records]
    assert severities == ["WARNING", "ERROR"] * 6
    assert {record.attributes[sc.LOGGER_NAME] for record in provider.records} == {"shop"}
    assert all({"level", "logger"}.isdisjoint(record.attributes) for record in provider.records)


def _drop(*_: Any) -> Any:
    raise structlog.DropEvent


def test_a_level_of_the_callers_is_a_free_attribute(provider: Broken) -> None:
    """Where it is no level, it is data; and a logger that is no string."""
    log = chain(StructlogAuditProcessor(provider, select="all"))
    for _ in range(3):
        log.info("a.b", level=7, logger={"x": 1}, **WHOLE)
    found = provider.records[-1].attributes
    assert (found["level"], found["logger"], found[sc.SEVERITY_TEXT]) == (7, {"x": 1}, "INFO")


NOW = datetime(2026, 11, 21, 10, 30, 0, 123456, tzinfo=timezone.utc)
NOW_NS = int(NOW.timestamp()) * 10**9 + 123_456_000


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (NOW.isoformat(), NOW_NS),
        (NOW.isoformat().replace("+00:00", "Z"), NOW_NS),
        (NOW, NOW_NS),
        (NOW.astimezone(timezone(timedelta(hours=5))).isoformat(), NOW_NS),
        (NOW.astimezone().replace(tzinfo=None).isoformat(), NOW_NS),
        (1_700_000_000, 1_700_000_000 * 10**9),
        (1_700_000_000.5, 1_700_000_000_500_000_000),
        ("21.11.2026", 0),
        (True, 0),
        (float("nan"), 0),
        (-1, 0),
        (1e300, 0),
        (None, 0),
        (datetime.min, 0),
    ],
)
def test_timestamps(value: Any, expected: int) -> None:
    """ISO 8601 with and without zone, ``datetime``, seconds; 0 for anything else."""
    assert eventdict.timestamp_ns(value) == expected


@pytest.mark.parametrize("fmt", ["iso", None, "%d.%m."])
@pytest.mark.parametrize("utc", [True, False])
def test_what_a_time_stamper_writes(provider: Broken, fmt: str | None, utc: bool) -> None:
    """Is the record's time; what cannot be read is kept, and the record has the moment of emit."""
    if fmt is None and not utc:
        pytest.skip("TimeStamper refuses that")
    stamper = structlog.processors.TimeStamper(fmt=fmt, utc=utc)
    log = chain(stamper, StructlogAuditProcessor(provider, select="all"))
    for _ in range(3):
        before = time.time_ns()
        _, event = log.info("a.b", **WHOLE)
        record = provider.records[-1]
        assert before - 1000 <= record.timestamp_ns <= time.time_ns()
        assert "timestamp" not in record.attributes
        assert record.attributes.get(sc.ORIGINAL_TIMESTAMP) == (event["timestamp"] if fmt == "%d.%m." else None)


@pytest.mark.parametrize(
    "formatter", [None, structlog.processors.format_exc_info, structlog.processors.dict_tracebacks]
)
def test_exceptions(provider: Broken, formatter: Any) -> None:
    """Before and behind the processors that format them."""
    processors = [formatter] if formatter else []
    log = chain(*processors, StructlogAuditProcessor(provider, select="all"))
    try:
        raise LookupError("no such key")
    except LookupError:
        log.error("key.rotate", exc_info=True, **WHOLE)
    found = provider.records[0].attributes
    if formatter is not structlog.processors.format_exc_info:  # that leaves nothing but text
        assert (found[sc.EXCEPTION_TYPE], found[sc.EXCEPTION_MESSAGE]) == ("LookupError", "no such key")
    if formatter is structlog.processors.dict_tracebacks:
        assert found["exception"][0]["exc_type"] == "LookupError"
    else:
        assert "LookupError: no such key" in found[sc.EXCEPTION_STACKTRACE]
    assert "exc_info" not in found


def test_an_exception_object(provider: Broken) -> None:
    """``exc_info`` may be one; outside of an ``except`` block True says nothing."""
    log = chain(StructlogAuditProcessor(provider, select="all"))
    log.error("key.rotate", exc_info=ValueError("bad"), **WHOLE)
    log.error("key.rotate", exc_info=True, **WHOLE)
    first, second = provider.records
    assert first.attributes[sc.EXCEPTION_TYPE] == "ValueError"
    assert not [name for name in second.attributes if name.startswith("exception")]


@pytest.mark.parametrize("rendered", [True, False])
def test_stacks(provider: Broken, rendered: bool) -> None:
    """The caller's, before and behind the renderer; its frames and not structlog's."""
    processors = [structlog.processors.StackInfoRenderer()] if rendered else []
    chain(*processors, StructlogAuditProcessor(provider, select="all")).info("a.b", stack_info=True, **WHOLE)
    stack = provider.records[0].attributes[sc.CODE_STACKTRACE]
    assert "test_stacks" in stack
    assert "_proxy_to_logger" not in stack
    assert {"stack", "stack_info"}.isdisjoint(provider.records[0].attributes)


def test_bound_values_and_contexts(provider: Broken) -> None:
    """Bound to the logger, merged from context variables by structlog, and from ``audit_context``."""
    log = chain(structlog.contextvars.merge_contextvars, StructlogAuditProcessor(provider, select="all"))
    structlog.contextvars.bind_contextvars(request_id="q-1")
    with audit_context(tenant="acme"):
        log.bind(actor="u-1").info("a.b", outcome="success")
    found = provider.records[0].attributes
    assert (found[sc.ACTOR_ID], found[sc.REQUEST_ID], found[sc.TENANT]) == ("u-1", "q-1", "acme")


def test_what_is_missing_is_filled_and_said_once_per_call_site(
    provider: Broken, caplog: pytest.LogCaptureFixture
) -> None:
    """The place is the caller's, not structlog's."""
    log = chain(StructlogAuditProcessor(provider, select="all"))
    for _ in range(3):
        log.info("user.login")
    said = [record.getMessage() for record in caplog.records if "incomplete" in record.getMessage()]
    assert len(said) == 1
    assert __file__ in said[0]
    assert provider.counters.read()["records.filled"] == 3


def test_the_id_for_the_console(provider: Broken) -> None:
    """Under the key that was asked for, and only for what was journaled."""
    log = chain(StructlogAuditProcessor(provider, record_id_key="audit_id"), structlog.processors.JSONRenderer())
    line = json.loads(log.info("a.b", audit=True, **WHOLE))
    assert line["audit_id"] == provider.records[0].record_id
    assert "audit_id" not in json.loads(log.info("a.b"))


# -- wrappers -----------------------------------------------------------------------------------------------


def test_a_filtering_logger(provider: Broken) -> None:
    """What it drops never gets here; what it lets pass does, from coroutines too."""
    log = chain(StructlogAuditProcessor(provider), wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    log.debug("a.dropped", audit=True, **WHOLE)
    log.info("a.%s", "formatted", audit=True, **WHOLE)

    async def main() -> None:
        with audit_context(tenant="acme"):
            await log.ainfo("a.awaited", audit=True, **WHOLE)

    asyncio.run(main())
    formatted, awaited = provider.records
    assert (formatted.event_name, awaited.event_name) == ("a.formatted", "a.awaited")
    assert awaited.attributes[sc.TENANT] == "acme"


def test_coroutines_of_the_standard_wrapper(provider: Broken, caplog: pytest.LogCaptureFixture) -> None:
    """A worker thread with a copy of the context; the call site that is named is the coroutine's."""
    log = chain(StructlogAuditProcessor(provider), wrapper_class=structlog.stdlib.BoundLogger)

    async def main() -> None:
        with audit_context(tenant="acme"):
            await log.ainfo("a.awaited", audit=True)

    asyncio.run(main())
    (record,) = provider.records
    assert record.attributes[sc.TENANT] == "acme"
    if tuple(map(int, structlog.__version__.split(".")[:2])) >= (25, 1):  # older ones do not say where it was
        assert any(__file__ in said.getMessage() for said in caplog.records)


def test_a_dropped_event_is_not_journaled(provider: Broken) -> None:
    """``DropEvent`` before the processor ends the chain; after it the record stands."""
    chain(_drop, StructlogAuditProcessor(provider)).info("a.b", audit=True, **WHOLE)
    assert provider.records == []
    chain(StructlogAuditProcessor(provider), _drop).info("a.b", audit=True, **WHOLE)
    assert len(provider.records) == 1


def test_behind_a_renderer_is_an_error(provider: Broken) -> None:
    """It would see no event, and journal nothing in silence."""
    log = chain(structlog.processors.JSONRenderer(), StructlogAuditProcessor(provider, on_error="stderr"))
    with pytest.raises(ConfigurationError, match="before the renderer"):
        log.info("a.b", audit=True, **WHOLE)


def test_structlog_is_not_imported() -> None:
    """Neither by the processor nor by the handler."""
    script = (
        "import sys, otel_audit.capture.structlog, otel_audit.capture.stdlib\n"
        "from otel_audit.testing.memory import RecordingProvider\n"
        "provider = RecordingProvider()\n"
        "process = otel_audit.capture.structlog.StructlogAuditProcessor(provider)\n"
        "process(None, 'info', {'event': 'a.b', 'audit': True})\n"
        "print(len(provider.records), 'structlog' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["1", "False"]


# -- the same event in logging ------------------------------------------------------------------------------


def formatter(*processors: Any) -> logging.Formatter:
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder()],
        processors=[*processors, structlog.stdlib.ProcessorFormatter.remove_processors_meta, _as_json],
    )


def _as_json(_: Any, __: str, event: Any) -> str:
    return json.dumps(event, default=str)


FINALS = {
    "rendered": structlog.processors.JSONRenderer(),
    "wrapped": structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    "kwargs": structlog.stdlib.render_to_log_kwargs,
}
if hasattr(structlog.stdlib, "render_to_log_args_and_kwargs"):  # structlog 25.1 and later
    FINALS["args"] = structlog.stdlib.render_to_log_args_and_kwargs


@pytest.mark.parametrize("final", FINALS)
@pytest.mark.parametrize("wrapper", [structlog.stdlib.BoundLogger, structlog.make_filtering_bound_logger(0)])
def test_an_event_that_reaches_both_captures_is_journaled_once(provider: Broken, final: str, wrapper: Any) -> None:
    """By the first of them, in every way that structlog has to hand it to logging; the console line has no mark."""
    logger = logging.Logger("shop", 1)
    logger.addHandler(AuditHandler(provider))
    stream = io.StringIO()
    console = logging.StreamHandler(stream)
    console.setFormatter(formatter())
    logger.addHandler(console)
    log = chain(StructlogAuditProcessor(provider), FINALS[final], logger_factory=lambda: logger, wrapper_class=wrapper)
    for number in range(3):
        log.info("user.login", audit=True, number=number, **WHOLE)
        logger.info("user.logout", extra={**WHOLE, "number": number})
    assert [record.event_name for record in provider.records] == ["user.login", "user.logout"] * 3
    assert provider.counters.read()["records.deduplicated"] == 3
    assert "otel_audit" not in stream.getvalue()


@pytest.mark.parametrize("final", FINALS)
def test_an_event_that_only_the_handler_sees_keeps_its_fields(provider: Broken, final: str) -> None:
    """An event dictionary is read as one, not as its ``str()``; a rendered line is all that is left of the event."""
    logger = logging.Logger("shop", 1)
    logger.addHandler(AuditHandler(provider))
    log = chain(structlog.stdlib.add_log_level, FINALS[final], logger_factory=lambda: logger)
    log.info("user.login", number=7, **WHOLE)
    (record,) = provider.records
    if final == "rendered":
        assert json.loads(record.body)["number"] == 7
        return
    assert (record.event_name, record.actor.id, record.attributes["number"]) == ("user.login", "u-42", 7)
    assert record.attributes[sc.LOGGER_NAME] == "shop"
    assert {"_logger", "_name", "event"}.isdisjoint(record.attributes)


def test_what_is_logged_within_the_call_is_no_duplicate(provider: Broken) -> None:
    """Neither by a processor nor by another handler: these are other events."""
    logger = logging.Logger("shop", 1)
    other = logging.Logger("other", 1)
    other.addHandler(AuditHandler(provider))

    class Chatty(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            other.info("handler.ran", extra=WHOLE)

    def chatty(_: Any, __: str, event: Any) -> Any:
        other.info("processor.ran", extra=WHOLE)
        return event

    logger.addHandler(Chatty())
    logger.addHandler(AuditHandler(provider))
    log = chain(
        StructlogAuditProcessor(provider), chatty, structlog.processors.JSONRenderer(), logger_factory=lambda: logger
    )
    for _ in range(3):
        log.info("user.login", audit=True, **WHOLE)
    names = [record.event_name for record in provider.records]
    assert names == ["user.login", "processor.ran", "handler.ran"] * 3


def test_what_another_handler_kept_back_is_no_duplicate(provider: Broken) -> None:
    """A structlog event makes a ``MemoryHandler`` hand on what it has collected before."""
    logger = logging.Logger("shop", 1)
    logger.addHandler(logging.handlers.MemoryHandler(3, target=AuditHandler(provider)))
    log = chain(StructlogAuditProcessor(provider), FINALS["wrapped"], logger_factory=lambda: logger)
    logger.info("a.one", extra=WHOLE)
    logger.info("a.two", extra=WHOLE)
    log.info("a.three", audit=True, **WHOLE)
    assert [record.event_name for record in provider.records] == ["a.three", "a.one", "a.two"]


def test_a_formatter_within_a_call_does_not_take_its_place(provider: Broken) -> None:
    """A processor that a formatter runs, behind what takes the record away, while another event is on its way."""
    within = logging.Logger("within", 1)
    console = logging.StreamHandler(io.StringIO())
    console.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                StructlogAuditProcessor(provider, select="all"),
                structlog.processors.JSONRenderer(),
            ]
        )
    )
    within.addHandler(console)

    def log_within(_: Any, __: str, event: Any) -> Any:
        within.info("a.within")
        return event

    logger = logging.Logger("shop", 1)
    logger.addHandler(AuditHandler(provider))
    chain(log_within, FINALS["wrapped"], logger_factory=lambda: logger).info("a.outer", **WHOLE)
    assert [record.event_name for record in provider.records] == ["a.within", "a.outer"]


def test_the_stack_is_not_searched_for_a_call_that_has_returned(provider: Broken) -> None:
    """It would cost every later record of that thread."""
    chain(StructlogAuditProcessor(provider)).info("user.login", audit=True, **WHOLE)
    assert once._calls.are_marked
    logger = logging.Logger("shop", 1)
    logger.addHandler(AuditHandler(provider))
    logger.info("user.login", extra=WHOLE)
    assert not once._calls.are_marked


def test_a_field_of_the_event_and_an_extra_are_both_kept(provider: Broken) -> None:
    """A record factory's attribute may have the name of a key."""
    logger = logging.Logger("shop", 1)
    logger.addHandler(AuditHandler(provider))
    logger.info({"event": "user.login", "actor": "u-1", "host": "event's"}, extra={"host": "extra's"})
    found = provider.records[0].attributes
    assert (found["host"], found[sc.ORIGINAL_PREFIX + "host"]) == ("event's", "extra's")


def test_an_earlier_event_does_not_hide_a_later_record(provider: Broken) -> None:
    """Equal in every value, from the same thread, once the structlog call has returned."""
    logger = logging.Logger("shop", 1)
    logger.addHandler(AuditHandler(provider))
    chain(StructlogAuditProcessor(provider)).info("user.login", audit=True, **WHOLE)
    unaudited = chain(structlog.stdlib.render_to_log_kwargs, logger_factory=lambda: logger)
    unaudited.info("user.login", audit=True, **WHOLE)
    logger.info("user.login", extra={"audit": True, **WHOLE})
    assert len(provider.records) == 3


def test_two_processors_of_one_provider_journal_once(provider: Broken) -> None:
    """Of two providers, each its own."""
    other = RecordingProvider()
    log = chain(
        StructlogAuditProcessor(provider),
        StructlogAuditProcessor(provider),
        StructlogAuditProcessor(other),  # type: ignore[arg-type]
    )
    for _ in range(3):
        log.info("user.login", audit=True, **WHOLE)
    assert (len(provider.records), len(other.records)) == (3, 3)


@pytest.mark.parametrize("order", ["handler first", "formatter first"])
def test_a_log_record_in_a_processor_formatter_is_journaled_once(provider: Broken, order: str) -> None:
    """Whichever of handler and formatter comes first; a structlog event that comes that way too."""
    logger = logging.Logger("shop", 1)
    console = logging.StreamHandler(io.StringIO())
    console.setFormatter(formatter(StructlogAuditProcessor(provider, select="all")))
    handlers = [AuditHandler(provider), console]
    for handler in handlers if order == "handler first" else reversed(handlers):
        logger.addHandler(handler)
    for _ in range(3):
        logger.info("user.login", extra={**WHOLE, "number": 7})
    wrapped = chain(FINALS["wrapped"], logger_factory=lambda: logger)
    wrapped.info("user.logout", **WHOLE, number=7)
    assert [record.event_name for record in provider.records] == ["user.login"] * 3 + ["user.logout"]
    for record in provider.records:
        assert (record.actor.id, record.attributes["number"]) == ("u-42", 7)
        assert record.attributes[sc.LOGGER_NAME] == "shop"
        assert {"_record", "_from_structlog", "_logger", "_name"}.isdisjoint(record.attributes)


def test_a_formatter_without_extra_adder_loses_no_extras(provider: Broken) -> None:
    """They are taken from the ``LogRecord`` itself."""
    logger = logging.Logger("shop", 1)
    console = logging.StreamHandler(io.StringIO())
    console.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                StructlogAuditProcessor(provider, select="all"),
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ]
        )
    )
    logger.addHandler(console)
    logger.warning("user.login", extra={**WHOLE, "number": 7})
    (record,) = provider.records
    assert (record.actor.id, record.attributes["number"]) == ("u-42", 7)
    assert record.attributes[sc.SEVERITY_TEXT] == "WARNING"


# -- errors -------------------------------------------------------------------------------------------------


def test_an_error_is_raised_into_the_log_call(provider: Broken) -> None:
    """And the next try is no duplicate."""
    log = chain(StructlogAuditProcessor(provider))
    provider.error = JournalFullError("full")
    with pytest.raises(JournalFullError):
        log.info("a.b", audit=True, **WHOLE)
    provider.error = None
    log.info("a.b", audit=True, **WHOLE)
    assert len(provider.records) == 1


def test_after_an_error_that_was_handled_the_handler_tries_again(provider: Broken) -> None:
    """What the processor did not journal is not marked."""
    logger = logging.Logger("shop", 1)
    logger.addHandler(AuditHandler(provider))
    forgive = StructlogAuditProcessor(provider, on_error=lambda error, record: setattr(provider, "error", None))
    log = chain(forgive, FINALS["wrapped"], logger_factory=lambda: logger)
    provider.error = JournalFullError("full")
    log.info("user.login", audit=True, **WHOLE)
    assert [record.event_name for record in provider.records] == ["user.login"]


def test_other_ways_with_errors(provider: Broken, capsys: pytest.CaptureFixture[str]) -> None:
    """The standard error stream, and a callable; the event goes on either way."""
    seen: list[AuditRecord] = []
    provider.error = JournalFullError("full")
    for on_error in ("stderr", lambda error, record: seen.append(record)):
        log = chain(StructlogAuditProcessor(provider, on_error=on_error))
        assert log.info("a.b", audit=True, record_id="r-1", **WHOLE)[1]["event"] == "a.b"
    assert "(a.b r-1): JournalFullError" in capsys.readouterr().err
    assert seen[0].record_id == "r-1"


def test_strict_raises(provider: Broken) -> None:
    """On what would else be filled."""
    with pytest.raises(InvalidRecordError, match="actor"):
        chain(StructlogAuditProcessor(provider, strict=True)).info("a.b", audit=True, outcome="success")


def test_nothing_is_configured(monkeypatch: pytest.MonkeyPatch, provider: Broken) -> None:
    """The log call raises until there is a provider."""
    monkeypatch.setattr(otel_audit.default, "_provider", None)
    log = chain(StructlogAuditProcessor())
    with pytest.raises(NotConfiguredError):
        log.info("a.b", audit=True, **WHOLE)
    monkeypatch.setattr(otel_audit.default, "_provider", provider)
    log.info("a.b", audit=True, **WHOLE)
    assert len(provider.records) == 1


def test_what_this_package_logs_is_not_captured(provider: Broken) -> None:
    """From its threads, or under its name."""
    log = chain(StructlogAuditProcessor(provider, select="all"))
    log.info("a.b", logger="otel_audit.delivery", **WHOLE)
    context.enter_own_thread()
    try:
        log.info("a.b", **WHOLE)
    finally:
        context.leave_own_thread()
    assert provider.records == []
    assert provider.counters.read() == {"records.own_logger": 1, "records.own_thread": 1}


@pytest.mark.parametrize("options", [{"select": "some"}, {"on_error": "ignore"}, {"event_name": "Login"}])
def test_a_wrong_argument_is_an_error_at_once(options: dict[str, Any]) -> None:
    """Not at the first event."""
    with pytest.raises((ConfigurationError, InvalidRecordError)):
        StructlogAuditProcessor(**options)
