"""Audit logging that loses nothing: logging and structlog in, a crash-safe hash-chained journal, OpenTelemetry out.

The public names.  Each is loaded on first use, so ``import otel_audit`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING
from typing import Any as _Any

from ._version import __version__

if TYPE_CHECKING:
    from .batch import RecordBatch, StoredRecord
    from .capture.otel import AuditLogRecordProcessor
    from .capture.queues import AuditContextFilter
    from .capture.stdlib import AUDIT, AuditHandler
    from .capture.structlog import StructlogAuditProcessor
    from .checkup import Health
    from .context import audit_context
    from .default import aflush, ashutdown, check_health, configure, flush, get_audit_logger, shutdown, status
    from .errors import (
        AuditError,
        BlockedExportError,
        ConfigurationError,
        DamageError,
        DeliveryFilteredError,
        DeliveryRefusedError,
        DeliveryTimeoutError,
        EmitError,
        ExportError,
        InvalidRecordError,
        JournalClosedError,
        JournalError,
        JournalFullError,
        JournalSyncError,
        NotConfiguredError,
        RejectedExportError,
        RetryableExportError,
        UnsafeJournalError,
    )
    from .exporters.sdk import SdkExporter
    from .health import FlushResult
    from .protocols import AuditRecordExporter, AuditRecordProcessor, Clock, ExportResult
    from .provider import AuditLogger, AuditProvider
    from .receipt import AuditReceipt
    from .record import Actor, AuditRecord, Source, Target
    from .rules import Outcome

__all__ = [
    "AUDIT",
    "Actor",
    "AuditContextFilter",
    "AuditError",
    "AuditHandler",
    "AuditLogRecordProcessor",
    "AuditLogger",
    "AuditProvider",
    "AuditReceipt",
    "AuditRecord",
    "AuditRecordExporter",
    "AuditRecordProcessor",
    "BlockedExportError",
    "Clock",
    "ConfigurationError",
    "DamageError",
    "DeliveryFilteredError",
    "DeliveryRefusedError",
    "DeliveryTimeoutError",
    "EmitError",
    "ExportError",
    "ExportResult",
    "FlushResult",
    "Health",
    "InvalidRecordError",
    "JournalClosedError",
    "JournalError",
    "JournalFullError",
    "JournalSyncError",
    "NotConfiguredError",
    "Outcome",
    "RecordBatch",
    "RejectedExportError",
    "RetryableExportError",
    "SdkExporter",
    "Source",
    "StoredRecord",
    "StructlogAuditProcessor",
    "Target",
    "UnsafeJournalError",
    "__version__",
    "aflush",
    "ashutdown",
    "audit_context",
    "check_health",
    "configure",
    "flush",
    "get_audit_logger",
    "shutdown",
    "status",
]

_HOMES = {
    "batch": ("RecordBatch", "StoredRecord"),
    "capture.otel": ("AuditLogRecordProcessor",),
    "capture.queues": ("AuditContextFilter",),
    "capture.stdlib": ("AUDIT", "AuditHandler"),
    "capture.structlog": ("StructlogAuditProcessor",),
    "checkup": ("Health",),
    "context": ("audit_context",),
    "default": ("aflush", "ashutdown", "check_health", "configure", "flush", "get_audit_logger", "shutdown", "status"),
    "errors": (
        "AuditError", "BlockedExportError", "ConfigurationError", "DamageError", "DeliveryFilteredError",
        "DeliveryRefusedError", "DeliveryTimeoutError", "EmitError", "ExportError", "InvalidRecordError",
        "JournalClosedError", "JournalError", "JournalFullError", "JournalSyncError", "NotConfiguredError",
        "RejectedExportError", "RetryableExportError", "UnsafeJournalError",
    ),
    "exporters.sdk": ("SdkExporter",),
    "health": ("FlushResult",),
    "protocols": ("AuditRecordExporter", "AuditRecordProcessor", "Clock", "ExportResult"),
    "provider": ("AuditLogger", "AuditProvider"),
    "receipt": ("AuditReceipt",),
    "record": ("Actor", "AuditRecord", "Source", "Target"),
    "rules": ("Outcome",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> _Any:
    module = _HOME.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(_import_module(f".{module}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
