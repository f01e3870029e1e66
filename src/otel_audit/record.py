"""What an audit record is: its parts, its rules, and the one place that says whether it is right.

A record is kept as OpenTelemetry has it: an event name, two times, a body and one flat mapping of attributes,
the ``audit.*`` ones among them.  ``Actor``, ``Target`` and ``Source`` are how people write three of its groups of
attributes; ``AuditRecord.actor`` and the like give them back.

Source: the Audit Logging draft's data model (see ``semconv.REVISION``).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from . import semconv as sc
from .errors import InvalidRecordError
from .forks import PROCESS, in_child, notice_fork
from .rules import (
    ID_LENGTH_MAX,
    MISSING,
    Outcome,
    check_action,
    check_actor_type,
    check_event_name,
    check_id,
    check_trace,
    name_facts,
    outcome_attributes,
    severity_of,
    source_type,
    timestamp_to_ns,
)


@dataclass(frozen=True)
class Actor:
    """Who did it.

    Args:
        id: stable identifier; ``"unknown"`` or ``"anonymous"`` where it is not known.
        type: ``"user"``, ``"service"`` or ``"system"``.  An agent that acts for a user stays ``"user"``.

    Raises:
        InvalidRecordError: the id is not a string or empty, or the type is outside the vocabulary.
    """

    id: str
    type: str = "user"

    def __post_init__(self) -> None:
        check_id("actor.id", self.id)
        check_actor_type("actor.type", self.type)


@dataclass(frozen=True)
class Target:
    """What it was done to.

    Args:
        id: identifier of the object.  A bare ``"document:7"`` is the id, whole; it is not split at the colon.
        type: kind of object, for instance ``"role"``.
        name: what people call it.

    Raises:
        InvalidRecordError: a part is not a string, or empty.
    """

    id: str
    type: str | None = None
    name: str | None = None

    def __post_init__(self) -> None:
        check_id("target.id", self.id)
        for field, value in (("target.type", self.type), ("target.name", self.name)):
            if value is not None:
                check_id(field, value)


@dataclass(frozen=True)
class Source:
    """Where it came from.

    Args:
        id: address or name of the machine.
        type: ``"ipv4"``, ``"ipv6"`` or ``"hostname"``; found from the id where it is not given.

    Raises:
        InvalidRecordError: the id is not a string or empty, or the type is outside the vocabulary.
    """

    id: str
    type: str | None = None

    def __post_init__(self) -> None:
        check_id("source.id", self.id)
        if self.type is None:
            object.__setattr__(self, "type", source_type(self.id))
        elif self.type not in sc.SOURCE_TYPES:
            raise InvalidRecordError("source.type", f"must be one of {sorted(sc.SOURCE_TYPES)}", self.type)


class AuditRecord:
    """One audit event: who did what to what, when, from where, and how it ended.

    Immutable by convention: nothing in this package changes one after it was made.

    Args:
        event_name: dotted, lower case, ASCII, stable, without dynamic parts: ``"user.login"``.
        actor: who did it; a bare string is the id of a user.
        action: upper-case verb; where it is not given, the last segment of the event name.
        outcome: ``"success"``, ``"failure"`` or ``"unknown"``; a known synonym (``"denied"``, ``True``) is mapped
            and the original kept.
        target: what it was done to; a bare string is the id.
        source: where it came from; a bare string is the id, its type is found.
        tenant, session, request_id, user_agent, reason: strings.
        severity: a name (``"INFO"``) or an OpenTelemetry severity number, 1 to 24.
        body: anything; free text or a structure.
        attributes: free attributes; names under ``audit.sequence.`` and ``audit.integrity.`` are reserved.
        timestamp: when it happened: an aware ``datetime`` or nanoseconds since 1970; ``None``: the moment of
            ``emit``.
        record_id: makes a caller's retry safe; ``None``: a new UUID (version 4).
        trace_id, span_id: lower-case hex; ``None``: the current OpenTelemetry span's, at ``emit``.

    Raises:
        InvalidRecordError: a mandatory field is missing or a field breaks its rule.
    """

    __slots__ = ("attributes", "body", "event_name", "span_id", "timestamp_ns", "trace_id")

    event_name: str
    timestamp_ns: int
    """When it happened, nanoseconds since 1970; 0: the moment of ``emit``."""
    body: Any
    attributes: dict[str, Any]
    trace_id: str
    span_id: str

    def __init__(
        self,
        event_name: str,
        *,
        actor: Actor | str | None = None,
        action: str | None = None,
        outcome: Outcome | str | bool | None = None,
        target: Target | str | None = None,
        source: Source | str | None = None,
        tenant: str | None = None,
        session: str | None = None,
        request_id: str | None = None,
        user_agent: str | None = None,
        reason: str | None = None,
        severity: str | int | None = None,
        body: Any = None,
        attributes: Mapping[str, Any] | None = None,
        timestamp: datetime | int | None = None,
        record_id: str | None = None,
        trace_id: str | None = None,
        span_id: str | None = None,
    ) -> None:
        flat = flatten(
            actor=actor, action=action, outcome=outcome, target=target, source=source, tenant=tenant,
            session=session, request_id=request_id, user_agent=user_agent, reason=reason, severity=severity,
            attributes=attributes, record_id=record_id,
        )  # fmt: skip
        self._fill(event_name, timestamp_to_ns(timestamp), body, flat, trace_id or "", span_id or "")
        complete(self)
        check(self)

    def _fill(
        self, event_name: str, timestamp_ns: int, body: Any, attributes: dict[str, Any], trace_id: str, span_id: str
    ) -> None:
        self.event_name = event_name
        self.timestamp_ns = timestamp_ns
        self.body = body
        self.attributes = attributes
        self.trace_id = trace_id
        self.span_id = span_id

    @classmethod
    def from_attributes(
        cls,
        event_name: str,
        attributes: dict[str, Any],
        *,
        timestamp_ns: int = 0,
        body: Any = None,
        trace_id: str = "",
        span_id: str = "",
    ) -> AuditRecord:
        """A record from attributes that already have their final names; takes the mapping over, checks nothing.

        For captures: fill what is missing, then call :func:`check` if it must be right.
        """
        self = cls.__new__(cls)
        self.event_name = event_name
        self.timestamp_ns = timestamp_ns
        self.body = body
        self.attributes = attributes
        self.trace_id = trace_id
        self.span_id = span_id
        return self

    @property
    def record_id(self) -> str:
        """``audit.record.id``."""
        return str(self.attributes[sc.RECORD_ID])

    @property
    def actor(self) -> Actor:
        """Who did it."""
        return Actor(self.attributes[sc.ACTOR_ID], self.attributes[sc.ACTOR_TYPE])

    @property
    def action(self) -> str:
        """The upper-case verb."""
        return str(self.attributes[sc.ACTION])

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        return Outcome(self.attributes[sc.OUTCOME])

    @property
    def target(self) -> Target | None:
        """What it was done to."""
        a = self.attributes
        return Target(a[sc.TARGET_ID], a.get(sc.TARGET_TYPE), a.get(sc.TARGET_NAME)) if sc.TARGET_ID in a else None

    @property
    def source(self) -> Source | None:
        """Where it came from."""
        a = self.attributes
        return Source(a[sc.SOURCE_ID], a.get(sc.SOURCE_TYPE)) if sc.SOURCE_ID in a else None

    def __repr__(self) -> str:
        return f"<AuditRecord {self.event_name} {self.attributes.get(sc.RECORD_ID)}>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AuditRecord):
            return NotImplemented
        return all(getattr(self, slot) == getattr(other, slot) for slot in self.__slots__)

    __hash__ = None  # type: ignore[assignment]


_IDS_AHEAD: Final = 256
_VERSION_4: Final = bytes(byte & 0x0F | 0x40 for byte in range(256))
_VARIANT_1: Final = bytes(byte & 0x3F | 0x80 for byte in range(256))
_HEX_PLACES: Final = [place for place in range(36) if place not in (8, 13, 18, 23)]
_BLANK_IDS: Final = (b"-" * 36 + b" ") * _IDS_AHEAD
_ids: list[str] = []


def new_record_id() -> str:
    """A new UUID, version 4, from the operating system's randomness.

    Made ahead, all their first digits at once, then all their second ones: 0.16 instead of 0.28 µs each.
    """
    if not PROCESS[0]:
        notice_fork()
    try:
        return _ids.pop()
    except IndexError:
        random = bytearray(os.urandom(16 * _IDS_AHEAD))
        random[6::16] = random[6::16].translate(_VERSION_4)
        random[8::16] = random[8::16].translate(_VARIANT_1)
        digits, text = random.hex().encode(), bytearray(_BLANK_IDS)
        for number, place in enumerate(_HEX_PLACES):
            text[place::37] = digits[number::32]
        new = text.decode().split()
        last = new.pop()
        _ids.extend(new)
        return last


in_child(_ids.clear)  # or parent and child would give the same ids


def flatten(
    *,
    actor: Actor | str | None = None,
    action: str | None = None,
    outcome: Outcome | str | bool | None = None,
    target: Target | str | None = None,
    source: Source | str | None = None,
    tenant: str | None = None,
    session: str | None = None,
    request_id: str | None = None,
    user_agent: str | None = None,
    reason: str | None = None,
    severity: str | int | None = None,
    attributes: Mapping[str, Any] | None = None,
    record_id: str | None = None,
) -> dict[str, Any]:
    """The first-class fields as flat attributes.  What is ``None`` is left out.

    Raises:
        InvalidRecordError: a field has the wrong type or breaks its rule, or a free attribute has a reserved name.
    """
    flat = _entities(actor, target, source)
    if action is not None:
        flat[sc.ACTION] = action
    if outcome is not None:
        flat.update(outcome_attributes(outcome))
    for field, key, value in (
        ("tenant", sc.TENANT, tenant),
        ("session", sc.SESSION_ID, session),
        ("request_id", sc.REQUEST_ID, request_id),
        ("user_agent", sc.USER_AGENT, user_agent),
        ("reason", sc.REASON, reason),
    ):
        if value is not None:
            if not isinstance(value, str):
                raise InvalidRecordError(field, "must be a string", value)
            flat[key] = value
    if severity is not None:
        flat[sc.SEVERITY_NUMBER], flat[sc.SEVERITY_TEXT] = severity_of(severity)
    if record_id is not None:
        flat[sc.RECORD_ID] = record_id
    if attributes is None:
        return flat
    if not isinstance(attributes, Mapping):
        raise InvalidRecordError("attributes", "must be a mapping of names to values", attributes)
    for name in attributes:
        if isinstance(name, str) and (name.startswith(sc.RESERVED_PREFIXES) or name == sc.CONTROL):
            raise InvalidRecordError(f"attributes[{name!r}]", "is reserved: the journal and the signer write it")
    if not flat.keys().isdisjoint(attributes):
        assumed = {sc.ACTOR_TYPE: type(actor) is str, sc.SOURCE_TYPE: type(source) is str}
        _check_twice(flat, {name: value for name, value in attributes.items() if not assumed.get(name)}, outcome)
        flat.update((name, attributes[name]) for name in assumed if assumed[name] and name in attributes)
    return {**attributes, **flat}


def _check_twice(flat: Mapping[str, Any], attributes: Mapping[str, Any], outcome: object) -> None:
    """Raise where a field and the attribute that it is stored as have different values."""
    for name, value in attributes.items():
        if name not in flat or _is_same(value, flat[name]) or (name == sc.OUTCOME and _is_same(value, outcome)):
            continue
        rule = "is given twice, with different values: by its keyword and in attributes; leave one out"
        raise InvalidRecordError(name, rule, value)


def _is_same(one: object, other: object) -> bool:
    return one is other or (type(one) is type(other) and one == other)


def _entities(actor: Actor | str | None, target: Target | str | None, source: Source | str | None) -> dict[str, Any]:
    """The attributes of those that are given.  Most are bare strings, which need no object on the way."""
    flat: dict[str, Any] = {}
    if type(actor) is str:
        check_id("actor.id", actor)
        flat[sc.ACTOR_ID], flat[sc.ACTOR_TYPE] = actor, "user"
    elif actor is not None:
        who = actor if isinstance(actor, Actor) else Actor(actor)
        flat[sc.ACTOR_ID], flat[sc.ACTOR_TYPE] = who.id, who.type
    if type(target) is str:
        check_id("target.id", target)
        flat[sc.TARGET_ID] = target
    elif target is not None:
        what = target if isinstance(target, Target) else Target(target)
        parts = {sc.TARGET_ID: what.id, sc.TARGET_TYPE: what.type, sc.TARGET_NAME: what.name}
        flat.update({name: value for name, value in parts.items() if value is not None})
    if type(source) is str:
        check_id("source.id", source)
        flat[sc.SOURCE_ID], flat[sc.SOURCE_TYPE] = source, source_type(source)
    elif source is not None:
        where = source if isinstance(source, Source) else Source(source)
        flat[sc.SOURCE_ID], flat[sc.SOURCE_TYPE] = where.id, where.type or source_type(where.id)
    return flat


def complete(record: AuditRecord) -> None:
    """The naming rule: fill record id, action and outcome from the event name where they are not given.

    The action is the last segment of the event name in upper case, unless that is an outcome word
    (``user.login.failure``); then the outcome is that word, where none is given, and the action the segment before.
    """
    attributes = record.attributes
    if sc.RECORD_ID not in attributes:
        attributes[sc.RECORD_ID] = new_record_id()
    if (sc.ACTION not in attributes or sc.OUTCOME not in attributes) and type(record.event_name) is str:
        action, outcome = name_facts(record.event_name)
        if action and sc.ACTION not in attributes:
            attributes[sc.ACTION] = action
        if outcome and sc.OUTCOME not in attributes:
            attributes[sc.OUTCOME] = outcome


_checked: dict[tuple[object, ...], None] = {}


def check(record: AuditRecord) -> None:
    """Raise :class:`InvalidRecordError` unless the record keeps every rule.

    The identifiers are looked at each time; the rest (names and vocabularies) once per combination.
    """
    get = record.attributes.get
    try:
        known = (record.event_name, get(sc.ACTION), get(sc.OUTCOME), get(sc.ACTOR_TYPE)) in _checked
    except TypeError:  # something unhashable where a string belongs: the rules below say so
        known = False
    if not known:
        _check_words(record)
    value = get(sc.RECORD_ID)
    if type(value) is not str or not 0 < len(value) <= ID_LENGTH_MAX:
        check_id("record_id", value)
    value = get(sc.ACTOR_ID)
    if type(value) is not str or not 0 < len(value) <= ID_LENGTH_MAX:
        check_id("actor.id", value)
    if record.trace_id or record.span_id:
        check_trace(record.trace_id, record.span_id)


def _check_words(record: AuditRecord) -> None:
    """Check names and vocabularies, and remember that they are right."""
    attributes = record.attributes
    check_event_name(record.event_name)
    for name, rule in ((sc.ACTION, "action"), (sc.OUTCOME, "outcome"), (sc.ACTOR_TYPE, "actor.type")):
        if name not in attributes:
            if name == sc.ACTOR_TYPE and sc.ACTOR_ID not in attributes:
                name, rule = sc.ACTOR_ID, "actor"  # noqa: PLW2901 - what the caller has to give
            raise InvalidRecordError(rule, MISSING[name])
    action, outcome, actor_type = attributes[sc.ACTION], attributes[sc.OUTCOME], attributes[sc.ACTOR_TYPE]
    check_action(action)
    if type(outcome) is not str or outcome not in sc.OUTCOMES:
        raise InvalidRecordError("outcome", f"must be one of {sorted(sc.OUTCOMES)}", outcome)
    check_actor_type("actor.type", actor_type)
    if len(_checked) >= 4096:
        _checked.clear()
    _checked[(record.event_name, action, outcome, actor_type)] = None
