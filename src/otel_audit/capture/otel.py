"""Captures what goes through OpenTelemetry's Logs API: a processor of the SDK's ``LoggerProvider``.

::

    provider = LoggerProvider()
    provider.add_log_record_processor(AuditLogRecordProcessor(otherwise=BatchLogRecordProcessor(exporter)))

The SDK calls its processors one after the other, in the thread that emits, so an audit event is journaled before
``Logger.emit`` returns.  What the SDK's limits have cut before (128 attributes, unless ``OTEL_LOGRECORD_*`` or
``OTEL_ATTRIBUTE_*`` say otherwise) cannot be had back; the record says how many attributes were cut.

The resource of the journal is that of its own provider, not that of the ``LoggerProvider``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from opentelemetry.sdk import _logs as sdk_logs

from .. import semconv as sc
from ..context import current_trace, in_own_thread
from ..durability import Durability
from ..errors import ConfigurationError, InvalidRecordError, describe
from ..lanes import EVENT_NAME
from ..record import AuditRecord
from ..rules import check_event_name, severity_of
from . import once, reachability
from .draft import Draft, unreadable, unused_arguments
from .eventdict import MARKER
from .fields import ORIGINAL_ARGUMENTS
from .sink import LOGGER, OnError, Provider, Sink

Select = str | Callable[[Any], bool]

_AUDIT_PREFIX: Final = sc.ACTION.partition(".")[0] + "."
_EVENT_NAME_ATTRIBUTE: Final = "event.name"


class AuditLogRecordProcessor(sdk_logs.LogRecordProcessor):
    """Journals the log records that are audit events; the others are none of its business, unless you say whose.

    Attributes of the log record become the record's fields (``actor`` or ``audit.actor.id``, …) and attributes, as for
    :class:`~otel_audit.AuditHandler`.  Event name, timestamp, severity, body, trace and the name of the scope are read
    from their own places.

    Args:
        provider: ``None``: the process-wide one, looked up for each record.
        select: ``"audit"``: the records with a true ``audit`` or an attribute whose name begins with ``audit.``;
            ``"all"``; or a callable that is given the log record.
        otherwise: an SDK processor that gets the records that are no audit events, and only those: so audit events are
            kept from the ordinary pipeline.  It is flushed and shut down with this one.  Without it every processor of
            the ``LoggerProvider`` gets every record.
        on_error: ``"raise"``: into ``Logger.emit``; ``"stderr"``; or a callable that is given the error and the
            :class:`~otel_audit.AuditRecord`.
        strict: raise (as ``on_error`` says) where something is missing or breaks a rule.
        durability: ``"process"``, ``"disk"`` or ``"delivered"``; ``None``: as the provider is configured.
        event_name: the default event name; ``None``: the provider's.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(
        self,
        provider: Provider | None = None,
        *,
        select: Select = "audit",
        otherwise: Any = None,
        on_error: OnError = "raise",
        strict: bool = False,
        durability: Durability | None = None,
        event_name: str | None = None,
    ) -> None:
        if select not in ("audit", "all") and not callable(select):
            raise ConfigurationError(f"select: must be 'audit', 'all' or a callable, not {select!r}")
        self._forward: Any = getattr(otherwise, "on_emit", None) or getattr(otherwise, "emit", None)
        if isinstance(otherwise, type) or (otherwise is not None and not callable(self._forward)):
            raise ConfigurationError(
                "otherwise: give a log record processor of the OpenTelemetry SDK, like "
                f"BatchLogRecordProcessor(exporter); not {describe(otherwise)}"
            )
        if event_name is not None:
            check_event_name(event_name)
        self._select = select
        self._otherwise = otherwise
        self._event_name = event_name
        self._sink = Sink(provider, on_error=on_error, strict=strict, durability=durability)
        reachability.register_processor(self)

    def on_emit(self, log_record: Any) -> None:
        """Journal the record if it is an audit event; else hand it on to ``otherwise``.

        Raises:
            Exception: it was not journaled, or not as durably as was asked for, and ``on_error`` is ``"raise"``.
        """
        if self._is_selected(log_record.log_record):
            self._journal(log_record)
        elif self._forward is not None:
            self._forward(log_record)

    def emit(self, log_data: Any) -> None:
        """The name of :meth:`on_emit` in versions of the SDK before 1.36."""
        self.on_emit(log_data)

    def shutdown(self) -> None:
        """Shut ``otherwise`` down.  The journal stays open: others may use it."""
        if self._otherwise is not None:
            self._otherwise.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Flush ``otherwise``; true where that says so.  Audit events are journaled already, and are not waited for."""
        return self._otherwise is None or self._otherwise.force_flush(timeout_millis) is not False

    def _is_selected(self, record: Any) -> bool:
        select = self._select
        if select == "all":
            return True
        if callable(select):
            return bool(select(record))
        attributes = record.attributes or {}
        return bool(attributes.get(MARKER)) or any(str(name).startswith(_AUDIT_PREFIX) for name in attributes)

    def _journal(self, log_record: Any) -> None:
        sink = self._sink
        scope = str(getattr(log_record.instrumentation_scope, "name", "") or "")
        if in_own_thread() or (scope + ".").startswith(LOGGER.name + "."):
            sink.count("records.own_thread" if in_own_thread() else "records.own_logger")
            return
        try:
            provider = sink.provider()
        except ConfigurationError as error:
            sink.failed(error, self._read(log_record, scope, sc.EVENT_DEFAULT)[0])
            return
        claimed = [each for each in (log_record, _handled()) if each is not None]
        new = [once.claim(each, provider) for each in claimed]
        if not all(new):
            provider.count("records.deduplicated")
            return
        default = self._event_name or provider.settings.default_event_name
        audit: AuditRecord | None = None
        try:
            audit, chosen_id = self._read(log_record, scope, default, strict=sink.is_strict(provider), say=True)
            try:
                provider.emit_record(audit, durability=sink.durability, strict=sink.emit_strict, chosen_id=chosen_id)
            except InvalidRecordError as error:
                sink.send_mended(audit, error, provider)
        except BaseException as error:  # whatever it is, on_error says what to do with it
            if not getattr(error, "journaled", False):
                for each in claimed:
                    once.release(each, provider)
            if not isinstance(error, Exception):
                raise
            sink.failed(error, audit or self._read(log_record, scope, default)[0])

    def _read(
        self, log_record: Any, scope: str, default_event_name: str, *, strict: bool = False, say: bool = False
    ) -> tuple[AuditRecord, bool]:
        """The record, whatever it is like; with ``say`` it says what its author should look at."""
        try:
            draft = _draft(log_record, scope)
            audit = draft.record(default_event_name, strict=strict)
        except InvalidRecordError:
            raise
        except Exception as error:  # noqa: BLE001 - a value that raises when it is read; the rest is worth having
            draft = unreadable(log_record.log_record.body, error)
            audit = draft.record(default_event_name)
        if say:
            self._sink.remark(draft, _site)
        return audit, draft.chosen_id


def _draft(log_record: Any, scope: str) -> Draft:
    record = log_record.log_record
    given = dict(record.attributes or {})
    if isinstance(given.get(MARKER), bool):
        del given[MARKER]
    name = getattr(record, "event_name", None) or given.pop(_EVENT_NAME_ATTRIBUTE, None)
    if name is not None:
        given.setdefault(EVENT_NAME, name)
    made_from = _handled()
    draft = Draft(given, record.body, nameable=made_from is None or not made_from.args)
    unused = unused_arguments(made_from.msg, made_from.args) if made_from is not None else {}
    if unused:
        draft.found[ORIGINAL_ARGUMENTS] = unused
    number = getattr(record.severity_number, "value", record.severity_number)
    if isinstance(number, int) and 0 < number <= 24:
        draft.severity = number, str(record.severity_text or severity_of(number)[1])
    if scope:
        draft.found[sc.LOGGER_NAME] = scope
    if isinstance(record.timestamp, int):
        draft.timestamp_ns = record.timestamp
    dropped = getattr(log_record, "dropped_attributes", getattr(record, "dropped_attributes", 0))
    if dropped:
        draft.found[sc.CONVERTED] = [f"attributes: {dropped} dropped by the limits of the OpenTelemetry SDK"]
    draft.trace_id, draft.span_id = current_trace()
    if record.trace_id:
        draft.trace_id, draft.span_id = f"{record.trace_id:032x}", f"{record.span_id or 0:016x}"
    return draft


def _handled() -> logging.LogRecord | None:
    """The ``LogRecord`` that OpenTelemetry's own handler is making this log record from; ``None`` where there is none.

    Only the frames of OpenTelemetry next to ours are looked at: what a handler of somebody else's emits through the
    Logs API, perhaps several of them for one ``LogRecord``, are events of their own.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - the one way to know the caller
    while frame is not None and _module(frame) == __name__:
        frame = frame.f_back
    while frame is not None and _module(frame).startswith("opentelemetry."):
        made_from = frame.f_locals.get("record") if frame.f_code.co_name == "emit" else None
        if isinstance(made_from, logging.LogRecord):
            return made_from
        frame = frame.f_back
    return None


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def _site() -> tuple[str, int]:
    """Where it was emitted: the nearest frame outside OpenTelemetry, :mod:`logging` and this package."""
    hidden = ("opentelemetry.", "logging.", __name__.partition(".")[0] + ".")
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None and (_module(frame) + ".").startswith(hidden):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("<unknown>", 0)
