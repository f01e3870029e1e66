"""The quick way from loose names to attributes: what depends on the names alone is worked out once per shape.

A shape is the tuple of a record's names.  For each there is a plan; the values are then only picked and looked at.
Where a value is not plainly what its rule wants, :meth:`Shapes.read` says so by ``None`` and the record is read the
careful way (``fields.py``), with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter
from typing import Any, Final

from .. import semconv as sc
from ..context import with_context
from ..rules import ID_LENGTH_MAX, is_action, is_event_name, name_facts
from .fields import BODY, EVENT_NAME, FIELDS, address_type

SHAPES_MAX: Final = 1024
"""How many shapes are remembered.  At one more all are forgotten: 20,000 shapes must not fill the memory."""

_NAMES_MAX: Final = 4096

_OURS: Final = ("audit.", sc.OWN_PREFIX, "exception.", "code.", "thread.", "process.")
"""Free names that begin like this may be ones that a capture writes itself: read with care."""


class _Plan:
    """What is known of all records of one shape.

    Attributes:
        careful: whether the records of this shape have to be read the careful way; then nothing else counts.
        pick: the values of a mapping of this shape, in the order of ``names``.
        names: names of the attributes.
        texts: those of them that must be strings, neither empty nor long.
        event_name, action, outcome, source: whether it is given.
        constant: attributes that follow from the names alone.
    """

    __slots__ = ("action", "careful", "constant", "event_name", "names", "outcome", "pick", "source", "texts")

    careful: bool
    pick: Callable[[Mapping[str, Any]], tuple[Any, ...]]
    names: tuple[str, ...]
    texts: tuple[str, ...]
    event_name: bool
    action: bool
    outcome: bool
    source: bool
    constant: dict[str, Any]

    def __init__(self, keys: tuple[Any, ...]) -> None:
        self.careful = True
        self.constant = {}
        if not all(type(key) is str for key in keys):
            return
        fields = [FIELDS.get(key) for key in keys]
        names = [key if field is None else field.attribute for key, field in zip(keys, fields, strict=True)]
        free = [key for key, field in zip(keys, fields, strict=True) if field is None]
        if len(set(names)) < len(names) or BODY in names or any(name.startswith(_OURS) for name in free):
            return
        odd = {sc.SEVERITY_TEXT, sc.ACTOR_TYPE, sc.SOURCE_TYPE}
        if not odd.isdisjoint(names):
            return
        self.careful = False
        self.names = tuple(names)
        self.pick = _picker(keys)
        self.event_name = EVENT_NAME in names
        self.action = sc.ACTION in names
        self.outcome = sc.OUTCOME in names
        self.source = sc.SOURCE_ID in names
        quick = [field.attribute for field in fields if field is not None and field.quick]
        self.texts = (*quick, sc.SOURCE_ID) if self.source else tuple(quick)
        if sc.ACTOR_ID in names:
            self.constant = {sc.ACTOR_TYPE: "user"}


def _picker(keys: tuple[str, ...]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    if len(keys) > 1:
        return itemgetter(*keys)
    if keys:
        only = keys[0]
        return lambda given: (given[only],)
    return lambda given: ()


class Shapes:
    """The shapes that one capture has seen.

    Args:
        apart: names that are none of the record's attributes: the capture itself reads them.
        careful: names whose presence makes a record one to be read the careful way.
    """

    def __init__(self, apart: Iterable[str], careful: Iterable[str] = ()) -> None:
        self._apart = frozenset(apart)
        self._careful = frozenset(careful)
        self._plans: dict[tuple[Any, ...], _Plan] = {}
        self._events: dict[str, tuple[str, str]] = {}
        self._actions: set[str] = set()

    def __len__(self) -> int:
        return len(self._plans)

    def read(
        self, given: Mapping[str, Any], message: str, default_event_name: str, facts: Mapping[str, Any]
    ) -> tuple[str, Any, dict[str, Any]] | None:
        """Event name, body and attributes; ``None`` where the record wants care.

        Args:
            given: names and values, those set apart among them.
            message: a string without ``%`` arguments.
            default_event_name: where the message is none and no other is given.
            facts: the context.
        """
        key = tuple(given)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._learn(key)
        if plan.careful:
            return None
        attributes = dict(zip(plan.names, plan.pick(given)))  # noqa: B905 - as long as each other by construction
        for name in plan.texts:
            value = attributes[name]
            if value.__class__ is not str or not 0 < len(value) <= ID_LENGTH_MAX:
                return None
        if plan.constant:
            attributes.update(plan.constant)
        body: Any = None
        event = message
        if plan.event_name:
            event = attributes.pop(EVENT_NAME)
            if event.__class__ is not str:
                return None
            if event != message:
                body = message
        known = self._events.get(event) or self._name(event)
        if known is None:
            if plan.event_name:
                return None
            event = default_event_name
            body = message
            known = name_facts(event)
        if plan.source:
            attributes[sc.SOURCE_TYPE] = address_type(attributes[sc.SOURCE_ID])
        if facts:
            attributes = with_context(attributes, facts)
        return (event, body, attributes) if self._complete(plan, known, attributes) else None

    def _complete(self, plan: _Plan, known: tuple[str, str], attributes: dict[str, Any]) -> bool:
        """Whether all that is mandatory is there and in its vocabulary; adds what the event name says."""
        action, outcome = known
        if plan.action:
            given = attributes[sc.ACTION]
            if given.__class__ is not str or (given not in self._actions and not self._is_action(given)):
                return False
        elif action:
            attributes.setdefault(sc.ACTION, action)
        elif sc.ACTION not in attributes:
            return False
        if plan.outcome:
            given = attributes[sc.OUTCOME]
            if given.__class__ is not str or given not in sc.OUTCOMES:
                return False
        elif outcome:
            attributes.setdefault(sc.OUTCOME, outcome)
        elif sc.OUTCOME not in attributes:
            return False
        return sc.ACTOR_ID in attributes

    def _learn(self, key: tuple[Any, ...]) -> _Plan:
        plan = _Plan(tuple(name for name in key if name not in self._apart))
        plan.careful = plan.careful or not self._careful.isdisjoint(key)
        if len(self._plans) >= SHAPES_MAX:
            self._plans.clear()
        self._plans[key] = plan
        return plan

    def _name(self, event: str) -> tuple[str, str] | None:
        """What a new event name says; ``None`` where it is none."""
        if not is_event_name(event):
            return None
        if len(self._events) >= _NAMES_MAX:
            self._events.clear()
        known = self._events[event] = name_facts(event)
        return known

    def _is_action(self, given: str) -> bool:
        if not is_action(given):
            return False
        if len(self._actions) >= _NAMES_MAX:
            self._actions.clear()
        self._actions.add(given)
        return True
