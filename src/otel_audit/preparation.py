"""From a record to the bytes that the journal takes: its time, its conversion and its size are put right here."""

from __future__ import annotations

import re
from json.encoder import encode_basestring as _quoted
from typing import Any, Final

from . import semconv as sc
from .canonical import SEQUENCE_BYTES_MAX, OutsideProfile, tagged_text
from .conversion import Conversion, add_mark
from .encoding import encode_parts
from .errors import InvalidRecordError
from .record import AuditRecord
from .rules import FUTURE_NS_MAX, ID_LENGTH_MAX, SIZE_BYTES_MAX

_TAG_BYTES: Final = len('{"stringValue":""}')

_FREE_BYTES_MIN: Final = 256
"""To how many bytes a free attribute is cut at most; if that is not enough, whole attributes are left out."""

_BODY_BYTES_MIN: Final = 4096
"""The same for the body."""

_ACTOR_BYTES_MIN: Final = 6 * ID_LENGTH_MAX + _TAG_BYTES
"""The same for the actor's attributes: one that keeps its rule is not cut, whatever characters it is made of."""

_LAST_BYTES_MIN: Final = 64
"""The same for body and actor, when nothing else is left."""


_NEVER_CUT: Final = (sc.RECORD_ID, sc.ACTION, sc.OUTCOME)
_CUT_LAST: Final = (sc.ACTOR_ID, sc.ACTOR_TYPE)
_MARKS: Final = (sc.CONVERTED, sc.TRUNCATED)
_KNOWN: Final = frozenset(name for name in vars(sc).values() if type(name) is str)


def prepare(
    record: AuditRecord, observed_ns: int, *, strict: bool = False, size_bytes_max: int = SIZE_BYTES_MAX
) -> tuple[bytes, bytes]:
    """Head and tail of the record's canonical form; the journal puts the attributes of the chain between them.

    The record is not changed.  What is not as it should be is put right and marked in the attributes: a time after the
    observed one (``otel_audit.original.timestamp``), values outside the profile and reserved names
    (``otel_audit.converted``), and what was cut to keep the size (``otel_audit.truncated``).

    Args:
        record: a record that keeps the rules (``record.check``).
        observed_ns: the moment of ``emit``, nanoseconds since 1970.
        strict: raise rather than clamp a time of more than ``FUTURE_NS_MAX`` after ``observed_ns``, or cut a value.
        size_bytes_max: the largest canonical form, in bytes, the attributes of the chain included.

    Raises:
        InvalidRecordError: with ``strict``; without it only where the mandatory attributes alone are too large.
    """
    timestamp_ns = record.timestamp_ns or observed_ns
    attributes = record.attributes
    if type(timestamp_ns) is not int or not 0 < timestamp_ns <= observed_ns:
        attributes = _with_original_time(attributes, timestamp_ns, observed_ns, strict)
        timestamp_ns = observed_ns
    limit = size_bytes_max - SEQUENCE_BYTES_MAX
    try:
        parts = encode_parts(
            record.event_name, timestamp_ns, observed_ns, record.body, attributes, record.trace_id, record.span_id
        )
        if len(parts[0]) + len(parts[1]) <= limit:
            return parts
    except OutsideProfile:
        pass
    draft = _Draft(record, timestamp_ns, observed_ns, attributes)
    parts = draft.encode()
    size = len(parts[0]) + len(parts[1])
    if size <= limit:
        return parts
    if strict:
        raise draft.too_large(size + SEQUENCE_BYTES_MAX, size_bytes_max)
    return _Cutter(draft, limit).fit()


def _with_original_time(attributes: dict[str, Any], timestamp: Any, observed_ns: int, strict: bool) -> dict[str, Any]:
    """The attributes with the time that cannot stand."""
    if type(timestamp) is not int or timestamp <= 0:
        if strict:
            raise InvalidRecordError("timestamp", "must be integer nanoseconds after 1970", timestamp)
        timestamp = Conversion([]).value(timestamp, "timestamp")
    elif strict and timestamp - observed_ns > FUTURE_NS_MAX:
        rule = f"must not lie more than {FUTURE_NS_MAX // 10**9} s after the moment of emit"
        raise InvalidRecordError("timestamp", rule, timestamp)
    attributes = dict(attributes)
    _put(attributes, sc.ORIGINAL_TIMESTAMP, str(timestamp))
    return attributes


def _put(attributes: dict[str, Any], name: str, value: Any) -> None:
    """Set an attribute of ours; one of the caller's by that name moves aside."""
    if name in attributes:
        _put(attributes, sc.ORIGINAL_PREFIX + name, attributes[name])
    attributes[name] = value


def _put_marks(attributes: dict[str, Any], name: str, marks: list[str]) -> None:
    """Add marks to those that a capture set."""
    before = attributes.get(name)
    if type(before) is list:
        attributes[name] = before + marks
    elif marks:
        _put(attributes, name, marks)


class _Draft:
    """A copy of a record, brought inside the profile, that may be changed."""

    def __init__(self, record: AuditRecord, timestamp_ns: int, observed_ns: int, attributes: dict[str, Any]) -> None:
        marks: list[str] = []
        conversion = Conversion(marks)
        self.timestamp_ns = timestamp_ns
        self.observed_ns = observed_ns
        self.attributes = conversion.attributes(attributes)
        self.body = conversion.value(record.body, "body")
        self.event_name = self._text(conversion, "event_name", record.event_name, sc.UNKNOWN)
        self.trace_id = self._text(conversion, "trace_id", record.trace_id or "", "")
        self.span_id = self._text(conversion, "span_id", record.span_id or "", "")
        _put_marks(self.attributes, sc.CONVERTED, marks)
        for name in sc.MANDATORY:
            if name in attributes and type(self.attributes.get(name)) is not str:
                raise InvalidRecordError(name, "could not be read", attributes[name])

    def _text(self, conversion: Conversion, field: str, value: Any, instead: str) -> str:
        """The field as a string; what is none is kept as an attribute."""
        plain = conversion.value(value, field)
        if type(plain) is str:
            return plain
        conversion.mark(field, "not a string")
        _put(self.attributes, sc.ORIGINAL_PREFIX + field, plain)
        return instead

    def encode(self) -> tuple[bytes, bytes]:
        return encode_parts(
            self.event_name, self.timestamp_ns, self.observed_ns, self.body, self.attributes, self.trace_id,
            self.span_id,
        )  # fmt: skip

    def too_large(self, size: int, size_bytes_max: int) -> InvalidRecordError:
        """The error that names the largest part."""
        parts = {f"attributes[{name!r}]": value for name, value in self.attributes.items()}
        parts |= {"body": self.body, "event_name": self.event_name}
        sizes = {field: len(tagged_text(value).encode()) for field, value in parts.items()}
        field = max(sizes, key=lambda field: sizes[field])
        rule = f"is {sizes[field]} bytes of a record of {size}; the limit is {size_bytes_max}"
        return InvalidRecordError(field, rule, parts[field])


class _Cut:
    """A value that may be cut: as text, and its size as it is and as text.

    A string is its own text; a container or bytes are cut as their canonical JSON text.
    """

    def __init__(self, value: Any) -> None:
        whole = tagged_text(value)
        self.value = value
        self.size = len(whole.encode())
        self.text = value if type(value) is str else whole if type(value) in (bytes, list, dict) else None

    def to(self, room: int, path: str, marks: list[str]) -> Any:
        """The value, or as much of its text as ``room`` bytes of JSON hold."""
        if self.size <= room or self.text is None:
            return self.value
        low, high = 0, min(len(self.text), room)
        while low < high:
            middle = (low + high + 1) // 2
            if len(_quoted(self.text[:middle]).encode()) + _TAG_BYTES - 2 <= room:
                low = middle
            else:
                high = middle - 1
        prefix = self.text[:low]
        add_mark(marks, path, f"{len(prefix.encode())} of {len(self.text.encode())} bytes kept")
        return prefix


class _Cutter:
    """Cuts a draft until it fits: the largest values to one level, then whole free attributes, body and actor last."""

    def __init__(self, draft: _Draft, limit: int) -> None:
        self._draft = draft
        self._limit = limit
        self._lists = {name: value for name in _MARKS if type(value := draft.attributes.get(name)) is list}
        self._fixed: dict[str, Any] = {name: value for name, value in draft.attributes.items() if name in _NEVER_CUT}
        self._body = _Cut(draft.body)
        self._cuts = {
            name: _Cut(value)
            for name, value in draft.attributes.items()
            if name not in self._fixed and name not in self._lists
        }
        free = [name for name in self._cuts if name not in _CUT_LAST]
        self._free = sorted(free, key=lambda name: name not in _KNOWN)  # the first are kept the longest

    def fit(self) -> tuple[bytes, bytes]:
        """Head and tail within the limit.

        Raises:
            InvalidRecordError: what is never cut is too large.
        """
        everything = len(self._free)
        level = self._first_level()
        while level > _FREE_BYTES_MIN:
            parts, excess = self._cut(level, everything)
            if excess <= 0:
                return parts
            level -= max(16, excess // max(1, self._count_above(level)))
        for last in (False, True):
            kept = self._first_kept(last)
            while True:
                parts, excess = self._cut(_FREE_BYTES_MIN, kept, last)
                if excess <= 0:
                    return parts
                if kept == 0:
                    break
                kept -= max(1, kept // 16)
        self._draft.body, self._draft.attributes = None, self._fixed
        size = self._limit + excess + SEQUENCE_BYTES_MAX
        raise self._draft.too_large(size, self._limit + SEQUENCE_BYTES_MAX)

    def _first_level(self) -> int:
        """To how many bytes the largest values must come down, if the marks needed no room."""
        sizes = sorted([self._body.size, *[cut.size for cut in self._cuts.values()]], reverse=True)
        room = self._limit - sum(_name_size(name) for name in self._cuts)
        smaller = sum(sizes)
        for number, size in enumerate(sizes, start=1):
            smaller -= size
            level = (room - smaller) // number
            if number == len(sizes) or level >= sizes[number]:
                break
        return level

    def _count_above(self, level: int) -> int:
        return sum(cut.size > level for cut in (self._body, *self._cuts.values()))

    def _first_kept(self, last: bool) -> int:
        """How many free attributes fit beside the rest, about."""
        _, size = self._cut(_FREE_BYTES_MIN, 0, last)
        for kept, name in enumerate(self._free):
            size += _name_size(name) + min(self._cuts[name].size, _FREE_BYTES_MIN)
            if size > 0:
                return kept
        return len(self._free)

    def _cut(self, level: int, kept: int, last: bool = False) -> tuple[tuple[bytes, bytes], int]:
        """With every value cut to ``level`` bytes and the first ``kept`` free attributes; and how much is too much."""
        marks: list[str] = []
        if kept < len(self._free):
            add_mark(marks, "attributes", f"{kept} of {len(self._free)} kept")
        body_room = _LAST_BYTES_MIN if last else max(level, _BODY_BYTES_MIN)
        actor_room = _LAST_BYTES_MIN if last else max(level, _ACTOR_BYTES_MIN)
        self._draft.body = self._body.to(body_room, "body", marks)
        attributes = dict(self._fixed)
        for name in (*[name for name in _CUT_LAST if name in self._cuts], *self._free[:kept]):
            room = actor_room if name in _CUT_LAST else level
            attributes[name] = self._cuts[name].to(room, f"attributes.{name}", marks)
        for name, before in self._lists.items():
            attributes[name] = _first_marks(before, level)
        _put_marks(attributes, sc.TRUNCATED, marks)
        self._draft.attributes = attributes
        parts = self._draft.encode()
        return parts, len(parts[0]) + len(parts[1]) - self._limit


def _name_size(name: str) -> int:
    """The bytes of an attribute beside its value: its name, a colon and a comma."""
    return len(_quoted(name).encode()) + 2


def _first_marks(marks: list[Any], room: int) -> list[Any]:
    """As many as fit, and the count of the others."""
    for number, mark in enumerate(marks):
        room -= len(tagged_text(mark).encode())
        if room < 0:
            counted = re.fullmatch("… ([0-9]+) more", str(marks[-1]))
            return [*marks[:number], f"… {len(marks) - number - 1 + (int(counted[1]) if counted else 1)} more"]
    return marks
