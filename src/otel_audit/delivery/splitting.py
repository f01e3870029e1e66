"""Finding the records that a destination refuses, by halves, without counting an accepted one as lost.

Pure but for the ``send`` that it is given.  Records are sent in their order.  A receiver that took part of a batch
and then refused it gets that part again: it knows records by their id.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ..batch import RecordBatch, StoredRecord
from ..errors import BlockedExportError, ExportError, RejectedExportError
from ..protocols import ExportResult

REFUSALS_MAX: Final = 48
"""So many refusals in a row without one acceptance, and single records are tried here and there instead."""
PROBES: Final = 8


class Splitting:
    """One attempt to settle a batch.

    Attributes:
        accepted: sequence numbers that the destination took.
        refused: single records that it refused, and its answers.
        response_ids: ids that it gave to records.
    """

    def __init__(self, send: Callable[[RecordBatch], ExportResult | None]) -> None:
        self.accepted: set[int] = set()
        self.refused: list[tuple[StoredRecord, ExportError]] = []
        self.response_ids: dict[str, str] = {}
        self._send = send
        self._refusals = 0
        self._batch: RecordBatch | None = None

    @property
    def has_evidence(self) -> bool:
        """Whether the destination was seen to work: it accepted something."""
        return bool(self.accepted)

    def run(self, batch: RecordBatch) -> None:
        """Send the batch, split where it is refused.  On return every record was accepted or refused by itself.

        Raises:
            RetryableExportError, BlockedExportError: it went no further; ``accepted`` and ``refused`` say how far.
        """
        self._batch = batch
        self._deliver(batch)
        if self.refused and not self.has_evidence:
            raise self._refuses_everything(self.refused[0][1])

    def _deliver(self, part: RecordBatch) -> None:
        records = part.records
        if all(record.sequence in self.accepted for record in records):
            return
        try:
            result = self._send(part)
        except RejectedExportError as error:
            self._accept(records[: error.accepted])
            self._split(part.part(error.accepted, len(records)), error)
        except ExportError as error:
            self._accept(records[: error.accepted])
            raise
        else:
            self._accept(records)
            if result is not None:
                self.response_ids.update(result.response_ids)

    def _split(self, part: RecordBatch, error: RejectedExportError) -> None:
        count = len(part.records)
        if count == 0:
            return
        if not self.has_evidence:
            self._refusals += 1
            if self._refusals == REFUSALS_MAX:
                self._probe(error)
        if count == 1:
            self.refused.append((part.records[0], error))
            return
        self._deliver(part.part(0, count // 2))
        self._deliver(part.part(count // 2, count))

    def _probe(self, error: RejectedExportError) -> None:
        """Try single records across the batch, the last one first: does it accept anything at all?"""
        assert self._batch is not None  # noqa: S101 - for the type checker
        count = len(self._batch.records)
        for step in range(PROBES):
            at = (count - 1) - step * count // PROBES
            try:
                self._send(self._batch.part(at, at + 1))
            except RejectedExportError:
                continue
            self._accept(self._batch.records[at : at + 1])
            return
        raise self._refuses_everything(error)

    def _accept(self, records: object) -> None:
        self.accepted.update(record.sequence for record in records)  # type: ignore[attr-defined]

    def _refuses_everything(self, error: ExportError) -> BlockedExportError:
        return BlockedExportError(
            f"it refuses every record that it was sent: {error}",
            status=error.status,
            retry_after_s=error.retry_after_s,
            repair=error.repair or "see that address, protocol and credentials are right for this destination",
            request_id=error.request_id,
            details=error.details,
        )
