"""Across a queue: what a ``QueueHandler`` would lose of a record, and being on the thread of a ``QueueListener``."""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any, Final

from .. import context
from .. import semconv as sc
from . import logrecord, once

_LISTENER: Final = (
    logging.handlers.QueueListener.handle.__code__,
    logging.handlers.QueueListener._monitor.__code__,  # type: ignore[attr-defined] # noqa: SLF001
)


class AuditContextFilter(logging.Filter):
    """Carries across a queue what an ``AuditHandler`` behind it cannot know otherwise.

    That is the audit context and the trace of the thread that logs, and what a ``QueueHandler`` makes one text of: the
    message, its arguments, the exception.  Put it on the ``QueueHandler`` (or on its logger).  It drops no record.

    It sets ``record.otel_audit_context``, of plain values as far as the context's are.  Where ``%`` arguments do not
    fit the message it takes them off the record: the queue's handler would raise at them, and drop the record.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the attribute; true."""
        state = record.__dict__
        before = logrecord.carried_by(record)
        if before is None:
            if logrecord.CARRIED in state:  # an extra by that name, which moves aside
                state[sc.ORIGINAL_PREFIX + logrecord.CARRIED] = state[logrecord.CARRIED]
            before = logrecord.Carried(
                facts=dict(context.current()), trace=context.current_trace(), own_thread=context.in_own_thread()
            )
        elif logrecord.is_melted(record):
            return True
        # Also where it carries something already: it may be a changed copy that somebody logs anew.
        state[logrecord.CARRIED] = logrecord.Carried(
            {**before, **logrecord.carry(record), "journaled": _journaled_by(record)}
        )
        return True


def _journaled_by(record: logging.LogRecord) -> list[tuple[int, int]]:
    return [(os.getpid(), id(provider)) for provider in once.journaled_by(record)]


def is_journaled(carried: Mapping[str, Any], provider: object) -> bool:
    """Whether the record that a queue's copy was made from was journaled before; any other copy is another event."""
    return (os.getpid(), id(provider)) in carried["journaled"] and on_listener()


def on_listener() -> bool:
    """Whether a ``QueueListener`` is calling: an exception would end its thread, and what is in the queue is lost."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the one way to know the caller
    while frame is not None:
        if frame.f_code in _LISTENER or (
            frame.f_code.co_name in ("handle", "_monitor")
            and isinstance(frame.f_locals.get("self"), logging.handlers.QueueListener)
        ):
            return True
        frame = frame.f_back
    return False
