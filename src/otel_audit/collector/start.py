"""Configurations to start from: those of ``collector-config/``, without what only their repository needs.

They are tested with a real Collector; what is written differs from them in comments only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from .shipped import shipped

_MARK: Final = re.compile(r"^ *# (<<< parts/.*|>>>)\n", re.MULTILINE)
_ABOUT_MARKS: Final = re.compile(r"[ \n#]*What\s[\s#]*stands\s[\s#]*between.*?assemble\.py\.", re.DOTALL)
_VARIABLE: Final = re.compile(r"\$\{env:(\w+)(?::-([^${}]*))?\}")


class Kind(str, Enum):
    """What a Collector is for."""

    AGENT = "agent"
    GATEWAY = "gateway"
    SCALE_OUT = "scale-out"


_BESIDES: Final[dict[Kind, tuple[str, ...]]] = {Kind.SCALE_OUT: ("sql",)}
"""Folders that a kind needs too."""


@dataclass(frozen=True, slots=True)
class Template:
    """A file to start from.

    Attributes:
        name: where it belongs, below the directory that is written to.
        text: what is in it.
        about: its first sentence.
    """

    name: str
    text: str
    about: str


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable that configurations take.

    Attributes:
        default: ``None`` where it has to be set.
        files: which of them take it.
    """

    name: str
    default: str | None
    files: tuple[str, ...]


def templates(kind: Kind) -> list[Template]:
    """The files of a kind, those of Collectors first.

    Raises:
        ConfigurationError: the installation is not whole.
    """
    folder = shipped(f"collector-config/{kind.value}")
    made = [_template(path.name, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))]
    for name in _BESIDES.get(kind, ()):
        besides = shipped(f"collector-config/{name}")
        made += [
            _template(f"{name}/{path.name}", path.read_text(encoding="utf-8")) for path in sorted(besides.glob("*.sql"))
        ]
    return made


def _template(name: str, text: str) -> Template:
    text = _ABOUT_MARKS.sub("", _MARK.sub("", text))
    lines = text.lstrip("\n").splitlines()
    comment = []
    for line in lines:
        if not re.match(r"(#|--)", line) or not line.strip("#- "):
            break
        comment.append(line.lstrip("#- "))
    about = re.split(r"(?<=\.)\s", " ".join(comment))[0].rstrip(".:")
    return Template(name, text, about)


def variables(texts: Mapping[str, str]) -> list[Variable]:
    """The environment variables in these files, by name, those that have to be set first."""
    found: dict[str, Variable] = {}
    for file, text in texts.items():
        for match in _VARIABLE.finditer(re.sub(r"(^|\s)#.*", "", text)):
            before = found.get(match[1], Variable(match[1], match[2], ()))
            if file not in before.files:
                found[match[1]] = replace(before, files=(*before.files, file))
    return sorted(found.values(), key=lambda each: each.default is not None)
