"""``AuditLogger``: one record from a call, its context and its trace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict

from . import semconv as sc
from .context import current, current_trace, with_context
from .durability import Durability
from .encoding import Writer
from .errors import EmitError, InvalidRecordError, JournalClosedError
from .journal.stream import Entry
from .lanes import Sites, write_lane
from .options import suggestion
from .provider_settings import ProviderSettings
from .receipt import AuditReceipt
from .receipts import mark, receipt_of
from .record import Actor, AuditRecord, Source, Target, complete, flatten, new_record_id
from .rules import FUTURE_NS_MAX, Outcome, is_event_name, name_facts, timestamp_to_ns

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

_PLAIN: Final = {
    "actor": sc.ACTOR_ID, "action": sc.ACTION, "outcome": sc.OUTCOME, "target": sc.TARGET_ID, "source": sc.SOURCE_ID,
    "tenant": sc.TENANT, "session": sc.SESSION_ID, "request_id": sc.REQUEST_ID, "user_agent": sc.USER_AGENT,
    "reason": sc.REASON,
}  # fmt: skip
"""Fields that a lane can write where their values are strings, and the attributes that they become."""
_NAMES: Final = frozenset(_PLAIN)

_sites: Final = Sites[Writer]()
"""Event name, name of the logger and names of the fields → lane."""


class Emitter(Protocol):
    """The part of a provider that a logger needs."""

    @property
    def settings(self) -> ProviderSettings:
        """What it is made from."""

    @property
    def takes_parts_with(self) -> Sequence[str]:
        """The durabilities with which ``append`` may be used."""

    @property
    def parts_bytes_max(self) -> int:
        """The largest head and tail for ``append``, together, in bytes."""

    @property
    def append(self) -> Callable[[Entry], str]:
        """Journals a record that is written down already; the id of the stream that has it."""

    @property
    def successor(self) -> Emitter | None:
        """Who takes over after its end."""

    def note_failure(self, error: BaseException, entry: Entry | None, record_id: str, observed_ns: int) -> None:
        """Say on the error whether the record is journaled, and count it."""

    def reach(self, receipt: AuditReceipt, level: str) -> AuditReceipt:
        """Wait until a journaled record has a durability."""

    def emit_record(
        self, record: AuditRecord, *, durability: Durability | None, timeout_s: float | None, chosen_id: bool
    ) -> AuditReceipt:
        """Journal a record."""

    async def aemit_record(
        self, record: AuditRecord, *, durability: Durability | None, timeout_s: float | None, chosen_id: bool
    ) -> AuditReceipt:
        """Journal a record without blocking the event loop."""

    @property
    def now_ns(self) -> Callable[[], int]:
        """Gives nanoseconds since 1970."""

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
            provider, name = self._provider(), self.name
            level = provider.settings.durability if durability is None else durability
            is_plain = (
                type(event) is str
                and (name is None or type(name) is str)
                and "attributes" not in fields
                and level in provider.takes_parts_with
                and not current()
            )
            write = _sites.known.get((event, name, *fields)) if is_plain else None
            is_new = is_plain and write is None and _NAMES.issuperset(fields)
        except Exception as error:
            mark(error, journaled=False)
            raise
        if write is not None:
            try:
                return self._emit_straight(provider, write, event, level, durability, timeout_s, fields)
            except _OtherWay:
                pass
        try:
            record, chosen = self._record(provider, event, fields)
            if is_new:
                _notice(record.event_name, name, tuple(fields))
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

    def _emit_straight(
        self,
        provider: Emitter,
        write: Writer,
        event: str | AuditRecord,
        level: Durability,
        durability: Durability | None,
        timeout_s: float | None,
        fields: EmitFields,
    ) -> AuditReceipt:
        """Emit by a lane, as :meth:`emit` would otherwise.

        Raises:
            _OtherWay: nothing was journaled; the record has to go the other way.
        """
        entry: Entry | None = None
        receipt: AuditReceipt | None = None
        record_id, observed_ns = "", 0
        try:
            record_id, observed_ns = new_record_id(), provider.now_ns()
            trace_id, span_id = current_trace()
            if type(observed_ns) is not int or observed_ns <= 0:
                raise _OtherWay
            parts = write(fields, record_id, observed_ns, observed_ns, span_id, trace_id)
            if parts is None or len(parts[0]) + len(parts[1]) > provider.parts_bytes_max:
                raise _OtherWay
            entry = Entry(*parts)
            receipt = receipt_of(record_id, entry, provider.append(entry), observed_ns)
            return receipt if level == "process" else provider.reach(receipt, level)
        except BaseException as error:
            if receipt is not None:
                if not isinstance(error, EmitError):
                    mark(error, journaled=True, receipt=receipt)
                raise
            if entry is None and isinstance(error, Exception):
                raise _OtherWay from None  # the other way meets it too, and says what is to be said
            if isinstance(error, JournalClosedError) and provider.successor is not None:
                record, _ = self._record(provider, event, fields)
                record.attributes[sc.RECORD_ID] = record_id
                return provider.emit_record(record, durability=durability, timeout_s=timeout_s, chosen_id=False)
            provider.note_failure(error, entry, record_id, observed_ns)
            raise

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


class _OtherWay(Exception):  # noqa: N818 - no error
    """A record is not for its lane."""


def _notice(event: str, logger: str | None, names: tuple[str, ...]) -> None:
    """A record of this site was made the long way: write its lane, if it has come often enough."""
    site = (event, logger, *names)
    if not is_event_name(event) or not _sites.is_due(site):
        return
    action, outcome = name_facts(event)
    if "actor" in names and (action or "action" in names) and (outcome or "outcome" in names):
        added = {} if logger is None else {sc.LOGGER_NAME: logger}
        write = write_lane(event, {name: _PLAIN[name] for name in names}, action, outcome, {}, added)
        if write is not None:
            _sites.known[site] = write


def _check_fields(fields: dict[str, Any]) -> None:
    """Raise TypeError that names the first unknown field, and the nearest right one."""
    for field in fields:
        if field not in _FIELDS:
            raise TypeError(
                f"emit() got an unexpected field {field!r}; {suggestion(field, _FIELDS)} "
                "(free attributes go into attributes={…})"
            ) from None
