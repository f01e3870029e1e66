"""Captures what goes through :mod:`logging`: a handler that journals each record before the log call returns.

What stands between a ``QueueHandler`` and its ``QueueListener`` is memory: it is not journaled before the listener's
thread has handled it, and it is lost with the process.  Attach the ``AuditHandler`` to the logger itself; where there
has to be a queue, put an :class:`AuditContextFilter` on the ``QueueHandler``.

``name``, ``args``, ``module``, ``process``, ``thread``, ``message`` and the other names of a ``LogRecord`` cannot be
given as ``extra``: :mod:`logging` raises ``KeyError``, or takes them for its own.  Formatters are not used.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Final

from .. import context, default
from .. import semconv as sc
from ..durability import Durability
from ..errors import ConfigurationError, InvalidRecordError, JournalError
from ..journal.stream import Entry
from ..lanes import NOT_PLAIN
from ..record import AuditRecord, new_record_id
from ..rules import check_event_name
from . import logrecord, once, reachability
from .draft import severity_of_level, unreadable
from .kept import KEPT_MAX, Kept
from .lanes import Lanes, Site
from .queues import is_journaled, on_listener
from .shapes import Shapes
from .sink import LOGGER, OnError, Provider, Sink, report, warn

AUDIT: Final[int] = 60
"""A level above ``CRITICAL``: no ordinary threshold drops it.  See :func:`install_level`."""

_INCLUDE: Final = ("process", "source", "thread")
_ORIGINS_MAX: Final = 4096
_OWN_THREAD_NAMES: Final = ("otel-audit", "Dummy-")

_Captured = tuple[AuditRecord, bool]
"""A complete record, and whether its id is the caller's."""

_ORIGIN: Final = (sc.LOGGER_NAME, sc.SEVERITY_NUMBER, sc.SEVERITY_TEXT)
_own_threads: Final = context._own_threads  # noqa: SLF001 - looked at for every record; a call costs twice as much

_at_exit = False


def _note_exit() -> None:
    global _at_exit  # noqa: PLW0603 - one process, one exit
    _at_exit = True


atexit.register(_note_exit)  # runs before logging.shutdown, which was registered earlier


def install_level() -> int:
    """Make ``AUDIT`` a level that :mod:`logging` knows by name (``logger.setLevel("AUDIT")``); returns it."""
    logging.addLevelName(AUDIT, "AUDIT")
    return AUDIT


def attach(logger: str | logging.Logger, level: int | str = logging.INFO) -> AuditHandler:
    """Give a logger an ``AuditHandler`` of the process-wide provider, unless it has one; see that it takes ``level``.

    Args:
        logger: its name, or itself; ``"root"`` or ``""`` is the root.
        level: is set where the logger's own is higher or not set.

    Returns:
        The handler that it has now.

    Raises:
        ConfigurationError: there is no such level.
    """
    if isinstance(logger, str):
        logger = logging.getLogger("" if logger == "root" else logger)
    if level == "AUDIT":
        install_level()
    number = logging.getLevelName(level.upper()) if isinstance(level, str) else level
    if not isinstance(number, int):
        raise ConfigurationError(f"level: there is no {level!r}; it is a number or one of the names that logging knows")
    handler = next((handler for handler in logger.handlers if isinstance(handler, AuditHandler)), None)
    if handler is None:
        handler = AuditHandler()
        logger.addHandler(handler)
    if logger.level == logging.NOTSET or logger.level > number:
        logger.setLevel(number)
    reachability.expect(logger.name, handler)
    return handler


class AuditHandler(logging.Handler):
    """Journals every record that it is given, before the log call returns.

    Extras become the record's fields (``actor``, ``outcome``, ``target``, …; see ``fields.py``) and attributes.  The
    event name is the extra ``event_name``, or else the message where it is a dotted name without ``%`` arguments, or
    else the default, and then the message is the body.  What is mandatory and missing is filled with ``unknown``.

    Args:
        provider: ``None``: the process-wide one, looked up for each record; or one of its own, from the options.
        on_error: ``"raise"``: into the log call, so that the application knows; ``"stderr"``; or a callable that is
            given the error and the :class:`~otel_audit.AuditRecord`.  On the thread of a ``QueueListener``, which an
            exception would end, the record is kept in memory and tried again instead.
        strict: raise (as ``on_error`` says) where something is missing or breaks a rule, instead of putting it right.
        durability: ``"process"``, ``"disk"`` or ``"delivered"``; ``None``: as the provider is configured.
        include: ``"source"``, ``"thread"``, ``"process"``: where in the program it was logged, as attributes.
        exclude_attributes: names that are not the caller's: what a record factory or a filter sets.
        event_name: the default event name; ``None``: the provider's.
        level: as every handler's.
        **options: as for ``configure``: the handler gets a provider of its own.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    def __init__(
        self,
        provider: Provider | None = None,
        *,
        on_error: OnError = "raise",
        strict: bool = False,
        durability: Durability | None = None,
        include: Iterable[str] = (),
        exclude_attributes: Iterable[str] = (),
        event_name: str | None = None,
        level: int | str = logging.NOTSET,
        **options: Any,
    ) -> None:
        self._include = frozenset(_names(include))
        if not self._include <= set(_INCLUDE):
            raise ConfigurationError(
                f"include: must be some of {', '.join(_INCLUDE)}, not {sorted(self._include - set(_INCLUDE))}"
            )
        if event_name is not None:
            check_event_name(event_name)
        self._event_name = event_name
        self._apart = logrecord.STANDARD | {logrecord.CARRIED} | set(_names(exclude_attributes))
        self._shapes = Shapes(self._apart, _ORIGIN, careful=(logrecord.CARRIED,))
        self._lanes = Lanes(self._shapes, _ORIGIN)
        self._origins: dict[tuple[str, int], tuple[Any, ...]] = {}
        self._sink = Sink(provider, on_error=on_error, strict=strict, durability=durability, options=options)
        self._is_lane_open = not self._include and durability in (None, "process")
        self._is_shared = provider is None and not options
        self._kept = Kept(self._sink.send)
        self._waiting = self._kept.records
        try:
            super().__init__(level)  # last: logging closes at exit what it knows, finished or not
        except (ValueError, TypeError) as error:
            self._sink.close_own()
            raise ConfigurationError(f"level: {error}") from None
        reachability.register(self)

    @property
    def waiting(self) -> int:
        """How many records are kept in memory, because the journal did not take them on a listener's thread."""
        return len(self._waiting)

    def handle(self, record: logging.LogRecord) -> bool:
        """Journal the record, if the filters let it pass; a filter that returns another record replaces it.

        The handler's lock is not taken: the journal has its own.
        """
        if self.filters:
            passed: Any = self.filter(record)
            if not passed:
                return False
            if isinstance(passed, logging.LogRecord) and passed is not record:  # Python 3.12 and later
                once.stand_for(passed, record)
                try:
                    self.emit(passed)
                finally:
                    once.stand_for(record, passed)
                return True
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Journal the record.

        Raises:
            Exception: it was not journaled, or not as durably as was asked for, and ``on_error`` is ``"raise"``.
        """
        # The way of a plain record, in one piece: a call for each of its steps would take a quarter longer.
        state = record.__dict__
        provider = self._sink.fixed or (default.current() if self._is_shared else self._sink.find())
        try:
            message, thread, created = state["msg"], state["thread"], state["created"]
            if (
                provider is None
                or type(message) is not str
                or self._waiting
                or thread is None
                or thread in _own_threads
                or state["args"]
                or state["exc_info"]
                or state["exc_text"]
                or state["stack_info"]
                or type(created) is not float
                or not 0.0 < created < logrecord.CREATED_MAX
            ):
                site = None
            else:
                site = (message, state["name"], state["levelno"], len(state))
                lane = self._lanes.known.get(site)
        except (KeyError, TypeError):  # somebody took a part of it away, or put something unhashable there
            site = None
        if site is None or provider is None:
            self._emit_with_care(record)
            return
        if lane is None or context.current() or not provider.takes_parts:
            self._emit_plain(record, site, provider)
            return
        record_id, observed_ns, timestamp_ns = new_record_id(), provider.now_ns(), int(created * 1e9)
        trace_id, span_id = context.current_trace()
        try:
            lane.others(state)
            parts = lane.write(state, record_id, observed_ns, timestamp_ns, span_id, trace_id)
        except (*NOT_PLAIN, KeyError):  # a value that has to be converted, or other names
            parts = None
        if parts is None or timestamp_ns > observed_ns or len(parts[0]) + len(parts[1]) > provider.parts_bytes_max:
            self._emit_plain(record, site, provider)
            return
        if not once.claim(record, provider):
            provider.count("records.deduplicated")
            return
        entry = Entry(*parts)
        try:
            provider.append(entry)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it must say whether this is journaled
            self._not_taken(error, record, entry, record_id, observed_ns, provider)

    def _emit_plain(self, record: logging.LogRecord, site: Site, provider: Provider) -> None:
        """The way of a record that has nothing odd about it; from then on there may be a lane for its like."""
        state = record.__dict__
        origin = self._origins.get((record.name, record.levelno))
        if origin is None:
            self._emit_with_care(record)
            return
        facts = context.current()
        default_name = self._event_name or provider.settings.default_event_name
        read = self._shapes.read(state, site[0], origin, default_name, facts)
        if read is None:
            self._emit_with_care(record)
            return
        event_name, body, attributes, chosen_id = read
        if self._is_lane_open and not facts and body is None:  # the message is the event name: it is no long text
            self._lanes.notice(site, state, origin)
        if self._include:
            attributes.update(logrecord.surroundings(record, self._include))
        trace_id, span_id = context.current_trace()
        audit = AuditRecord.from_attributes(
            event_name, attributes, timestamp_ns=int(record.created * 1e9), body=body, trace_id=trace_id,
            span_id=span_id,
        )  # fmt: skip
        if not once.claim(record, provider):
            provider.count("records.deduplicated")
            return
        try:
            provider.emit_record(
                audit, durability=self._sink.durability, strict=self._sink.emit_strict, chosen_id=chosen_id
            )
        except Exception as error:  # noqa: BLE001 - whatever it is, on_error says what to do with it
            self._refused(error, record, audit, provider)

    def _emit_with_care(self, record: logging.LogRecord) -> None:
        """The way of any record; from then on those of its logger and level may go the other one."""
        mended = logrecord.mended(record)
        if mended is not None:
            once.stand_for(mended, record)
            try:
                self._emit_with_care(mended)
            finally:
                once.stand_for(record, mended)
            return
        carried = logrecord.carried_by(record)
        if self._is_ours(record, carried):
            return
        if len(self._origins) >= _ORIGINS_MAX:
            self._origins.clear()
        self._origins[record.name, record.levelno] = (record.name, *severity_of_level(record.levelno))
        sink = self._sink
        try:
            provider = sink.provider()
        except ConfigurationError as error:
            self._failed(error, record, self._read(record, sc.EVENT_DEFAULT)[0])
            return
        if not once.claim(record, provider) or (carried is not None and is_journaled(carried, provider)):
            provider.count("records.deduplicated")
            return
        default = self._event_name or provider.settings.default_event_name
        try:
            audit, chosen_id = self._read(record, default, strict=sink.is_strict(provider), say=True)
        except InvalidRecordError as error:
            self._failed(error, record, self._read(record, default)[0], provider)
            return
        if self._waiting and not self._kept.retry(at_once=False) and on_listener() and self._keep(audit):
            return
        try:
            provider.emit_record(audit, durability=sink.durability, strict=sink.emit_strict, chosen_id=chosen_id)
        except Exception as error:  # noqa: BLE001 - whatever it is, on_error says what to do with it
            self._refused(error, record, audit, provider)

    def flush(self) -> None:
        """Try once more what is kept.  Does not wait for any destination."""
        self._kept.retry()

    def close(self) -> None:
        """Let go.  A shared provider stays open; one of its own too while the interpreter ends: others may still log.

        A record that comes after that is journaled all the same.
        """
        if not self._kept.retry():
            left = JournalError(f"{len(self._waiting)} audit records are only in memory")
            report(left, None, "the journal did not take everything")
        if not _at_exit:
            self._sink.close_own()
        super().close()

    def _read(
        self, record: logging.LogRecord, default_event_name: str, *, strict: bool = False, say: bool = False
    ) -> _Captured:
        """The record, whatever it is like; with ``say`` it says what its author should look at."""
        try:
            draft = logrecord.read(record, self._apart, self._include)
            audit = draft.record(default_event_name, strict=strict)
        except InvalidRecordError:
            raise
        except Exception as error:  # noqa: BLE001 - a mapping of the caller's that raises; the rest is worth having
            draft = unreadable(record.msg, error)
            audit = draft.record(default_event_name)
        if say:
            self._sink.remark(draft, lambda: (record.pathname, record.lineno))
        return audit, draft.chosen_id

    def _not_taken(
        self,
        error: BaseException,
        record: logging.LogRecord,
        entry: Entry,
        record_id: str,
        observed_ns: int,
        provider: Provider,
    ) -> None:
        """The journal did not take what was written down here."""
        try:
            provider.not_taken(error, entry, record_id, observed_ns)
        except Exception as second:  # noqa: BLE001 - the same, and says whether the record is journaled
            audit = self._read(record, sc.EVENT_DEFAULT)[0]
            audit.attributes[sc.RECORD_ID] = record_id
            self._refused(second, record, audit, provider)
        except BaseException as second:
            if not getattr(second, "journaled", False):
                once.release(record, provider)
            raise

    def _refused(self, error: Exception, record: logging.LogRecord, audit: AuditRecord, provider: Provider) -> None:
        """The provider did not take the record."""
        if isinstance(error, InvalidRecordError):
            try:
                self._sink.send_mended(audit, error, provider)
            except Exception as second:  # noqa: BLE001
                error = second
            else:
                return
        self._failed(error, record, audit, provider)

    def _failed(
        self, error: Exception, record: logging.LogRecord, audit: AuditRecord, provider: Provider | None = None
    ) -> None:
        """Keep the record, or do as ``on_error`` says."""
        journaled = getattr(error, "journaled", False)
        listening = on_listener()
        if listening and not journaled and not isinstance(error, InvalidRecordError) and self._keep(audit, error):
            return
        if not journaled and provider is not None:
            once.release(record, provider)
        self._sink.failed(error, audit, may_raise=not listening)

    def _keep(self, audit: AuditRecord, error: Exception | None = None) -> bool:
        """Keep it in memory; ``False`` where there is no room."""
        if not self._kept.add(audit):
            return False
        self._sink.count("records.kept")
        if error is not None and len(self._waiting) == 1:
            warn(
                "the journal does not take audit records (%s: %s); they are kept in memory on this listener's thread, "
                "up to %d, and tried again",
                type(error).__name__,
                error,
                KEPT_MAX,
            )
        return True

    def _is_ours(self, record: logging.LogRecord, carried: Mapping[str, Any] | None) -> bool:
        """Whether this package logged it, or a thread of it did: delivering it would make the next one."""
        if record.name == LOGGER.name or str(record.name).startswith(LOGGER.name + "."):
            self._sink.count("records.own_logger")
            return True
        if carried is not None:
            own = carried["own_thread"]
        elif record.thread is None or record.thread == threading.get_ident():
            own = context.in_own_thread()
        else:  # it came through a queue; the identifier of a thread that has ended is used again: look at the name too
            own = record.thread in _own_threads and str(record.threadName).startswith(_OWN_THREAD_NAMES)
        if own:
            self._sink.count("records.own_thread")
        return bool(own)


def _names(names: Iterable[str]) -> list[str]:
    """Names from a configuration: a list, or a string with commas (``fileConfig``)."""
    if isinstance(names, str):
        return [name.strip() for name in names.split(",") if name.strip()]
    return list(names)
