"""Reads a structlog event dictionary, whichever processors it has been through.

structlog itself is not needed for that.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from datetime import datetime, timezone
from types import FrameType
from typing import Any, Final

from .. import semconv as sc
from ..rules import severity_of, timestamp_to_ns
from .draft import Draft, exception_attributes, unused_arguments
from .fields import ORIGINAL_ARGUMENTS

APART: Final = frozenset({"event", "positional_args", "exc_info", "stack_info", "_record", "_from_structlog"})
"""Keys that are structlog's own."""

MARKER: Final = "audit"
"""The key that selects an event.  A bool there is no attribute of the record."""

_SECONDS_MAX: Final = 2**63 / 1e9
_HIDDEN: Final = ("structlog.", "logging.", __name__.partition(".")[0] + ".")


def read(event: Mapping[str, Any]) -> Draft:
    """Read it.  What cannot be read as structlog's own stays a free attribute."""
    given = {key: value for key, value in event.items() if key not in APART}
    if isinstance(given.get(MARKER), bool):
        del given[MARKER]
    message, nameable, misfits = _message(event)
    draft = Draft(given, message, nameable=nameable)
    draft.misfits = misfits
    unused = unused_arguments(event.get("event"), _fitting(event.get("positional_args")))
    if unused:
        draft.found[ORIGINAL_ARGUMENTS] = unused
    if "timestamp" in given:
        draft.timestamp_ns = timestamp_ns(given["timestamp"])
        original = given.pop("timestamp")
        if not draft.timestamp_ns and original is not None:
            draft.found[sc.ORIGINAL_TIMESTAMP] = original
    level = given.get("level")
    if isinstance(level, str):
        draft.severity = severity_of_name(level)
        if draft.severity is not None:
            del given["level"]
    if isinstance(given.get("logger"), str):
        draft.found[sc.LOGGER_NAME] = given.pop("logger")
    _read_exception(event, draft)
    _read_stack(event, draft)
    return draft


def severity_of_name(name: str) -> tuple[int, str] | None:
    """OpenTelemetry severity of a structlog level or method name; ``None`` where it is none."""
    name = _METHODS.get(name, name)
    try:
        return severity_of(name)
    except ValueError:
        return None


_METHODS: Final = {"exception": "error", "failure": "error", "err": "error", "msg": "info", "warn": "warning"}


def timestamp_ns(value: Any) -> int:
    """Nanoseconds of what a ``TimeStamper`` writes: ISO 8601 or seconds; 0 where it is neither.

    ISO 8601 without a time zone is local time, as structlog writes it; where the clock was put back, the hour of the
    two that is nearer to now.
    """
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith("Z") else value)
        if isinstance(value, datetime):
            return timestamp_to_ns(value if value.tzinfo is not None else _from_local(value))
    except (ValueError, OverflowError, OSError):
        return 0
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < _SECONDS_MAX:
        return int(value * 1e9)
    return 0


def _from_local(value: datetime) -> datetime:
    now = datetime.now(timezone.utc)
    return min((value.replace(fold=fold).astimezone(timezone.utc) for fold in (0, 1)), key=lambda it: abs(it - now))


def _message(event: Mapping[str, Any]) -> tuple[Any, bool, Any]:
    """The message; whether it may be a name; and the ``%`` arguments, where they do not fit it."""
    message = event.get("event")
    arguments = event.get("positional_args")
    if not arguments:
        return message, True, None
    try:
        return str(message) % _fitting(arguments), False, None
    except Exception:  # noqa: BLE001 - bad arguments, or an argument's own ``__str__``
        return message, False, list(arguments)


def _fitting(arguments: Any) -> Any:
    """Positional arguments as ``%`` takes them: the one that is a mapping is taken by its names."""
    if (
        isinstance(arguments, (tuple, list))
        and len(arguments) == 1
        and isinstance(arguments[0], Mapping)
        and arguments[0]
    ):
        return arguments[0]
    return arguments


def _read_exception(event: Mapping[str, Any], draft: Draft) -> None:
    error = event.get("exc_info")
    if error is True:
        error = sys.exc_info()
    written = draft.given.get("exception")
    if isinstance(written, str):
        del draft.given["exception"]
        draft.found.update(exception_attributes(error, written))
    else:
        draft.found.update(exception_attributes(error))
        if isinstance(written, list) and written and isinstance(written[0], Mapping):  # dict_tracebacks
            raised = written[0]  # its causes follow
            for name, part in ((sc.EXCEPTION_TYPE, "exc_type"), (sc.EXCEPTION_MESSAGE, "exc_value")):
                if isinstance(raised.get(part), str):
                    draft.found.setdefault(name, raised[part])


def _read_stack(event: Mapping[str, Any], draft: Draft) -> None:
    stack = draft.given.get("stack")
    if isinstance(stack, str):
        draft.found[sc.CODE_STACKTRACE] = draft.given.pop("stack")
    elif event.get("stack_info"):
        given = event["stack_info"]
        draft.found[sc.CODE_STACKTRACE] = given if isinstance(given, str) else "".join(traceback.format_stack(caller()))


def caller() -> FrameType | None:
    """The frame that logs: the nearest outside structlog, :mod:`logging` and this package."""
    calling = getattr(sys.modules.get("structlog.contextvars"), "_ASYNC_CALLING_STACK", None)
    frame: FrameType | None = (
        calling.get(None) if calling is not None else None
    )  # a coroutine's, from its worker thread
    if frame is None:
        frame = sys._getframe(1)  # noqa: SLF001
    while frame is not None and (frame.f_globals.get("__name__", "") + ".").startswith(_HIDDEN):
        frame = frame.f_back
    return frame
