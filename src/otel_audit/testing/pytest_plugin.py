"""Fixtures for pytest; installed with the package (entry point ``pytest11``), loaded when a test asks for one."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..provider_settings import ProviderSettings
    from ..record import AuditRecord
    from . import RecordingProvider, ScriptedGrpcReceiver, ScriptedReceiver


@pytest.fixture
def audit_records(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[AuditRecord]]:
    """The audit records that the test emits, in memory: a list that grows.

    For the test, the process-wide provider is a :class:`otel_audit.testing.RecordingProvider`: ``get_audit_logger``,
    ``AuditHandler()`` and ``StructlogAuditProcessor()`` end there.  So do those of a provider that ``configure`` or an
    ``AuditHandler`` with options makes meanwhile: its options are checked, its ``strict`` and ``event_name`` hold, and
    there is no journal and no delivery.  Afterwards the handlers that were added for it are gone again.
    """
    memory = importlib.import_module("otel_audit.testing.memory")
    handler_class = importlib.import_module("otel_audit.capture.stdlib").AuditHandler
    reachability = importlib.import_module("otel_audit.capture.reachability")
    records: list[AuditRecord] = []

    def make(settings: ProviderSettings) -> RecordingProvider:
        provider: RecordingProvider = memory.RecordingProvider(settings=settings, records=records)
        return provider

    monkeypatch.setattr(importlib.import_module("otel_audit.settings"), "AuditProvider", make)
    monkeypatch.setattr(
        importlib.import_module("otel_audit.default"), "_provider", memory.RecordingProvider(records=records)
    )
    monkeypatch.setattr(reachability, "_expected", dict(reachability._expected))  # noqa: SLF001
    before = {logger: (list(logger.handlers), logger.level) for logger in _loggers()}
    yield records
    for logger in _loggers():
        handlers, level = before.get(logger, ([], logging.NOTSET))
        for handler in list(logger.handlers):
            if isinstance(handler, handler_class) and handler not in handlers:
                logger.removeHandler(handler)
                handler.close()
                logger.setLevel(level)


def _loggers() -> list[logging.Logger]:
    known = list(logging.Logger.manager.loggerDict.values())
    return [logging.getLogger(), *(each for each in known if isinstance(each, logging.Logger))]


@pytest.fixture
def audit_receiver() -> Iterator[ScriptedReceiver]:
    """An HTTP receiver on a free loopback port, which takes everything until its ``script`` says otherwise."""
    receivers = importlib.import_module("otel_audit.testing")
    with receivers.ScriptedReceiver() as receiver:
        yield receiver


@pytest.fixture
def audit_grpc_receiver() -> Iterator[ScriptedGrpcReceiver]:
    """The same for gRPC."""
    receivers = importlib.import_module("otel_audit.testing")
    with receivers.ScriptedGrpcReceiver() as receiver:
        yield receiver
