"""How far the destinations of this process are, and waiting until they have everything."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Final

from .delivery.shipper import Shipper, drain
from .errors import ConfigurationError, describe
from .health import DestinationStatus, FlushResult, emitted_after, last_sequence
from .journal.cursor import Cursor
from .journal.journal import Journal
from .journal.segment import list_segments
from .journal.streams import StreamDirectory

_EMITTED_MAX: Final = 50_000


def deadline_after(timeout_s: float) -> float:
    """The moment by the monotonic clock when a time to wait is over.

    Raises:
        ConfigurationError: the time is no number of seconds.
    """
    if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or math.isnan(timeout_s):
        raise ConfigurationError(f"timeout_s: expected seconds, as a number like 30.0, not {describe(timeout_s)}")
    return time.monotonic() + timeout_s


class Tails:
    """The last record of each stream, remembered for as long as its last file does not change."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int, int]] = {}
        self._emitted: dict[tuple[str, int], int] = {}

    def last(self, stream: StreamDirectory) -> int:
        """Number of the last whole record of a stream; 0 where there is none.

        Raises:
            OSError: it cannot be read.
        """
        try:
            segments = list_segments(stream.path)
            if not segments:
                return 0
            now = segments[-1].first, segments[-1].path.stat().st_size
            known = self._known.get(stream.stream_id)
            if known is None or known[:2] != now:
                known = self._known[stream.stream_id] = (*now, last_sequence(stream))
            return known[2]
        except FileNotFoundError:  # removed meanwhile
            return 0

    def emitted_ns(self, stream: StreamDirectory, acknowledged: int) -> int:
        """When the first record behind a cursor was emitted, nanoseconds since 1970; 0 where that cannot be said."""
        key = stream.stream_id, acknowledged
        if not self._emitted.get(key):
            try:
                self._emitted[key] = emitted_after(stream, acknowledged)
            except OSError:
                return 0
        return self._emitted[key]

    def keep_only(self, streams: set[str]) -> None:
        """Forget all others."""
        for stream_id in [key for key in self._known if key not in streams]:
            self._known.pop(stream_id, None)
        if len(self._emitted) > _EMITTED_MAX:
            self._emitted.clear()


class Reckoning:
    """What is delivered, pending, refused and damaged.

    Args:
        journal: of this process.
        shippers: one for each destination.
    """

    def __init__(self, journal: Journal, shippers: Sequence[Shipper]) -> None:
        self._journal = journal
        self._shippers = shippers
        self._tails = Tails()

    def destinations(self) -> list[DestinationStatus]:
        """How each destination is doing."""
        return [self._destination(shipper) for shipper in self._shippers]

    def flush(self, timeout_s: float, *, only_ours: bool = False) -> FlushResult:
        """Wait until every required destination has everything that is in the journal now.

        Args:
            timeout_s: how long, in seconds.
            only_ours: do not wait for what another process serves: this one can end before.
        """
        deadline = deadline_after(timeout_s)
        required = [
            shipper
            for shipper in self._shippers
            if shipper.destination.required and not (only_ours and shipper.destination.elsewhere)
        ]
        for shipper in self._shippers:
            shipper.start()
            shipper.hurry()
        for shipper in required:
            targets, _ = self._look(shipper)
            serves = not shipper.stopped and not shipper.destination.elsewhere
            if serves and not shipper.running:  # when the interpreter ends, no thread can be started
                drain(shipper, timeout_s=deadline - time.monotonic())
            own = self._journal.writer.stream_id if self._journal.writer is not None else ""
            for stream_id, sequence in targets.items():
                if not shipper.wait_for(stream_id, sequence, deadline - time.monotonic(), or_gone=stream_id != own):
                    break
        return FlushResult(tuple(self.destinations()))

    def _look(self, shipper: Shipper) -> tuple[dict[str, int], int]:
        """The last record of every stream that is to be delivered; and how many records cannot be read at all."""
        found, unreadable = shipper.streams()
        self._tails.keep_only({stream.stream_id for stream in (*found, *unreadable)})
        writer = self._journal.writer
        targets = {writer.stream_id: writer.sequence} if writer is not None else {}
        for stream in found:
            try:
                if stream.stream_id not in targets:
                    targets[stream.stream_id] = self._tails.last(stream)
            except OSError:  # noqa: PERF203 - one that cannot be read must not hide the others
                unreadable.append(stream)
        return targets, sum(self._count(stream) for stream in unreadable)

    def _count(self, stream: StreamDirectory) -> int:
        """Records of a stream that cannot be delivered: at least one, unless it was removed meanwhile."""
        try:
            return max(self._tails.last(stream), 1) if stream.path.is_dir() else 0
        except OSError:
            return 1

    def _destination(self, shipper: Shipper) -> DestinationStatus:
        targets, damaged = self._look(shipper)
        cursors = shipper.totals()
        oldest = {shipment.stream.stream_id: shipment.oldest_ns for shipment in shipper.shipments()}
        pending = 0
        emitted = []
        for stream_id, last in targets.items():
            cursor = shipper.cursor(stream_id)
            if cursor is not None:
                cursors[stream_id] = cursor
                behind = max(last - cursor.acknowledged, 0)
                pending += behind
                if behind:
                    emitted.append(oldest.get(stream_id) or self._emitted_ns(stream_id, shipper, cursor))
        damaged += sum(cursor.damaged for cursor in cursors.values())
        state = shipper.state
        return DestinationStatus(
            name=shipper.destination.name,
            required=shipper.destination.required,
            delivered=sum(cursor.delivered for cursor in cursors.values()),
            pending=pending,
            dead_lettered=sum(cursor.dead_lettered for cursor in cursors.values()),
            damaged=damaged,
            state=state.state,
            error=state.error,
            repair=state.repair,
            failures=state.failures,
            last_success_ns=state.last_success_ns,
            filtered=sum(cursor.filtered for cursor in cursors.values()),
            oldest_pending_ns=min(filter(None, emitted), default=0),
        )

    def _emitted_ns(self, stream_id: str, shipper: Shipper, cursor: Cursor) -> int:
        """When the first record behind a cursor was emitted, where the shipper does not hold it.

        Of the living stream of this process that is read only if the destination fails: else it is about to be shipped.
        """
        writer = self._journal.writer
        if writer is not None and writer.stream_id == stream_id and not shipper.state.failures and shipper.running:
            return 0
        layout = self._journal.layout
        return self._tails.emitted_ns(StreamDirectory(layout, layout.streams / stream_id), cursor.acknowledged)
