"""The error tree.  The class answers "shall I try again?" (``retryable``), the message what to do next.

::

    AuditError
    ├── ConfigurationError          the configuration is wrong: names the key, suggests the right one
    │   ├── NotConfiguredError      nothing was configured, or what was is shut down
    │   └── UnsafeJournalError      the journal's file system cannot give what was asked for
    ├── EmitError                   raised by emit; .journaled says whether the record is safe
    │   ├── InvalidRecordError      the record is wrong: names the field and the rule       journaled=False
    │   ├── JournalError            the journal could not take it
    │   │   ├── JournalFullError    no room within the time allowed                         journaled=False
    │   │   ├── JournalClosedError  emit after shutdown                                     journaled=False
    │   │   └── JournalSyncError    written, but not known to be on the disk                journaled=None
    │   ├── DeliveryTimeoutError    journaled, but not everywhere in time                   journaled=True
    │   ├── DeliveryRefusedError    journaled, but a destination refuses it                 journaled=True
    │   └── DeliveryFilteredError   journaled, but no required destination is to have it    journaled=True
    ├── DamageError                 a line, segment or stream is not what was written
    └── ExportError                 raised by exporters, read by the shipper
        ├── RetryableExportError    the network, or a receiver that asks for patience
        │   └── PendingExportError  nothing failed: it is only too early to know, or to send
        ├── BlockedExportError      nobody can say that trying again is enough: keep, shout, back off
        └── RejectedExportError     the receiver refuses these very records
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from .receipt import AuditReceipt


class AuditError(Exception):
    """Root of everything that this package raises on purpose."""

    retryable: ClassVar[bool] = False
    """Whether the same call may succeed later without anyone changing anything."""


class ConfigurationError(AuditError, ValueError):
    """A setting is unknown or has a bad value.  The message names the key and where it came from."""


class NotConfiguredError(ConfigurationError):
    """A record was emitted through the process-wide provider, and there is none."""


class UnsafeJournalError(ConfigurationError):
    """The journal's directory cannot give the durability that was asked for, or is not safe to write to."""


class EmitError(AuditError):
    """Raised by ``emit``.

    Attributes:
        journaled: ``True`` – the record is in the journal; ``False`` – it is not; ``None`` – cannot be known.
        receipt: the receipt, where ``journaled`` is ``True`` and the sequence number is known.
    """

    def __init__(self, message: str, *, journaled: bool | None = False, receipt: AuditReceipt | None = None) -> None:
        super().__init__(message)
        self.journaled = journaled
        self.receipt = receipt


class InvalidRecordError(EmitError, ValueError):
    """A record breaks a rule.

    The message names the field, the rule, and the *type and length* of the value, never the value itself: it
    may be personal data.

    Attributes:
        field: the name of the field or attribute.
        rule: the rule that it breaks, in words.
    """

    def __init__(self, field: str, rule: str, value: object = None) -> None:
        shown = "" if value is None else f" (got {describe(value)})"
        super().__init__(f"{field}: {rule}{shown}", journaled=False)
        self.field = field
        self.rule = rule

    def __reduce__(self) -> tuple[object, ...]:
        return (_unpickle_invalid, (self.field, self.rule, self.args[0]))


class JournalError(EmitError):
    """The journal could not take the record; the operating system's error is the ``__cause__``."""


class JournalFullError(JournalError):
    """No room within the time allowed: the journal's ``max_bytes`` or the file system is exhausted."""

    retryable = True


class JournalClosedError(JournalError):
    """The provider was shut down; nothing can be emitted through it."""


class JournalSyncError(JournalError):
    """The record was written but could not be made durable, not even in a new segment."""


class DeliveryTimeoutError(EmitError):
    """``durability="delivered"`` ran out of time.  The record is in the journal and goes on being delivered.

    Attributes:
        missing: names of the required destinations that had not acknowledged it.
    """

    retryable = True

    def __init__(self, message: str, *, missing: Sequence[str], receipt: AuditReceipt | None = None) -> None:
        super().__init__(message, journaled=True, receipt=receipt)
        self.missing = tuple(missing)


class DeliveryRefusedError(EmitError):
    """``durability="delivered"``: a required destination refuses the record.  It is journaled, and a dead letter there.

    Attributes:
        refused: names of the required destinations that refuse it.
    """

    def __init__(self, message: str, *, refused: Sequence[str], receipt: AuditReceipt | None = None) -> None:
        super().__init__(message, journaled=True, receipt=receipt)
        self.refused = tuple(refused)


class DeliveryFilteredError(EmitError):
    """``durability="delivered"``: the filters of all required destinations pass the record over.  It is journaled.

    Attributes:
        filtered: names of the required destinations.
    """

    def __init__(self, message: str, *, filtered: Sequence[str], receipt: AuditReceipt | None = None) -> None:
        super().__init__(message, journaled=True, receipt=receipt)
        self.filtered = tuple(filtered)


class DamageError(AuditError):
    """A line, a segment or a stream is not what was written; says where."""


class ExportError(AuditError):
    """An exporter could not deliver (all of) a batch.

    Args:
        message: what happened, without credentials and without record contents.
        accepted: how many records from the *start* of the batch were accepted before this happened.
        taken: sequence numbers of other records that it accepted, where the receiver answers for each record.
        refused: sequence number → error of records that it refuses, each by itself, where it answers for each.  What is
            in none of the three is undecided.
        response_ids: record id → the id that the receiver gave to a record that it accepted.
        status: the protocol's own status (HTTP status, gRPC code name), if it got that far.
        retry_after_s: how long the receiver asked to be left alone, in seconds.
        repair: what a person has to do, where that is known.
        request_id: the id that the receiver gave to the request, for its support.
        details: what else the receiver said, bounded.
    """

    def __init__(
        self,
        message: str,
        *,
        accepted: int = 0,
        taken: Iterable[int] = (),
        refused: Mapping[int, RejectedExportError] | None = None,
        response_ids: Mapping[str, str] | None = None,
        status: int | str | None = None,
        retry_after_s: float | None = None,
        repair: str | None = None,
        request_id: str | None = None,
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.accepted = accepted
        self.taken = frozenset(taken)
        self.refused = dict(refused or {})
        self.response_ids = dict(response_ids or {})
        self.status = status
        self.retry_after_s = retry_after_s
        self.repair = repair
        self.request_id = request_id
        self.details = dict(details or {})


class RetryableExportError(ExportError):
    """The network failed, or the receiver asked for patience.  The shipper tries again for as long as it takes."""

    retryable = True


class PendingExportError(RetryableExportError):
    """Nothing failed: the receiver has records and does not answer for them yet, or it is too early to send more.

    The shipper exports the same batch again after ``retry_after_s``; this counts as no failure and is not said.
    """


class BlockedExportError(ExportError):
    """Nothing says that trying again is enough (401, 404, 500, TLS, …).

    The shipper keeps the records, backs off to minutes and says loudly what to repair.
    """


class RejectedExportError(ExportError):
    """The receiver refuses the records themselves (400, 413, 422, ``partial_success``).

    The shipper splits the batch until each refused record stands alone, and dead-letters it only with evidence
    that the destination works.
    """


def describe(value: object) -> str:
    """Type and length of a value, as error messages show it; never the value."""
    name = type(value).__name__
    if isinstance(value, (str, bytes, bytearray, list, tuple, dict, set, frozenset)):
        return f"{name} of length {len(value)}"
    return name


def _unpickle_invalid(field: str, rule: str, message: str) -> InvalidRecordError:
    error = InvalidRecordError(field, rule)
    error.args = (message,)
    return error
