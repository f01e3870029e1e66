"""The loggers by which the package says what it has to say."""

from __future__ import annotations

import logging
import logging.config
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import otel_audit
from otel_audit.capture import sink
from otel_audit.delivery import fleet, shipment, shipper
from otel_audit.own_log import OwnLog, own_log

SOURCE = Path(otel_audit.__file__).parent
LOGS = [sink.LOGGER, fleet._log, shipment._log, shipper._log]


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    """What ``dictConfig`` disables here is enabled again."""
    loggers = [logger for logger in logging.Logger.manager.loggerDict.values() if isinstance(logger, logging.Logger)]
    before = [(logger, logger.disabled) for logger in loggers]
    yield
    for logger, disabled in before:
        logger.disabled = disabled


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.name)
def test_our_messages_survive_a_dict_config_that_disables_all(log: OwnLog, caplog: pytest.LogCaptureFixture) -> None:
    """``dictConfig`` with its default, as most have it, does not make the package keep quiet about what is lost."""
    logging.config.dictConfig({"version": 1})
    assert logging.getLogger(log.name).disabled
    log.error("destination archive is blocked")
    assert caplog.messages == ["destination archive is blocked"]


def test_a_warning_from_within_a_handler_survives_it_too(caplog: pytest.LogCaptureFixture) -> None:
    """What captures say goes to the handlers directly, and does not ask whether the logger is disabled."""
    logging.config.dictConfig({"version": 1})
    sink.warn("filled with %s", "unknown")
    assert caplog.messages == ["filled with unknown"]


def test_a_level_silences_it(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever wants silence sets a level on ``otel_audit``."""
    logging.getLogger("otel_audit").setLevel(logging.CRITICAL)
    try:
        own_log("delivery").error("blocked")
        sink.warn("filled")
    finally:
        logging.getLogger("otel_audit").setLevel(logging.NOTSET)
    assert caplog.messages == []


def test_there_is_one_way_to_say_something() -> None:
    """No part of the package has a logger that a configuration can disable."""
    users = [
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if re.search(r'getLogger\("otel_audit\.|getLogger\(__name__', path.read_text())
    ]
    assert not users, f"use 'from ..own_log import own_log' in {users}"
