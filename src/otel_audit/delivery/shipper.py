"""The shipper: one thread per destination and process, where all waiting, retrying and shouting is done."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

import msgspec

from ..context import enter_own_thread, leave_own_thread
from ..errors import AuditError, BlockedExportError, DamageError, ExportError, RetryableExportError
from ..journal.cursor import Cursor
from ..journal.journal import Journal
from ..journal.ledger import lock_directory
from ..journal.streams import DEAD, StreamDirectory, list_streams
from ..journal.threads import OwnThread, Wake
from ..protocols import AuditRecordExporter
from .destination import Destination
from .shipment import Shipment, open_shipment

SCAN_INTERVAL_S: Final = 3.0
"""How often it looks for streams of dead processes."""
LOUD_AFTER_S: Final = 120.0
"""How long a destination may fail before that is said, and how often it is said again."""

_log = logging.getLogger("otel_audit.delivery")


class DestinationState(msgspec.Struct, kw_only=True):
    """How a destination is doing, as ``status`` shows it.

    Attributes:
        state: ``"idle"``, ``"delivering"``, ``"retrying"``, ``"blocked"``.
        error, repair: the last failure, and what a person has to do about it.
        failures: failures in a row.
        last_success_ns: when it last took something, nanoseconds since 1970; 0: not since this process began.
    """

    state: str = "idle"
    error: str = ""
    repair: str = ""
    failures: int = 0
    last_success_ns: int = 0


class Shipper:
    """Ships streams to one destination until it is stopped.

    Args:
        journal: where the streams are.
        destination: where they go.
        adopt: ship what dead processes left.
        for_living: also ship for living processes (a sidecar).

    Attributes:
        state: how the destination is doing.
        delivered, dead_lettered: records that this shipper has settled since it began, over all streams.
    """

    def __init__(
        self, journal: Journal, destination: Destination, *, adopt: bool = True, for_living: bool = False
    ) -> None:
        self.destination = destination
        self._journal = journal
        self._adopt = adopt
        self._for_living = for_living
        self._settled_listeners: dict[int, Wake] = {}
        self._reset()

    def _reset(self) -> None:
        self.state = DestinationState()
        self.delivered = 0
        self.dead_lettered = 0
        self._shipments: dict[str, Shipment] = {}
        self._finished: dict[str, Cursor] = {}
        self._unreadable: set[str] = set()
        self._wake = Wake()
        self._urgent = False
        self._stopping = False
        self._thread = OwnThread(self._run)
        self._exporter: AuditRecordExporter | None = None
        self._writer_lock = lock_directory(self._journal.layout, self.destination.name)
        self._scanned_s = float("-inf")
        self._looked = False
        self._not_before_s = 0.0
        self._failing_since_s = 0.0
        self._said_s = float("-inf")
        self._settled_listeners.clear()

    # -- from other threads ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread, if it does not run."""
        self._thread.start()

    def notify(self, *, urgent: bool = False) -> None:
        """There is something new; ``urgent``: somebody waits for it.  Safe from signal handlers."""
        if urgent:
            self._urgent = True
        self._wake.set()

    def stop(self, timeout_s: float) -> bool:
        """Stop after the present batch; whether the thread ended in time."""
        self._stopping = True
        self._wake.set()
        return self._thread.join(max(timeout_s, 0.0))

    def abandon(self) -> None:
        """In a forked child: forget the parent's thread, locks and connections."""
        for shipment in list(self._shipments.values()):
            shipment.forget()
        self._writer_lock.forget()
        self._reset()

    def acknowledged(self, stream_id: str) -> int:
        """How far the destination is in a stream of this journal; also where another process ships it."""
        shipment = self._shipments.get(stream_id)
        if shipment is not None:
            return shipment.cursor.acknowledged
        return self.cursor(stream_id).acknowledged

    def cursor(self, stream_id: str) -> Cursor:
        """The destination's cursor in a stream."""
        shipment = self._shipments.get(stream_id)
        if shipment is not None:
            return shipment.cursor
        finished = self._finished.get(stream_id)
        if finished is not None:
            return finished
        for stream in list_streams(self._journal.layout):
            if stream.stream_id == stream_id:
                return stream.cursor_file(self.destination.name).load() or Cursor()
        return Cursor()

    def served(self) -> dict[str, Cursor]:
        """Every stream that this shipper ships or has shipped, and how far it is."""
        return {**self._finished, **{key: shipment.cursor for key, shipment in list(self._shipments.items())}}

    def wait_for(self, stream_id: str, sequence: int, timeout_s: float) -> bool:
        """Wait until the destination has a record; whether it has it in time."""
        deadline = time.monotonic() + timeout_s
        wake = Wake()
        key = id(wake)
        self._settled_listeners[key] = wake
        try:
            while self.acknowledged(stream_id) < sequence:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self.notify(urgent=True)
                wake.wait(min(left, 0.1))
            return True
        finally:
            self._settled_listeners.pop(key, None)

    @property
    def looked(self) -> bool:
        """Whether it has looked for streams since it began: what it found is in ``unfinished()``."""
        return self._looked

    def unfinished(self) -> list[StreamDirectory]:
        """Streams of other processes that it ships and has not finished."""
        writer = self._journal.writer
        own_id = writer.stream_id if writer is not None else ""
        return [s.stream for s in list(self._shipments.values()) if s.stream.stream_id != own_id]

    # -- the thread -------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping:
                if not self.step() and not self._stopping:
                    self._pause()
        finally:
            self.close()

    def _pause(self) -> None:
        """Wait for something to do; gather records for a moment unless somebody waits for them."""
        now = time.monotonic()
        if now < self._not_before_s:
            self._wait_out(self._not_before_s)
            return
        if self._wake.wait(SCAN_INTERVAL_S) and not self._urgent:
            self._wait_out(time.monotonic() + self.destination.delay_s)

    def _wait_out(self, until_s: float) -> None:
        """Wait until then; an urgent caller cuts the gathering short, never a back-off."""
        while not self._stopping:
            left = until_s - time.monotonic()
            if left <= 0 or (self._urgent and until_s != self._not_before_s):
                return
            self._wake.wait(left)

    def step(self) -> bool:
        """Serve every shipment once; whether there may be more to do at once.  Never raises."""
        if time.monotonic() < self._not_before_s:
            return False
        self._urgent = False
        moved = 0
        try:
            self._look_for_streams()
            for shipment in list(self._shipments.values()):
                if self._stopping:
                    break
                moved += self._serve(shipment)
        except RetryableExportError as error:
            self._failed("retrying", error)
            return False
        except ExportError as error:
            self._failed("blocked", error)
            return False
        except OSError as error:
            self._failed("blocked", BlockedExportError(f"the journal cannot be read or written: {error}"))
            return False
        except Exception as error:  # noqa: BLE001 - an exporter's own mistake must not end the thread
            _log.exception("destination %s: the exporter failed unexpectedly", self.destination.name)
            self._failed("blocked", BlockedExportError(f"{type(error).__name__}: {error}"))
            return False
        if moved:
            self.state.state = "delivering"
        elif not self._stopping:  # it has everything that is there: what failed before does not matter any more
            self.state = DestinationState(last_success_ns=self.state.last_success_ns)
        return moved > 0

    def _serve(self, shipment: Shipment) -> int:
        writer = self._journal.writer
        own = writer is not None and writer.stream_id == shipment.stream.stream_id
        end = writer.end if own and writer is not None else None
        ended = not own or (writer is not None and writer.closed)
        final = ended and shipment.stream.owner_state() == DEAD
        exporter = self._get_exporter()
        failures = self.state.failures
        before = shipment.cursor
        try:
            count = shipment.ship(exporter, final=final, end=None if final else end)
        finally:
            self.delivered += shipment.cursor.delivered - before.delivered
            self.dead_lettered += shipment.cursor.dead_lettered - before.dead_lettered
            for wake in list(self._settled_listeners.values()):
                wake.set()
        if count:
            self._succeeded(failures)
        if shipment.finished:
            self._finished[shipment.stream.stream_id] = shipment.cursor
            self._shipments.pop(shipment.stream.stream_id).close()
            self._journal.housekeep_soon()
        return count

    def _get_exporter(self) -> AuditRecordExporter:
        if self._exporter is None:
            self._exporter = self.destination.make_exporter()
        return self._exporter

    def close(self) -> None:
        """Let go of streams, locks and the exporter.  The thread does it itself when it stops."""
        for shipment in self._shipments.values():
            shipment.close()
        self._shipments.clear()
        self._writer_lock.release()
        if self._exporter is not None:
            self._exporter.close()
            self._exporter = None

    # -- which streams ---------------------------------------------------------------------------------

    def _look_for_streams(self) -> None:
        writer = self._journal.writer
        own_id = writer.stream_id if writer is not None else ""
        new_own = bool(own_id) and own_id not in self._shipments and own_id not in self._finished
        now = time.monotonic()
        if not new_own and now - self._scanned_s < SCAN_INTERVAL_S:
            return
        self._scanned_s = now
        single_writer = self._get_exporter().single_writer
        if single_writer and not self._writer_lock.acquire():
            self._looked = True
            return
        streams = list_streams(self._journal.layout)
        present = {stream.stream_id for stream in streams}
        for gone in [key for key in self._finished if key not in present and key != own_id]:
            del self._finished[gone]
        for stream in streams:
            key = stream.stream_id
            if key in self._shipments or key in self._finished or key in self._unreadable:
                continue
            try:
                if key != own_id:
                    if not self._adopt and not single_writer:
                        continue
                    dead = stream.owner_state() == DEAD
                    if not (dead or self._for_living or single_writer):
                        continue
                    if dead and self.destination.from_now and stream.cursor_file(self.destination.name).load() is None:
                        continue
                shipment = open_shipment(stream, self.destination, lambda: None)
            except DamageError as error:
                self._unreadable.add(key)
                _log.error("destination %s: %s", self.destination.name, error)
                continue
            if shipment is not None:
                self._shipments[key] = shipment
        self._looked = True

    # -- success and failure ---------------------------------------------------------------------------

    def _succeeded(self, failures: int) -> None:
        if failures:
            _log.warning("destination %s works again after %d failures", self.destination.name, failures)
        self.state = DestinationState(state="delivering", last_success_ns=time.time_ns())
        self._not_before_s = 0.0

    def _failed(self, state: str, error: AuditError) -> None:
        """Note it, back off, and say it: at once if nothing ever worked or somebody has to act, else after a while."""
        now = time.monotonic()
        first = self.state.failures == 0
        if first:
            self._failing_since_s = now
        changed = first or state != self.state.state
        asked = error.retry_after_s if isinstance(error, ExportError) else None
        repair = (error.repair if isinstance(error, ExportError) else None) or ""
        failures = self.state.failures + 1
        never = self.state.last_success_ns == 0
        self.state = DestinationState(
            state=state,
            error=str(error),
            repair=repair,
            failures=failures,
            last_success_ns=self.state.last_success_ns,
        )
        backoff = self.destination.blocked if state == "blocked" else self.destination.retry
        self._not_before_s = now + backoff.wait_s(failures, asked)
        at_once = changed and (state == "blocked" or never)
        overdue = now - self._failing_since_s >= LOUD_AFTER_S and now - self._said_s >= LOUD_AFTER_S
        if at_once or overdue:
            self._said_s = now
            _log.error(
                "destination %s is %s (failure %d): %s%s. Records are kept in %s and sent when it works",
                self.destination.name,
                state,
                failures,
                error,
                f"; {repair}" if repair else "",
                self._journal.layout.root,
            )


def drain(
    shipper: Shipper,
    *,
    timeout_s: float,
    on_progress: Callable[[], None] = lambda: None,
    give_up: Callable[[], bool] = lambda: False,
) -> bool:
    """Run a shipper in the calling thread until nothing is left, time is up or the caller gives up.

    Args:
        shipper: not started; the caller closes it.
        timeout_s: how long at most, in seconds.
        on_progress: called after each round that moved something.
        give_up: asked after each round that failed or has to wait.

    Returns:
        Whether nothing is left.
    """
    deadline = time.monotonic() + timeout_s
    enter_own_thread()
    try:
        while time.monotonic() < deadline:
            if shipper.step():
                on_progress()
            elif shipper.state.failures == 0:
                return True
            elif give_up():
                return False
            else:
                time.sleep(0.05)
        return False
    finally:
        leave_own_thread()
