"""When to try again: of a whole destination, or of one stream that is stuck while others go on."""

from __future__ import annotations

import time
from collections.abc import Callable

from .backoff import Backoff


class Patience:
    """Failures in a row, and the time before which nothing is tried.

    Args:
        clock: monotonic seconds; for tests.

    Attributes:
        failures: how often it failed since it last worked.
        not_before_s: when the next try is due, by the clock.
        since_s: when the first of these failures was, by the clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._asked = False
        self._failed_s = 0.0
        self.failures = 0
        self.not_before_s = 0.0
        self.since_s = 0.0

    @property
    def waiting(self) -> bool:
        """Whether it is too early to try."""
        return self._clock() < self.not_before_s

    @property
    def failing_s(self) -> float:
        """For how long it has been failing, in seconds."""
        return self._clock() - self.since_s if self.failures else 0.0

    @property
    def waited_s(self) -> float:
        """How long ago it failed last, in seconds."""
        return self._clock() - self._failed_s

    def failed(self, backoff: Backoff, asked_s: float | None = None) -> None:
        """It failed: wait.

        Args:
            backoff: how long.
            asked_s: what the receiver asked for.
        """
        now = self._clock()
        if not self.failures:
            self.since_s = now
        self.failures += 1
        self._failed_s = now
        self._asked = asked_s is not None
        self.not_before_s = now + backoff.wait_s(self.failures, asked_s)

    def pause(self, seconds: float) -> None:
        """It is only too early: wait so long.  This is no failure, and nobody can hurry it."""
        self._asked = True
        self.not_before_s = self._clock() + seconds

    def succeeded(self) -> None:
        """It works."""
        self.failures = 0
        self.not_before_s = 0.0

    def hurry(self) -> None:
        """Somebody waits: try at once, unless the receiver asked for patience."""
        if not self._asked:
            self.not_before_s = 0.0
