"""What a careful capture found in a foreign shape, before it becomes a record; and how it becomes one."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

from .. import semconv as sc
from ..record import AuditRecord, new_record_id
from ..rules import is_event_name, is_like_name, severity_of
from .fields import BODY, ORIGINAL_ARGUMENTS, ORIGINAL_MESSAGE, Reading, text_of

_PLAIN: Final = (Mapping, list, tuple, bytes, bytearray, bool, int, float, type(None))


class Draft:
    """One event on its way to a record.

    Attributes:
        given: the caller's names and values.
        message: what was logged: text, a structure or any object; ``None`` where there was nothing.
        nameable: whether the message may be the event name: it has no ``%`` arguments.
        misfits: the ``%`` arguments, where they do not fit the message; else ``None``.
        found: attributes that the capture itself adds: logger, exception, location.
        severity: number and text, unless the caller gives another.
        timestamp_ns: when it happened; 0: the moment of ``emit``.
        facts: the context that holds for it; ``None``: the current one.
        trace_id, span_id: the trace that it belongs to.
        filled: after :meth:`record`: the mandatory attributes that were missing.
        not_understood: after :meth:`record`: the outcome, where it is no word for any; else ``None``.
        misnamed: after :meth:`record`: whether the message looks like an event name, and is none.
        chosen_id: after :meth:`record`: whether its id is the caller's.
    """

    __slots__ = (
        "chosen_id",
        "facts", "filled", "found", "given", "message", "misfits", "misnamed", "nameable",
        "not_understood", "severity", "span_id", "timestamp_ns",
        "trace_id",
    )  # fmt: skip

    def __init__(self, given: dict[Any, Any], message: Any, *, nameable: bool = True) -> None:
        self.given = given
        self.message = message
        self.nameable = nameable
        self.misfits: Any = None
        self.found: dict[str, Any] = {}
        self.severity: tuple[int, str] | None = None
        self.timestamp_ns = 0
        self.facts: Mapping[str, Any] | None = None
        self.trace_id = ""
        self.span_id = ""
        self.filled: list[str] = []
        self.not_understood: Any = None
        self.misnamed = False
        self.chosen_id = False

    def record(self, default_event_name: str = sc.EVENT_DEFAULT, *, strict: bool = False) -> AuditRecord:
        """The record: complete, and right in all that can be judged here.

        Raises:
            InvalidRecordError: ``strict``, and something is missing or breaks a rule.
        """
        reading = Reading(strict=strict)
        reading.read(self.given)
        if self.severity is not None and sc.SEVERITY_NUMBER not in reading.attributes:
            reading.put(sc.SEVERITY_NUMBER, self.severity[0])
            reading.put(sc.SEVERITY_TEXT, self.severity[1])
        for name, value in self.found.items():
            reading.put(name, value)
        if self.misfits is not None:
            reading.fault("message", "its % arguments do not fit it", self.misfits)
            reading.put(ORIGINAL_ARGUMENTS, self.misfits)
            reading.note(BODY, "the % arguments do not fit the message")
        self._name_or_body(reading)
        event_name = reading.name_and_fill(default_event_name, self.facts)
        self.filled = reading.filled
        self.not_understood = reading.not_understood
        self.chosen_id = sc.RECORD_ID in reading.attributes
        if not self.chosen_id:
            reading.attributes[sc.RECORD_ID] = new_record_id()
        return AuditRecord.from_attributes(
            event_name,
            reading.attributes,
            timestamp_ns=self.timestamp_ns,
            body=reading.body,
            trace_id=self.trace_id,
            span_id=self.span_id,
        )

    def _name_or_body(self, reading: Reading) -> None:
        """The message is the event name where it may be; else it is the body."""
        message = self.message
        if isinstance(message, str):
            message = str.__str__(message)
        elif not isinstance(message, _PLAIN):
            message = text_of(message)
        if message is None:
            return
        if reading.event_name is None and self.nameable and is_event_name(message):
            reading.event_name = message
        elif reading.body is None:
            if message != reading.event_name:
                reading.body = message
                self.misnamed = reading.event_name is None and self.nameable and is_like_name(message)
        elif message != reading.event_name:
            reading.put(ORIGINAL_MESSAGE, message)


def unused_arguments(template: object, arguments: Any) -> dict[Any, Any]:
    """The ``%`` arguments of a mapping that a message does not use: formatting leaves them out without a word."""
    if not isinstance(arguments, Mapping):
        return {}
    try:
        seen = _Seen(arguments)
        str(template) % seen
    except Exception:  # noqa: BLE001 - it does not fit the message, or an argument's own ``__str__``
        return {}
    return seen.unused


class _Seen:
    """A mapping of ``%`` arguments that notes which of them are used."""

    def __init__(self, arguments: Mapping[Any, Any]) -> None:
        self._arguments = arguments
        self.unused = dict(arguments)

    def __getitem__(self, name: Any) -> Any:
        self.unused.pop(name, None)
        return self._arguments[name]

    def __repr__(self) -> str:  # for a ``%s`` or ``%r`` that takes the mapping as a whole
        self.unused.clear()
        return ""


def unreadable(message: Any, error: Exception) -> Draft:
    """What can be had of an event whose values raise when they are read: its text, and why there is no more."""
    draft = Draft({}, text_of(message), nameable=False)
    draft.found[sc.CONVERTED] = [f"attributes: not read ({type(error).__name__})"]
    return draft


def exception_attributes(error: Any, text: str | None = None) -> dict[str, Any]:
    """Attributes for an exception, as ``exc_info`` has it.

    Args:
        error: an exception, or the triple of :func:`sys.exc_info`; anything else says nothing.
        text: the formatted trace, where there is one already.
    """
    trace: TracebackType | None = None
    if isinstance(error, tuple) and len(error) == 3:
        _, error, trace = error
    found: dict[str, Any] = {}
    if isinstance(error, BaseException):
        kind = type(error)
        module = kind.__module__
        found[sc.EXCEPTION_TYPE] = kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"
        found[sc.EXCEPTION_MESSAGE] = text_of(error)
        text = text or _format(error, trace or error.__traceback__)
    if text:
        found[sc.EXCEPTION_STACKTRACE] = text
    return found


def _format(error: BaseException, trace: TracebackType | None) -> str:
    try:
        return "".join(traceback.format_exception(type(error), error, trace))
    except Exception:  # noqa: BLE001 - foreign code (``__str__``, ``__notes__``); the rest of the trace is worth having
        return "".join(traceback.format_tb(trace)) + f"{type(error).__name__}: {text_of(error)}\n"


_severities: dict[object, tuple[int, str]] = {}


def severity_of_level(number: Any) -> tuple[int, str]:
    """OpenTelemetry severity of a level of :mod:`logging`: by its name where that is known, else by its number.

    The name is the registered one: formatters paint ``LogRecord.levelname``.
    """
    known = _severities.get(number)
    if known is None:
        text = str(logging.getLevelName(number)) if isinstance(number, int) else text_of(number)
        try:
            known = severity_of(text)[0], text
        except ValueError:
            known = _by_number(number), text
        if len(_severities) >= 1024:
            _severities.clear()
        _severities[number] = known
    return known


def _by_number(level: Any) -> int:
    """10 is DEBUG (5), 20 INFO (9), 30 WARN (13), 40 ERROR (17), 50 FATAL (21); between them, the step."""
    if not isinstance(level, int) or level < 1:
        return 1
    tens, ones = divmod(min(level, 59), 10)
    return 1 + 4 * tens + min(3, ones * 4 // 10)
