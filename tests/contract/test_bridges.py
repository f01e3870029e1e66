"""Both bridges to OpenTelemetry's SDK, with the SDK itself: out of its Logs API, and into its exporters.

Runs with the SDK that is installed; names that changed between its versions are looked up.
"""

from __future__ import annotations

import io
import json
import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from opentelemetry import trace
from opentelemetry._logs import LogRecord as ApiLogRecord
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk import _logs as sdk_logs
from opentelemetry.sdk._logs import export as sdk_export
from opentelemetry.sdk.trace import TracerProvider

import otel_audit
from otel_audit import AuditHandler, AuditLogRecordProcessor, SdkExporter, StructlogAuditProcessor
from otel_audit import semconv as sc
from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.canonical import canonicalize
from otel_audit.context import enter_own_thread, leave_own_thread
from otel_audit.errors import (
    BlockedExportError,
    ConfigurationError,
    InvalidRecordError,
    JournalFullError,
    RetryableExportError,
)
from otel_audit.settings import load_settings
from otel_audit.testing import RecordingProvider, Reply, ScriptedReceiver
from support.delivery import until

ConsoleExporter: Any = getattr(sdk_export, "ConsoleLogRecordExporter", None) or sdk_export.ConsoleLogExporter
MemoryExporter: Any = getattr(sdk_export, "InMemoryLogRecordExporter", None) or sdk_export.InMemoryLogExporter
Result: Any = getattr(sdk_export, "LogRecordExportResult", None) or sdk_export.LogExportResult
HAS_EVENT_NAME = hasattr(ApiLogRecord(), "event_name")

WHOLE = {"actor": "u-42", "outcome": "success"}


@pytest.fixture
def provider() -> RecordingProvider:
    """Takes everything and remembers it."""
    return RecordingProvider()


@pytest.fixture
def logs() -> Iterator[sdk_logs.LoggerProvider]:
    """The SDK's provider, as it is installed."""
    made = sdk_logs.LoggerProvider(shutdown_on_exit=False)
    yield made
    made.shutdown()


def emit(logs: sdk_logs.LoggerProvider, name: str = "user.login", scope: str = "shop", **given: Any) -> None:
    """One record through the Logs API, as the installed version wants it."""
    attributes = given.pop("attributes", {})
    record: Any = ApiLogRecord(attributes=attributes, **given)
    if HAS_EVENT_NAME:
        record.event_name = name
    else:
        record.attributes = {**attributes, "event.name": name}
    if hasattr(sdk_logs, "LogData") and not hasattr(sdk_logs, "ReadableLogRecord"):
        record = sdk_logs.LogRecord(  # type: ignore[attr-defined]
            timestamp=record.timestamp,
            observed_timestamp=record.observed_timestamp,
            trace_id=record.trace_id,
            span_id=record.span_id,
            trace_flags=record.trace_flags,
            severity_text=record.severity_text,
            severity_number=record.severity_number,
            body=record.body,
            attributes=record.attributes,
        )
        if HAS_EVENT_NAME:
            record.event_name = name
    logs.get_logger(scope).emit(record)


# -- from the Logs API ---------------------------------------------------------------------------------------------


def test_a_log_record_that_is_an_audit_event_is_journaled(
    logs: sdk_logs.LoggerProvider, provider: RecordingProvider
) -> None:
    """With all that it says, each from its own place."""
    logs.add_log_record_processor(AuditLogRecordProcessor(provider))
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    happened = time.time_ns() - 10**9
    with tracer.start_as_current_span("request") as span:
        emit(
            logs,
            timestamp=happened,
            severity_number=SeverityNumber.WARN,
            body="three times",
            attributes={"audit.actor.id": "u-42", "audit.outcome": "failure", "target": "door:7", "tries": 3},
        )
    (record,) = provider.records
    assert (record.event_name, record.body, record.timestamp_ns) == ("user.login", "three times", happened)
    assert (record.actor.id, record.action, record.outcome) == ("u-42", "LOGIN", "failure")
    assert record.attributes[sc.TARGET_ID] == "door:7"
    assert record.attributes["tries"] == 3
    assert (record.attributes[sc.SEVERITY_NUMBER], record.attributes[sc.SEVERITY_TEXT]) == (13, "WARN")
    assert record.attributes[sc.LOGGER_NAME] == "shop"
    assert record.trace_id == trace.format_trace_id(span.get_span_context().trace_id)
    assert record.span_id == trace.format_span_id(span.get_span_context().span_id)


@pytest.mark.parametrize(
    ("select", "journaled"),
    [
        ("audit", ["by.attribute", "by.marker"]),
        ("all", ["by.attribute", "by.marker", "an.ordinary", "marked.false"]),
        (lambda record: "wanted" in record.attributes, ["an.ordinary"]),
    ],
)
def test_select(logs: sdk_logs.LoggerProvider, provider: RecordingProvider, select: Any, journaled: list[str]) -> None:
    """Which records are audit events: by the draft's attributes or a true ``audit``, all, or one's own rule."""
    logs.add_log_record_processor(AuditLogRecordProcessor(provider, select=select))
    emit(logs, "by.attribute", attributes={"audit.actor.id": "u-42"})
    emit(logs, "by.marker", attributes={"audit": True, **WHOLE})
    emit(logs, "an.ordinary", attributes={"wanted": 1})
    emit(logs, "marked.false", attributes={"audit": False})
    assert [record.event_name for record in provider.records] == journaled
    assert all("audit" not in record.attributes for record in provider.records)


def test_audit_events_can_be_kept_from_the_ordinary_pipeline(
    logs: sdk_logs.LoggerProvider, provider: RecordingProvider
) -> None:
    """What is no audit event goes to the processor behind ours, and nothing else; it is flushed and shut down, too."""
    ordinary, everything = MemoryExporter(), MemoryExporter()
    batch = sdk_export.BatchLogRecordProcessor(ordinary, schedule_delay_millis=60_000)
    bridge = AuditLogRecordProcessor(provider, otherwise=batch)
    logs.add_log_record_processor(bridge)
    logs.add_log_record_processor(sdk_export.SimpleLogRecordProcessor(everything))
    emit(logs, "user.login", body="audited", attributes={"audit": True, **WHOLE})
    emit(logs, "cache.miss", body="ordinary", attributes={"key": "k"})
    assert logs.force_flush()
    assert [each.log_record.body for each in ordinary.get_finished_logs()] == ["ordinary"]
    assert [each.log_record.body for each in everything.get_finished_logs()] == ["audited", "ordinary"]
    assert [record.body for record in provider.records] == ["audited"]
    assert bridge.force_flush(1000)
    bridge.shutdown()
    assert ordinary._stopped


@pytest.mark.filterwarnings("ignore")
def test_records_of_the_sdks_handler_are_read_like_those_of_ours(
    logs: sdk_logs.LoggerProvider, provider: RecordingProvider
) -> None:
    """``logging`` through its ``LoggingHandler``: extras are fields, a message with arguments is no name."""
    logs.add_log_record_processor(AuditLogRecordProcessor(provider))
    shop = logging.Logger("shop", logging.INFO)
    shop.addHandler(sdk_logs.LoggingHandler(logger_provider=logs))
    shop.warning("user.login", extra={"audit": True, **WHOLE, "target": "session:1"})
    shop.info("%s.login", "user", extra={"audit": True, **WHOLE})
    shop.info("nothing to see")
    login, text = provider.records
    assert (login.event_name, login.actor.id, login.attributes[sc.TARGET_ID]) == ("user.login", "u-42", "session:1")
    assert login.attributes[sc.SEVERITY_NUMBER] == 13
    assert login.attributes[sc.LOGGER_NAME] == "shop"
    assert (text.event_name, text.body) == (sc.EVENT_DEFAULT, "user.login")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_a_log_record_that_reaches_our_handler_too_is_journaled_once(
    logs: sdk_logs.LoggerProvider, provider: RecordingProvider, first: str
) -> None:
    """By one provider; also where structlog has journaled it before, and where two processors are there."""
    logs.add_log_record_processor(AuditLogRecordProcessor(provider))
    logs.add_log_record_processor(AuditLogRecordProcessor(provider))
    shop = logging.Logger("shop", logging.INFO)
    handlers = [AuditHandler(provider), sdk_logs.LoggingHandler(logger_provider=logs)]
    for handler in handlers if first == "ours" else reversed(handlers):
        shop.addHandler(handler)
    log = structlog.wrap_logger(
        shop, processors=[StructlogAuditProcessor(provider), structlog.stdlib.render_to_log_kwargs]
    )
    for _ in range(3):
        shop.info("user.login", extra={"audit": True, **WHOLE})
        log.info("user.logout", audit=True, **WHOLE)
    assert [record.event_name for record in provider.records] == ["user.login", "user.logout"] * 3


def test_what_a_handler_of_somebody_elses_emits_are_events_of_their_own(
    logs: sdk_logs.LoggerProvider, provider: RecordingProvider
) -> None:
    """It may emit several log records while it handles one ``LogRecord``."""
    logs.add_log_record_processor(AuditLogRecordProcessor(provider))

    class Splitting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            for part in ("item.a", "item.b"):
                emit(logs, part, attributes={"audit": True, **WHOLE})

    shop = logging.Logger("shop", logging.INFO)
    shop.addHandler(AuditHandler(provider))
    shop.addHandler(Splitting())
    shop.info("batch.begin", extra=WHOLE)
    assert [record.event_name for record in provider.records] == ["batch.begin", "item.a", "item.b"]


def test_what_is_missing_is_filled_and_what_the_sdk_has_cut_is_said(
    logs: sdk_logs.LoggerProvider, provider: RecordingProvider
) -> None:
    """A record is not lost for being incomplete; ``strict`` raises instead."""
    logs.add_log_record_processor(AuditLogRecordProcessor(provider))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        emit(logs, attributes={f"a{number:03}": number for number in range(200)} | {"audit": True})
    (record,) = provider.records
    assert sorted(record.attributes[sc.FILLED]) == [sc.ACTOR_ID, sc.OUTCOME]
    assert any("dropped by the limits" in note for note in record.attributes[sc.CONVERTED])
    assert provider.counters.read()["records.filled"] == 1

    strict = sdk_logs.LoggerProvider(shutdown_on_exit=False)
    strict.add_log_record_processor(AuditLogRecordProcessor(provider, strict=True))
    with pytest.raises(InvalidRecordError):
        emit(strict, attributes={"audit": True})
    assert len(provider.records) == 1


def test_an_error_goes_where_it_was_asked_to_go(
    logs: sdk_logs.LoggerProvider,
    provider: RecordingProvider,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Into ``Logger.emit``, to a callable, or to the standard error stream; the next processor tries again."""

    def full(*_: Any, **__: Any) -> Any:
        raise JournalFullError("the journal is full")

    monkeypatch.setattr(provider, "emit_record", full)
    said: list[Exception] = []
    for on_error in (lambda error, _: said.append(error), "stderr", "raise"):
        logs.add_log_record_processor(AuditLogRecordProcessor(provider, on_error=on_error))  # type: ignore[arg-type]
    with pytest.raises(JournalFullError) as caught:
        emit(logs, attributes={"audit": True, **WHOLE})
    assert caught.value.journaled is False
    assert [type(error) for error in said] == [JournalFullError]
    assert "the journal is full" in capsys.readouterr().err
    assert provider.counters.read()["records.failed"] == 3


def test_a_record_whose_journaling_was_interrupted_may_be_given_again(
    logs: sdk_logs.LoggerProvider, provider: RecordingProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C before it is in the journal: the same object is no copy of something that is."""
    processor = AuditLogRecordProcessor(provider)
    logs.add_log_record_processor(processor)
    given: list[Any] = []
    really = processor._journal

    def interrupted(log_record: Any) -> None:
        given.append(log_record)
        really(log_record)

    def interrupt(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(processor, "_journal", interrupted)
        patched.setattr(provider, "emit_record", interrupt)
        with pytest.raises(KeyboardInterrupt):
            emit(logs, attributes={"audit": True, **WHOLE})
    really(*given)
    assert len(provider.records) == 1


def test_what_we_log_ourselves_is_not_captured(logs: sdk_logs.LoggerProvider, provider: RecordingProvider) -> None:
    """Delivering it would make the next one."""
    logs.add_log_record_processor(AuditLogRecordProcessor(provider, select="all"))
    emit(logs, scope="otel_audit.delivery")
    enter_own_thread()
    try:
        emit(logs, scope="httpx")
    finally:
        leave_own_thread()
    assert provider.records == []
    assert provider.counters.read() == {"records.own_logger": 1, "records.own_thread": 1}


def test_without_a_provider_it_says_so(logs: sdk_logs.LoggerProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing configured is an error, never silence."""
    monkeypatch.setattr("otel_audit.default._provider", None)
    logs.add_log_record_processor(AuditLogRecordProcessor())
    with pytest.raises(ConfigurationError, match="not configured"):
        emit(logs, attributes={"audit": True, **WHOLE})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"select": "everything"}, "select"),
        ({"otherwise": "batch"}, "otherwise"),
        ({"otherwise": sdk_export.BatchLogRecordProcessor}, "otherwise"),
        ({"on_error": "ignore"}, "on_error"),
        ({"durability": "tape"}, "durability"),
        ({"event_name": "No Name"}, "event_name"),
    ],
)
def test_a_wrong_argument_is_an_error_at_once(options: dict[str, Any], named: str) -> None:
    """When the application starts, not at the first record."""
    with pytest.raises(ValueError, match=named):
        AuditLogRecordProcessor(**options)


# -- through the SDK's exporters -----------------------------------------------------------------------------------


class Journaled:
    """A journal whose one destination is an exporter of the SDK."""

    def __init__(self, root: Path, exporter: Any) -> None:
        self.provider = otel_audit.AuditProvider(
            load_settings(
                {
                    "journal": root,
                    "service_name": "billing",
                    "destinations": {"sdk": {"type": SdkExporter(exporter), "delay": 0.01}},
                },
                {},
            )
        )
        self.audit = self.provider.get_audit_logger("shop")

    def emit(self, count: int) -> list[str]:
        """So many records; their ids."""
        attributes = {"number": 7, "nested": {"list": [1, "two", None]}, "raw": b"\x00\xff"}
        return [
            self.audit.emit(
                "user.login", actor="u-42", outcome="success", severity="warn", body="Grüße", attributes=attributes
            ).record_id
            for _ in range(count)
        ]


@pytest.fixture
def journaled(tmp_path: Path) -> Iterator[Any]:
    """Makes one, and ends it."""
    made: list[Journaled] = []

    def make(exporter: Any) -> Journaled:
        made.append(Journaled(tmp_path / f"journal-{len(made)}", exporter))
        return made[-1]

    yield make
    for each in made:
        each.provider.shutdown(0.0)


def ids_of(records: Any) -> list[str]:
    """Of the application's records among what an SDK exporter got."""
    attributes = [each.log_record.attributes for each in records]
    return [each[sc.RECORD_ID] for each in attributes if sc.CONTROL not in each]


def test_in_memory(journaled: Any) -> None:
    """The SDK's exporter gets each record whole and in order: attributes, chain, severity, event name, resource."""
    exporter = MemoryExporter()
    journal = journaled(exporter)
    ids = journal.emit(50)
    assert journal.provider.flush(60)
    finished = exporter.get_finished_logs()
    assert ids_of(finished) == ids
    last = finished[-1].log_record
    assert last.attributes["nested"] == {"list": [1, "two", None]}
    assert last.attributes[sc.SEQUENCE_NUMBER] == 51
    assert last.body == "Grüße"
    assert (last.severity_number, last.severity_text) == (SeverityNumber.WARN, "WARN")
    assert getattr(last, "event_name", None) == "user.login" or last.attributes["event.name"] == "user.login"
    assert last.trace_id == 0
    resource = getattr(finished[-1], "resource", None) or last.resource
    assert resource.attributes["service.name"] == "billing"
    assert finished[-1].instrumentation_scope.name == "otel_audit"


def test_more_attributes_than_the_sdk_allows(journaled: Any) -> None:
    """Its limits are for what applications emit; what is stored goes as it is."""
    exporter = MemoryExporter()
    journal = journaled(exporter)
    many = {f"a{number:03}": number for number in range(300)}
    journal.audit.emit("user.login", actor="u-42", outcome="success", attributes=many)
    assert journal.provider.flush(60)
    attributes = exporter.get_finished_logs()[-1].log_record.attributes
    assert {name: attributes[name] for name in many} == many


def test_console(journaled: Any) -> None:
    """As JSON, on a stream."""
    stream = io.StringIO()
    journal = journaled(ConsoleExporter(out=stream, formatter=lambda each: each.to_json(indent=None) + "\n"))
    # Bytes are for exporters that can write them: JSON of some versions of the SDK cannot.
    ids = [journal.audit.emit("user.login", actor="u-42", outcome="success").record_id for _ in range(3)]
    assert journal.provider.flush(60)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["attributes"][sc.RECORD_ID] for line in lines if sc.CONTROL not in line["attributes"]] == ids


def test_otlp(journaled: Any) -> None:
    """Over the wire: the receiver gets what our own exporter sends."""
    with ScriptedReceiver() as receiver:
        journal = journaled(OTLPLogExporter(receiver.endpoint, timeout=5))
        ids = journal.emit(20)
        assert journal.provider.flush(60)
        own = [record for record in receiver.records if sc.CONTROL not in record.attributes]
    assert [record.attributes[sc.RECORD_ID] for record in own] == ids
    assert own[0].body == "Grüße"
    assert own[0].attributes["nested"]["list"][:2] == [1, "two"]
    assert own[0].attributes["raw"] == b"\x00\xff"
    assert own[0].severity_number == 13


def test_a_failure_loses_nothing(journaled: Any) -> None:
    """The SDK's exporter gives up and says ``FAILURE``; ours keeps the batch, says so, and tries again."""
    broken = threading.Event()
    broken.set()
    with ScriptedReceiver(default=lambda _: Reply.error(400, "no") if broken.is_set() else Reply()) as receiver:
        journal = journaled(OTLPLogExporter(receiver.endpoint, timeout=0.3))
        ids = journal.emit(5)
        assert not journal.provider.flush(1.0)
        until(lambda: journal.provider.status().destinations[0].state == "blocked")
        assert "FAILURE" in str(journal.provider.status().destinations[0])
        broken.clear()
        journal.provider.flush(0.0)
        exporter = SdkExporter(OTLPLogExporter(receiver.endpoint, timeout=5))
        journal.provider.shutdown(0.0)
        settings = load_settings({"journal": journal.provider.settings.journal, "destinations": {"sdk": exporter}}, {})
        again = otel_audit.AuditProvider(settings)
        try:
            again.get_audit_logger().emit("user.logout", actor="u-42", outcome="success")
            until(lambda: set(ids) <= set(receiver.record_ids))
        finally:
            again.shutdown(0.0)


def batch_of(*ids: str) -> RecordBatch:
    """A batch of small records."""
    canonical = [canonicalize("user.login", 10**18, 10**18, None, {sc.RECORD_ID: each}, "", "") for each in ids]
    return RecordBatch("stream-1", {}, [StoredRecord(n, "0" * 64, each) for n, each in enumerate(canonical, 1)])


class Answering:
    """An exporter that gives one answer."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.shut_down = 0

    def export(self, batch: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def shutdown(self) -> None:
        self.shut_down += 1
        raise RuntimeError("twice")


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (Result.FAILURE, BlockedExportError, "FAILURE"),
        (None, BlockedExportError, "no result but NoneType"),
        (True, BlockedExportError, "no result but bool"),
        (RuntimeError("a secret"), BlockedExportError, "raised RuntimeError"),
        (ConnectionResetError(), RetryableExportError, "raised ConnectionResetError"),
        (TimeoutError(), RetryableExportError, "raised TimeoutError"),
    ],
)
def test_whatever_is_not_success_moves_no_cursor(answer: Any, error: type[Exception], says: str) -> None:
    """And says what is known; values of records are not shown."""
    with pytest.raises(error, match=says) as caught:
        SdkExporter(Answering(answer)).export(batch_of("r-1"), 1.0)
    assert "a secret" not in str(caught.value)


def test_it_is_shut_down_once() -> None:
    """Also where that raises."""
    answering = Answering(Result.SUCCESS)
    exporter = SdkExporter(answering)
    exporter.close()
    exporter.close()
    assert answering.shut_down == 1
    assert "Answering" in repr(exporter)


def test_a_forked_child_exports_by_itself(tmp_path: Path) -> None:
    """Parent and child deliver what each has logged."""
    with ScriptedReceiver() as receiver:
        journal = Journaled(tmp_path / "journal", OTLPLogExporter(receiver.endpoint, timeout=5))
        journal.emit(1)
        assert journal.provider.flush(60)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                journal.emit(3)
                code = 0 if journal.provider.flush(60) else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert len([record for record in receiver.records if sc.CONTROL not in record.attributes]) == 4
        journal.provider.shutdown(0.0)


@pytest.mark.parametrize("wrong", [None, "console", ConsoleExporter, object()])
def test_what_is_no_exporter_is_an_error_at_once(wrong: Any) -> None:
    """The class instead of an object, most of all."""
    with pytest.raises(ConfigurationError, match="SdkExporter: give it an exporter object"):
        SdkExporter(wrong)
