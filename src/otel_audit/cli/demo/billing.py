"""The application of the demonstration: a billing service that audits in three ways, until it is stopped or killed.

Run as ``python -m otel_audit.cli.demo.billing JOURNAL ENDPOINT NOTES LOG``.  It ends in order on SIGTERM, and at once
when its standard input ends, so that it never outlives who started it.
"""

from __future__ import annotations

import itertools
import logging
import os
import random
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from ...capture.structlog import StructlogAuditProcessor
from ...context import audit_context
from ...default import configure, get_audit_logger, shutdown
from ...record import Actor, Target
from .agreed import DESTINATION, RETENTION, UNWANTED

SHUTDOWN_S: Final = 3.0
PAUSE_S: Final = 0.012


class Billing:
    """What the service does; every method is one operation, audited in the way that suits it.

    Args:
        note: called with a record's id and the way it was emitted, after the call that emitted it has returned.
    """

    def __init__(self, note: Callable[[str, str], None]) -> None:
        self._note = note
        self._logger = logging.getLogger("billing.audit")
        self._structlog: Any = structlog.get_logger()
        self._audit = get_audit_logger("billing")

    def log_in(self, user: str, *, right: bool) -> None:
        """A user logs in; audited through :mod:`logging`."""
        record_id = str(uuid.uuid4())
        outcome = "success" if right else "failure"
        self._logger.info("user.login", extra={"record_id": record_id, "outcome": outcome, "method": "password"})
        self._note(record_id, "logging")

    def export(self, invoice: int) -> None:
        """An invoice leaves the house; audited through structlog."""
        record_id = str(uuid.uuid4())
        self._structlog.info(
            "invoice.export",
            audit=True,
            record_id=record_id,
            outcome="success",
            target=f"invoice:{invoice}",
            format="pdf",
        )
        self._note(record_id, "structlog")

    def grant(self, role: str, to: str) -> None:
        """Somebody may do more than before; audited with ``emit``."""
        receipt = self._audit.emit(
            "permission.grant",
            target=Target(role, type="role"),
            outcome="success",
            reason="ticket 4711",
            attributes={"grantee": to},
        )
        self._note(receipt.record_id, "emit")

    def delete(self, invoice: int) -> None:
        """An invoice is deleted; that has to survive a power failure too."""
        receipt = self._audit.emit(
            "invoice.delete", target=Target(str(invoice), type="invoice"), outcome="success", durability="disk"
        )
        self._note(receipt.record_id, "emit")

    def bring_in(self, invoice: int) -> None:
        """An event that no receiver was told about."""
        receipt = self._audit.emit(UNWANTED, target=Target(str(invoice), type="invoice"), outcome="success")
        self._note(receipt.record_id, "emit")


def serve(billing: Billing, stopped: Callable[[], bool]) -> None:
    """Answer made-up requests until it is told to stop."""
    draw = random.Random()  # noqa: S311 - made-up requests
    for number in itertools.count(1):
        if stopped():
            return
        user = f"u-{draw.randrange(100)}"
        with audit_context(actor=Actor(user), tenant="acme", request_id=str(uuid.uuid4())):
            billing.log_in(user, right=draw.random() > 0.1)
            billing.export(draw.randrange(10_000))
            if number % 3 == 0:
                billing.grant("accountant", to=f"u-{draw.randrange(100)}")
            if number % 20 == 0:
                billing.delete(draw.randrange(10_000))
            if number == 40:
                billing.bring_in(draw.randrange(10_000))
        time.sleep(draw.uniform(0, 2 * PAUSE_S))


def main(journal: str, endpoint: str, notes: str, log: str) -> None:
    """Set up, serve, end in order."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso"),
            StructlogAuditProcessor(),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(Path(log).open("a", encoding="utf-8")),  # noqa: SIM115 - stays open
    )
    configure(
        service_name="billing",
        journal=journal,
        destinations={DESTINATION: {"type": "otlp", "endpoint": endpoint}},
        loggers=["billing.audit"],
        retention=RETENTION,
        exit_timeout=SHUTDOWN_S,
        allow_volatile=True,
    )
    fd = os.open(notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    serve(Billing(lambda record_id, way: _write(fd, record_id, way)), lambda: bool(asked))
    shutdown(SHUTDOWN_S)


def _write(fd: int, record_id: str, way: str) -> None:
    os.write(fd, f"{record_id} {way}\n".encode())


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
