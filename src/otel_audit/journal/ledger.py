"""Removing segments that are no longer needed, and the ledger that says which went, and why.

In this order: the cursors are on the disk, the ledger line is on the disk, the segment is unlinked.  A crash in between
leaves a segment that the ledger already names; it is removed, and named, again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from .. import semconv as sc
from ..batch import StoredRecord
from ..canonical import untag
from .cursor import Cursor
from .layout import Layout
from .locks import FileLock
from .metadata import StreamMetadata
from .reader import DamageReport, StreamReader
from .segment import Segment, list_segments
from .streams import DEAD, StreamDirectory


class LedgerLine(msgspec.Struct, frozen=True, kw_only=True):
    """One removed segment."""

    removed_ns: int
    stream_id: str
    first: int
    last: int
    count: int
    bytes: int
    first_previous_hash: str
    last_hash: str
    why: str
    unseen: dict[str, int]
    """Optional destinations that had not seen all of it, and how many records they miss."""
    damage: list[DamageReport]


class Policy(NamedTuple):
    """When a segment that every required destination has may go.

    Attributes:
        retention_s: how long it stays after its last write, in seconds; ``None``: not at all where a required
            destination has it, for ever where there is no required destination.
        hurry: the journal is full: what every required destination has goes now.
    """

    retention_s: float | None = None
    hurry: bool = False


def retired_destinations(layout: Layout) -> frozenset[str]:
    """Destinations that were retired: nobody waits for them any more."""
    with contextlib.suppress(FileNotFoundError):
        return frozenset(path.name for path in (layout.root / "retired").iterdir())
    return frozenset()


def retire_destination(layout: Layout, destination: str) -> None:
    """Stop waiting for a destination, durably.

    Raises:
        OSError: the mark could not be written.
    """
    layout.files.mkdir(layout.root / "retired", layout.directory_mode)
    mark = msgspec.json.encode({"retired_ns": time.time_ns()})
    layout.files.replace(layout.root / "retired" / destination, mark, layout.mode)


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
    metadata = stream.metadata
    lock = stream.owner_lock()
    try:
        if not own and not lock.acquire() and stream.owner_state() != DEAD:
            return 0
        return _trim(stream, metadata, policy, own=own)
    except FileNotFoundError:
        return 0  # somebody else removed the stream
    finally:
        lock.release()


def _trim(stream: StreamDirectory, metadata: StreamMetadata, policy: Policy, *, own: bool) -> int:
    cursors = stream.cursors()
    required = [name for name in metadata.required if name not in retired_destinations(stream.layout)]
    settled = min((_acknowledged(cursors.get(name)) for name in required), default=None)
    segments = list_segments(stream.path)
    freed = 0
    for index, segment in enumerate(segments):
        following = segments[index + 1] if index + 1 < len(segments) else None
        if following is None and own:
            break
        if settled is None and not metadata.required and policy.retention_s is None:
            break
        if settled is not None and following is not None and settled < following.first - 1:
            break
        if not policy.hurry and _age_s(segment.path) < (policy.retention_s or 0.0):
            break
        line, finished = _examine(stream, segment, following, cursors, required)
        if settled is not None and settled < line.last:
            break
        if following is None and not finished:
            break
        freed += _remove(stream.layout, segment, line)
    if not own and not list_segments(stream.path):
        _remove_directory(stream)
    return freed


def _acknowledged(cursor: Cursor | None) -> int:
    return cursor.acknowledged if cursor is not None else 0


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _examine(
    stream: StreamDirectory,
    segment: Segment,
    following: Segment | None,
    cursors: dict[str, Cursor | None],
    required: Iterable[str],
) -> tuple[LedgerLine, bool]:
    """What the ledger is to say of a segment, and whether it was read to its end."""
    size = segment.path.stat().st_size
    reader = StreamReader(stream.path, after=segment.first - 1, files=stream.layout.files, yielding=True)
    count, first, last = 0, None, None
    finished = False
    while True:
        records = reader.read(records_max=1000, bytes_max=1024 * 1024, final=True)
        if not records:
            finished = True
            break
        inside = [r for r in records if following is None or r.sequence < following.first]
        count += len(inside)
        if inside:
            first = first or inside[0]
            last = inside[-1]
        if len(inside) < len(records):
            finished = True
            break
    last_sequence = last.sequence if last is not None else segment.first - 1
    unseen = {
        name: last_sequence - max(_acknowledged(cursor), segment.first - 1)
        for name, cursor in cursors.items()
        if name not in required and _acknowledged(cursor) < last_sequence
    }
    line = LedgerLine(
        removed_ns=time.time_ns(),
        stream_id=stream.stream_id,
        first=segment.first,
        last=last_sequence,
        count=count,
        bytes=size,
        first_previous_hash=_previous_hash(first),
        last_hash=last.sha256 if last is not None else "",
        why="delivered" if required else "retention",
        unseen=unseen,
        damage=[damage for damage in reader.damage if damage.segment == segment.path.name],
    )
    return line, finished


def _previous_hash(record: StoredRecord | None) -> str:
    if record is None:
        return ""
    return str(untag(record.tagged["attributes"].get(sc.SEQUENCE_PREVIOUS_HASH)) or "")


def _remove(layout: Layout, segment: Segment, line: LedgerLine) -> int:
    layout.files.sync_directory(segment.path.parent / "cursors")
    layout.files.append_durably(layout.ledger, msgspec.json.encode(line) + b"\n", layout.mode)
    layout.files.unlink(segment.path)
    return line.bytes


def _remove_directory(stream: StreamDirectory) -> None:
    """Nothing is left of a dead stream but its name: remove that, the lock last."""
    files = stream.layout.files
    for path in sorted((stream.path / "cursors").glob("*")) + sorted((stream.path / "cursors").glob(".*")):
        files.unlink(path)
    (stream.path / "cursors").rmdir()
    for path in sorted(stream.path.iterdir(), key=lambda entry: entry.name == "lock"):
        files.unlink(path)
    stream.path.rmdir()


def lock_directory(layout: Layout, destination: str) -> FileLock:
    """The lock of a destination that must have one writer in the whole journal."""
    return FileLock(layout.files, layout.destination_lock(destination), layout.mode)
