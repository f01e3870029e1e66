"""The shipper: one thread per destination and process, where all waiting, retrying and shouting is done."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from ..context import enter_own_thread, leave_own_thread
from ..errors import AuditError, BlockedExportError, ExportError, PendingExportError, RetryableExportError
from ..journal.cursor import Cursor
from ..journal.journal import Journal
from ..journal.streams import DEAD, StreamDirectory
from ..journal.threads import OwnThread, Wake
from ..own_log import own_log
from ..protocols import AuditRecordExporter
from .deadletters import Buried
from .destination import ELSEWHERE, Destination, DestinationState
from .fleet import SCAN_INTERVAL_S, Fleet
from .pace import make_exporter
from .patience import Patience
from .shipment import FailedExporterError, Shipment, is_interruption
from .splitting import RefusedBatchError

LOUD_AFTER_S: Final = 120.0
"""How long a destination may fail before that is said, and how often it is said again."""
_IDLE_FIRST_S: Final = 0.25
"""How soon it looks again after it moved something, woken or not; then twice as long each time."""
_PENDING_S: Final = 1.0
"""How soon it asks again for what is pending, where nobody says how soon."""
_IDLE_FOR_LIVING_S: Final = 0.5
"""At most so long it does not look where it ships for living processes, which cannot wake it."""
_STUCK_MAX: Final = 2
"""So many streams of which the destination takes nothing, and it is the destination that is blocked."""

_log = own_log("delivery")


class Shipper:
    """Ships streams to one destination until it is stopped.

    Args:
        journal: where the streams are.
        destination: where they go.
        adopt: ship what dead processes left.
        for_living: also ship for living processes (a sidecar).

    Attributes:
        state: how the destination is doing.
        delivered, dead_lettered, filtered: records that this shipper brought there, or to the dead letters, or that the
            destination's filter passed over.
    """

    def __init__(
        self, journal: Journal, destination: Destination, *, adopt: bool = True, for_living: bool = False
    ) -> None:
        self.destination = destination
        self._journal = journal
        self._adopt = adopt
        self._for_living = for_living
        self._buried = Buried(journal.layout, destination.name)
        self._listeners: dict[int, Callable[[], None]] = {}
        self._reset()

    def _reset(self) -> None:
        self.state = DestinationState(state=ELSEWHERE) if self.destination.elsewhere else DestinationState()
        self.delivered = 0
        self.dead_lettered = 0
        self.filtered = 0
        self._exporter: AuditRecordExporter | None = None
        self._fleet = Fleet(self._journal, self.destination, adopt=self._adopt, for_living=self._for_living)
        self._patience = Patience()
        self._successes = 0
        self._said_s = float("-inf")
        self._wake = Wake()
        self._urgent = False
        self._idle_max_s = _IDLE_FOR_LIVING_S if self._for_living else SCAN_INTERVAL_S
        self._idle_s = self._idle_max_s
        self._stopping = False
        self._thread = OwnThread(self._run)
        self._listeners.clear()

    # -- from other threads ---------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether its thread runs."""
        return self._thread.alive

    @property
    def stopped(self) -> bool:
        """Whether it was told to stop; it does not start again."""
        return self._stopping

    @property
    def waiting(self) -> bool:
        """Whether it is too early to try the destination."""
        return self._patience.waiting

    @property
    def settled(self) -> int:
        """Records that this shipper need not look at again, whatever became of them."""
        return self.delivered + self.dead_lettered + self.filtered

    def start(self) -> None:
        """Start the thread, if it does not run, was not stopped, and the destination is served here."""
        if not self._stopping and not self.destination.elsewhere:
            self._thread.start()

    def notify(self, *, urgent: bool = False) -> None:
        """There is something new; ``urgent``: somebody waits for it.  Safe from signal handlers."""
        if urgent:
            self._urgent = True
        self._wake.set()

    def hurry(self) -> None:
        """Look for streams and try at once what failed before, unless the receiver asked for patience."""
        self._fleet.look_soon()
        self._patience.hurry()
        for shipment in self._fleet.shipments():
            shipment.patience.hurry()
        self.notify(urgent=True)

    def stop(self, timeout_s: float) -> bool:
        """Stop after the present batch; whether the thread ended in time."""
        self._stopping = True
        self._wake.set()
        return self._thread.join(max(timeout_s, 0.0))

    def abandon(self) -> None:
        """In a forked child: forget the parent's thread, locks and connections."""
        self._fleet.forget()
        self._reset()

    def cursor(self, stream_id: str) -> Cursor | None:
        """The destination's cursor in a stream; ``None`` where there is no such stream (any more)."""
        return self._fleet.cursor(stream_id)

    def totals(self) -> dict[str, Cursor]:
        """Every stream that was shipped here, and how far the destination is in it; under "", those removed since."""
        return self._fleet.totals()

    def shipments(self) -> list[Shipment]:
        """The streams that are open here, for looking at."""
        return self._fleet.shipments()

    def streams(self) -> tuple[list[StreamDirectory], list[StreamDirectory]]:
        """Streams that this process has to deliver, and those of them that cannot be read."""
        return self._fleet.streams()

    def has(self, stream_id: str, sequence: int) -> bool:
        """Whether the destination has a record.

        Of a stream that is gone this is known only where it is this process's own and ended in order: then it was
        removed because every required destination had it.
        """
        cursor = self.cursor(stream_id)
        if cursor is not None:
            return cursor.acknowledged >= sequence
        writer = self._journal.writer
        return writer is not None and writer.stream_id == stream_id and writer.closed and not writer.lost

    def has_buried(self, stream_id: str, sequence: int) -> bool:
        """Whether a record that is settled went to the dead letters instead of the destination."""
        cursor = self.cursor(stream_id)
        if cursor is None or cursor.dead_lettered == 0:
            return False
        return self._buried.has(stream_id, sequence)

    def wait_for(self, stream_id: str, sequence: int, timeout_s: float, *, or_gone: bool = False) -> bool:
        """Wait until the destination has a record; whether it has it in time.

        Args:
            stream_id: the stream.
            sequence: the record's number in it.
            timeout_s: how long, in seconds.
            or_gone: a stream that is gone is not waited for, whoever removed it.
        """
        deadline = time.monotonic() + timeout_s
        wake = Wake()
        with self.listening(wake.set):
            while not self.has(stream_id, sequence):
                if or_gone and self.cursor(stream_id) is None:
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self.notify(urgent=True)
                wake.wait(min(left, 0.1))
        return True

    @contextlib.contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Within the block, ``listener`` is called on the shipper's thread whenever a cursor may have moved."""
        key = id(listener)
        self._listeners[key] = listener
        try:
            yield
        finally:
            self._listeners.pop(key, None)

    # -- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                if not self.step() and not self._stopping:
                    self._pause()
        finally:
            self.close()

    def _pause(self) -> None:
        """Wait for something to do; then gather records for a moment, unless somebody waits for them."""
        if self._patience.waiting:
            while self._patience.waiting and not self._stopping:
                self._wake.wait(self._patience.not_before_s - time.monotonic())
            return
        if self._wake.wait(self._idle_s):
            until_s = time.monotonic() + self.destination.delay_s
            while not self._urgent and not self._stopping and (left := until_s - time.monotonic()) > 0:
                self._wake.wait(left)
        else:
            self._idle_s = min(self._idle_s * 2, self._idle_max_s)

    def step(self) -> bool:
        """Serve every shipment once; whether there may be more to do at once.  Never raises."""
        if self._stopping or self._patience.waiting:
            return False
        self._urgent = False
        try:
            return self._step()
        except PendingExportError as error:
            self._patience.pause(_asked_s(error))
        except RetryableExportError as error:
            self._failed("retrying", error)
        except ExportError as error:
            self._failed("blocked", error)
        except OSError as error:
            self._failed("blocked", BlockedExportError(f"the journal cannot be read or written: {error}"))
        except BaseException as error:  # whatever it is, sys.exit() too, must not end the thread
            if is_interruption(error):
                raise
            self._failed("blocked", FailedExporterError.by(error))
        return False

    def _step(self) -> bool:
        """Serve every shipment once.

        A stream of which the destination takes nothing waits by itself while others go on; only if there are several
        of them is it the destination that is waited for.
        """
        exporter = self._get_exporter()
        self._fleet.look()
        more = False
        pending: PendingExportError | None = None
        stuck = 0
        began = self._successes
        for shipment in self._fleet.in_turn():
            if self._stopping:
                break
            successes = self._successes
            try:
                more = self._serve(shipment, exporter) or more
            except PendingExportError as error:
                shipment.patience.pause(_asked_s(error))
                if pending is None or _asked_s(error) < _asked_s(pending):
                    pending = error
            except (BlockedExportError, OSError) as error:
                self._stuck(shipment, error)
                stuck += 1
                if stuck >= _STUCK_MAX and isinstance(error, BlockedExportError):
                    raise
            if self._successes > successes:
                stuck = 0
        self._settle_state(moved=pending is not None or self._successes > began)
        if pending is not None:
            raise pending
        return more

    def _serve(self, shipment: Shipment, exporter: AuditRecordExporter) -> bool:
        """Ship one batch of one stream; whether there is probably more."""
        writer = self._journal.writer
        if writer is not None and writer.stream_id != shipment.stream.stream_id:
            writer = None
        evidence = shipment.refused_to > 0 and self._successes > shipment.refused_when
        if shipment.patience.waiting and not evidence and not self._has_news(shipment):
            return False
        if not shipment.dead:
            shipment.dead = (writer is None or writer.closed) and shipment.stream.owner_state() == DEAD
        end = writer.end if writer is not None and not shipment.dead else None
        before = shipment.cursor
        try:
            count = shipment.ship(exporter, final=shipment.dead, end=end, evidence=evidence)
        except RefusedBatchError:
            shipment.refused_when = self._successes
            raise
        except PendingExportError:
            if shipment.cursor.delivered > before.delivered:
                self._succeeded()
            raise
        finally:
            self._note_progress(before, shipment.cursor)
        if count > shipment.passed:  # what the filter passed over says nothing of the destination
            self._succeeded()
            shipment.patience.succeeded()
        if shipment.finished:
            self._journal.housekeep_soon()
            return self._fleet.finish(shipment)
        if not count:
            self._fleet.park(shipment)
        return count > 0 and shipment.full

    def _has_news(self, shipment: Shipment) -> bool:
        """Whether this process wrote something that the destination may accept, after it refused all before that."""
        writer = self._journal.writer
        return (
            shipment.refused_to > 0
            and shipment.patience.waited_s >= self.destination.retry.first_s
            and writer is not None
            and writer.stream_id == shipment.stream.stream_id
            and writer.sequence > shipment.refused_to
            and not shipment.full
        )

    def _note_progress(self, before: Cursor, after: Cursor) -> None:
        self.delivered += after.delivered - before.delivered
        self.dead_lettered += after.dead_lettered - before.dead_lettered
        self.filtered += after.filtered - before.filtered
        for listener in list(self._listeners.values()):
            listener()

    def _get_exporter(self) -> AuditRecordExporter:
        if self._exporter is None:
            exporter = make_exporter(self.destination)
            self._fleet.single_writer = exporter.single_writer
            self._exporter = exporter
        return self._exporter

    def close(self) -> None:
        """Let go of streams, locks and the exporter.  The thread does it itself when it stops."""
        self._fleet.close()
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            try:
                exporter.close()
            except Exception:  # noqa: BLE001 - it is said, and the end goes on
                _log.exception("destination %s: the exporter could not be closed", self.destination.name)

    # -- success and failure ---------------------------------------------------------------------------

    def _succeeded(self) -> None:
        self._successes += 1
        self._idle_s = _IDLE_FIRST_S
        self._patience.succeeded()
        self.state = msgspec.structs.replace(self.state, last_success_ns=time.time_ns())

    def _settle_state(self, *, moved: bool) -> None:
        """The destination did not fail: say so in the state, unless a stream is stuck."""
        before = self.state
        if self._patience.failures or any(shipment.patience.failures for shipment in self._fleet.shipments()):
            return
        if before.failures:
            _log.warning("destination %s works again after %d failures", self.destination.name, before.failures)
        self.state = DestinationState(state="delivering" if moved else "idle", last_success_ns=before.last_success_ns)

    def _stuck(self, shipment: Shipment, error: BlockedExportError | OSError) -> None:
        """The destination takes nothing of this stream, or the stream cannot be read."""
        if isinstance(error, OSError):
            shipment.patience.failed(self.destination.retry)
            found = BlockedExportError(f"stream {shipment.stream.stream_id} cannot be read or written: {error}")
        else:
            shipment.patience.failed(self.destination.blocked, error.retry_after_s)
            found = error
        self._say("blocked", found, shipment.patience)

    def _failed(self, state: str, error: ExportError) -> None:
        backoff = self.destination.blocked if state == "blocked" else self.destination.retry
        self._patience.failed(backoff, error.retry_after_s)
        self._say(state, error, self._patience)

    def _say(self, state: str, error: AuditError, patience: Patience) -> None:
        """Note a failure, and say it: at once if nothing ever worked or somebody has to act, else after a while."""
        before = self.state
        repair = (error.repair if isinstance(error, ExportError) else None) or ""
        self.state = DestinationState(
            state=state,
            error=str(error),
            repair=repair,
            failures=patience.failures,
            last_success_ns=before.last_success_ns,
        )
        now = time.monotonic()
        changed = before.state != state
        at_once = changed and (state == "blocked" or before.last_success_ns == 0)
        overdue = patience.failing_s >= LOUD_AFTER_S and now - self._said_s >= LOUD_AFTER_S
        if not at_once and not overdue:
            return
        self._said_s = now
        _log.error(
            "destination %s is %s (failure %d): %s%s. Records are kept in %s and sent when it works",
            self.destination.name,
            state,
            patience.failures,
            error,
            f"; {repair}" if repair else "",
            self._journal.layout.root,
            exc_info=error.__cause__ if isinstance(error, FailedExporterError) else None,
        )


def _asked_s(error: PendingExportError) -> float:
    return _PENDING_S if error.retry_after_s is None else error.retry_after_s


def drain(
    shipper: Shipper,
    *,
    timeout_s: float,
    on_progress: Callable[[], None] = lambda: None,
    give_up: Callable[[], bool] = lambda: False,
) -> bool:
    """Run a shipper in the calling thread until nothing is left, or time is up; whether nothing is left.

    Args:
        shipper: its own thread must not run.
        timeout_s: how long, in seconds; a batch that is under way is waited for.
        on_progress: called whenever something was moved.
        give_up: asked after each round; true ends it.
    """
    deadline = time.monotonic() + timeout_s
    enter_own_thread()
    try:
        while time.monotonic() < deadline:
            moved = shipper.settled
            more = shipper.step()
            progress = shipper.settled > moved
            if progress:
                on_progress()
            elif not more and shipper.state.failures == 0 and not shipper.waiting:
                return True
            if give_up():
                return False
            if not progress:
                time.sleep(0.05)
        return False
    finally:
        leave_own_thread()
