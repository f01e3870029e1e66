"""Removing segments that are no longer needed, and the ledger that says which went, and why.

In this order: the cursors are on the disk, the ledger line is on the disk, the segment is unlinked.  A crash in between
leaves a segment that the ledger already names; it is removed, and named, again.

What a required destination has was read and verified whole when it was delivered, and what was damaged then stands in
``recovery.json``.  Where nothing of a segment does, and a look at its ends and its newlines agrees, it is not read
again: that would cost a third of what delivering costs, beside a busy application.  Every other segment is read whole.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from ..batch import StoredRecord
from ..errors import DamageError
from .courtesy import let_others_run
from .cursor import Cursor
from .damage import DamageReport, read_damage
from .files import Files
from .layout import Layout
from .line import END, Line, scan
from .locks import FileLock
from .metadata import StreamMetadata
from .place import Place, place_of
from .reader import CHUNK_BYTES, StreamReader
from .removed import LedgerLine
from .retirement import retired_for
from .segment import Segment, list_segments
from .streams import DEAD, StreamDirectory, remove_stream_directory

__all__ = [
    "LedgerLine",
    "Policy",
    "lock_directory",
    "trim",
]

_EVERYTHING: Final = 2**63


class _Content(NamedTuple):
    """What a segment holds: of its ledger line what only its bytes say."""

    last: int
    records: int
    first_previous_hash: str
    last_hash: str
    damage: list[DamageReport]


class Policy(NamedTuple):
    """When a segment that every required destination has may go.

    Attributes:
        retention_s: how long it stays after its last write, in seconds; ``None``: not at all where a required
            destination has it, for ever where there is no required destination.
        hurry: the journal is full: what every required destination has goes now, whatever the retention.
    """

    retention_s: float | None = None
    hurry: bool = False


def trim(stream: StreamDirectory, policy: Policy, *, own: bool) -> int:
    """Remove what is no longer needed of a stream; bytes that were freed.

    Args:
        stream: the stream.
        policy: when a segment may go.
        own: it is this process's own, living stream; only segments that it has left are looked at.

    Raises:
        OSError: something could not be written or removed; nothing is lost by that.
        DamageError: the metadata cannot be read; nothing is removed.
    """
    lock = stream.owner_lock()
    try:
        metadata = stream.metadata
        if not own and not lock.acquire() and stream.owner_state() != DEAD:
            return 0
        if not own:
            _free_reservation(stream)
        return _trim(stream, metadata, policy, own=own)
    except FileNotFoundError:
        return 0  # somebody else removed the stream
    except DamageError:
        if stream.path.is_dir():
            raise
        return 0
    finally:
        lock.release()


def _free_reservation(stream: StreamDirectory) -> None:
    """What a process had reserved when it was killed is for others."""
    lock = stream.path / "lock"
    with contextlib.suppress(FileNotFoundError, PermissionError):
        if stream.layout.files.stat(lock).st_size:
            stream.layout.files.truncate(lock, 0)


def _trim(stream: StreamDirectory, metadata: StreamMetadata, policy: Policy, *, own: bool) -> int:
    layout, cursors = stream.layout, stream.cursors()
    retired = retired_for(layout, stream.stream_id)
    required = [name for name in metadata.required if name not in retired]
    settled = min((_acknowledged(cursors.get(name)) for name in required), default=_EVERYTHING)
    segments = list_segments(stream.path, layout.files)
    freed = 0
    for index, segment in enumerate(segments):
        following = segments[index + 1] if index + 1 < len(segments) else None
        if following is None and own:
            break
        if following is not None and settled < following.first - 1:
            break
        if not _is_old_enough(layout, segment, policy, waited_for=bool(metadata.required)):
            break
        if following is None and settled < segment.first and _ends_with_a_line(layout, segment):
            break
        line = _examine(stream, segment, following, required, cursors)
        if settled < line.last:
            break
        freed += _remove(layout, stream, segment, line)
    if not own and not list_segments(stream.path, layout.files):
        remove_stream_directory(layout, stream.path)
    return freed


def _acknowledged(cursor: Cursor | None) -> int:
    return cursor.acknowledged if cursor is not None else 0


def _ends_with_a_line(layout: Layout, segment: Segment) -> bool:
    """Whether a segment seems to hold a record: what a crash left of the first one need not be waited for."""
    files = layout.files
    with _opened(files, segment) as fd:
        return files.pread(fd, len(END), max(files.fstat(fd).st_size - len(END), 0)) == END


@contextlib.contextmanager
def _opened(files: Files, segment: Segment) -> Iterator[int]:
    fd = files.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        files.close(fd)


def _last_line(files: Files, fd: int, size: int) -> Line | None:
    """The whole line that a segment ends with, if it does and that is not too long."""
    tail = files.pread(fd, CHUNK_BYTES, max(size - CHUNK_BYTES, 0))
    found = next(scan(tail[tail.rfind(b"\n", 0, -1) + 1 :], final=True), None)
    return found if isinstance(found, Line) else None


def _place_in(stream: StreamDirectory, line: Line | None) -> Place | None:
    place = place_of(line.canonical) if line is not None else None
    return place if place is not None and place.stream_id == stream.stream_id else None


def _is_old_enough(layout: Layout, segment: Segment, policy: Policy, *, waited_for: bool) -> bool:
    """Whether local retention has run out.  It alone counts where no destination was ever waited for."""
    if waited_for and (policy.hurry or policy.retention_s is None):
        return True
    if policy.retention_s is None:
        return False
    return time.time() - layout.files.stat(segment.path).st_mtime >= policy.retention_s


def _examine(
    stream: StreamDirectory,
    segment: Segment,
    following: Segment | None,
    required: Sequence[str],
    cursors: dict[str, Cursor | None],
) -> LedgerLine:
    """What the ledger is to say of a segment."""
    size = stream.layout.files.stat(segment.path).st_size
    content = _look_at(stream, segment, following, size, [cursors.get(name) for name in required])
    if content is None:
        content = _read_whole(stream, segment, following, size)
    optional = {*stream.metadata.required, *stream.metadata.optional, *cursors}.difference(required)
    seen = {name: max(_acknowledged(cursors.get(name)), segment.first - 1) for name in sorted(optional)}
    return LedgerLine(
        removed_ns=time.time_ns(),
        stream_id=stream.stream_id,
        first=segment.first,
        last=content.last,
        count=content.records,
        bytes=size,
        first_previous_hash=content.first_previous_hash,
        last_hash=content.last_hash,
        why="delivered" if required else "retired" if stream.metadata.required else "retention",
        unseen={name: content.last - sequence for name, sequence in seen.items() if sequence < content.last},
        damage=content.damage,
    )


def _look_at(
    stream: StreamDirectory,
    segment: Segment,
    following: Segment | None,
    size: int,
    cursors: Sequence[Cursor | None],
) -> _Content | None:
    """What a segment holds that was found whole when it was delivered; ``None`` where it has to be read to say that."""
    files = stream.layout.files
    with _opened(files, segment) as fd:
        first = next(scan(files.pread(fd, CHUNK_BYTES, 0), final=False), None)
        last = _last_line(files, fd, size)
        if not isinstance(first, Line) or last is None:
            return None
        begin, end = _place_in(stream, first), _place_in(stream, last)
        if begin is None or begin.sequence != segment.first:
            return None
        if end is None or (following is not None and end.sequence != following.first - 1):
            return None
        count = end.sequence - segment.first + 1
        if not _was_whole(stream, segment, cursors) or _count_lines(files, fd, size) != count:
            return None
    return _Content(end.sequence, count, begin.previous_hash, last.sha256, [])


def _was_whole(stream: StreamDirectory, segment: Segment, cursors: Sequence[Cursor | None]) -> bool:
    """Whether a destination that is past a segment read all of it, and found nothing damaged in it."""
    known = None
    with contextlib.suppress(OSError):
        known = read_damage(stream.path)
    if known is None or any(report.segment == segment.path.name for report in known):
        return False
    missing = sum(report.count for report in known)  # on a full disk not all of it may have been written down
    return any(
        cursor.acknowledged == cursor.delivered + cursor.dead_lettered + cursor.damaged + cursor.filtered
        and cursor.damaged <= missing
        for cursor in cursors
        if cursor is not None
    )


def _count_lines(files: Files, fd: int, size: int) -> int:
    """How many lines a segment has; -1 where a power loss left zeros in it."""
    count = 0
    for start in range(0, size, CHUNK_BYTES):
        data = files.pread(fd, CHUNK_BYTES, start)
        if b"\0" in data:
            return -1
        count += data.count(b"\n")
        let_others_run()
    return count


def _read_whole(stream: StreamDirectory, segment: Segment, following: Segment | None, size: int) -> _Content:
    """What a segment holds, by reading and verifying all of it."""
    stop = following.first if following is not None else _EVERYTHING
    reader = StreamReader(stream.path, after=segment.first - 1, files=stream.layout.files, yielding=True)
    inside: list[StoredRecord] = []
    count, first = 0, None
    while True:
        records = reader.read(records_max=1000, bytes_max=min(size, 1024 * 1024) or 1, final=True)
        inside = [record for record in records if record.sequence < stop] or inside
        count += sum(record.sequence < stop for record in records)
        first = first or (inside[0] if inside else None)
        if not records or records[-1].sequence >= stop:
            break
    last = inside[-1] if inside else None
    last_sequence = stop - 1 if following is not None else last.sequence if last is not None else segment.first - 1
    return _Content(
        last=last_sequence,
        records=count,
        first_previous_hash=_previous_hash(first),
        last_hash=last.sha256 if last is not None else "",
        damage=[damage for damage in reader.damage if damage.segment == segment.path.name],
    )


def _previous_hash(record: StoredRecord | None) -> str:
    place = place_of(record.canonical) if record is not None else None
    return place.previous_hash if place is not None else ""


def _remove(layout: Layout, stream: StreamDirectory, segment: Segment, line: LedgerLine) -> int:
    cursors = stream.path / "cursors"
    for name in layout.files.listdir(cursors):
        stream.cursor_file(name).sync()
    layout.files.sync_directory(cursors)
    layout.files.append_durably(layout.ledger, msgspec.json.encode(line) + b"\n", layout.mode)
    layout.files.unlink(segment.path)
    return line.bytes


def lock_directory(layout: Layout, destination: str) -> FileLock:
    """The lock of a destination that must have one writer in the whole journal."""
    return FileLock(layout.files, layout.destination_lock(destination), layout.mode)
