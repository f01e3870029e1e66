"""Requests with large bodies: few system calls, one time limit for all of it, and peers that do not read to the end."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpcore
import httpx
import pytest

from otel_audit.errors import ExportError, RetryableExportError
from otel_audit.exporters.answers import Answer
from otel_audit.exporters.deadline import Deadline, limit
from otel_audit.exporters.http_client import HTTP_OPTIONS, HttpClient
from otel_audit.testing import ScriptedReceiver
from support.certificates import folder_of_certificates

LARGE = bytes(range(256)) * 4096 * 16 + b"end"
"""16 MiB: more than the buffers of two sockets take."""
TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 4\r\n\r\nless"

each = pytest.mark.parametrize("scheme", ["http", "https"])


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of_certificates(tmp_path_factory.mktemp("tls"))


def server_side(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    return context


def client_of(port: int, scheme: str, certificates: Path) -> HttpClient:
    options: dict[str, Any] = {option.name: option.default for option in HTTP_OPTIONS}
    if scheme == "https":
        options["certificate"] = certificates / "ca.crt"
    return HttpClient(f"{scheme}://127.0.0.1:{port}/v1/logs", options, "test")


def send(client: HttpClient, content: bytes, timeout_s: float = 10.0) -> Answer:
    try:
        return client.send("POST", content, {"Content-Type": "text/plain"}, client.deadline(timeout_s))
    finally:
        client.close()


@contextlib.contextmanager
def peer(behave: Callable[[socket.socket], None], scheme: str, certificates: Path) -> Iterator[int]:
    """A server that treats its one connection as it is told; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            connection, _ = server.accept()
            if scheme == "https":
                connection = server_side(certificates).wrap_socket(connection, server_side=True)
            with connection, contextlib.suppress(OSError):
                behave(connection)

        thread = threading.Thread(target=run)
        thread.start()
        yield server.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


@each
def test_a_large_body_goes_in_few_steps(scheme: str, certificates: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After each step the interpreter has to be won back from a busy application."""
    steps: list[int] = []
    real = socket.socket.settimeout
    here = threading.get_ident()

    def count(self: socket.socket, value: float | None) -> None:
        if threading.get_ident() == here:
            steps.append(1)
        real(self, value)

    with ScriptedReceiver(tls=server_side(certificates) if scheme == "https" else None) as receiver:
        client = client_of(int(receiver.url.rpartition(":")[2]), scheme, certificates)
        headers, limit_at = {"Content-Type": "text/plain"}, client.deadline(30.0)
        client.send("POST", b"", headers, limit_at)
        monkeypatch.setattr(socket.socket, "settimeout", count, raising=False)
        answer = client.send("POST", LARGE, headers, limit_at)
        client.close()
        assert answer.status == 200
        assert [request.body for request in receiver.requests] == [b"", LARGE]
    assert len(steps) <= 6, "the head, the body and two or three reads"


@each
def test_a_peer_that_reads_a_little_now_and_then(scheme: str, certificates: Path) -> None:
    """The time is for the whole request, however often some of it is taken."""
    stop = threading.Event()

    def behave(connection: socket.socket) -> None:
        while not stop.wait(0.02) and connection.recv(20_000):
            pass

    with peer(behave, scheme, certificates) as port:
        begun = time.monotonic()
        with pytest.raises(RetryableExportError, match="did not answer within"):
            send(client_of(port, scheme, certificates), LARGE, 0.5)
        assert 0.5 <= time.monotonic() - begun < 1.5
        stop.set()


@each
def test_a_peer_that_is_gone_in_the_middle(scheme: str, certificates: Path) -> None:
    """Worth another try, and at once."""

    def behave(connection: socket.socket) -> None:
        connection.recv(100_000)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with peer(behave, scheme, certificates) as port:
        begun = time.monotonic()
        with pytest.raises(RetryableExportError):
            send(client_of(port, scheme, certificates), LARGE, 10.0)
        assert time.monotonic() - begun < 5.0


@pytest.mark.parametrize(("scheme", "reads"), [("http", True), ("http", False), ("https", True)])
def test_an_answer_before_all_is_read(scheme: str, reads: bool, certificates: Path) -> None:
    """It counts, whether the peer takes the rest or closes (over TLS a reset may take it away)."""

    def behave(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(TOO_LARGE)
        while reads and connection.recv(100_000):
            pass

    with peer(behave, scheme, certificates) as port:
        answer = send(client_of(port, scheme, certificates), LARGE)
        assert (answer.status, answer.body) == (413, b"less")


@each
def test_an_answer_to_who_goes_on_writing(scheme: str, certificates: Path) -> None:
    """A peer that has answered and neither reads nor closes: the time limit holds."""
    stop = threading.Event()

    def behave(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(TOO_LARGE)
        stop.wait(10)

    with peer(behave, scheme, certificates) as port:
        begun = time.monotonic()
        with pytest.raises(ExportError):
            send(client_of(port, scheme, certificates), LARGE, 0.4)
        assert time.monotonic() - begun < 1.5
        stop.set()


def connected(port: int) -> tuple[httpcore.NetworkStream, Deadline]:
    """A connection as the client's library makes it, and its deadline."""
    deadline = Deadline()
    with httpx.Client() as client:
        limit(client, deadline)
        backend: httpcore.NetworkBackend = client._transport._pool._network_backend  # type: ignore[attr-defined]
        return backend.connect_tcp("127.0.0.1", port, 5.0), deadline


def relay(outer: socket.socket, port: int) -> None:
    """Pass on what comes out of one connection into another one, and back."""
    assert isinstance(outer, ssl.SSLSocket)
    with socket.create_connection(("127.0.0.1", port)) as inner:
        while True:
            ready, _, _ = select.select([outer, inner], [], [], 5)
            if outer in ready:
                data = outer.recv(65_536)
                while outer.pending():
                    data += outer.recv(65_536)
                inner.sendall(data)
            else:
                data = inner.recv(65_536)
                outer.sendall(data)
            if not data:
                break


def test_tls_within_tls(certificates: Path) -> None:
    """As through a proxy that speaks TLS itself: nothing goes to the outer one past the inner one."""
    trust = ssl.create_default_context(cafile=certificates / "ca.crt")
    body = LARGE[: 1 << 20]
    with ScriptedReceiver(tls=server_side(certificates)) as receiver:
        port = int(receiver.url.rpartition(":")[2])
        with peer(lambda outer: relay(outer, port), "https", certificates) as outer_port:
            stream, deadline = connected(outer_port)
            stream = stream.start_tls(trust, "127.0.0.1", 5.0).start_tls(trust, "127.0.0.1", 5.0)
            stream.write(b"POST /v1/logs HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            assert stream.read(1000).startswith(b"HTTP/1.1 200")
            deadline.at = time.monotonic()
            with pytest.raises(httpcore.WriteTimeout):
                stream.write(b"more")
            stream.close()
        assert [request.body for request in receiver.requests] == [body]


def test_a_step_has_what_is_left_of_the_whole(certificates: Path) -> None:
    """The library's own time-out for one may be longer, or shorter."""
    stop = threading.Event()
    with peer(lambda _: stop.wait(10), "http", certificates) as port:
        stream, deadline = connected(port)
        for whole, step in ((0.3, 5.0), (5.0, 0.3), (0.3, None)):
            deadline.at = time.monotonic() + whole
            begun = time.monotonic()
            with pytest.raises(httpcore.WriteTimeout):
                stream.write(LARGE, step)
            assert 0.3 <= time.monotonic() - begun < 1.0
        deadline.at = time.monotonic()
        stream.write(b"")  # the library does that behind each body, and it takes no step
        stream.close()
        stop.set()
