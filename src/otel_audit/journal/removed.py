"""The ledger's lines: one for each segment that was removed, and what can be told from them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from .damage import DamageReport


class LedgerLine(msgspec.Struct, frozen=True, kw_only=True):
    """One removed segment.

    Attributes:
        removed_ns: when, nanoseconds since 1970.
        stream_id: the stream that it belonged to.
        first, last: the sequence numbers that it stood for.
        count: how many records it held; fewer than the range where it was damaged.
        bytes: its size.
        first_previous_hash: hash of the record before its first one; empty at a stream's beginning.
        last_hash: hash of its last record.
        why: ``"delivered"`` – every required destination had it; ``"retention"`` – none was required, and its time was
            over.
        unseen: optional destinations that had not seen all of it, and how many records they miss.
        damage: what was found damaged in it when it was delivered, or when it was removed if it was read once more.
    """

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
    damage: list[DamageReport]


def read_ledger(path: Path) -> Iterator[LedgerLine]:
    """The lines of a ledger; one that a crash left unfinished is passed over.

    Raises:
        OSError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    for line in data.split(b"\n"):
        try:
            removed = msgspec.json.decode(line, type=LedgerLine)
        except msgspec.MsgspecError:
            continue
        yield removed


def count_removed(path: Path, stream_id: str, first: int, last: int) -> int:
    """How many of the sequence numbers from ``first`` to ``last`` of a stream the ledger names as removed."""
    count = 0
    for start, stop in sorted({(line.first, line.last) for line in read_ledger(path) if line.stream_id == stream_id}):
        count += max(min(stop, last) - max(start, first) + 1, 0)
        first = max(first, stop + 1)
    return count
