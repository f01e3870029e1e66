"""Certificates for tests of TLS: an authority, a server, clients, and what can be wrong with them."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import trustme

from support.ports import HOST


@dataclass(frozen=True)
class Certificate:
    """Files of a certificate with its key."""

    cert: Path
    key: Path


class Authority:
    """A certificate authority in a directory: it writes ``ca.crt`` there and ``tls.crt``, ``tls.key`` for a server.

    The three are named as the gateway's configurations want them in OTELCOL_TLS_DIR.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._authority = trustme.CA()
        self.ca = directory / "ca.crt"
        self._authority.cert_pem.write_to_path(self.ca)
        self.issue("tls")

    def issue(self, name: str, *, expired: bool = False) -> Certificate:
        """A certificate for this machine, good for servers and clients."""
        until = datetime.now(timezone.utc) - timedelta(hours=1) if expired else None
        since = datetime.now(timezone.utc) - timedelta(days=2) if expired else None
        issued = self._authority.issue_cert(HOST, "localhost", common_name=name, not_before=since, not_after=until)
        made = Certificate(self.directory / f"{name}.crt", self.directory / f"{name}.key")
        made.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(made.key)
        return made

    def context(self, client: Certificate | None = None) -> ssl.SSLContext:
        """For a client that trusts this authority and shows this certificate."""
        context = ssl.create_default_context(cafile=self.ca)
        if client is not None:
            context.load_cert_chain(client.cert, client.key)
        return context


def folder_of_certificates(directory: Path) -> Path:
    """An authority (``ca.crt``); ``server``, ``expired`` and ``client`` (``.crt`` and ``.key``); a file of ``junk``."""
    authority = Authority(directory)
    for name in ("server", "client"):
        authority.issue(name)
    authority.issue("expired", expired=True)
    (directory / "junk").write_text("no certificate\n", encoding="utf-8")
    return directory
