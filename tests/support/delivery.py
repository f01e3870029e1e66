"""For tests of delivery: journals with records in them, and a destination that answers as it is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.delivery.backoff import Backoff
from otel_audit.delivery.destination import Destination
from otel_audit.delivery.shipper import Shipper
from otel_audit.errors import RejectedExportError
from otel_audit.journal.files import OS_FILES, Files
from otel_audit.journal.journal import Journal
from otel_audit.journal.layout import Layout
from otel_audit.journal.stream import Entry
from otel_audit.preparation import prepare
from otel_audit.protocols import ExportResult
from otel_audit.record import AuditRecord

AT_ONCE = Backoff(first_s=0.0, max_s=0.0)
"""No waiting between two tries."""

LONG = Backoff(first_s=1000.0, max_s=1000.0, uniform=lambda _, high: high)
"""No second try within a test."""

Ships = Callable[..., Shipper]
"""Makes shippers of a test's journal; a fixture ends them."""

Answer = Exception | ExportResult | None | Callable[[RecordBatch], ExportResult | None]


class Sink:
    """An exporter that keeps what it is given.

    Each export takes the next answer of the script: an exception to raise, a result, or a function of the batch.  When
    the script is used up, everything is accepted, but for the records that ``refuses`` is true of.
    """

    def __init__(
        self,
        *script: Answer,
        refuses: Callable[[StoredRecord], bool] = lambda _: False,
        single_writer: bool = False,
    ) -> None:
        self.single_writer = single_writer
        self.script = list(script)
        self.refuses = refuses
        self.requests: list[list[int]] = []
        self.accepted: list[StoredRecord] = []
        self.batches: list[RecordBatch] = []
        self.closed = 0
        self.before_each: Callable[[], None] = lambda: None

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        self.before_each()
        self.requests.append([record.sequence for record in batch.records])
        self.batches.append(batch)
        answer = self.script.pop(0) if self.script else None
        if isinstance(answer, Exception):
            self.accepted += batch.records[: getattr(answer, "accepted", 0)]
            raise answer
        result = answer(batch) if callable(answer) else answer
        if any(self.refuses(record) for record in batch.records):
            raise RejectedExportError("one of them is bad", status=400)
        self.accepted += batch.records
        return result

    def close(self) -> None:
        self.closed += 1

    @property
    def sequences(self) -> list[int]:
        """Numbers of what was accepted, in the order in which it came."""
        return [record.sequence for record in self.accepted]

    @property
    def ids(self) -> list[str]:
        """Record ids of what was accepted, without the journal's own records."""
        return [record.record_id for record in self.accepted if not record.is_control]


def destination(exporter: Any, name: str = "sink", **options: Any) -> Destination:
    """A destination that is tried again at once and gathers nothing."""
    quick = {"retry": AT_ONCE, "blocked": AT_ONCE, "delay_s": 0.0}
    return Destination(name, lambda: exporter, **(quick | options))


def make_journal(
    root: Path, *, required: Iterable[str] = ("sink",), files: Files = OS_FILES, **options: Any
) -> Journal:
    """The journal of this process in a directory."""
    settings: dict[str, Any] = {
        "resource": lambda: {"service.name": "test"},
        "required": list(required),
        "segment_bytes_max": 1 << 24,
        "bytes_max": 1 << 30,
        "full_timeout_s": 0.0,
    }
    return Journal(Layout(root, files=files), **(settings | options))


def append(journal: Journal, count: int, **fields: Any) -> list[str]:
    """Emit so many records; their ids."""
    ids = []
    for number in range(count):
        attributes = {"n": number, **fields}
        record = AuditRecord("user.login", actor="u-42", outcome="success", attributes=attributes)
        journal.append(Entry(*prepare(record, time.time_ns())))
        ids.append(record.record_id)
    return ids


def dead_stream(root: Path, count: int, fields: dict[str, Any] | None = None, **options: Any) -> list[str]:
    """Leave a stream as a killed process does: no last record, and nobody holds its lock; ids of its records."""
    journal = make_journal(root, **options)
    ids = append(journal, count, **(fields or {}))
    journal.abandon()
    return ids


def own_stream(journal: Journal) -> str:
    """Id of the stream that this process writes."""
    assert journal.writer is not None
    return journal.writer.stream_id


def until(condition: Callable[[], object], timeout_s: float = 30) -> None:
    """Wait for something that another thread or process does."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
