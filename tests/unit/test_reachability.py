"""Which audit handlers records do not reach, and why."""

from __future__ import annotations

import logging
import logging.config
import logging.handlers
import queue
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import structlog

from otel_audit.capture import reachability
from otel_audit.capture.reachability import Unreachable, unreachable_handlers
from otel_audit.capture.stdlib import AuditHandler, attach
from otel_audit.capture.structlog import StructlogAuditProcessor
from otel_audit.testing.memory import RecordingProvider

TOP = "test.reach"


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins with loggers that nobody has configured, and with no other test's handlers."""
    monkeypatch.setattr(reachability, "_expected", {})
    yield
    logging.disable(logging.NOTSET)
    structlog.reset_defaults()
    for name, logger in list(logging.Logger.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.startswith(TOP):
            logger.handlers.clear()
            logger.setLevel(logging.NOTSET)
            logger.propagate = True
            logger.disabled = False


def audited(name: str = TOP, level: int = logging.INFO) -> logging.Logger:
    logger = logging.getLogger(name)
    logger.addHandler(AuditHandler(RecordingProvider()))
    logger.setLevel(level)
    return logger


def reasons(name: str = TOP) -> list[str]:
    return [found.reason for found in unreachable_handlers() if found.logger == name]


def test_a_handler_that_is_reached_is_not_named() -> None:
    """Nor are the loggers below it."""
    audited()
    logging.getLogger(f"{TOP}.child")
    assert [found for found in unreachable_handlers() if found.logger.startswith(TOP)] == []


def test_a_disabled_logger() -> None:
    """As a later ``dictConfig`` leaves it."""
    logger = audited()
    child = logging.getLogger(f"{TOP}.child")
    logger.disabled = child.disabled = True
    assert "disabled" in reasons()[0]
    assert "disable_existing_loggers" in reasons(f"{TOP}.child")[0]


def test_a_level_above_info_that_is_inherited() -> None:
    """A fresh logger takes WARNING from the root: the one that has the level is named."""
    logging.getLogger(TOP).setLevel(logging.ERROR)
    logging.getLogger(f"{TOP}.low").addHandler(AuditHandler(RecordingProvider()))
    (reason,) = reasons(f"{TOP}.low")
    assert "below ERROR" in reason
    assert repr(TOP) in reason


def test_a_level_above_info_of_its_own() -> None:
    """The same, where it stands on the logger itself."""
    audited(level=logging.CRITICAL)
    (reason,) = reasons()
    assert "below CRITICAL" in reason
    assert "its own level" in reason


def test_a_child_whose_own_level_is_higher() -> None:
    """It drops what the audited logger above would take; the loggers below it are not named again."""
    audited()
    logging.getLogger(f"{TOP}.sub").setLevel(logging.ERROR)
    logging.getLogger(f"{TOP}.sub.sub")
    logging.getLogger(f"{TOP}.same").setLevel(logging.INFO)
    found = [each.logger for each in unreachable_handlers() if each.logger.startswith(TOP)]
    assert found == [f"{TOP}.sub"]
    (reason,) = reasons(f"{TOP}.sub")
    assert reason == (
        f"records below ERROR are dropped by its own level; {TOP!r}, where the AuditHandler is, takes those from INFO"
    )


def test_levels_below_the_root_are_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries and whoever uses them set levels: with the handler at the root that is no finding."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [AuditHandler(RecordingProvider())])
    logging.getLogger(f"{TOP}.library").setLevel(logging.ERROR)
    assert reasons(f"{TOP}.library") == []


def test_the_level_of_the_handler() -> None:
    """It drops records as the logger's does."""
    audited().handlers[-1].setLevel(logging.ERROR)
    assert "level of the AuditHandler" in reasons()[0]


def test_logging_disabled_for_all() -> None:
    """``logging.disable`` comes before every logger."""
    audited()
    logging.disable(logging.INFO)
    assert "logging.disable" in reasons()[0]


def test_propagation_that_is_off_on_the_way() -> None:
    """For the logger that has it, and for those below."""
    audited()
    logging.getLogger(f"{TOP}.middle").propagate = False
    logging.getLogger(f"{TOP}.middle.low")
    assert "'propagate'" in reasons(f"{TOP}.middle")[0]
    assert repr(f"{TOP}.middle") in reasons(f"{TOP}.middle.low")[0]


def test_propagation_that_is_off_above_another_handler() -> None:
    """Its records are journaled there."""
    audited()
    audited(f"{TOP}.middle").propagate = False
    assert reasons(f"{TOP}.middle") == []


def test_a_logger_with_a_similar_name_is_not_below() -> None:
    """``audited`` is not below ``audit``."""
    audited()
    logging.getLogger(f"{TOP}ing").disabled = True
    assert reasons(f"{TOP}ing") == []


def test_a_handler_that_was_attached_and_is_gone() -> None:
    """``configure(loggers=…)`` first, and then a ``dictConfig`` that takes its handler away."""
    logger = logging.getLogger(TOP)
    handler = attach(TOP)
    assert reasons() == []
    logger.removeHandler(handler)
    assert "was removed" in reasons()[0]


def test_a_later_dict_config(caplog: pytest.LogCaptureFixture) -> None:
    """The trap itself: an empty one disables what exists."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    before = {
        name: logger.disabled
        for name, logger in logging.Logger.manager.loggerDict.items()
        if isinstance(logger, logging.Logger)
    }
    attach(TOP)
    try:
        logging.config.dictConfig({"version": 1})
        assert any("disabled" in reason for reason in reasons())
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
        for name, disabled in before.items():
            logging.getLogger(name).disabled = disabled


def test_a_handler_behind_a_queue() -> None:
    """Where the queue's handler knows its listener (Python 3.12 and later)."""
    logger = logging.getLogger(TOP)
    line: queue.Queue[logging.LogRecord] = queue.Queue()
    handler = logging.handlers.QueueHandler(line)
    handler.listener = SimpleNamespace(handlers=(AuditHandler(RecordingProvider()),))  # type: ignore[attr-defined]
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
    assert "below ERROR" in reasons()[0]


def test_a_filtering_structlog_logger() -> None:
    """It drops ``audit=True`` too, before any processor."""
    structlog.configure(
        processors=[StructlogAuditProcessor(RecordingProvider())],
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
    )
    assert "below WARNING" in reasons("structlog")[0]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    assert reasons("structlog") == []
    structlog.configure(processors=[], wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    assert reasons("structlog") == []


def test_the_list_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is beyond is counted."""
    audited()
    monkeypatch.setattr(reachability, "NAMED_MAX", 5)
    for number in range(20):
        logging.getLogger(f"{TOP}.n{number}").disabled = True
    found = unreachable_handlers()
    assert len(found) == 6
    assert "more loggers" in found[-1].reason


def test_a_finding_reads_as_one_line() -> None:
    """For ``status``."""
    assert str(Unreachable("audit", "why")) == "audit: why"
