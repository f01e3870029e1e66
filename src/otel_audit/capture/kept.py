"""Records that could not be journaled on a thread that must not die: kept in memory, in order, and tried again."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from ..context import enter_own_thread, leave_own_thread
from ..errors import ConfigurationError, JournalError
from ..forks import in_child
from ..record import AuditRecord

KEPT_MAX: Final = 10_000
"""How many records are kept; a further one is refused, and the caller has to say so."""

_DELAY_S_FIRST: Final = 0.2
_DELAY_S_MAX: Final = 10.0

_all: weakref.WeakSet[Kept] = weakref.WeakSet()


class Kept:
    """The records of one handler that wait.

    They are tried again by a timer, by ``retry``, and before a new record when it is time for it.

    Args:
        send: journals a record, or raises.

    Attributes:
        records: oldest first.
    """

    def __init__(self, send: Callable[[AuditRecord], Any]) -> None:
        self._send = send
        self.records: deque[AuditRecord] = deque()
        self._reset()
        _all.add(self)

    def _reset(self) -> None:
        self.records.clear()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._delay_s = _DELAY_S_FIRST
        self._not_before_s = 0.0

    def add(self, record: AuditRecord) -> bool:
        """Keep a record; ``False`` where there is no room."""
        if len(self.records) >= KEPT_MAX:
            return False
        self.records.append(record)
        if len(self.records) == 1:
            self._not_before_s = time.monotonic() + self._delay_s
        self._start_timer()
        return True

    def retry(self, *, at_once: bool = True) -> bool:
        """Journal what is kept, in order; whether nothing is left.

        Stops where the journal does not take anything; a record that fails for another reason lets the others pass.
        Where another thread is at it, or this one further up its stack, it is left to that.

        Args:
            at_once: not only when it is time for it: a full journal may take a second to say so.
        """
        if not self.records:
            return True
        if not at_once and time.monotonic() < self._not_before_s:
            return False
        if not self._lock.acquire(blocking=False):
            return False
        try:
            for record in list(self.records):
                try:
                    self._send(record)
                except (JournalError, ConfigurationError):
                    self._not_before_s = time.monotonic() + self._delay_s
                    return False
                except Exception:  # noqa: BLE001, S112 - foreign code; it is tried again
                    continue
                self.records.remove(record)
        finally:
            self._lock.release()
        self._delay_s = _DELAY_S_FIRST
        return not self.records

    def _start_timer(self) -> None:
        if self._timer is None:
            timer = self._timer = threading.Timer(self._delay_s, self._on_timer)
            timer.daemon = True
            timer.name = "otel-audit-kept"
            try:
                timer.start()
            except RuntimeError:  # the interpreter is ending: flush() tries once more
                self._timer = None

    def _on_timer(self) -> None:
        enter_own_thread()
        try:
            self._timer = None
            self._delay_s = min(self._delay_s * 2, _DELAY_S_MAX)
            if not self.retry():
                self._start_timer()
        finally:
            leave_own_thread()


def _forget_in_child() -> None:
    for kept in list(_all):
        kept._reset()  # noqa: SLF001 - the records are the parent's, and it has them


in_child(_forget_in_child)
