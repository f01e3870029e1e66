"""Reading a stream from a sequence number on: verified records, and a report of what was damaged.

The reader never writes.  It trusts a line only if its hash is right, follows the chain from record to record, and
goes on behind damage.  Where one segment's last lines are repeated at the start of the next (the writer moved them
after a failed sync), the later segment counts.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import msgspec

from .. import semconv as sc
from ..batch import StoredRecord
from ..canonical import sequence_fragment, untag
from .files import OS_FILES, Files
from .line import Damage, Line, scan
from .segment import Segment, list_segments

CHUNK_BYTES: Final = 1024 * 1024
_YIELD_EVERY: Final = 16
_NEVER: Final = 2**63


class DamageReport(msgspec.Struct, frozen=True):
    """What a reader found damaged in a stream.

    Attributes:
        kind: ``"hole"`` – records are missing; ``"torn-tail"`` – the last bytes are no whole line; ``"newline"`` – only
            a line's newline was damaged, the record is whole; ``"chain"`` – a whole record does not follow its
            predecessor; ``"foreign"`` – a whole line that does not belong here; ``"noise"`` – bytes between two
            records, nothing missing.
        segment: file name.
        start, stop: offsets in that file, in bytes.
        sequence: the first sequence number concerned.
        count: how many records are missing.
    """

    kind: str
    segment: str
    start: int
    stop: int
    sequence: int
    count: int = 0


class StreamReader:
    """Reads one stream.

    Args:
        directory: the stream's directory; its name is the stream id.
        after: read what comes after this sequence number.
        yielding: let other threads run every few records (a shipper beside an application).
    """

    def __init__(
        self, directory: Path, *, after: int = 0, files: Files = OS_FILES, yielding: bool = False
    ) -> None:
        self.directory = directory
        self.stream_id = directory.name
        self.damage: list[DamageReport] = []
        self._files = files
        self._yielding = yielding
        self._after = after
        self._segment: Segment | None = None
        self._offset = 0
        self._next = 0
        self._previous_hash = ""
        self._hurt: list[Damage] = []
        self._moved_from = _NEVER

    @property
    def last_sequence(self) -> int:
        """Sequence number of the last record that was found, wanted or not."""
        return self._next - 1

    def read(
        self, *, records_max: int, bytes_max: int, final: bool, end: tuple[int, int] | None = None
    ) -> list[StoredRecord]:
        """The next records; empty where there are none as yet.

        Args:
            records_max: at most so many.
            bytes_max: stop when this many bytes of canonical form are reached (the last one may go over).
            final: nobody writes any more; an unfinished tail is damage.
            end: where the living writer in this process is: first sequence number of its segment, and the offset up
                to which that is written.  Nothing behind it is read.

        Raises:
            OSError: a file cannot be read.
        """
        found: list[StoredRecord] = []
        size = 0
        while len(found) < records_max and size < bytes_max:
            if self._segment is None and not self._enter_first():
                break
            assert self._segment is not None  # noqa: S101 - for the type checker
            before = self._offset
            following = self._following()
            room = (records_max - len(found), bytes_max - size)
            size += self._read_segment(found, room, final=final or following is not None, end=end, following=following)
            if self._offset == before:
                following = following or self._following()
                if following is None or (end is not None and self._segment.first >= end[0]):
                    if final:
                        self._finish()
                    break
                self._leave(following)
        return found

    # -- segments ------------------------------------------------------------------------------------

    def _enter_first(self) -> bool:
        segments = list_segments(self.directory)
        if not segments:
            return False
        earlier = [segment for segment in segments if segment.first <= self._after + 1]
        self._segment = earlier[-1] if earlier else segments[0]
        self._offset = 0
        self._next = self._segment.first
        return True

    def _following(self) -> Segment | None:
        assert self._segment is not None  # noqa: S101
        for segment in list_segments(self.directory):
            if segment.first > self._segment.first:
                return segment
        return None

    def _leave(self, following: Segment) -> None:
        """Go on to the next segment; what is missing in between is a hole."""
        self._settle(following.first)
        self._segment = following
        self._offset = 0
        self._next = following.first

    def _finish(self) -> None:
        """The end of a stream that nobody writes: what is left unexplained is a torn tail."""
        assert self._segment is not None  # noqa: S101
        for hurt in self._hurt:
            self._report("torn-tail", hurt.start, hurt.stop, self._next)
        self._hurt = []

    def _read_segment(
        self,
        found: list[StoredRecord],
        room: tuple[int, int],
        *,
        final: bool,
        end: tuple[int, int] | None,
        following: Segment | None,
    ) -> int:
        """Read on in the present segment; bytes of canonical form that were found."""
        assert self._segment is not None  # noqa: S101
        self._moved_from = following.first if following is not None else _NEVER
        limit = end[1] if end is not None and end[0] == self._segment.first else None
        data, complete = self._load(limit)
        size = 0
        count = 0
        for item in scan(data, self._offset, final=final and complete):
            if isinstance(item, Damage):
                self._hurt.append(item)
                self._offset = item.stop
                continue
            if self._next >= self._moved_from and not self._hurt:
                self._offset += len(data)
                break
            record = self._accept(item)
            self._offset = item.stop
            count += 1
            if self._yielding and count % _YIELD_EVERY == 0:
                time.sleep(0)
            if record is None:
                continue
            found.append(record)
            size += len(record.canonical)
            if count >= room[0] or size >= room[1]:
                break
        return size

    def _load(self, limit: int | None) -> tuple[bytes, bool]:
        """Bytes from the present offset on, and whether they reach the file's end.  Grows until a line fits."""
        assert self._segment is not None  # noqa: S101
        try:
            fd = self._files.open(self._segment.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return b"", True
        try:
            size = self._files.fstat(fd).st_size if limit is None else limit
            wanted = CHUNK_BYTES
            while True:
                data = self._files.pread(fd, min(wanted, max(size - self._offset, 0)), self._offset)
                complete = self._offset + len(data) >= size or not data
                if complete or data.find(b"\n") >= 0:
                    return data, complete
                wanted *= 4
        finally:
            self._files.close(fd)

    # -- records --------------------------------------------------------------------------------------

    def _accept(self, line: Line) -> StoredRecord | None:
        """Place a whole line in the chain; ``None`` where it was read before or does not belong here."""
        if sequence_fragment(self._next, self._previous_hash, self.stream_id) in line.canonical:
            sequence = self._next
        else:
            placed = self._place(line)
            if placed is None:
                return None
            sequence = placed
        if self._hurt:
            self._settle(sequence)
        if not line.newline:
            self._report("newline", line.stop - 1, line.stop, sequence)
        self._next = sequence + 1
        self._previous_hash = line.sha256
        if sequence <= self._after:
            return None
        return StoredRecord(sequence, line.sha256, line.canonical)

    def _place(self, line: Line) -> int | None:
        """The slow way: parse, and say what does not fit."""
        record = StoredRecord(0, line.sha256, line.canonical)
        try:
            attributes = record.tagged.get("attributes", {})
            sequence = int(untag(attributes[sc.SEQUENCE_NUMBER]))
            stream_id = untag(attributes[sc.SEQUENCE_STREAM_ID])
            previous = untag(attributes.get(sc.SEQUENCE_PREVIOUS_HASH))
        except (KeyError, TypeError, ValueError, msgspec.MsgspecError):
            self._report("foreign", line.start, line.stop, self._next)
            return None
        if sequence >= self._moved_from:
            return None
        if stream_id != self.stream_id or sequence < self._next:
            self._report("foreign", line.start, line.stop, self._next)
            return None
        if sequence > self._next and not self._hurt:
            self._hurt.append(Damage(line.start, line.start))
        if sequence == self._next and self._previous_hash and previous != self._previous_hash:
            self._report("chain", line.start, line.stop, sequence)
        return sequence

    def _settle(self, sequence: int) -> None:
        """The record after the damage is known: so is how many are missing."""
        missing = max(sequence - self._next, 0)
        if missing:
            self._previous_hash = ""
            if not self._hurt:
                self._hurt = [Damage(self._offset, self._offset)]
        for hurt in self._hurt:
            self._report("hole" if missing else "noise", hurt.start, hurt.stop, self._next, missing)
            self._next += missing
            missing = 0
        self._hurt = []

    def _report(self, kind: str, start: int, stop: int, sequence: int, count: int = 0) -> None:
        assert self._segment is not None  # noqa: S101
        self.damage.append(DamageReport(kind, self._segment.path.name, start, stop, sequence, count))
