"""Dead letters: what a working destination refuses, with the reason; and the ids that destinations gave."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from ..batch import RecordBatch, StoredRecord
from ..errors import ExportError
from ..journal.layout import Layout


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """One record that a destination refuses.

    Attributes:
        refused_ns: when it was given up, nanoseconds since 1970.
        reason: what the destination said.
        status: its status (HTTP status, gRPC code).
        record: the canonical form, exactly as it was hashed.
        resource: resource attributes of the process that wrote it; ``None`` in letters of earlier versions.
    """

    refused_ns: int
    destination: str
    reason: str
    status: int | str | None
    stream_id: str
    sequence: int
    sha256: str
    record: msgspec.Raw
    resource: dict[str, Any] | None = None


def bury(
    layout: Layout, destination: str, batch: RecordBatch, refused: Iterable[tuple[StoredRecord, ExportError]]
) -> None:
    """Write refused records to the destination's dead letters; on return they are on the disk.

    Raises:
        OSError: they could not be written; the cursor must not move.
    """
    lines = b"".join(
        msgspec.json.encode(
            DeadLetter(
                refused_ns=time.time_ns(),
                destination=destination,
                reason=str(error),
                status=error.status,
                stream_id=batch.stream_id,
                sequence=record.sequence,
                sha256=record.sha256,
                record=msgspec.Raw(record.canonical),
                resource=dict(batch.resource),
            )
        )
        + b"\n"
        for record, error in refused
    )
    if lines:
        layout.files.append_durably(layout.dead_letters(destination), lines, layout.mode)


def read_dead_letters(layout: Layout, destination: str) -> Iterator[DeadLetter]:
    """The dead letters of a destination; a line that a crash left unfinished is passed over."""
    try:
        data = layout.dead_letters(destination).read_bytes()
    except FileNotFoundError:
        return
    yield from _letters_in(data)


def _letters_in(data: bytes) -> Iterator[DeadLetter]:
    for line in data.splitlines():
        try:
            letter = msgspec.json.decode(line, type=DeadLetter)
        except msgspec.MsgspecError:
            continue
        yield letter


class Buried:
    """Says which records of a stream are among the dead letters of a destination; reads only what is new.

    Args:
        layout: the journal.
        destination: the destination.
    """

    def __init__(self, layout: Layout, destination: str) -> None:
        self._path = layout.dead_letters(destination)
        self._known: tuple[str, int, set[int]] = ("", 0, set())

    def has(self, stream_id: str, sequence: int) -> bool:
        """Whether the record is there.  Any thread may ask.

        Raises:
            OSError: the dead letters cannot be read.
        """
        known, read, sequences = self._known
        if known != stream_id:
            read, sequences = 0, set()
        try:
            with self._path.open("rb") as file:
                if file.seek(0, os.SEEK_END) > read:
                    file.seek(read)
                    data = file.read()
                    whole = data.rfind(b"\n") + 1
                    sequences.update(each.sequence for each in _letters_in(data[:whole]) if each.stream_id == stream_id)
                    self._known = stream_id, read + whole, sequences
        except FileNotFoundError:
            return False
        return sequence in sequences


def keep_response_ids(layout: Layout, destination: str, stream_id: str, ids: Mapping[str, str]) -> None:
    """Keep the ids that a destination gave to records.

    Raises:
        OSError: they could not be written.
    """
    lines = b"".join(
        msgspec.json.encode({"record_id": record_id, "response_id": response_id, "stream_id": stream_id}) + b"\n"
        for record_id, response_id in ids.items()
    )
    if lines:
        layout.files.append_durably(layout.acknowledgements(destination), lines, layout.mode)
