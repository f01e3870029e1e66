r"""How values outside of ``jcs/1`` come inside: the one table.  Each conversion leaves a mark.

| value | becomes | mark |
|---|---|---|
| `str` with lone surrogates | the same, each surrogate visible as `\udXXX` | `lone surrogates escaped` |
| `int` beyond 64 bits | decimal string; hexadecimal beyond 13000 bits | `integer beyond 64 bits to string` |
| `float` NaN, infinities | `"NaN"`, `"Infinity"`, `"-Infinity"` | `double that is not finite to string` |
| `Enum` | its value | `enum to its value` |
| subclass of `str`, `int`, `float`, `bytes`; `UserString` | the plain value | `subclass to plain value` |
| `Decimal`, `Fraction` | `str()` of it | `number to string` |
| any other `numbers.Integral` or `numbers.Real` | `int` or `float` | `number to plain number` |
| `datetime` with time zone, `date`, `time` | ISO 8601 string | `time to ISO 8601` |
| `datetime` without time zone | ISO 8601 string without offset | `time without zone to ISO 8601` |
| `timedelta` | ISO 8601 duration in days and seconds, `"P1DT3600.5S"` | `duration to ISO 8601` |
| `UUID`, `PurePath`, IP address, interface or network | `str()` of it | `identifier to string` |
| `bytearray`, `memoryview` | `bytes` | `buffer to bytes` |
| exception | map of `type` and `message` | `exception to map` |
| dataclass, pydantic model, `msgspec.Struct`, named tuple | map of its fields | `object to map` |
| any other mapping | map | `mapping to map` |
| key that is not a string | `str()` of it | `key to string` |
| key that another key has become | the same with `#2`, `#3`, … behind it | `key to string` |
| `set`, `frozenset`, other sets | sorted list | `set to sorted list` |
| any other sequence, `dict.values()` (a plain `tuple` is a list already) | list | `sequence to list` |
| anything else; iterators are not consumed | `repr()`, at most 1000 characters | `object to its repr` |
| object that raises when it is read | `"<unprintable TypeName>"` | `unprintable` |
| iteration that raises | the elements before that | `iteration raised` |
| container more than 31 deep | its JSON text; from 62 deep on `"<nested TypeName>"` | `nested too deep: to text` |
| container within itself | `"<cycle>"` | `cycle` |
| elements of a record beyond 100000 | left out | `only the first N elements kept` |
| attribute under `audit.sequence.` or `audit.integrity.` | the same under `otel_audit.original.` | `reserved name` |
| key that becomes `otel_audit.control` | the same under `otel_audit.original.` | `reserved name` |

A mark is ``"<path>: <mark>"`` and stands in the attribute ``otel_audit.converted``; there are at most 64, and then the
count of the others.  For users the same table stands in ``docs/conversion.md``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import operator
from base64 import b64encode
from collections import UserString
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from itertools import islice
from numbers import Integral, Real
from pathlib import PurePath
from typing import Any, ClassVar, Final, TypeAlias, cast
from uuid import UUID

import msgspec

from . import semconv as sc
from .canonical import ELEMENTS_MAX, NESTING_MAX

MARKS_MAX: Final = 64
"""How many marks are kept; one more counts the rest."""

TEXT_LENGTH_MAX: Final = 1000
"""The longest text that stands for an object or a key, in characters."""

_PATH_LENGTH_MAX: Final = 200
_KEY_IN_PATH_MAX: Final = 64
_INT_BITS_DECIMAL: Final = 13_000  # 3914 digits; Python refuses to write more than 4300 in decimal
_IDENTIFIERS: Final = (PurePath, IPv4Address, IPv6Address, IPv4Network, IPv6Network)  # an interface is an address
_name_of: Final[Callable[[type], str]] = type.__dict__["__name__"].__get__  # whatever the metaclass says

_Build: TypeAlias = Callable[[int], Any]
"""Makes a list or a map when it is told how deep its elements will stand."""


def add_mark(marks: list[str], path: str, rule: str) -> None:
    """Append ``"<path>: <rule>"``; beyond :data:`MARKS_MAX` only count, as ``"… 7 more"``."""
    if len(marks) < MARKS_MAX:
        if len(path) > _PATH_LENGTH_MAX:
            half = _PATH_LENGTH_MAX // 2
            path = f"{path[:half]}…{path[-half:]}"
        marks.append(f"{path}: {rule}")
    elif len(marks) == MARKS_MAX:
        marks.append("… 1 more")
    else:
        marks[-1] = f"… {int(marks[-1].split(' ')[1]) + 1} more"


def convert(value: Any, path: str, marks: list[str]) -> Any:
    """A value that ``jcs/1`` can write.

    Never raises, whatever the object does (``KeyboardInterrupt`` and the like pass), and never changes it.

    Args:
        value: anything.
        path: what the marks call it: ``"body"``.
        marks: gets one for each conversion.
    """
    return Conversion(marks).value(value, path)


class Conversion:
    """The conversion of one record: its values share the room for elements.

    Args:
        marks: gets one for each conversion.
    """

    def __init__(self, marks: list[str]) -> None:
        self._marks = marks
        self._room = ELEMENTS_MAX
        self._open: set[int] = set()

    def value(self, value: Any, path: str, nesting: int = 0) -> Any:
        """A value that ``jcs/1`` can write.

        Args:
            value: anything.
            path: what the marks call it.
            nesting: how many containers it stands in.
        """
        try:
            kind = type(value)
            inside = self._INSIDE.get(kind)
            if inside is not None:
                return inside(self, value, path, nesting)
            for base, to_plain in _OUTSIDE:
                if issubclass(kind, base):
                    rule, plain = to_plain(value)
                    self.mark(path, rule)
                    return self.value(plain, path, nesting)
            rule, build = self._shape(value, kind, path)
            if build is not None:
                return self._nested(value, path, nesting, build, rule)
            text = _escaped(_bounded(repr(value)))
            self.mark(path, rule)
            return text
        except Exception as error:
            if any(type(value) is kind for kind in self._INSIDE) and _is_from_outside(error):
                raise
            self.mark(path, "unprintable")
            return _unprintable(value)

    def attributes(self, attributes: Mapping[Any, Any]) -> dict[str, Any]:
        """Attributes with names and values that ``jcs/1`` can write, none of them with a reserved name."""
        return self._map(self._pairs(attributes, "attributes"), "attributes", 0, sc.RESERVED_PREFIXES)

    def mark(self, path: str, rule: str) -> None:
        """Say what was done."""
        add_mark(self._marks, path, rule)

    # -- types of the profile --------------------------------------------------------------------------------

    def _as_it_is(self, value: Any, _path: str, _nesting: int) -> Any:
        return value

    def _string(self, value: str, path: str, _nesting: int) -> str:
        if _is_utf8(value):
            return value
        self.mark(path, "lone surrogates escaped")
        return _escaped(value)

    def _integer(self, value: int, path: str, _nesting: int) -> int | str:
        if -(2**63) <= value < 2**63:
            return value
        self.mark(path, "integer beyond 64 bits to string")
        return str(value) if value.bit_length() <= _INT_BITS_DECIMAL else hex(value)

    def _double(self, value: float, path: str, _nesting: int) -> float | str:
        if math.isfinite(value):
            return value
        self.mark(path, "double that is not finite to string")
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"

    def _sequence(self, value: Sequence[Any], path: str, nesting: int) -> Any:
        return self._nested(value, path, nesting, lambda inner: self._list(value, path, inner))

    def _mapping(self, value: dict[Any, Any], path: str, nesting: int) -> Any:
        return self._nested(value, path, nesting, lambda inner: self._map(value.items(), path, inner))

    _INSIDE: ClassVar[dict[type, Callable[[Conversion, Any, str, int], Any]]] = {
        str: _string, int: _integer, float: _double, bool: _as_it_is, type(None): _as_it_is, bytes: _as_it_is,
        list: _sequence, tuple: _sequence, dict: _mapping,
    }  # fmt: skip

    # -- objects and containers ------------------------------------------------------------------------------

    def _shape(self, value: Any, kind: type, path: str) -> tuple[str, _Build | None]:
        """What is recognised by the bases or attributes of its type: the rule, and what makes a list or map of it."""
        fields = _fields(kind)
        if fields is not None:
            return "object to map", lambda inner: self._map(self._read(value, fields, getattr, path), path, inner)
        if callable(getattr(kind, "model_dump", None)) and hasattr(kind, "model_fields"):
            return "object to map", lambda inner: self.value(value.model_dump(), path, inner)
        if issubclass(kind, tuple):
            items = tuple(tuple.__iter__(value))  # whatever a subclass has made of it; so too for list and dict
            names = getattr(kind, "_fields", ())
            if names and len(names) == len(items):
                return "object to map", lambda inner: self._map(zip(names, items, strict=True), path, inner)
            return "sequence to list", lambda inner: self._list(items, path, inner)
        if issubclass(kind, list):
            return "sequence to list", lambda inner: self._list(list.__iter__(value), path, inner)
        if issubclass(kind, BaseException):
            facts = {"type": _full_name(kind), "message": _message(value)}
            return "exception to map", lambda inner: self._map(facts.items(), path, inner)
        if issubclass(kind, Mapping):
            return "mapping to map", lambda inner: self._map(self._pairs(value, path), path, inner)
        if issubclass(kind, AbstractSet):
            return "set to sorted list", lambda inner: _sorted(self._list(value, path, inner))
        if issubclass(kind, (Sequence, ValuesView)):
            return "sequence to list", lambda inner: self._list(value, path, inner)
        return "object to its repr", None

    def _nested(self, value: Any, path: str, nesting: int, build: _Build, rule: str = "") -> Any:
        """What ``build`` makes, unless it is too deep or within itself."""
        if id(value) in self._open:
            self.mark(path, "cycle")
            return "<cycle>"
        if rule:
            self.mark(path, rule)
        if nesting == 2 * NESTING_MAX:
            return f"<nested {_name_of(type(value))[:100]}>"
        self._open.add(id(value))
        try:
            built = build(nesting + 1)
        finally:
            self._open.discard(id(value))
        if nesting != NESTING_MAX:
            return built
        self.mark(path, "nested too deep: to text")
        return json.dumps(built, ensure_ascii=False, sort_keys=True, separators=(",", ":"), default=_base64)

    def _list(self, items: Iterable[Any], path: str, nesting: int) -> list[Any]:
        return [self.value(item, f"{path}[{index}]", nesting) for index, item in enumerate(self._take(items, path))]

    def _map(
        self, pairs: Iterable[tuple[Any, Any]], path: str, nesting: int, reserved: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        result: dict[str, Any] = {}
        renamed = []
        for key, item in self._take(pairs, path):  # a key that can stay keeps its name, the others give way
            if type(key) is str and key not in result and _is_utf8(key) and not (reserved and key.startswith(reserved)):
                result[key] = item
            else:
                renamed.append((key, item))
        counts: dict[str, int] = {}
        for key, item in renamed:
            wanted, rule = _key(key, reserved)
            name = wanted
            while name in result:
                counts[wanted] = counts.get(wanted, 1) + 1
                name = f"{wanted}#{counts[wanted]}"
            if rule or name != wanted:
                self.mark(_below(path, name), rule or "key to string")
            result[name] = item
        return {
            name: item if type(item) is str and item.isascii() else self.value(item, _below(path, name), nesting)
            for name, item in result.items()
        }

    def _take(self, items: Iterable[Any], path: str) -> list[Any]:
        """As many elements as there is room for, or as the iteration gives before it raises."""
        taken: list[Any] = []
        try:
            taken.extend(islice(items, self._room + 1))
        except Exception as error:
            if type(items) in (list, tuple, type({}.items())) and _is_from_outside(error):
                raise
            self.mark(path, "iteration raised")
        if len(taken) > self._room:
            del taken[self._room :]
            self.mark(path, f"only the first {self._room} elements kept")
        self._room -= len(taken)
        return taken

    def _pairs(self, value: Mapping[Any, Any], path: str) -> Iterable[tuple[Any, Any]]:
        if issubclass(type(value), dict):
            return dict.items(cast("dict[Any, Any]", value))
        return self._read(value, value, operator.getitem, path)

    def _read(
        self, value: Any, keys: Iterable[Any], get: Callable[[Any, Any], Any], path: str
    ) -> Iterator[tuple[Any, Any]]:
        """Keys and what is found under them; a property that raises takes only itself away."""
        for key in keys:
            try:
                item = get(value, key)
            except Exception:  # noqa: BLE001 - foreign code
                self.mark(path, "unprintable")
                item = _unprintable(value)
            yield key, item


# -- how it is done -----------------------------------------------------------------------------------------------


def _is_from_outside(error: Exception) -> bool:
    """Whether an error cannot be a plain value's own: from a signal handler, or because the stack is full.

    A container that another thread changes while it is read raises RuntimeError.
    """
    return isinstance(error, RecursionError) or not isinstance(error, RuntimeError)


def _is_utf8(text: str) -> bool:
    """Whether it has no lone surrogates."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _escaped(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _bounded(text: str) -> str:
    text = str.__str__(text)  # plain, where it is of a subclass
    return text if len(text) <= TEXT_LENGTH_MAX else text[: TEXT_LENGTH_MAX - 1] + "…"


def _unprintable(value: object) -> str:
    return f"<unprintable {_name_of(type(value))[:100]}>"


def _message(error: BaseException) -> str:
    try:
        return str.__str__(str(error))
    except Exception:  # noqa: BLE001 - foreign code
        return _unprintable(error)


def _key(key: Any, reserved: tuple[str, ...]) -> tuple[str, str]:
    """The name that a key wants, and the rule for it; none where that is the string that it was."""
    kind = type(key)
    rule = "key to string"
    try:
        if issubclass(kind, str):
            text, rule = str.__str__(key), ""
        elif issubclass(kind, Enum):
            text, _ = _key(_enum_value(key), ())
        else:
            text = _bounded(repr(key) if issubclass(kind, bytes) else str(key))
    except Exception:  # noqa: BLE001 - foreign code
        text = _unprintable(key)
    if not _is_utf8(text):
        text, rule = _escaped(text), "key to string"
    if reserved and (text.startswith(reserved) or text == sc.CONTROL):
        text, rule = sc.ORIGINAL_PREFIX + text, "reserved name"
    return text, rule


def _below(path: str, name: str) -> str:
    return f"{path}.{name[:_KEY_IN_PATH_MAX]}"


def _full_name(kind: type) -> str:
    module = kind.__module__
    return _name_of(kind) if module == "builtins" else f"{module}.{_name_of(kind)}"


def _fields(kind: type) -> Sequence[str] | None:
    """The names of the fields of a dataclass or ``msgspec.Struct``."""
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    return kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else None


def _sorted(items: list[Any]) -> list[Any]:
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=lambda item: (type(item).__name__, repr(item)))


def _base64(value: bytes) -> str:
    return b64encode(value).decode()


def _duration(value: timedelta) -> str:
    seconds, micros = divmod(abs((value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds), 1_000_000)
    days, seconds = divmod(seconds, 86_400)
    fraction = f".{micros:06d}".rstrip("0") if micros else ""
    return f"{'-' if value.days < 0 else ''}P{days}DT{seconds}{fraction}S"


def _datetime(value: datetime) -> tuple[str, str]:
    return f"time {'without zone ' if value.utcoffset() is None else ''}to ISO 8601", datetime.isoformat(value)


_ToPlain: TypeAlias = Callable[[Any], tuple[str, Any]]


def _always(rule: str, plain: Callable[[Any], Any]) -> _ToPlain:
    return lambda value: (rule, plain(value))


_enum_value: Final[Callable[[Any], Any]] = operator.attrgetter("_value_")
_SUBCLASS: Final = "subclass to plain value"

_OUTSIDE: Final[tuple[tuple[type | tuple[type, ...], _ToPlain], ...]] = (
    (Enum, _always("enum to its value", _enum_value)),
    (UUID, _always("identifier to string", str)),
    (datetime, _datetime),
    (Decimal, _always("number to string", str)),
    (str, _always(_SUBCLASS, str.__str__)),
    (UserString, _always(_SUBCLASS, str)),
    (int, _always(_SUBCLASS, int.__int__)),
    (float, _always(_SUBCLASS, float.__float__)),
    (bytes, _always(_SUBCLASS, lambda value: b"".join((value,)))),
    (bytearray, _always("buffer to bytes", lambda value: b"".join((value,)))),
    (memoryview, _always("buffer to bytes", memoryview.tobytes)),
    (date, _always("time to ISO 8601", date.isoformat)),
    (time, _always("time to ISO 8601", time.isoformat)),
    (timedelta, _always("duration to ISO 8601", _duration)),
    (_IDENTIFIERS, _always("identifier to string", str)),
    (Fraction, _always("number to string", str)),
    (Integral, _always("number to plain number", operator.index)),
    (Real, _always("number to plain number", float)),
)
"""In this order: types, and the rule and the plain value (which is converted further) for a value of them."""
