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

    def wait_s(self, count: int) -> float:
        """How long it takes until so many can be taken, in seconds; 0 where they can be now."""
        now = self._clock()
        self._level = min(self._level + (now - self._seen_s) * self._per_s, self.size)
        self._seen_s = now
        missing = count - self._level
        return missing / self._per_s if missing > _TINY else 0.0

    def take(self, count: int) -> None:
        """Take them."""
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
        count = wanted if self._records is None else min(wanted, self._records.size)
        if self._requests is not None and self._per_request < math.inf:
            count = min(count, self._requests.size * int(self._per_request))
        requests = math.ceil(count / self._per_request)
        wait_s = self._records.wait_s(count) if self._records is not None else 0.0
        if self._requests is not None:
            wait_s = max(wait_s, self._requests.wait_s(max(requests, 1)))
        if wait_s > 0:
            raise PendingExportError("as many as may be sent for now were sent", retry_after_s=wait_s)
        if self._records is not None:
            self._records.take(count)
        if self._requests is not None:
            self._requests.take(max(requests, 1))
        return count

    def __repr__(self) -> str:
        return f"<PacedExporter {self._exporter!r}>"


def paced(
    exporter: AuditRecordExporter, records_per_s: float | None, requests_per_s: float | None
) -> AuditRecordExporter:
    """The exporter, with its limits where there are any."""
    if records_per_s is None and requests_per_s is None:
        return exporter
    return PacedExporter(exporter, records_per_s, requests_per_s)
