"""Hands captured records to the provider, and does what was asked for where it does not take one."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from .. import default
from .. import semconv as sc
from ..durability import Durability
from ..errors import AuditError, ConfigurationError, InvalidRecordError, NotConfiguredError, describe
from ..journal.stream import Entry
from ..own_log import own_log
from ..receipt import AuditReceipt
from ..record import AuditRecord, new_record_id
from ..settings import build_provider
from . import reachability
from .draft import Draft

LOGGER: Final = own_log()
"""What this package has to say; records of it and of its children are never captured."""

CALL_SITES_MAX: Final = 4096
"""How many call sites are remembered, so that each is warned of once."""

OnError = str | Callable[[Exception, AuditRecord], object]


class Settings(Protocol):
    """The part of a provider's settings that captures read."""

    @property
    def default_event_name(self) -> str:
        """The event name of a message that is none."""

    @property
    def strict(self) -> bool:
        """Whether captures raise for records that are not as they should be."""


class Provider(Protocol):
    """The part of ``AuditProvider`` that captures use."""

    @property
    def settings(self) -> Settings:
        """What it was configured with."""

    @property
    def takes_parts(self) -> bool:
        """Whether ``append`` may be used."""

    @property
    def parts_bytes_max(self) -> int:
        """The largest head and tail for ``append``, together, in bytes."""

    @property
    def now_ns(self) -> Callable[[], int]:
        """Gives nanoseconds since 1970."""

    @property
    def append(self) -> Callable[[Entry], object]:
        """Journals a record that is written down already."""

    def not_taken(self, error: BaseException, entry: Entry, record_id: str, observed_ns: int) -> None:
        """What follows where ``append`` raised."""

    def emit_record(
        self,
        record: AuditRecord,
        *,
        durability: Durability | None = None,
        timeout_s: float | None = None,
        strict: bool | None = None,
        chosen_id: bool = False,
    ) -> AuditReceipt:
        """Journal the record."""

    def count(self, name: str, n: int = 1) -> None:
        """Count something that ``status()`` shows."""

    def shutdown(self, timeout_s: float) -> Any:
        """Close the journal."""


class Sink:
    """Where a capture's records go.

    Args:
        provider: ``None``: the process-wide one, looked up for each record, so that ``configure`` may come later; or,
            with options, one of its own.
        on_error: what to do with an error: ``"raise"``, ``"stderr"`` (say it there), or a callable that is given the
            error and the record.
        strict: raise on what would else be filled or converted.
        durability: for every record; ``None``: the provider's default.
        options: as for ``configure``.

    Attributes:
        fixed: the provider, unless it has to be looked up.
        emit_strict: what ``emit_record`` is told.

    Raises:
        ConfigurationError: an option is wrong.
    """

    def __init__(
        self,
        provider: Provider | None,
        *,
        on_error: OnError = "raise",
        strict: bool = False,
        durability: Durability | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        if on_error not in ("raise", "stderr") and not callable(on_error):
            raise ConfigurationError(f"on_error must be 'raise', 'stderr' or a callable, not {on_error!r}")
        if durability not in (None, "process", "disk", "delivered"):
            raise ConfigurationError(f"durability must be 'process', 'disk' or 'delivered', not {durability!r}")
        if provider is not None and not hasattr(provider, "emit_record"):
            raise ConfigurationError(
                f"provider: must be an AuditProvider, as configure() returns it, not {describe(provider)}; without one "
                "the process-wide provider is used"
            )
        if provider is not None and options:
            raise ConfigurationError(f"{min(options)}: give a provider or the options of one, not both")
        self.on_error = on_error
        self.strict = strict
        self.durability = durability
        self.emit_strict = True if strict else None
        self.fixed = provider
        self._options = dict(options or {})
        self._build = threading.RLock()
        self._building = False
        if self._options:
            self.provider()

    def provider(self) -> Provider:
        """The provider.

        Raises:
            NotConfiguredError: it is the process-wide one, and there is none.
            ConfigurationError: it is one of its own, and cannot be opened again.
        """
        if self.fixed is not None:
            return self.fixed
        return self._open() if self._options else default.get_provider()

    def find(self) -> Provider | None:
        """The provider; ``None`` where there is none (yet)."""
        if self.fixed is None and not self._options:
            return default.current()
        try:
            return self.provider()
        except ConfigurationError:
            return None

    def is_strict(self, provider: Provider) -> bool:
        """Whether it was asked for here or for the whole provider."""
        return self.strict or provider.settings.strict

    def send(self, record: AuditRecord) -> AuditReceipt:
        """Journal a record that was captured before; a second time gives the first receipt.

        Raises:
            Exception: whatever the provider raises.
        """
        provider = self.provider()
        return provider.emit_record(record, durability=self.durability, strict=self.emit_strict, chosen_id=True)

    def send_mended(self, record: AuditRecord, error: InvalidRecordError, provider: Provider) -> AuditReceipt:
        """Journal a record that the provider refused with this error, if that can be mended.

        Raises:
            Exception: whatever the provider raises; the error itself where it cannot be mended.
        """
        if error.field != "record_id" or self.is_strict(provider):
            raise error
        return provider.emit_record(_with_new_id(record), durability=self.durability)

    def failed(self, error: Exception, record: AuditRecord, *, may_raise: bool = True) -> None:
        """Do as ``on_error`` says.

        Args:
            error: what the provider raised.
            record: what it did not take, or not as durably as was asked for.
            may_raise: ``False``: on a thread that an exception would end; say it on the standard error stream.

        Raises:
            Exception: the error, where ``on_error`` is ``"raise"``.
        """
        self.count("records.failed")
        if self.on_error == "raise" and may_raise:
            raise error
        if not callable(self.on_error):
            report(error, record)
            return
        try:
            self.on_error(error, record)
        except Exception as second:
            if may_raise:
                raise
            report(second, record)

    def count(self, name: str) -> None:
        """Count, where there is a provider to count it."""
        provider = self.fixed if self._options else self.find()
        if provider is not None:
            provider.count(name)

    def remark(self, draft: Draft, site: Callable[[], tuple[str, int]]) -> None:
        """Count and say what the author of a call should look at: in a record that is to be journaled all the same.

        Args:
            draft: after its ``record()``.
            site: gives file and line of the call.
        """
        if draft.filled:
            self.count("records.filled")
            warn_of_filled(draft.filled, site())
        if draft.not_understood is not None:
            self.count("records.outcome_not_understood")
            _warn_once(
                site(),
                "an outcome that is not understood",
                "%s stands as 'unknown', the original is kept beside it; give outcome='success', 'failure' or "
                "'unknown', or a word for one like 'denied' or True",
                describe(draft.not_understood),
            )
        if draft.misnamed:
            _warn_once(
                site(),
                "a message that looks like an event name and is none",
                "it is the body of an event of the default name; an event name is dotted, lower-case ASCII (like "
                "'user.login'), without a space before or after it",
            )

    def close_own(self) -> None:
        """Close a provider of its own without waiting for the network; the next record opens a new one."""
        if not self._options:
            return
        with self._build:
            own, self.fixed = self.fixed, None
        if own is not None:
            try:
                own.shutdown(0.0)
            except AuditError as error:
                report(error, None, "the journal was not closed in order")

    def _open(self) -> Provider:
        with self._build:
            if self._building:  # what is logged while it opens comes back here
                raise NotConfiguredError("the provider of this handler is just being opened")
            if self.fixed is None:
                self._building = True
                try:
                    own = build_provider("AuditHandler()", **self._options)
                    own.unreachable_handlers = lambda: [str(found) for found in reachability.unreachable_handlers()]
                    default.count_in(own)
                    self.fixed = own
                finally:
                    self._building = False
            return self.fixed


def _with_new_id(record: AuditRecord) -> AuditRecord:
    """The record without an id that was used for another one before."""
    attributes = {**record.attributes, sc.ORIGINAL_PREFIX + sc.RECORD_ID: record.record_id}
    attributes[sc.RECORD_ID] = new_record_id()
    return AuditRecord.from_attributes(
        record.event_name,
        attributes,
        timestamp_ns=record.timestamp_ns,
        body=record.body,
        trace_id=record.trace_id,
        span_id=record.span_id,
    )


_SHORT: Final = {sc.ACTOR_ID: "actor", sc.ACTION: "action", sc.OUTCOME: "outcome"}
_warned: set[tuple[str, int, str]] = set()


def warn_of_filled(filled: list[str], site: tuple[str, int]) -> None:
    """Say once per call site that mandatory attributes were missing there."""
    _warn_once(
        site,
        "incomplete audit record",
        "%s filled with 'unknown'; give %s in the call%s",
        ", ".join(filled),
        ", ".join(f"{_SHORT.get(name, name)}=" for name in filled),
        " (the actor for a block of code: audit_context(actor=…))" if sc.ACTOR_ID in filled else "",
    )


def _warn_once(site: tuple[str, int], what: str, message: str, *args: object) -> None:
    """Say something of a call site, once.

    Args:
        site: file and line.
        what: what there is at that place; each such thing is said once.
        message: why, and what to do.
        *args: its ``%`` arguments.
    """
    key = (*site, what)
    if key in _warned or len(_warned) > CALL_SITES_MAX:
        return
    _warned.add(key)
    if len(_warned) > CALL_SITES_MAX:
        warn("more than %d call sites emit incomplete audit records; further ones are not named", CALL_SITES_MAX)
        return
    warn(f"{what} at %s:%d: {message} (said once per call site)", *site, *args)


def warn(message: str, *args: object) -> None:
    """Log a warning from within a handler.

    Python 3.14 ignores what a handler logs while it handles a record, so the record goes to the handlers directly.
    """
    logger = LOGGER.logger
    if LOGGER.manager.disable < logging.WARNING and LOGGER.getEffectiveLevel() <= logging.WARNING:
        logger.callHandlers(logger.makeRecord(logger.name, logging.WARNING, __file__, 0, message, args, None))


def report(error: Exception, record: AuditRecord | None, what: str = "an audit record was not journaled") -> None:
    """Write one line to the standard error stream, without any value of the record."""
    which = "" if record is None else f" ({record.event_name} {record.attributes.get(sc.RECORD_ID)})"
    if getattr(error, "journaled", False):
        what = "an audit record was journaled, but with an error"
    with contextlib.suppress(OSError, ValueError, AttributeError):  # nowhere to say it; it is counted
        sys.stderr.write(f"otel_audit: {what}{which}: {type(error).__name__}: {error}\n")
        sys.stderr.flush()
