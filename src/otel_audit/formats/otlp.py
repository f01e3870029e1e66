"""OTLP as bytes: stored records to an ``ExportLogsServiceRequest``.

The protobuf bytes are written straight from the parsed canonical form, because building protobuf objects costs three
times as much; ``opentelemetry-proto`` is the oracle of the tests.

Nearly every record has scalar values only: those take the quick way (``otlp_quick.py``).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from .. import semconv as sc
from .._version import __version__
from ..batch import RecordBatch
from ..errors import DamageError
from . import PAUSE_EVERY
from .otlp_quick import attribute_head, quick, severity, size

SCOPE_NAME: Final = "otel_audit"
"""Name of the instrumentation scope; its version is this package's."""

_DAMAGE: Final = (
    msgspec.MsgspecError, ValueError, TypeError, LookupError, AttributeError, RecursionError, struct.error,
)  # fmt: skip
_MASK64: Final = 2**64 - 1


def encode_logs_request(batch: RecordBatch, pause: Callable[[], object] | None = None) -> bytes:
    """The protobuf bytes of an ``ExportLogsServiceRequest`` with all records of the batch, in their order.

    Every attribute is kept; the severity stands in its own fields besides.

    Args:
        batch: what to encode.
        pause: called after every :data:`~otel_audit.formats.PAUSE_EVERY` records, to let other threads run.

    Raises:
        DamageError: a record is not in canonical form; says which.
    """
    scope = _field(1, SCOPE_NAME.encode()) + _field(2, __version__.encode())
    pieces = [b"", _field(1, scope)]
    for done, stored in enumerate(batch.records, 1):
        try:
            front, rest = quick(stored.canonical) or _thorough(stored.canonical)
        except _DAMAGE as error:
            where = f"record {stored.sequence} of stream {batch.stream_id}"
            raise DamageError(f"{where} is not in canonical form: {type(error).__name__}") from error
        pieces.append(_record_head(len(front) + len(rest)) + front)
        pieces.append(rest)
        if pause is not None and done % PAUSE_EVERY == 0:
            pause()
    attributes = [_field(1, _pair(str(key), _plain_value(value))) for key, value in batch.resource.items()]
    resource = _field(1, b"".join(attributes))
    scope_size = sum(map(len, pieces))
    scope_head = b"\x12" + _varint(scope_size)
    # One join of everything: each copy of a request costs as much as a tenth of encoding it.
    pieces[0] = b"\x0a" + _varint(len(resource) + len(scope_head) + scope_size) + resource + scope_head
    return b"".join(pieces)


# -- the thorough way: anything that the canonical form can hold -------------------------------------------------


def _thorough(canonical: bytes) -> tuple[bytes, bytes]:
    """The ``LogRecord`` of any record, in two parts, of which the first is empty."""
    record = msgspec.json.decode(canonical)
    attributes: dict[str, Any] = record.get("attributes", {})
    fields: list[bytes] = []
    for key, value in attributes.items():
        content = _tagged_value(value)
        fields.append(_attribute_front(key, len(content)))
        fields.append(content)
    if "body" in record:
        fields.append(_field(5, _tagged_value(record["body"])))
    for number, name in ((1, "timestamp"), (11, "observed_timestamp")):
        if name in record:
            fields.append(_varint(number << 3 | 1) + struct.pack("<Q", int(record[name])))
    if "event_name" in record:
        fields.append(_field(12, record["event_name"].encode()))
    if "trace_id" in record:
        fields.append(_field(9, bytes.fromhex(record["trace_id"])))
    if "span_id" in record:
        fields.append(_field(10, bytes.fromhex(record["span_id"])))
    severity_number = _of_kind(attributes.get(sc.SEVERITY_NUMBER), "intValue")
    severity_text = _of_kind(attributes.get(sc.SEVERITY_TEXT), "stringValue")
    if severity_text is not None:
        severity_text = severity_text.encode().decode("latin-1")
    fields.append(severity(severity_number, severity_text).encode("latin-1"))
    return b"", b"".join(fields)


@functools.lru_cache(4096)
def _attribute_front(key: str, size: int) -> bytes:
    return attribute_head(key.encode().decode("latin-1"), size).encode("latin-1")


def _of_kind(value: Any, tag: str) -> str | None:
    content = value.get(tag) if isinstance(value, dict) else None
    return content if isinstance(content, str) else None


def _tagged_value(value: Any) -> bytes:
    """The ``AnyValue`` of a tagged value.  What stands under a tag is a bare scalar only where the tag is one."""
    if type(value) is dict and len(value) == 1:
        ((tag, content),) = value.items()
        kind = type(content)
        if kind is not dict and kind is not list and content is not None:
            return _SCALARS[tag](content)
    if value is None:
        return b""
    if isinstance(value, list):
        return _field(5, b"".join([_field(1, _tagged_value(item)) for item in value]))
    if not isinstance(value, dict):
        raise ValueError("an untagged value")
    return _field(6, b"".join([_field(1, _pair(key, _tagged_value(item))) for key, item in value.items()]))


def _plain_value(value: Any) -> bytes:
    """The ``AnyValue`` of a plain Python value of a resource; what OTLP has no type for, as its text."""
    if value is None:
        return b""
    if isinstance(value, bool):
        return _SCALARS["boolValue"](value)
    if isinstance(value, int) and -(2**63) <= value < 2**63:
        return _SCALARS["intValue"](value)
    if isinstance(value, float):
        return _SCALARS["doubleValue"](value)
    if isinstance(value, bytes):
        return _field(7, value)
    if isinstance(value, Mapping):
        pairs = [_field(1, _pair(str(key), _plain_value(item))) for key, item in value.items()]
        return _field(6, b"".join(pairs))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _field(5, b"".join([_field(1, _plain_value(item)) for item in value]))
    return _field(1, str(value).encode("utf-8", "backslashreplace"))


_SCALARS: Final[Mapping[str, Callable[[Any], bytes]]] = {
    "stringValue": lambda text: _field(1, text.encode()),
    "boolValue": lambda truth: b"\x10\x01" if truth else b"\x10\x00",
    "intValue": lambda number: b"\x18" + _varint(int(number) & _MASK64),
    "doubleValue": lambda number: b"\x21" + struct.pack("<d", number),
    "bytesValue": lambda text: _field(7, msgspec.convert(text, bytes)),
}


@functools.lru_cache(4096)
def _record_head(size: int) -> bytes:
    """What stands in front of a ``LogRecord`` of this size."""
    return b"\x12" + _varint(size)


def _pair(key: str, value: bytes) -> bytes:
    """A ``KeyValue``."""
    return _field(1, key.encode("utf-8", "backslashreplace")) + _field(2, value)


_ONE_BYTE: Final = tuple(bytes((n,)) for n in range(128))


def _field(number: int, content: bytes) -> bytes:
    """A field with a length in front of it; field numbers up to 15."""
    return _ONE_BYTE[number << 3 | 2] + _varint(len(content)) + content


def _varint(n: int) -> bytes:
    return _ONE_BYTE[n] if n < 128 else size(n).encode("latin-1")
