"""The fast way to the canonical form: a function for each shape of record, written when the shape comes again.

A shape is the sequence of a record's attribute names and the types of its values.  Its function is one formatted
string with the values in their places: half the time of a template that is filled, a quarter of the plain way
(``canonical.py``).  Names enter its source as literals only, values never.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Container, Mapping, Sequence
from json.encoder import encode_basestring as _quoted
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from . import semconv as sc
from .canonical import OutsideProfile, in_order, number, plain_members, plain_parts, reason, tagged_text

SHAPES_MAX: Final = 1024
"""How many shapes of record are remembered; when it is reached, all are forgotten."""

_SHAPE_KEYS_MAX: Final = 64
_SHAPE_KEY_LENGTH_MAX: Final = 4096

Writer: TypeAlias = Callable[..., tuple[bytes, bytes]]
"""From the values of the attributes in canonical order, body, event name, observed time, time, span and trace id
(lower-case hex, or empty) to head and tail."""

_Order: TypeAlias = tuple[Callable[[Mapping[str, Any]], tuple[Any, ...]], list[str], dict[tuple[type, ...], Any]]
"""For one sequence of keys: what fetches the values in canonical order, that order, and writers by types; ``None``
for types that came once, or that have none."""

_orders: Final[dict[tuple[str, ...], _Order]] = {}
_remembered: Final = itertools.count(1)
_to_json: Final = msgspec.json.Encoder().encode


def encode_parts(
    event_name: str,
    timestamp_ns: int,
    observed_ns: int,
    body: Any,
    attributes: Mapping[str, Any],
    trace_id: str,
    span_id: str,
) -> tuple[bytes, bytes]:
    """Head and tail of the canonical form; ``canonical.sequence_fragment`` goes between them.

    Arguments are as for ``canonical.canonicalize``, but attributes under ``audit.sequence.`` and ``audit.integrity.``
    are refused; times must be from 0 to below 2^63, and ids empty or right (``rules.check_trace``), which is not
    checked.

    Raises:
        OutsideProfile: a part cannot be written, has a reserved name, is nested deeper than ``NESTING_MAX`` or has
            more than ``ELEMENTS_MAX`` elements.
    """
    try:
        keys = tuple(attributes)
        order = _orders.get(keys) or _new_order(keys)
        if order is not None and event_name and timestamp_ns and observed_ns and (not trace_id) is (not span_id):
            fetch, _, writers = order
            fetched = fetch(attributes)
            members = (timestamp_ns, observed_ns, event_name, trace_id, span_id, body)
            types = (*map(type, members), *map(type, fetched))
            write = writers.get(types)
            if write is None:
                write = _learn(keys, order, types)
            if write is not None:
                parts: tuple[bytes, bytes] = write(
                    *fetched, body, event_name, observed_ns, timestamp_ns, span_id, trace_id
                )
                return parts
        # Too large to remember, seen for the first time, or without a member that nearly every record has.
        rest = plain_members(event_name, timestamp_ns, observed_ns, trace_id, span_id)
        return plain_parts(body, attributes, rest)
    except OutsideProfile:
        raise
    except Exception as error:  # keys may be foreign objects, and containers change while they are read
        raise OutsideProfile(reason(error)) from error


def _new_order(keys: tuple[str, ...]) -> _Order | None:
    """What is remembered of these keys; ``None`` where they are too many or too long."""
    if len(keys) > _SHAPE_KEYS_MAX or sum(map(len, keys)) > _SHAPE_KEY_LENGTH_MAX:
        return None
    names = in_order(dict.fromkeys(keys))
    if len(names) > 1:
        return itemgetter(*names), names, {}
    return (lambda attributes: tuple([attributes[name] for name in names])), names, {}


def _learn(keys: tuple[str, ...], order: _Order, types: tuple[type, ...]) -> Writer | None:
    """Remember a shape; its writer from the second time on, because writing one costs as much as fifty records."""
    fetch, names, writers = order
    write: Writer | None = None
    if types in writers:
        right = types[:5] == (int, int, str, str, str)
        write = new_writer(names, types[6:], types[5]) if right else None
    elif next(_remembered) % SHAPES_MAX == 0:  # no lock here: each step is whole in itself
        _orders.clear()
    _orders.setdefault(keys, (fetch, names, {}))[2][types] = write
    return write


# -- writing a writer -----------------------------------------------------------------------------------------------

_TAGS: Final[dict[type, tuple[str, str, str]]] = {
    str: ('{"stringValue":"', "{%s}", '"}'),
    int: ('{"intValue":"', "{%s}", '"}'),
    bool: ('{"boolValue":', "{'true' if %s else 'false'}", "}"),
    float: ('{"doubleValue":', "{number(%s)}", "}"),
    type(None): ("null", "", ""),
}
_OTHER: Final = ("", "{tagged_text(%s)}", "")
_CONTAINERS: Final = (bytes, list, tuple, dict)
_MEMBERS: Final = ("body", "event", "observed", "timestamp", "span", "trace")
"""The last parameters of every function, in their order."""


class Source(NamedTuple):
    """Where a writer's values come from, if not from its parameters.

    Attributes:
        parameters: names of the function's first parameters.
        lines: source of the function's first lines, indented by one space; they may return ``None``.
        values: for each attribute the variable (or, where it is ``plain``, the expression) that has its value then.
        space: names that the lines use.
        fixed: attributes that have the same value in every record, which takes the place of the variable.
        event: the event name, where it is the same in every record and there is no body; neither is a parameter then.
    """

    parameters: Sequence[str]
    lines: Sequence[str]
    values: Sequence[str]
    space: Mapping[str, Any]
    fixed: Mapping[str, Any] = MappingProxyType({})
    event: str | None = None


def new_writer(
    names: Sequence[str],
    kinds: Sequence[type],
    body: type,
    *,
    plain: Container[str] = (),
    source: Source | None = None,
) -> Writer | None:
    """The function for a shape; ``None`` where a name is reserved or a type is none of the profile's.

    Args:
        names: of the attributes, in canonical order.
        kinds: exact types of their values, in the same order; the function does not look at them again.
        body: exact type of the body; ``NoneType`` for none.
        plain: names of attributes whose values are known to need no escape; ``event_name`` there says the same of
            event name, span and trace id.
        source: where the values come from; ``None``: they are the function's first parameters.
    """
    allowed = {*_TAGS, *_CONTAINERS}
    if not {*kinds, body} <= allowed or any(name.startswith(sc.RESERVED_PREFIXES) for name in names):
        return None
    if source is None:
        variables = [f"v{place}" for place in range(len(names))]
        source = Source(variables, (), variables, {})
    head, tail = _parts(names, kinds, source, body)
    typed = [each for each in zip(names, source.values, kinds, strict=True) if each[0] not in source.fixed]
    ids = ("span", "trace")
    members = ids if source.event is not None else ("event", *ids)
    typed += [("", "body", body), *(("event_name", member, str) for member in members)]
    strings = [variable for name, variable, kind in typed if kind is str and name not in plain]
    integers = [variable for _, variable, kind in typed if kind is int]
    parameters = ", ".join([*source.parameters, *_MEMBERS[0 if source.event is None else 2 :]])
    lines = [f"def write({parameters}):", *source.lines]
    if integers:
        fits = " and ".join(f"{-(2**63)} <= {variable} < {2**63}" for variable in integers)
        lines.append(f" if not ({fits}): raise OutsideProfile('an integer beyond 64 bits')")
    if strings:
        # One look at all strings together: none needs an escape where JSON is as long as the text, in UTF-8.
        together = "".join("{" + variable + "}" for variable in strings)
        lines += [f" text = f'{together}'", " length = len(to_json(text)) - 2"]
        lines.append(" if length != len(text) and length != len(text.encode()):")
        lines += [f"  {variable} = quoted({variable})[1:-1]" for variable in strings]
    lines.append(""" if trace: span, trace = f',"span_id":"{span}"', f',"trace_id":"{trace}"'""")
    lines.append(f" return {head}.encode(), {tail}.encode()")
    space = {**_SPACE, **source.space}
    exec("\n".join(lines), space)  # noqa: S102 - no value enters the source, and names only as literals
    write: Writer = space["write"]
    return write


def _parts(names: Sequence[str], kinds: Sequence[type], source: Source, body: type) -> tuple[str, str]:
    """Source of the expressions for head and tail.

    Raises:
        OutsideProfile: a fixed value cannot be written.
    """
    head, tail = _Text('{"attributes":{'), _Text("")
    part = head
    for name, kind, value in zip(names, kinds, source.values, strict=True):
        if part is head and name > sc.SEQUENCE_PREFIX:
            part = tail
        member = f"{_quoted(name)}:" if part is head else f",{_quoted(name)}:"
        if name in source.fixed:
            part.literal(member + tagged_text(source.fixed[name]))
        else:
            part.add(member, kind, value)
        if part is head:
            part.literal(",")
    tail.literal("}")
    if body is not type(None):
        tail.add(',"body":', body, "body")
    tail.literal(',"event_name":"')
    if source.event is None:
        tail.value("{event}")
    else:
        tail.literal(_quoted(source.event)[1:-1])
    tail.literal('","observed_timestamp":"').value("{observed}").literal('"')
    tail.value("{span}").literal(',"timestamp":"').value("{timestamp}").literal('"').value("{trace}").literal("}")
    return head.source(), tail.source()


_SPACE: Final[dict[str, Any]] = {
    "OutsideProfile": OutsideProfile, "len": len, "number": number, "quoted": _quoted, "tagged_text": tagged_text,
    "to_json": _to_json, "__builtins__": {},
}  # fmt: skip


class _Text:
    """Source of a formatted string."""

    def __init__(self, literal: str) -> None:
        self._parts: list[str] = []
        self.literal(literal)

    def literal(self, text: str) -> _Text:
        """Text as it stands."""
        self._parts.append("f" + repr(text.replace("{", "{{").replace("}", "}}")))
        return self

    def value(self, expression: str) -> _Text:
        """A replacement field."""
        self._parts.append(f'f"{expression}"')
        return self

    def add(self, before: str, kind: type, variable: str) -> None:
        """A tagged value behind a text."""
        opening, value, closing = _TAGS.get(kind, _OTHER)
        self.literal(before + opening)
        if value:
            self.value(value % variable)
        self.literal(closing)

    def source(self) -> str:
        """The expression."""
        return f"({' '.join(self._parts)})"
