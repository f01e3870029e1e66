"""What processors add to a record."""

from __future__ import annotations

from collections.abc import Iterable

from . import semconv as sc
from .errors import InvalidRecordError
from .protocols import AuditRecordProcessor
from .record import AuditRecord


def processed(record: AuditRecord, processors: Iterable[AuditRecordProcessor]) -> AuditRecord:
    """The record with what the processors add, one after the other.

    Raises:
        InvalidRecordError: one tries to replace an attribute, or it has an attribute that only the journal writes.
    """
    for processor in processors:
        record = _with_added(record, processor)
    if sc.CONTROL in record.attributes:
        raise InvalidRecordError(sc.CONTROL, "is reserved: the journal writes it")
    return record


def _with_added(record: AuditRecord, processor: AuditRecordProcessor) -> AuditRecord:
    """The record with what a processor adds.

    Raises:
        InvalidRecordError: it tries to replace an attribute.
    """
    added = processor.on_emit(record)
    if not added:
        return record
    for key in added:
        if key in record.attributes or key.startswith(sc.RESERVED_PREFIXES):
            rule = f"a processor may only add attributes; {type(processor).__name__} replaces one"
            raise InvalidRecordError(key, rule)
    return AuditRecord.from_attributes(
        record.event_name,
        {**record.attributes, **added},
        timestamp_ns=record.timestamp_ns,
        body=record.body,
        trace_id=record.trace_id,
        span_id=record.span_id,
    )
