"""A receiver that answers by script: a real HTTP server on a free loopback port, for tests of delivery.

::

    with ScriptedReceiver(503, Reply.partial(1), Reply(reset="body")) as receiver:
        otel_audit.configure(destinations={"collector": {"type": "otlp", "endpoint": receiver.endpoint}}, …)
        …
        receiver.wait_for(records=10)
        assert receiver.record_ids == …

Each request takes the next reply of the script; when it is used up, the default one, which is success.  OTLP requests,
protobuf or JSON, are parsed and answered in their own language; other bodies are kept as they are.
``grpc_receiver`` has the same for gRPC.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias

from .script import Accept, ReceivedRecord, ReceivedRequest, Script, parse_otlp, parse_otlp_json

PROTOBUF: Final = "application/x-protobuf"
JSON: Final = "application/json"


@dataclass(frozen=True)
class Reply:
    """One answer, or one way of not giving it.

    Attributes:
        status: the HTTP status.
        headers: besides ``Content-Type`` (OTLP's, in the language of the request, unless it is given here; ``""``
            leaves it out) and ``Content-Length``.
        body: the body; empty is OTLP's success.  An OTLP message in protobuf is turned into JSON for a request in
            JSON, unless ``headers`` has a ``Content-Type``.
        accept: whether the request's records count as taken, or a function that says so of each; ``None``: where the
            status is from 200 to 299 and nothing below stops the answer.
        delay_s: how long to wait before.
        hang: never answer; the connection stays open.
        reset: break the connection instead of answering (``"before"``), within the headers, or within the body.
        endless: after the body, go on with more of it until the client goes away.
        raw: send exactly this instead of an answer, then close.
        trickle_s: how long to wait between two bytes of ``raw``, or two pieces of an ``endless`` body.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    accept: Accept = None
    delay_s: float = 0.0
    hang: bool = False
    reset: Literal["", "before", "headers", "body"] = ""
    endless: bool = False
    raw: bytes | None = None
    trickle_s: float = 0.0

    @classmethod
    def partial(cls, rejected: int, message: str = "", *, accept: bool = False) -> Reply:
        """OTLP's ``partial_success``."""
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service  # noqa: PLC0415 - heavy

        partial = service.ExportLogsPartialSuccess(rejected_log_records=rejected, error_message=message)
        body = service.ExportLogsServiceResponse(partial_success=partial).SerializeToString()
        return cls(body=body, accept=accept or rejected == 0)

    @classmethod
    def error(cls, status: int, message: str, **headers: str) -> Reply:
        """An error with OTLP's ``Status`` as body; an underscore in a header's name stands for a hyphen."""
        from google.rpc import status_pb2  # noqa: PLC0415 - heavy

        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status, named, status_pb2.Status(message=message).SerializeToString())

    @classmethod
    def refusing(
        cls, refuses: Callable[[ReceivedRecord], bool], message: str = "refused"
    ) -> Callable[[ReceivedRequest], Reply]:
        """For a script: take the records of a request but for some, and say how many those are."""

        def choose(request: ReceivedRequest) -> Reply:
            refused = {id(record) for record in request.records if refuses(record)}
            reply = cls.partial(len(refused), message) if refused else cls()
            return replace(reply, accept=lambda record: id(record) not in refused)

        return choose

    @property
    def accepts(self) -> bool:
        """Whether the answer by itself says that everything is taken."""
        return 200 <= self.status < 300 and not (self.hang or self.reset or self.raw is not None)


ReplyLike: TypeAlias = Reply | int | Callable[[ReceivedRequest], Reply]
"""A reply; a status; or a function that chooses the reply for a request."""


class ScriptedReceiver(Script[Reply]):
    """The receiver; a context manager.

    Args:
        script: what to answer to the first requests, one after the other.
        default: what to answer when the script is used up.
        tls: speak TLS by this server-side context.
        port: where to listen on the loopback interface; 0: on a port that is free.
    """

    def __init__(
        self, *script: ReplyLike, default: ReplyLike = 200, tls: ssl.SSLContext | None = None, port: int = 0
    ) -> None:
        super().__init__(map(_reply, script), _reply(default))
        self._server = _Server(self, tls, port)
        self.port: int = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self.endpoint = f"{self.url}/v1/logs"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), name="scripted-receiver", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> ScriptedReceiver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and break every open connection.  May be called twice."""
        if not self.closing.is_set():
            self.closing.set()
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()

    def script(self, *replies: ReplyLike) -> None:
        """Add to the script."""
        super().script(*map(_reply, replies))


def _reply(reply: ReplyLike) -> Reply | Callable[[ReceivedRequest], Reply]:
    return Reply(reply) if isinstance(reply, int) else reply


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, receiver: ScriptedReceiver, tls: ssl.SSLContext | None, port: int) -> None:
        self.receiver = receiver
        self._tls = tls
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self._tls is not None:
            # The handshake comes with the first read, in the connection's own thread.
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is what tests are about."""

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # an answer goes in two writes, and the second would wait 40 ms for the first
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request = ReceivedRequest(self.command, self.path, headers, body, _records(headers.get("content-type"), body))
        self._json = headers.get("content-type") == JSON and bool(request.records)
        self._reply(self.server.receiver.reply_to(request))

    do_PUT = do_PATCH = do_GET = do_CONNECT = do_POST  # noqa: N815 - the server's names

    def _reply(self, reply: Reply) -> None:
        closing = self.server.receiver.closing
        closing.wait(reply.delay_s)
        if reply.hang:
            closing.wait()
        elif reply.raw is not None:
            for start in range(len(reply.raw)) if reply.trickle_s else (0,):
                self.wfile.write(reply.raw[start : start + 1] if reply.trickle_s else reply.raw)
                if closing.wait(reply.trickle_s):
                    break
            self.close_connection = True
        elif reply.reset == "before":
            self._reset()
        else:
            self._answer(reply)

    def _answer(self, reply: Reply) -> None:
        headers = {"Content-Type": JSON if self._json else PROTOBUF, **reply.headers}
        body = reply.body
        if self._json and "Content-Type" not in reply.headers:
            body = _as_json(body, reply.status)
        if reply.endless:
            headers["Transfer-Encoding"] = "chunked"
        elif reply.status != 204:
            headers["Content-Length"] = str(len(body) + (10 if reply.reset else 0))
        self.send_response(reply.status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        if reply.reset == "headers":
            self.flush_headers()
            self._reset()
            return
        self.end_headers()
        if not reply.endless:
            self.wfile.write(body)
        if reply.reset:
            self._reset()
        while reply.endless and not self.server.receiver.closing.wait(reply.trickle_s):
            piece = body or b"more"
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")

    def _reset(self) -> None:
        """Close so that the client sees a reset, not an end."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


def _records(content_type: str | None, body: bytes) -> tuple[ReceivedRecord, ...]:
    """The records of an OTLP request; none where it is something else."""
    if content_type == PROTOBUF:
        return parse_otlp(body)
    if content_type == JSON and body.startswith(b'{"resourceLogs"'):
        return parse_otlp_json(body)
    return ()


def _as_json(body: bytes, status: int) -> bytes:
    """An OTLP message in JSON; what is none stays as it is."""
    from google.protobuf.json_format import MessageToJson  # noqa: PLC0415 - heavy
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - heavy
    from google.rpc import status_pb2  # noqa: PLC0415 - heavy
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service  # noqa: PLC0415 - heavy

    kind: Any = service.ExportLogsServiceResponse if 200 <= status < 300 else status_pb2.Status
    try:
        return MessageToJson(kind.FromString(body), indent=None).encode()
    except DecodeError:
        return body
