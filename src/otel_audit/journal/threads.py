"""Threads of ours, and waking them from anywhere, signal handlers and finalisers included.

``threading.Event.set`` and ``threading.Thread.start`` take locks of the ``threading`` module.  A signal handler that
emits while its own thread holds one of them would wait for it for ever, so neither is used here.
"""

from __future__ import annotations

import _thread
import threading
import time
from collections.abc import Callable

from ..context import enter_own_thread, leave_own_thread


def owned_lock() -> tuple[threading.RLock, Callable[[], bool]]:
    """A lock, and what says whether the calling thread holds it.

    A signal handler or a finaliser may strike while its own thread holds a lock; it must know that, or it waits for
    itself.  Only the lock itself can say it without a moment of doubt: a mark beside it could be left over from an
    interrupted call, or not be set yet.
    """
    lock = threading.RLock()
    return lock, lock._is_owned  # type: ignore[attr-defined]  # noqa: SLF001 - as threading.Condition uses it


class Wake:
    """An event whose setting is one atomic operation.  Several settings before one wait are one."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake the waiting thread, or let the next wait return at once."""
        try:  # noqa: SIM105 - a waiting emit is woken by this
            self._lock.release()
        except RuntimeError:
            pass  # it is set already

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is set; whether it was.  Clears it."""
        return self._lock.acquire(timeout=max(timeout_s, 0.0))


class OwnThread:
    """A daemon thread whose log messages are never captured.

    Args:
        run: what it does; it ends when this returns.
    """

    def __init__(self, run: Callable[[], None]) -> None:
        self._run = run
        self._alive = False
        self._ident = 0
        self._turn: object = None

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._alive

    def start(self) -> None:
        """Start it, if it does not run.  At interpreter exit no thread can be started; then nothing happens."""
        if self._alive:
            return
        turn = self._turn = object()
        try:
            self._alive = True
            _thread.start_new_thread(self._body, (turn,))
        except RuntimeError:
            self._alive = False
        except BaseException:
            self._alive = False  # if it was started after all, it ends at once where another one is
            raise

    def _body(self, turn: object) -> None:
        if self._turn is not turn:
            return
        self._alive = True
        self._ident = threading.get_ident()
        enter_own_thread()
        try:
            self._run()
        finally:
            leave_own_thread()
            if self._turn is turn:
                self._alive = False

    def join(self, timeout_s: float) -> bool:
        """Wait until it has ended; whether it has in time."""
        deadline = time.monotonic() + timeout_s
        while self._alive and self._ident != threading.get_ident():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.002)
        return True
