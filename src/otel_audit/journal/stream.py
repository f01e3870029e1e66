"""The one writer of a stream: sequence, hash and line under one lock, and what happens when something goes wrong there.

Theory of operation.  Under the lock, in this order: finish what an interrupted call left (``_dirty``), make the line,
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
import os
from collections import deque
from typing import Final, NoReturn

from ..canonical import sequence_fragment
from ..errors import JournalClosedError, JournalError, JournalFullError, JournalSyncError
from .layout import Layout
from .line import make_line
from .locks import FileLock
from .metadata import StreamMetadata
from .segment import OpenSegment, move_unsynced, new_segment
from .threads import owned_lock

DEFERRED_MAX: Final = 1024
"""How many re-entrant records may wait for the outer call."""
RECENT_BYTES_MAX: Final = 256 * 1024
"""How many bytes may be written between two checks that the descriptor is still ours."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Entry:
    """A record on its way into a stream.

    Attributes:
        head, tail: its canonical form, before and after the place of the sequence attributes.
        end: whether it is the stream's last record.
        sequence: its number; 0 until it is written.
        sha256: its hash; empty until it is written.
        deferred: it waits for the outer call of this thread.
        begun: the write may have begun; while ``sequence`` is 0, whether it is there is not known.
    """

    __slots__ = ("begun", "deferred", "end", "head", "sequence", "sha256", "tail")

    def __init__(self, head: bytes, tail: bytes, *, end: bool = False) -> None:
        self.head = head
        self.tail = tail
        self.end = end
        self.sequence = 0
        self.sha256 = ""
        self.deferred = False
        self.begun = False

    @property
    def journaled(self) -> bool | None:
        """Whether it is in the journal; ``None`` where that is not known."""
        if self.sequence:
            return True
        return None if self.begun or self.deferred else False


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
        self.pid = os.getpid()
        self.notes: deque[str] = deque(maxlen=64)
        """What went wrong and was mended; the journal logs it."""
        self.lost = False
        """The segment was removed or cut by somebody else, or the stream was taken from us: it is over."""
        self.bytes_written = 0
        self._layout = layout
        self._files = layout.files
        self._write = layout.files.write
        self._owner_lock = lock
        self._segment_bytes_max = segment_bytes_max
        self._roll_at = segment_bytes_max
        self._lock, self._owned = owned_lock()
        self._sync_lock, self._syncing = owned_lock()
        self._deferred: deque[Entry] = deque()
        self._closing: tuple[Entry | None] | None = None
        self._left = False
        self._pending: Entry | None = None
        self._dirty = False
        self._broken: OSError | None = None
        self._closed = False
        self._sequence = 0
        self._previous_hash = ""
        self._recent: list[Entry] = []
        self._recent_bytes = 0
        self._recent_hash = ""
        self._synced_sequence = 0
        self._in_doubt: list[range] = []
        self._segment = new_segment(layout, self.directory, 1)

    # -- what others may know -----------------------------------------------------------------------

    @property
    def sequence(self) -> int:
        """Number of the last record that was written."""
        return self._sequence

    @property
    def end(self) -> tuple[int, int]:
        """First sequence number of the present segment, and the offset up to which it is written."""
        segment = self._segment
        return segment.first, segment.end

    @property
    def closed(self) -> bool:
        """Whether nothing can be appended any more."""
        return self._closed

    @property
    def unsynced(self) -> bool:
        """Whether a sync has something to do."""
        return self._synced_sequence < self._sequence or self._broken is not None or self._left

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
        if self._dirty or self._broken is not None or self._closed or self._segment.end >= self._roll_at:
            self._prepare_to_write()
        segment = self._segment
        try:
            line, digest = self._line_of(entry, self._sequence + 1, self._previous_hash)
            self._pending = entry
            self._dirty = True
            entry.begun = True
            done = self._write(segment.fd, line)
            if done != len(line):
                self._files.write_all(segment.fd, line[done:])
            self._advance(entry, digest, len(line))
            self._dirty = False
        except BaseException as error:
            if self._dirty:
                self._settle_after(error)
            if not isinstance(error, OSError) or entry.sequence:
                raise
            if self._dirty or segment is self._segment or again:
                raise _journal_error(error, entry) from error
        if not entry.sequence:  # it failed because the descriptor was not ours any more, and now there is a new one
            self._append(entry, again=True)
        elif self._recent_bytes > RECENT_BYTES_MAX:
            self._check_descriptor()

    def _line_of(self, entry: Entry, sequence: int, previous_hash: str) -> tuple[bytes, str]:
        fragment = sequence_fragment(sequence, previous_hash, self.stream_id, entry.end)
        return make_line(entry.head + fragment + entry.tail)

    def _advance(self, entry: Entry, digest: str, size: int) -> None:
        """The line is in the file: say so in the state.

        Between the first store and the last nothing is called, so nothing can interrupt.
        """
        sequence = self._sequence + 1
        self._segment.end += size
        self._previous_hash = digest
        self._sequence = sequence
        self.bytes_written += size
        self._recent_bytes += size
        entry.sha256 = digest
        entry.sequence = sequence
        self._recent.append(entry)

    def _prepare_to_write(self) -> None:
        """Everything that is rare: closed, broken, dirty, or the segment is full."""
        if self._closed:
            raise JournalClosedError("the provider is shut down: nothing can be emitted through it", journaled=False)
        try:
            if self._dirty:
                self._reconcile()
            if self._broken is not None:
                self._rescue()
            if self._segment.end >= self._roll_at:
                self._roll()
        except OSError as error:
            kind = JournalSyncError if self._broken is not None else _error_class(error)
            raise kind(f"journal: nothing was written: {error.strerror} ({self.directory})", journaled=False) from error

    # -- re-entrance -----------------------------------------------------------------------------------

    def _defer(self, entry: Entry) -> None:
        """Leave the entry to the outer call of this very thread."""
        if self._closed:
            raise JournalClosedError("the provider is shut down: nothing can be emitted through it", journaled=False)
        if len(self._deferred) >= DEFERRED_MAX:
            raise JournalFullError(
                f"{DEFERRED_MAX} records were emitted from within one emit of the same thread", journaled=False
            )
        entry.deferred = True
        self._deferred.append(entry)
        self._left = True

    def take_deferred(self, entries: list[Entry]) -> None:
        """Take over what was deferred before this stream was there."""
        self._deferred.extend(entries)
        self._left = True

    def _do_what_was_left(self) -> None:
        """Write what re-entrant calls left, and end the stream if one asked for it.

        What cannot be written now waits for the next call.
        """
        try:
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

    # -- after an interruption or an error ---------------------------------------------------------

    def _settle_after(self, error: BaseException) -> None:
        """Find out what the interrupted write left; leaves the stream dirty if that cannot be done now."""
        try:
            self._reconcile()
        except OSError as second:
            self.notes.append(f"after {type(error).__name__} the stream could not be examined: {second.strerror}")

    def _reconcile(self) -> None:
        """Make the state agree with the file: take over a whole line, cut off a part of one."""
        self._check_descriptor()
        segment, entry = self._segment, self._pending
        behind = segment.read(segment.end, segment.end + (segment.size() or 0))
        if entry is not None and not entry.sequence:
            line, digest = self._line_of(entry, self._sequence + 1, self._previous_hash)
            if behind.startswith(line):
                self._advance(entry, digest, len(line))
                behind = behind[len(line) :]
            elif behind and line.startswith(behind):
                self._files.ftruncate(segment.fd, segment.end)
                behind = b""
            if not entry.sequence:
                entry.begun = False
        self._pending = None
        self._dirty = False
        self._step_over(len(behind))

    def _step_over(self, foreign: int) -> None:
        """Somebody else wrote into our segment: the reader steps over it, and so do we."""
        if foreign:
            self._segment.end += foreign
            self.notes.append(f"{foreign} bytes that are not ours stand in {self._segment.path}")

    def _check_descriptor(self) -> None:
        """See that our descriptors are still ours, and mend what can be mended.

        A daemoniser may have closed every descriptor, and with it the stream's lock, and the numbers may name other
        files by now.  Then the files are opened again, and what went elsewhere is written again.

        Raises:
            JournalClosedError: the stream is lost.
            OSError: the files cannot be opened or written now.
        """
        if not self._owner_lock.is_intact():
            self._regain_lock()
        size = self._segment.size()
        if size is None:
            size = self._reopen()
        if size < self._segment.end:
            self._lose(f"{self._segment.end - size} bytes at the end of {self._segment.path} were removed")
        if size > self._segment.end and not self._dirty:
            self._step_over(size - self._segment.end)
        self._recent = []
        self._recent_hash = self._previous_hash
        self._recent_bytes = 0

    def _regain_lock(self) -> None:
        try:
            if self._owner_lock.regain():
                self.notes.append("the stream's lock was closed by somebody else, and taken again")
                return
        except FileNotFoundError:
            pass
        self._lose("the stream's lock was closed by somebody else, and is gone")

    def _reopen(self) -> int:
        """Open the segment again, and write again what went elsewhere; the file's size then."""
        try:
            segment = self._segment.reopened()
        except FileNotFoundError:
            self._lose(f"{self._segment.path} was removed")
        size = self._files.fstat(segment.fd).st_size
        missing = segment.end - size
        recent = b"".join(self._recent_lines())
        if 0 < missing <= len(recent):
            self._files.write_all(segment.fd, recent[-missing:])
            size = segment.end
        self._segment = segment
        self.notes.append(
            f"the journal's descriptor was closed by somebody else; opened again, {max(missing, 0)} bytes written again"
        )
        return size

    def _recent_lines(self) -> list[bytes]:
        lines = []
        previous = self._recent_hash
        for entry in self._recent:
            line, previous = self._line_of(entry, entry.sequence, previous)
            lines.append(line)
        return lines

    def _lose(self, why: str) -> NoReturn:
        """Give the stream up.  What was written lately is kept for the next one, see :meth:`unsaved`."""
        self.lost = self._closed = True
        if self._pending is not None and not self._pending.sequence:
            self._pending.begun = False
        self.notes.append(f"{why}, by somebody else; a new stream begins, and {len(self.unsaved())} records go there")
        raise JournalClosedError(f"the stream is lost: {why}", journaled=False)

    def unsaved(self) -> list[Entry]:
        """Of a lost stream: what was written after the last check that all is well, and what was deferred.

        They go into the next stream, so a receipt may name this one; the record's id is the same.
        """
        recent = [Entry(entry.head, entry.tail) for entry in self._recent if entry.sequence > 1 and not entry.end]
        return recent + [entry for entry in self._deferred if not entry.sequence]

    # -- segments and syncing -----------------------------------------------------------------------

    def _roll(self) -> None:
        """Leave a full segment for a new one; what is left is synced first."""
        with self._sync_lock:
            self._check_descriptor()
            segment = self._segment
            if self._broken is None:
                try:
                    self._files.fdatasync(segment.fd)
                except OSError as error:
                    self._broken = error
            if self._broken is not None:
                self._rescue()
                return
            segment.synced_end = segment.end
            self._synced_sequence = self._sequence
            try:
                new = new_segment(self._layout, self.directory, self._sequence + 1)
            except OSError as error:  # go on in this one, and try again later
                self._roll_at = segment.end + self._segment_bytes_max // 8 + 1
                self.notes.append(f"a new segment could not be made: {error.strerror}; the old one grows on")
                return
            self._segment = new
            self._roll_at = self._segment_bytes_max
            segment.close()

    def sync(self) -> int:
        """Make everything written so far survive power loss; the last sequence number that this covers.

        Called by a signal handler within one of our own locked sections, it does nothing.

        Raises:
            JournalSyncError: the sync failed, and moving the unsynced records to a new segment failed too; or the
                stream is lost.
        """
        if self._owned() or self._syncing():
            return self._synced_sequence
        try:
            while True:
                covered = self._sync()
                if covered is not None:
                    return covered
        except OSError as error:
            raise JournalSyncError(
                f"journal: written, but not known to be on the disk: {error.strerror} ({self.directory})", journaled=None
            ) from error
        except JournalClosedError as error:
            raise JournalSyncError(f"journal: written, but not known to be on the disk: {error}", journaled=None) from error
        finally:
            if self._left:
                self._do_what_was_left()

    def _sync(self) -> int | None:
        """One attempt; ``None`` where the descriptor was not ours in between."""
        with self._lock:
            segment, sequence = self._segment, self._sequence
            if self._broken is None and self._synced_sequence == sequence:
                return sequence
            if segment.fd < 0 or self.lost:
                raise JournalClosedError("the stream is closed", journaled=None)
            if self._broken is None:
                self._check_descriptor()
                segment, sequence = self._segment, self._sequence
            end = segment.end
        with self._sync_lock:
            if self._broken is None and segment is self._segment:
                try:
                    self._files.fdatasync(segment.fd)
                except OSError as error:
                    if segment is self._segment:  # else a nested call has left it
                        self._broken = error
        with self._lock:
            if self._broken is not None:
                self._rescue()
            elif segment is self._segment and segment.is_ours():
                self._synced_sequence = max(self._synced_sequence, sequence)
                segment.synced_end = max(segment.synced_end, end)
            return self._synced_sequence if self._synced_sequence >= sequence else None

    def _rescue(self) -> None:
        """After a failed sync: move the unsynced lines to a new segment."""
        with self._sync_lock:
            if self._broken is None:
                return
            self._check_descriptor()
            old, first = self._segment, self._synced_sequence + 1
            segment, count = move_unsynced(self._layout, old, first)
            why = self._broken.strerror
            if count < self._sequence - self._synced_sequence:
                self._in_doubt.append(range(first, self._sequence + 1))
                self.notes.append(
                    f"{self._sequence + 1 - first - count} of the records {first} to {self._sequence} could not be read "
                    "back after a failed sync: they are lost"
                )
            self._segment = segment
            self._synced_sequence = self._sequence
            self._roll_at = self._segment_bytes_max
            self._broken = None
            old.close()
            self.notes.append(f"a sync failed ({why}); {count} records were moved to a new segment and synced")

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
        if self._segment.fd < 0:
            return
        try:
            with self._lock:
                try:
                    if not self._closed:
                        self._write_deferred()
                        if last is not None:
                            self._append(last)
                finally:
                    self._closed = True
            self.sync()
        finally:
            with self._lock:
                self._closing = None
                self._left = False
                self._segment.close()
            self._owner_lock.release()

    def abandon(self) -> None:
        """In a forked child: close the parent's descriptors, and nothing else."""
        self._closed = True
        self._owner_lock.forget()
        self._segment.close()


def _error_class(error: OSError) -> type[JournalError]:
    return JournalFullError if error.errno in _FULL else JournalError


def _journal_error(error: OSError, entry: Entry) -> JournalError:
    state = {True: "the record was written", False: "nothing was written", None: "it is not known what was written"}
    kind = _error_class(error)
    return kind(f"journal: {error.strerror}; {state[entry.journaled]}", journaled=entry.journaled)
