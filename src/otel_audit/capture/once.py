r"""An event that passes two captures of one provider is journaled once.

Three ways lead past two of them: a ``LogRecord`` that propagates past two ``AuditHandler``\\ s; a structlog event that
``StructlogAuditProcessor`` journals and that then reaches an ``AuditHandler`` as a ``LogRecord``; and a ``LogRecord``
that structlog's ``ProcessorFormatter`` runs through a processor.

Nothing is written on the ``LogRecord`` or into the event (other handlers and renderers would show it).  A ``LogRecord``
and its copies are known by the *identity* of their ``relativeCreated``, a number object that is made anew for every
record.  A structlog call is known by the identity of its keyword mapping, which lives in the frame of structlog's
``_proxy_to_logger`` for as long as the call lasts; a ``LogRecord`` was made from it where that very frame called the
logger that made the record.  What is compared is referred to from here, so that nothing else can take its identity.

Where this cannot be told (a wrapper of one's own around the logger) the event is journaled twice, never not at all.
"""

from __future__ import annotations

import logging
import sys
import threading
from types import FrameType
from typing import Any, Final

_LOG: Final = logging.Logger._log.__code__  # noqa: SLF001
_PROXY: Final = "_proxy_to_logger"
_KEYWORDS: Final = "event_kw"


_THREADS_MAX: Final = 10_000

_last: dict[Any, tuple[object, ...]] = {}
"""Thread that logged → ``relativeCreated`` of the last ``LogRecord`` journaled of it, and the providers that did so."""


class _Call(threading.local):
    """The structlog call of this thread whose event was journaled last.

    Attributes:
        keywords: the keyword mapping of the call.
        providers: those that journaled its event.
    """

    keywords: object = None
    providers: tuple[object, ...] = ()


_call = _Call()


def claim(record: logging.LogRecord, provider: object) -> bool:
    """Whether the provider has yet to journal this ``LogRecord``; from now on it has, unless :func:`release` is called.

    Not where it has journaled the structlog event that the record was made from.
    """
    stamp = record.relativeCreated
    last = _last.get(record.thread)
    if last is not None and last[0] is stamp:
        if provider in last:
            return False
        _last[record.thread] = (*last, provider)
    else:
        if len(_last) >= _THREADS_MAX:
            _last.clear()
        _last[record.thread] = (stamp, provider)
    return _call.keywords is None or provider not in _providers_of_call(record)


def release(record: logging.LogRecord) -> None:
    """Nobody has journaled this ``LogRecord`` after all."""
    _last.pop(record.thread, None)


def journaled_by(record: logging.LogRecord) -> tuple[object, ...]:
    """Every provider that has journaled this ``LogRecord``, or the structlog event that it was made from."""
    last = _last.get(record.thread)
    providers = last[1:] if last is not None and last[0] is record.relativeCreated else ()
    return (*providers, *(_providers_of_call(record) if _call.keywords is not None else ()))


def claim_call(provider: object) -> bool:
    """Whether the provider has yet to journal the event of the structlog call in progress on this thread.

    From now on it has, unless :func:`release_call` is called.  Where there is no such call this cannot be told: true.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the one way to know the caller
    while frame is not None and frame.f_code.co_name != _PROXY:
        if frame.f_code.co_filename == _LOG.co_filename:
            return True  # a formatter runs the processor: the event is a LogRecord's, not that of a call further out
        frame = frame.f_back
    keywords = _keywords(frame)
    if keywords is None:
        return True
    if _call.keywords is not keywords:
        _call.keywords = keywords
        _call.providers = (provider,)
    elif provider in _call.providers:
        return False
    else:
        _call.providers = (*_call.providers, provider)
    return True


def release_call() -> None:
    """Nobody has journaled the event of the structlog call after all."""
    _call.keywords = None


def _providers_of_call(record: logging.LogRecord) -> tuple[object, ...]:
    """Who journaled the event of the structlog call whose frame called the logger that made this record."""
    here = sys._getframe(1)  # noqa: SLF001
    frame: FrameType | None = here
    while frame is not None and not (frame.f_code is _LOG and _made(frame, record)):
        frame = frame.f_back
    while frame is not None and frame.f_code.co_filename == _LOG.co_filename:
        frame = frame.f_back
    if _keywords(frame) is _call.keywords:
        return _call.providers
    frame = here
    while frame is not None and _keywords(frame) is not _call.keywords:
        frame = frame.f_back
    if frame is None:
        _call.keywords = None  # it has returned: no need to look again
    return ()


def _made(frame: FrameType, record: logging.LogRecord) -> bool:
    made = frame.f_locals.get("record")
    return made is not None and made.relativeCreated is record.relativeCreated


def _keywords(frame: FrameType | None) -> Any:
    """The keyword mapping of a structlog call; ``None`` for a frame that is none."""
    if frame is None or frame.f_code.co_name != _PROXY:
        return None
    return frame.f_locals.get(_KEYWORDS)
