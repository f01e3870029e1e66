"""A configuration as a tree of values that know where they were written, and a way to ask it without looking first.

A value that cannot be known here (a variable that is not set, a file that is not there, a type that the Collector
would refuse) is :data:`UNKNOWN`, and no rule holds it against anybody.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias, Union


class Unknown:
    """The type of :data:`UNKNOWN`."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown()
"""What only the running Collector can know."""


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, counted from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


Scalar: TypeAlias = str | int | float | bool | None
Value: TypeAlias = Union[Scalar, Unknown, "dict[str, Node]", "list[Node]"]


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands: the line of its key in a mapping, its own in a list."""

    value: Value
    place: Place


@dataclass(frozen=True, slots=True)
class View:
    """A path in a configuration, whether there is something or not.

    Attributes:
        node: what stands there; ``None`` where nothing does.
        path: the keys that lead there.
        place: its line, else that of the nearest thing above it that is there.
    """

    node: Node | None
    path: tuple[str, ...]
    place: Place

    def at(self, *keys: str) -> View:
        """What stands further down."""
        view = self
        for key in keys:
            view = view._below(key)
        return view

    def _below(self, key: str) -> View:
        value = self.value
        found: Node | None = None
        if isinstance(value, dict):
            found = value.get(key)
        elif value is UNKNOWN:
            found = Node(UNKNOWN, self.place)
        return View(found, (*self.path, key), found.place if found else self.place)

    @property
    def name(self) -> str:
        """The path as messages show it."""
        return ".".join(self.path)

    @property
    def value(self) -> Value:
        """What stands here; ``None`` where nothing does."""
        return self.node.value if self.node else None

    @property
    def given(self) -> bool:
        """Whether something stands here; a key without a value counts."""
        return self.node is not None

    def children(self) -> dict[str, View]:
        """What a mapping holds; empty where it is none."""
        value = self.value
        return {key: self.at(key) for key in value} if isinstance(value, dict) else {}

    def items(self) -> list[View]:
        """What a list holds; a single value counts as a list of one, as it does for the Collector."""
        value = self.value
        if isinstance(value, list):
            return [View(node, (*self.path, str(index)), node.place) for index, node in enumerate(value)]
        return [] if value is None or isinstance(value, (dict, Unknown)) else [self]

    def mappings(self) -> list[View]:
        """The mappings in a list."""
        return [item for item in self.items() if isinstance(item.value, dict)]

    def texts(self) -> list[str]:
        """The strings of a list."""
        return [item.value for item in self.items() if isinstance(item.value, str)]

    def text(self, default: str = "") -> str | Unknown:
        """A string; the default where nothing stands here."""
        value = self.value
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, (str, int, float)):
            return UNKNOWN
        return str(value)

    def boolean(self, default: bool) -> bool | Unknown:
        """A truth value, also one that is written as text."""
        value = self.value
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        return UNKNOWN

    def number(self, default: float) -> float | Unknown:
        """A number, also one that is written as text."""
        value = self.value
        if value is None:
            return default
        if isinstance(value, bool):
            return UNKNOWN
        if isinstance(value, (int, float)):
            return value
        if isinstance(value, str) and re.fullmatch(r"[+-]?\d{1,18}(\.\d*)?", value.strip()):
            return float(value)
        return UNKNOWN

    def duration_s(self, default: float) -> float | Unknown:
        """A duration as Go writes it (``1h5m``, ``300ms``, ``0``), in seconds; a bare number is nanoseconds."""
        value = self.value
        if value is None:
            return default
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return value / 1e9
        if not isinstance(value, str):
            return UNKNOWN
        text = value.strip().lstrip("+")
        if re.fullmatch(r"[0.]+", text):
            return 0.0
        parts = _DURATION.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            return UNKNOWN
        return sum(float(number) * _SECONDS[unit] for number, unit in parts)

    def walk(self) -> Iterator[View]:
        """Itself and everything below it."""
        yield self
        for below in (*self.children().values(), *(self.items() if isinstance(self.value, list) else ())):
            yield from below.walk()


_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
