"""Which records a destination is to have: by event name, action, outcome, tenant and severity.

Pure.  A record passes where it fits every condition that is given.  What does not pass is *passed over*: the cursor
moves on, and it is counted as filtered, never as delivered.

- The journal's own records (logging started, logging stopped) pass whatever else is asked for, because that logging
  began and ended is part of every trail; ``control: false`` keeps them away.
- A record without a severity passes every ``severity``: it cannot be judged, so it is not held back.
- A record without a tenant belongs to none: it passes only where ``tenants`` names ``""``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from .. import semconv as sc
from ..batch import StoredRecord
from ..errors import ConfigurationError, InvalidRecordError, describe
from ..lazy import lazy
from ..options import Option, read_options
from ..rules import severity_of

FILTER_OPTIONS: Final = (
    Option("events", "list", (), "patterns of event names ('user.*'); one that begins with '!' excludes"),
    Option("actions", "list", (), "actions"),
    Option("outcomes", "list", (), "success, failure, unknown"),
    Option("tenants", "list", (), "tenants; '' stands for records without one"),
    Option("severity", "any", None, "at least this severity: a name ('WARN') or an OpenTelemetry number"),
    Option("control", "bool", True, "the journal's own records (logging started, stopped) pass in any case"),
)
"""What a filter can ask for."""

_PATTERN: Final = re.compile(r"!?[a-z0-9_.*?\[\]!-]+")


class _Value(msgspec.Struct, gc=False):
    stringValue: str | None = None  # noqa: N815 - as it is written
    intValue: str | None = None  # noqa: N815


class _Attributes(msgspec.Struct, gc=False):
    """Only what a filter can ask for: a batch that waits must not hold every record in pieces."""

    action: _Value | None = msgspec.field(name=sc.ACTION, default=None)
    outcome: _Value | None = msgspec.field(name=sc.OUTCOME, default=None)
    tenant: _Value | None = msgspec.field(name=sc.TENANT, default=None)
    severity: _Value | None = msgspec.field(name=sc.SEVERITY_NUMBER, default=None)
    control: _Value | None = msgspec.field(name=sc.CONTROL, default=None)

    def plain(self) -> dict[str, Any]:
        """Plain values by the attributes' names."""
        values: dict[str, Any] = {}
        for name, value in ((sc.ACTION, self.action), (sc.OUTCOME, self.outcome), (sc.TENANT, self.tenant)):
            if value is not None and value.stringValue is not None:
                values[name] = value.stringValue
        if self.severity is not None and self.severity.intValue is not None:
            values[sc.SEVERITY_NUMBER] = int(self.severity.intValue)
        if self.control is not None:
            values[sc.CONTROL] = True
        return values


class _Record(msgspec.Struct, gc=False):
    event_name: str
    attributes: _Attributes


_decode: Final = msgspec.json.Decoder(_Record).decode


@dataclass(frozen=True)
class RecordFilter:
    """Says of a record whether a destination is to have it.

    Args:
        events: patterns of event names; those with ``!`` exclude what the others let through.
        actions, outcomes, tenants: what is wanted; empty: all.
        severity_min: OpenTelemetry severity number; 0: all.
        control: whether the journal's own records pass.
    """

    events: tuple[str, ...] = ()
    actions: frozenset[str] = frozenset()
    outcomes: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    severity_min: int = 0
    control: bool = True

    def wants(self, record: StoredRecord) -> bool:
        """Whether the destination is to have a record of the journal; one that cannot be read is not withheld."""
        try:
            found = _decode(record.canonical)
        except msgspec.MsgspecError:
            return True
        return self.passes(found.event_name, found.attributes.plain())

    def passes(self, event_name: str, attributes: Mapping[str, Any]) -> bool:
        """Whether the destination is to have a record with this name and these attributes, as plain values."""
        if sc.CONTROL in attributes:
            return self.control
        severity = attributes.get(sc.SEVERITY_NUMBER)
        return (
            self._is_wanted_event(event_name)
            and (not self.actions or _text(attributes, sc.ACTION) in self.actions)
            and (not self.outcomes or _text(attributes, sc.OUTCOME) in self.outcomes)
            and (not self.tenants or _text(attributes, sc.TENANT) in self.tenants)
            and not (isinstance(severity, int) and severity < self.severity_min)
        )

    def _is_wanted_event(self, name: str) -> bool:
        wanted, unwanted = self._patterns
        return (wanted is None or wanted.match(name) is not None) and (unwanted is None or unwanted.match(name) is None)

    @lazy
    def _patterns(self) -> tuple[re.Pattern[str] | None, re.Pattern[str] | None]:
        return (
            _any_of([pattern for pattern in self.events if not pattern.startswith("!")]),
            _any_of([pattern[1:] for pattern in self.events if pattern.startswith("!")]),
        )


def _any_of(patterns: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns)) if patterns else None


def _text(attributes: Mapping[str, Any], name: str) -> str:
    value = attributes.get(name, "")
    return value if isinstance(value, str) else ""


def make_filter(where: str, value: Any) -> RecordFilter:
    """A filter from a mapping.

    Args:
        where: what error messages call it.
        value: the mapping.

    Raises:
        ConfigurationError: an unknown key, or a value that no record can fit.
    """
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where}: must be a mapping, like {{'events': ['user.*']}}, not {describe(value)}")
    given = read_options(FILTER_OPTIONS, where, value)
    for name in ("events", "actions", "outcomes", "tenants"):
        if value.get(name) is not None and not given[name]:
            raise ConfigurationError(f"{where}.{name}: an empty list lets nothing through; leave it out")
    for pattern in given["events"]:
        if not _PATTERN.fullmatch(pattern):
            raise ConfigurationError(
                f"{where}.events: {pattern!r} can fit no event name: they are lower-case ASCII, with dots"
            )
    outcomes = frozenset(outcome.lower() for outcome in given["outcomes"])
    if unknown := sorted(outcomes - sc.OUTCOMES):
        raise ConfigurationError(f"{where}.outcomes: {unknown[0]!r} is none of {', '.join(sorted(sc.OUTCOMES))}")
    return RecordFilter(
        events=tuple(given["events"]),
        actions=frozenset(action.upper() for action in given["actions"]),
        outcomes=outcomes,
        tenants=frozenset(given["tenants"]),
        severity_min=_severity(f"{where}.severity", given["severity"]),
        control=given["control"],
    )


def _severity(where: str, value: Any) -> int:
    if value is None:
        return 0
    if isinstance(value, str) and value.strip().isdigit():
        value = int(value)
    try:
        return severity_of(value)[0]
    except InvalidRecordError as error:
        raise ConfigurationError(f"{where}: {error.rule}") from None
