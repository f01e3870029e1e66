"""Reading a stream from a sequence number on: verified records, and a report of what was damaged.

The reader never writes.  It trusts a line only if its hash is right, follows the chain from record to record, and
goes on behind damage.  Where one segment's last lines are repeated at the start of the next (the writer moved them
after a failed sync), the later segment counts.

A whole line that is out of place is believed only if what follows does not contradict it: else somebody could hide
the rest of a segment by putting one line with a high number before it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, NamedTuple

from ..batch import StoredRecord
from .courtesy import let_others_run
from .damage import DamageReport
from .files import OS_FILES, Files
from .line import END, LINE_OVERHEAD, MARKER, Damage, Line, scan
from .place import Expectation, Place, place_of
from .plain import plain_lines
from .removed import count_removed
from .segment import Segment, list_segments

__all__ = ["DamageReport", "StreamReader"]

CHUNK_BYTES: Final = 1024 * 1024
"""So much is read at once, or less: each system call gives the interpreter away, and it has to be won back."""
_LEAST_BYTES: Final = 64 * 1024
_PORTION_BYTES: Final = 32 * 1024
"""So much is looked at in one go; half of it where others wait for the interpreter meanwhile."""
_YIELD_EVERY: Final = 8
_NEVER: Final = 2**63


class _Piece(NamedTuple):
    """A piece of a segment.

    Attributes:
        data: its bytes, from ``start`` on.
        complete: whether they reach the end of what may be read.
        final: nothing will be written behind it.
    """

    data: bytes
    start: int
    complete: bool
    final: bool


class StreamReader:
    """Reads one stream.

    Args:
        directory: the stream's directory; its name is the stream id.
        after: read what comes after this sequence number; damage before it is not reported.
        yielding: let other threads run every few records (a shipper beside an application).

    Attributes:
        damage: what was found damaged.
        removed: how many records are not there because they were removed, as the ledger says.
    """

    def __init__(self, directory: Path, *, after: int = 0, files: Files = OS_FILES, yielding: bool = False) -> None:
        self.directory = directory
        self.stream_id = directory.name
        self.damage: list[DamageReport] = []
        self.removed = 0
        self._files = files
        self._yielding = yielding
        self._after = after
        self._segment: Segment | None = None
        self._following: Segment | None = None
        self._offset = 0
        self._next = after + 1
        self._previous_hash = ""
        self._hurt: Damage | None = None
        self._moved_from = _NEVER
        self._line_length = CHUNK_BYTES
        self._portion_bytes = _PORTION_BYTES // 2 if yielding else _PORTION_BYTES

    @property
    def last_sequence(self) -> int:
        """Sequence number of the last record that was found, wanted or not."""
        return self._next - 1 if self._segment is not None else 0

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
        if self._segment is None and not self._enter_first():
            return found
        size = 0
        while len(found) < records_max and size < bytes_max:
            assert self._segment is not None  # noqa: S101 - for the type checker
            limit = end[1] if end is not None and end[0] == self._segment.first else None
            following = self._find_following(self._segment) if limit is None else None  # the writer's own is the last
            self._moved_from = following.first if following is not None else _NEVER
            done = False
            while not done and len(found) < records_max and size < bytes_max:
                room = (records_max, bytes_max - size)
                read, done = self._read_segment(found, room, limit, final=final or following is not None)
                size += read
            if done:
                if following is None or (end is not None and self._segment.first >= end[0]):
                    if final:
                        self._finish()
                    break
                self._leave(following)
        return found

    # -- segments ------------------------------------------------------------------------------------

    def _enter_first(self) -> bool:
        segments = list_segments(self.directory, self._files)
        if not segments:
            return False
        earlier = [segment for segment in segments if segment.first <= self._next]
        self._segment = earlier[-1] if earlier else segments[0]
        self._step_to(self._segment.first)
        return True

    def _find_following(self, segment: Segment) -> Segment | None:
        """The next segment.  Looked for until there is one: none comes between the two afterwards."""
        if self._following is None:
            later = (other for other in list_segments(self.directory, self._files) if other.first > segment.first)
            self._following = next(later, None)
        return self._following

    def _leave(self, following: Segment) -> None:
        """Go on to the next segment."""
        self._step_to(following.first)
        self._segment, self._following = following, None
        self._offset = 0

    def _step_to(self, first: int) -> None:
        """A segment begins with this record; what is missing before it was removed, or is a hole."""
        missing = first - self._next
        if missing < 0:  # its first records were moved there, and we have had some of them
            self._after = max(self._after, self._next - 1)
            self._previous_hash = ""
        elif missing and self._hurt is None:
            ledger = self.directory.parent.parent / "ledger.jsonl"
            removed = count_removed(ledger, self.stream_id, self._next, first - 1)
            self.removed += removed
            self._next += removed  # whichever they are: only their number counts
            if removed:
                self._previous_hash = ""
        self._settle(first)
        self._next = first

    def _finish(self) -> None:
        """The end of a stream that nobody writes: what is left unexplained is a torn tail, or lost."""
        if self._hurt is not None:
            lost = self._lost_in(self._hurt)
            self._report("lost-tail" if lost else "torn-tail", self._hurt, self._next, lost)
        self._hurt = None

    def _lost_in(self, hurt: Damage) -> int:
        """How many records a stream's damaged end had, at least.

        0 where it is what a killed ``write(2)`` leaves: the beginning of one line, whose ``emit`` had not returned.
        """
        assert self._segment is not None  # noqa: S101 - for the type checker
        try:
            fd = self._files.open(self._segment.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            data = self._files.pread(fd, min(hurt.stop - hurt.start, CHUNK_BYTES), hurt.start)
        finally:
            self._files.close(fd)
        begins = data.startswith(MARKER) or MARKER.startswith(data)
        if begins and min(data, default=32) >= 32 and data.count(MARKER) <= 1:
            return 0
        return max(1, data.count(MARKER), data.count(END))

    def _read_segment(
        self, found: list[StoredRecord], room: tuple[int, int], limit: int | None, *, final: bool
    ) -> tuple[int, bool]:
        """Read on in the present segment.

        Returns:
            Bytes of canonical form that were found; and whether all is read that stands in it now.
        """
        if self._next >= self._moved_from:
            return 0, True  # what is left stands in the next segment too
        before = self._offset
        likely = min((room[0] - len(found)) * self._line_length, room[1])
        window = min(CHUNK_BYTES, max(likely + likely // 8, _LEAST_BYTES))  # what is not wanted now is read once more
        while True:
            piece = self._load(limit, window, final=final)
            size = self._read_piece(piece, found, room)
            if piece.complete:
                return size, len(found) < room[0] and size < room[1]
            if self._offset > before:
                return size, False
            window *= 4  # a line that is longer, or damage

    def _load(self, limit: int | None, window: int, *, final: bool) -> _Piece:
        """Bytes of the present segment, from the present offset on."""
        assert self._segment is not None  # noqa: S101 - for the type checker
        if limit is not None and limit <= self._offset:
            return _Piece(b"", self._offset, complete=True, final=final)
        try:
            fd = self._files.open(self._segment.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return _Piece(b"", self._offset, complete=True, final=True)
        try:
            stop = limit if limit is not None else self._files.fstat(fd).st_size
            wanted = min(window, max(stop - self._offset, 0))
            data = self._files.pread(fd, wanted, self._offset)
            if limit is not None and len(data) < wanted:  # it was cut short
                stop = min(limit, self._files.fstat(fd).st_size)
        finally:
            self._files.close(fd)
        complete = not data or self._offset + len(data) >= stop
        return _Piece(data, self._offset, complete, final and complete)

    def _read_piece(self, piece: _Piece, found: list[StoredRecord], room: tuple[int, int]) -> int:
        size = self._read_plain(piece, found, room) if self._hurt is None else 0
        if len(found) >= room[0] or size >= room[1]:
            return size
        count = 0
        for item in scan(piece.data[self._offset - piece.start :], self._offset, final=piece.final):
            if self._next >= self._moved_from:
                break
            if isinstance(item, Damage):
                self._hurt = Damage(self._hurt.start if self._hurt is not None else item.start, item.stop)
                self._offset = item.stop
                continue
            count += 1
            if self._yielding and count % _YIELD_EVERY == 0:
                let_others_run()
            sequence = self._judge(item, piece)
            if sequence is None:
                break
            self._offset = item.stop
            if sequence > self._after:
                found.append(StoredRecord(sequence, item.sha256, item.canonical))
                size += len(item.canonical)
                if len(found) >= room[0] or size >= room[1]:
                    break
        return size

    def _read_plain(self, piece: _Piece, found: list[StoredRecord], room: tuple[int, int]) -> int:
        """Read whole lines that follow each other, up to the first that wants a closer look: :meth:`_judge` does that.

        Nearly all lines are read here.
        """
        at = size = 0
        while self._next < self._moved_from:
            first, unwanted = self._next, self._after + 1 - self._next
            wanted = min(unwanted if unwanted > 0 else room[0] - len(found), self._moved_from - first)
            count = min(wanted, max(self._portion_bytes // self._line_length, 1))
            expected = Expectation(self.stream_id, self._previous_hash)
            hashes, canonicals = plain_lines(piece.data, at, expected, first, count)
            if not hashes:
                break
            length = sum(map(len, canonicals))
            if unwanted <= 0:
                while size + length - len(canonicals[-1]) >= room[1]:
                    length -= len(canonicals.pop())
                found += map(StoredRecord, range(first, self._moved_from), hashes, canonicals)
                size += length
            read = len(canonicals)
            at += length + read * LINE_OVERHEAD
            self._next, self._previous_hash, self._offset = first + read, hashes[read - 1], piece.start + at
            self._line_length = length // read + LINE_OVERHEAD
            if read < count or len(found) >= room[0] or size >= room[1]:
                break
            if self._yielding:
                let_others_run()
        return size

    # -- records --------------------------------------------------------------------------------------

    def _judge(self, line: Line, piece: _Piece) -> int | None:
        """Place a whole line in the chain.

        Returns:
            Its sequence number; 0 where it was read before or does not belong here; ``None`` where that cannot be said
            before more is written.
        """
        place = place_of(line.canonical)
        if place is None or place.stream_id != self.stream_id or place.sequence < self._next:
            return self._refuse(line)
        if place.sequence >= self._moved_from:
            return 0
        follows = not self._previous_hash or place.previous_hash == self._previous_hash
        if place.sequence > self._next or not follows:
            then = self._next_place(line, piece)
            if then is None and not piece.final:
                return None
            if then is not None and self._next <= then.sequence <= place.sequence:
                return self._refuse(line)
        self._settle(place.sequence)
        if not follows and self._previous_hash:
            self._report("chain", Damage(line.start, line.stop), place.sequence)
        if not line.newline:
            self._report("newline", Damage(line.stop - 1, line.stop), place.sequence)
        self._next = place.sequence + 1
        self._previous_hash = line.sha256
        return place.sequence

    def _refuse(self, line: Line) -> int:
        self._report("foreign", Damage(line.start, line.stop), self._next)
        return 0

    def _next_place(self, line: Line, piece: _Piece) -> Place | None:
        """The place of the next whole line of this stream behind a line."""
        for item in scan(piece.data[line.stop - piece.start :], line.stop, final=piece.final):
            if isinstance(item, Line):
                place = place_of(item.canonical)
                if place is not None and place.stream_id == self.stream_id:
                    return place
        return None

    def _settle(self, sequence: int) -> None:
        """The record after the damage is known: so is how many are missing."""
        missing = sequence - self._next
        if missing > 0:
            hurt = self._hurt or Damage(self._offset, self._offset)
            first = max(self._next, self._after + 1)
            if first < sequence:
                self._report("hole", hurt, first, sequence - first)
            self._previous_hash = ""
            self._next = sequence
        elif self._hurt is not None:
            self._report("noise", self._hurt, self._next)
        self._hurt = None

    def _report(self, kind: str, hurt: Damage, sequence: int, count: int = 0) -> None:
        if sequence > self._after or kind in ("torn-tail", "lost-tail"):
            assert self._segment is not None  # noqa: S101 - for the type checker
            self.damage.append(DamageReport(kind, self._segment.path.name, hurt.start, hurt.stop, sequence, count))
