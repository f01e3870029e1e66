"""The quick way from a canonical form to a protobuf ``LogRecord``, for records whose values are scalars: nearly all.

It works on text in which each character stands for one byte of UTF-8, so that a length is ``len`` and one
``encode("latin-1")`` makes the bytes of a whole record; and it remembers, for each key and length of a value, the bytes
that stand in front of the value.

A *shape* is a record's names and the tags of its values.  One that comes often gets a function of its own, which knows
what to expect in each place: two thirds of the time of the loop over any names.  Names enter its source by number only.
"""

from __future__ import annotations

import functools
import itertools
import re
import struct
from collections.abc import Callable
from typing import Any, Final, TypeAlias

import msgspec

from .. import semconv as sc

SIGHTS: Final = 4
"""A shape gets its function when it was looked at so often: writing one takes as long as a hundred records."""
WRITERS_MAX: Final = 16
"""How many shapes have a function at once; the ones that were used last."""
TRIES: Final = 2
"""How many functions are tried, the one that was chosen last first: a wrong one costs a fifth of the right one."""
NOTICE_EVERY: Final = 8
"""Of the records that none of those could write, so many are let pass until one is looked at for its shape."""
HEADS_MAX: Final = 16_384
"""How many fronts of values are remembered; at one more all are forgotten."""

_HEAD_LENGTH_MAX: Final = 256
_SMALL_DIGITS: Final = 2
_KEYS_MAX: Final = 1024
_SEEN_MAX: Final = 1024
_NAMES_MAX: Final = 64
_MASK64: Final = 2**64 - 1

Parts: TypeAlias = tuple[bytes, bytes]
_Writer: TypeAlias = Callable[[bytes], Parts | None]


class _Value(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A tagged scalar.  An empty map decodes to one with nothing set; another map, a list or ``null`` does not."""

    text: str | msgspec.UnsetType = msgspec.field(name="stringValue", default=msgspec.UNSET)
    integer: str | msgspec.UnsetType = msgspec.field(name="intValue", default=msgspec.UNSET)
    boolean: bool | msgspec.UnsetType = msgspec.field(name="boolValue", default=msgspec.UNSET)
    double: float | msgspec.UnsetType = msgspec.field(name="doubleValue", default=msgspec.UNSET)


class _Record(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """The canonical form of nearly every record; members without a default must be there."""

    attributes: dict[str, _Value]
    event_name: str
    observed_timestamp: str
    timestamp: str
    body: _Value | msgspec.UnsetType = msgspec.UNSET
    trace_id: str = ""
    span_id: str = ""


_UNSET: Final = msgspec.UNSET
_TRUTHS: Final = {True: "\x10\x01", False: "\x10\x00"}
_NOTHING: Final = _Value()

_decode: Final = msgspec.json.Decoder(_Record).decode
_pack_times: Final = struct.Struct("<BQBQ").pack


def quick(canonical: bytes) -> Parts | None:
    """The ``LogRecord`` of a record whose values are scalars, in two parts; ``None`` where it has others.

    Raises:
        ValueError, msgspec.MsgspecError, struct.error: it is not in canonical form.
    """
    if not canonical.isascii():
        canonical.decode()  # raises where it is not UTF-8
        canonical = canonical.decode("latin-1").encode()  # now one character stands for each byte
    if 0x5C in canonical and b"\\u" in canonical:  # a character that is more than one byte could hide behind it
        return None
    for _, write in _writers[:TRIES]:
        try:
            return write(canonical)
        except msgspec.ValidationError:  # noqa: PERF203 - another shape
            pass
    try:
        record = _decode(canonical)
    except msgspec.ValidationError:
        return None
    return _of_any_shape(record)


def _of_any_shape(record: _Record) -> Parts | None:
    attributes = record.attributes
    parts: list[str] = []
    for key, value in attributes.items():
        text = value.text
        if text is not _UNSET:
            parts.append((_heads.get(key) or _learn(key))[len(text)])
            parts.append(text)
        else:
            scalar = _scalar(value)
            if scalar is None:
                return None
            parts.append(_scalar_head(key, len(scalar)))
            parts.append(scalar)
    if record.body is not _UNSET:
        if record.body.text is _UNSET:
            return None
        parts.append(_body_head(len(record.body.text)))
        parts.append(record.body.text)
    parts.append(_event_name(record.event_name))
    if sc.SEVERITY_NUMBER in attributes or sc.SEVERITY_TEXT in attributes:
        number, name = attributes.get(sc.SEVERITY_NUMBER, _NOTHING), attributes.get(sc.SEVERITY_TEXT, _NOTHING)
        parts.append(severity(number.integer or None, name.text or None))
    front = _front(record)
    if front is None:
        return None
    if next(_unshaped) % NOTICE_EVERY == 0:
        _notice(record)
    return front, "".join(parts).encode("latin-1")


def _front(record: Any) -> bytes | None:
    """Times, and ids where there are any; ``None`` where there is one id only."""
    front = _pack_times(0x09, int(record.timestamp), 0x59, int(record.observed_timestamp))
    if record.trace_id or record.span_id:
        ids = bytes.fromhex(f"4a10{record.trace_id}5208{record.span_id}")
        return front + ids if len(ids) == 28 else None
    return front


# -- a function for each shape --------------------------------------------------------------------------------


class _Text(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    value: str = msgspec.field(name="stringValue")


class _Integer(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    value: str = msgspec.field(name="intValue")


class _Truth(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    value: bool = msgspec.field(name="boolValue")


_KINDS: Final = {"text": _Text, "integer": _Integer, "boolean": _Truth}
_NAMEABLE: Final = re.compile(r'[^"\\\x00-\x1f]*').fullmatch

_writers: Final[list[tuple[object, _Writer]]] = []
_seen: Final[dict[object, int]] = {}
_unshaped: Final = itertools.count(1)


def _notice(record: _Record) -> None:
    """Count a record's shape; write its function when it has come often, and try that one first from now on."""
    attributes = record.attributes
    if len(attributes) > _NAMES_MAX:
        return
    shape = (*attributes, *map(_kind, attributes.values()), record.body is not _UNSET)
    for entry in _writers:
        if entry[0] == shape:
            _move_to_front(entry)
            return
    if _seen.get(shape, 0) < SIGHTS:
        if len(_seen) >= _SEEN_MAX:
            _seen.clear()
        _seen[shape] = _seen.get(shape, 0) + 1
        return
    _seen.pop(shape, None)
    kinds = {key: _kind(value) for key, value in attributes.items()}
    if "double" not in kinds.values() and _NAMEABLE("".join(kinds)):
        _move_to_front((shape, _write_writer(kinds, body=record.body is not _UNSET)))


def _move_to_front(entry: tuple[object, _Writer]) -> None:
    """What was used last is tried first, and what was not used for long is forgotten.  One step: no lock."""
    _writers[:] = [entry, *[other for other in _writers if other[0] != entry[0]]][:WRITERS_MAX]


def _kind(value: _Value) -> str:
    if value.text is not _UNSET:
        return "text"
    if value.integer is not _UNSET:
        return "integer"
    return "boolean" if value.boolean is not _UNSET else "double"


def _write_writer(kinds: dict[str, str], *, body: bool) -> _Writer:
    """The function for a shape.

    Args:
        kinds: name of each attribute → which field of :class:`_Value` is set.
        body: whether there is one; it is a text.
    """
    space: dict[str, Any] = {
        "body_head": _body_head, "event_name": _event_name, "front": _front, "len": len, "severity": severity,
        "__builtins__": {},
    }  # fmt: skip
    lines = ["def write(canonical):", " record = decode(canonical)", " attributes = record.attributes"]
    parts: list[str] = []
    fields: list[tuple[str, type, Any]] = []
    places: dict[str, str] = {}
    for place, (key, kind) in enumerate(kinds.items()):
        places[key] = f"v{place}"
        fields.append((f"f{place}", _KINDS[kind], msgspec.field(name=key)))
        lines.append(f" v{place} = attributes.f{place}.value")
        if kind == "text":
            space[f"h{place}"] = _heads.get(key) or _learn(key)
            parts.append(f"{{h{place}[len(v{place})]}}{{v{place}}}")
        elif kind == "integer":
            space[f"h{place}"] = _Integers(key)
            parts.append(f"{{h{place}[v{place}]}}")
        else:
            space[f"h{place}"] = {truth: _scalar_head(key, 2) + _TRUTHS[truth] for truth in _TRUTHS}
            parts.append(f"{{h{place}[v{place}]}}")
    members: list[Any] = [("attributes", msgspec.defstruct("Attributes", fields, gc=False, forbid_unknown_fields=True))]
    members += [(name, str) for name in ("event_name", "observed_timestamp", "timestamp")]
    if body:
        members.append(("body", _Text))
        lines.append(" body = record.body.value")
        parts.append("{body_head(len(body))}{body}")
    ids = [("trace_id", str, ""), ("span_id", str, "")]
    parts.append("{event_name(record.event_name)}")
    number = places.get(sc.SEVERITY_NUMBER) if kinds.get(sc.SEVERITY_NUMBER) == "integer" else None
    name = places.get(sc.SEVERITY_TEXT) if kinds.get(sc.SEVERITY_TEXT) == "text" else None
    if number or name:
        parts.append(f"{{severity({number}, {f'{name} or None' if name else None})}}")
    whole = msgspec.defstruct("Record", [*members, *ids], gc=False, forbid_unknown_fields=True)
    space["decode"] = msgspec.json.Decoder(whole).decode
    lines.append(" times = front(record)")
    lines.append(f" return None if times is None else (times, f'{''.join(parts)}'.encode('latin-1'))")
    exec("\n".join(lines), space)  # noqa: S102 - neither names nor values enter the source
    write: _Writer = space["write"]
    return write


class _Integers(dict[str, str]):
    """For one key: an integer → its whole attribute.  Small ones (a severity, a count) are remembered."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self._heads = [attribute_head(key, length) for length in range(12)]

    def __missing__(self, value: str) -> str:
        """Worked out; remembered where that is bounded."""
        scalar = f"\x18{size(int(value) & _MASK64)}"
        whole = self._heads[len(scalar)] + scalar
        if len(value) <= _SMALL_DIGITS:
            self[value] = whole
        return whole


# -- what stands in front of a value ------------------------------------------------------------------------------


class _Heads(dict[int, str]):
    """For one key: length of a string → tag and size of the attribute, the key, tags and sizes of the value."""

    def __init__(self, key: str) -> None:
        super().__init__()
        self._key = key

    def __missing__(self, length: int) -> str:
        """Worked out; remembered where that is bounded."""
        global _remembered  # noqa: PLW0603 - counts what all of them hold
        front = f"\x0a{size(length)}"
        head = attribute_head(self._key, len(front) + length) + front
        if length <= _HEAD_LENGTH_MAX and len(self._key) <= _HEAD_LENGTH_MAX:
            if _remembered >= HEADS_MAX:
                for heads in list(_heads.values()):
                    heads.clear()
                _remembered = 0
            self[length] = head
            _remembered += 1
        return head


_heads: Final[dict[str, _Heads]] = {}
_remembered = 0


def _learn(key: str) -> _Heads:
    """The fronts for a new key."""
    heads = _Heads(key)
    if len(key) <= _HEAD_LENGTH_MAX:
        if len(_heads) >= _KEYS_MAX:
            _heads.clear()
            _writers.clear()
        _heads[key] = heads
    return heads


def attribute_head(key: str, length: int) -> str:
    """What stands in front of an ``AnyValue`` of this length in an attribute of a record."""
    name = f"\x0a{size(len(key))}{key}\x12{size(length)}"
    return f"\x32{size(len(name) + length)}{name}"


_scalar_head = functools.lru_cache(1024)(attribute_head)


def _scalar(value: _Value) -> str | None:
    """The ``AnyValue`` of an integer, a boolean or a double; ``None`` where it is an empty map."""
    if value.integer is not _UNSET:
        return f"\x18{size(int(value.integer) & _MASK64)}"
    if value.boolean is not _UNSET:
        return _TRUTHS[value.boolean]
    if value.double is not _UNSET:
        return (b"\x21" + struct.pack("<d", value.double)).decode("latin-1")
    return None


@functools.lru_cache(1024)
def _body_head(length: int) -> str:
    head = f"\x0a{size(length)}"
    return f"\x2a{size(len(head) + length)}{head}"


@functools.lru_cache(1024)
def _event_name(name: str) -> str:
    return f"\x62{size(len(name))}{name}"


@functools.lru_cache(1024)
def severity(number: str | None, text: str | None) -> str:
    """The fields of severity number and text, each where it is one."""
    fields = ""
    if number is not None and 1 <= int(number) <= 24:
        fields = f"\x10{size(int(number))}"
    if text is not None:
        fields += f"\x1a{size(len(text))}{text}"
    return fields


_LAST_TWO: Final = tuple(chr(n) if n < 128 else chr(n & 127 | 128) + chr(n >> 7) for n in range(1 << 14))
_MORE: Final = tuple(chr(n | 128) for n in range(128))


def size(n: int) -> str:
    """A varint; one character for each byte."""
    if n < 1 << 14:
        return _LAST_TWO[n]
    text = ""
    while n >= 1 << 14:
        text += _MORE[n & 127]
        n >>= 7
    return text + _LAST_TWO[n]
