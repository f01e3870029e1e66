"""``${env:NAME:-default}``, ``${NAME}``, ``${file:PATH}``, ``${yaml:…}`` and ``$$``, as the Collector expands them.

A variable that is not set and has no default is unknown here, not empty: the linter runs elsewhere than the Collector.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from .node import UNKNOWN, Node, Place, Unknown
from .parsing import parse_value

_INNERMOST: Final = re.compile(r"\$\{([^${}]*)\}")
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)
_ROUNDS_MAX: Final = 100
_DEPTH_MAX: Final = 64
_LENGTH_MAX: Final = 1024 * 1024
_DOLLAR: Final = "\ue000"
"""Stands for an escaped dollar sign while others are looked for; from the private part of Unicode."""


@dataclass
class Expansion:
    """Expands the values of one configuration.

    Attributes:
        environ: the variables.
        read_file: the text of a file that ``${file:…}`` names; ``None`` where it cannot be had.
        unknown: what could not be known, once each, in the order in which it was met.
    """

    environ: Mapping[str, str]
    read_file: Callable[[str, Place], str | None]
    unknown: dict[str, Place] = field(default_factory=dict)

    def expand(self, node: Node, depth: int = 0) -> Node:
        """A tree with nothing left to expand."""
        if depth > _DEPTH_MAX:
            return Node(UNKNOWN, node.place)
        value = node.value
        if isinstance(value, dict):
            return Node({key: self.expand(below, depth + 1) for key, below in value.items()}, node.place)
        if isinstance(value, list):
            return Node([self.expand(below, depth + 1) for below in value], node.place)
        if isinstance(value, str) and "$" in value:
            return self._expand_text(value, node.place, depth)
        return node

    def _expand_text(self, text: str, place: Place, depth: int) -> Node:
        text = text.replace("$$", _DOLLAR)
        for _ in range(_ROUNDS_MAX):
            match = _INNERMOST.search(text)
            if match is None:
                return Node(UNKNOWN if "${" in text else text.replace(_DOLLAR, "$"), place)
            found = self._look_up(match[1], place)
            if isinstance(found, Unknown):
                self.unknown.setdefault(match[0].replace(_DOLLAR, "$$"), place)
                return Node(UNKNOWN, place)
            if match[0] == text:
                return self.expand(parse_value(found, place), depth + 1)
            text = text[: match.start()] + found + text[match.end() :]
            if len(text) > _LENGTH_MAX:
                break
        return Node(UNKNOWN, place)

    def _look_up(self, reference: str, place: Place) -> str | Unknown:
        match = _SCHEME.fullmatch(reference)
        scheme, rest = (match[1], match[2]) if match else ("env", reference)
        if scheme == "env":
            name, has_default, default = rest.partition(":-")
            found = self.environ.get(name)
            if found is not None:
                return found
            return default if has_default else UNKNOWN
        if scheme == "yaml":
            return rest
        if scheme == "file":
            return self.read_file(rest, place) or UNKNOWN
        return UNKNOWN
