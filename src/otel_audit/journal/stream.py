"""The one writer of a stream: sequence, hash and line under one lock, and what happens when something goes wrong there.

Theory of operation.  Under the lock, in this order: finish what an interrupted call left (``dirty``), make the line,
``write(2)``, advance the state.  The state advances only after the write, so whatever interrupts in between leaves
the stream *dirty*, and the next call (or the interrupted one itself, on its way out) compares the file's size and tail
with the state: a whole line behind the state is taken over, a part of one is cut off.  That is the only truncation
there is.

No foreign code runs under the lock, but a signal handler or a finaliser may strike while its own thread holds it.
Such a re-entrant ``append`` neither waits (it would wait for itself) nor writes: it leaves its entry in a bounded list,
which the outer call writes before it returns.  A re-entrant ``close`` is left to the outer call in the same way.

There are two locks.  ``_lock`` is for the state.  ``_sync_lock`` is held while the kernel syncs, because an error is
reported to one caller only: whoever leaves a segment must not find it synced "without an error" that another thread
was given.  The order is ``_lock``, then ``_sync_lock``; a thread that holds only the second never waits for the first.

A failed sync is sticky: after it the kernel may have dropped pages that it calls clean.  The unsynced lines are copied
at once from the page cache into a new segment, which is synced; the old segment is never trusted behind its last
synced record, because the next segment begins there.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterable
from typing import Final

from ..errors import JournalClosedError, JournalError, JournalFullError, JournalSyncError
from .files import FULL, with_repair
from .layout import Layout
from .locks import FileLock
from .metadata import StreamMetadata
from .segment import OpenSegment, move_unsynced, new_segment
from .state import RECENT_BYTES_MAX, Entry, StreamState
from .threads import owned_lock

__all__ = ["DEFERRED_MAX", "Entry", "StreamWriter"]

DEFERRED_MAX: Final = 1024
"""How many re-entrant records may wait for the outer call."""

_FULL: Final = (*FULL, errno.EFBIG)
CLOSED: Final = (
    "the provider is shut down: nothing can be emitted through it; call shutdown() last, or configure() again"
)


class StreamWriter:
    """Appends to the stream that this process owns.

    Args:
        layout: the journal.
        metadata: what ``stream.json`` says.
        lock: the stream's lock, held.
        segment_bytes_max: a segment that has reached this size is left for a new one.

    Raises:
        OSError: the first segment could not be made.
    """

    def __init__(self, layout: Layout, metadata: StreamMetadata, lock: FileLock, *, segment_bytes_max: int) -> None:
        self.stream_id = metadata.stream_id
        self.directory = layout.streams / metadata.stream_id
        self.metadata = metadata
        self._layout = layout
        self._files = layout.files
        self._write = layout.files.write
        self._segment_bytes_max = segment_bytes_max
        self._roll_at = segment_bytes_max
        self._lock, self._owned = owned_lock()
        self._sync_lock, self._syncing = owned_lock()
        self._deferred: deque[Entry] = deque()
        self._closing: tuple[Entry | None] | None = None
        self._left = False
        self._broken: OSError | None = None
        self._in_doubt: list[range] = []
        self._left_behind: list[OpenSegment] = []
        self._state = self.state = StreamState(layout, metadata, lock)
        self.pid = self._state.pid
        self.notes = self._state.notes
        """What went wrong and was mended; the journal logs it."""

    # -- what others may know -----------------------------------------------------------------------

    @property
    def sequence(self) -> int:
        """Number of the last record that was written."""
        return self._state.sequence

    @property
    def end(self) -> tuple[int, int]:
        """First sequence number of the present segment, and the offset up to which it is written."""
        segment = self._state.segment
        return segment.first, segment.end

    @property
    def bytes_written(self) -> int:
        """How much this writer has written."""
        return self._state.bytes_written

    @property
    def closed(self) -> bool:
        """Whether nothing can be appended any more."""
        return self._state.closed

    @property
    def lost(self) -> bool:
        """Whether somebody else removed or took the stream; what is ``unsaved`` belongs into the next one."""
        return self._state.lost

    @property
    def unsynced(self) -> bool:
        """Whether a sync has something to do."""
        return self._state.synced_sequence < self._state.sequence or self._broken is not None or self._left

    def unsaved(self) -> list[Entry]:
        """Of a lost stream: what was written after the last check that all was well, and what was deferred."""
        return self._state.unsaved() + [entry for entry in self._deferred if not entry.sequence]

    def in_doubt(self, sequence: int) -> bool:
        """Whether a record was among those that could not all be read back after a failed sync."""
        return any(sequence in doubtful for doubtful in self._in_doubt)

    # -- appending --------------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        """Write one record.  On return it survives the death of the process, or it is ``deferred``.

        Raises:
            JournalClosedError: the stream has ended.
            JournalFullError: the file system is full; nothing was written.
            JournalError: the operating system refused; ``.journaled`` says whether the record is there.
            BaseException: whatever interrupted; ``entry.journaled`` says whether the record is there.
        """
        if self._owned() or self._syncing():
            self._defer(entry)
            return
        try:
            with self._lock:
                self._append(entry)
        finally:
            if self._left:
                self._do_what_was_left()

    def _append(self, entry: Entry, *, again: bool = False) -> None:
        state = self._state
        segment = state.segment
        if state.dirty or self._broken is not None or state.closed or segment.end >= self._roll_at:
            self._prepare_to_write()
            segment = state.segment
        try:
            line, digest = state.line_of(entry, state.sequence + 1, state.previous_hash)
            size = len(line)
            state.pending = entry
            state.dirty = entry.begun = True
            done = self._write(segment.fd, line)
            if done != size:
                self._files.write_all(segment.fd, line[done:])
            state.advance(entry, digest, size)
            state.dirty = False
        except BaseException as error:
            if state.dirty:
                self._settle_after(error)
            if not isinstance(error, OSError):
                raise
            if entry.sequence or state.dirty or again or segment is state.segment:
                raise _journal_error(error, entry) from error
        if not entry.sequence:  # it failed because the descriptor was not ours any more; now there is a new one
            self._append(entry, again=True)
        elif state.recent_bytes > RECENT_BYTES_MAX:
            self._check_after(entry)

    def _check_after(self, entry: Entry) -> None:
        try:
            self._state.check()
        except JournalClosedError:  # the stream is lost; the caller writes this record to the next one
            entry.sequence = 0
            entry.begun = False
            raise
        except OSError as error:  # the record is there; the next sync looks again
            self._state.notes.append(f"the journal's descriptor could not be checked: {error.strerror}")

    def _prepare_to_write(self) -> None:
        """Everything that is rare: closed, broken, dirty, or the segment is full."""
        if self._state.closed:
            raise JournalClosedError(CLOSED, journaled=False)
        try:
            if self._state.dirty:
                self._state.reconcile()
            if self._broken is not None:
                self._rescue()
            if self._state.segment.end >= self._roll_at:
                self._roll()
        except OSError as error:
            kind = JournalSyncError if self._broken is not None else _error_class(error)
            text = f"journal: nothing was written: {error.strerror} ({self.directory})"
            raise kind(with_repair(text, error), journaled=False) from error

    def _settle_after(self, error: BaseException) -> None:
        """Find out what the interrupted write left; leaves the stream dirty if that cannot be done now."""
        try:
            self._state.reconcile()
        except OSError as second:
            self.notes.append(f"after {type(error).__name__} the stream could not be examined: {second.strerror}")
        except JournalClosedError:  # the stream is lost: go on in the next one, unless the caller is to stop
            if isinstance(error, OSError):
                raise

    # -- re-entrance -----------------------------------------------------------------------------------

    def _defer(self, entry: Entry) -> None:
        """Leave the entry to the outer call of this very thread."""
        if self._state.closed:
            raise JournalClosedError(CLOSED, journaled=False)
        if len(self._deferred) >= DEFERRED_MAX:
            raise JournalFullError(
                f"{DEFERRED_MAX} records were emitted from within one emit of the same thread", journaled=False
            )
        entry.deferred = True
        self._deferred.append(entry)
        self._left = True

    def take_over(self, entries: Iterable[Entry]) -> None:
        """Write records that wait since before this stream was made, at the next opportunity."""
        self._deferred.extend(entries)
        self._left = bool(self._deferred)

    def _do_what_was_left(self) -> None:
        """Write what re-entrant calls left, and end the stream if one asked for it.

        What cannot be written now waits for the next call.
        """
        try:
            while self._left:
                with self._lock:
                    self._write_deferred()
                closing = self._closing
                if closing is not None:
                    self.close(closing[0])
        except JournalError as error:
            self.notes.append(f"{len(self._deferred)} deferred records wait for the next emit: {error}")

    def _write_deferred(self) -> None:
        try:
            self._left = False
            while self._deferred:
                entry = self._deferred[0]
                if not entry.sequence:
                    self._append(entry)
                self._deferred.popleft()
        except BaseException:
            self._left = True
            raise

    # -- syncing ---------------------------------------------------------------------------------------

    def sync(self) -> int:
        """Make everything written so far survive power loss; the last sequence number that this covers.

        Called by a signal handler within one of our own locked sections, it does nothing.

        Raises:
            JournalSyncError: the sync failed, and moving the unsynced records to a new segment failed too; or the
                stream is lost.
        """
        if self._owned() or self._syncing():
            return self._state.synced_sequence
        try:
            while True:
                covered = self._sync()
                if covered is not None:
                    return covered
        except (OSError, JournalClosedError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise JournalSyncError(
                f"journal: written, but not known to be on the disk: {reason} ({self.directory})", journaled=None
            ) from error
        finally:
            if self._left:
                self._do_what_was_left()

    def _sync(self) -> int | None:
        """One attempt; ``None`` where the descriptor turned out not to be ours."""
        state = self._state
        with self._lock:
            segment, sequence = state.segment, state.sequence
            if self._broken is None and state.synced_sequence == sequence:
                return sequence
            if segment.fd < 0 or state.lost:
                raise JournalClosedError("the stream has ended", journaled=None)
            end = segment.end
        with self._sync_lock:
            if self._broken is None and segment is state.segment and segment.fd >= 0:
                try:
                    self._files.fdatasync(segment.fd)
                except OSError as error:
                    if segment is state.segment and segment.is_ours():
                        self._broken = error
        with self._lock:
            if segment is state.segment and segment.fd < 0:  # closed meanwhile, and synced before that
                if state.synced_sequence < sequence:
                    raise JournalClosedError("the stream has ended", journaled=None)
            elif self._broken is not None:
                self._rescue()
            else:
                state.check()  # only now is it known that the right file was synced
                if segment is state.segment:
                    state.synced_sequence = max(state.synced_sequence, sequence)
                    segment.synced_end = max(segment.synced_end, end)
            return state.synced_sequence if state.synced_sequence >= sequence else None

    def _roll(self) -> None:
        """Leave a full segment for a new one; what is left is synced first."""
        state = self._state
        with self._sync_lock:
            state.check()
            segment = state.segment
            if self._broken is None:
                try:
                    self._files.fdatasync(segment.fd)
                except OSError as error:
                    self._broken = error
            if self._broken is not None:
                self._rescue()
                return
            segment.synced_end = segment.end
            state.synced_sequence = state.sequence
            try:
                # In one step of the interpreter it is made and known, so that no interrupt leaves it open and nameless.
                self._left_behind.extend(map(new_segment, [self._layout], [self.directory], [state.sequence + 1]))
            except OSError as error:
                self._roll_at = segment.end + self._segment_bytes_max // 8 + 1
                self.notes.append(f"a new segment could not be made: {error.strerror}; the old one is used for longer")
                return
            new = self._left_behind[-1]
            self._left_behind.append(segment)
            state.segment = new
            self._roll_at = self._segment_bytes_max
            self._close_left_behind()

    def _rescue(self) -> None:
        """After a failed sync: move the unsynced lines to a new segment."""
        state = self._state
        with self._sync_lock:
            if self._broken is None:
                return
            state.check()
            old, first = state.segment, state.synced_sequence + 1
            segment, count = move_unsynced(self._layout, old, first)
            missing = state.sequence + 1 - first - count
            if missing:
                self._in_doubt.append(range(first, state.sequence + 1))
                self.notes.append(
                    f"{missing} of the records {first} to {state.sequence} could not be read back after a failed sync: "
                    "they are lost"
                )
            self.notes.append(
                f"a sync failed: {self._broken.strerror}; {count} records were moved to a new segment and synced"
            )
            self._left_behind.append(old)
            state.segment = segment
            state.synced_sequence = state.sequence
            self._roll_at = self._segment_bytes_max
            self._broken = None
            self._close_left_behind()

    def _close_left_behind(self) -> None:
        """Close the segments that were left, and those that an interrupted call made."""
        while self._left_behind:
            if self._left_behind[-1] is not self._state.segment:
                self._left_behind[-1].close()
            self._left_behind.pop()

    # -- the end ---------------------------------------------------------------------------------------

    def close(self, last: Entry | None = None) -> None:
        """End the stream: write a last record, sync, let go of the lock.  Twice is harmless.

        Called by a signal handler within one of our own locked sections, it is done when that is left.

        Raises:
            JournalError: the last record or the sync failed; the stream is closed all the same.
        """
        if self._owned() or self._syncing():
            self._closing = (last,)
            self._left = True
            return
        state = self._state
        if state.segment.fd < 0:
            return
        try:
            with self._lock:
                try:
                    if not state.closed:
                        self._write_deferred()
                        if last is not None:
                            self._append(last)
                finally:
                    state.closed = True
        finally:
            self._close_descriptors()

    def _close_descriptors(self) -> None:
        try:
            self.sync()
        finally:
            with self._lock, self._sync_lock:
                if self._deferred:
                    self.notes.append(f"{len(self._deferred)} deferred records could not be written: they are lost")
                self._closing = None
                self._left = False
                self._close_left_behind()
                self._state.segment.close()
            self._state.owner_lock.release()

    def abandon(self) -> None:
        """Let go without a word: of a lost stream, or in a forked child, where it closes the parent's descriptors."""
        self._state.closed = True
        self._state.owner_lock.forget()
        self._state.segment.close()


def _error_class(error: OSError) -> type[JournalError]:
    return JournalFullError if error.errno in _FULL else JournalError


def _journal_error(error: OSError, entry: Entry) -> JournalError:
    state = {True: "the record was written", False: "nothing was written", None: "it is not known what was written"}
    kind = _error_class(error)
    text = f"journal: {error.strerror}; {state[entry.journaled]}"
    return kind(with_repair(text, error), journaled=entry.journaled)
