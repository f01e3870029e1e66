"""Conversion: each row of the table, objects that fight back, and that it never raises."""

from __future__ import annotations

import collections
import dataclasses
import enum
import gc
import ipaddress
import re
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import date, datetime, timedelta, timezone
from datetime import time as clock
from decimal import Decimal
from fractions import Fraction
from numbers import Integral, Real
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple
from unittest.mock import MagicMock
from uuid import UUID

import msgspec
import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_audit import conversion
from otel_audit.canonical import ELEMENTS_MAX, NESTING_MAX
from otel_audit.conversion import MARKS_MAX, TEXT_LENGTH_MAX, Conversion, add_mark, convert
from otel_audit.encoding import encode_parts

DOCUMENT = Path(__file__).parents[2] / "docs" / "conversion.md"


def encoded(value: Any) -> bytes:
    """The value as a body; raises where it is outside the profile."""
    head, tail = encode_parts("a.b", 1, 1, value, {}, "", "")
    return head + b'"":null' + tail


def converted(value: Any) -> tuple[Any, list[str]]:
    """What a value becomes, and the marks; what it becomes is inside the profile."""
    marks: list[str] = []
    plain = convert(value, "body", marks)
    encoded(plain)
    return plain, marks


# -- the table ---------------------------------------------------------------------------------------------------


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Label(str, enum.Enum):
    OLD = "old"


class Name(str):
    pass


class Count(int):
    def __int__(self) -> int:
        raise ZeroDivisionError


class Ratio(float):
    pass


class Blob(bytes):
    def __bytes__(self) -> bytes:
        raise ZeroDivisionError


class Point(NamedTuple):
    x: int
    y: Any


class Pair(tuple):  # type: ignore[type-arg]
    pass


@dataclasses.dataclass
class Order:
    number: int
    lines: Any = None
    kind: dataclasses.InitVar[int] = 0


@dataclasses.dataclass
class Broken:
    number: int = 1

    @property
    def _(self) -> int:
        return 0

    def __getattribute__(self, name: str) -> Any:
        if name == "number":
            raise ZeroDivisionError
        return object.__getattribute__(self, name)


class Row(msgspec.Struct):
    number: int
    lines: Any = None


class Model(pydantic.BaseModel):
    number: int
    secret: pydantic.SecretStr = pydantic.SecretStr("hidden")
    left_out: int = pydantic.Field(default=1, exclude=True)


class Items(Mapping[Any, Any]):
    def __getitem__(self, key: Any) -> Any:
        return {"a": 1, 2: "b"}[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(["a", 2])

    def __len__(self) -> int:
        raise ZeroDivisionError


class Whole:
    """Like numpy's integers."""

    def __index__(self) -> int:
        return 7


class Part:
    """Like numpy's doubles of 32 bits."""

    def __float__(self) -> float:
        return 0.5


Integral.register(Whole)
Real.register(Part)


class Plain:
    def __repr__(self) -> str:
        return "Plain()"


def _raising() -> Iterator[int]:
    yield 1
    raise ZeroDivisionError


class Stops(Sequence[int]):
    def __getitem__(self, index: Any) -> Any:
        return 1

    def __iter__(self) -> Iterator[int]:
        return _raising()

    def __len__(self) -> int:
        return 9


def _cycle() -> list[Any]:
    value: list[Any] = [1]
    value.append({"again": value})
    return value


def _deep(levels: int, bottom: Any = 1) -> Any:
    for _ in range(levels):
        bottom = [bottom]
    return bottom


BIG = 2**64
ZONE = timezone(timedelta(hours=2))

EXAMPLES: list[tuple[Any, Any, list[str]]] = [
    ("a\ud800b", "a\\ud800b", ["lone surrogates escaped"]),
    (BIG, "18446744073709551616", ["integer beyond 64 bits to string"]),
    (-(2**63) - 1, "-9223372036854775809", ["integer beyond 64 bits to string"]),
    (1 << 13_000, hex(1 << 13_000), ["integer beyond 64 bits to string"]),
    (float("nan"), "NaN", ["double that is not finite to string"]),
    (float("inf"), "Infinity", ["double that is not finite to string"]),
    (float("-inf"), "-Infinity", ["double that is not finite to string"]),
    (Color.RED, "red", ["enum to its value"]),
    (Level.HIGH, 3, ["enum to its value"]),
    (Label.OLD, "old", ["enum to its value"]),
    (Name("x"), "x", ["subclass to plain value"]),
    (collections.UserString("x"), "x", ["subclass to plain value"]),
    (Count(3), 3, ["subclass to plain value"]),
    (Ratio(0.5), 0.5, ["subclass to plain value"]),
    (Blob(b"x"), b"x", ["subclass to plain value"]),
    (Decimal("1.10"), "1.10", ["number to string"]),
    (Fraction(1, 3), "1/3", ["number to string"]),
    (Whole(), 7, ["number to plain number"]),
    (Part(), 0.5, ["number to plain number"]),
    (datetime(2026, 1, 2, 3, 4, 5, 600, ZONE), "2026-01-02T03:04:05.000600+02:00", ["time to ISO 8601"]),
    (date(2026, 1, 2), "2026-01-02", ["time to ISO 8601"]),
    (clock(3, 4), "03:04:00", ["time to ISO 8601"]),
    (datetime(2026, 1, 2), "2026-01-02T00:00:00", ["time without zone to ISO 8601"]),
    (timedelta(days=1, hours=1, microseconds=500_000), "P1DT3600.5S", ["duration to ISO 8601"]),
    (timedelta(seconds=-5), "-P0DT5S", ["duration to ISO 8601"]),
    (timedelta.min, "-P999999999DT0S", ["duration to ISO 8601"]),
    (UUID(int=1), "00000000-0000-0000-0000-000000000001", ["identifier to string"]),
    (PurePosixPath("/a/b"), "/a/b", ["identifier to string"]),
    (ipaddress.ip_address("::1"), "::1", ["identifier to string"]),
    (ipaddress.ip_interface("10.0.0.1/8"), "10.0.0.1/8", ["identifier to string"]),
    (ipaddress.ip_network("10.0.0.0/8"), "10.0.0.0/8", ["identifier to string"]),
    (bytearray(b"x"), b"x", ["buffer to bytes"]),
    (memoryview(b"abcd")[::2], b"ac", ["buffer to bytes"]),
    (ValueError("no", 1), {"type": "ValueError", "message": "('no', 1)"}, ["exception to map"]),
    (Order(1, [Order(2)]), {"number": 1, "lines": [{"number": 2, "lines": None}]}, ["object to map"] * 2),
    (Row(1, Row(2)), {"number": 1, "lines": {"number": 2, "lines": None}}, ["object to map"] * 2),
    (
        Model(number=1),
        {"number": 1, "secret": "SecretStr('**********')"},
        ["object to map", "object to its repr"],
    ),
    (Point(1, Point(2, 3)), {"x": 1, "y": {"x": 2, "y": 3}}, ["object to map"] * 2),
    (Pair((1, 2)), [1, 2], ["sequence to list"]),
    (types.MappingProxyType({"a": 1}), {"a": 1}, ["mapping to map"]),
    (collections.OrderedDict(a=1), {"a": 1}, ["mapping to map"]),
    (Items(), {"a": 1, "2": "b"}, ["mapping to map", "key to string"]),
    ({1: "a", None: "b", b"k": "c"}, {"1": "a", "None": "b", "b'k'": "c"}, ["key to string"] * 3),
    ({(1, 2): "d"}, {"(1, 2)": "d"}, ["key to string"]),
    ({Color.RED: 1, Name("k"): 2}, {"red": 1, "k": 2}, ["key to string"]),
    ({"\ud800": 1}, {"\\ud800": 1}, ["key to string"]),
    ({1: "a", "1": "b", "1#2": "c", 1.5: "d", "1.5": "e"}, {"1": "b", "1#2": "c", "1#3": "a", "1.5": "e", "1.5#2": "d"},
     ["key to string"] * 2),
    ({3, 10, 2}, [2, 3, 10], ["set to sorted list"]),
    (frozenset({"b", "a"}), ["a", "b"], ["set to sorted list"]),
    ({1, "a", None}, [None, 1, "a"], ["set to sorted list"]),
    ({"b": 1, "a": 2}.keys(), ["a", "b"], ["set to sorted list"]),
    (range(3), [0, 1, 2], ["sequence to list"]),
    (collections.deque([1]), [1], ["sequence to list"]),
    ({"a": 1}.values(), [1], ["sequence to list"]),
    (Plain(), "Plain()", ["object to its repr"]),
    (int, "<class 'int'>", ["object to its repr"]),
    (Broken(), {"number": "<unprintable Broken>"}, ["object to map", "unprintable"]),
    (Stops(), [1], ["sequence to list", "iteration raised"]),
    (_deep(NESTING_MAX + 1), _deep(NESTING_MAX, "[1]"), ["nested too deep: to text"]),
    (_cycle(), [1, {"again": "<cycle>"}], ["cycle"]),
    ([None] * (ELEMENTS_MAX + 5), [None] * ELEMENTS_MAX, ["only the first N elements kept"]),
]  # fmt: skip


def rules_of(marks: list[str]) -> list[str]:
    """The marks without their paths, numbers as in the table."""
    rules = [mark.partition(": ")[2] for mark in marks]
    return [re.sub("first [0-9]+", "first N", rule) for rule in rules]


@pytest.mark.parametrize(
    "index", range(len(EXAMPLES)), ids=[f"{type(row[0]).__name__}-{row[2][0]}" for row in EXAMPLES]
)
def test_row_of_the_table(index: int) -> None:
    """The value becomes what the table says, of exactly that type, and is marked so."""
    value, expected, rules = EXAMPLES[index]
    plain, marks = converted(value)
    assert plain == expected
    assert repr(plain) == repr(expected) or isinstance(expected, dict)
    assert sorted(rules_of(marks)) == sorted(rules)


def table(text: str) -> list[str]:
    """The lines of a Markdown table."""
    return [line for line in text.splitlines() if line.startswith("|")]


def test_the_document_has_the_table_of_the_code() -> None:
    """What users read is what the code says of itself."""
    assert conversion.__doc__ is not None
    assert table(DOCUMENT.read_text("utf-8")) == table(conversion.__doc__)


def test_every_mark_of_the_table_has_an_example() -> None:
    """No row stands there without one that shows it, and no example has a mark that is not there."""
    assert conversion.__doc__ is not None
    marks = {row.split(" | ")[2].strip(" |`") for row in table(conversion.__doc__)[2:]}
    shown = {rule for _, _, rules in EXAMPLES for rule in rules}
    assert shown | {"reserved name", "unprintable"} == marks


def test_the_numbers_of_the_table_are_those_of_the_code() -> None:
    """The limits that the table names are the limits."""
    text = conversion.__doc__ or ""
    assert f"beyond {ELEMENTS_MAX} " in text
    assert f"more than {NESTING_MAX} deep" in text
    assert f"from {2 * NESTING_MAX} deep" in text
    assert f"at most {TEXT_LENGTH_MAX} characters" in text
    assert f"at most {MARKS_MAX}," in text


# -- what is inside ------------------------------------------------------------------------------------------------

scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=9) | st.binary(max_size=9)
)  # fmt: skip
keys = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
inside = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


@given(inside)
def test_values_inside_stay_and_have_no_mark(value: Any) -> None:
    """What the profile can write is not touched."""
    plain, marks = converted(value)
    assert plain == value
    assert repr(plain) == repr(value)
    assert marks == []


def test_a_plain_tuple_is_a_list_without_a_mark() -> None:
    """The profile has one kind of array."""
    assert converted((1, ("a",))) == ([1, ["a"]], [])


def test_the_value_is_not_changed_and_not_shared() -> None:
    """The caller may go on changing its containers."""
    value = {"a": [1, {2}]}
    plain, _ = converted(value)
    plain["a"].append("x")
    assert value == {"a": [1, {2}]}


def test_generators_are_not_consumed() -> None:
    """Logging an iterator does not take its elements away from the program."""
    generator, iterator, mapped = (i for i in range(3)), iter([1, 2]), map(str, [1])
    for value in (generator, iterator, mapped):
        plain, marks = converted(value)
        assert plain.startswith("<")
        assert rules_of(marks) == ["object to its repr"]
    assert (list(generator), list(iterator), list(mapped)) == ([0, 1, 2], [1, 2], ["1"])


def test_a_container_twice_is_no_cycle() -> None:
    """Only a container within itself is one."""
    shared = [1]
    assert converted([shared, shared]) == ([[1], [1]], [])


def test_long_texts_are_bounded() -> None:
    """The repr of an object and the string of a key are cut."""

    class Long:
        def __repr__(self) -> str:
            return "x" * 10_000

    plain, _ = converted([Long(), {Long(): 1}])
    assert plain[0] == "x" * (TEXT_LENGTH_MAX - 1) + "…"
    assert list(plain[1]) == [plain[0]]


def test_text_of_what_is_too_deep_keeps_everything() -> None:
    """Below the limit stands the JSON of the rest, and it can be read again."""
    plain, _ = converted(_deep(NESTING_MAX, {"b": b"\xff", "a": [Color.RED, "é"]}))
    for _ in range(NESTING_MAX):
        (plain,) = plain
    assert plain == '{"a":["red","é"],"b":"/w=="}'


@pytest.mark.parametrize("levels", [2 * NESTING_MAX + 1, 500, 5000])
def test_any_depth_ends(levels: int) -> None:
    """Beyond twice the limit only the type's name is left."""
    plain, marks = converted(_deep(levels))
    assert "<nested list>" in repr(plain)
    assert rules_of(marks) == ["nested too deep: to text"]


# -- marks ---------------------------------------------------------------------------------------------------------


def test_marks_say_where() -> None:
    """The path leads through keys and indices."""
    assert converted({"a": [1, {"b c": {2}}]})[1] == ["body.a[1].b c: set to sorted list"]


def test_marks_are_bounded() -> None:
    """However many values are converted and however long their paths, the marks are few and short."""
    plain, marks = converted([{"k" * 1000: {"l" * 1000: {"m" * 1000: {"n" * 1000: Color.RED}}}}] * 1000)
    assert len(plain) == 1000
    assert len(marks) == MARKS_MAX + 1
    assert marks[-1] == f"… {1000 - MARKS_MAX} more"
    assert max(map(len, marks)) < 300


def test_add_mark_counts_on() -> None:
    """The last entry counts what is not there."""
    marks: list[str] = []
    for i in range(MARKS_MAX + 12):
        add_mark(marks, f"p{i}", "rule")
    assert marks[:1] == ["p0: rule"]
    assert marks[MARKS_MAX:] == ["… 12 more"]


# -- keys ----------------------------------------------------------------------------------------------------------


class Same:
    def __init__(self, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return self.name


@given(
    st.lists(st.sampled_from(["k", "k#2", "k#3", "l"]) | st.builds(Same, st.sampled_from(["k", "k#2"])), max_size=12)
)
def test_no_key_is_lost_and_none_is_doubled(several: list[Any]) -> None:
    """Keys that become the same string are told apart, and a key that was a string keeps its name."""
    value = {key: index for index, key in enumerate(several)}
    plain, _ = converted(value)
    assert sorted(plain.values()) == sorted(value.values())
    assert all(plain[key] == item for key, item in value.items() if type(key) is str)


def test_many_keys_that_become_the_same() -> None:
    """Telling them apart takes time in proportion to their number."""
    start = time.perf_counter()
    plain, _ = converted({Same("k"): i for i in range(50_000)})
    assert len(plain) == 50_000
    assert time.perf_counter() - start < 10


def test_keys_that_raise() -> None:
    """A key without a string is unprintable like any object."""

    class Key:
        def __str__(self) -> str:
            raise ZeroDivisionError

    assert converted({Key(): 1, Key(): 2})[0] == {"<unprintable Key>": 1, "<unprintable Key>#2": 2}


# -- attributes ----------------------------------------------------------------------------------------------------


def test_reserved_names_give_way() -> None:
    """Attributes of the chain and of signers are kept under another name; in a nested map they are nobody's."""
    marks: list[str] = []
    attributes = {
        "audit.sequence.number": 5,
        "audit.integrity.value": {"audit.integrity.value": 1},
        "otel_audit.original.audit.sequence.number": 6,
        "audit.sequence": 7,
    }
    assert Conversion(marks).attributes(attributes) == {
        "otel_audit.original.audit.sequence.number": 6,
        "otel_audit.original.audit.sequence.number#2": 5,
        "otel_audit.original.audit.integrity.value": {"audit.integrity.value": 1},
        "audit.sequence": 7,
    }
    assert rules_of(marks) == ["reserved name", "reserved name"]


def test_a_reserved_name_cannot_be_disguised() -> None:
    """A key that only becomes a reserved name when it is converted gives way too."""
    for key in (Same("audit.sequence.number"), Name("audit.sequence.number")):
        assert list(Conversion([]).attributes({key: 1})) == ["otel_audit.original.audit.sequence.number"]
    assert list(Conversion([]).attributes({Name("otel_audit.control"): 1})) == [
        "otel_audit.original.otel_audit.control"
    ]


def test_attributes_that_cannot_be_read() -> None:
    """A foreign mapping of attributes that raises gives what it gave before."""

    class Bad(Items):
        def __iter__(self) -> Iterator[Any]:
            yield "a"
            raise ZeroDivisionError

    marks: list[str] = []
    assert Conversion(marks).attributes(Bad()) == {"a": 1}
    assert marks == ["attributes: iteration raised"]


# -- objects that fight back -----------------------------------------------------------------------------------------


class Hostile:
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> Any:
        raise ZeroDivisionError(name)

    def _fail(self, *_: Any) -> Any:
        raise ZeroDivisionError

    __repr__ = __str__ = __eq__ = __hash__ = __len__ = __iter__ = __bool__ = __index__ = __float__ = _fail  # type: ignore[assignment]
    __getitem__ = __contains__ = __bytes__ = __lt__ = __dir__ = __format__ = __call__ = __fspath__ = _fail


class HostileMeta(type):
    def __getattribute__(cls, name: str) -> Any:
        if name == "__dict__":
            return type.__getattribute__(cls, name)
        raise ZeroDivisionError

    def __hash__(cls) -> int:
        raise ZeroDivisionError

    def __eq__(cls, other: object) -> bool:
        raise ZeroDivisionError

    def __instancecheck__(cls, instance: object) -> bool:
        raise ZeroDivisionError

    def __subclasscheck__(cls, subclass: type) -> bool:
        raise ZeroDivisionError


class WithHostileMeta(metaclass=HostileMeta):
    pass


class Liar:
    __class__ = property(lambda _: str)  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "Liar()"


class EndlessSequence(Sequence[int]):
    def __getitem__(self, index: Any) -> Any:
        return index

    def __iter__(self) -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    def __len__(self) -> int:
        return 1


class EndlessMapping(Mapping[Any, Any]):
    def __getitem__(self, key: Any) -> Any:
        return EndlessMapping()

    def __iter__(self) -> Iterator[Any]:
        return iter(EndlessSequence())

    def __len__(self) -> int:
        return 1


class HostileSet(AbstractSet[int]):
    def __contains__(self, item: object) -> bool:
        raise ZeroDivisionError

    def __iter__(self) -> Iterator[int]:
        raise ZeroDivisionError

    def __len__(self) -> int:
        raise ZeroDivisionError


class HostileDict(dict[Any, Any]):
    __iter__ = items = keys = values = get = __getitem__ = __len__ = Hostile._fail  # type: ignore[assignment]


class HostileList(list[Any]):
    __iter__ = __len__ = __getitem__ = Hostile._fail  # type: ignore[assignment]


class HostileStr(str):
    __str__ = __repr__ = encode = __len__ = __eq__ = __hash__ = isascii = Hostile._fail  # type: ignore[assignment]


class HostileEnum(enum.Enum):
    A = 1

    @property
    def value(self) -> Any:
        raise ZeroDivisionError


class BadModel:
    model_fields: ClassVar[Any] = {}

    def model_dump(self) -> Any:
        raise ZeroDivisionError


class HostileError(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class Selves:
    """Each reading gives another one."""

    model_fields: ClassVar[Any] = {}

    def model_dump(self) -> Any:
        return Selves()


def _released() -> memoryview:
    view = memoryview(b"x")
    view.release()
    return view


HOSTILE: list[tuple[Any, Any]] = [
    (Hostile(), "<unprintable Hostile>"),
    (WithHostileMeta(), "<unprintable WithHostileMeta>"),
    (Liar(), "Liar()"),
    (HostileSet(), []),
    (HostileDict(a=1), {"a": 1}),
    (HostileList([1]), [1]),
    (HostileStr("x"), "x"),
    (HostileEnum.A, 1),
    (BadModel(), "<unprintable BadModel>"),
    (HostileError("x"), {"type": f"{__name__}.HostileError", "message": "<unprintable HostileError>"}),
    (_released(), "<unprintable memoryview>"),
]


@pytest.mark.parametrize("index", range(len(HOSTILE)), ids=[type.__repr__(type(row[0])) for row in HOSTILE])
def test_hostile_objects(index: int) -> None:
    """Objects that raise, or lie, become what can be said of them; those beside them stay whole."""
    value, expected = HOSTILE[index]
    plain, marks = converted([1, value, {"k": value}])
    assert plain == [1, expected, {"k": expected}]
    assert marks


def test_endless_iterations_end() -> None:
    """What never stops is cut at the limit of elements."""
    for value in (EndlessSequence(), EndlessMapping(), [range(10**12)] * 3):
        start = time.perf_counter()
        _, marks = converted(value)
        assert time.perf_counter() - start < 20
        assert any("elements kept" in mark for mark in marks)


def test_shared_containers_cannot_explode() -> None:
    """A small object that is huge when it is written out is cut at the limit of elements."""
    value: Any = [1] * 10
    for _ in range(40):
        value = [value] * 10
    start = time.perf_counter()
    converted(value)
    assert time.perf_counter() - start < 20


def test_objects_without_end() -> None:
    """An object that gives another of its kind each time ends at the limit of depth."""
    assert "<nested Selves>" in repr(converted(Selves())[0])


def test_an_enum_that_is_its_own_value() -> None:
    """Recursion in foreign objects is caught, whatever its kind."""

    class Own(enum.Enum):
        A = 1

    Own.A._value_ = Own.A
    assert converted(Own.A)[0] == "<unprintable Own>"


def test_mocks_are_described() -> None:
    """An object that has every attribute is not taken for one of the known kinds."""
    plain, marks = converted(MagicMock())
    assert plain.startswith("<MagicMock")
    assert rules_of(marks) == ["object to its repr"]


def test_interrupts_pass() -> None:
    """Ctrl-C during a conversion interrupts the program, not the value."""

    class Interrupts:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert([Interrupts()], "body", [])


def test_nothing_is_kept_alive() -> None:
    """A converted object can go when its owner lets it go."""
    import weakref

    value = Plain()
    reference = weakref.ref(value)
    convert([value, {"k": value}], "body", [])
    del value
    gc.collect()
    assert reference() is None


wild_scalars = st.one_of(
    scalars, st.text(), st.integers(), st.floats(), st.decimals(), st.fractions(), st.datetimes(), st.timedeltas(),
    st.times(), st.uuids(), st.complex_numbers(), st.ip_addresses(), st.builds(Hostile), st.builds(Plain),
    st.builds(Same, st.text()), st.sampled_from([Color.RED, int, print, Liar(), ..., NotImplemented]),
    st.builds(bytearray, st.binary()), st.builds(ValueError, st.text()),
)  # fmt: skip
hashable = st.one_of(scalars, st.text(), st.integers(), st.floats(), st.uuids(), st.builds(Same, st.text()))
wild = st.recursive(
    wild_scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.tuples(inner, inner),
        st.dictionaries(hashable, inner, max_size=4),
        st.frozensets(hashable, max_size=4),
        st.builds(Order, inner, inner),
        st.builds(Point, inner, inner),
        st.builds(Row, st.integers(), inner),
        st.builds(collections.deque, st.lists(inner, max_size=3)),
        st.builds(HostileDict, st.dictionaries(hashable, inner, max_size=3)),
    ),
    max_leaves=12,
)


@given(wild)
@settings(max_examples=400)
def test_conversion_never_raises(value: Any) -> None:
    """Anything becomes something that the profile can write, and converting that again changes nothing."""
    plain, _ = converted(value)
    again, marks = converted(plain)
    assert again == plain
    assert marks == []


@given(st.dictionaries(hashable, wild, max_size=5))
def test_attributes_never_raise(attributes: Any) -> None:
    """Any mapping becomes attributes that the fast encoder takes, as many as there were."""
    plain = Conversion([]).attributes(attributes)
    assert len(plain) == len(attributes)
    encode_parts("a.b", 1, 1, None, plain, "", "")
