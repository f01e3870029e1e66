"""What fails again and again is said once, and then rarely: a full disk must not fill the log too."""

from __future__ import annotations

import time
from typing import Final

from ..own_log import OwnLog
from .files import with_repair

SAY_EVERY_S: Final = 600.0


class Complaint:
    """Something that fails for as long as somebody does not repair it.

    Args:
        log: where it is said.
    """

    def __init__(self, log: OwnLog) -> None:
        self._log = log
        self._said: tuple[int | None, float] | None = None

    def say(self, text: str, error: OSError) -> None:
        """Say it, with the repair; the same error at most once in :data:`SAY_EVERY_S`."""
        now = time.monotonic()
        if self._said is None or self._said[0] != error.errno or now - self._said[1] >= SAY_EVERY_S:
            self._said = (error.errno, now)
            self._log.warning("%s", with_repair(f"{text}, which is tried again: {error.strerror or error}", error))
