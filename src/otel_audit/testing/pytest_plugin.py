"""Fixtures for pytest; installed with the package (entry point ``pytest11``), loaded when a test asks for one."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..record import AuditRecord


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
