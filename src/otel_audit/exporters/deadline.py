"""A time limit for a whole HTTP exchange, whatever the peer does; loaded with the HTTP library.

An HTTP client's time-outs hold for one read or write each, so a peer that sends a byte now and then holds it for ever.
Here every step gets only what is left of the whole.  Looking up a name is the one step that cannot be limited.
"""

from __future__ import annotations

import math
import socket
import ssl
import time
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

_PIECE_BYTES = 65_536


class Deadline:
    """The moment, on the monotonic clock, by which the current exchange has to be over."""

    def __init__(self) -> None:
        self.at = math.inf

    def left(self, timeout: float | None, error: type[Exception]) -> float | None:
        """What a step may take; raises the error where nothing is left."""
        left = self.at - time.monotonic()
        if left <= 0:
            raise error("the time for the whole exchange is over")
        if timeout is None:
            return None if left == math.inf else left
        return min(timeout, left)


def limit(client: httpx.Client, deadline: Deadline) -> None:
    """Make all connections of a client keep the deadline.

    The place for it is not public in httpx.  Where a later one has it elsewhere, its own time-outs per step remain.
    """
    transports = [client._transport, *client._mounts.values()]  # noqa: SLF001
    for transport in transports:
        pool = getattr(transport, "_pool", None)
        backend = getattr(pool, "_network_backend", None)
        if pool is not None and backend is not None:
            pool._network_backend = _Backend(backend, deadline)  # noqa: SLF001


class _Backend(httpcore.NetworkBackend):
    def __init__(self, inner: httpcore.NetworkBackend, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Try every address of the host, each with its share of the time that is left."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        failure: Exception | None = None
        for index, address in enumerate(addresses):
            left = self._deadline.left(timeout, httpcore.ConnectTimeout)
            share = None if left is None else left / (len(addresses) - index)
            try:
                stream = self._inner.connect_tcp(address, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
            else:
                return _Stream(stream, self._deadline)
        raise failure or httpcore.ConnectError("the host has no address")

    def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[Any] | None = None
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.connect_unix_socket(path, left, socket_options), self._deadline)


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline
        self._socket = _socket_of(inner)

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if not buffer:
            return
        if self._socket is None:
            self._write_pieces(buffer, timeout)
            return
        left = self._deadline.left(timeout, httpcore.WriteTimeout)
        try:
            self._socket.settimeout(left)
            self._socket.sendall(buffer)  # its time-out is for all of it; TLS sends all of it in one step
        except TimeoutError as error:
            raise httpcore.WriteTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    def _write_pieces(self, buffer: bytes, timeout: float | None) -> None:
        """The inner stream's time-out is for each step that it takes, so it is given little at a time."""
        for start in range(0, len(buffer), _PIECE_BYTES):
            piece = bytes(buffer[start : start + _PIECE_BYTES])
            self._inner.write(piece, self._deadline.left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _socket_of(stream: httpcore.NetworkStream) -> socket.socket | None:
    """The socket that a stream writes to as it is; ``None`` where the stream encrypts by itself, for TLS within TLS."""
    found = stream.get_extra_info("socket")
    encrypts = stream.get_extra_info("ssl_object")
    if isinstance(found, socket.socket) and encrypts is getattr(found, "_sslobj", None):
        return found
    return None
