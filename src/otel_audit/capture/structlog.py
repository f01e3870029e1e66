"""Captures structlog events: a processor that journals an event before its log call returns.

Put it behind the processors that add to the event (``merge_contextvars``, ``add_log_level``, ``TimeStamper``) and
before the renderer or ``ProcessorFormatter.wrap_for_formatter``::

    structlog.configure(processors=[..., StructlogAuditProcessor(), structlog.processors.JSONRenderer()])

The event is passed on as it came; ``audit=True`` stays in it, and is no attribute of the record.  An event that a
filtering logger drops, or a processor before this one, is never seen here.  Where the same event then reaches an
``AuditHandler`` through :mod:`logging`, it is journaled once.

Within a ``ProcessorFormatter`` an error of this processor is caught by the stream handler, which prints it: attach an
``AuditHandler`` instead.  structlog itself is not imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

from .. import semconv as sc
from ..context import current, current_trace, in_own_thread
from ..durability import Durability
from ..errors import ConfigurationError, InvalidRecordError
from ..receipt import AuditReceipt
from ..record import AuditRecord
from ..rules import check_event_name
from . import eventdict, logrecord, once, reachability
from .draft import Draft, unreadable
from .shapes import Shapes
from .sink import LOGGER, OnError, Provider, Sink

Select = str | Callable[[Any, str, Mapping[str, Any]], bool]

_SEVERITY: Final = (sc.SEVERITY_NUMBER, sc.SEVERITY_TEXT)
_READ_HERE: Final = frozenset({"event", "timestamp", "level", "logger", eventdict.MARKER})
_CAREFUL: Final = (eventdict.APART - {"event"}) | {"exception", "stack"}


class StructlogAuditProcessor:
    """A structlog processor that journals the events that are audit events, and passes all of them on.

    Keys of the event become the record's fields (``actor``, ``outcome``, ``target``, …) and attributes.  ``event``,
    ``timestamp``, ``level``, ``logger``, ``exception``, ``exc_info``, ``stack`` and ``positional_args`` are read as
    structlog means them.  The rest is as for :class:`~otel_audit.AuditHandler`.

    Args:
        provider: ``None``: the process-wide one, looked up for each event.
        select: ``"audit"``: the events with a true value under ``audit``; ``"all"``; or a callable that is given
            logger, method name and event.
        on_error: ``"raise"``: into the log call; ``"stderr"``; or a callable that is given the error and the
            :class:`~otel_audit.AuditRecord`.
        strict: raise (as ``on_error`` says) where something is missing or breaks a rule.
        durability: ``"process"``, ``"disk"`` or ``"delivered"``; ``None``: as the provider is configured.
        record_id_key: the key under which the record's id is added to the event, for the line on the console.
        event_name: the default event name; ``None``: the provider's.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    is_audit_processor: Final = True

    def __init__(
        self,
        provider: Provider | None = None,
        *,
        select: Select = "audit",
        on_error: OnError = "raise",
        strict: bool = False,
        durability: Durability | None = None,
        record_id_key: str | None = None,
        event_name: str | None = None,
    ) -> None:
        if select not in ("audit", "all") and not callable(select):
            raise ConfigurationError(f"select: must be 'audit', 'all' or a callable, not {select!r}")
        if event_name is not None:
            check_event_name(event_name)
        self._select = select
        self._record_id_key = record_id_key
        self._event_name = event_name
        self._sink = Sink(provider, on_error=on_error, strict=strict, durability=durability)
        reachability.register_processor(self)
        apart = _READ_HERE | _CAREFUL
        self._named = Shapes(apart, (sc.LOGGER_NAME, *_SEVERITY), careful=_CAREFUL)
        self._nameless = Shapes(apart, _SEVERITY, careful=_CAREFUL)

    def __call__(self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Journal the event if it is selected; returns it.

        Raises:
            ConfigurationError: it stands behind a renderer, and sees no event but its text.
            Exception: it was not journaled, or not as durably as was asked for, and ``on_error`` is ``"raise"``.
        """
        if not isinstance(event_dict, Mapping):
            raise ConfigurationError(
                f"StructlogAuditProcessor: put it before the renderer; it was given a {type(event_dict).__name__}"
            )
        if self._is_selected(logger, method_name, event_dict):
            receipt = self._journal(logger, method_name, event_dict)
            if receipt is not None and self._record_id_key is not None:
                event_dict[self._record_id_key] = receipt.record_id
        return event_dict

    def _is_selected(self, logger: Any, method_name: str, event: Mapping[str, Any]) -> bool:
        select = self._select
        if select == "audit":
            return bool(event.get(eventdict.MARKER))
        return select == "all" or (callable(select) and bool(select(logger, method_name, event)))

    def _journal(self, logger: Any, method_name: str, event: Mapping[str, Any]) -> AuditReceipt | None:
        """The receipt; ``None`` where the event is not to be journaled (again), or was not."""
        sink = self._sink
        name = event.get("logger")
        if not isinstance(name, str):
            name = getattr(logger, "name", None)
            if not isinstance(name, str):
                name = None
        if in_own_thread() or (name is not None and (name + ".").startswith(LOGGER.name + ".")):
            sink.count("records.own_thread" if in_own_thread() else "records.own_logger")
            return None
        try:
            provider = sink.provider()
        except ConfigurationError as error:
            sink.failed(error, self._careful(name, method_name, event, sc.EVENT_DEFAULT)[0])
            return None
        of_record = event.get("_record")
        if of_record is not None:
            of_record = once.original(of_record)
        if not (once.claim_call(provider, self, event) if of_record is None else once.claim(of_record, provider)):
            provider.count("records.deduplicated")
            return None
        default = self._event_name or provider.settings.default_event_name
        audit: AuditRecord | None = None
        try:
            captured = self._quick(name, method_name, event, default)
            if captured is None:
                strict = sink.is_strict(provider)
                captured = self._careful(name, method_name, event, default, strict=strict, say=True)
            audit, chosen_id = captured
            try:
                return provider.emit_record(
                    audit, durability=sink.durability, strict=sink.emit_strict, chosen_id=chosen_id
                )
            except InvalidRecordError as error:
                return sink.send_mended(audit, error, provider)
        except Exception as error:  # noqa: BLE001 - whatever it is, on_error says what to do with it
            if not getattr(error, "journaled", False):
                if of_record is None:
                    once.release_call(provider)
                else:
                    once.release(of_record, provider)
            sink.failed(error, audit or self._careful(name, method_name, event, default)[0])
            return None

    def _quick(
        self, name: str | None, method_name: str, event: Mapping[str, Any], default_event_name: str
    ) -> tuple[AuditRecord, bool] | None:
        """The record, where it is a plain one."""
        message = event.get("event")
        severity = eventdict.severity_of_name(event.get("level", method_name))
        if type(message) is not str or severity is None or not isinstance(event.get(eventdict.MARKER, True), bool):
            return None
        timestamp_ns = 0
        if "timestamp" in event:
            timestamp_ns = eventdict.timestamp_ns(event["timestamp"])
            if not timestamp_ns:
                return None
        shapes, own = (self._nameless, severity) if name is None else (self._named, (name, *severity))
        if "logger" in event and event["logger"] is not name:
            return None
        read = shapes.read(event, str(message), own, default_event_name, current())
        if read is None:
            return None
        event_name, body, attributes, chosen_id = read
        trace_id, span_id = current_trace()
        audit = AuditRecord.from_attributes(
            event_name, attributes, timestamp_ns=timestamp_ns, body=body, trace_id=trace_id, span_id=span_id
        )
        return audit, chosen_id

    def _careful(
        self,
        name: str | None,
        method_name: str,
        event: Mapping[str, Any],
        default_event_name: str,
        *,
        strict: bool = False,
        say: bool = False,
    ) -> tuple[AuditRecord, bool]:
        """The record, whatever it is like; with ``say`` it says what its author should look at."""
        try:
            draft = _read(name, method_name, event)
            audit = draft.record(default_event_name, strict=strict)
        except InvalidRecordError:
            raise
        except Exception as error:  # noqa: BLE001 - a mapping of the caller's that raises; the rest is worth having
            draft = unreadable(event.get("event"), error)
            audit = draft.record(default_event_name)
        if say:
            self._sink.remark(draft, _site)
        return audit, draft.chosen_id


def _site() -> tuple[str, int]:
    """Where it was logged."""
    frame = eventdict.caller()
    return (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("<unknown>", 0)


def _read(name: str | None, method_name: str, event: Mapping[str, Any]) -> Draft:
    of_record = event.get("_record")
    if of_record is not None:  # a ProcessorFormatter runs this processor: its own event, or a LogRecord's
        return logrecord.read_formatted(of_record, event)
    draft = eventdict.read(event)
    if draft.severity is None:
        draft.severity = eventdict.severity_of_name(method_name)
    if name is not None:
        draft.found.setdefault(sc.LOGGER_NAME, name)
    draft.trace_id, draft.span_id = current_trace()
    return draft
