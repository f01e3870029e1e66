"""Ending in order: a signal that wakes whoever waits."""

from __future__ import annotations

import signal
from types import FrameType

from ..journal.threads import Wake


class Stop:
    """Whether to stop, and waiting for that."""

    def __init__(self) -> None:
        self.asked = False
        self._wake = Wake()

    def set(self) -> None:
        """Stop.  Safe in signal handlers."""
        self.asked = True
        self._wake.set()

    def wait(self, timeout_s: float) -> bool:
        """Wait until it is asked for, or time is up; whether it is asked for."""
        return self.asked or self._wake.wait(timeout_s) or self.asked


def stop_on(*signals: signal.Signals) -> Stop:
    """A :class:`Stop` that is set by the first of these signals; the second one of a kind ends the process."""
    stop = Stop()

    def handle(number: int, _: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in signals:
        signal.signal(number, handle)
    return stop
