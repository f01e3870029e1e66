"""A small billing service that audits in three ways: with logging, with structlog and with `emit`.

    python examples/billing.py [JOURNAL]

Without an argument the journal is a temporary directory. The records stay in the journal: to deliver them to an
OpenTelemetry Collector on this machine, write `destinations={"collector": "otlp"}` below. `otel-audit tail` shows them,
`otel-audit status` how far they are.
"""

from __future__ import annotations

import logging
import sys
import tempfile

import structlog

import otel_audit
from otel_audit import Actor, AuditReceipt, Target, audit_context

audit_logger = logging.getLogger("billing.audit")
log = structlog.get_logger()
audit = otel_audit.get_audit_logger("billing")


def log_in(user: str, *, right: bool) -> None:
    """A user logs in. Code that logs already needs `extra` and nothing else."""
    audit_logger.info("user.login", extra={"outcome": "success" if right else "failure", "method": "password"})


def export(invoice: int) -> None:
    """An invoice leaves the house. With structlog, `audit=True` says which events are audit events."""
    log.info("invoice.export", audit=True, outcome="success", target=f"invoice:{invoice}", format="pdf")
    log.info("rendered", pages=3)  # an ordinary event: not in the journal


def grant(role: str, to: str) -> AuditReceipt:
    """Somebody may do more than before. `emit` knows all fields, checks them, and gives a receipt."""
    return audit.emit(
        "permission.grant",
        target=Target(role, type="role"),
        outcome="success",
        reason="ticket 4711",
        attributes={"grantee": to},
    )


def delete(invoice: int) -> AuditReceipt:
    """An invoice is deleted. On return the record survives a power failure, or `emit` has raised."""
    return audit.emit(
        "invoice.delete", target=Target(str(invoice), type="invoice"), outcome="success", durability="disk"
    )


def answer_requests() -> None:
    """What happens in a request has the same actor, tenant and request id: said once."""
    with audit_context(actor=Actor("u-42"), tenant="acme", request_id="r-1"):
        log_in("u-42", right=True)
        export(7)
        print("granted:", grant("accountant", to="u-7").record_id)
        print("deleted:", delete(7).durability)


def main(journal: str) -> None:
    """Configure once, at the start of the process; work; end in order."""
    structlog.configure(processors=[otel_audit.StructlogAuditProcessor(), structlog.processors.JSONRenderer()])
    otel_audit.configure(
        service_name="billing",
        journal=journal,
        destinations={},
        loggers=["billing.audit"],
        allow_volatile=True,  # the temporary directory may be in memory; leave it out where it matters
    )
    answer_requests()
    status = otel_audit.status()
    print(f"{status.records} records in {status.journal}, the journal's own among them")
    otel_audit.shutdown()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(directory)
