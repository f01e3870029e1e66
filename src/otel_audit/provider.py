"""``AuditProvider`` and ``AuditLogger``: from a record to a receipt."""

from __future__ import annotations

import asyncio
import logging
import os
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, TypedDict

import msgspec

from . import semconv as sc
from .context import current_trace, with_context
from .delivery.destination import Destination
from .delivery.shipper import Shipper
from .errors import (
    ConfigurationError,
    DeliveryTimeoutError,
    EmitError,
    InvalidRecordError,
    JournalClosedError,
    JournalFullError,
)
from .health import DestinationStatus, FlushResult, ProviderStatus, last_sequence, write_process_state
from .journal.journal import Journal
from .journal.layout import Layout
from .journal.stream import Entry
from .preparation import prepare
from .protocols import AuditRecordProcessor, Clock
from .receipt import AuditReceipt
from .record import Actor, AuditRecord, Source, Target, check, complete, flatten
from .resource import make_resource
from .retries import ChosenIds
from .rules import FUTURE_NS_MAX, SIZE_BYTES_MAX, Outcome, timestamp_to_ns
from .telemetry import Counters

if TYPE_CHECKING:
    from typing_extensions import Unpack

Durability = Literal["process", "disk", "delivered"]
DURABILITIES: Final = ("process", "disk", "delivered")
DELIVERY_TIMEOUT_S: Final = 30.0

_log = logging.getLogger("otel_audit.provider")


class EmitFields(TypedDict, total=False):
    """The fields of a record, as keywords of ``emit``; see :class:`~otel_audit.AuditRecord`."""

    actor: Actor | str | None
    action: str | None
    outcome: Outcome | str | bool | None
    target: Target | str | None
    source: Source | str | None
    tenant: str | None
    session: str | None
    request_id: str | None
    user_agent: str | None
    reason: str | None
    severity: str | int | None
    body: Any
    attributes: dict[str, Any] | None
    timestamp: datetime | int | None
    record_id: str | None
    trace_id: str | None
    span_id: str | None


@dataclass(frozen=True)
class ProviderSettings:
    """Everything that a provider is made from; ``settings.py`` makes it from keywords, environment and files."""

    journal: Path
    destinations: Sequence[Destination] = ()
    service_name: str | None = None
    resource_attributes: dict[str, Any] = field(default_factory=dict)
    durability: Durability = "process"
    strict: bool = False
    default_event_name: str = sc.EVENT_DEFAULT
    size_bytes_max: int = SIZE_BYTES_MAX
    max_bytes: int = 4 * 1024**3
    segment_bytes: int = 16 * 1024**2
    full_timeout_s: float = 1.0
    retention_s: float | None = None
    exit_timeout_s: float = 5.0
    allow_volatile: bool = False
    allow_network: bool = False
    adopt: bool = True
    mode: int = 0o600
    group: int | None = None
    processors: Sequence[AuditRecordProcessor] = ()
    clock: Clock | None = None


class AuditProvider:
    """Turns records into lines of the journal, and has them delivered.

    A context manager, sync and async: leaving it shuts it down.

    Args:
        settings: what it is made from.
        layout: the journal's directory; for tests with a faulty file layer.

    Raises:
        ConfigurationError: the settings cannot work.
        UnsafeJournalError: the journal's directory cannot be used.
    """

    def __init__(self, settings: ProviderSettings, *, layout: Layout | None = None) -> None:
        self.settings = settings
        self.counters = Counters()
        self.unreachable_handlers: Callable[[], Sequence[str]] = lambda: ()
        """Says which AuditHandlers cannot be reached; set by the capture."""
        self.successor: AuditProvider | None = None
        """Who takes over after the shutdown, where a second ``configure()`` replaced this one."""
        self._clock_ns = settings.clock.time_ns if settings.clock is not None else time.time_ns
        self._chosen = ChosenIds()
        self._shut_down = False
        self._executor: ThreadPoolExecutor | None = None
        self._pid = os.getpid()
        self._required = [d.name for d in settings.destinations if d.required]
        layout = layout or Layout(settings.journal, settings.mode, settings.group)
        self.journal = Journal(
            layout,
            resource=lambda: make_resource(settings.service_name, settings.resource_attributes),
            required=self._required,
            segment_bytes_max=settings.segment_bytes,
            bytes_max=settings.max_bytes,
            full_timeout_s=settings.full_timeout_s,
            allow_volatile=settings.allow_volatile,
            allow_network=settings.allow_network,
            retention_s=settings.retention_s,
        )
        self._check_durability(settings.durability)
        self.journal.on_written = self._wake_shippers
        self.journal.on_housekeeping = self._write_state
        self.shippers = [Shipper(self.journal, d, adopt=settings.adopt) for d in settings.destinations]
        make_resource(settings.service_name, settings.resource_attributes)
        if settings.adopt:
            self._wake_shippers()
        _providers.add(self)

    # -- loggers --------------------------------------------------------------------------------------

    def get_audit_logger(self, name: str | None = None) -> AuditLogger:
        """A logger that emits through this provider; its name becomes an attribute of its records."""
        return AuditLogger(lambda: self, name)

    # -- emitting ------------------------------------------------------------------------------------

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
        """Journal a complete record: what ``emit`` and the captures end in.

        Args:
            record: complete; merged with the context by the caller.
            durability: what to wait for; ``None``: as configured.
            timeout_s: for ``delivered``: how long to wait, in seconds.
            strict: a record over the size limit raises; ``None``: as configured.
            chosen_id: the caller chose the record's id; emitting the same record again gives the first receipt.
            wait_s: how long to wait for room in a full journal, in seconds; ``None``: as configured.

        Returns:
            The receipt.  On return the record has the durability that it names.

        Raises:
            EmitError: see ``.journaled``.  Any other exception that interrupts the call gets the attributes
                ``journaled`` and ``receipt`` too.
        """
        level = self.settings.durability if durability is None else durability
        if level != "process":
            self._check_durability(level)
        head, tail, observed_ns = self._prepare(record, self.settings.strict if strict is None else strict)
        if chosen_id:
            first = self._chosen.claim(record.record_id, head, tail)
            if first is not None:
                return self._reach(first, level, timeout_s)
        entry = Entry(head, tail)
        stream_id = ""
        receipt: AuditReceipt | None = None
        try:
            stream_id = self.journal.append(entry, wait_s=wait_s)
            receipt = _receipt(record, entry, stream_id, observed_ns)
            if chosen_id:
                self._chosen.settle(record.record_id, receipt)
            if level != "process" and not entry.deferred:
                receipt = self._reach(receipt, level, timeout_s)
            return receipt
        except BaseException as error:
            if isinstance(error, JournalClosedError) and self.successor is not None:
                return self.successor.emit_record(
                    record, durability=durability, timeout_s=timeout_s, strict=strict, chosen_id=chosen_id, wait_s=wait_s
                )
            self._annotate(error, record, entry, stream_id, observed_ns)
            if chosen_id and receipt is None:
                self._chosen.settle(record.record_id, getattr(error, "receipt", None))
            raise

    def _prepare(self, record: AuditRecord, strict: bool) -> tuple[bytes, bytes, int]:
        """Check, let processors add, convert, cut, and write down: everything that is done outside every lock."""
        try:
            check(record)
            for processor in self.settings.processors:
                record = _with_added(record, processor)
            observed_ns = self._clock_ns()
            head, tail = prepare(record, observed_ns, strict=strict, size_bytes_max=self.settings.size_bytes_max)
        except InvalidRecordError:
            self.counters.add("records.invalid")
            raise
        return head, tail, observed_ns

    def _annotate(
        self, error: BaseException, record: AuditRecord, entry: Entry, stream_id: str, observed_ns: int
    ) -> None:
        """Say on the error itself whether the record is safe, and give the receipt where it is."""
        if isinstance(error, EmitError) and error.receipt is not None:
            return
        journaled = entry.journaled
        receipt = None
        if journaled and entry.sequence:
            writer = self.journal.writer
            known = stream_id or (writer.stream_id if writer is not None else "")
            receipt = _receipt(record, entry, known, observed_ns)
        if isinstance(error, EmitError):
            error.journaled = journaled
            error.receipt = receipt
        else:
            error.journaled = journaled  # type: ignore[attr-defined]
            error.receipt = receipt  # type: ignore[attr-defined]

    def _reach(self, receipt: AuditReceipt, level: str, timeout_s: float | None) -> AuditReceipt:
        """Wait until a journaled record has the durability asked for."""
        if level == "process" or receipt.deferred:
            return receipt
        if level == "disk":
            self.journal.commit(receipt.sequence)
            return msgspec.structs.replace(receipt, durability="disk")
        missing = self._wait_delivered(receipt, DELIVERY_TIMEOUT_S if timeout_s is None else timeout_s)
        if missing:
            raise DeliveryTimeoutError(
                f"not delivered in time to {', '.join(missing)}; the record is journaled (stream {receipt.stream_id}, "
                f"number {receipt.sequence}) and goes on being delivered",
                missing=missing,
                receipt=receipt,
            )
        return msgspec.structs.replace(receipt, durability="delivered")

    def _wait_delivered(self, receipt: AuditReceipt, timeout_s: float) -> list[str]:
        deadline = time.monotonic() + timeout_s
        required = [shipper for shipper in self.shippers if shipper.destination.required]
        for shipper in required:
            shipper.start()
            shipper.notify(urgent=True)
        return [
            shipper.destination.name
            for shipper in required
            if not shipper.wait_for(receipt.stream_id, receipt.sequence, deadline - time.monotonic())
        ]

    def _check_durability(self, level: str) -> None:
        """Raise ConfigurationError for a durability that is unknown or cannot be had."""
        if level not in DURABILITIES:
            raise ConfigurationError(f"durability: must be one of {', '.join(DURABILITIES)}, not {level!r}")
        if level == "disk":
            self.journal.require_disk()
        if level == "delivered" and not self._required:
            raise ConfigurationError("durability='delivered' needs at least one required destination")

    async def aemit_record(
        self,
        record: AuditRecord,
        *,
        durability: Durability | None = None,
        timeout_s: float | None = None,
        strict: bool | None = None,
        chosen_id: bool = False,
    ) -> AuditReceipt:
        """:meth:`emit_record` for coroutines: never blocks the event loop on a disk, a full journal or a network.

        Cancelling it does not unrecord: the record is, or soon will be, in the journal.
        """
        level = self.settings.durability if durability is None else durability
        self._check_durability(level)
        loop = asyncio.get_running_loop()

        def emit(wait_s: float | None = None) -> AuditReceipt:
            return self.emit_record(record, durability="process", strict=strict, chosen_id=chosen_id, wait_s=wait_s)

        try:
            receipt = emit(0.0) if self.journal.ready else None
        except JournalFullError:
            receipt = None
        if receipt is None:  # the stream has to be made, or room has to be waited for
            receipt = await asyncio.shield(loop.run_in_executor(self._pool(), emit))
        if level == "process" or receipt.deferred:
            return receipt
        pool = self._pool() if level == "disk" else None
        return await asyncio.shield(loop.run_in_executor(pool, self._reach, receipt, level, timeout_s))

    def _pool(self) -> ThreadPoolExecutor:
        """One thread is enough: a sync covers everything that was written before it."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="otel-audit-async")
        return self._executor

    # -- shipping -----------------------------------------------------------------------------------------

    def _wake_shippers(self) -> None:
        for shipper in self.shippers:
            shipper.start()
            shipper.notify()

    def flush(self, timeout_s: float = 30.0) -> FlushResult:
        """Wait until every required destination has everything that is in the journal now.

        Args:
            timeout_s: how long to wait, in seconds.

        Returns:
            What was delivered, pending, dead-lettered and damaged; true only where nothing is pending or damaged.
        """
        deadline = time.monotonic() + timeout_s
        writer = self.journal.writer
        for shipper in self.shippers:
            shipper.start()
            shipper.notify(urgent=True)
        if writer is not None:
            for shipper in self.shippers:
                if shipper.destination.required:
                    shipper.wait_for(writer.stream_id, writer.sequence, deadline - time.monotonic())
        required = [shipper for shipper in self.shippers if shipper.destination.required]
        while time.monotonic() < deadline and any(not shipper.looked or shipper.unfinished() for shipper in required):
            time.sleep(0.01)
        return FlushResult(tuple(self._destination_status(shipper) for shipper in self.shippers))

    async def aflush(self, timeout_s: float = 30.0) -> FlushResult:
        """:meth:`flush` for coroutines."""
        return await asyncio.to_thread(self.flush, timeout_s)

    def _destination_status(self, shipper: Shipper) -> DestinationStatus:
        served = shipper.served()
        pending = sum(last_sequence(stream) - served[stream.stream_id].acknowledged for stream in shipper.unfinished())
        writer = self.journal.writer
        if writer is not None:
            cursor = served[writer.stream_id] = shipper.cursor(writer.stream_id)
            pending += max(writer.sequence - cursor.acknowledged, 0)
        delivered = sum(cursor.delivered for cursor in served.values())
        dead = sum(cursor.dead_lettered for cursor in served.values())
        damaged = sum(cursor.damaged for cursor in served.values())
        return DestinationStatus(
            name=shipper.destination.name,
            required=shipper.destination.required,
            delivered=delivered,
            pending=pending,
            dead_lettered=dead,
            damaged=damaged,
            state=shipper.state.state,
            error=shipper.state.error,
            repair=shipper.state.repair,
            failures=shipper.state.failures,
            last_success_ns=shipper.state.last_success_ns,
        )

    def status(self) -> ProviderStatus:
        """How this process's auditing is doing: its stream, destinations, counters, and handlers out of reach."""
        writer = self.journal.writer
        return ProviderStatus(
            journal=str(self.journal.layout.root),
            stream_id=writer.stream_id if writer is not None else None,
            records=writer.sequence if writer is not None else 0,
            shut_down=self._shut_down,
            destinations=[self._destination_status(shipper) for shipper in self.shippers],
            counters=self.counters.read(),
            unreachable_handlers=[str(handler) for handler in self.unreachable_handlers()],
        )

    def count(self, name: str, n: int = 1) -> None:
        """Bump a counter that ``status`` shows."""
        self.counters.add(name, n)

    def _write_state(self) -> None:
        writer = self.journal.writer
        if writer is not None and not writer.closed:
            write_process_state(self.journal.layout, writer.directory, self.status())

    # -- ending --------------------------------------------------------------------------------------------

    def shutdown(self, timeout_s: float = 30.0) -> FlushResult:
        """End the stream in order and deliver what is left.  ``emit`` raises from now on.  Twice is harmless.

        Args:
            timeout_s: how long to go on delivering, in seconds.  What is left then stays in the journal and is
                delivered by the next process that uses it, or by ``otel-audit ship``.

        Raises:
            JournalError: the last record could not be written, or the last sync failed.
        """
        deadline = time.monotonic() + timeout_s
        if self._shut_down:
            return FlushResult(tuple(self._destination_status(shipper) for shipper in self.shippers))
        self._shut_down = True
        try:
            self.journal.close()
        finally:
            result = self.flush(max(deadline - time.monotonic(), 0.0))
            for shipper in self.shippers:
                shipper.stop(max(deadline - time.monotonic(), 0.1))
            self.journal.housekeep()
            if self._executor is not None:
                self._executor.shutdown(wait=False)
        return result

    async def ashutdown(self, timeout_s: float = 30.0) -> FlushResult:
        """:meth:`shutdown` for coroutines."""
        return await asyncio.to_thread(self.shutdown, timeout_s)

    def flush_at_exit(self) -> None:
        """Deliver for a bounded time.  The journal stays open: what is logged later at exit is journaled too."""
        if self._shut_down or self._pid != os.getpid() or self.journal.writer is None:
            return
        self.journal.sync()
        result = self.flush(self.settings.exit_timeout_s)
        if result.pending:
            _log.warning(
                "%d records are still to be delivered; they are in %s, and the next process that uses it delivers them",
                result.pending,
                self.journal.layout.root,
            )

    def after_fork_in_child(self) -> None:
        """A forked child emits into a stream of its own; the parent's is not touched."""
        self._pid = os.getpid()
        self._executor = None
        self.counters.clear()
        self.journal.abandon()
        for shipper in self.shippers:
            shipper.abandon()

    def __enter__(self) -> AuditProvider:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()

    async def __aenter__(self) -> AuditProvider:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.ashutdown()


class AuditLogger:
    """Emits audit records.  Made by ``get_audit_logger``; cheap, may be kept for ever, survives forks.

    Args:
        provider: gives the provider at each call.
        name: becomes an attribute of its records.
    """

    def __init__(self, provider: Callable[[], AuditProvider], name: str | None) -> None:
        self._provider = provider
        self.name = name

    def emit(
        self,
        event: str | AuditRecord,
        *,
        durability: Durability | None = None,
        timeout_s: float | None = None,
        **fields: Unpack[EmitFields],
    ) -> AuditReceipt:
        """Record an audit event.

        Args:
            event: the event name, dotted and lower case (``"user.login"``), or a whole :class:`AuditRecord`.
            durability: what must be true on return: ``"process"`` – it survives the death of this process; ``"disk"`` –
                it survives power loss; ``"delivered"`` – every required destination acknowledged it.  ``None``: as
                configured (``"process"``).
            timeout_s: for ``"delivered"``: how long to wait, in seconds; 30 where it is not given.
            **fields: ``actor``, ``action``, ``outcome``, ``target``, ``source``, ``tenant``, ``session``,
                ``request_id``, ``user_agent``, ``reason``, ``severity``, ``body``, ``attributes``, ``timestamp``,
                ``record_id``, ``trace_id``, ``span_id``; see :class:`AuditRecord`.

        Returns:
            The receipt; ``receipt.durability`` says what was reached.

        Raises:
            InvalidRecordError: a field is missing or breaks its rule; nothing was journaled.
            JournalError: the journal could not take it; ``.journaled`` says whether the record is there.
            DeliveryTimeoutError: journaled, but not delivered in time; ``.missing`` names the destinations.
            ConfigurationError: nothing is configured, or the durability cannot be had; nothing was journaled.
        """
        provider = self._provider()
        record = self._record(provider, event, fields)
        chosen = isinstance(event, AuditRecord) or fields.get("record_id") is not None
        return provider.emit_record(record, durability=durability, timeout_s=timeout_s, chosen_id=chosen)

    async def aemit(
        self,
        event: str | AuditRecord,
        *,
        durability: Durability | None = None,
        timeout_s: float | None = None,
        **fields: Unpack[EmitFields],
    ) -> AuditReceipt:
        """:meth:`emit` for coroutines; never blocks the event loop.  Cancelling it does not unrecord."""
        provider = self._provider()
        record = self._record(provider, event, fields)
        chosen = isinstance(event, AuditRecord) or fields.get("record_id") is not None
        return await provider.aemit_record(record, durability=durability, timeout_s=timeout_s, chosen_id=chosen)

    def _record(self, provider: AuditProvider, event: str | AuditRecord, fields: EmitFields) -> AuditRecord:
        """One record from the call, the context and the current span."""
        try:
            if isinstance(event, AuditRecord):
                if fields:
                    raise TypeError(f"emit takes a record or fields, not both: {', '.join(fields)}")
                attributes, body, timestamp_ns = event.attributes, event.body, event.timestamp_ns
                trace = event.trace_id, event.span_id
                name = event.event_name
            else:
                rest: dict[str, Any] = dict(fields)
                body = rest.pop("body", None)
                timestamp_ns = timestamp_to_ns(rest.pop("timestamp", None))
                trace = rest.pop("trace_id", None) or "", rest.pop("span_id", None) or ""
                attributes = flatten(**rest)
                name = event
            attributes = with_context(attributes)
        except InvalidRecordError:
            provider.counters.add("records.invalid")
            raise
        if timestamp_ns - time.time_ns() > FUTURE_NS_MAX:
            provider.counters.add("records.invalid")
            raise InvalidRecordError("timestamp", "must not lie more than 5 s in the future")
        if self.name is not None:
            attributes = {sc.LOGGER_NAME: self.name, **attributes}
        if not trace[0]:
            trace = current_trace()
        record = AuditRecord.from_attributes(
            name, attributes, timestamp_ns=timestamp_ns, body=body, trace_id=trace[0], span_id=trace[1]
        )
        complete(record)
        return record


def _receipt(record: AuditRecord, entry: Entry, stream_id: str, observed_ns: int) -> AuditReceipt:
    return AuditReceipt(
        record.attributes[sc.RECORD_ID],
        stream_id,
        entry.sequence,
        entry.sha256,
        "deferred" if entry.deferred and not entry.sequence else "process",
        observed_ns,
    )


def _with_added(record: AuditRecord, processor: AuditRecordProcessor) -> AuditRecord:
    """The record with what a processor adds.

    Raises:
        InvalidRecordError: it tries to replace an attribute.
    """
    added = processor.on_emit(record)
    if not added:
        return record
    for key in added:
        if key in record.attributes or key.startswith(sc.RESERVED_PREFIXES):
            rule = f"a processor may only add attributes; {type(processor).__name__} replaces one"
            raise InvalidRecordError(key, rule)
    return AuditRecord.from_attributes(
        record.event_name,
        {**record.attributes, **added},
        timestamp_ns=record.timestamp_ns,
        body=record.body,
        trace_id=record.trace_id,
        span_id=record.span_id,
    )


_providers: weakref.WeakSet[AuditProvider] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for provider in list(_providers):
        provider.after_fork_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)


def flush_providers_at_exit() -> None:
    """Registered with ``atexit`` by ``default.py``: every living provider gets its bounded time."""
    for provider in list(_providers):
        provider.flush_at_exit()
