"""The room of a journal, shared by all processes that write to it: nobody writes what was not reserved.

A reservation is the size of a stream's lock file, which has no other content and takes no blocks.  Whoever measures the
journal adds up the sizes of all files, so it counts what others have reserved without asking them.  A process reserves
first and measures then: of two that do so at once each sees the other, and together they never take more than there is.

What is left over when a process ends in order is given back; after a ``kill -9`` whoever trims the dead stream does it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path
from typing import Final

from ..errors import JournalFullError
from .layout import Layout
from .streams import usage_bytes

RESERVATION_BYTES: Final = 1024 * 1024
"""So much a process reserves at a time, and so much it may hold without using it."""
_LEAST_BYTES: Final = 4096
_MEASURING_S: Final = 0.001
_LONGER_MAX: Final = 16.0


class Room:
    """What one process has reserved.

    Args:
        layout: the journal.
        bytes_max: the size that it may reach.

    Attributes:
        admitted: what was reserved for the stream that was made last, in bytes.
    """

    def __init__(self, layout: Layout, bytes_max: int) -> None:
        self._layout = layout
        self._bytes_max = bytes_max
        self._lock = threading.RLock()
        self._next = min(RESERVATION_BYTES, max(bytes_max // 64, _LEAST_BYTES))
        self.admitted = 0

    def reserve(self, lock: Path) -> int:
        """Reserve room for the next records of a stream; how many bytes.

        Args:
            lock: the stream's lock file.

        Raises:
            JournalFullError: there is none.
            OSError: the file cannot be changed, or the journal not be measured.
        """
        with self._lock:  # of two threads one would measure what the other has just given back
            return self._reserve(lock)

    def _reserve(self, lock: Path) -> int:
        began = time.perf_counter()
        want = self._next
        self._set(lock, want)
        room = self._bytes_max - usage_bytes(self._layout.root)
        if room < 0:
            want = max(want + room, 0)
            self._set(lock, want)
        # In a journal of thousands of streams measuring takes long, and is done less often.
        longer = max(1.0, min((time.perf_counter() - began) / _MEASURING_S, _LONGER_MAX))
        self._next = max(min(int(RESERVATION_BYTES * longer), self._bytes_max // 64, room // 16), _LEAST_BYTES)
        if not want:
            raise JournalFullError(
                f"journal: {self._layout.root} has reached max_bytes ({self._bytes_max}); nothing was written. "
                "Delivered records make room: see `otel-audit status` for the destination that does not take them",
                journaled=False,
            )
        return want

    def admit(self, lock: Path) -> None:
        """A stream is about to be made: reserve for its first records.

        Raises:
            JournalFullError, OSError: as :meth:`reserve`.
        """
        self.admitted = self.reserve(lock)

    def give_back(self, lock: Path) -> None:
        """The stream has ended: what is left is for others.  Does not raise."""
        with contextlib.suppress(OSError):  # whoever trims the stream does it then
            self._set(lock, 0)

    def _set(self, lock: Path, size: int) -> None:
        with contextlib.suppress(FileNotFoundError):  # somebody removed it; the next look at the stream notices
            self._layout.files.truncate(lock, size)
