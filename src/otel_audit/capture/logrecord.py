"""Reads a ``LogRecord``: what is standard in it, what its caller gave, and what it says of itself."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, Final

from .. import semconv as sc
from ..context import current_trace
from . import eventdict
from .draft import Draft, exception_attributes, severity_of_level, unused_arguments
from .fields import ORIGINAL_ARGUMENTS, text_of

STANDARD: Final = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {
    "asctime",
    "message",
    "taskName",
}
"""Names that a ``LogRecord`` or a formatter sets: none of them is the caller's."""

CARRIED: Final = "otel_audit_context"
"""The attribute of a ``LogRecord`` in which ``AuditContextFilter`` carries context across a queue."""


class Carried(dict[str, Any]):
    """What ``AuditContextFilter`` puts there.

    A type of its own, so that an extra of that name, whose value may come from anywhere, is nothing but an extra.
    """


_STRUCTLOG: Final = frozenset({"_logger", "_name"})
"""What structlog's ``wrap_for_formatter`` sets on a record whose message is an event dictionary."""

CREATED_MAX: Final = 2**63 / 1e9
"""The largest time in seconds that nanoseconds in 64 bits can hold."""


def read(record: logging.LogRecord, apart: Collection[str], include: Collection[str]) -> Draft:
    """Read it with care.

    Args:
        record: is not changed.
        apart: names that are not the caller's.
        include: ``"source"``, ``"thread"``, ``"process"``: what to add.
    """
    state = record.__dict__
    carried: Mapping[str, Any] = carried_by(record) or {}
    message, nameable, misfits = message_of(record)
    unused = unused_arguments(record.msg, record.args)
    melted = carried and is_melted(record)
    if melted:
        message, nameable, misfits = carried["message"], carried["nameable"], carried["misfits"]
        unused = carried["unused"]
    given = {name: value for name, value in state.items() if name not in apart}
    if CARRIED in state and not carried:
        given[CARRIED] = state[CARRIED]
    if isinstance(message, Mapping) and (state.keys() >= _STRUCTLOG or isinstance(message.get("event"), str)):
        draft = _with_event(given, message)
    else:
        draft = Draft(given, message, nameable=nameable)
        draft.misfits = misfits
    if unused:
        draft.found[ORIGINAL_ARGUMENTS] = unused
    _describe(record, draft)
    if carried:
        draft.facts = carried["facts"]
        draft.trace_id, draft.span_id = carried["trace"]
    if melted:
        draft.found.update(carried["exception"])
    stack = (carried["stack"] if melted else None) or record.stack_info
    if stack:
        draft.found[sc.CODE_STACKTRACE] = text_of(stack)
    draft.found.update(surroundings(record, include))
    return draft


def read_formatted(record: logging.LogRecord, event: Mapping[str, Any]) -> Draft:
    """Read what a ``ProcessorFormatter`` gives to its processors: an event, and the record that it formats.

    The event has the message and, from the record, only what the chain has copied; so its extras are added.
    """
    given = {name: value for name, value in record.__dict__.items() if name not in STANDARD}
    if carried_by(record):
        del given[CARRIED]
    draft = _with_event({name: value for name, value in given.items() if name not in event}, event)
    _describe(record, draft)
    return draft


def _with_event(given: dict[str, Any], event: Mapping[str, Any]) -> Draft:
    """An event, and the extras of the record that it came with."""
    for name in _STRUCTLOG:
        given.pop(name, None)
    for name in given.keys() & event.keys():
        given[sc.ORIGINAL_PREFIX + name] = given.pop(name)
    return eventdict.read({**given, **event})


def _describe(record: logging.LogRecord, draft: Draft) -> None:
    """Add what the record says of itself."""
    draft.severity = severity_of_level(record.levelno)
    draft.found[sc.LOGGER_NAME] = record.name
    draft.found.update(exception_attributes(record.exc_info, record.exc_text))
    if not draft.timestamp_ns:
        draft.timestamp_ns = created_ns(record.created)
        if not draft.timestamp_ns:
            draft.found.setdefault(sc.ORIGINAL_TIMESTAMP, record.created)
    draft.trace_id, draft.span_id = current_trace()


_BLANK: Final = {**logging.makeLogRecord({}).__dict__, "name": "unknown", "levelno": 0}
_NEEDED: Final = frozenset(_BLANK) - {"taskName"}


def mended(record: logging.LogRecord) -> logging.LogRecord | None:
    """A copy that has what every record has, and usable; ``None`` where nothing is wrong with the record itself.

    A filter may have taken a part of it away, and whoever makes records by hand may put a list where a name belongs.
    """
    state = record.__dict__
    missing = _NEEDED - state.keys()
    odd = [name for name in ("name", "levelno", "thread") if name not in missing and not _is_hashable(state[name])]
    if not missing and not odd:
        return None
    copy = logging.makeLogRecord({})
    blank = {name: _BLANK[name] for name in missing - {"created", "thread", "threadName", "process"}}
    copy.__dict__.update(state, **blank, **{name: text_of(state[name]) for name in odd})
    return copy


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except Exception:  # noqa: BLE001 - the value's own method
        return False
    return True


def carried_by(record: logging.LogRecord) -> Carried | None:
    """What an ``AuditContextFilter`` has put on the record; ``None`` where none has."""
    carried = record.__dict__.get(CARRIED)
    return carried if type(carried) is Carried else None


def is_melted(record: logging.LogRecord) -> bool:
    """Whether a queue's handler has made one text of the message, its arguments and the traceback.

    It sets ``args`` to ``None``, which no logger does.  What is not melted is read as it is: it may have been changed,
    by a filter that takes secrets out, since :func:`carry` saw it.
    """
    return record.args is None


def carry(record: logging.LogRecord) -> dict[str, Any]:
    """What a queue's handler would take away: the message as it was, the exception, the stack."""
    message, nameable, misfits = message_of(record)
    unused = unused_arguments(record.msg, record.args)
    if misfits is not None:
        record.args = None  # formatting it would raise in the queue's handler, which then drops the record
    return {
        "message": message if isinstance(message, (str, Mapping)) else text_of(message),
        "nameable": nameable,
        "misfits": misfits,
        "unused": unused,
        "exception": exception_attributes(record.exc_info, record.exc_text),
        "stack": record.stack_info,
    }


def message_of(record: logging.LogRecord) -> tuple[Any, bool, Any]:
    """The message; whether it may be a name; and the ``%`` arguments, where they do not fit it."""
    if not record.args:
        return record.msg, True, None
    try:
        return record.getMessage(), False, None
    except Exception:  # noqa: BLE001 - bad arguments, or an argument's own ``__str__``
        arguments: Any = record.args
        if isinstance(arguments, Mapping):
            return record.msg, False, dict(arguments)
        return record.msg, False, list(arguments) if isinstance(arguments, (tuple, list)) else [arguments]


def created_ns(created: Any) -> int:
    """``LogRecord.created`` in nanoseconds; 0 where it is no time."""
    if isinstance(created, (int, float)) and 0 < created < CREATED_MAX:
        return int(created * 1e9)
    return 0


def surroundings(record: logging.LogRecord, include: Collection[str]) -> dict[str, Any]:
    """Attributes for where in the program it was logged, as far as they are asked for."""
    found: dict[str, Any] = {}
    if "source" in include:
        found[sc.CODE_FILE_PATH] = record.pathname
        found[sc.CODE_LINE_NUMBER] = record.lineno
        if record.funcName:
            found[sc.CODE_FUNCTION_NAME] = record.funcName
    if "thread" in include and record.thread is not None:
        found[sc.THREAD_ID] = record.thread
        found[sc.THREAD_NAME] = record.threadName
    if "process" in include and record.process is not None:
        found[sc.PROCESS_PID] = record.process
    return found
