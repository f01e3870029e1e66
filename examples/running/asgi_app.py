"""An ASGI application that audits each request: uvicorn asgi_app:app.

Where the journal is and where its records go is said by the environment: OTEL_AUDIT_JOURNAL, OTEL_AUDIT_DESTINATIONS.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import otel_audit

otel_audit.configure(service_name="shop")
audit = otel_audit.get_audit_logger(__name__)


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[dict[str, Any]], Awaitable[None]]
) -> None:
    """Answer with the process that served it and the id of the audit record; the event loop waits for no disk."""
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])  # uvicorn goes on without a lifespan
    receipt = await audit.aemit("order.create", actor="anonymous", outcome="success")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": f"{os.getpid()} {receipt.record_id}\n".encode()})
