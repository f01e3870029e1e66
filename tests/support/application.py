"""An ordinary application for end-to-end tests: it logs through the standard library and through structlog.

Run as a program: ``application.py JOURNAL ENDPOINT COUNT IDS [PAUSE_S]``.  The id of each record is appended to the
file IDS with one ``write(2)`` after the call that logged it returned.  Ends with the JSON of ``flush()`` on standard
output.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import uuid

import structlog

import otel_audit


def main(journal: str, endpoint: str, count: str, ids: str, pause_s: str = "0") -> int:
    """Log ``count`` records, half of them each way, and deliver them."""
    destination = {"type": "otlp", "endpoint": endpoint, "delay": 0.05, "timeout": 5}
    otel_audit.configure(
        service_name="shop", journal=journal, destinations={"collector": destination}, loggers=["shop.audit"]
    )
    structlog.configure(
        processors=[otel_audit.StructlogAuditProcessor(), structlog.processors.JSONRenderer()],
        logger_factory=structlog.ReturnLoggerFactory(),
    )
    returned = os.open(ids, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    logger, events = logging.getLogger("shop.audit"), structlog.get_logger()
    for number in range(int(count)):
        record_id = str(uuid.uuid4())
        fields = {"record_id": record_id, "actor": f"u-{number % 97}", "outcome": "success", "amount": number}
        if number % 2:
            logger.info("order.create", extra={**fields, "target": f"order:{number}"})
        else:
            events.info("order.cancel", audit=True, target=f"order:{number}", **fields)
        os.write(returned, record_id.encode() + b"\n")
        if float(pause_s):
            time.sleep(float(pause_s))
    result = otel_audit.flush(60)
    print(json.dumps({"pending": result.pending, "dead": result.dead_lettered, "damaged": result.damaged}))
    otel_audit.shutdown(5)
    return 0 if result else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
