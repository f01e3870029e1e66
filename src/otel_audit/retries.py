"""Record ids that callers chose, so that their retries are safe: the second ``emit`` gives the first receipt."""

from __future__ import annotations

import time
from hashlib import sha256
from typing import Final

from .errors import InvalidRecordError
from .preparation import prepare
from .receipt import AuditReceipt
from .record import AuditRecord

REMEMBERED_MAX: Final = 10_000
_PATIENCE_S: Final = 5.0


class _Claim:
    """An id in use: the fingerprint of its record, and its receipt once there is one."""

    __slots__ = ("fingerprint", "receipt")

    def __init__(self, fingerprint: bytes) -> None:
        self.fingerprint = fingerprint
        self.receipt: AuditReceipt | None = None


class ChosenIds:
    """The last :data:`REMEMBERED_MAX` ids that callers chose."""

    def __init__(self) -> None:
        self._claims: dict[str, _Claim] = {}

    def claim(self, record: AuditRecord) -> AuditReceipt | None:
        """Claim a record's id for it; the receipt of the first ``emit`` where there was one, else ``None``: go on.

        Where another thread is just emitting the same record, its receipt is waited for.

        Raises:
            InvalidRecordError: the id was used for another record.
        """
        mine = _Claim(fingerprint(record))
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            first = self._claims.setdefault(record.record_id, mine)
            if first is mine:
                if len(self._claims) > REMEMBERED_MAX:
                    self._forget_oldest()
                return None
            if first.fingerprint != mine.fingerprint:
                raise InvalidRecordError("record_id", "was used before for a different record", record.record_id)
            if first.receipt is not None:
                return first.receipt
            if time.monotonic() > deadline:
                return None
            time.sleep(0.001)

    def settle(self, record_id: str, receipt: AuditReceipt | None) -> None:
        """The receipt of a claimed id; ``None``: the emit failed, the id is free again."""
        if receipt is None:
            self._claims.pop(record_id, None)
        else:
            claim = self._claims.get(record_id)
            if claim is not None:
                claim.receipt = receipt

    def _forget_oldest(self) -> None:
        try:
            self._claims.pop(next(iter(self._claims)), None)
        except (StopIteration, RuntimeError):  # another thread was quicker
            return


def fingerprint(record: AuditRecord) -> bytes:
    """Tells records apart by what the caller said of them: times and trace may differ between two tries."""
    timeless = AuditRecord.from_attributes(record.event_name, record.attributes, timestamp_ns=1, body=record.body)
    head, tail = prepare(timeless, 1)
    return sha256(head + b"\n" + tail).digest()
