"""Threads of ours, and waking them from anywhere, signal handlers and finalisers included.

``threading.Event.set`` and ``threading.Thread.start`` take locks of the ``threading`` module.  A signal handler that
emits while its own thread holds one of them would wait for it for ever, so neither is used here.
"""

from __future__ import annotations

import _thread
import contextlib
import threading
import time
from collections.abc import Callable

from ..context import enter_own_thread, leave_own_thread


class Wake:
    """An event whose setting is one atomic operation.  Several settings before one wait are one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """Wake the waiting thread, or let the next wait return at once."""
        with contextlib.suppress(RuntimeError):
            self._lock.release()

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

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._alive

    def start(self) -> None:
        """Start it, if it does not run.  At interpreter exit no thread can be started; then nothing happens."""
        if self._alive:
            return
        self._alive = True
        try:
            _thread.start_new_thread(self._body, ())
        except RuntimeError:
            self._alive = False

    def _body(self) -> None:
        self._ident = threading.get_ident()
        enter_own_thread()
        try:
            self._run()
        finally:
            leave_own_thread()
            self._alive = False

    def join(self, timeout_s: float) -> bool:
        """Wait until it has ended; whether it has in time."""
        deadline = time.monotonic() + timeout_s
        while self._alive and self._ident != threading.get_ident():
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.002)
        return True
