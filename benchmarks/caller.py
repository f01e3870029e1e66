"""``caller``: what a log call costs the caller."""

from __future__ import annotations

import functools
import logging
import logging.handlers
import queue
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .harness import Bar, Figures, Options, Report, Row, Unavailable, interleave, median, ratio, spread
from .workload import EVENT, Meter, log_all, logger_with, provider

PEER = "OpenTelemetry"


def _calls(options: Options) -> int:
    return options.size(200, 4_000)


def null_handler(options: Options) -> Iterator[Figures]:
    """What ``logging`` itself costs."""
    log = functools.partial(log_all, logger_with(logging.NullHandler()))
    yield from Meter(log, _calls(options)).rounds()


def queue_handler(options: Options) -> Iterator[Figures]:
    """The standard library's way to get a record out of the caller's thread: into memory."""
    waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
    log = functools.partial(log_all, logger_with(logging.handlers.QueueHandler(waiting)))  # type: ignore[arg-type]

    def drain() -> None:
        while not waiting.empty():
            waiting.get()

    yield from Meter(log, _calls(options), drain).rounds()


def json_file(options: Options) -> Iterator[Figures]:
    """A file of JSON lines by python-json-logger: not durable beyond the process, not chained."""
    try:
        from pythonjsonlogger.json import JsonFormatter
    except ImportError:
        raise Unavailable("python-json-logger is not installed") from None
    handler = logging.FileHandler(Path(options.directory) / f"lines-{uuid.uuid4().hex[:8]}.jsonl")
    handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    log = functools.partial(log_all, logger_with(handler))
    yield from Meter(log, _calls(options), lambda: handler.stream.truncate(0)).rounds()


def opentelemetry(options: Options) -> Iterator[Figures]:
    """OpenTelemetry's handler into the queue of its batch processor: memory; what is exported is thrown away."""
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter, LogRecordExportResult

    class Discard(LogRecordExporter):
        def export(self, batch: Any) -> LogRecordExportResult:
            return LogRecordExportResult.SUCCESS

        def force_flush(self, timeout_millis: int = 10_000) -> bool:
            return True

        def shutdown(self) -> None:
            pass

    otel = LoggerProvider(shutdown_on_exit=False)
    otel.add_log_record_processor(BatchLogRecordProcessor(Discard()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        log = functools.partial(log_all, logger_with(LoggingHandler(logger_provider=otel)))
    yield from Meter(log, _calls(options), otel.force_flush).rounds()


def audit_handler(options: Options) -> Iterator[Figures]:
    """Ours: in the journal, chained, when the call returns."""
    from otel_audit import AuditHandler

    with provider(options.directory, "handler") as ours:
        log = functools.partial(log_all, logger_with(AuditHandler(ours)))
        yield from Meter(log, _calls(options)).rounds()


def emit(options: Options) -> Iterator[Figures]:
    """Ours, without ``logging``: ``get_audit_logger().emit(…)``, which gives back a receipt."""
    with provider(options.directory, "emit") as ours:
        logger = ours.get_audit_logger("bench.audit")

        def log(portion: Any) -> None:
            call = logger.emit
            for facts in portion:
                call(EVENT, **facts)

        yield from Meter(log, _calls(options)).rounds()


def _structlog(options: Options, *ours: Any) -> Iterator[Figures]:
    import structlog

    with (Path(options.directory) / f"structlog-{uuid.uuid4().hex[:8]}.jsonl").open("w") as file:
        structlog.configure(
            processors=[
                structlog.contextvars.merge_contextvars,
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso"),
                *ours,
                structlog.processors.JSONRenderer(),
            ],
            logger_factory=structlog.WriteLoggerFactory(file),
            cache_logger_on_first_use=True,
        )
        logger = structlog.get_logger()

        def log(portion: Any) -> None:
            info = logger.info
            for facts in portion:
                info(EVENT, audit=True, **facts)

        yield from Meter(log, _calls(options), lambda: file.truncate(0)).rounds()


def structlog_file(options: Options) -> Iterator[Figures]:
    """structlog into a file of JSON lines."""
    yield from _structlog(options)


def structlog_processor(options: Options) -> Iterator[Figures]:
    """The same with our processor before the renderer: both the journal and the file."""
    try:
        from otel_audit import StructlogAuditProcessor
    except ImportError as error:
        raise Unavailable(str(error)) from None
    with provider(options.directory, "structlog") as ours:
        yield from _structlog(options, StructlogAuditProcessor(ours))


CASES = {
    "logging → NullHandler": null_handler,
    "logging → QueueHandler (memory)": queue_handler,
    "logging → JSON file": json_file,
    PEER: opentelemetry,
    "logging → AuditHandler → journal": audit_handler,
    "emit() → journal": emit,
    "structlog → JSON file": structlog_file,
    "structlog → journal and JSON file": structlog_processor,
}
BARS = {"logging → AuditHandler → journal": Bar(0.70, 0.55, of="ratio")}


def run(options: Options) -> Report:
    """Measure it."""
    rounds = options.rounds_or(15)
    found, missing = interleave(CASES, options, rounds)
    report = Report("caller", f"what a log call costs the caller, {_calls(options):,} calls × {rounds}", PEER)
    for name in CASES:
        label = "logging → LoggingHandler → batch queue (memory)" if name == PEER else name
        if name in missing:
            report.rows.append(Row(label, None, "µs", note=missing[name], bar=BARS.get(name)))
            continue
        results = found[name]
        note = (
            f"{median(results, 'cpu_us'):.1f} µs CPU of its thread, {median(results, 'process_us'):.1f} of the process"
        )
        share = ratio(results, found[PEER], "us")
        report.rows.append(Row(label, median(results, "us"), "µs", spread(results, "us"), share, BARS.get(name), note))
    return report
