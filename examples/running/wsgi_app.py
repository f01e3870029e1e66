"""A WSGI application that audits each request: gunicorn wsgi_app:app, with and without --preload.

Where the journal is and where its records go is said by the environment: OTEL_AUDIT_JOURNAL, OTEL_AUDIT_DESTINATIONS.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import otel_audit

otel_audit.configure(service_name="shop")  # once, at import; workers that are forked later go on with it
audit = otel_audit.get_audit_logger(__name__)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the process that served it and the id of the audit record, which is journaled by then."""
    receipt = audit.emit("order.create", actor=environ.get("HTTP_X_USER", "anonymous"), outcome="success")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {receipt.record_id}\n".encode()]
