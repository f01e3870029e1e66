"""A receiver that answers by script: a real HTTP server on a free loopback port, for tests of delivery.

::

    with ScriptedReceiver(503, Reply.partial(1), Reply(reset="body")) as receiver:
        otel_audit.configure(destinations={"collector": {"type": "otlp", "endpoint": receiver.endpoint}}, …)
        …
        receiver.wait_for(records=10)
        assert receiver.record_ids == …

Each request takes the next reply of the script; when it is used up, the default one, which is success.  OTLP requests
are parsed; other bodies are kept as they are.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Final, Literal, TypeAlias

from .. import semconv as sc

PROTOBUF: Final = "application/x-protobuf"


@dataclass(frozen=True)
class Reply:
    """One answer, or one way of not giving it.

    Attributes:
        status: the HTTP status.
        headers: besides ``Content-Type`` (protobuf, unless it is given here; ``""`` leaves it out) and
            ``Content-Length``.
        body: the body; empty is OTLP's success.
        accept: whether the request's records count as taken; ``None``: where the status is from 200 to 299 and
            nothing below stops the answer.
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
    accept: bool | None = None
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

    @property
    def accepts(self) -> bool:
        """Whether the request's records count as taken."""
        if self.accept is not None:
            return self.accept
        return 200 <= self.status < 300 and not (self.hang or self.reset or self.raw is not None)


@dataclass(frozen=True)
class ReceivedRecord:
    """A record of an OTLP request, with plain values."""

    event_name: str
    attributes: Mapping[str, Any]
    body: Any
    resource: Mapping[str, Any]
    timestamp_ns: int
    observed_ns: int
    trace_id: str
    span_id: str
    severity_number: int
    severity_text: str

    @property
    def record_id(self) -> str:
        """``audit.record.id``; empty where there is none."""
        return str(self.attributes.get(sc.RECORD_ID, ""))


@dataclass(frozen=True)
class ReceivedRequest:
    """A request; the body is unpacked, ``records`` are those of OTLP."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    records: tuple[ReceivedRecord, ...] = ()

    @property
    def json(self) -> Any:
        """The body, where it is JSON."""
        return json.loads(self.body)


ReplyLike: TypeAlias = Reply | int | Callable[[ReceivedRequest], Reply]
"""A reply; a status; or a function that chooses the reply for a request."""


class ScriptedReceiver:
    """The receiver; a context manager.

    Args:
        script: what to answer to the first requests, one after the other.
        default: what to answer when the script is used up.
        tls: speak TLS by this server-side context.
    """

    def __init__(self, *script: ReplyLike, default: ReplyLike = 200, tls: ssl.SSLContext | None = None) -> None:
        self._script: deque[ReplyLike] = deque(script)
        self._default = default
        self._changed = threading.Condition()
        self._requests: list[ReceivedRequest] = []
        self._accepted: list[ReceivedRequest] = []
        self._records: list[ReceivedRecord] = []
        self.closing = threading.Event()
        self._server = _Server(self, tls)
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
        with self._changed:
            self._script.extend(replies)

    @property
    def requests(self) -> list[ReceivedRequest]:
        """Every request so far, whatever was answered."""
        with self._changed:
            return list(self._requests)

    @property
    def accepted_requests(self) -> list[ReceivedRequest]:
        """Those of :attr:`requests` that were taken."""
        with self._changed:
            return list(self._accepted)

    @property
    def records(self) -> list[ReceivedRecord]:
        """Every record that was taken, in order of arrival, doubles included."""
        with self._changed:
            return list(self._records)

    @property
    def record_ids(self) -> list[str]:
        """The ids of :attr:`records`."""
        return [record.record_id for record in self.records]

    def wait_for(self, *, records: int = 0, requests: int = 0, timeout_s: float = 10.0) -> None:
        """Wait until so many different records were taken and so many requests have come.

        Raises:
            TimeoutError: they did not in time.
        """
        ends = time.monotonic() + timeout_s
        with self._changed:
            while len({record.record_id for record in self._records}) < records or len(self._requests) < requests:
                left = ends - time.monotonic()
                if left <= 0:
                    wanted = f"{records} records, {requests} requests"
                    got = f"{len(self._records)} records, {len(self._requests)} requests"
                    raise TimeoutError(f"waited {timeout_s:.3g} s for {wanted}; got {got}")
                self._changed.wait(left)

    def reply_to(self, request: ReceivedRequest) -> Reply:
        """Note a request and choose the reply to it; called by the server's threads."""
        with self._changed:
            chosen = self._script.popleft() if self._script else self._default
            if isinstance(chosen, int):
                chosen = Reply(chosen)
            reply = chosen if isinstance(chosen, Reply) else chosen(request)
            self._requests.append(request)
            if reply.accepts:
                self._accepted.append(request)
                self._records.extend(request.records)
            self._changed.notify_all()
            return reply


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, receiver: ScriptedReceiver, tls: ssl.SSLContext | None) -> None:
        self.receiver = receiver
        self._tls = tls
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

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
    server: _Server

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        if headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        records = parse_otlp(body) if headers.get("content-type") == PROTOBUF else ()
        request = ReceivedRequest(self.command, self.path, headers, body, records)
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
        headers = {"Content-Type": PROTOBUF, **reply.headers}
        body = reply.body
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


def parse_otlp(body: bytes) -> tuple[ReceivedRecord, ...]:
    """The records of an ``ExportLogsServiceRequest``, in their order.

    Raises:
        ValueError: it is not one.
    """
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - heavy
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service  # noqa: PLC0415 - heavy

    try:
        request = service.ExportLogsServiceRequest.FromString(body)
    except DecodeError as error:
        raise ValueError("not an ExportLogsServiceRequest") from error
    return tuple(
        ReceivedRecord(
            event_name=log.event_name,
            attributes=_mapping(log.attributes),
            body=_value(log.body),
            resource=_mapping(group.resource.attributes),
            timestamp_ns=log.time_unix_nano,
            observed_ns=log.observed_time_unix_nano,
            trace_id=log.trace_id.hex(),
            span_id=log.span_id.hex(),
            severity_number=int(log.severity_number),
            severity_text=log.severity_text,
        )
        for group in request.resource_logs
        for scope in group.scope_logs
        for log in scope.log_records
    )


def _mapping(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    """An ``AnyValue`` as a plain one."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _mapping(value.kvlist_value.values)
    return getattr(value, kind)
