"""The seams: what a user may put in place of our parts.

All are :class:`typing.Protocol`; nothing has to inherit from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from .batch import RecordBatch
from .record import AuditRecord


@dataclass(frozen=True)
class ExportResult:
    """What a destination said of a batch that it took whole.

    Attributes:
        response_ids: record id → the id that the destination gave to the record, where it gives one.
    """

    response_ids: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class AuditRecordExporter(Protocol):
    """Moves one batch, and raises when it fails.

    It never sleeps, retries, queues, logs or starts threads: the shipper does that, in one place, for all.  It is
    made in one process and used in the same one, by one thread at a time.  It opens its connection on the first
    export, not when it is made.

    Attributes:
        single_writer: whether only one process may export at a time (a file that is rotated).
    """

    single_writer: bool

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        """Deliver the whole batch; return only when the destination has acknowledged all of it.

        Raises:
            RetryableExportError: the network failed, or the receiver asked for patience.
            BlockedExportError: somebody has to repair something.
            RejectedExportError: the receiver refuses these records, or some of them.
        """

    def close(self) -> None:
        """Let go of connections and files.  May be called twice.  Does not raise."""


@runtime_checkable
class AuditRecordProcessor(Protocol):
    """Adds attributes to a record before it is written.

    It can only add: what it returns must not contain an attribute that the record has.  It runs in the caller's
    thread, outside every lock; an exception that it raises is raised by ``emit``, and nothing is journaled.
    """

    def on_emit(self, record: AuditRecord) -> Mapping[str, Any] | None:
        """Attributes to add, or ``None``."""


@runtime_checkable
class Clock(Protocol):
    """Where times come from."""

    def time_ns(self) -> int:
        """Nanoseconds since 1970, UTC."""
