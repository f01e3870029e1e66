"""The accounts: what was emitted, and where it is now; and whether every chain is whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from ...batch import StoredRecord
from ...delivery.deadletters import read_dead_letters
from ...journal.layout import Layout
from ...journal.reader import StreamReader
from ...journal.streams import list_streams


class Chain(msgspec.Struct, kw_only=True):
    """What reading every stream from its first record found.

    Attributes:
        records: control records among them.
        torn: bytes that a SIGKILL within ``write(2)`` left at a stream's end; that call had not returned.
        damage: everything else that is not as it was written.
    """

    streams: int = 0
    records: int = 0
    torn: int = 0
    damage: list[str] = msgspec.field(default_factory=list)
    intact: bool = True


class Accounts(msgspec.Struct, kw_only=True):
    """The table at the end; records of the application, without the journal's own.

    Attributes:
        emitted: by way, those whose call returned.
        delivered, dead_lettered, pending: different records.
        duplicates: how often the receiver got one that it had.
        interrupted: journaled, but the process was killed before the call returned, or before it could note that.
        lost: emitted, and neither delivered nor dead-lettered nor pending.
    """

    emitted: dict[str, int]
    delivered: int
    duplicates: int
    dead_lettered: int
    pending: int
    interrupted: int
    lost: int
    chain: Chain

    @property
    def good(self) -> bool:
        """Whether it is as promised."""
        return self.lost == 0 and self.pending == 0 and self.chain.intact


def take_accounts(layout: Layout, destination: str, noted: Mapping[str, str], delivered: Sequence[str]) -> Accounts:
    """Compare what was emitted with what is where.

    Args:
        layout: the journal.
        destination: the one that was delivered to.
        noted: record id → way, of every record whose call returned.
        delivered: ids of the application's records at the receiver, doubles included.
    """
    chain = Chain()
    journaled: set[str] = set()
    pending: set[str] = set()
    for stream in list_streams(layout):
        cursor = stream.cursors().get(destination)
        acknowledged = cursor.acknowledged if cursor is not None else 0
        for record in _read(stream.path.name, layout, chain):
            if record.is_control:
                continue
            journaled.add(record.record_id)
            if record.sequence > acknowledged:
                pending.add(record.record_id)
    chain.intact = not chain.damage
    dead = {StoredRecord(0, "", bytes(letter.record)).record_id for letter in read_dead_letters(layout, destination)}
    times = Counter(delivered)
    there = times.keys() | dead | pending
    return Accounts(
        emitted=dict(sorted(Counter(noted.values()).items())),
        delivered=len(times),
        duplicates=times.total() - len(times),
        dead_lettered=len(dead),
        pending=len(pending - times.keys() - dead),
        interrupted=len(journaled - noted.keys()),
        lost=len(noted.keys() - there),
        chain=chain,
    )


def _read(stream_id: str, layout: Layout, chain: Chain) -> list[StoredRecord]:
    """Every record of a stream, each verified; what is wrong goes into the chain's account."""
    reader = StreamReader(layout.streams / stream_id)
    records: list[StoredRecord] = []
    while found := reader.read(records_max=1000, bytes_max=1024 * 1024, final=True):
        records += found
    chain.streams += 1
    chain.records += len(records)
    for report in reader.damage:
        if report.kind == "torn-tail":
            chain.torn += 1
        else:
            chain.damage.append(f"stream {stream_id}: {report.kind} at number {report.sequence}")
    if [record.sequence for record in records] != list(range(1, len(records) + 1)):
        chain.damage.append(f"stream {stream_id}: its records are not numbered from 1 without a gap")
    return records
