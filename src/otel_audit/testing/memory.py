"""A provider that keeps its records in memory: for tests of applications, without a directory and without a network."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import semconv as sc
from ..batch import StoredRecord
from ..canonical import sequence_fragment
from ..checkup import FAILING, OK, Health, Thresholds
from ..durability import Durability
from ..errors import JournalClosedError
from ..health import FlushResult, ProviderStatus
from ..journal.stream import Entry
from ..logger import AuditLogger
from ..preparation import prepare
from ..provider import ProviderSettings
from ..receipt import AuditReceipt
from ..record import AuditRecord, check
from ..retries import ChosenIds, Claim
from ..telemetry import Counters


class RecordingProvider:
    """Stands in for an :class:`~otel_audit.AuditProvider`.

    A record goes through the same checks, conversion and limits, and is then read back from its canonical form: what
    stands in ``records`` is what would have been delivered, without the attributes of the chain.

    Args:
        strict: as for ``configure``.
        event_name: as for ``configure``.
        settings: instead of these two.
        records: the list to add to; ``None``: a new one.

    Attributes:
        records: what was emitted, in order.
    """

    takes_parts = False
    takes_parts_with = ()
    parts_bytes_max = 0
    now_ns = staticmethod(time.time_ns)

    def __init__(
        self,
        *,
        strict: bool = False,
        event_name: str = sc.EVENT_DEFAULT,
        settings: ProviderSettings | None = None,
        records: list[AuditRecord] | None = None,
    ) -> None:
        self.settings = settings or ProviderSettings(journal=Path(), strict=strict, default_event_name=event_name)
        self.counters = Counters()
        self.records: list[AuditRecord] = [] if records is None else records
        self.successor: RecordingProvider | None = None
        self.unreachable_handlers: Callable[[], Sequence[object]] = lambda: ()
        self._stream_id = str(uuid.uuid4())
        self._chosen = ChosenIds()
        self._previous_hash = ""
        self._lock = threading.RLock()
        self.is_shut_down = False

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[AuditRecord]:
        return iter(self.records)

    def take_over(self, before: RecordingProvider) -> None:
        """Know what was emitted through the provider that this one replaces, as a second ``configure()`` has it."""
        self._chosen = before._chosen

    def get_audit_logger(self, name: str | None = None) -> AuditLogger:
        """A logger that emits through this provider."""
        return AuditLogger(lambda: self, name)

    def emit_record(
        self,
        record: AuditRecord,
        *,
        durability: Durability | None = None,
        timeout_s: float | None = None,
        strict: bool | None = None,
        chosen_id: bool = False,
        wait_s: float | None = None,
    ) -> AuditReceipt:
        """Keep the record.

        Raises:
            InvalidRecordError: as :meth:`otel_audit.AuditProvider.emit_record`.
            JournalClosedError: after :meth:`shutdown`.
        """
        if self.is_shut_down and self.successor is not None:
            return self.successor.emit_record(record, durability=durability, strict=strict, chosen_id=chosen_id)
        check(record)
        observed_ns = time.time_ns()
        head, tail = prepare(record, observed_ns, strict=self.settings.strict if strict is None else strict)
        with self._lock:
            if self.is_shut_down:
                raise JournalClosedError("the provider was shut down")
            claim = Claim(self._chosen, record, self) if chosen_id else None
            first = claim.take() if claim is not None else None
            if first is not None:
                return first
            number = len(self.records) + 1
            canonical = head + sequence_fragment(number, self._previous_hash, self._stream_id) + tail
            self._previous_hash = hashlib.sha256(canonical).hexdigest()
            self.records.append(_read(StoredRecord(number, self._previous_hash, canonical)))
            receipt = AuditReceipt(
                record.record_id, self._stream_id, number, self._previous_hash, durability or "process", observed_ns
            )
            if claim is not None:
                claim.settle(receipt)
        return receipt

    async def aemit_record(self, record: AuditRecord, **options: Any) -> AuditReceipt:
        """:meth:`emit_record` for coroutines."""
        return self.emit_record(record, **options)

    def append(self, entry: Entry) -> str:
        """Not taken: records are wanted, to be looked at."""
        raise NotImplementedError

    def not_taken(self, error: BaseException, entry: Entry, record_id: str, observed_ns: int) -> None:
        """Raise the error."""
        raise error

    def note_failure(self, error: BaseException, entry: Entry | None, record_id: str, observed_ns: int) -> None:
        """Nothing is to be said: what ``append`` raises is never met."""

    def reach(self, receipt: AuditReceipt, level: str) -> AuditReceipt:
        """Nothing is to be waited for."""
        return receipt

    def count(self, name: str, n: int = 1) -> None:
        """Bump a counter that ``status`` shows."""
        self.counters.add(name, n)

    def flush(self, timeout_s: float = 30.0) -> FlushResult:
        """Nothing is ever pending."""
        return FlushResult(())

    def shutdown(self, timeout_s: float = 30.0) -> FlushResult:
        """``emit`` raises from now on."""
        self.is_shut_down = True
        return FlushResult(())

    def check_health(self, limits: Thresholds | None = None) -> Health:
        """Well, until it is shut down."""
        reasons = ["auditing was shut down: nothing is recorded"] if self.is_shut_down else []
        return Health(status=FAILING if reasons else OK, reasons=reasons)

    def status(self) -> ProviderStatus:
        """Counters, and how many records there are."""
        return ProviderStatus(
            journal="",
            stream_id=self._stream_id,
            records=len(self.records),
            shut_down=self.is_shut_down,
            destinations=[],
            counters=self.counters.read(),
            unreachable_handlers=[str(handler) for handler in self.unreachable_handlers()],
        )


def _read(stored: StoredRecord) -> AuditRecord:
    """The record as a receiver would see it, without the chain."""
    attributes = {key: value for key, value in stored.attributes.items() if not key.startswith(sc.SEQUENCE_PREFIX)}
    return AuditRecord.from_attributes(
        stored.event_name,
        attributes,
        timestamp_ns=stored.timestamp_ns,
        body=stored.body,
        trace_id=stored.trace_id,
        span_id=stored.span_id,
    )
