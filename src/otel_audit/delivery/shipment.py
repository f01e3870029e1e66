"""One stream on its way to one destination: lock, cursor, reader, and what is settled."""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from ..batch import RecordBatch, StoredRecord
from ..errors import AuditError
from ..journal.cursor import Cursor
from ..journal.locks import FileLock
from ..journal.reader import DamageReport, StreamReader
from ..journal.streams import StreamDirectory
from ..protocols import AuditRecordExporter
from .deadletters import bury, keep_response_ids
from .destination import Destination
from .splitting import Splitting

_log = logging.getLogger("otel_audit.delivery")


class Shipment:
    """Ships one stream to one destination.

    Args:
        stream: the stream.
        destination: where to.
        lock: the ship lock of the two, held.
        on_progress: called after the cursor moved.

    Raises:
        DamageError: the stream's metadata cannot be read.
        OSError: its files cannot be read.
    """

    def __init__(
        self, stream: StreamDirectory, destination: Destination, lock: FileLock, on_progress: Callable[[], None]
    ) -> None:
        self.stream = stream
        self.finished = False
        self._destination = destination
        self._lock = lock
        self._on_progress = on_progress
        self._resource = dict(stream.metadata.resource)
        self._file = stream.cursor_file(destination.name)
        self.cursor = self._file.load() or Cursor()
        if self._file.damaged:
            _log.warning(
                "destination %s: the cursor in stream %s is damaged; its records are sent again from the first",
                destination.name,
                stream.stream_id,
            )
        self._reader = self._new_reader()
        self._unsettled: list[StoredRecord] = []
        self._accepted: set[int] = set()
        self._counted = 0
        self._reported = 0

    def _new_reader(self) -> StreamReader:
        return StreamReader(
            self.stream.path, after=self.cursor.acknowledged, files=self.stream.layout.files, yielding=True
        )

    @property
    def damage(self) -> list[DamageReport]:
        """What was found damaged on the way."""
        return self._reader.damage

    def ship(self, exporter: AuditRecordExporter, *, final: bool, end: tuple[int, int] | None) -> int:
        """Move one batch; how many records were settled.  0: there is nothing to do now.

        Args:
            exporter: the destination's exporter.
            final: nobody writes the stream any more.
            end: where the writer in this process is; nothing behind it is read.

        Raises:
            RetryableExportError, BlockedExportError: the destination did not take all of it; what it took is settled.
            OSError: the journal cannot be read or written.
        """
        records = self._next_records(final=final, end=end)
        if not records:
            if final:
                self._finish()
            return 0
        batch = RecordBatch(self.stream.stream_id, self._resource, records)
        splitting = Splitting(lambda part: exporter.export(part, self._destination.timeout_s))
        splitting.accepted |= {record.sequence for record in records if record.sequence in self._accepted}
        known = len(splitting.accepted)
        try:
            splitting.run(batch)
        finally:
            if len(splitting.accepted) > known or splitting.has_evidence:
                self._settle(batch, splitting)
        return len(records)

    def _next_records(self, *, final: bool, end: tuple[int, int] | None) -> list[StoredRecord]:
        """What is not settled yet, filled up with new records to a whole batch."""
        have = self._unsettled
        size = sum(len(record.canonical) for record in have)
        room = self._destination.records_max - len(have)
        if room > 0 and size < self._destination.bytes_max:
            have = have + self._reader.read(
                records_max=room, bytes_max=self._destination.bytes_max - size, final=final, end=end
            )
            self._unsettled = have
            self._report_damage()
        return have

    def _settle(self, batch: RecordBatch, splitting: Splitting) -> None:
        """Bury what is refused, move the cursor over all that is settled from the start, remember the rest."""
        layout = self.stream.layout
        bury(layout, self._destination.name, batch, splitting.refused)
        keep_response_ids(layout, self._destination.name, batch.stream_id, splitting.response_ids)
        refused = {record.sequence for record, _ in splitting.refused}
        delivered = dead = index = 0
        for record in batch.records:
            if record.sequence in splitting.accepted:
                delivered += 1
            elif record.sequence in refused:
                dead += 1
            else:
                break
            index += 1
        self._unsettled = list(batch.records[index:])
        self._accepted = {record.sequence for record in self._unsettled if record.sequence in splitting.accepted}
        for record, error in splitting.refused:
            _log.error(
                "destination %s refused record %d of stream %s; it is in %s: %s",
                self._destination.name,
                record.sequence,
                batch.stream_id,
                layout.dead_letters(self._destination.name),
                error,
            )
        if index:
            self._move(batch.records[index - 1].sequence, delivered, dead)

    def _move(self, acknowledged: int, delivered: int, dead: int) -> None:
        missing = sum(report.count for report in self.damage if report.sequence <= acknowledged)
        cursor = Cursor(
            acknowledged=acknowledged,
            delivered=self.cursor.delivered + delivered,
            dead_lettered=self.cursor.dead_lettered + dead,
            damaged=self.cursor.damaged + missing - self._counted,
        )
        self._file.store(cursor)
        self._counted = missing
        self.cursor = cursor
        self._on_progress()

    def _report_damage(self) -> None:
        """Damage is said once, and kept beside the stream for whoever looks at it later."""
        path = self.stream.path / "recovery.json"
        reports = [report for report in self.damage if report.sequence > self.cursor.acknowledged or report.count]
        if len(reports) <= self._reported:
            return
        self._reported = len(reports)
        for report in reports[-8:]:
            _log.error(
                "stream %s is damaged: %s in %s, bytes %d to %d, %d records missing from number %d",
                self.stream.stream_id,
                report.kind,
                report.segment,
                report.start,
                report.stop,
                report.count,
                report.sequence,
            )
        self.stream.layout.files.replace(path, msgspec.json.encode(reports) + b"\n", self.stream.layout.mode)

    def _finish(self) -> None:
        self._report_damage()
        if self.cursor.acknowledged > self._reader.last_sequence > 0:
            _log.warning(
                "destination %s has records up to %d of stream %s, which ends at %d: they were delivered, then lost here",
                self._destination.name,
                self.cursor.acknowledged,
                self.stream.stream_id,
                self._reader.last_sequence,
            )
        self.finished = True

    def close(self) -> None:
        """Let go of the stream."""
        self._lock.release()

    def forget(self) -> None:
        """In a forked child: close the descriptor only."""
        self._lock.forget()


def open_shipment(
    stream: StreamDirectory, destination: Destination, on_progress: Callable[[], None]
) -> Shipment | None:
    """Take a stream's ship lock; ``None`` where somebody else ships it or it cannot be read.

    Raises:
        OSError: the lock cannot be opened.
    """
    lock = stream.ship_lock(destination.name)
    try:
        if not lock.acquire():
            return None
        return Shipment(stream, destination, lock, on_progress)
    except FileNotFoundError:
        lock.release()
        return None
    except (AuditError, OSError):
        lock.release()
        raise
