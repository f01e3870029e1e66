"""How fast a destination may be served: a limit on our side, so that its own is never met.

An exporter never waits.  Where it would be too fast, what may not go yet is *pending*: the shipper does the waiting.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from ..batch import RecordBatch
from ..errors import ExportError, PendingExportError
from ..protocols import AuditRecordExporter, ExportResult
from .destination import Destination

_TINY = 1e-6
"""Less than this is not waited for: a clock may be too coarse to ever reach it."""


class Bucket:
    """So many per second on the average, and never more at once than come together in one second (at least one).

    Args:
        per_s: how many per second.
        clock: monotonic seconds; for tests.
    """

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.size = max(math.floor(per_s), 1)
        self._per_s = per_s
        self._clock = clock
        self._level = float(self.size)
        self._seen_s = clock()

    def grant(self, wanted: int) -> tuple[int, float]:
        """How many of so many may be taken now; where it is none, how long to wait, in seconds.

        Fewer than half of what may come at once are not granted, unless no more are wanted: many small requests would
        follow.  Not all have to be there: what one stream goes on taking must not keep another one waiting for ever.
        """
        now = self._clock()
        self._level = min(self._level + (now - self._seen_s) * self._per_s, self.size)
        self._seen_s = now
        wanted = min(wanted, self.size)
        missing = min(wanted, max(self.size // 2, 1)) - self._level
        if missing > _TINY:
            return 0, missing / self._per_s
        return min(wanted, math.floor(self._level + _TINY)), 0.0

    def take(self, count: int) -> None:
        """Take so many of those that were granted."""
        self._level -= count


class PacedExporter:
    """An exporter that is not used faster than it may be.

    Args:
        exporter: what it hands batches to, in parts that may go at once.
        records_per_s, requests_per_s: the limits; ``None`` for none.  How many records one request can hold, the
            exporter says in an attribute ``records_per_request``, where it has one.
        clock: monotonic seconds; for tests.
    """

    def __init__(
        self,
        exporter: AuditRecordExporter,
        records_per_s: float | None,
        requests_per_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.single_writer = exporter.single_writer
        self._exporter = exporter
        self._per_request: float = getattr(exporter, "records_per_request", None) or math.inf
        self._records = Bucket(records_per_s, clock) if records_per_s is not None else None
        self._requests = Bucket(requests_per_s, clock) if requests_per_s is not None else None

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        """Deliver as much as may go now.

        Raises:
            PendingExportError: it is too early for the rest; ``accepted`` says where that begins.
            ExportError: as the exporter does.
        """
        done = 0
        response_ids: dict[str, str] = {}
        try:
            while done < len(batch.records):
                count = self._admit(len(batch.records) - done)
                result = self._exporter.export(batch.part(done, done + count), timeout_s)
                if result is not None:
                    response_ids.update(result.response_ids)
                done += count
        except ExportError as error:
            error.accepted = done + max(error.accepted, 0)
            error.response_ids = {**response_ids, **error.response_ids}
            raise
        return ExportResult(response_ids)

    def close(self) -> None:
        """Close the exporter."""
        self._exporter.close()

    def _admit(self, wanted: int) -> int:
        """How many of so many records may go now, at least one.

        Raises:
            PendingExportError: none may.
        """
        count, wait_s = (wanted, 0.0) if self._records is None else self._records.grant(wanted)
        if count and self._requests is not None:
            requests, wait_s = self._requests.grant(self._requests_for(count))
            count = int(min(count, requests * self._per_request)) if requests else 0
        if not count:
            raise PendingExportError("as many as may be sent for now were sent", retry_after_s=wait_s)
        if self._records is not None:
            self._records.take(count)
        if self._requests is not None:
            self._requests.take(self._requests_for(count))
        return count

    def _requests_for(self, count: int) -> int:
        return max(math.ceil(count / self._per_request), 1)

    def __repr__(self) -> str:
        return f"<PacedExporter {self._exporter!r}>"


def make_exporter(destination: Destination) -> AuditRecordExporter:
    """An exporter to a destination, with its limits where it has any."""
    exporter = destination.make_exporter()
    if destination.records_per_s is None and destination.requests_per_s is None:
        return exporter
    return PacedExporter(exporter, destination.records_per_s, destination.requests_per_s)
