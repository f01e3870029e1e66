"""One stream on its way to one destination: lock, cursor, reader, and what is settled."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from ..batch import RecordBatch, StoredRecord
from ..errors import AuditError, BlockedExportError, ExportError
from ..journal.courtesy import let_others_run
from ..journal.cursor import Cursor
from ..journal.damage import RECOVERY_NAME, DamageReport, read_damage
from ..journal.files import FULL
from ..journal.locks import FileLock
from ..journal.reader import StreamReader
from ..journal.streams import StreamDirectory
from ..own_log import own_log
from ..protocols import AuditRecordExporter, ExportResult
from .deadletters import bury, keep_response_ids
from .destination import Destination
from .patience import Patience
from .splitting import RefusedBatchError, Splitting

_YIELD_EVERY: Final = 16

_log = own_log("delivery")


class FailedExporterError(BlockedExportError):
    """An exporter, or what makes one, raised what it should not."""

    @classmethod
    def by(cls, error: BaseException) -> FailedExporterError:
        """The error for what was raised; it is the cause."""
        found = cls(
            f"the exporter failed unexpectedly: {type(error).__name__}: {error}",
            repair="this is a mistake in the exporter or in how it was made; the traceback is beside this message",
        )
        found.__cause__ = error
        return found


def is_interruption(error: BaseException) -> bool:
    """Whether a signal handler may have raised this: it is for the program, whatever the main thread was doing."""
    return isinstance(error, (KeyboardInterrupt, SystemExit)) and threading.current_thread() is threading.main_thread()


def send(exporter: AuditRecordExporter, part: RecordBatch, timeout_s: float) -> ExportResult | None:
    """One export.  What an exporter should not do is no success, and does not end the thread either.

    Raises:
        ExportError: the destination did not take all of it.
    """
    try:
        result = exporter.export(part, timeout_s)
    except ExportError:
        raise
    except BaseException as error:  # sys.exit() and a cancelled task of asyncio are no Exception
        if is_interruption(error):
            raise
        raise FailedExporterError.by(error) from error
    if result is None or isinstance(result, ExportResult):
        return result
    raise BlockedExportError(
        f"the exporter returned {type(result).__name__} rather than None or an ExportResult: it may have failed",
        repair="an exporter returns only when the destination has acknowledged the whole batch, and raises else",
    )


class Shipment:
    """Ships one stream to one destination.

    Args:
        stream: the stream.
        destination: where to.
        lock: the ship lock of the two, held.

    Raises:
        DamageError: the stream's metadata cannot be read.
        OSError: its files cannot be read.

    Attributes:
        cursor: how far the destination is.
        patience: this stream alone is stuck: the destination may take others.
        dead: its writer is known to have ended.
        finished: it is dead, and everything in it is settled.
        full: the last batch was as large as it may be, so there is probably more.
        refused_to: the last record of a batch of which everything was refused; 0 where that is not so.
        refused_when: whatever the shipper counts its successes by, at that time.
        passed: how many records of the last batch the destination's filter passed over.
    """

    def __init__(self, stream: StreamDirectory, destination: Destination, lock: FileLock) -> None:
        self.stream = stream
        self.patience = Patience()
        self.dead = False
        self.finished = False
        self.full = False
        self.refused_to = 0
        self.refused_when = 0
        self.passed = 0
        self._destination = destination
        self._lock = lock
        self._resource = dict(stream.metadata.resource)
        self._file = stream.cursor_file(destination.name)
        self.cursor = self._file.load() or Cursor()
        if self._file.damaged:
            _log.warning(
                "destination %s: the cursor in stream %s is damaged; its records are sent again from the first",
                destination.name,
                stream.stream_id,
            )
        self._reader = StreamReader(
            stream.path, after=self.cursor.acknowledged, files=stream.layout.files, yielding=True
        )
        self._unsettled: list[StoredRecord] = []
        self._accepted: set[int] = set()
        self._passed: set[int] = set()
        self._evidence = False
        self._counted = 0
        self._reported = 0
        self._reached: Cursor | None = None

    @property
    def damage(self) -> list[DamageReport]:
        """What was found damaged on the way."""
        return self._reader.damage

    @property
    def oldest_ns(self) -> int:
        """When the first record that is read and not settled was emitted, nanoseconds since 1970; 0: there is none."""
        unsettled = self._unsettled
        return unsettled[0].observed_ns if unsettled else 0

    def ship(
        self, exporter: AuditRecordExporter, *, final: bool, end: tuple[int, int] | None, evidence: bool = False
    ) -> int:
        """Move one batch; how many records are settled by that.  0: there is nothing to do now.

        Settled is what the destination took or refused for good, and what its filter passed over.

        Args:
            exporter: the destination's exporter.
            final: nobody writes the stream any more.
            end: where the writer in this process is; nothing behind it is read.
            evidence: the destination accepted something since it refused everything of this stream.

        Raises:
            RetryableExportError, BlockedExportError: the destination did not take all of it; what it took is settled.
            OSError: the journal cannot be read or written.
        """
        self.passed = 0
        self._store()
        records = self._next_records(final=final, end=end)
        if not records:
            if final:
                self._finish()
            return 0
        wanted = [record for record in records if record.sequence not in self._passed] if self._passed else records
        if not wanted:
            self._settle(records, None)
            return self.passed
        timeout_s = self._destination.timeout_s
        splitting = Splitting(
            lambda part: send(exporter, part, timeout_s),
            accepted=self._accepted,
            evidence=evidence or self._evidence,
        )
        self._evidence = False
        before = len(splitting.accepted)
        newest_first = 0 < self.refused_to < wanted[-1].sequence
        batch = RecordBatch(self.stream.stream_id, self._resource, wanted)
        try:
            splitting.run(batch, newest_first=newest_first)
        except RefusedBatchError:
            self.refused_to = wanted[-1].sequence
            raise
        finally:
            if splitting.has_evidence:
                self.refused_to = 0
                self._settle(records, splitting)
            elif records[0].sequence in self._passed:
                self._settle(records, None)
        self._evidence = bool(self._unsettled)
        return len(splitting.accepted) - before + len(splitting.refused) + self.passed

    def _next_records(self, *, final: bool, end: tuple[int, int] | None) -> list[StoredRecord]:
        """What is not settled yet, filled up with new records to a whole batch."""
        have = self._unsettled
        size = sum([len(record.canonical) for record in have])
        room, bytes_room = self._destination.records_max - len(have), self._destination.bytes_max - size
        if room > 0 and bytes_room > 0:
            new = self._reader.read(records_max=room, bytes_max=bytes_room, final=final, end=end)
            room -= len(new)
            bytes_room -= sum([len(record.canonical) for record in new])
            self._pass_over(new)
            have = self._unsettled = have + new
            self._report_damage()
        self.full = room <= 0 or bytes_room <= 0
        return have

    def _pass_over(self, records: list[StoredRecord]) -> None:
        """Note what is not for the destination."""
        if self._destination.filter is None:
            return
        wants = self._destination.filter.wants
        for number, record in enumerate(records):
            if number % _YIELD_EVERY == 0:
                let_others_run()
            if not wants(record):
                self._passed.add(record.sequence)

    def _settle(self, records: list[StoredRecord], splitting: Splitting | None) -> None:
        """Bury what is refused, move the cursor over all that is settled from the start, remember the rest.

        Args:
            records: all that is not settled as yet.
            splitting: what became of those that were sent; ``None``: none was, or nobody knows.
        """
        accepted = splitting.accepted if splitting is not None else self._accepted
        refused = {record.sequence: error for record, error in splitting.refused} if splitting is not None else {}
        delivered = dead = passed = 0
        for record in records:
            if record.sequence in accepted:
                delivered += 1
            elif record.sequence in refused:
                dead += 1
            elif record.sequence in self._passed:
                passed += 1
            else:
                break
        settled = delivered + dead + passed
        # A refused record behind one that is undecided is sent once more with that one.
        buried = [(record, refused[record.sequence]) for record in records[:settled] if record.sequence in refused]
        if splitting is not None:
            layout, name = self.stream.layout, self._destination.name
            bury(layout, name, RecordBatch(self.stream.stream_id, self._resource, records), buried)
            with _unless_full(f"{len(splitting.response_ids)} ids that destination {name} gave"):
                keep_response_ids(layout, name, self.stream.stream_id, splitting.response_ids)
            self._say_refused(buried)
        self.passed = passed
        self._unsettled = records[settled:]
        left = {record.sequence for record in self._unsettled}
        self._accepted = left & accepted
        self._passed &= left
        if settled:
            self._move(records[settled - 1].sequence, delivered, dead, passed)

    def _say_refused(self, buried: Sequence[tuple[StoredRecord, ExportError]]) -> None:
        for record, error in buried[:8]:
            _log.error(
                "destination %s refused record %d of stream %s; it is in %s: %s",
                self._destination.name,
                record.sequence,
                self.stream.stream_id,
                self.stream.layout.dead_letters(self._destination.name),
                error,
            )
        if len(buried) > 8:
            _log.error("destination %s refused %d records more", self._destination.name, len(buried) - 8)

    def _move(self, acknowledged: int, delivered: int, dead: int, passed: int = 0) -> None:
        end = acknowledged + 1  # where the stream ends, what is lost behind its last record is known with it
        reached = [
            r for r in self.damage if r.sequence <= acknowledged or (r.kind == "lost-tail" and r.sequence == end)
        ]
        missing = sum(report.count for report in reached)
        self._reached = Cursor(
            acknowledged=acknowledged,
            delivered=self.cursor.delivered + delivered,
            dead_lettered=self.cursor.dead_lettered + dead,
            damaged=self.cursor.damaged + missing - self._counted,
            filtered=self.cursor.filtered + passed,
        )
        self._counted = missing
        self._store()

    def _store(self) -> None:
        """Write the cursor down; what could not be written is tried again before anything else is sent.

        Raises:
            OSError: it could not be written; the one before still stands.
        """
        if self._reached is not None:
            self._file.store(self._reached)
            self.cursor, self._reached = self._reached, None

    def _report_damage(self) -> None:
        """Damage is said once, and kept beside the stream for whoever looks at it later."""
        reports = self.damage
        if len(reports) <= self._reported:
            return
        self._reported = len(reports)
        path = self.stream.path / RECOVERY_NAME
        known = read_damage(self.stream.path) or []
        new = [report for report in reports if report not in known]
        for report in new[:8]:
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
        if new:
            with _unless_full(f"{path}: what was found damaged"):
                self.stream.layout.files.replace(
                    path, msgspec.json.encode(known + new) + b"\n", self.stream.layout.mode
                )

    def _finish(self) -> None:
        self._report_damage()
        lost = sum(report.count for report in self.damage if report.kind == "lost-tail")
        if lost and self.cursor.acknowledged <= self._reader.last_sequence:
            self._move(self._reader.last_sequence + lost, 0, 0)
        if self.cursor.acknowledged > self._reader.last_sequence + lost > 0:
            _log.warning(
                "destination %s has records up to %d of stream %s, which ends at %d: delivered, then lost here",
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


@contextlib.contextmanager
def _unless_full(what: str) -> Iterator[None]:
    """Where the disk is full, do without what a delivery does not need: it is the delivery that makes room."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL:
            raise
        _log.warning("%s: not kept, the disk is full", what)


def open_shipment(stream: StreamDirectory, destination: Destination) -> Shipment | None:
    """Take a stream's ship lock; ``None`` where somebody else ships it, or it is gone.

    Raises:
        DamageError: its metadata cannot be read.
        OSError: its files cannot be opened.
    """
    lock = stream.ship_lock(destination.name)
    try:
        if not lock.acquire():
            return None
        return Shipment(stream, destination, lock)
    except FileNotFoundError:
        lock.release()
        return None
    except (AuditError, OSError):
        lock.release()
        raise
