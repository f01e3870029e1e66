"""``whole_way``: the CPU of one record from the log call to the receiver's acknowledgement, all threads."""

from __future__ import annotations

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from .harness import Bar, Figures, Options, Report, Row, interleave, median, ratio, spread
from .receiver import receiver
from .workload import EXTRAS, log_all, logger_with, provider

PEER = "OpenTelemetry"
GRPC_PEER = "OpenTelemetry, gRPC"


def _count(options: Options) -> int:
    return options.size(600, 20_000)


def _send(log: Callable[[Any], None], acknowledge: Callable[[], None], count: int) -> dict[str, float]:
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    left = count
    while left > 0:
        portion = EXTRAS[: min(left, len(EXTRAS))]
        log(portion)
        left -= len(portion)
    logged = time.process_time_ns()
    acknowledge()
    each = 1000 * count
    return {
        "us": (time.process_time_ns() - cpu) / each,
        "logged_us": (logged - cpu) / each,
        "wall_us": (time.perf_counter_ns() - wall) / each,
    }


def opentelemetry(options: Options) -> Iterator[Figures]:
    """OpenTelemetry: its handler, batch processor (512 a request) and OTLP/HTTP exporter."""
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

    yield from _opentelemetry(options, OTLPLogExporter, {"endpoint": f"{options.receiver}/v1/logs"})


def opentelemetry_grpc(options: Options) -> Iterator[Figures]:
    """The same with its OTLP/gRPC exporter."""
    from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter

    yield from _opentelemetry(options, OTLPLogExporter, {"endpoint": options.grpc_receiver, "insecure": True})


def _opentelemetry(options: Options, kind: Any, arguments: dict[str, Any]) -> Iterator[Figures]:
    from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExportResult

    acknowledged = 0

    class Counting(kind):
        def export(self, batch: Any) -> LogRecordExportResult:
            nonlocal acknowledged
            result = super().export(batch)
            if result is LogRecordExportResult.SUCCESS:
                acknowledged += len(batch)
            return result

    otel = LoggerProvider(shutdown_on_exit=False)
    count = _count(options)
    exporter = Counting(**arguments)
    otel.add_log_record_processor(BatchLogRecordProcessor(exporter, max_queue_size=count, max_export_batch_size=512))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        log = functools.partial(log_all, logger_with(LoggingHandler(logger_provider=otel)))

    def acknowledge() -> None:
        nonlocal acknowledged
        otel.force_flush(60_000)
        if acknowledged != count:
            raise RuntimeError(f"{acknowledged} of {count} records were acknowledged")
        acknowledged = 0

    while True:
        yield _send(log, acknowledge, count)


def otel_audit(options: Options) -> Iterator[Figures]:
    """Ours: the handler, the journal, and the shipper with its OTLP/HTTP exporter."""
    yield from _otel_audit(options, {"endpoint": options.receiver})


def otel_audit_grpc(options: Options) -> Iterator[Figures]:
    """The same with its OTLP/gRPC exporter."""
    yield from _otel_audit(options, {"endpoint": options.grpc_receiver, "protocol": "grpc"})


def _otel_audit(options: Options, to_where: dict[str, str]) -> Iterator[Figures]:
    from otel_audit import AuditHandler
    from otel_audit.settings import make_destination

    to = make_destination("collector", {"type": "otlp", **to_where}, {})
    with provider(options.directory, "way", destinations=(to,)) as ours:
        log = functools.partial(log_all, logger_with(AuditHandler(ours)))

        def acknowledge() -> None:
            result = ours.flush(60.0)
            if not result:
                raise RuntimeError(f"not everything was acknowledged: {result}")

        while True:
            yield _send(log, acknowledge, _count(options))


CASES = {
    PEER: opentelemetry,
    "otel-audit": otel_audit,
    GRPC_PEER: opentelemetry_grpc,
    "otel-audit, gRPC": otel_audit_grpc,
}
LABELS = {
    PEER: "logging → LoggingHandler → memory → OTLP/HTTP",
    "otel-audit": "logging → AuditHandler → journal → OTLP/HTTP",
    GRPC_PEER: "logging → LoggingHandler → memory → OTLP/gRPC",
    "otel-audit, gRPC": "logging → AuditHandler → journal → OTLP/gRPC",
}


def run(options: Options) -> Report:
    """Measure it."""
    rounds = options.rounds_or(7)
    with receiver(collector=not options.quick) as (url, grpc_url, name):
        options = dataclasses.replace(options, receiver=url, grpc_receiver=grpc_url)
        found, _ = interleave(CASES, options, rounds)
    title = f"log call → acknowledged by {name}: CPU a record, all threads, {_count(options):,} records × {rounds}"
    report = Report("whole_way", title, PEER)
    report.notes.append("Each is compared with OpenTelemetry over the same protocol.")
    for case, results in found.items():
        note = f"{median(results, 'logged_us'):.1f} µs until logged, {1e6 / median(results, 'wall_us'):,.0f} records/s"
        bar = Bar(0.40, 0.30, of="ratio") if case not in (PEER, GRPC_PEER) else None
        share = ratio(results, found[GRPC_PEER if case.endswith("gRPC") else PEER], "us")
        report.rows.append(Row(LABELS[case], median(results, "us"), "µs", spread(results, "us"), share, bar, note))
    return report
