"""``encode``: stored records as the bytes of an OTLP request, against building ``opentelemetry-proto`` objects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from otel_audit import semconv as sc
from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.formats.otlp import encode_logs_request
from otel_audit.journal.reader import StreamReader

from .harness import Bar, Figures, Options, Report, Row, interleave, median, ratio, spread
from .workload import EXTRAS, log_all, logger_with, provider, stream_of

PEER = "opentelemetry-proto"


def _batch(options: Options) -> RecordBatch:
    """The workload as it comes out of a journal."""
    from otel_audit import AuditHandler

    with provider(options.directory, "encode") as ours:
        log_all(logger_with(AuditHandler(ours)), EXTRAS[: options.size(50, len(EXTRAS))])
        directory = stream_of(ours)
    records = StreamReader(directory).read(records_max=len(EXTRAS), bytes_max=1 << 30, final=True)
    return RecordBatch(directory.name, {"service.name": "bench", "process.pid": 4711}, records)


def _case(options: Options, encode: Callable[[RecordBatch], bytes]) -> Iterator[Figures]:
    batch = _batch(options)
    while True:
        records = [StoredRecord(each.sequence, each.sha256, each.canonical) for each in batch.records]
        fresh = RecordBatch(batch.stream_id, batch.resource, records)  # nothing parsed as yet
        began = time.thread_time_ns()
        size = len(encode(fresh))
        taken = time.thread_time_ns() - began
        yield {"us": taken / len(records) / 1000, "bytes": size / len(records)}


def ours(options: Options) -> Iterator[Figures]:
    """Our encoder: the bytes from the canonical form."""
    yield from _case(options, encode_logs_request)


def _value(value: Any) -> Any:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue

    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(string_value=value)


def protobuf(options: Options) -> Iterator[Figures]:
    """The same request through protobuf objects, from the same stored records."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
    from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    def encode(batch: RecordBatch) -> bytes:
        records = [
            LogRecord(
                time_unix_nano=record.timestamp_ns,
                observed_time_unix_nano=record.observed_ns,
                event_name=record.event_name,
                severity_number=record.attributes.get(sc.SEVERITY_NUMBER, 0),
                severity_text=record.attributes.get(sc.SEVERITY_TEXT, ""),
                attributes=[KeyValue(key=key, value=_value(value)) for key, value in record.attributes.items()],
            )
            for record in batch.records
        ]
        attributes = [KeyValue(key=key, value=_value(value)) for key, value in batch.resource.items()]
        logs = ScopeLogs(scope=InstrumentationScope(name="otel_audit"), log_records=records)
        resource_logs = ResourceLogs(resource=Resource(attributes=attributes), scope_logs=[logs])
        return ExportLogsServiceRequest(resource_logs=[resource_logs]).SerializeToString()

    yield from _case(options, encode)


def run(options: Options) -> Report:
    """Measure it."""
    rounds = options.rounds_or(21)
    found, _ = interleave({PEER: protobuf, "ours": ours}, options, rounds)
    report = Report("encode", f"stored record → bytes of an OTLP request, CPU a record × {rounds}", PEER)
    for name, label, bar in ((PEER, PEER, None), ("ours", "otel_audit.formats.otlp", Bar(1.0, 0.4, of="ratio"))):
        results = found[name]
        note = f"{median(results, 'bytes'):.0f} bytes a record"
        share = ratio(results, found[PEER], "us")
        report.rows.append(Row(label, median(results, "us"), "µs", spread(results, "us"), share, bar, note))
    return report
