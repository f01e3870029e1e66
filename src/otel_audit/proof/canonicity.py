"""Whether bytes are the canonical form of the values in them: what a verifier asks of every record.

The plain way is to read the values and to write them again.  That costs ten times as much as checking a hash, so for
shapes that come often there is a *grammar*: a regular expression that is made from one record of which the plain way
has shown that it is canonical, with its names as they stand and with the places of its values open.  In those places
it takes only text of which there is one spelling: strings without anything that is or could be escaped, integers,
booleans, ``null``, times and ids.  So what a grammar takes is canonical; what none takes goes the plain way.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from json.encoder import encode_basestring as _quoted
from typing import Any, Final, TypeAlias

from ..canonical import OutsideProfile, canonicalize, decode, untag

GRAMMARS_MAX: Final = 16
"""How many shapes have a grammar at once; the ones that were used last."""
SIGHTS: Final = 16
"""A grammar is made when its shape has come so often: making it takes as long as reading a hundred records."""

_SEEN_MAX: Final = 1024
_NAMES_MAX: Final = 64

_Grammar: TypeAlias = "re.Pattern[bytes]"

_TEXT: Final = rb"[ !#-\[\]-\xff]"  # no control character, quote or backslash; said thus, it is one step of re
_INTEGER: Final = b"(?:0|-?[1-9][0-9]{0,17})"  # those of 19 digits may be beyond 64 bits: the plain way knows
_TIME: Final = b'"(?:1[0-9]{18}|[1-9][0-9]{0,17})"'
_VALUES: Final[Mapping[str, bytes]] = {
    "stringValue": b'"' + _TEXT + b'*"',
    "intValue": b'"' + _INTEGER + b'"',
    "boolValue": b"(?:true|false)",
}
_MEMBERS: Final[Mapping[str, bytes]] = {
    "event_name": b'"' + _TEXT + b'+"',
    "observed_timestamp": _TIME,
    "span_id": b'"(?!0{16}")[0-9a-f]{16}"',
    "timestamp": _TIME,
    "trace_id": b'"(?!0{32}")[0-9a-f]{32}"',
}

_grammars: list[_Grammar] = []
_seen: dict[tuple[str, ...], int] = {}


def is_canonical(data: bytes) -> bool:
    """Whether the bytes are a canonical form (profile ``jcs/1``), to the last one."""
    if not data.isascii() and not _is_utf8(data):
        return False
    for place, grammar in enumerate(_grammars):
        if grammar.fullmatch(data) is not None:
            if place:
                _move_to_front(grammar)
            return True
    return _is_derived(data)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _is_derived(data: bytes) -> bool:
    """The plain way; notices shapes that come often."""
    try:
        record = decode(data)
        plain = {name: untag(value) for name, value in record.get("attributes", {}).items()}
        derived = canonicalize(
            record.get("event_name", ""),
            int(record.get("timestamp", 0)),
            int(record.get("observed_timestamp", 0)),
            untag(record.get("body")),
            plain,
            record.get("trace_id", ""),
            record.get("span_id", ""),
        )
    except (OutsideProfile, ValueError, TypeError, AttributeError, RecursionError):
        return False
    if derived != data:
        return False
    _notice(record)
    return True


def _notice(record: Mapping[str, Any]) -> None:
    """Count the shape of a canonical record; make its grammar when it has come often."""
    attributes = record.get("attributes", {})
    if len(attributes) > _NAMES_MAX:
        return
    kinds = [_kind(value) for value in attributes.values()]
    body = _kind(record["body"]) if "body" in record else ""
    shape = (*attributes, *kinds, body, *record)
    if None in shape:
        return
    count = _seen.get(shape, 0) + 1
    if count < SIGHTS:
        if len(_seen) >= _SEEN_MAX:
            _seen.clear()
        _seen[shape] = count
        return
    _seen.pop(shape, None)
    members = []
    for name in record:
        if name == "attributes":
            values = [_member(key, _value(kind)) for key, kind in zip(attributes, kinds, strict=True)]
            members.append(_member(name, b"\\{" + b",".join(values) + b"\\}"))
        else:
            members.append(_member(name, _value(body) if name == "body" else _MEMBERS[name]))
    _move_to_front(re.compile(b"\\{" + b",".join(members) + b"\\}"))


def _kind(value: Any) -> str | None:
    """The tag of a scalar that a grammar can have, ``"null"``; ``None`` for all else."""
    if value is None:
        return "null"
    if type(value) is dict and len(value) == 1:
        ((tag, content),) = value.items()
        if tag in _VALUES and type(content) in (str, bool):
            return str(tag)
    return None


def _value(kind: str | None) -> bytes:
    return b"null" if kind == "null" else b'\\{"%b":%b\\}' % (str(kind).encode(), _VALUES[str(kind)])


def _member(name: str, value: bytes) -> bytes:
    return re.escape(_quoted(name).encode()) + b":" + value


def _move_to_front(grammar: _Grammar) -> None:
    """What was used last is tried first, and what was not used for long is forgotten.  One step: no lock."""
    _grammars[:] = [grammar, *[other for other in _grammars if other is not grammar]][:GRAMMARS_MAX]
