"""Control records: the journal's own audit events, that logging began and that it ended."""

from __future__ import annotations

import time
from typing import Any

from .. import semconv as sc
from ..preparation import prepare
from ..record import AuditRecord, complete
from .metadata import StreamMetadata, hash_of
from .stream import Entry


def started(metadata: StreamMetadata) -> Entry:
    """The first record of a stream; it holds the hash of ``stream.json``, so that is under the chain too."""
    return _entry(sc.EVENT_STARTED, "START", metadata, {sc.STREAM_METADATA_HASH: hash_of(metadata.encode())})


def stopped(metadata: StreamMetadata) -> Entry:
    """The last record of a stream that ends in order."""
    return _entry(sc.EVENT_STOPPED, "STOP", metadata, {}, end=True)


def _entry(
    event_name: str, action: str, metadata: StreamMetadata, attributes: dict[str, Any], *, end: bool = False
) -> Entry:
    record = AuditRecord.from_attributes(
        event_name,
        {
            sc.ACTOR_ID: str(metadata.resource.get(sc.SERVICE_NAME, sc.UNKNOWN)),
            sc.ACTOR_TYPE: "system",
            sc.ACTION: action,
            sc.OUTCOME: "success",
            sc.TARGET_ID: metadata.stream_id,
            sc.TARGET_TYPE: sc.TARGET_TYPE_STREAM,
            sc.CONTROL: True,
            sc.SCHEMA_VERSION: sc.SCHEMA,
            **attributes,
        },
    )
    complete(record)
    head, tail = prepare(record, time.time_ns())
    return Entry(head, tail, end=end)
