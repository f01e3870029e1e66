"""The rules for the parts of a record, each once: what is right, and the error that says why something is not.

Every ``check_…`` raises :class:`~otel_audit.errors.InvalidRecordError` with the field, the rule, and the type and
length of the value.
"""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from enum import Enum
from typing import Any, Final

from . import semconv as sc
from .errors import InvalidRecordError

SIZE_BYTES_MAX: Final = 256 * 1024
"""The largest canonical form that is journaled, in bytes."""

ID_LENGTH_MAX: Final = 1024
"""The longest identifier (record, actor, target, …), in characters."""

EVENT_NAME_LENGTH_MAX: Final = 256

FUTURE_NS_MAX: Final = 5_000_000_000
"""How far a caller's timestamp may lie behind the moment of ``emit``'s clock, in nanoseconds, to be clamped."""

_EVENT_NAME = re.compile(r"[a-z][a-z0-9_-]*(?:\.[a-z0-9_-]+)+")
_LIKE_EVENT_NAME = re.compile(r"\s*[^\W\d][\w-]*(?:\.[\w-]+)+\s*")
_ACTION = re.compile(r"[A-Z][A-Z0-9_.:-]*")
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SPAN_ID = re.compile(r"(?!0{16})[0-9a-f]{16}")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

_SEVERITY_NAMES: Final = {
    "TRACE": 1, "DEBUG": 5, "INFO": 9, "NOTICE": 10, "WARN": 13, "WARNING": 13,
    "ERROR": 17, "CRITICAL": 21, "FATAL": 21, "AUDIT": 12,
}  # fmt: skip

OUTCOME_SYNONYMS: Final[Mapping[object, str]] = {
    True: "success", "ok": "success", "succeeded": "success", "successful": "success", "allow": "success",
    "allowed": "success", "accept": "success", "accepted": "success", "granted": "success", "passed": "success",
    False: "failure", "fail": "failure", "failed": "failure", "error": "failure", "deny": "failure",
    "denied": "failure", "reject": "failure", "rejected": "failure", "forbidden": "failure",
    "refused": "failure", "blocked": "failure", "timeout": "failure",
}  # fmt: skip
"""Outcomes that are mapped to the draft's vocabulary; the original is kept beside it."""


MISSING: Final[Mapping[str, str]] = {
    sc.ACTOR_ID: "is mandatory; give it in the call (actor='u-42'), or for a block of code by audit_context(actor=…)",
    sc.ACTOR_TYPE: "is mandatory; it comes with the actor",
    sc.ACTION: "is mandatory; give it in the call (action='LOGIN'), or an event name whose last word says it",
    sc.OUTCOME: "is mandatory; give it in the call: outcome='success', 'failure' or 'unknown'",
}
"""What is said where a mandatory attribute was not given."""


class Outcome(str, Enum):
    """How it ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    UNKNOWN = "unknown"


def check_id(field: str, value: object) -> None:
    """An identifier is a string that is not empty and not longer than :data:`ID_LENGTH_MAX` characters."""
    if not isinstance(value, str):
        kind, _, part = field.partition(".")
        raise InvalidRecordError(field, f"must be a string: str(…){f' or {kind.title()}(…)' if part else ''}", value)
    if not value:
        raise InvalidRecordError(field, "must not be empty", value)
    if len(value) > ID_LENGTH_MAX:
        raise InvalidRecordError(field, f"must not be longer than {ID_LENGTH_MAX} characters", value)


def check_actor_type(field: str, value: object) -> None:
    """``user``, ``service`` or ``system``."""
    if not isinstance(value, str) or value not in sc.ACTOR_TYPES:
        raise InvalidRecordError(field, f"must be one of {sorted(sc.ACTOR_TYPES)}", value)


def is_like_name(value: object) -> bool:
    """Whether it was probably meant as an event name: dotted words without a space between them, ``User.Login``."""
    return isinstance(value, str) and len(value) <= EVENT_NAME_LENGTH_MAX and bool(_LIKE_EVENT_NAME.fullmatch(value))


def is_event_name(value: object) -> bool:
    """Whether it keeps the rule for event names."""
    return isinstance(value, str) and len(value) <= EVENT_NAME_LENGTH_MAX and bool(_EVENT_NAME.fullmatch(value))


def check_event_name(value: object) -> None:
    """Dotted, lower case, ASCII, one line, not longer than :data:`EVENT_NAME_LENGTH_MAX` characters."""
    if not is_event_name(value):
        rule = (
            f"must be dotted, lower-case ASCII (like 'user.login'), at most {EVENT_NAME_LENGTH_MAX} characters: "
            "letters, digits, '_', '-' and at least one '.'"
        )
        raise InvalidRecordError("event_name", rule, value)


def is_action(value: object) -> bool:
    """Whether it keeps the rule for actions."""
    return isinstance(value, str) and len(value) <= ID_LENGTH_MAX and bool(_ACTION.fullmatch(value))


def check_action(value: object) -> None:
    """Upper-case ASCII."""
    if not is_action(value):
        rule = "must be an upper-case ASCII verb (like 'LOGIN')"
        raise InvalidRecordError("action", rule, value)


def check_trace(trace_id: str, span_id: str) -> None:
    """Lower-case hex of 16 and 8 bytes, not all zero; a span id needs a trace id."""
    if type(trace_id) is not str or not _TRACE_ID.fullmatch(trace_id):
        raise InvalidRecordError("trace_id", "must be 32 lower-case hex digits, not all zero", trace_id)
    if span_id and (type(span_id) is not str or not _SPAN_ID.fullmatch(span_id)):
        raise InvalidRecordError("span_id", "must be 16 lower-case hex digits, not all zero", span_id)


@functools.lru_cache(4096)
def source_type(address: str) -> str:
    """``ipv4``, ``ipv6`` or, for all else, ``hostname``; the last few thousand are remembered."""
    try:
        return f"ipv{ipaddress.ip_address(address).version}"
    except ValueError:
        return "hostname"


def timestamp_to_ns(value: datetime | int | None, field: str = "timestamp") -> int:
    """Nanoseconds since 1970 of an aware datetime or an integer; 0 for ``None``.

    Raises:
        InvalidRecordError: naive, of another type, before 1970 or beyond 2^63 ns.
    """
    if value is None:
        return 0
    if isinstance(value, datetime):
        if value.tzinfo is None or value.utcoffset() is None:
            raise InvalidRecordError(field, "must be aware (have a time zone)", value)
        since = value - _EPOCH
        ns = (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000
    elif isinstance(value, int) and not isinstance(value, bool):
        ns = value
    else:
        raise InvalidRecordError(field, "must be an aware datetime or integer nanoseconds since 1970", value)
    if not 0 < ns < 2**63:
        raise InvalidRecordError(field, "must lie after 1970 and before 2262", value)
    return ns


def outcome_attributes(outcome: object) -> dict[str, Any]:
    """The outcome attribute, and the original beside it where it was mapped.

    Raises:
        InvalidRecordError: neither in the vocabulary nor a known synonym.
    """
    if isinstance(outcome, Outcome):
        return {sc.OUTCOME: outcome.value}
    if isinstance(outcome, str) and outcome in sc.OUTCOMES:
        return {sc.OUTCOME: outcome}
    mapped = None
    if isinstance(outcome, bool):
        mapped = OUTCOME_SYNONYMS[outcome]
    elif isinstance(outcome, str):
        mapped = outcome.lower() if outcome.lower() in sc.OUTCOMES else OUTCOME_SYNONYMS.get(outcome.lower())
    if mapped is None:
        raise InvalidRecordError(
            "outcome", f"must be one of {sorted(sc.OUTCOMES)}, or a word for one like 'denied' or True", outcome
        )
    return {sc.OUTCOME: mapped, sc.ORIGINAL_OUTCOME: outcome}


def severity_of(severity: object) -> tuple[int, str]:
    """OpenTelemetry severity number and text of a name or a number.

    Raises:
        InvalidRecordError: an unknown name, or a number outside 1 to 24.
    """
    if isinstance(severity, str) and severity.upper() in _SEVERITY_NAMES:
        return _SEVERITY_NAMES[severity.upper()], severity.upper()
    if isinstance(severity, int) and not isinstance(severity, bool) and 1 <= severity <= 24:
        base = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")[(severity - 1) // 4]
        step = (severity - 1) % 4
        return severity, base if step == 0 else f"{base}{step + 1}"
    raise InvalidRecordError("severity", f"must be 1 to 24 or one of {sorted(_SEVERITY_NAMES)}", severity)


OUTCOME_SEGMENTS: Final = {
    "success": "success", "succeeded": "success", "failure": "failure", "failed": "failure", "denied": "failure",
    "unknown": "unknown",
}  # fmt: skip
"""Last segments of an event name that say how it ended rather than what was done."""


_name_facts: dict[str, tuple[str, str]] = {}


def name_facts(event_name: str) -> tuple[str, str]:
    """Action and outcome that an event name says; each empty where it says none."""
    facts = _name_facts.get(event_name)
    if facts is None:
        segments = event_name.split(".")
        outcome = OUTCOME_SEGMENTS.get(segments[-1], "")
        if outcome:
            segments.pop()
        action = segments[-1].upper().replace("-", "_") if segments else ""
        facts = (action if _ACTION.fullmatch(action) else "", outcome)
        if len(_name_facts) >= 4096:
            _name_facts.clear()
        _name_facts[event_name] = facts
    return facts
