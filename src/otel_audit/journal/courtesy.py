"""Letting other threads run while a large batch is read or written.

CPython takes the interpreter from a thread that computes only after the switch interval, 5 ms, and most of what an
application does beside a delivery is shorter than that.  So a thread of ours gives way by itself.  It has to sleep for
that: a thread that waits needs some 50 µs to wake up, and who asks again sooner has the interpreter again.  To get it
back from a busy application costs both about 100 µs of CPU: at each of its own short system calls the other wakes us,
and is back before we are awake.  So it is not done after each record: soon where a caller waits for the disk, because
that one is measured in tenths of a millisecond; else every millisecond.
"""

from __future__ import annotations

import time
from typing import Final

HOLD_S: Final = 0.001
"""So long a thread of ours computes at most before it gives way."""
SOON_S: Final = 0.02
"""So long after somebody waited for the disk the next one is expected."""


class Courtesy:
    """When somebody waited for the disk last, and when somebody gave way.  Shared by all threads, without a lock."""

    __slots__ = ("_gave_way_s", "_waited_s")

    def __init__(self) -> None:
        self._waited_s = 0.0
        self._gave_way_s = 0.0

    def expect_waiting(self) -> None:
        """A caller is about to wait for the disk."""
        self._waited_s = time.monotonic()

    def let_others_run(self) -> None:
        """Give the interpreter to a thread that wants it, where it is time to."""
        now = time.monotonic()
        if now - self._gave_way_s >= HOLD_S or now - self._waited_s < SOON_S:
            time.sleep(0)
            self._gave_way_s = time.monotonic()


_courtesy: Final = Courtesy()
expect_waiting: Final = _courtesy.expect_waiting
let_others_run: Final = _courtesy.let_others_run
