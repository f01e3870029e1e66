"""A stored record as one line of plain JSON, for people, files and receivers that are not OTLP.

The shape is flat and stable: every member is always there, ``null`` where it is unset::

    {"timestamp": "2026-11-20T09:55:41.349206123Z",     RFC 3339, UTC, nanoseconds
     "event_name": "user.login",
     "record_id": "…",                                    the key by which doubles are removed
     "attributes": {"audit.actor.id": "u-42", …},         plain values, those of the chain among them
     "body": …,
     "trace_id": "…", "span_id": "…",                     lower-case hex
     "observed_timestamp": "…",
     "resource": {"service.name": "billing", …},
     "stream_id": "…", "sequence": 7,
     "sha256": "…"}                                       of the canonical form, which is not this line

Values are untagged: integers and doubles are JSON numbers (a whole double keeps its ``.0``; an integer beyond 2^53 is
written in full, and some readers round it), bytes are ``{"base64": "…"}``.  It is for reading: a caller's own map
``{"base64": "…"}`` looks the same.  What is hashed and verified is the canonical form in the journal.
"""

from __future__ import annotations

import calendar
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from .. import semconv as sc
from ..batch import RecordBatch, StoredRecord
from ..canonical import decode
from ..errors import DamageError
from . import PAUSE_EVERY

MEMBERS: Final = (
    "timestamp", "event_name", "record_id", "attributes", "body", "trace_id", "span_id", "observed_timestamp",
    "resource", "stream_id", "sequence", "sha256",
)  # fmt: skip
"""The members of a line, in their order."""

_TO_THE_SECOND: Final = "%Y-%m-%dT%H:%M:%S"
_encode = msgspec.json.Encoder(enc_hook=str).encode


def as_plain(record: StoredRecord, batch: RecordBatch) -> dict[str, Any]:
    """The members of the line of a record of a batch; everything in it can be written as JSON.

    Raises:
        DamageError: the record is not in canonical form; says which.
    """
    return _members(record, batch, _plain(batch.resource))


def encode_lines(batch: RecordBatch, pause: Callable[[], object] | None = None) -> bytes:
    """All records of a batch, in their order, one line each; every line ends with a line feed.

    Args:
        batch: what to encode.
        pause: called after every :data:`~otel_audit.formats.PAUSE_EVERY` records, to let other threads run.

    Raises:
        DamageError: a record is not in canonical form; says which.
    """
    resource = msgspec.Raw(_encode(_plain(batch.resource)))
    lines: list[bytes] = []
    for done, record in enumerate(batch.records, 1):
        lines.append(_encode(_members(record, batch, resource)))
        if pause is not None and done % PAUSE_EVERY == 0:
            pause()
    lines.append(b"")
    return b"\n".join(lines)


def rfc3339(ns: int) -> str:
    """Nanoseconds since 1970 as RFC 3339 in UTC, with all nine digits."""
    seconds, fraction = divmod(ns, 1_000_000_000)
    return f"{time.strftime(_TO_THE_SECOND, time.gmtime(seconds))}.{fraction:09d}Z"


def parse_rfc3339(text: str) -> int:
    """Nanoseconds since 1970 of what :func:`rfc3339` wrote.

    Raises:
        ValueError: it was written by something else.
    """
    if len(text) != 30 or text[19] != "." or text[29] != "Z":
        raise ValueError("not a time as this package writes it")
    return calendar.timegm(time.strptime(text[:19], _TO_THE_SECOND)) * 1_000_000_000 + int(text[20:29])


def _members(record: StoredRecord, batch: RecordBatch, resource: Any) -> dict[str, Any]:
    try:
        tagged = decode(record.canonical)  # not record.tagged, which would be kept as long as the batch
        attributes = {key: _untagged(value) for key, value in tagged.get("attributes", {}).items()}
        return {
            "timestamp": _time(tagged.get("timestamp")),
            "event_name": tagged.get("event_name"),
            "record_id": attributes.get(sc.RECORD_ID),
            "attributes": attributes,
            "body": _untagged(tagged.get("body")),
            "trace_id": tagged.get("trace_id"),
            "span_id": tagged.get("span_id"),
            "observed_timestamp": _time(tagged.get("observed_timestamp")),
            "resource": resource,
            "stream_id": batch.stream_id,
            "sequence": record.sequence,
            "sha256": record.sha256,
        }
    except (ValueError, TypeError, AttributeError, LookupError, RecursionError) as error:
        where = f"record {record.sequence} of stream {batch.stream_id}"
        raise DamageError(f"{where} is not in canonical form: {type(error).__name__}") from error


def _time(ns: str | None) -> str | None:
    return None if ns is None else rfc3339(int(ns))


def _untagged(value: Any) -> Any:
    """A tagged value as JSON has it.  What stands under a tag is a bare scalar only where the tag is one."""
    kind = type(value)
    if kind is dict:
        if len(value) == 1:
            ((tag, content),) = value.items()
            if type(content) is str:
                if tag == "stringValue":
                    return content
                return int(content) if tag == "intValue" else {"base64": content}
            if type(content) is not dict and type(content) is not list and content is not None:
                return content if tag == "boolValue" else float(content)
        return {key: _untagged(item) for key, item in value.items()}
    if kind is list:
        return [_untagged(item) for item in value]
    if value is None:
        return None
    raise ValueError("an untagged value")


def _plain(value: Any) -> Any:
    """A plain Python value of a resource as JSON has it; what JSON has no type for, as its text."""
    if isinstance(value, (bytes, bytearray)):
        return {"base64": msgspec.to_builtins(bytes(value))}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)
