"""Looks at the way to a destination: name, connection, TLS, clock.  Sends nothing but one HEAD without credentials."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import socket
import ssl
import time
import urllib.request
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from ...exporters.endpoint import Endpoint
from ...exporters.http_client import shown
from .facts import ReachFacts

_PORTS: Final = {"http": 80, "https": 443}


def reach(name: str, endpoint: Endpoint, timeout_s: float) -> ReachFacts | None:
    """What is seen of the way to a destination; ``None`` where its address is no URL with a host (a socket of gRPC).

    Args:
        name: the destination.
        endpoint: where it is.
        timeout_s: for each step, in seconds.
    """
    parts = urlsplit(endpoint.url)
    host = parts.hostname
    if parts.scheme not in _PORTS or not host:
        return None
    seen = ReachFacts(
        name=name,
        url=shown(endpoint.url),
        loopback=_is_loopback(host),
        secure=endpoint.secure,
        verified=endpoint.verified,
        proxy=_proxy(parts.scheme, host),
    )
    if seen.proxy:
        return seen
    port = parts.port or _PORTS[parts.scheme]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        return msgspec.structs.replace(seen, resolve_error=_said(error))
    seen = msgspec.structs.replace(seen, addresses=sorted({str(address[4][0]) for address in found}))
    try:
        connection = socket.create_connection((host, port), timeout_s)
    except OSError as error:
        return msgspec.structs.replace(seen, connect_error=_said(error))
    with connection:
        if endpoint.secure:
            seen = _greet(seen, connection, endpoint, host)
    if endpoint.http and not seen.tls_error:
        seen = msgspec.structs.replace(seen, clock_ahead_s=_clock_ahead_s(endpoint, timeout_s))
    return seen


def _greet(seen: ReachFacts, connection: socket.socket, endpoint: Endpoint, host: str) -> ReachFacts:
    try:
        with _context(endpoint).wrap_socket(connection, server_hostname=host) as secured:
            certificate: dict[str, Any] = secured.getpeercert() or {}
            ends = certificate.get("notAfter")
            left = ssl.cert_time_to_seconds(ends) - time.time() if ends else None
            return msgspec.structs.replace(seen, tls_version=secured.version() or "", certificate_left_s=left)
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        return msgspec.structs.replace(seen, tls_error=_said(error))


def _context(endpoint: Endpoint) -> ssl.SSLContext:
    if endpoint.certificate is not None:
        context = ssl.create_default_context(cafile=str(endpoint.certificate))
    else:
        import httpx  # noqa: PLC0415 - heavy

        context = httpx.create_ssl_context()
    if not endpoint.verified:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if endpoint.client_certificate is not None:
        context.load_cert_chain(endpoint.client_certificate, endpoint.client_key, password="")
    return context


def _clock_ahead_s(endpoint: Endpoint, timeout_s: float) -> float | None:
    """How far we are ahead of the receiver's ``Date``, which has whole seconds; ``None`` where it says none."""
    import httpx  # noqa: PLC0415 - heavy

    with contextlib.suppress(httpx.HTTPError, OSError, ValueError, TypeError):
        verify = _context(endpoint) if endpoint.secure else True
        with httpx.Client(verify=verify, trust_env=False, timeout=timeout_s) as client:
            begun = time.time()
            answer = client.head(endpoint.url)
            ended = time.time()
        theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp() + 0.5
        ahead = (begun + ended) / 2 - theirs
        unsure = (ended - begun) / 2  # it may have been written at any moment in between
        return math.copysign(max(abs(ahead) - unsure, 0.0), ahead)
    return None


def _proxy(scheme: str, host: str) -> str:
    """The proxy that the environment names for this host, without credentials."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(scheme) or proxies.get("all", "")
    if not proxy or urllib.request.proxy_bypass(host):
        return ""
    return shown(proxy if "://" in proxy else f"http://{proxy}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _said(error: Exception) -> str:
    return str(getattr(error, "verify_message", "") or getattr(error, "strerror", "") or error) or type(error).__name__
