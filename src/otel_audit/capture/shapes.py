"""The quick way from loose names to attributes: what depends on the names alone is worked out once per shape.

A shape is the tuple of a record's names.  A shape that comes a second time gets a function of its own, written for its
names as :func:`collections.namedtuple` writes one for its fields: that takes half the time of a loop over them (0.6
instead of 1.1 µs for eight names).  Names enter its source by ``repr`` only.

The function looks whether every value is plainly what its rule wants.  Where one is not, :meth:`Shapes.read` says so by
``None`` and the record is read the careful way (``fields.py``), which gives the same result for all that both can read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from .. import semconv as sc
from ..context import with_context
from ..lanes import BUILTINS, EVENT_NAME, items_of, look
from ..record import new_record_id
from ..rules import is_action, is_event_name, is_like_name, name_facts
from .fields import BODY, FIELDS, address_type

SHAPES_MAX: Final = 1024
"""How many shapes are remembered.  At one more all are forgotten: 20,000 shapes must not fill the memory."""

SHAPE_LENGTH_MAX: Final = 4096
"""The names of a shape that is remembered, together, in characters: they may come from anywhere."""

_NAMES_MAX: Final = 4096

_OURS: Final = tuple(
    name.partition(".")[0] + "."
    for name in (sc.ACTION, sc.OWN_PREFIX, sc.EXCEPTION_TYPE, sc.CODE_FILE_PATH, sc.THREAD_ID, sc.PROCESS_PID)
)
"""Free names that begin like this may be ones that a capture writes itself: read with care."""

_ODD: Final = frozenset({BODY, sc.SEVERITY_TEXT, sc.ACTOR_TYPE, sc.SOURCE_TYPE})
"""What is given too seldom to be read quickly."""

_Pick = Callable[..., dict[str, Any] | None]
_Keys = tuple[Any, ...]


class _Plan:
    """How the records of one shape are read.

    Attributes:
        pick: from the mapping, action, outcome, record id and the values of the capture's own attributes to all
            attributes (what is given twice is taken from the mapping); ``None`` where a value wants care.
        event_name, actor, action, outcome, record_id, source: whether it is given.
        names: name in the mapping → name of the attribute.
    """

    __slots__ = ("action", "actor", "event_name", "names", "outcome", "pick", "record_id", "source")

    def __init__(self, names: Mapping[str, str], pick: _Pick) -> None:
        attributes = names.values()
        self.names = names
        self.pick = pick
        self.event_name = EVENT_NAME in attributes
        self.actor = sc.ACTOR_ID in attributes
        self.action = sc.ACTION in attributes
        self.outcome = sc.OUTCOME in attributes
        self.record_id = sc.RECORD_ID in attributes
        self.source = sc.SOURCE_ID in attributes


Quick = tuple[str, Any, dict[str, Any], bool]
"""Event name, body, attributes, and whether the record's id is the caller's."""


class Shapes:
    """The shapes that one capture has seen.

    Args:
        apart: names that are none of the record's attributes: the capture itself reads them.
        own: names of the attributes that the capture adds.
        careful: names whose presence makes a record one to be read the careful way.
    """

    def __init__(self, apart: Iterable[str], own: Iterable[str], careful: Iterable[str] = ()) -> None:
        self._apart = frozenset(apart)
        self._own = tuple(own)
        self._careful = frozenset(careful)
        self._plans: dict[_Keys, _Plan | None] = {}
        self._once: set[_Keys] = set()
        self._events: dict[str, tuple[str, str]] = {}
        self._actions: set[str] = set()

    def __len__(self) -> int:
        return len(self._plans) + len(self._once)

    def read(
        self, given: Mapping[str, Any], message: str, own: Iterable[Any], default: str, facts: Mapping[str, Any]
    ) -> Quick | None:
        """The record; ``None`` where it wants care.

        Args:
            given: names and values, those set apart among them.
            message: a string without ``%`` arguments.
            own: values of the attributes that the capture adds.
            default: the event name where the message is none and no other is given.
            facts: the context.
        """
        keys = tuple(given)
        plan = self._plans.get(keys) or self._learn(keys)
        if plan is None:
            return None
        body: Any = None
        event = message
        if plan.event_name:
            event = given[EVENT_NAME]
            if type(event) is not str:
                return None
            if event != message:
                body = message
        known = self._events.get(event) or self._name(event)
        if known is None:
            if plan.event_name or is_like_name(event):
                return None
            event, body, known = default, message, name_facts(default)
        action, outcome = known
        if not (action or plan.action) or not (outcome or plan.outcome):
            return None
        record_id = None if plan.record_id else new_record_id()
        attributes = plan.pick(given, action, outcome, record_id, *own)
        if attributes is None or (plan.action and not self._is_action(attributes[sc.ACTION])):
            return None
        if plan.source:
            attributes[sc.SOURCE_TYPE] = address_type(attributes[sc.SOURCE_ID])
        if facts:
            if sc.ACTION in facts or sc.OUTCOME in facts or not (plan.actor or sc.ACTOR_ID in facts):
                return None
            attributes = with_context(attributes, facts)
        elif not plan.actor:
            return None
        return event, body, attributes, plan.record_id

    def straight(self, keys: _Keys, message: str) -> tuple[Mapping[str, str], str, str] | None:
        """What a lane is made from (``capture/lanes.py``): names, action and outcome; ``None`` where there can be none.

        The names are those of the mapping, each with the name of its attribute; action and outcome are what the message
        says, which has to be an event name; the second may be empty where the mapping has one.
        """
        plan = self._plans.get(keys)
        known = self._events.get(message)
        if plan is None or known is None or plan.event_name or plan.action or plan.record_id or not plan.actor:
            return None
        action, outcome = known
        return (plan.names, action, outcome) if action and (outcome or plan.outcome) else None

    def _learn(self, keys: _Keys) -> _Plan | None:
        """The plan of a shape; ``None`` at its first time, and where it always wants care or is too long to keep."""
        if keys in self._plans or not _is_short(keys):
            return None
        if keys not in self._once:
            if len(self._once) >= SHAPES_MAX:
                self._once.clear()
            self._once.add(keys)
            return None
        self._once.discard(keys)
        if len(self._plans) >= SHAPES_MAX:
            self._plans.clear()
        plan = self._plans[keys] = self._plan(keys) if self._careful.isdisjoint(keys) else None
        return plan

    def _plan(self, keys: _Keys) -> _Plan | None:
        """The plan of a shape; ``None`` where its records always want care."""
        names: dict[str, str] = {}
        for name in keys:
            if name in self._apart:
                continue
            if type(name) is not str or (name not in FIELDS and name.startswith(_OURS)):
                return None
            names[name] = FIELDS[name].attribute if name in FIELDS else name
        if len(set(names.values())) < len(names) or not _ODD.isdisjoint(names.values()):
            return None
        return _Plan(names, _write_pick(names, self._own))

    def _name(self, event: str) -> tuple[str, str] | None:
        """What a new event name says; ``None`` where it is none."""
        if not is_event_name(event):
            return None
        if len(self._events) >= _NAMES_MAX:
            self._events.clear()
        known = self._events[event] = name_facts(event)
        return known

    def _is_action(self, given: str) -> bool:
        if given in self._actions:
            return True
        if not is_action(given):
            return False
        if len(self._actions) >= _NAMES_MAX:
            self._actions.clear()
        self._actions.add(given)
        return True


def _is_short(keys: _Keys) -> bool:
    """Whether a shape has only names, and they are short enough to be remembered."""
    return all(type(name) is str for name in keys) and sum(map(len, keys)) <= SHAPE_LENGTH_MAX


def _write_pick(names: Mapping[str, str], own: Sequence[str]) -> _Pick:
    """The function for a shape: one look at each value, and one dictionary that is made in its final size.

    Args:
        names: name in the mapping → name of the attribute.
        own: names of the attributes that the capture adds.
    """
    parameters = [f"own{number}" for number in range(len(own))]
    items = items_of(names, own, parameters)
    lines = [f"def pick({', '.join(['given', 'action', 'outcome', 'record_id', *parameters])}):"]
    lines += look(names, {})
    lines.append(f" return {{{', '.join(f'{attribute!r}: {value}' for attribute, value in items.items())}}}")
    pick: _Pick = _compiled(lines, "pick")
    return pick


def _compiled(lines: Sequence[str], name: str) -> Any:
    space: dict[str, Any] = {**BUILTINS, "__builtins__": {}}
    exec("\n".join(lines), space)  # noqa: S102 - no value enters the source, and names only as literals
    return space[name]
