r"""An event that passes two captures of one provider is journaled once.

What is one event?  **One ``LogRecord`` object**, however many handlers it is given to: by propagation, by a
``MemoryHandler``, in one thread or in several.  A copy is an event of its own (somebody may log copies on purpose, each
with something else in it), except where it can be seen what it stands for:

- a filter of an ``AuditHandler`` returns it: it stands for the record that the filter was given (:func:`stand_for`);
- structlog's ``ProcessorFormatter`` makes it: it stands for the record that is being formatted (:func:`original`);
- a ``QueueHandler`` makes it, and an ``AuditContextFilter`` was there before: both have what the filter has set.

**One structlog call**, however many processors see its event, and the ``LogRecord`` that was made from it: the one that
the call's frame (``_proxy_to_logger``) made by calling a logger.

A processor that is given several dictionaries in one structlog call is given several events.

Nothing is written on the ``LogRecord`` or into the event, where other handlers and renderers would show it.  Records
are remembered by weak references, which no other record can be taken for, whatever stamps it has.  A call is marked in
the mapping of its keywords, which structlog has copied before it runs the processors; it lives in the call's frame, and
is gone with it.

Where it cannot be told what a record stands for it is journaled twice, never not at all.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import FrameType
from typing import Any, Final
from weakref import ref

RECORDS_MAX: Final = 10_000
"""How many records are remembered.  At one more those that are gone are forgotten; if there are none, all are."""

_LOG: Final = logging.Logger._log.__code__  # noqa: SLF001
_HANDLE: Final = logging.Logger.handle.__code__
_FORMAT: Final = logging.Handler.format.__code__
_PROXY: Final = "_proxy_to_logger"
_KEYWORDS: Final = "event_kw"
_MARK: Final = "_otel_audit_journaled_by"

_records: dict[int, tuple[Any, ...]] = {}
"""Identity of a ``LogRecord`` → a weak reference to it, and the providers that have journaled it."""


class _Calls(threading.local):
    """The structlog calls of this thread.

    Attributes:
        are_marked: whether one that is in progress may have been journaled: only then is the stack searched.
    """

    are_marked = False


_calls = _Calls()
_are_any_marked = False
"""Whether a structlog call was ever marked in this process: what belongs to a thread takes longer to look at."""


def claim(record: logging.LogRecord, provider: object) -> bool:
    """Whether the provider has yet to journal this ``LogRecord``; from now on it has, unless :func:`release` is called.

    Not where it has journaled the structlog event that the record was made from.
    """
    key = id(record)
    seen = _records.get(key)
    if seen is not None and seen[0]() is record:
        if provider in seen:
            return False
        _records[key] = (*seen, provider)
    elif seen is None and len(_records) >= RECORDS_MAX:
        _remember(record, provider)
    else:  # nearly always: a call would take as long as this
        _records[key] = (ref(record), provider)
    return not (_are_any_marked and _calls.are_marked) or provider not in _journaled_by_call(record)


def release(record: logging.LogRecord, provider: object) -> None:
    """The provider has not journaled this ``LogRecord`` after all."""
    _remember(record, *(each for each in _journaled(record) if each is not provider))


def journaled_by(record: logging.LogRecord) -> tuple[object, ...]:
    """Every provider that has journaled this ``LogRecord``, or the structlog event that it was made from."""
    return (*_journaled(record), *(_journaled_by_call(record) if _calls.are_marked else ()))


def stand_for(copy: logging.LogRecord, record: logging.LogRecord) -> None:
    """The copy is the same event: it has been journaled by those that have journaled the record."""
    _remember(copy, *journaled_by(record))


def original(record: logging.LogRecord) -> logging.LogRecord:
    """The record that is being formatted, where this is a formatter's copy of it; else the record itself."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the one way to know the caller
    while frame is not None and frame.f_code is not _FORMAT:
        frame = frame.f_back
    formatted = frame.f_locals.get("record") if frame is not None else None
    if isinstance(formatted, logging.LogRecord) and formatted.relativeCreated is record.relativeCreated:
        return formatted
    return record


def claim_call(provider: object, processor: object, event: object) -> bool:
    """Whether the provider has yet to journal the event of the structlog call in progress on this thread.

    From now on it has, unless :func:`release_call` is called.  Where there is no such call this cannot be told: true.
    So it is where one processor is given several dictionaries in one call: somebody makes several events of it.
    """
    global _are_any_marked  # noqa: PLW0603 - one process, one mark
    keywords = _keywords_of_call()
    if keywords is None:
        return True
    marks = keywords.get(_MARK, ())
    for journaled_by, through, seen in marks:
        if journaled_by is provider and (through is not processor or seen is event):
            return False
    keywords[_MARK] = (*marks, (provider, processor, event))
    _calls.are_marked = _are_any_marked = True
    return True


def release_call(provider: object) -> None:
    """The provider has not journaled the event of the structlog call in progress after all."""
    keywords = _keywords_of_call()
    if keywords is not None:
        keywords[_MARK] = tuple(mark for mark in keywords.get(_MARK, ()) if mark[0] is not provider)


def _journaled(record: logging.LogRecord) -> tuple[Any, ...]:
    seen = _records.get(id(record))
    return seen[1:] if seen is not None and seen[0]() is record else ()


def _remember(record: logging.LogRecord, *providers: object) -> None:
    if len(_records) >= RECORDS_MAX and id(record) not in _records:
        _make_room()
    _records[id(record)] = (ref(record), *providers)


def _make_room() -> None:
    # A copy, and not a list of items: making those can collect garbage, and a finaliser may log.
    for key, seen in _records.copy().items():
        if seen[0]() is None:
            _records.pop(key, None)
    if len(_records) >= RECORDS_MAX:
        _records.clear()


def _keywords_of_call() -> Any:
    """The keywords of the structlog call that runs the processor; ``None`` where there is none.

    A processor that a formatter runs has a ``LogRecord``, not the event of a call further out.
    """
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001
    while frame is not None and frame.f_code.co_name != _PROXY:
        if frame.f_code.co_filename == _LOG.co_filename:
            return None
        frame = frame.f_back
    return _keywords(frame)


def _journaled_by_call(record: logging.LogRecord) -> tuple[Any, ...]:
    """Who journaled the event of the structlog call whose frame called the logger that made this record."""
    here = sys._getframe(1)  # noqa: SLF001
    frame = _made_in(here, record)
    while frame is not None and frame.f_code.co_filename == _LOG.co_filename:
        frame = frame.f_back
    keywords = _keywords(frame)
    if keywords is not None:
        return tuple(mark[0] for mark in keywords.get(_MARK, ()))
    frame = here
    while frame is not None and _MARK not in (_keywords(frame) or ()):
        frame = frame.f_back
    if frame is None:
        _calls.are_marked = False  # those that were have returned: no need to look again
    return ()


def _made_in(frame: FrameType | None, record: logging.LogRecord) -> FrameType | None:
    """The frame of ``Logger._log`` that made the record, or one that a filter of the logger has put in its place."""
    while frame is not None:
        back = frame.f_back
        if frame.f_code is _LOG and frame.f_locals.get("record") is record:
            return frame
        if (
            frame.f_code is _HANDLE
            and back is not None
            and back.f_code is _LOG
            and frame.f_locals.get("record") is record
        ):
            return back
        frame = back
    return None


def _keywords(frame: FrameType | None) -> Any:
    """The keyword mapping of a structlog call; ``None`` for a frame that is none."""
    if frame is None or frame.f_code.co_name != _PROXY:
        return None
    return frame.f_locals.get(_KEYWORDS)
