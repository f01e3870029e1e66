"""What the caller is told of an entry: a receipt, or an error that says whether the record is in the journal."""

from __future__ import annotations

import contextlib

from .journal.journal import Journal
from .journal.stream import Entry
from .receipt import AuditReceipt


def receipt_of(record_id: str, entry: Entry, stream_id: str, observed_ns: int) -> AuditReceipt:
    """The receipt of an entry that was appended."""
    return AuditReceipt(
        record_id,
        stream_id,
        entry.sequence,
        entry.sha256,
        "deferred" if entry.deferred and not entry.sequence else "process",
        observed_ns,
    )


def annotate(
    error: BaseException, record_id: str, entry: Entry | None, journal: Journal, observed_ns: int
) -> AuditReceipt | None:
    """Say on the error itself whether the record is safe; the receipt, where it is."""
    if entry is None:
        mark(error, journaled=False)
        return None
    receipt = None
    if entry.sequence and journal.writer is not None:
        receipt = receipt_of(record_id, entry, journal.writer.stream_id, observed_ns)
    mark(error, journaled=entry.journaled, receipt=receipt)
    return receipt


def mark(error: BaseException, *, journaled: bool | None, receipt: AuditReceipt | None = None) -> None:
    """Say on an error, of whatever class, whether the record is in the journal, and give the receipt where it is."""
    with contextlib.suppress(AttributeError):  # an exception may have no room for attributes
        error.journaled = journaled  # type: ignore[attr-defined]
        error.receipt = receipt  # type: ignore[attr-defined]
