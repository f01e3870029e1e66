"""Counters of one provider, without a lock."""

from __future__ import annotations

import threading


class Counters:
    """Named counts.

    Each thread adds to a count of its own, so no lock is needed, which a signal handler could wait for for ever.  What
    a signal handler counts in the middle of the same count of its own thread may be missed; all else is exact.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], int] = {}

    def add(self, name: str, n: int = 1) -> None:
        """Count."""
        key = (name, threading.get_ident())
        self._counts[key] = self._counts.get(key, 0) + n

    def read(self) -> dict[str, int]:
        """The sums, by name."""
        sums: dict[str, int] = {}
        for (name, _), n in self._counts.copy().items():
            sums[name] = sums.get(name, 0) + n
        return dict(sorted(sums.items()))

    def clear(self) -> None:
        """Begin at nothing (in a forked child)."""
        self._counts.clear()
