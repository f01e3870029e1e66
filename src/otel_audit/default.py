"""The process-wide provider: what ``configure()`` makes, and what everything without a provider of its own uses."""

from __future__ import annotations

import asyncio
import importlib
import logging
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from .checkup import Health, ThresholdOptions, Thresholds, not_configured, together
from .errors import ConfigurationError, JournalError, NotConfiguredError
from .flushing import deadline_after
from .forks import in_child
from .health import FlushResult, ProviderStatus
from .logger import AuditLogger
from .own_log import own_log
from .provider import AuditProvider
from .settings import ProviderOptions, build_provider

if TYPE_CHECKING:
    from typing_extensions import Unpack

_provider: AuditProvider | None = None
_of_captures: tuple[weakref.ref[AuditProvider], ...] = ()
_lock = threading.Lock()
_log = own_log("default")


def _after_fork_in_child() -> None:
    """Another thread of the parent may have held the lock."""
    global _lock  # noqa: PLW0603 - one for the process
    _lock = threading.Lock()


in_child(_after_fork_in_child)


def configure(
    *, loggers: Iterable[str | logging.Logger] = (), level: int | str = logging.INFO, **options: Unpack[ProviderOptions]
) -> AuditProvider:
    """Make the process-wide provider.

    A second call replaces the first: the new provider is made before the old one is shut down, what the old one had
    not delivered is delivered by whoever uses its journal next, and loggers and handlers that were made earlier go on
    with the new one.  If the new configuration is wrong, the old one stays.

    Args:
        loggers: standard loggers, by name or as objects (``"root"`` or ``""`` is the root), that get an
            :class:`~otel_audit.AuditHandler`, unless they have one.
        level: level that is set on those loggers where theirs is higher or not set: a fresh logger inherits WARNING.
        **options: see :class:`~otel_audit.settings.ProviderOptions` and ``docs/configuration.md``; what is not given
            here is read from ``OTEL_AUDIT_*`` and from the file that ``config_file`` or ``OTEL_AUDIT_CONFIG`` names.

    Returns:
        The provider.

    Raises:
        ConfigurationError: an option is unknown or has a bad value; nothing has changed.
        UnsafeJournalError: the journal's directory cannot be used; nothing has changed.
    """
    given = [loggers] if isinstance(loggers, (str, logging.Logger)) else list(loggers)
    for logger in given:
        if not isinstance(logger, (str, logging.Logger)):
            raise ConfigurationError(f"loggers: must be names or standard loggers, not {type(logger).__name__}")
    # By name: the captures stand above this floor.
    capture = importlib.import_module("otel_audit.capture.stdlib")
    reachability = importlib.import_module("otel_audit.capture.reachability")
    provider = build_provider(**options)
    provider.unreachable_handlers = reachability.unreachable_handlers
    if _provider is not None:
        provider.take_over(_provider)
    previous = _replace(provider)
    try:
        for logger in given:
            capture.attach(logger, level)
    except BaseException:
        _replace(previous)
        _retire(provider, previous)
        raise
    if previous is not None:
        _retire(previous, provider)
    return provider


def _retire(provider: AuditProvider, successor: AuditProvider | None) -> None:
    """Shut a provider down; what is still emitted through it goes to its successor."""
    provider.successor = successor
    try:
        provider.shutdown(provider.settings.exit_timeout_s)
    except (JournalError, OSError):
        _log.exception("the journal %s could not be closed in order", provider.settings.journal)


def _replace(provider: AuditProvider | None) -> AuditProvider | None:
    """Make it the process-wide one; the one before."""
    global _provider
    with _lock:
        previous, _provider = _provider, provider
    return previous


def get_provider() -> AuditProvider:
    """The process-wide provider.

    Raises:
        NotConfiguredError: ``configure()`` was not called.
    """
    provider = _provider
    if provider is None:
        raise NotConfiguredError(
            "auditing is not configured, and nothing was recorded: call otel_audit.configure(service_name=…, "
            "destinations={…}) first, or give the handler a journal= of its own"
        )
    return provider


def current() -> AuditProvider | None:
    """The process-wide provider; ``None`` where there is none."""
    return _provider


def count_in(provider: AuditProvider) -> None:
    """A capture has made a provider of its own: ``status``, ``check_health`` and ``flush`` are to look at it too."""
    global _of_captures  # noqa: PLW0603 - one process, one list
    with _lock:
        _of_captures = (*map(weakref.ref, _living_of_captures()), weakref.ref(provider))


def _living_of_captures() -> list[AuditProvider]:
    found = [known() for known in _of_captures]
    return [provider for provider in found if provider is not None and not provider.is_shut_down]


def _all() -> list[AuditProvider]:
    """The providers that live in this process: the process-wide one first, then the captures' own.

    Raises:
        NotConfiguredError: there is none.
    """
    own = sorted(_living_of_captures(), key=_place)
    return own if own and _provider is None else [get_provider(), *own]


def _place(provider: AuditProvider) -> str:
    return str(provider.settings.journal)


def _notes(providers: Sequence[AuditProvider]) -> list[str]:
    """What is not wrong and yet worth knowing of the process as a whole."""
    provider = _provider
    if provider is None:
        count = len(providers)
        have = "AuditHandler has a journal of its own" if count == 1 else "AuditHandlers have journals of their own"
        return [f"no process-wide provider; {count} {have} at {', '.join(map(_place, providers))}"]
    reachability = importlib.import_module("otel_audit.capture.reachability")
    if isinstance(provider, AuditProvider) and not provider.journal.emitted and not reachability.is_captured():
        return [
            "no record yet, and no logger has an AuditHandler: give configure() loggers=[…] to capture what is logged"
        ]
    return []


def get_audit_logger(name: str | None = None) -> AuditLogger:
    """A logger for audit events; may be called before ``configure()``.

    Args:
        name: becomes the attribute ``otel_audit.logger`` of its records.
    """
    return AuditLogger(get_provider, name)


def flush(timeout_s: float = 30.0) -> FlushResult:
    """Wait until every required destination has everything that is in the journal now.

    That of a handler with a journal of its own is waited for too.

    Args:
        timeout_s: how long to wait, in seconds.

    Returns:
        Counts of what was delivered, pending, dead-lettered and damaged; true only where nothing is pending or damaged.

    Raises:
        NotConfiguredError: ``configure()`` was not called, and no handler has a journal of its own.
        ConfigurationError: the time is no number.
    """
    deadline = deadline_after(timeout_s)
    results = [each.flush(max(deadline - time.monotonic(), 0.0)) for each in _all()]
    return FlushResult(tuple(destination for result in results for destination in result.destinations))


def shutdown(timeout_s: float = 30.0) -> FlushResult | None:
    """End the process's stream in order and deliver what is left; ``emit`` raises from now on.

    Args:
        timeout_s: how long to go on delivering, in seconds; what is left then stays in the journal.

    Returns:
        As :func:`flush`; ``None`` where nothing was configured.

    Raises:
        ConfigurationError: the time is no number.
        JournalError: the last record could not be written, or the last sync failed.
    """
    return _provider.shutdown(timeout_s) if _provider is not None else None


def status() -> ProviderStatus:
    """How this process's auditing is doing: the process-wide provider, or else the first handler's own.

    Those of the other handlers with a journal of their own are its ``others``.

    Raises:
        NotConfiguredError: ``configure()`` was not called, and no handler has a journal of its own.
    """
    providers = _all()
    first, *others = [each.status() for each in providers]
    return msgspec.structs.replace(first, notes=_notes(providers), others=others)


def check_health(**thresholds: Unpack[ThresholdOptions]) -> Health:
    """Whether auditing is well, for a readiness route or an alarm.  Never waits for the network, and never raises.

    What it looks at is at most a second old, so it may be asked as often as one likes.

    Args:
        **thresholds: ``degraded_age_s`` (300), ``failing_age_s`` (86,400): age of the oldest record that a required
            destination has not, in seconds; ``degraded_fullness`` (0.8), ``failing_fullness`` (0.95): how full the
            journal is; ``degraded_dead_letters`` (1).

    Returns:
        ``status`` (``"ok"``, ``"degraded"``, ``"failing"``), ``reasons``, ``http_status``, and what was measured.
        Handlers with a journal of their own count.  Without one, and without ``configure()``, it is failing.
    """
    limits = Thresholds(**thresholds)
    try:
        providers = _all()
    except NotConfiguredError:
        return not_configured()
    return together([(_place(each), each.check_health(limits)) for each in providers], _notes(providers))


async def aflush(timeout_s: float = 30.0) -> FlushResult:
    """:func:`flush` for coroutines."""
    return await asyncio.to_thread(flush, timeout_s)


async def ashutdown(timeout_s: float = 30.0) -> FlushResult | None:
    """:func:`shutdown` for coroutines."""
    return await asyncio.to_thread(shutdown, timeout_s)
