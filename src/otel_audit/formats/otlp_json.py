"""OTLP/JSON: stored records to an ``ExportLogsServiceRequest`` as JSON, pure.

Ids stand in hexadecimal, integers of 64 bits as decimal strings, enumerations as numbers, bytes in base64: for all but
the names that is how the canonical form has them already.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from .. import semconv as sc
from .._version import __version__
from ..batch import RecordBatch
from ..errors import DamageError
from . import PAUSE_EVERY
from .otlp import SCOPE_NAME

_DAMAGE: Final = (msgspec.MsgspecError, ValueError, TypeError, LookupError, AttributeError, RecursionError)
_TAGS: Final[Mapping[str, Any]] = {
    "stringValue": str, "boolValue": bool, "intValue": str, "doubleValue": (int, float), "bytesValue": str,
}  # fmt: skip
_NO_NUMBERS: Final = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_encode = msgspec.json.Encoder().encode


def encode_logs_request_json(batch: RecordBatch, pause: Callable[[], object] | None = None) -> bytes:
    """The OTLP/JSON of an ``ExportLogsServiceRequest`` with all records of the batch, in their order.

    It says what :func:`otel_audit.formats.otlp.encode_logs_request` says.

    Args:
        batch: what to encode.
        pause: called after every :data:`~otel_audit.formats.PAUSE_EVERY` records, to let other threads run.

    Raises:
        DamageError: a record is not in canonical form; says which.
    """
    records: list[bytes] = []
    for done, stored in enumerate(batch.records, 1):
        try:
            records.append(_encode(_log_record(msgspec.json.decode(stored.canonical))))
        except _DAMAGE as error:
            where = f"record {stored.sequence} of stream {batch.stream_id}"
            raise DamageError(f"{where} is not in canonical form: {type(error).__name__}") from error
        if pause is not None and done % PAUSE_EVERY == 0:
            pause()
    resource = {"attributes": [_pair(str(key), _plain_value(value)) for key, value in batch.resource.items()]}
    scope = {"name": SCOPE_NAME, "version": __version__}
    return b"".join(
        (
            b'{"resourceLogs":[{"resource":', _encode(resource), b',"scopeLogs":[{"scope":', _encode(scope),
            b',"logRecords":[', b",".join(records), b"]}]}]}",
        )
    )  # fmt: skip


def _log_record(record: Mapping[str, Any]) -> dict[str, Any]:
    attributes: Mapping[str, Any] = record.get("attributes", {})
    written: dict[str, Any] = {}
    for name, written_name in (("timestamp", "timeUnixNano"), ("observed_timestamp", "observedTimeUnixNano")):
        if name in record:
            written[written_name] = str(int(record[name]))
    number = _of_kind(attributes.get(sc.SEVERITY_NUMBER), "intValue")
    text = _of_kind(attributes.get(sc.SEVERITY_TEXT), "stringValue")
    if number is not None and 1 <= int(number) <= 24:
        written["severityNumber"] = int(number)
    if text is not None:
        written["severityText"] = text
    if "body" in record:
        written["body"] = _any_value(record["body"])
    written["attributes"] = [_pair(key, _any_value(value)) for key, value in attributes.items()]
    for name, written_name in (("trace_id", "traceId"), ("span_id", "spanId")):
        if record.get(name):
            written[written_name] = bytes.fromhex(record[name]).hex()
    if "event_name" in record:
        written["eventName"] = record["event_name"]
    return written


def _of_kind(value: Any, tag: str) -> str | None:
    content = value.get(tag) if isinstance(value, dict) else None
    return content if isinstance(content, str) else None


def _any_value(value: Any) -> dict[str, Any]:
    """The ``AnyValue`` of a tagged value.  What stands under a tag is a bare scalar only where the tag is one."""
    if value is None:
        return {}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_any_value(item) for item in value]}}
    if not isinstance(value, dict):
        raise TypeError("an untagged value")
    if len(value) == 1:
        ((tag, content),) = value.items()
        if content is not None and not isinstance(content, (dict, list)):
            if not isinstance(content, _TAGS[tag]) or (tag == "intValue" and str(int(str(content))) != content):
                raise ValueError("not what its tag says")
            return {tag: content}
    return {"kvlistValue": {"values": [_pair(key, _any_value(item)) for key, item in value.items()]}}


def _plain_value(value: Any) -> dict[str, Any]:
    """The ``AnyValue`` of a plain Python value of a resource; what OTLP has no type for, as its text."""
    if value is None:
        return {}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": _NO_NUMBERS.get(str(value), value)}
    if isinstance(value, bytes):
        return {"bytesValue": b64encode(value).decode()}
    if isinstance(value, Mapping):
        pairs = [_pair(str(key), _plain_value(item)) for key, item in value.items()]
        return {"kvlistValue": {"values": pairs}}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return {"arrayValue": {"values": [_plain_value(item) for item in value]}}
    return {"stringValue": str(value).encode("utf-8", "backslashreplace").decode()}


def _pair(key: str, value: dict[str, Any]) -> dict[str, Any]:
    return {"key": key.encode("utf-8", "backslashreplace").decode(), "value": value}
