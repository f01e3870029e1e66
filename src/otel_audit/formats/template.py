"""A user's own JSON shape: a structure with ``{{placeholders}}``, filled from a record.

A string that is one placeholder becomes the value itself, with its type; what the record does not have becomes
``null``.  A placeholder inside of other text becomes text, nothing where the record does not have it::

    {"who": "{{audit.actor.id}}", "when": "{{timestamp_ms}}", "text": "{{audit.action}} by {{audit.actor.id}}"}

A placeholder names, in this order: a member of the plain line (see ``jsonl``); ``timestamp_ns``, ``timestamp_ms`` or
``timestamp_s`` (numbers since 1970); ``resource.<name>``; ``attributes.<name>``; an attribute.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from ..errors import ConfigurationError
from .jsonl import MEMBERS, parse_rfc3339

Facts: TypeAlias = Mapping[str, Any]
"""The members of a plain line, as ``jsonl.as_plain`` gives them."""

Fill: TypeAlias = Callable[[Facts], Any]
"""From the facts of a record to something that can be written as JSON."""

_PLACEHOLDER: Final = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_NUMBERS: Final[Mapping[str, Callable[[int], Any]]] = {
    "timestamp_ns": lambda ns: ns,
    "timestamp_ms": lambda ns: ns // 1_000_000,
    "timestamp_s": lambda ns: ns / 1_000_000_000,
}


def compile_template(template: Any, where: str) -> Fill:
    """The function that fills a template.

    Args:
        template: mappings, lists, strings, numbers, booleans and ``None``.
        where: what error messages call it.

    Raises:
        ConfigurationError: something in it is not JSON, or a placeholder is not closed or empty; says where.
    """
    if isinstance(template, str):
        return _string(template, where)
    if isinstance(template, Mapping):
        members: dict[str, Fill] = {}
        for key, value in template.items():
            if not isinstance(key, str) or "{{" in key:
                raise ConfigurationError(f"{where}: a key must be a string without placeholders (got {key!r})")
            members[key] = compile_template(value, f"{where}.{key}")
        return lambda facts: {key: member(facts) for key, member in members.items()}
    if isinstance(template, (list, tuple)):
        items = [compile_template(value, f"{where}[{index}]") for index, value in enumerate(template)]
        return lambda facts: [item(facts) for item in items]
    if template is None or isinstance(template, (bool, int, float)):
        return lambda _: template
    raise ConfigurationError(f"{where}: must be something that JSON can hold (got {type(template).__name__})")


def _string(text: str, where: str) -> Fill:
    """A literal, one placeholder, or a text with placeholders in it."""
    pieces = _PLACEHOLDER.split(text)
    literals, names = pieces[0::2], pieces[1::2]
    if any("{{" in literal or "}}" in literal for literal in literals) or "" in names:
        raise ConfigurationError(f"{where}: a placeholder is {{{{name}}}}, with a name, closed (got {text!r})")
    if not names:
        return lambda _: text
    fetch = [_fetch(name) for name in names]
    if literals == ["", ""]:
        return fetch[0]

    def fill(facts: Facts) -> str:
        filled = [_text(value(facts)) for value in fetch]
        return "".join(piece for pair in zip(literals, [*filled, ""], strict=True) for piece in pair)

    return fill


def _fetch(name: str) -> Fill:
    if name in MEMBERS:
        return lambda facts: facts[name]
    if name in _NUMBERS:
        number = _NUMBERS[name]
        return lambda facts: number(parse_rfc3339(facts["timestamp"])) if facts["timestamp"] else None
    group, dot, rest = name.partition(".")
    if dot and group in ("resource", "attributes"):
        return lambda facts: facts[group].get(rest)
    return lambda facts: facts["attributes"].get(name)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
