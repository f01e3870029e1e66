"""``AuditLogger``: one record from a call, its context and its trace."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict

from . import semconv as sc
from .context import current_trace, with_context
from .durability import Durability
from .errors import InvalidRecordError
from .options import suggestion
from .protocols import AuditRecordProcessor
from .receipt import AuditReceipt
from .record import Actor, AuditRecord, Source, Target, complete, flatten
from .rules import FUTURE_NS_MAX, Outcome, timestamp_to_ns

if TYPE_CHECKING:
    from typing_extensions import Unpack


class EmitFields(TypedDict, total=False):
    """The fields of a record, as keywords of ``emit``; see :class:`~otel_audit.AuditRecord`."""

    actor: Actor | str | None
    action: str | None
    outcome: Outcome | str | bool | None
    target: Target | str | None
    source: Source | str | None
    tenant: str | None
    session: str | None
    request_id: str | None
    user_agent: str | None
    reason: str | None
    severity: str | int | None
    body: Any
    attributes: dict[str, Any] | None
    timestamp: datetime | int | None
    record_id: str | None
    trace_id: str | None
    span_id: str | None


_FIELDS: Final = tuple(EmitFields.__annotations__)


class Emitter(Protocol):
    """The part of a provider that a logger needs."""

    def emit_record(
        self, record: AuditRecord, *, durability: Durability | None, timeout_s: float | None, chosen_id: bool
    ) -> AuditReceipt:
        """Journal a record."""

    async def aemit_record(
        self, record: AuditRecord, *, durability: Durability | None, timeout_s: float | None, chosen_id: bool
    ) -> AuditReceipt:
        """Journal a record without blocking the event loop."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970."""

    def count(self, name: str) -> None:
        """Bump a counter."""


class AuditLogger:
    """Emits audit records.  Made by ``get_audit_logger``; cheap, may be kept for ever, survives forks.

    Args:
        provider: gives the provider at each call.
        name: becomes an attribute of its records.
    """

    def __init__(self, provider: Callable[[], Emitter], name: str | None) -> None:
        self._provider = provider
        self.name = name

    def emit(
        self,
        event: str | AuditRecord,
        *,
        durability: Durability | None = None,
        timeout_s: float | None = None,
        **fields: Unpack[EmitFields],
    ) -> AuditReceipt:
        """Record an audit event.

        Args:
            event: the event name, dotted and lower case (``"user.login"``), or a whole :class:`AuditRecord`.
            durability: what must be true on return: ``"process"`` – it survives the death of this process; ``"disk"`` –
                it survives power loss; ``"delivered"`` – every required destination acknowledged it.  ``None``: as
                configured (``"process"``).
            timeout_s: for ``"delivered"``: how long to wait, in seconds; 30 where it is not given.
            **fields: ``actor``, ``action``, ``outcome``, ``target``, ``source``, ``tenant``, ``session``,
                ``request_id``, ``user_agent``, ``reason``, ``severity``, ``body``, ``attributes``, ``timestamp``,
                ``record_id``, ``trace_id``, ``span_id``; see :class:`AuditRecord`.

        Returns:
            The receipt; ``receipt.durability`` says what was reached.

        Raises:
            InvalidRecordError: a field is missing or breaks its rule; nothing was journaled.
            JournalError: the journal could not take it; ``.journaled`` says whether the record is there.
            DeliveryTimeoutError: journaled, but not delivered in time; ``.missing`` names the destinations.
            DeliveryRefusedError: journaled, but a required destination refuses it; ``.refused`` names it.
            ConfigurationError: nothing is configured, or the durability cannot be had; nothing was journaled.
        """
        try:
            provider = self._provider()
            record, chosen = self._record(provider, event, fields)
        except Exception as error:
            mark(error, journaled=False)
            raise
        return provider.emit_record(record, durability=durability, timeout_s=timeout_s, chosen_id=chosen)

    async def aemit(
        self,
        event: str | AuditRecord,
        *,
        durability: Durability | None = None,
        timeout_s: float | None = None,
        **fields: Unpack[EmitFields],
    ) -> AuditReceipt:
        """:meth:`emit` for coroutines; never blocks the event loop.  Cancelling it does not unrecord."""
        try:
            provider = self._provider()
            record, chosen = self._record(provider, event, fields)
        except Exception as error:
            mark(error, journaled=False)
            raise
        return await provider.aemit_record(record, durability=durability, timeout_s=timeout_s, chosen_id=chosen)

    def _record(self, provider: Emitter, event: str | AuditRecord, given: EmitFields) -> tuple[AuditRecord, bool]:
        """One record from the call, the context and the current span; and whether the caller chose its id."""
        try:
            if isinstance(event, AuditRecord):
                if given:
                    raise TypeError(f"emit takes a record or fields, not both: {', '.join(given)}")
                name, body, timestamp_ns = event.event_name, event.body, event.timestamp_ns
                trace_id, span_id = event.trace_id, event.span_id
                attributes = dict(event.attributes)
                chosen = True
            else:
                fields: dict[str, Any] = given  # type: ignore[assignment]  # ours alone: made for this call
                name, body = event, fields.pop("body", None)
                timestamp = fields.pop("timestamp", None)
                timestamp_ns = 0 if timestamp is None else timestamp_to_ns(timestamp)
                trace_id, span_id = fields.pop("trace_id", None) or "", fields.pop("span_id", None) or ""
                try:
                    attributes = flatten(**fields)
                except TypeError:
                    _check_fields(fields)
                    raise
                chosen = sc.RECORD_ID in attributes
            if timestamp_ns and timestamp_ns - provider.now_ns() > FUTURE_NS_MAX:
                raise InvalidRecordError("timestamp", "must not lie more than 5 s in the future", timestamp_ns)
        except InvalidRecordError:
            provider.count("records.invalid")
            raise
        attributes = with_context(attributes)
        if self.name is not None and sc.LOGGER_NAME not in attributes:
            attributes[sc.LOGGER_NAME] = self.name
        if not trace_id:
            trace_id, span_id = current_trace()
        record = AuditRecord.from_attributes(
            name, attributes, timestamp_ns=timestamp_ns, body=body, trace_id=trace_id, span_id=span_id
        )
        complete(record)
        return record, chosen


def mark(error: BaseException, *, journaled: bool | None, receipt: AuditReceipt | None = None) -> None:
    """Say on an error, of whatever class, whether the record is in the journal, and give the receipt where it is."""
    with contextlib.suppress(AttributeError):  # an exception may have no room for attributes
        error.journaled = journaled  # type: ignore[attr-defined]
        error.receipt = receipt  # type: ignore[attr-defined]


def with_added(record: AuditRecord, processor: AuditRecordProcessor) -> AuditRecord:
    """The record with what a processor adds.

    Raises:
        InvalidRecordError: it tries to replace an attribute.
    """
    added = processor.on_emit(record)
    if not added:
        return record
    for key in added:
        if key in record.attributes or key.startswith(sc.RESERVED_PREFIXES):
            rule = f"a processor may only add attributes; {type(processor).__name__} replaces one"
            raise InvalidRecordError(key, rule)
    return AuditRecord.from_attributes(
        record.event_name,
        {**record.attributes, **added},
        timestamp_ns=record.timestamp_ns,
        body=record.body,
        trace_id=record.trace_id,
        span_id=record.span_id,
    )


def _check_fields(fields: dict[str, Any]) -> None:
    """Raise TypeError that names the first unknown field, and the nearest right one."""
    for field in fields:
        if field not in _FIELDS:
            raise TypeError(
                f"emit() got an unexpected field {field!r}; {suggestion(field, _FIELDS)} "
                "(free attributes go into attributes={…})"
            ) from None
