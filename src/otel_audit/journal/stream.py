"""The one writer of a stream: sequence, hash and line under one lock, and what happens when something goes wrong there.

Theory of operation.  Under the lock, in this order: finish what an interrupted call left (``_dirty``), make the line,
``write(2)``, advance the state.  The state advances only after the write, so whatever interrupts in between leaves
the stream *dirty*, and the next call (or the interrupted one itself, on its way out) compares the file's size and tail
with the state: a whole line behind the state is taken over, a part of one is cut off.  That is the only truncation
there is.

No foreign code runs under the lock, but a signal handler or a finaliser may strike while its own thread holds it.
Such a re-entrant ``append`` neither waits (it would wait for itself) nor writes: it leaves its entry in a bounded list,
which the outer call writes before it returns.

A failed sync is sticky: after it the kernel may have dropped pages that it calls clean.  The unsynced lines are copied
at once from the page cache into a new segment, which is synced; the old segment is never trusted behind its last
synced record, because the next segment begins there.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
from collections import deque
from typing import Final

from ..canonical import sequence_fragment
from ..errors import JournalClosedError, JournalError, JournalFullError, JournalSyncError
from .files import CREATE, Files
from .layout import Layout
from .line import Damage, Line, make_line, scan
from .locks import FileLock
from .metadata import StreamMetadata
from .segment import segment_path

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
        """What went wrong and was mended; the provider logs it."""
        self._layout = layout
        self._files: Files = layout.files
        self._write = layout.files.write
        self._owner_lock = lock
        self._segment_bytes_max = segment_bytes_max
        self._lock = threading.Lock()
        self._busy: dict[int, bool] = {}
        self._deferred: deque[Entry] = deque()
        self._pending: Entry | None = None
        self._dirty = False
        self._broken: OSError | None = None
        self._closed = False
        self.lost = False
        """The segment was removed by somebody else: this stream is over."""
        self._sequence = 0
        self._previous_hash = ""
        self._segment_first = 1
        self._end = 0
        self._fd = -1
        self._identity = (0, 0)
        self._recent: list[bytes] = []
        self._recent_bytes = 0
        self._synced_sequence = 0
        self._synced_end = 0
        self.bytes_written = 0
        with self._lock:
            self._open_segment(1)

    # -- what others may know -----------------------------------------------------------------------

    @property
    def sequence(self) -> int:
        """Number of the last record that was written."""
        return self._sequence

    @property
    def end(self) -> tuple[int, int]:
        """First sequence number of the present segment, and the offset up to which it is written."""
        while True:
            first = self._segment_first
            end = self._end
            if first == self._segment_first:
                return first, end

    @property
    def closed(self) -> bool:
        """Whether nothing can be appended any more."""
        return self._closed

    # -- appending --------------------------------------------------------------------------------------

    def append(self, entry: Entry) -> None:
        """Write one record.  On return it survives the death of the process, or it is ``deferred``.

        Raises:
            JournalClosedError: the stream has ended.
            JournalFullError: the file system is full; nothing was written.
            JournalError: the operating system refused; ``.journaled`` says whether the record is there.
            BaseException: whatever interrupted; ``entry.journaled`` says whether the record is there.
        """
        if self._entered():
            self._defer(entry)
            return
        try:
            self._busy[threading.get_ident()] = True
            with self._lock:
                self._append(entry)
        finally:
            self._busy.pop(threading.get_ident(), None)
        if self._deferred:
            self._write_deferred()

    def _append(self, entry: Entry) -> None:
        if self._dirty or self._broken is not None or self._end >= self._segment_bytes_max or self._closed:
            self._prepare_to_write()
        try:
            sequence = self._sequence + 1
            line, digest = make_line(
                entry.head
                + sequence_fragment(sequence, self._previous_hash, self.stream_id, end=entry.end)
                + entry.tail
            )
            self._pending = entry
            self._dirty = True
            entry.begun = True
            done = self._write(self._fd, line)
            if done != len(line):
                self._files.write_all(self._fd, line[done:])
            self._advance(entry, digest, line)
            self._dirty = False
        except BaseException as error:
            if self._dirty:
                self._settle_after(error)
            if isinstance(error, OSError):
                raise _journal_error(error, entry) from error
            raise

    def _advance(self, entry: Entry | None, digest: str, line: bytes) -> None:
        """The line is in the file: say so in the state.

        Between the first store and the last nothing is called, so nothing can interrupt.
        """
        size = len(line)
        sequence = self._sequence + 1
        self._end += size
        self._previous_hash = digest
        self._sequence = sequence
        self.bytes_written += size
        self._recent_bytes += size
        if entry is not None:
            entry.sha256 = digest
            entry.sequence = sequence
        self._recent.append(line)
        if self._recent_bytes > RECENT_BYTES_MAX:
            self._check_descriptor()

    def _prepare_to_write(self) -> None:
        """Everything that is rare: closed, broken, dirty, or the segment is full."""
        if self._closed:
            raise JournalClosedError("the provider is shut down: nothing can be emitted through it", journaled=False)
        try:
            if self._dirty:
                self._reconcile()
            if self._broken is not None:
                self._rescue()
            if self._end >= self._segment_bytes_max:
                self._roll()
        except OSError as error:
            kind = JournalSyncError if self._broken is not None else _error_class(error)
            raise kind(f"journal: nothing was written: {error.strerror} ({self.directory})", journaled=False) from error

    # -- re-entrance -----------------------------------------------------------------------------------

    def _entered(self) -> bool:
        """Whether this thread is inside one of our locked sections already (a signal handler, a finaliser).

        The mark alone could be left over from a call that was interrupted while it removed it, so the stack is asked.
        """
        if threading.get_ident() not in self._busy:
            return False
        frame = sys._getframe(2)  # noqa: SLF001 - the only way to see our own callers
        while frame is not None:
            if frame.f_code in _LOCKED_SECTIONS and frame.f_locals.get("self") is self:
                return True
            frame = frame.f_back  # type: ignore[assignment]
        return False

    def _defer(self, entry: Entry) -> None:
        if len(self._deferred) >= DEFERRED_MAX:
            raise JournalFullError(
                f"{DEFERRED_MAX} records were emitted from within one emit of the same thread", journaled=False
            )
        entry.deferred = True
        self._deferred.append(entry)

    def _write_deferred(self) -> None:
        """Write what re-entrant calls left.  What cannot be written stays for the next call."""
        try:
            self._busy[threading.get_ident()] = True
            with self._lock:
                while self._deferred:
                    entry = self._deferred[0]
                    if not entry.sequence:
                        self._append(entry)
                    self._deferred.popleft()
        except JournalError as error:
            self.notes.append(f"{len(self._deferred)} deferred records wait for the next emit: {error}")
        finally:
            self._busy.pop(threading.get_ident(), None)

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
        size = self._files.fstat(self._fd).st_size
        if size > self._end:
            data = self._read_back(self._end, size)
            for item in scan(data, self._end, final=False):
                if isinstance(item, Damage):
                    break
                self._advance(self._pending, item.sha256, data[item.start - (size - len(data)) : item.stop])
            if size > self._end:
                self._files.ftruncate(self._fd, self._end)
        if self._pending is not None and not self._pending.sequence:
            self._pending.begun = False
        self._pending = None
        self._dirty = False

    def _read_back(self, start: int, stop: int) -> bytes:
        fd = self._files.open(segment_path(self.directory, self._segment_first), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self._files.pread(fd, stop - start, start)
        finally:
            self._files.close(fd)

    def _check_descriptor(self) -> None:
        """See that our descriptor is still our file; if not, open it again and write again what went elsewhere.

        A daemoniser may have closed every descriptor, and the number may name another file by now.
        """
        try:
            info = self._files.fstat(self._fd)
        except OSError:
            info = None
        if info is None or (info.st_dev, info.st_ino) != self._identity:
            self._reopen()
        elif info.st_nlink == 0:
            self.lost = self._closed = True
            self.notes.append("the journal's segment was removed by somebody else; a new stream begins")
            raise JournalClosedError("the segment was removed by somebody else", journaled=False)
        self._recent.clear()
        self._recent_bytes = 0

    def _reopen(self) -> None:
        self._fd = -1  # not ours any more: not ours to close
        path = segment_path(self.directory, self._segment_first)
        self._fd = self._files.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        missing = self._end - self._files.fstat(self._fd).st_size
        if missing > 0:
            self._files.write_all(self._fd, b"".join(self._recent)[-missing:])
        self._remember_identity()
        self.notes.append(
            f"the journal's descriptor was closed by somebody else; opened again, {max(missing, 0)} bytes written again"
        )

    def _remember_identity(self) -> None:
        info = self._files.fstat(self._fd)
        self._identity = (info.st_dev, info.st_ino)

    # -- segments and syncing -----------------------------------------------------------------------

    def _open_segment(self, first: int) -> None:
        """Make an empty segment, durable in its directory, and go on in it."""
        path = segment_path(self.directory, first)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size == 0:
                self._files.unlink(path)  # left by an attempt that failed half-way
        fd = self._files.open(path, CREATE, self._layout.mode)
        try:
            self._layout.give(path)
            self._files.sync_directory(self.directory)
        except BaseException:
            self._files.close(fd)
            raise
        self._fd = fd
        self._end = 0
        self._segment_first = first
        self._synced_end = 0
        self._remember_identity()

    def _roll(self) -> None:
        """Leave a full segment for a new one; what is left is synced first."""
        try:
            self._files.fdatasync(self._fd)
        except OSError as error:
            self._broken = error
            self._rescue()
            return
        self._synced_sequence = self._sequence
        old = self._fd
        self._check_descriptor()
        self._open_segment(self._sequence + 1)
        self._files.close(old)

    def sync(self) -> int:
        """Make everything written so far survive power loss; the last sequence number that this covers.

        Raises:
            JournalSyncError: the sync failed, and moving the unsynced records to a new segment failed too.
        """
        if self._entered():
            return self._synced_sequence
        try:
            self._busy[threading.get_ident()] = True
            return self._sync()
        except OSError as error:
            raise JournalSyncError(f"journal: cannot sync: {error.strerror}", journaled=None) from error
        finally:
            self._busy.pop(threading.get_ident(), None)
            if self._deferred:
                self._write_deferred()

    def _sync(self) -> int:
        with self._lock:
            if self._closed:
                return self._synced_sequence
            if self._broken is None:
                self._check_descriptor()
            sequence, end, fd, first = self._sequence, self._end, self._fd, self._segment_first
            broken = self._broken
            if broken is None and sequence == self._synced_sequence:
                return sequence
        if broken is None:
            try:
                self._files.fdatasync(fd)
            except OSError as error:
                broken = error
        with self._lock:
            if broken is None or self._synced_sequence >= sequence:
                if self._synced_sequence < sequence:
                    self._synced_sequence = sequence
                    if first == self._segment_first:
                        self._synced_end = end
                return sequence
            self._broken = broken
            try:
                self._rescue()
            except OSError as error:
                raise JournalSyncError(
                    f"journal: written, but not known to be on the disk: {broken.strerror}; moving the unsynced records "
                    f"to a new segment failed too: {error.strerror} ({self.directory})",
                    journaled=None,
                ) from error
            return self._sequence

    def _rescue(self) -> None:
        """After a failed sync: copy the unsynced lines from the page cache to a new segment, and sync that."""
        lines = self._read_back(self._synced_end, self._end)
        items = list(scan(lines, 0, final=True))
        whole = [lines[item.start : item.stop] for item in items if isinstance(item, Line)]
        if len(whole) != self._sequence - self._synced_sequence:
            self.notes.append(
                f"after a failed sync {self._sequence - self._synced_sequence - len(whole)} records could not be read back"
            )
        old, before = self._fd, (self._segment_first, self._end, self._synced_end, self._identity)
        first = self._synced_sequence + 1
        if first == self._segment_first:
            self._set_aside(first)
        try:
            self._open_segment(first)
            self._files.write_all(self._fd, b"".join(whole))
            self._files.fdatasync(self._fd)
        except OSError:
            if self._fd != old:
                self._files.close(self._fd)
                self._files.unlink(segment_path(self.directory, first))
            self._fd = old
            self._segment_first, self._end, self._synced_end, self._identity = before
            if first == self._segment_first:
                self._put_back(first)
            raise
        self._files.close(old)
        self._end = self._synced_end = sum(map(len, whole))
        self._synced_sequence = self._sequence
        self._recent.clear()
        self._recent_bytes = 0
        self._broken = None
        self.notes.append(f"a sync failed; {len(whole)} records were moved to a new segment and synced")

    def _set_aside(self, first: int) -> None:
        path = segment_path(self.directory, first)
        self._files.rename(path, path.with_suffix(".unsynced"))

    def _put_back(self, first: int) -> None:
        path = segment_path(self.directory, first)
        self._files.rename(path.with_suffix(".unsynced"), path)

    @property
    def unsynced(self) -> bool:
        """Whether something was written that is not yet synced."""
        return self._synced_sequence < self._sequence or self._broken is not None

    def close(self, last: Entry | None = None) -> None:
        """End the stream: write a last record, sync, let go of the lock.  Twice is harmless.

        Raises:
            JournalError: the last record or the sync failed; the stream is closed all the same.
        """
        if self._closed:
            return
        try:
            if last is not None:
                self.append(last)
            self.sync()
        finally:
            try:
                self._busy[threading.get_ident()] = True
                with self._lock:
                    self._closed = True
                    fd, self._fd = self._fd, -1
                    if fd >= 0:
                        self._files.close(fd)
            finally:
                self._busy.pop(threading.get_ident(), None)
            self._owner_lock.release()

    def abandon(self) -> None:
        """In a forked child: close the parent's descriptors, and nothing else."""
        self._closed = True
        self._owner_lock.forget()
        fd, self._fd = self._fd, -1
        with contextlib.suppress(OSError):
            os.close(fd)


_LOCKED_SECTIONS: Final = frozenset(
    method.__code__
    for method in (StreamWriter.append, StreamWriter._write_deferred, StreamWriter.sync, StreamWriter.close)  # noqa: SLF001
)


def _error_class(error: OSError) -> type[JournalError]:
    return JournalFullError if error.errno in _FULL else JournalError


def _journal_error(error: OSError, entry: Entry) -> JournalError:
    state = {True: "the record was written", False: "nothing was written", None: "it is not known what was written"}
    kind = _error_class(error)
    return kind(f"journal: {error.strerror}; {state[entry.journaled]}", journaled=entry.journaled)
