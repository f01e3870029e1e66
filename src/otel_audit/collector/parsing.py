"""YAML as the Collector reads it, with the line of every value, and the comments, which YAML libraries drop.

Scalars follow YAML 1.2, as Go's library does for what the Collector unpacks: ``yes`` and ``on`` are words.  Everything
has a bound: a document that nests too deeply, or that grows too large through aliases, is refused.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError
from .node import Node, Place, Scalar

if TYPE_CHECKING:
    import yaml

SIZE_BYTES_MAX: Final = 4 * 1024 * 1024
"""The largest file that is read."""
_NODES_MAX: Final = 200_000
_DEPTH_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Comment:
    """A comment.

    Attributes:
        text: what follows the number sign.
        place: where it stands.
        alone: whether nothing else stands on its line.
    """

    text: str
    place: Place
    alone: bool


@dataclass(frozen=True, slots=True)
class Parsed:
    """A file: its values, its comments, and the lines on which something other than a comment stands."""

    root: Node
    comments: tuple[Comment, ...]
    filled_lines: tuple[int, ...]


def require_yaml() -> None:
    """Say what to install where PyYAML is missing.

    Raises:
        ConfigurationError: it is.
    """
    if find_spec("yaml") is None:
        raise ConfigurationError("reading Collector configurations needs PyYAML: pip install 'otel-audit[collector]'")


def parse(text: str, file: str) -> Parsed:
    """A document.

    Args:
        text: of the file.
        file: its name, for messages and places.

    Raises:
        ConfigurationError: it is no YAML, more than one document, or beyond a bound; names the line.
    """
    root = _compose(text, file)
    if root is None:
        raise ConfigurationError(f"{file}: there is nothing in it")
    scalars = _multiline(root)
    comments = tuple(_comments(text, file, scalars))
    alone = {comment.place.line for comment in comments if comment.alone}
    filled = (number for number, line in enumerate(text.split("\n"), 1) if line.strip() and number not in alone)
    return Parsed(_Builder(file).build(root), comments, tuple(filled))


def parse_value(text: str, place: Place) -> Node:
    """What a variable holds, as the Collector takes it: YAML where it is some, else the text.

    Every node is given the same place: that of the variable.
    """
    try:
        root = _compose(text, place.file)
    except ConfigurationError:
        return Node(text, place)
    if root is None:
        return Node(None, place)
    try:
        return _Builder(place.file, place).build(root)
    except ConfigurationError:
        return Node(text, place)


def _compose(text: str, file: str) -> yaml.Node | None:
    require_yaml()
    import yaml  # noqa: PLC0415 - an extra

    if len(text) > SIZE_BYTES_MAX:
        raise ConfigurationError(
            f"{file}: larger than {SIZE_BYTES_MAX // 1024**2} MiB; is it a Collector configuration?"
        )
    try:
        # libyaml where PyYAML was built with it: several times faster, and bounds the nesting itself.
        root: yaml.Node | None = yaml.compose(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigurationError(f"{file}{line}: not YAML: {error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file}: not YAML: {' '.join(str(error).split())}") from None
    except (RecursionError, ValueError) as error:
        raise ConfigurationError(f"{file}: not YAML that can be read: {type(error).__name__}") from None
    return root


class _Builder:
    """Turns the library's nodes into ours; counts them, because aliases multiply."""

    def __init__(self, file: str, place: Place | None = None) -> None:
        self._file = file
        self._place = place
        self._count = 0

    def build(self, node: yaml.Node, line: int | None = None, depth: int = 0) -> Node:
        import yaml  # noqa: PLC0415 - an extra

        place = self._place or Place(self._file, node.start_mark.line + 1 if line is None else line)
        self._count += 1
        if self._count > _NODES_MAX:
            raise ConfigurationError(f"{place}: more than {_NODES_MAX:,} values, aliases counted where they are used")
        if depth > _DEPTH_MAX:
            raise ConfigurationError(f"{place}: nested more than {_DEPTH_MAX} levels deep, or an alias of itself")
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, depth), place)
        if isinstance(node, yaml.SequenceNode):
            return Node([self.build(item, None, depth + 1) for item in node.value], place)
        assert isinstance(node, yaml.ScalarNode)  # noqa: S101 - there are three kinds
        return Node(_scalar(node), place)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        import yaml  # noqa: PLC0415 - an extra

        made: dict[str, Node] = {}
        merged: list[yaml.Node] = []
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigurationError(f"{self._file}:{line}: a key has to be a word")
            if key.value == "<<" and not key.style:
                merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
                continue
            if key.value in made:
                first = made[key.value].place.line
                raise ConfigurationError(f"{self._file}:{line}: {key.value!r} stands twice, first in line {first}")
            made[key.value] = self.build(value, line, depth + 1)
        for each in merged:
            below = self.build(each, None, depth + 1).value
            for name, found in below.items() if isinstance(below, dict) else ():
                made.setdefault(name, found)
        return made


_NULL: Final = ("", "~", "null", "Null", "NULL")
_TRUTH: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def _scalar(node: yaml.ScalarNode) -> Scalar:
    text: str = node.value
    if node.style:  # quoted, or a block
        return text
    if text in _NULL:
        return None
    if text in _TRUTH:
        return _TRUTH[text]
    if re.fullmatch(r"[+-]?\d{1,18}", text):
        return int(text)
    if re.fullmatch(r"[+-]?(\d+\.\d*|\.\d+|\d+)([eE][+-]?\d+)?", text):
        return float(text)
    return text


def _multiline(root: yaml.Node) -> list[tuple[int, int, int, int]]:
    """Where the scalars of a document begin and end: a number sign inside one begins no comment."""
    import yaml  # noqa: PLC0415 - an extra

    spans = []
    seen: set[int] = set()
    left = [root]
    while left:
        node = left.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            left += [each for pair in node.value for each in pair]
        elif isinstance(node, yaml.SequenceNode):
            left += node.value
        elif isinstance(node, yaml.ScalarNode) and node.style:
            start, end = node.start_mark, node.end_mark
            spans.append((start.line, start.column, end.line, end.column))
    return sorted(spans)


def _comments(text: str, file: str, spans: list[tuple[int, int, int, int]]) -> list[Comment]:
    starts = [span[:2] for span in spans]
    found = []
    for number, line in enumerate(text.split("\n")):
        for match in re.finditer(r"(?:^|(?<=\s))#", line) if "#" in line else ():
            before = bisect_right(starts, (number, match.start())) - 1
            if before >= 0 and (number, match.start()) < spans[before][2:]:
                continue
            alone = not line[: match.start()].strip()
            found.append(Comment(line[match.end() :].strip(), Place(file, number + 1), alone))
            break
    return found
