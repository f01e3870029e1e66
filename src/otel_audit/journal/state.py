"""What a writer knows of its stream, and how that is made to agree with the files again when something went wrong."""

from __future__ import annotations

import os
from collections import deque
from typing import Final, NoReturn

import msgspec

from ..canonical import sequence_fragment
from ..errors import JournalClosedError
from .layout import Layout
from .line import make_line
from .locks import FileLock
from .metadata import StreamMetadata
from .segment import new_segment

RECENT_BYTES_MAX: Final = 256 * 1024
"""How many bytes may be written between two checks that the descriptor is still ours."""


class Entry(msgspec.Struct, gc=False, eq=False):
    """A record on its way into a stream.

    Attributes:
        head, tail: its canonical form, before and after the place of the sequence attributes.
        end: whether it is the stream's last record.
        sequence: its number; 0 until it is written.
        sha256: its hash; empty until it is written.
        deferred: it waits for the outer call of this thread.
        begun: the write may have begun; while ``sequence`` is 0, whether it is there is not known.
    """

    head: bytes
    tail: bytes
    end: bool = False
    sequence: int = 0
    sha256: str = ""
    deferred: bool = False
    begun: bool = False

    @property
    def journaled(self) -> bool | None:
        """Whether it is in the journal; ``None`` where that is not known."""
        if self.sequence:
            return True
        return None if self.begun or self.deferred else False


class StreamState:
    """State of the stream that this process writes.  Everything here happens under the writer's lock.

    Attributes:
        segment: the present one.
        sequence: number of the last record that was written.
        previous_hash: its hash.
        synced_sequence: number of the last record that is known to be on the disk.
        pending: the record that is being written.
        dirty: a write was begun, and the state does not say yet what it left.
        lost: the segment was removed or cut by somebody else, or the stream was taken from us: it is over.
        closed: nothing can be written any more.
        recent_bytes: how much was written since the last check of the descriptors.
        notes: what went wrong and was mended; the journal logs it.
    """

    def __init__(self, layout: Layout, metadata: StreamMetadata, lock: FileLock) -> None:
        self.stream_id = metadata.stream_id
        self.directory = layout.streams / metadata.stream_id
        self.pid = os.getpid()
        self.owner_lock = lock
        self.notes: deque[str] = deque(maxlen=64)
        self.lost = False
        self.closed = False
        self.dirty = False
        self.pending: Entry | None = None
        self.sequence = 0
        self.previous_hash = ""
        self.bytes_written = 0
        self.synced_sequence = 0
        self.recent_bytes = 0
        self._recent: list[Entry] = []
        self._recent_hash = ""
        self._files = layout.files
        self.segment = new_segment(layout, self.directory, 1)

    # -- the next line ----------------------------------------------------------------------------------

    def line_of(self, entry: Entry, sequence: int, previous_hash: str) -> tuple[bytes, str]:
        """A record's line in this place, and its hash."""
        fragment = sequence_fragment(sequence, previous_hash, self.stream_id, entry.end)
        return make_line(b"".join((entry.head, fragment, entry.tail)))

    def advance(self, entry: Entry, digest: str, size: int) -> None:
        """The line is in the file: say so in the state.

        Between the first store and the last nothing is called, so nothing can interrupt.
        """
        sequence = self.sequence + 1
        self.segment.end += size
        self.previous_hash = digest
        self.sequence = sequence
        self.bytes_written += size
        self.recent_bytes += size
        entry.sha256 = digest
        entry.sequence = sequence
        self._recent.append(entry)

    # -- after an interruption or an error ---------------------------------------------------------

    def reconcile(self) -> None:
        """Make the state agree with the file after a write was begun: take over a whole line, cut off a part of one.

        Raises:
            JournalClosedError: the stream is lost.
            OSError: it cannot be done now; the stream stays dirty.
        """
        size = self._check()
        segment, entry = self.segment, self.pending
        behind = segment.read(segment.end, size) if size > segment.end else b""
        if entry is not None and not entry.sequence:
            line, digest = self.line_of(entry, self.sequence + 1, self.previous_hash)
            before = behind.find(line)
            if before >= 0:
                self._step_over(before)
                self.advance(entry, digest, len(line))
                behind = behind[before + len(line) :]
            elif behind and line.startswith(behind):
                self._files.ftruncate(segment.fd, segment.end)
                behind = b""
            if not entry.sequence:
                entry.begun = False
        self.pending = None
        self.dirty = False
        self._step_over(len(behind))

    def check(self) -> None:
        """See that our descriptors are still ours, and mend what can be mended.

        A daemoniser may have closed every descriptor, and with it the stream's lock, and the numbers may name other
        files by now; or somebody has moved the files away, or put others in their place, and nobody would ever read
        what is written through the descriptors.  Then the files are opened again, and what went elsewhere is written
        again.

        Raises:
            JournalClosedError: the stream is lost.
            OSError: the files cannot be opened or written now.
        """
        size = self._check()
        if not self.dirty:
            self._step_over(size - self.segment.end)

    def _check(self) -> int:
        """:meth:`check`, but for what stands behind the last line; the size of the segment."""
        if not self.owner_lock.is_intact():
            self._regain_lock()
        size = self.segment.size()
        if size is None:
            size = self._reopen()
        if size < self.segment.end:
            self._lose(f"{self.segment.end - size} bytes at the end of {self.segment.path} were removed")
        self._recent = []
        self._recent_hash = self.previous_hash
        self.recent_bytes = 0
        return size

    def _step_over(self, foreign: int) -> None:
        """Somebody else wrote into our segment: readers step over it, and so do we."""
        if foreign > 0:
            self.segment.end += foreign
            self.notes.append(f"{foreign} bytes that are not ours stand in {self.segment.path}")

    def _regain_lock(self) -> None:
        try:
            if self.owner_lock.regain():
                self.notes.append("the stream's lock was closed, removed or replaced by somebody else, and taken again")
                return
        except FileNotFoundError:
            pass
        self._lose("the stream's lock was closed, removed or replaced")

    def _reopen(self) -> int:
        """Open the segment again, and write again what went elsewhere; the file's size then."""
        try:
            segment = self.segment.reopened()
        except FileNotFoundError:
            self._lose(f"{self.segment.path} was removed or moved away")
        try:
            size = segment.size() or 0
            missing = segment.end - size
            recent = b"".join(self._recent_lines())
            if 0 < missing <= len(recent):
                self._files.write_all(segment.fd, recent[-missing:])
                size = segment.end
        except BaseException:
            segment.close()
            raise
        left, self.segment = self.segment, segment
        left.close_unless(segment)
        self.notes.append(
            "the journal's descriptor was closed, or its file replaced, by somebody else; opened again, "
            f"{max(missing, 0)} bytes written again"
        )
        return size

    def _recent_lines(self) -> list[bytes]:
        lines = []
        previous = self._recent_hash
        for entry in self._recent:
            line, previous = self.line_of(entry, entry.sequence, previous)
            lines.append(line)
        return lines

    def _lose(self, why: str) -> NoReturn:
        """Give the stream up.  What was written lately is kept for the next one, see :meth:`unsaved`."""
        self.lost = self.closed = True
        if self.pending is not None and not self.pending.sequence:
            self.pending.begun = False
        count = len(self.unsaved())
        self.notes.append(f"{why} by somebody else; a new stream begins, with {count} records of this one")
        raise JournalClosedError(f"the stream is lost: {why} by somebody else", journaled=False)

    def unsaved(self) -> list[Entry]:
        """Of a lost stream: what was written after the last check that all is well.

        It goes into the next stream; so a receipt may name this one, but the record's id is the same.
        """
        return [Entry(entry.head, entry.tail) for entry in self._recent if entry.sequence > 1 and not entry.end]
