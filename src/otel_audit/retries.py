"""Record ids that callers chose, so that their retries are safe: the second ``emit`` gives the first receipt."""

from __future__ import annotations

import time
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from .errors import InvalidRecordError
from .preparation import prepare
from .record import AuditRecord

if TYPE_CHECKING:
    from .receipt import AuditReceipt

REMEMBERED_MAX: Final = 10_000
_PATIENCE_S: Final = 5.0


class Claim:
    """One ``emit`` of a record with an id that its caller chose.

    It is made before the id is taken and settled however the ``emit`` ends, so whatever interrupts in between leaves
    no id that nobody will settle.

    Args:
        ids: what it is about to be taken from.
        record: the record.
        by: what the provider that is about to journal it knows of durabilities.

    Attributes:
        fingerprint: of the record.
        receipt: once the record is journaled.
    """

    __slots__ = ("_ids", "_record_id", "by", "fingerprint", "receipt")

    def __init__(self, ids: ChosenIds, record: AuditRecord, by: object) -> None:
        self._ids = ids
        self._record_id = record.record_id
        self.fingerprint = fingerprint(record)
        self.by = by
        self.receipt: AuditReceipt | None = None

    def take(self) -> AuditReceipt | None:
        """Take the id; the receipt of the first ``emit`` where there was one, else ``None``: go on.

        Where another thread is just emitting the same record, its receipt is waited for.

        Raises:
            InvalidRecordError: the id was used for another record.
        """
        claims = self._ids.claims
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            first = claims.setdefault(self._record_id, self)
            if first is self:
                self._ids.forget_oldest()
                return None
            if first.fingerprint != self.fingerprint:
                raise InvalidRecordError(
                    "record_id", "was used before for a different record; give each its own, or none", self._record_id
                )
            if first.receipt is not None:
                return first.receipt
            if time.monotonic() > deadline:
                return None
            time.sleep(0.001)

    def settle(self, receipt: AuditReceipt | None) -> None:
        """The ``emit`` has ended: its receipt, or ``None``: nothing is journaled, and the id is free again."""
        if receipt is not None:
            self.receipt = receipt
        elif self._ids.claims.get(self._record_id) is self:
            self._ids.claims.pop(self._record_id, None)


class ChosenIds:
    """The last :data:`REMEMBERED_MAX` ids that callers chose.  A provider leaves them to its successor.

    Attributes:
        claims: by record id, oldest first.
    """

    def __init__(self) -> None:
        self.claims: dict[str, Claim] = {}

    def journaled_by(self, receipt: AuditReceipt) -> object:
        """``by`` of the claim that got this receipt; ``None`` where that is not remembered."""
        claim = self.claims.get(receipt.record_id)
        return claim.by if claim is not None and claim.receipt is not None else None

    def forget_oldest(self) -> None:
        """Keep to the bound."""
        if len(self.claims) <= REMEMBERED_MAX:
            return
        try:
            self.claims.pop(next(iter(self.claims)), None)
        except (StopIteration, RuntimeError):  # another thread was quicker
            return


def fingerprint(record: AuditRecord) -> bytes:
    """Tells records apart by what the caller said of them: times and trace may differ between two tries."""
    timeless = AuditRecord.from_attributes(record.event_name, record.attributes, timestamp_ns=1, body=record.body)
    head, tail = prepare(timeless, 1)
    return sha256(head + b"\n" + tail).digest()
