"""Group commit: many callers that want their record on the disk share one sync.

A caller takes a ticket.  Whoever finds nobody syncing leads: it syncs once, for everything written until then, and
releases all tickets that this covers.  A leader that expects company (as many callers as last time) waits for it a
fraction of a sync's time, because a sync that starts with one record makes all others wait for two.  A sync that
fails fails every ticket that waited for it.

An exception that strikes anywhere (a ``KeyboardInterrupt``) can delay the others by at most ``PATIENCE_S``: tickets
are waited for with a time limit, then their holder leads.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from ..errors import JournalSyncError
from .threads import Wake

PATIENCE_S: Final = 0.05
COMPANY_SHARE: Final = 0.25
"""How long a leader waits for company, as a share of the time that a sync takes."""
COMPANY_S_MAX: Final = 0.002


class _Ticket(Wake):
    """One caller's place in the queue."""

    def __init__(self, sequence: int) -> None:
        super().__init__()
        self.sequence = sequence
        self.error: Exception | None = None


class GroupCommit:
    """Lets callers wait until their record is on the disk.

    Args:
        sync: syncs everything written so far and returns the last sequence number that this covers.  Raises what
            the waiting callers are to see.
    """

    def __init__(self, sync: Callable[[], int]) -> None:
        self._sync = sync
        self._covered = 0
        self._leading = False
        self._leader = threading.Lock()
        self._waiting: deque[_Ticket] = deque()
        self._company = Wake()
        self._leader_thread = 0
        self._expected = 1
        self._sync_s = 0.0

    @property
    def covered(self) -> int:
        """The last sequence number that is known to be on the disk."""
        return self._covered

    def wait(self, sequence: int) -> None:
        """Return when the record with this sequence number is on the disk.

        Raises:
            JournalError: the sync that would have covered it failed.
        """
        if self._covered >= sequence:
            return
        if self._leader_thread == threading.get_ident():  # a signal handler or finaliser within a sync of its thread
            self._sync()
            return
        if not self._leading and not self._waiting:
            self._lead(sequence)
            if self._covered >= sequence:
                return
        ticket = _Ticket(sequence)
        self._waiting.append(ticket)
        if len(self._waiting) >= self._expected - 1:
            self._company.set()
        patience = 0.0 if not self._leading else PATIENCE_S
        try:
            while self._covered < sequence:
                if not ticket.wait(patience) or not self._leading:
                    if ticket.error is not None:
                        break
                    self._lead(sequence)
                patience = PATIENCE_S
                if ticket.error is not None:
                    break
        finally:
            if self._covered < sequence:
                self._forget(ticket)
        if ticket.error is not None and self._covered < sequence:
            raise JournalSyncError(str(ticket.error), journaled=None) from ticket.error

    def sync_now(self) -> None:
        """Sync what was written until now, without waiting for company."""
        with self._leader:
            self._covered = max(self._covered, self._sync())

    def _lead(self, sequence: int) -> None:
        try:
            with self._leader:
                if self._covered >= sequence:
                    return
                try:
                    self._leading = True
                    self._leader_thread = threading.get_ident()
                    self._wait_for_company()
                    self._sync_for_all()
                finally:
                    self._leader_thread = 0
                    self._leading = False
        finally:
            self._wake()

    def _wait_for_company(self) -> None:
        if self._expected > 1 and len(self._waiting) < self._expected - 1:
            self._company.wait(min(self._sync_s * COMPANY_SHARE, COMPANY_S_MAX))

    def _sync_for_all(self) -> None:
        tickets = list(self._waiting)
        begun = time.perf_counter()
        try:
            covered = self._sync()
        except Exception as error:
            for ticket in tickets:
                ticket.error = error
                ticket.set()
            raise
        self._sync_s = time.perf_counter() - begun
        self._covered = max(self._covered, covered)

    def _wake(self) -> None:
        """Release the tickets that are covered, and one more to lead next."""
        covered = self._covered
        served = 1
        for _ in range(len(self._waiting)):
            try:
                ticket = self._waiting.popleft()
            except IndexError:
                break
            if ticket.sequence <= covered or ticket.error is not None:
                served += 1
                ticket.set()
            else:
                self._waiting.append(ticket)
        self._expected = served
        with contextlib.suppress(IndexError):
            self._waiting[0].set()

    def _forget(self, ticket: _Ticket) -> None:
        with contextlib.suppress(ValueError):
            self._waiting.remove(ticket)
