"""Group commit: many callers that want their record on the disk share one sync.

A caller takes a ticket.  One of the callers leads: it syncs once, for everything written until then, and releases the
tickets that this covers.  Whoever was there the last time is probably on the way with the next record, so the one who
completes their number leads at once, and nobody leads before, unless the others are late: a sync that begins with one
record makes all others wait for two.  A sync that fails fails every ticket that waited when it began.

An exception that strikes anywhere (a ``KeyboardInterrupt``) can delay the others by at most ``PATIENCE_S``: tickets
are waited for with a time limit, then their holder leads.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from ..errors import JournalSyncError
from .threads import Wake, owned_lock

PATIENCE_S: Final = 0.05
COMPANY_SHARE: Final = 0.5
"""How long the first in the queue waits for company, as a share of the time that a sync takes."""
COMPANY_S_MAX: Final = 0.002


class _Ticket(Wake):
    """One caller's place in the queue; who is released wakes the next one, so that not all crowd at once."""

    __slots__ = ("error", "left", "next", "sequence")

    def __init__(self, sequence: int) -> None:
        super().__init__()
        self.sequence = sequence
        self.error: Exception | None = None
        self.left = False
        self.next: _Ticket | None = None


class GroupCommit:
    """Lets callers wait until their record is on the disk.

    Args:
        sync: syncs everything written so far and returns the last sequence number that this covers.  Raises what
            the waiting callers are to see.
    """

    def __init__(self, sync: Callable[[], int]) -> None:
        self._sync = sync
        self._covered = 0
        self._lock, self._leading = owned_lock()
        self._busy = False
        self._queue: deque[_Ticket] = deque()
        self._expected = 1
        self._sync_s = 0.0

    @property
    def covered(self) -> int:
        """The last sequence number that is known to be on the disk."""
        return self._covered

    def wait(self, sequence: int) -> None:
        """Return when the record with this sequence number is on the disk.

        Raises:
            JournalSyncError: the sync that would have covered it failed.
        """
        if self._covered >= sequence:
            return
        if self._leading():  # a signal handler or finaliser within a sync of its own thread: it cannot wait for itself
            self._covered = max(self._covered, self._sync())
            if self._covered < sequence:
                raise JournalSyncError("journal: emitted within a sync: not known to be on the disk", journaled=None)
            return
        if self._expected == 1 and not self._queue and not self._busy:  # alone: no queue is needed
            self._lead(sequence, unqueued=1)
            if self._covered >= sequence:
                return
        ticket = _Ticket(sequence)
        try:
            self._queue.append(ticket)
            self._wait(ticket)
        finally:
            if ticket.next is not None:
                ticket.next.set()
            if not ticket.left:
                with contextlib.suppress(ValueError):
                    self._queue.remove(ticket)
        if ticket.error is not None and self._covered < sequence:
            raise JournalSyncError(str(ticket.error), journaled=None) from ticket.error

    def _wait(self, ticket: _Ticket) -> None:
        late = False
        while self._covered < ticket.sequence and ticket.error is None:
            if not self._busy and (late or len(self._queue) >= self._expected):
                self._lead(ticket.sequence)
                late = False
            elif self._busy or not self._is_first(ticket):
                late = not ticket.wait(PATIENCE_S)
            else:
                late = not ticket.wait(min(self._sync_s * COMPANY_SHARE, COMPANY_S_MAX))

    def _is_first(self, ticket: _Ticket) -> bool:
        try:
            return self._queue[0] is ticket
        except IndexError:  # it was just released
            return False

    def sync_now(self) -> None:
        """Sync what was written until now, without waiting for company.

        Raises:
            JournalSyncError: it failed; so do the tickets that wait for it.
        """
        if self._leading():
            self._covered = max(self._covered, self._sync())
        else:
            self._lead(None)

    def _lead(self, sequence: int | None, unqueued: int = 0) -> None:
        """Sync for all who wait, unless somebody else did it for this record while we waited for our turn.

        Args:
            sequence: the record's number; ``None``: sync in any case.
            unqueued: how many callers wait for this without a ticket.
        """
        try:
            with self._lock:
                if sequence is None or self._covered < sequence:
                    try:
                        self._busy = True
                        self._sync_for(list(self._queue), unqueued)
                    finally:
                        self._busy = False
        finally:
            self._wake_next()

    def _sync_for(self, tickets: list[_Ticket], unqueued: int) -> None:
        """Sync, and release those who wait; what they wait for was written before."""
        begun = time.perf_counter()
        try:
            covered = self._sync()
        except Exception as error:
            for ticket in tickets:
                ticket.error = error
            self._release(unqueued)
            raise
        self._sync_s = time.perf_counter() - begun
        self._covered = max(self._covered, covered)
        for ticket in tickets:
            if ticket.sequence > covered:
                ticket.error = JournalSyncError("journal: the stream ended before it was synced", journaled=None)
        self._release(unqueued)

    def _release(self, unqueued: int) -> None:
        """Let those go who are served; they and the ones who came meanwhile are expected the next time."""
        covered, served = self._covered, []
        for _ in range(len(self._queue)):
            try:
                ticket = self._queue.popleft()
            except IndexError:  # others gave up
                break
            if ticket.sequence <= covered or ticket.error is not None:
                ticket.left = True
                served.append(ticket)
            else:
                self._queue.append(ticket)
        self._expected = unqueued + len(served) + len(self._queue) or self._expected
        for ticket, following in itertools.pairwise(served):
            ticket.next = following
        if served:
            served[0].set()

    def _wake_next(self) -> None:
        if self._queue:
            with contextlib.suppress(IndexError):
                self._queue[0].set()
