"""A stored record as a CloudEvent, version 1.0 (https://github.com/cloudevents/spec/tree/v1.0.2), in its JSON format.

The record is the ``data``, as a plain line has it.  ``id`` is the record id and ``source`` stays the same for a
service, so ``source`` and ``id`` together, by which a receiver recognises doubles, are the same at every attempt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from .. import semconv as sc


def as_cloudevent(plain: Mapping[str, Any], *, source: str | None = None, type_prefix: str = "") -> dict[str, Any]:
    """The event for a record.

    Args:
        plain: the members of its plain line (``jsonl.as_plain``).
        source: a URI-reference for where it happened; ``/<service name>`` where it is not given.
        type_prefix: before the event name: ``"com.example."``.
    """
    service = plain["resource"].get(sc.SERVICE_NAME) or sc.UNKNOWN
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": plain["record_id"],
        "source": source or f"/{quote(str(service), safe='')}",
        "type": f"{type_prefix}{plain['event_name']}",
        "time": plain["timestamp"],
        "datacontenttype": "application/json",
        "data": dict(plain),
    }
    subject = plain["attributes"].get(sc.TARGET_ID)
    if isinstance(subject, str) and subject:
        event["subject"] = subject
    if plain["trace_id"] and plain["span_id"]:  # the extension "Distributed Tracing"
        event["traceparent"] = f"00-{plain['trace_id']}-{plain['span_id']}-01"
    return event
