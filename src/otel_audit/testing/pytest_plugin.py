"""Fixtures for pytest; installed with the package (entry point ``pytest11``), loaded when a test asks for one."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..record import AuditRecord
    from . import ScriptedGrpcReceiver, ScriptedReceiver


@pytest.fixture
def audit_records(monkeypatch: pytest.MonkeyPatch) -> list[AuditRecord]:
    """The audit records that the test emits, in memory: a list that grows.

    For the test, the process-wide provider is a :class:`otel_audit.testing.RecordingProvider`: ``get_audit_logger``,
    ``AuditHandler()`` and ``StructlogAuditProcessor()`` end there.  Code that calls ``configure`` takes it away again.
    """
    memory = importlib.import_module("otel_audit.testing.memory")
    provider = memory.RecordingProvider()
    monkeypatch.setattr(importlib.import_module("otel_audit.default"), "_provider", provider)
    records: list[AuditRecord] = provider.records
    return records


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
