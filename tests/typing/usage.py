"""The public face as a typed program uses it.  It is never run: ``mypy --strict`` must accept it.

Each ``type: ignore`` marks a mistake that the type checker has to find; one that it no longer finds is an error,
because an ignore that is not needed is reported.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import structlog
from typing_extensions import assert_type

import otel_audit
from otel_audit import (
    Actor,
    AuditContextFilter,
    AuditHandler,
    AuditLogger,
    AuditProvider,
    AuditReceipt,
    AuditRecord,
    AuditRecordExporter,
    AuditRecordProcessor,
    BlockedExportError,
    Clock,
    DeliveryTimeoutError,
    EmitError,
    ExportResult,
    InvalidRecordError,
    JournalFullError,
    Outcome,
    RecordBatch,
    Source,
    StoredRecord,
    StructlogAuditProcessor,
    Target,
    audit_context,
)

# -- configuring ----------------------------------------------------------------------------------------------


def configuring(directory: Path, exporter: AuditRecordExporter) -> None:
    """Every way to name a destination."""
    provider = otel_audit.configure(service_name="billing", destinations={"collector": "otlp"}, loggers=["audit"])
    assert_type(provider, AuditProvider)
    otel_audit.configure(service_name="billing", journal=directory, destinations={})
    otel_audit.configure(service_name="billing", journal="journal", destinations={"local": "file:audit.jsonl"})
    otel_audit.configure(
        service_name="billing",
        destinations={
            "collector": {"type": "otlp", "endpoint": "http://collector:4318", "required": False, "start": "now"},
            "archive": "https://audit.example.com/v1/events",
            "own": exporter,
        },
    )
    otel_audit.configure(service="billing")  # type: ignore[call-arg]


# -- emitting -------------------------------------------------------------------------------------------------


def emitting() -> None:
    """The whole record, the receipt, and every word for durability."""
    audit = otel_audit.get_audit_logger("billing")
    assert_type(audit, AuditLogger)
    receipt = audit.emit("user.login", actor="u-42", outcome="success")
    assert_type(receipt, AuditReceipt)
    audit.emit(
        "permission.grant",
        actor=Actor("u-42", type="user"),
        action="GRANT",
        target=Target("admin", type="role", name="Administrators"),
        source=Source("192.0.2.7"),
        outcome=Outcome.SUCCESS,
        tenant="acme",
        session="s-9",
        request_id="r-1",
        user_agent="curl/8",
        reason="ticket 7",
        severity="NOTICE",
        body={"roles": ["admin"]},
        attributes={"ticket": 7, "roles": ["admin"], "raw": b"\x00"},
        timestamp=datetime.now(timezone.utc),
        record_id="0d4f5b52-6a2c-4e9c-9d0a-0f6a7f0a4a53",
    )
    audit.emit("user.login", actor="u-42", outcome=True, durability="process")
    audit.emit("user.login", actor="u-42", outcome=True, durability="disk")
    audit.emit("user.login", actor="u-42", outcome=True, durability="delivered", timeout_s=5)
    audit.emit("user.login", actor="u-42", outcome=True, durability="forever")  # type: ignore[arg-type]
    audit.emit("user.login", actr="u-42", outcome=True)  # type: ignore[call-arg]
    assert_type(receipt.record_id, str)
    assert_type(receipt.stream_id, str)
    assert_type(receipt.sequence, int)
    assert_type(receipt.integrity_hash, str)
    receipt.sequence = 7  # type: ignore[misc]


async def emitting_async() -> None:
    """The same, awaited."""
    audit = otel_audit.get_audit_logger("billing")
    receipt = await audit.aemit("user.login", actor="u-42", outcome="success", durability="disk")
    assert_type(receipt, AuditReceipt)
    async with audit_context(tenant="acme"):
        await audit.aemit("user.login", actor="u-42", outcome="success", durability="delivered", timeout_s=5.0)
    assert_type((await otel_audit.aflush(5.0)).pending, int)
    await otel_audit.ashutdown(5.0)


def what_went_wrong(audit: AuditLogger) -> bool | None:
    """Errors say whether the record is safe."""
    try:
        audit.emit("user.login", actor="u-42", outcome="success", durability="delivered", timeout_s=1)
    except DeliveryTimeoutError as error:
        assert_type(error.missing, tuple[str, ...])
        assert_type(error.receipt, AuditReceipt | None)
    except InvalidRecordError as error:
        assert_type(error.field, str)
        assert_type(error.rule, str)
    except JournalFullError as error:
        assert_type(error.retryable, bool)
    except EmitError as error:
        return error.journaled
    return False


# -- context --------------------------------------------------------------------------------------------------


@audit_context(tenant="acme")
def decorated(number: int, *, text: str = "") -> str:
    """A decorated function keeps its signature."""
    return text * number


@audit_context(actor=Actor("u-42"))
async def decorated_async(number: int) -> int:
    """So does a decorated coroutine function."""
    return number


async def context() -> None:
    """As a context manager, and as a decorator of both kinds of function."""
    with audit_context(actor=Actor("u-42"), tenant="acme", session="s-9", attributes={"ticket": 7}):
        assert_type(decorated(2, text="x"), str)
        assert_type(await decorated_async(2), int)
    decorated("2")  # type: ignore[arg-type]
    audit_context(tennant="acme")  # type: ignore[call-arg]


# -- capture --------------------------------------------------------------------------------------------------


def capture(directory: Path) -> None:
    """Handlers, filters and processors fit where the logging libraries want them."""
    logger = logging.getLogger("audit")
    logger.addHandler(AuditHandler())
    logger.addHandler(AuditHandler(on_error="stderr", strict=True))
    logger.addHandler(AuditHandler(journal=directory, destinations={"collector": "otlp"}))
    logger.addFilter(AuditContextFilter())
    assert_type(otel_audit.AUDIT, int)
    logger.log(otel_audit.AUDIT, "user.login", extra={"actor": "u-42", "outcome": "success"})
    structlog.configure(processors=[StructlogAuditProcessor(), structlog.processors.JSONRenderer()])


# -- ending ---------------------------------------------------------------------------------------------------


def ending() -> None:
    """What flush gives back can be counted and asked."""
    health = otel_audit.check_health(degraded_age_s=60, failing_fullness=0.9)
    assert_type(health, otel_audit.Health)
    assert_type(health.http_status, int)
    otel_audit.check_health(degraded_age="1m")  # type: ignore[call-arg]
    result = otel_audit.flush(5.0)
    assert_type(result.delivered, int)
    assert_type(result.pending, int)
    assert_type(result.dead_lettered, int)
    assert_type(result.damaged, int)
    if not result:
        otel_audit.status()
    otel_audit.shutdown(timeout_s=5)


def provider(one: AuditProvider) -> None:
    """A provider is a context manager."""
    with one as same:
        assert_type(same.get_audit_logger("billing").emit("user.login", actor="u", outcome=True), AuditReceipt)


async def provider_async(one: AuditProvider) -> None:
    """And an asynchronous one."""
    async with one as same:
        await same.get_audit_logger("billing").aemit("user.login", actor="u", outcome=True)


# -- the seams ------------------------------------------------------------------------------------------------


class PrintingExporter:
    """An exporter inherits from nothing."""

    single_writer = False

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        """Print it."""
        for record in batch.records:
            assert_type(record, StoredRecord)
            print(record.sequence, record.event_name, record.sha256, record.canonical, timeout_s)
        if not batch.resource:
            raise BlockedExportError("no resource", status=404, repair="configure(service_name=…)")
        return None

    def close(self) -> None:
        """Nothing to let go of."""


class RegionProcessor:
    """Adds an attribute."""

    def on_emit(self, record: AuditRecord) -> Mapping[str, Any] | None:
        """Where it runs."""
        return {"cloud.region": "eu-central-1"} if record.target is not None else None


class FixedClock:
    """Stands still."""

    def time_ns(self) -> int:
        """One second after the epoch."""
        return 1_000_000_000


class NoExporter:
    """Misses ``close``."""

    single_writer = False

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        """Do nothing."""


exporter: AuditRecordExporter = PrintingExporter()
processor: AuditRecordProcessor = RegionProcessor()
clock: Clock = FixedClock()
no_exporter: AuditRecordExporter = NoExporter()  # type: ignore[assignment]
