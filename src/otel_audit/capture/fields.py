"""Which short name means which attribute, and what becomes of a value that does not keep its attribute's rule.

Every capture from loose names (``extra={"actor": …}``, ``log.info(…, actor=…)``) reads them by the one table below.
This is the careful way, which knows every case; ``shapes.py`` is the quick way for values that are as they should be.

Nothing is dropped.  What breaks a rule is put right where there is one way to do so, and the value as it was given
is kept under ``otel_audit.original.<attribute>``; with ``strict`` it raises instead.  ``None`` for a field means that
it is not given, as in ``emit``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from .. import semconv as sc
from ..context import with_context
from ..errors import InvalidRecordError
from ..lanes import EVENT_NAME
from ..record import Actor, Source, Target
from ..rules import (
    ID_LENGTH_MAX,
    MISSING,
    check_event_name,
    is_action,
    is_event_name,
    name_facts,
    outcome_attributes,
    severity_of,
    source_type,
)

BODY: Final = "body"

ORIGINAL_ARGUMENTS: Final = sc.ORIGINAL_PREFIX + "args"
"""The arguments of a message that they do not fit."""
ORIGINAL_MESSAGE: Final = sc.ORIGINAL_PREFIX + "message"
"""The message, where the caller gave a body besides."""


class Field(NamedTuple):
    """A row of the table.

    Attributes:
        attribute: the name under which the value is stored, or ``event_name``/``body``, which are no attributes.
        kind: the rule for the value; a key of ``_READERS``.
    """

    attribute: str
    kind: str


_ROWS: Final[Mapping[str, Field]] = {
    "actor": Field(sc.ACTOR_ID, "identifier"),
    "actor_type": Field(sc.ACTOR_TYPE, "actor_type"),
    "target": Field(sc.TARGET_ID, "identifier"),
    "target_type": Field(sc.TARGET_TYPE, "identifier"),
    "target_name": Field(sc.TARGET_NAME, "identifier"),
    "source": Field(sc.SOURCE_ID, "identifier"),
    "source_type": Field(sc.SOURCE_TYPE, "source_type"),
    "action": Field(sc.ACTION, "action"),
    "outcome": Field(sc.OUTCOME, "outcome"),
    "record_id": Field(sc.RECORD_ID, "record_id"),
    "tenant": Field(sc.TENANT, "text"),
    "session": Field(sc.SESSION_ID, "text"),
    "request_id": Field(sc.REQUEST_ID, "text"),
    "user_agent": Field(sc.USER_AGENT, "text"),
    "reason": Field(sc.REASON, "text"),
    "severity": Field(sc.SEVERITY_TEXT, "severity"),
    EVENT_NAME: Field(EVENT_NAME, "event_name"),
    BODY: Field(BODY, "body"),
}
"""Short name → field.  Every name that is not in it is a free attribute and stays as it stands."""

_LONG: Final = {field.attribute: field for name, field in _ROWS.items() if name not in (EVENT_NAME, BODY, "severity")}
FIELDS: Final[Mapping[str, Field]] = {**_LONG, **_ROWS}
"""Short names, and the attributes' own names: both are read by the same rule."""

_PARTS: Final = {
    sc.ACTOR_ID: {"type": sc.ACTOR_TYPE},
    sc.TARGET_ID: {"type": sc.TARGET_TYPE, "name": sc.TARGET_NAME},
    sc.SOURCE_ID: {"type": sc.SOURCE_TYPE},
}
"""Where the parts of an ``Actor``, ``Target`` or ``Source``, or of a mapping in its place, are stored."""

_NOT_ACTION = re.compile(r"[^A-Z0-9_.:-]+")
_NOT_EVENT_NAME = re.compile(r"[^a-z0-9_.-]+")


class Reading:
    """One record while its loose names are read.

    Args:
        strict: raise :class:`~otel_audit.errors.InvalidRecordError` at the first value that breaks a rule.

    Attributes:
        attributes: what was read, under final names.
        event_name: as given, once it keeps the rule; ``None`` where none was given or it cannot be put right.
        body: as given; ``None`` where none was.
        converted: one note for each value that was changed.
        filled: mandatory attributes that were missing and were filled with ``unknown``.
        not_understood: the outcome as it was given, where it is no word for any; ``None``: it was understood.
    """

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.attributes: dict[str, Any] = {}
        self.event_name: str | None = None
        self.body: Any = None
        self.converted: list[str] = []
        self.filled: list[str] = []
        self.not_understood: Any = None

    def read(self, given: Mapping[Any, Any]) -> None:
        """Read names and values, in any order; a short name wins over the attribute's own name."""
        short: dict[str, Any] = {}
        long: dict[str, Any] = {}
        for name, value in given.items():
            field = FIELDS.get(name) if type(name) is str else None
            if field is None:
                self._free(name, value)
            elif value is not None:
                (short if name in _ROWS else long)[field.attribute] = value
        for attribute in _PARTS:
            if attribute in short:
                short[attribute] = self._split(attribute, short[attribute], short)
            if attribute in long:
                long[attribute] = self._split(attribute, long[attribute], long)
        for attribute, value in long.items():
            if attribute not in short:
                short[attribute] = value
            elif not _same(short[attribute], value):
                self._keep_second(attribute, value)
        for attribute, value in short.items():
            if value is not None:
                _READERS[_BY_ATTRIBUTE[attribute].kind](self, attribute, value)

    def put(self, name: str, value: Any) -> None:
        """Set an attribute of ours; what a caller had there is kept as the original."""
        before = self.attributes.get(name)
        if before is not None and not _same(before, value):
            self.keep(name, before)
        self.attributes[name] = value

    def keep(self, name: str, value: Any) -> None:
        """Keep a value as it was given, beside the attribute that does not hold it."""
        original = unused = sc.ORIGINAL_PREFIX + name
        count = 1
        while unused in self.attributes:
            count += 1
            unused = f"{original}.{count}"
        self.attributes[unused] = value

    def fault(self, name: str, rule: str, value: Any) -> None:
        """Raise if ``strict``; else the caller of this method puts it right."""
        if self.strict:
            raise InvalidRecordError(_SHORT.get(name, name), rule, value)

    def note(self, name: str, what: str) -> None:
        """Say in the record that a value was changed."""
        path = name if name in (BODY, EVENT_NAME) else f"attributes.{name}"
        self.converted.append(f"{path}: {what}")

    def text(self, name: str, value: Any) -> str:
        """The value as a string; noted where it was none."""
        if isinstance(value, str):
            return str.__str__(value)
        self.fault(name, "must be a string", value)
        text = text_of(value)
        self.note(name, f"str() of {type(value).__name__}")
        if isinstance(value, (Mapping, list, tuple, set, frozenset, bytes, bytearray)):
            self.keep(name, value)
        return text

    def name_and_fill(self, default_event_name: str, facts: Mapping[str, Any] | None) -> str:
        """Apply the context and the naming rule, fill what is missing; returns the event name.

        Args:
            default_event_name: where none was given.
            facts: the context to apply; ``None``: the current one.
        """
        own = self.attributes
        if sc.SOURCE_ID in own:
            own.setdefault(sc.SOURCE_TYPE, address_type(own[sc.SOURCE_ID]))
        attributes = self.attributes = with_context(own, facts)
        name = self.event_name or default_event_name
        action, outcome = name_facts(name)
        if action:
            attributes.setdefault(sc.ACTION, action)
        if outcome:
            attributes.setdefault(sc.OUTCOME, outcome)
        for attribute, filler in _FILLERS:
            if attribute not in attributes:
                self.fault(attribute, MISSING[attribute], None)
                attributes[attribute] = filler
                self.filled.append(attribute)
        attributes.setdefault(sc.ACTOR_TYPE, "user")
        if self.filled:
            self.put(sc.FILLED, self.filled)
        if self.converted:
            self.put(sc.CONVERTED, self.converted)
        return name

    def _free(self, name: Any, value: Any) -> None:
        if not isinstance(name, str):
            self.fault("attributes", "names must be strings", name)
            name = text_of(name)
            self.note(name, "name was no string")
        if name.startswith(sc.RESERVED_PREFIXES) or name == sc.CONTROL:
            self.fault(f"attributes[{name!r}]", "is reserved: the journal and the signer write it", value)
            self.keep(name, value)
        elif name in self.attributes:
            self.keep(name, value)
        else:
            self.attributes[name] = value

    def _split(self, attribute: str, value: Any, into: dict[str, Any]) -> Any:
        """The id of an object or mapping; its other parts are added to ``into``."""
        names = _PARTS[attribute]
        if isinstance(value, (Actor, Target, Source)):
            parts = {part: getattr(value, part, None) for part in ("id", "type", "name")}
        elif isinstance(value, Mapping):
            parts = dict(value)
        else:
            return value
        identifier = parts.pop("id", None)
        if any(part not in names and parts[part] is not None for part in parts):
            self.fault(attribute, f"may have the parts 'id' and {sorted(names)}", value)
            self.keep(attribute, {"id": identifier, **parts})
        for part, name in names.items():
            given = parts.get(part)
            if given is not None and into.setdefault(name, given) is not given and not _same(into[name], given):
                self._keep_second(name, given)
        return identifier

    def _keep_second(self, name: str, value: Any) -> None:
        """Keep what was given for an attribute that has another value already: it has one, and never two."""
        self.fault(name, "is given twice, with different values", value)
        self.keep(name, value)
        self.note(name, "given twice")


def text_of(value: Any) -> str:
    """``str(value)``, or its type where even that fails."""
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - foreign code; whatever it raises, the record is not to be lost
        return f"<{type(value).__name__} that cannot be written>"


def _same(one: Any, other: Any) -> bool:
    return one is other or (type(one) is type(other) and text_of(one) == text_of(other))


_address_types: dict[str, str] = {}


def address_type(address: str) -> str:
    """``ipv4``, ``ipv6`` or ``hostname``; remembers the last few thousand."""
    kind = _address_types.get(address)
    if kind is None:
        kind = source_type(address)
        if len(_address_types) >= 4096:
            _address_types.clear()
        _address_types[address] = kind
    return kind


# -- one reader for each kind --------------------------------------------------------------------------------


def _identifier(reading: Reading, name: str, value: Any) -> None:
    text = reading.text(name, value)
    if not text:
        reading.fault(name, "must not be empty", value)
        reading.keep(name, value)
        return
    if len(text) > ID_LENGTH_MAX:
        reading.fault(name, f"must not be longer than {ID_LENGTH_MAX} characters", value)
        reading.keep(name, text)
        reading.note(name, f"cut to {ID_LENGTH_MAX} characters")
        text = text[:ID_LENGTH_MAX]
    reading.attributes[name] = text


def _record_id(reading: Reading, name: str, value: Any) -> None:
    text = reading.text(name, value)
    if 0 < len(text) <= ID_LENGTH_MAX:
        reading.attributes[name] = text
    else:  # cut, it might be another record's; so it gets a new one
        reading.fault(name, f"must be 1 to {ID_LENGTH_MAX} characters", value)
        reading.keep(name, value)


def _text(reading: Reading, name: str, value: Any) -> None:
    reading.attributes[name] = reading.text(name, value)


def _actor_type(reading: Reading, name: str, value: Any) -> None:
    _word(reading, name, value, sc.ACTOR_TYPES)


def _source_type(reading: Reading, name: str, value: Any) -> None:
    _word(reading, name, value, sc.SOURCE_TYPES)


def _word(reading: Reading, name: str, value: Any, vocabulary: frozenset[str]) -> None:
    text = str.__str__(value) if isinstance(value, str) else text_of(value)
    if text not in vocabulary:
        reading.fault(name, f"must be one of {sorted(vocabulary)}", value)
        reading.keep(name, value)
        text = text.strip().lower()
        reading.note(name, "outside the vocabulary")
    if text in vocabulary:
        reading.attributes[name] = text


def _action(reading: Reading, name: str, value: Any) -> None:
    text = str.__str__(value) if isinstance(value, str) else text_of(value)
    if not is_action(text):
        reading.fault(name, "must be an upper-case ASCII verb (like 'LOGIN')", value)
        reading.keep(name, value)
        reading.note(name, "broke the rule for actions")
        text = _NOT_ACTION.sub("_", text.strip().upper()).strip("_")
    if is_action(text):
        reading.attributes[name] = text


def _outcome(reading: Reading, name: str, value: Any) -> None:
    try:
        read = outcome_attributes(str.__str__(value) if isinstance(value, str) else value)
    except InvalidRecordError:
        if reading.strict:
            raise
        read = {name: sc.UNKNOWN, sc.ORIGINAL_OUTCOME: value}
        reading.note(name, "outside the vocabulary")
        reading.not_understood = value
    reading.attributes[name] = read[name]
    if sc.ORIGINAL_OUTCOME in read:
        reading.keep(name, value)


def _severity(reading: Reading, name: str, value: Any) -> None:
    try:
        number, text = severity_of(value)
    except InvalidRecordError:
        if reading.strict:
            raise
        reading.keep(name, value)
    else:
        reading.put(sc.SEVERITY_NUMBER, number)
        reading.put(name, text)


def _event_name(reading: Reading, name: str, value: Any) -> None:
    text = str.__str__(value) if isinstance(value, str) else text_of(value)
    if not is_event_name(text):
        if reading.strict:
            check_event_name(value)
        reading.keep(name, value)
        reading.note(name, "broke the rule for event names")
        text = _NOT_EVENT_NAME.sub("_", text.strip().lower()).strip("_.-")
    if is_event_name(text):
        reading.event_name = text


def _body(reading: Reading, name: str, value: Any) -> None:
    reading.body = value


_READERS: Final[Mapping[str, Callable[[Reading, str, Any], None]]] = {
    "identifier": _identifier,
    "record_id": _record_id,
    "text": _text,
    "actor_type": _actor_type,
    "source_type": _source_type,
    "action": _action,
    "outcome": _outcome,
    "severity": _severity,
    "event_name": _event_name,
    "body": _body,
}

_BY_ATTRIBUTE: Final = {field.attribute: field for field in _ROWS.values()}
_SHORT: Final = {field.attribute: name for name, field in _ROWS.items()}
_FILLERS: Final = ((sc.ACTOR_ID, sc.UNKNOWN), (sc.ACTION, sc.UNKNOWN.upper()), (sc.OUTCOME, sc.UNKNOWN))
