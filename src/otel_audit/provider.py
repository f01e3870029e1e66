"""``AuditProvider``: from a record to a receipt, and from the journal to the destinations."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import os
import time
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType

from . import metrics
from . import semconv as sc
from .canonical import SEQUENCE_BYTES_MAX
from .checkup import Health, Thresholds
from .checkup import check as check_up
from .delivery.destination import ELSEWHERE
from .delivery.shipper import Shipper
from .durability import Durabilities, Durability
from .errors import AuditError, EmitError, InvalidRecordError, JournalClosedError, JournalError, JournalFullError
from .flushing import Reckoning, deadline_after
from .forks import in_child, notice_here
from .health import FlushResult, ProviderStatus, write_process_state
from .journal.layout import Layout
from .journal.stream import Entry
from .logger import AuditLogger
from .observation import Observatory
from .offloop import OffLoop
from .own_log import own_log
from .preparation import prepare
from .processing import processed
from .provider_settings import ProviderSettings, make_journal
from .receipt import AuditReceipt
from .receipts import annotate, mark, receipt_of
from .record import AuditRecord, check
from .retries import ChosenIds, Claim
from .telemetry import Counters
from .unserved import Watch

__all__ = ["AuditLogger", "AuditProvider", "Durability", "ProviderSettings"]

_log = own_log("provider")


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
        self.unreachable_handlers: Callable[[], Sequence[object]] = lambda: ()
        """Says which AuditHandlers cannot be reached; set by whoever knows the captures."""
        self.successor: AuditProvider | None = None
        """Who takes over after the shutdown, where a second ``configure()`` replaced this one."""
        self.takes_parts = settings.durability == "process" and not settings.processors
        """Whether a capture may :attr:`append` what it wrote down itself: nothing is to be added or waited for."""
        self.parts_bytes_max = settings.size_bytes_max - SEQUENCE_BYTES_MAX
        """The largest head and tail of such an entry, together, in bytes."""
        self.now_ns: Callable[[], int] = settings.clock.time_ns if settings.clock is not None else time.time_ns
        """Nanoseconds since 1970, by the clock that was configured."""
        self._chosen = ChosenIds()
        self.is_shut_down = False
        self._off_loop = OffLoop(self._note_abandoned)
        self._pid = os.getpid()
        self.journal = make_journal(settings, layout)
        self.append: Callable[[Entry], str] = self.journal.append
        """Journals an entry that others wrote down, as ``preparation.prepare`` would have; only where ``takes_parts``
        or ``takes_parts_with`` says so.  Gives the id of its stream; what it raises is for :meth:`not_taken`."""
        self.shippers = [Shipper(self.journal, metrics.timed(d), adopt=settings.adopt) for d in settings.destinations]
        self.durabilities = Durabilities(self.journal, [s for s in self.shippers if s.destination.required])
        self.durabilities.check(settings.durability)
        self.takes_parts_with = () if settings.processors else self.durabilities.without_destinations()
        """The durabilities with which a logger may :attr:`append` what it wrote down itself."""
        self.reckoning = Reckoning(self.journal, self.shippers)
        self._observatory = Observatory(self)
        self._unserved = Watch(self.journal.layout, [each.name for each in settings.destinations if not each.elsewhere])
        self.journal.on_written = self._wake_shippers
        self.journal.on_housekeeping = self._write_state
        _providers.add(self)
        metrics.watch(self._observatory)
        if settings.adopt:
            self._wake_shippers()

    def take_over(self, before: AuditProvider) -> None:
        """Know what was emitted through the provider that this one is about to replace, so that retries stay safe."""
        self._chosen = before._chosen

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
        settings = self.settings
        level = settings.durability if durability is None else durability
        entry: Entry | None = None
        receipt: AuditReceipt | None = None
        stream_id = ""
        observed_ns = 0
        claim: Claim | None = None
        try:
            if level != "process":
                self.durabilities.check(level)
            check(record)
            if chosen_id:
                notice_here()
                claim = Claim(self._chosen, record, self.durabilities)
                first = claim.take()
                if first is not None:
                    receipt = first
                    whole = processed(record, settings.processors) if level == "delivered" else None
                    return self.reach(receipt, level, timeout_s, whole)
            whole = processed(record, settings.processors)
            observed_ns = self.now_ns()
            head, tail = prepare(
                whole,
                observed_ns,
                strict=settings.strict if strict is None else strict,
                size_bytes_max=settings.size_bytes_max,
            )
            entry = Entry(head, tail)
            stream_id = self.journal.append(entry, wait_s=wait_s)
            receipt = receipt_of(record.attributes[sc.RECORD_ID], entry, stream_id, observed_ns)
            if claim is not None:
                claim.settle(receipt)
            return receipt if level == "process" else self.reach(receipt, level, timeout_s, whole)
        except BaseException as error:
            known = receipt or annotate(
                error, record.attributes.get(sc.RECORD_ID, ""), entry, self.journal, observed_ns
            )
            if claim is not None:
                claim.settle(known)
            if isinstance(error, JournalClosedError) and self.successor is not None:
                return self.successor.emit_record(
                    record,
                    durability=durability,
                    timeout_s=timeout_s,
                    strict=strict,
                    chosen_id=chosen_id,
                    wait_s=wait_s,
                )
            if wait_s != 0.0 or not isinstance(error, JournalFullError):  # aemit tries once without waiting, then again
                self._count_dropped(error, entry)
            if receipt is not None and not isinstance(error, EmitError):
                mark(error, journaled=True, receipt=receipt)
            raise

    def not_taken(self, error: BaseException, entry: Entry, record_id: str, observed_ns: int) -> None:
        """What follows where :attr:`append` raised: the provider's successor takes the entry, or the error is raised.

        Args:
            error: what it raised.
            entry: what was to be appended.
            record_id: the record's id.
            observed_ns: its observed time, nanoseconds since 1970.

        Raises:
            BaseException: the error; as from :meth:`emit_record` it says whether the record is journaled.
        """
        if isinstance(error, JournalClosedError) and self.successor is not None:
            try:
                self.successor.append(entry)
            except Exception as second:  # noqa: BLE001 - the successor says what follows
                self.successor.not_taken(second, entry, record_id, observed_ns)
            return
        self.note_failure(error, entry, record_id, observed_ns)
        raise error

    def note_failure(self, error: BaseException, entry: Entry | None, record_id: str, observed_ns: int) -> None:
        """Say on an error of :attr:`append`, or of what came before, whether the record is journaled; count it."""
        annotate(error, record_id, entry, self.journal, observed_ns)
        self._count_dropped(error, entry)

    def _count_dropped(self, error: BaseException, entry: Entry | None) -> None:
        """Count a record that the caller is told is not in the journal."""
        if isinstance(error, InvalidRecordError):
            self.counters.add("records.invalid")
        elif entry is None or entry.journaled is False:
            self.counters.add("records.not_journaled")

    def reach(
        self, receipt: AuditReceipt, level: str, timeout_s: float | None = None, record: AuditRecord | None = None
    ) -> AuditReceipt:
        """Wait until a journaled record has a durability; see :meth:`Durabilities.reach`."""
        return self.durabilities_of(receipt).reach(receipt, level, timeout_s, record)

    def durabilities_of(self, receipt: AuditReceipt) -> Durabilities:
        """Those of the provider that journaled a record, where this one had others before it or has one after it."""
        if self.durabilities.owns(receipt):
            return self.durabilities
        earlier = self._chosen.journaled_by(receipt)
        if isinstance(earlier, Durabilities) and earlier.owns(receipt):
            return earlier
        return self.successor.durabilities_of(receipt) if self.successor is not None else self.durabilities

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

        Cancelling it does not unrecord: the record is, or soon will be, in the journal; where that fails, it is said
        in the log and counted as ``records.failed``.
        """
        notice_here()
        level = self.settings.durability if durability is None else durability
        try:
            self.durabilities.check(level)
        except AuditError as error:
            mark(error, journaled=False)
            raise

        def emit(wait_s: float = 0.0) -> AuditReceipt:
            return self.emit_record(record, durability="process", strict=strict, chosen_id=chosen_id, wait_s=wait_s)

        receipt = None
        if self.is_shut_down or (self._is_quick() and not chosen_id):
            with contextlib.suppress(JournalFullError):
                receipt = emit()
        if receipt is None:
            deadline = time.monotonic() + self.settings.full_timeout_s
            receipt = await self._off_loop.run(lambda: emit(max(deadline - time.monotonic(), 0.001)))
        if level == "process" or receipt.deferred:
            return receipt
        whole = None
        if self.durabilities.selective:  # a filter may ask for what is added
            whole = processed(record, self.settings.processors)
        return await self.areach(receipt, level, timeout_s, whole)

    async def areach(
        self, receipt: AuditReceipt, level: str, timeout_s: float | None = None, record: AuditRecord | None = None
    ) -> AuditReceipt:
        """:meth:`reach` for coroutines."""
        durabilities = self.durabilities_of(receipt)
        if level == "disk":
            return await self._off_loop.run(lambda: durabilities.reach(receipt, level))
        return await durabilities.areach_delivered(receipt, timeout_s, record)

    def _is_quick(self) -> bool:
        """Whether a record can be appended without waiting for a disk: there is a stream, and room in its segment."""
        writer = self.journal.writer
        return self.journal.ready and writer is not None and writer.end[1] < self.settings.segment_bytes

    def _note_abandoned(self, error: Exception) -> None:
        self.counters.add("records.failed")
        _log.error("an emit that was cancelled failed; journaled: %s: %s", getattr(error, "journaled", None), error)

    # -- delivery -----------------------------------------------------------------------------------------

    def _wake_shippers(self) -> None:
        for shipper in self.shippers:
            shipper.start()
            shipper.notify()

    def flush(self, timeout_s: float = 30.0) -> FlushResult:
        """Wait until every required destination has everything that is in the journal now.

        Everything is what this process wrote and what dead processes left; living ones flush what is theirs.

        Args:
            timeout_s: how long to wait, in seconds.

        Returns:
            What was delivered, pending, dead-lettered and damaged; true only where nothing is pending or damaged.
        """
        notice_here()
        return self.reckoning.flush(timeout_s)

    async def aflush(self, timeout_s: float = 30.0) -> FlushResult:
        """:meth:`flush` for coroutines."""
        return await asyncio.to_thread(self.flush, timeout_s)

    def status(self) -> ProviderStatus:
        """How this process's auditing is doing: its stream, destinations, counters, and handlers out of reach."""
        notice_here()
        writer = self.journal.writer
        return ProviderStatus(
            journal=str(self.journal.layout.root),
            stream_id=writer.stream_id if writer is not None else None,
            records=writer.sequence if writer is not None else 0,
            shut_down=self.is_shut_down,
            destinations=self.reckoning.destinations(),
            counters=self.counters.read(),
            unreachable_handlers=[str(handler) for handler in self.unreachable_handlers()],
            journal_bytes_max=self.journal.bytes_max,
        )

    def check_health(self, limits: Thresholds | None = None) -> Health:
        """Whether auditing is well; see :func:`otel_audit.check_health`."""
        notice_here()
        return check_up(self._observatory, limits or Thresholds())

    def count(self, name: str, n: int = 1) -> None:
        """Bump a counter that ``status`` shows."""
        self.counters.add(name, n)

    def _write_state(self) -> None:
        metrics.look_around()
        self._unserved.look()
        writer = self.journal.writer
        if writer is not None and not writer.closed:
            write_process_state(self.journal.layout, writer.directory, self.status())

    # -- ending --------------------------------------------------------------------------------------------

    def shutdown(self, timeout_s: float = 30.0) -> FlushResult:
        """End the stream in order and deliver what is left.  ``emit`` raises from now on.  Twice is harmless.

        Args:
            timeout_s: how long to go on delivering, in seconds.  What is left then stays in the journal and is
                delivered by the next process that uses it, or by ``otel-audit ship``.  A destination that a sidecar
                serves is not waited for.

        Raises:
            JournalError: the last record could not be written, or the last sync failed.
        """
        notice_here()
        deadline = deadline_after(timeout_s)
        if self.is_shut_down:
            return FlushResult(tuple(self.reckoning.destinations()))
        self.is_shut_down = True
        try:
            self.journal.close()
        finally:
            self.reckoning.flush(max(deadline - time.monotonic(), 0.0), only_ours=True)
            for shipper in self.shippers:
                shipper.stop(max(deadline - time.monotonic(), 0.1))
            result = FlushResult(tuple(self.reckoning.destinations()))
            self.journal.housekeep()
            metrics.settle(self._observatory)
            self._off_loop.close()
        return result

    async def ashutdown(self, timeout_s: float = 30.0) -> FlushResult:
        """:meth:`shutdown` for coroutines."""
        return await asyncio.to_thread(self.shutdown, timeout_s)

    def flush_at_exit(self) -> None:
        """Deliver for a bounded time.  The journal stays open: what is logged later at exit is journaled too."""
        notice_here()
        if self.is_shut_down or self.journal.writer is None:
            return
        try:
            self.journal.sync()
            result = self.reckoning.flush(self.settings.exit_timeout_s, only_ours=True)
        except (JournalError, OSError):
            _log.exception("the journal %s could not be flushed at exit", self.journal.layout.root)
            return
        pending = sum(each.pending for each in result.destinations if each.required and each.state != ELSEWHERE)
        if pending:
            _log.warning(
                "%d records are still to be delivered; they are in %s, and the next process that uses it delivers them",
                pending,
                self.journal.layout.root,
            )

    def after_fork_in_child(self) -> None:
        """A forked child emits into a stream of its own; the parent's is not touched.  Twice is harmless."""
        if self._pid == os.getpid():
            return
        self._off_loop.abandon()
        self._chosen.claims.clear()
        self.counters.clear()
        self._observatory.forget()
        self.journal.abandon()
        for shipper in self.shippers:
            shipper.abandon()
        self._pid = os.getpid()

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


_providers: weakref.WeakSet[AuditProvider] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    metrics.after_fork_in_child()
    for provider in list(_providers):
        provider.after_fork_in_child()


def _flush_at_exit() -> None:
    for provider in list(_providers):
        provider.flush_at_exit()


in_child(_after_fork_in_child)
atexit.register(_flush_at_exit)
