"""How long to wait before the next try.  Pure: no clock, no sleep."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Exponential back-off with full jitter; there is no last try.

    Args:
        first_s: upper bound of the first wait, in seconds.
        max_s: upper bound of every wait, and of what a receiver may ask for.
        uniform: draws from a range; for tests.
    """

    first_s: float = 1.0
    max_s: float = 60.0
    uniform: Callable[[float, float], float] = random.uniform

    def wait_s(self, failures: int, asked_s: float | None = None) -> float:
        """Seconds to wait after this many failures in a row (at least 1).

        Args:
            failures: how often it failed since the last success.
            asked_s: what the receiver asked for; waited at least, up to ``max_s``.
        """
        bound = min(self.first_s * 2.0 ** min(failures - 1, 60), self.max_s)
        drawn = self.uniform(0.0, bound)
        if asked_s is None:
            return drawn
        return min(max(asked_s, 0.0), self.max_s) + drawn * 0.1


RETRY = Backoff()
BLOCKED = Backoff(first_s=5.0, max_s=300.0)
