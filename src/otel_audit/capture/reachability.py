"""Finds the audit handlers that records do not reach, and says why."""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

NAMED_MAX: Final = 50
"""How many findings are named; what is beyond is counted in one more."""


@dataclass(frozen=True)
class Unreachable:
    """A logger whose records do not, or not all, reach an ``AuditHandler`` that should get them.

    Attributes:
        logger: its name; ``"root"`` for the root logger, ``"structlog"`` for structlog's configuration.
        reason: why, and what to do.
    """

    logger: str
    reason: str

    def __str__(self) -> str:
        return f"{self.logger}: {self.reason}"


_handlers: weakref.WeakSet[logging.Handler] = weakref.WeakSet()
_processors: weakref.WeakSet[Any] = weakref.WeakSet()
_expected: dict[str, logging.Handler] = {}


def register(handler: logging.Handler) -> None:
    """Called by each ``AuditHandler`` when it is made."""
    _handlers.add(handler)


def register_processor(processor: object) -> None:
    """Called by each processor of structlog and of OpenTelemetry's SDK when it is made."""
    _processors.add(processor)


def is_captured() -> bool:
    """Whether anything logged can become an audit record: a logger has an ``AuditHandler``, or there is a processor."""
    return bool(_processors) or any(True for _ in _attached())


def expect(logger: str, handler: logging.Handler) -> None:
    """``configure`` has added the handler to this logger, and it should stay there."""
    _expected[logger] = handler


def unreachable_handlers() -> list[Unreachable]:
    """What keeps records from audit handlers now.

    Looks at ``logging.disable``, disabled loggers, levels above INFO, levels of loggers below the audited one that are
    above its own (not below the root: those of libraries are meant), ``propagate``, handlers that ``configure`` added
    and something else removed, and structlog's filtering loggers.  Filters are not looked at.
    """
    found = [*_removed(), *_structlog()]
    for logger, handler in _attached():
        found += _at_logger(logger, handler)
        found += _below(logger)
    unique = list(dict.fromkeys(found))
    if len(unique) > NAMED_MAX:
        more = len(unique) - NAMED_MAX
        unique[NAMED_MAX:] = [Unreachable("…", f"{more} more loggers do not reach their AuditHandler")]
    return unique


def _attached() -> Iterator[tuple[logging.Logger, logging.Handler]]:
    """Each logger that an ``AuditHandler`` is attached to, directly or behind a queue, and the handler there."""
    for logger in [logging.getLogger(), *_loggers()]:
        for handler in logger.handlers:
            if handler in _handlers:
                yield logger, handler
            listener = getattr(handler, "listener", None)  # dictConfig, Python 3.12 and later
            if any(behind in _handlers for behind in getattr(listener, "handlers", ())):
                yield logger, handler


def _loggers() -> list[logging.Logger]:
    known: dict[str, Any] = logging.Logger.manager.loggerDict
    return [logger for logger in list(known.values()) if isinstance(logger, logging.Logger)]


def _at_logger(logger: logging.Logger, handler: logging.Handler) -> Iterator[Unreachable]:
    off = logger.manager.disable
    if off >= logging.INFO:
        yield Unreachable(logger.name, f"logging.disable drops everything up to {logging.getLevelName(off)}")
    if logger.disabled:
        yield Unreachable(logger.name, _DISABLED)
    level = logger.getEffectiveLevel()
    if level > logging.INFO:
        source = logger
        while not source.level and source.parent is not None:
            source = source.parent
        where = "its own level" if source is logger else f"the level of {source.name!r}"
        name = logging.getLevelName(level)
        yield Unreachable(logger.name, f"records below {name} are dropped by {where}; set the logger's level to INFO")
    if handler.level > logging.INFO:
        name = logging.getLevelName(handler.level)
        yield Unreachable(logger.name, f"records below {name} are dropped by the level of the AuditHandler")


_DISABLED: Final = (
    "the logger is disabled, probably by a dictConfig or fileConfig after it was made; "
    "give that 'disable_existing_loggers': False"
)


_REMOVED: Final = (
    "the AuditHandler that configure(loggers=…) added was removed, probably by a dictConfig or fileConfig; "
    "configure logging first"
)


def _below(top: logging.Logger) -> Iterator[Unreachable]:
    """Loggers below one with an ``AuditHandler`` whose records do not get that far."""
    prefix = "" if top is top.root else top.name + "."
    for logger in _loggers():
        if logger is top or not logger.name.startswith(prefix) or logger.name.split(".")[0] == "otel_audit":
            continue
        cut = _cut(logger, top)
        level = top.getEffectiveLevel()
        if logger.disabled:
            yield Unreachable(logger.name, _DISABLED)
        elif cut is not None:
            yield Unreachable(logger.name, f"'propagate' of {cut.name!r} is off; the AuditHandler is at {top.name!r}")
        elif top is not top.root and logger.level > level and not _has_its_own(logger):
            name = logging.getLevelName(logger.level)
            yield Unreachable(
                logger.name,
                f"records below {name} are dropped by its own level; {top.name!r}, where the AuditHandler is, takes "
                f"those from {logging.getLevelName(level)}",
            )


def _has_its_own(logger: logging.Logger) -> bool:
    """Whether an ``AuditHandler`` is attached to it, so that it is looked at by itself."""
    return any(handler in _handlers for handler in logger.handlers)


def _cut(logger: logging.Logger, top: logging.Logger) -> logging.Logger | None:
    """The logger between the two that does not propagate; ``None`` where an ``AuditHandler`` is reached before."""
    at: logging.Logger | None = logger
    while at is not None and at is not top:
        if _has_its_own(at):
            return None
        if not at.propagate:
            return at
        at = at.parent
    return None


def _removed() -> Iterator[Unreachable]:
    for name, handler in _expected.copy().items():
        if handler not in logging.getLogger(name).handlers:
            yield Unreachable(name, _REMOVED)


def _structlog() -> Iterator[Unreachable]:
    """A filtering wrapper class drops events before any processor sees them."""
    structlog: Any = sys.modules.get("structlog")
    if structlog is None:
        return
    try:
        configured = structlog.get_config()
        ours = any(getattr(processor, "is_audit_processor", False) for processor in configured["processors"])
        level = _level_of(configured["wrapper_class"]) if ours else 0
    except Exception:  # noqa: BLE001 - another version, or a wrapper class of the user's: nothing is known
        return
    if isinstance(level, int) and level > logging.INFO:
        name = logging.getLevelName(level)
        yield Unreachable("structlog", f"its wrapper class drops events below {name}, those with audit=True too")


def _level_of(wrapper: Any) -> Any:
    """The level of a class that ``make_filtering_bound_logger`` made; before structlog 25.1 only its name says it."""
    if hasattr(wrapper, "get_effective_level"):
        return wrapper.get_effective_level(None)
    return logging.getLevelName(wrapper.__name__.partition("FilteringAt")[2].upper())
