"""Finding the records that a destination refuses, by halves, without counting an accepted one as lost.

Pure but for the ``send`` that it is given.  Records are sent in their order, and none that was accepted is sent again.
Where a receiver answers for each record, those that it refuses are believed by name, and only the rest is sent again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from ..batch import RecordBatch, StoredRecord
from ..errors import BlockedExportError, ExportError, RejectedExportError
from ..protocols import ExportResult

REFUSALS_MAX: Final = 48
"""So many refusals without one acceptance, and single records are tried here and there instead."""
PROBES: Final = 8
REQUESTS_MAX: Final = 512
"""So many requests, and what is known is settled before the rest is looked at."""


class RefusedBatchError(BlockedExportError):
    """The destination refuses whatever it was sent: nothing says that it is the records' fault."""


class _Enough(Exception):  # noqa: N818 - it ends a search, it is no failure
    """What is known should be settled now."""


class Splitting:
    """One attempt to settle a batch.

    Args:
        send: sends a part; returns or raises as an exporter does.
        accepted: sequence numbers that it took before: they are not sent, and prove nothing of what is refused now.
        evidence: the destination is known to work: it accepted something after it refused these records.
        choose: picks some numbers of a range; for tests.

    Attributes:
        accepted: sequence numbers that the destination took, before or now.
        refused: single records that it refused, and its answers.  To be believed only with :attr:`has_evidence`; then
            each was refused, perhaps for a second time, after something was accepted.
        response_ids: ids that it gave to records.
    """

    def __init__(
        self,
        send: Callable[[RecordBatch], ExportResult | None],
        *,
        accepted: Iterable[int] = (),
        evidence: bool = False,
        choose: Callable[[range, int], Sequence[int]] = random.sample,
    ) -> None:
        self.accepted = set(accepted)
        self.refused: list[tuple[StoredRecord, ExportError]] = []
        self.response_ids: dict[str, str] = {}
        self._send = send
        self._evidence = evidence
        self._choose = choose
        self._refusals = 0
        self._requests = 0
        self._refused_alone: set[int] = set()
        self._early: set[int] = set()

    @property
    def has_evidence(self) -> bool:
        """Whether the destination was seen to work: it accepted something now."""
        return self._evidence

    def run(self, batch: RecordBatch, *, newest_first: bool = False) -> None:
        """Send the batch, split where it is refused.

        On return every record was accepted or refused by itself, or, where that takes too many requests, at least
        some were.

        Args:
            batch: the records.
            newest_first: all but the newest were refused before: see first whether that one is accepted.

        Raises:
            RefusedBatchError: everything that was sent was refused.
            RetryableExportError, BlockedExportError: it went no further; ``accepted`` and ``refused`` say how far.
        """
        self._batch = batch
        try:
            if newest_first and not self.has_evidence:
                self._probe([len(batch.records) - 1])
            self._deliver(batch.records)
            self._deliver(self._take_back())
            self.refused.sort(key=lambda each: each[0].sequence)
        except _Enough:
            self._take_back()
            return
        if self.refused and not self.has_evidence:
            raise _refuses_everything(self.refused[0][1])

    def _take_back(self) -> Sequence[StoredRecord]:
        """What was refused before the destination accepted anything: it may have begun to work only then."""
        if not self.has_evidence:
            return []
        early, self._early = self._early, set()
        self._refused_alone -= early
        self.refused = [each for each in self.refused if each[0].sequence not in early]
        return [record for record in self._batch.records if record.sequence in early]

    def _deliver(self, records: Sequence[StoredRecord]) -> None:
        left = self._undecided(records)
        while left and (refusal := self._try(left)) is not None:
            before = len(left)
            left = self._undecided(left)
            if not refusal.refused or len(left) == before:
                self._split(left, refusal)
                return
            self._refused_without_evidence()  # the receiver named them, so the others may be all right together

    def _try(self, records: Sequence[StoredRecord]) -> RejectedExportError | None:
        """Send records; note what was accepted, and give back the refusal, if it is one."""
        if self._requests >= REQUESTS_MAX and self.has_evidence:
            raise _Enough
        self._requests += 1
        try:
            result = self._send(RecordBatch(self._batch.stream_id, self._batch.resource, records))
        except ExportError as error:
            self._note(records, error)
            if isinstance(error, RejectedExportError):
                return error
            raise
        self._accept(records)
        if result is not None:
            self.response_ids.update(result.response_ids)
        return None

    def _note(self, records: Sequence[StoredRecord], error: ExportError) -> None:
        """Note which records were accepted and which were refused by themselves, before or beside an error."""
        self._accept(records[: max(error.accepted, 0)])
        self._accept([record for record in records if record.sequence in error.taken])
        self.response_ids.update(error.response_ids)
        for record in records:
            if record.sequence in error.refused and record.sequence not in self.accepted:
                self._refuse(record, error.refused[record.sequence])

    def _split(self, records: Sequence[StoredRecord], error: RejectedExportError) -> None:
        """Deliver the halves of what was refused together; note what was refused alone."""
        if not records:
            return
        self._refused_without_evidence()
        if len(records) == 1:
            self._refuse(records[0], error)
            return
        middle = len(records) // 2
        self._deliver(records[:middle])
        self._deliver(records[middle:])

    def _refused_without_evidence(self) -> None:
        """Count a refusal; after many of them, see whether the destination accepts anything at all."""
        if self.has_evidence:
            return
        self._refusals += 1
        if self._refusals == REFUSALS_MAX:
            count = len(self._batch.records)
            self._probe([count - 1, *self._choose(range(count), min(PROBES - 1, count))])

    def _probe(self, indexes: Sequence[int]) -> None:
        """Try single records of the batch until one is accepted.

        Raises:
            RefusedBatchError: none is.
        """
        refusals = []
        for index in indexes:
            refusals.append(self._try(self._batch.records[index : index + 1]))
            if self.has_evidence:
                return
        raise _refuses_everything(next(refusal for refusal in refusals if refusal is not None))

    def _undecided(self, records: Sequence[StoredRecord]) -> Sequence[StoredRecord]:
        decided = self.accepted | self._refused_alone
        return [record for record in records if record.sequence not in decided]

    def _accept(self, records: Sequence[StoredRecord]) -> None:
        if records:
            self.accepted.update([record.sequence for record in records])
            self._evidence = True

    def _refuse(self, record: StoredRecord, error: ExportError) -> None:
        if record.sequence not in self._refused_alone:
            self._refused_alone.add(record.sequence)
            self.refused.append((record, error))
            if not self.has_evidence:
                self._early.add(record.sequence)


def _refuses_everything(error: ExportError) -> RefusedBatchError:
    return RefusedBatchError(
        f"it refuses every record that it was sent: {error}",
        status=error.status,
        retry_after_s=error.retry_after_s,
        repair=error.repair or "see that address, protocol and credentials are right for this destination",
        request_id=error.request_id,
        details=error.details,
    )
