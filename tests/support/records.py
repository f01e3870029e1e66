"""Batches of small records for tests of exporters."""

from __future__ import annotations

import hashlib
from typing import Any

from otel_audit import semconv as sc
from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.canonical import canonicalize

TIMESTAMP_NS = 1_795_000_000_123_456_789


def batch_of(
    *ids: str, start: int = 1, body: Any = "Grüße", timestamp_ns: int = TIMESTAMP_NS, **more: Any
) -> RecordBatch:
    """Records with these ids, numbered from ``start``."""
    records = []
    for sequence, record_id in enumerate(ids, start):
        attributes = {
            sc.RECORD_ID: record_id,
            sc.ACTOR_ID: "u-1",
            sc.ACTOR_TYPE: "user",
            sc.ACTION: "LOGIN",
            sc.OUTCOME: "success",
            sc.TARGET_ID: "s-1",
            sc.TARGET_TYPE: "session",
            sc.SOURCE_ID: "192.0.2.7",
            sc.SOURCE_TYPE: "ipv4",
            sc.SESSION_ID: "session-9",
            sc.REQUEST_ID: "request-3",
            sc.USER_AGENT: "browser/1",
            sc.SEQUENCE_NUMBER: sequence,
            **more,
        }
        trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
        canonical = canonicalize("user.login", timestamp_ns, timestamp_ns, body, attributes, trace, span)
        records.append(StoredRecord(sequence, hashlib.sha256(canonical).hexdigest(), canonical))
    return RecordBatch("stream-1", {"service.name": "billing", "host.name": "h-1"}, records)
