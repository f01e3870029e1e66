"""How a record is written down: profile ``jcs/1``, exact bytes, and back.

The bytes are those that the Collector's ``signingprocessor`` signs: RFC 8785 (JCS) over an object with the members
``attributes``, ``body``, ``event_name``, ``observed_timestamp``, ``span_id``, ``timestamp`` and ``trace_id``, each left
out where it is empty, and every value of a body or an attribute tagged::

    str    {"stringValue": "…"}          None         null
    bool   {"boolValue": true}           list, tuple  a bare array of tagged values
    int    {"intValue": "7"}             dict         a bare object of tagged values
    float  {"doubleValue": 0.5}          bytes        {"bytesValue": "padded standard base64"}

Types count exactly: a subclass of ``str`` is not a ``str``.  What is not in the table is *outside the profile* and
raises :class:`OutsideProfile`; ``conversion.py`` brings it inside.

This is the plain way, ``encoding.py`` the fast one.  Tests hold them to each other and to the library ``rfc8785``.
"""

from __future__ import annotations

import math
from binascii import b2a_base64
from collections.abc import Callable, Mapping
from json.encoder import encode_basestring as _quoted
from typing import Any, Final, TypeAlias

import msgspec

from . import semconv as sc

Tagged: TypeAlias = Any
"""A value as the canonical form has it: a tagged scalar, an array or object of such, or ``None``."""

NESTING_MAX: Final = 31
"""How many containers deep a value may be in a record that is emitted.

Each map costs three messages in OTLP, and protobuf decoders refuse more than 100: 31 is the deepest that they read.
"""

PROFILE_NESTING_MAX: Final = 124
"""How many containers deep a value may be at all: the profile refuses JSON that is 128 deep, and three are ours."""

ELEMENTS_MAX: Final = 100_000
"""How many elements the containers of one value may have together in a record that is emitted."""

SEQUENCE_BYTES_MAX: Final = 320
"""Room that :func:`sequence_fragment` needs at most, in bytes (for a stream id that is a UUID)."""

SHAPES_MAX: Final = 1024
"""How many shapes of record are remembered; after so many, all are forgotten."""

_SHAPE_KEYS_MAX: Final = 64
_SHAPE_KEY_LENGTH_MAX: Final = 4096

_INT_END: Final = 2**63
_NO_ID: Final = frozenset({"", "0" * 16, "0" * 32})


class OutsideProfile(ValueError):  # noqa: N818 - a finding, not a failure
    """A value that ``jcs/1`` cannot write.  The message says of which kind, never the value itself."""


# -- values ----------------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """A double as RFC 8785 writes it: ``Number.prototype.toString`` of ECMAScript.

    Raises:
        OutsideProfile: not a number, or infinite.
    """
    if not math.isfinite(value):
        raise OutsideProfile("a double that is not finite")
    if value == 0:
        return "0"
    text = repr(value)  # the shortest digits that round-trip, as ECMAScript has them; only the layout differs
    mantissa, _, exponent = text.partition("e")
    if not exponent:
        return text.removesuffix(".0")
    sign = "-" if mantissa[0] == "-" else ""
    whole, _, fraction = mantissa.lstrip("-").partition(".")
    digits = whole + fraction
    point = int(exponent) + 1  # the decimal point stands after so many digits
    if len(digits) <= point <= 21:
        return sign + digits.ljust(point, "0")
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    fraction = "." + digits[1:] if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{fraction}e{point - 1:+d}"


def _string(value: str) -> str:
    return f'{{"stringValue":{_quoted(value)}}}'


def _boolean(value: bool) -> str:
    return '{"boolValue":true}' if value else '{"boolValue":false}'


def _integer(value: int) -> str:
    if -_INT_END <= value < _INT_END:
        return f'{{"intValue":"{value}"}}'
    raise OutsideProfile("an integer beyond 64 bits")


def _double(value: float) -> str:
    return f'{{"doubleValue":{number(value)}}}'


def _bytes(value: bytes) -> str:
    return f'{{"bytesValue":"{b2a_base64(value, newline=False).decode()}"}}'


def _null(_: None) -> str:
    return "null"


def tagged_text(value: Any) -> str:
    """A tagged value as canonical JSON text, as it stands in a record that is emitted.

    Raises:
        OutsideProfile: it cannot be written (but for lone surrogates, which only encoding finds).
    """
    return _value(value, NESTING_MAX, [ELEMENTS_MAX])


_WRITERS: Final[dict[type, Callable[[Any], str]]] = {
    str: _string, bool: _boolean, int: _integer, float: _double, bytes: _bytes, type(None): _null,
    list: tagged_text, tuple: tagged_text, dict: tagged_text,
}  # fmt: skip
"""One for each type of the profile."""


def _value(value: Any, nesting: int, elements: list[int]) -> str:
    """The tagged value as text, with at most ``nesting`` containers in each other and ``elements[0]`` elements."""
    kind = type(value)
    write = _WRITERS.get(kind, _refused_type)
    if write is not tagged_text:
        return write(value)
    if nesting == 0:
        raise OutsideProfile("containers nested too deep")
    elements[0] -= len(value)
    if elements[0] < 0:
        raise OutsideProfile("too many elements")
    if kind is dict:
        return f"{{{_members(value, nesting - 1, elements)}}}"
    return f"[{','.join([_value(item, nesting - 1, elements) for item in tuple(value)])}]"


def _members(mapping: Mapping[Any, Any], nesting: int, elements: list[int]) -> str:
    """The inside of an object of tagged values, in the order of its keys."""
    return ",".join([f"{_quoted(key)}:{_value(mapping[key], nesting, elements)}" for key in in_order(mapping)])


def in_order(keys: Mapping[Any, Any]) -> list[str]:
    """Sorted by UTF-16 code unit, which is not the order of code points once there are keys beyond U+FFFF."""
    if not set(map(type, keys)) <= {str}:
        raise OutsideProfile("a key that is not a string")
    if "".join(keys).isascii():
        return sorted(keys)
    return sorted(keys, key=lambda key: key.encode("utf-16-be"))


# -- the plain way -----------------------------------------------------------------------------------------------


def canonicalize(
    event_name: str,
    timestamp_ns: int,
    observed_ns: int,
    body: Any,
    attributes: Mapping[str, Any],
    trace_id: str,
    span_id: str,
) -> bytes:
    """The canonical form of a record.

    Args:
        event_name: left out where empty.
        timestamp_ns: nanoseconds since 1970; left out where 0.
        observed_ns: nanoseconds since 1970; left out where 0.
        body: left out where ``None``; an empty string is kept.
        attributes: with those of the chain; ``audit.integrity.*`` are left out.
        trace_id: lower-case hex; left out where empty or all zero.
        span_id: lower-case hex; left out where empty or all zero.

    Raises:
        OutsideProfile: a part cannot be written.
    """
    try:
        signed = {key: value for key, value in attributes.items() if not key.startswith(sc.INTEGRITY_PREFIX)}
        members = [f'"attributes":{{{_members(signed, PROFILE_NESTING_MAX, [_INT_END])}}}'] if signed else []
        if body is not None:
            members.append(f'"body":{_value(body, PROFILE_NESTING_MAX, [_INT_END])}')
        members += plain_members(event_name, timestamp_ns, observed_ns, trace_id, span_id)
        return f"{{{','.join(members)}}}".encode()
    except (TypeError, AttributeError, KeyError, RuntimeError, UnicodeEncodeError) as error:
        raise OutsideProfile(reason(error)) from error


def plain_members(event_name: str, timestamp_ns: int, observed_ns: int, trace_id: str, span_id: str) -> list[str]:
    """The members behind the body, as text."""
    members = []
    if event_name:
        members.append(f'"event_name":{_quoted(event_name)}')
    if observed_ns:
        members.append(f'"observed_timestamp":"{_time(observed_ns)}"')
    if span_id not in _NO_ID:
        members.append(f'"span_id":{_quoted(span_id)}')
    if timestamp_ns:
        members.append(f'"timestamp":"{_time(timestamp_ns)}"')
    if trace_id not in _NO_ID:
        members.append(f'"trace_id":{_quoted(trace_id)}')
    return members


def _time(value: int) -> str:
    if type(value) is int and 0 < value < _INT_END:
        return str(value)
    raise OutsideProfile("a time that is not an integer between 0 and 2^63 nanoseconds")


def sequence_fragment(number: int, previous_hash: str, stream_id: str, end: bool = False) -> bytes:
    """The attributes of the chain, as they stand between the two results of :func:`plain_parts`.

    Args:
        number: ``audit.sequence.number``, from 1.
        previous_hash: 64 lower-case hex digits; empty for the first record of a stream: left out.
        stream_id: a UUID, or anything else that JSON writes without an escape.
        end: whether nothing may follow in the stream.
    """
    if previous_hash and not end:
        return (
            f'"{sc.SEQUENCE_NUMBER}":{{"intValue":"{number}"}},"{sc.SEQUENCE_PREVIOUS_HASH}":{{"stringValue":'
            f'"{previous_hash}"}},"{sc.SEQUENCE_STREAM_ID}":{{"stringValue":"{stream_id}"}}'
        ).encode()
    last = f'"{sc.SEQUENCE_END}":{{"boolValue":true}},' if end else ""
    previous = f'"{sc.SEQUENCE_PREVIOUS_HASH}":{{"stringValue":"{previous_hash}"}},' if previous_hash else ""
    return (
        f'{last}"{sc.SEQUENCE_NUMBER}":{{"intValue":"{number}"}},{previous}'
        f'"{sc.SEQUENCE_STREAM_ID}":{{"stringValue":"{stream_id}"}}'
    ).encode()


def plain_parts(body: Any, attributes: Mapping[str, Any], members: list[str]) -> tuple[bytes, bytes]:
    """Head and tail of the canonical form, between which :func:`sequence_fragment` goes, the plain way.

    Args:
        body: left out where ``None``.
        attributes: without those of the chain.
        members: what :func:`plain_members` gives.

    Raises:
        OutsideProfile: a part cannot be written.
    """
    head, after = '{"attributes":{', ""
    elements = [ELEMENTS_MAX]
    for name in in_order(attributes):
        if name.startswith(sc.RESERVED_PREFIXES):
            raise OutsideProfile("an attribute with a reserved name")
        member = f"{_quoted(name)}:{_value(attributes[name], NESTING_MAX, elements)}"
        if name < sc.SEQUENCE_PREFIX:  # it is ASCII: in comparison with it both orders agree
            head += member + ","
        else:
            after += "," + member
    text = "" if body is None else f',"body":{_value(body, NESTING_MAX, elements)}'
    return head.encode(), "".join([after, "}", text, *[f",{member}" for member in members], "}"]).encode()


def _refused_type(value: Any) -> str:
    raise OutsideProfile(f"a value of type {type(value).__name__}")


def reason(error: Exception) -> str:
    """What an error from elsewhere means, without the value, which its own message may show."""
    return "a lone surrogate" if isinstance(error, UnicodeEncodeError) else f"{type(error).__name__} on reading it"


# -- back ----------------------------------------------------------------------------------------------------------

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode
_SCALARS: Final[dict[str, tuple[tuple[type, ...], Callable[[Any], Any]]]] = {
    "stringValue": ((str,), str),
    "boolValue": ((bool,), bool),
    "intValue": ((str,), int),
    "doubleValue": ((float, int), float),
    "bytesValue": ((str,), lambda text: msgspec.convert(text, bytes)),
}


def decode(canonical: bytes) -> dict[str, Any]:
    """The members of a canonical form, values still tagged.

    Raises:
        ValueError: not strict JSON, or not an object.
    """
    try:
        return _decode(canonical)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a canonical form: {type(error).__name__}") from error


def untag(value: Tagged) -> Any:
    """A tagged value as a plain Python one.

    A map ``{"intValue": "7"}`` of a caller is written ``{"intValue": {"stringValue": "7"}}``, so what stands under a
    tag is a bare scalar only where the tag is one.

    Raises:
        ValueError: not a tagged value.
    """
    kind = type(value)
    if kind is dict:
        if len(value) == 1:
            ((tag, content),) = value.items()
            if tag == "stringValue" and type(content) is str:
                return content
            scalar = _SCALARS.get(tag)
            if scalar is not None and type(content) in scalar[0]:
                return scalar[1](content)
        return {key: untag(item) for key, item in value.items()}
    if kind is list:
        return [untag(item) for item in value]
    if value is None:
        return None
    raise ValueError(f"an untagged value of type {kind.__name__}")
