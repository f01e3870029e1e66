"""Where an exporter sends to, for whoever looks at the way there (``otel-audit doctor``)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Endpoint(NamedTuple):
    """Where an exporter sends to.  An exporter over a network has one as its attribute ``endpoint``.

    Attributes:
        url: without credentials.
        secure: whether it speaks TLS.
        verified: whether it checks the receiver's certificate.
        certificate, client_certificate, client_key: files for TLS, in PEM.
        http: whether it speaks HTTP/1.1, so that any request gets an answer.
    """

    url: str
    secure: bool
    verified: bool = True
    certificate: Path | None = None
    client_certificate: Path | None = None
    client_key: Path | None = None
    http: bool = True
