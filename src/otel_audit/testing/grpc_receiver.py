"""A gRPC receiver that answers by script: a real server on a free loopback port, for tests of delivery.

::

    with ScriptedGrpcReceiver("UNAVAILABLE", GrpcReply.partial(1), GrpcReply(reset=True)) as receiver:
        otel_audit.configure(
            destinations={"collector": {"type": "otlp", "protocol": "grpc", "endpoint": receiver.endpoint}}, …
        )
        …
        receiver.wait_for(records=10)

Each call takes the next reply of the script; when it is used up, the default one, which is success.  A process that has
such a server must not fork and go on with gRPC in the child: gRPC does not allow it.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .script import Accept, ReceivedRecord, ReceivedRequest, Script, parse_otlp

if TYPE_CHECKING:
    import grpc

_WORKERS: Final = 16


@dataclass(frozen=True)
class GrpcReply:
    """One answer, or one way of not giving it.

    Attributes:
        code: name of the gRPC code.
        message: what goes with a code that is not ``OK``.
        body: the message of an ``OK``; empty is OTLP's success.
        headers, trailers: metadata before and after; bytes where the name ends in ``-bin``.
        accept: whether the call's records count as taken, or a function that says so of each; ``None``: where the code
            is ``OK`` and nothing below stops the answer.
        delay_s: how long to wait before.
        hang: never answer; the connection stays open.
        reset: break the connection instead of answering.
    """

    code: str = "OK"
    message: str = ""
    body: bytes = b""
    headers: Mapping[str, str | bytes] = field(default_factory=dict)
    trailers: Mapping[str, str | bytes] = field(default_factory=dict)
    accept: Accept = None
    delay_s: float = 0.0
    hang: bool = False
    reset: bool = False

    @classmethod
    def partial(cls, rejected: int, message: str = "", *, accept: bool = False) -> GrpcReply:
        """OTLP's ``partial_success``."""
        from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service  # noqa: PLC0415 - heavy

        partial = service.ExportLogsPartialSuccess(rejected_log_records=rejected, error_message=message)
        body = service.ExportLogsServiceResponse(partial_success=partial).SerializeToString()
        return cls(body=body, accept=accept or rejected == 0)

    @classmethod
    def error(
        cls, code: str, message: str, *, retry_after_s: float | None = None, request_id: str = "", **metadata: str
    ) -> GrpcReply:
        """An error with a ``google.rpc.Status`` as trailer.

        Args:
            code: name of the gRPC code.
            message: of the status.
            retry_after_s: for a ``RetryInfo``.
            request_id: for a ``RequestInfo``.
            metadata: for an ``ErrorInfo``.
        """
        import grpc  # noqa: PLC0415 - heavy
        from google.rpc import error_details_pb2, status_pb2  # noqa: PLC0415 - heavy

        status = status_pb2.Status(code=grpc.StatusCode[code].value[0], message=message)
        found: list[Any] = []
        if retry_after_s is not None:
            info = error_details_pb2.RetryInfo()
            info.retry_delay.FromNanoseconds(int(retry_after_s * 1e9))
            found.append(info)
        if request_id:
            found.append(error_details_pb2.RequestInfo(request_id=request_id))
        if metadata:
            found.append(error_details_pb2.ErrorInfo(reason=code, metadata=metadata))
        for detail in found:
            status.details.add().Pack(detail)
        return cls(code, message, trailers={"grpc-status-details-bin": status.SerializeToString()})

    @classmethod
    def refusing(
        cls, refuses: Callable[[ReceivedRecord], bool], message: str = "refused"
    ) -> Callable[[ReceivedRequest], GrpcReply]:
        """For a script: take the records of a call but for some, and say how many those are."""

        def choose(request: ReceivedRequest) -> GrpcReply:
            refused = {id(record) for record in request.records if refuses(record)}
            reply = cls.partial(len(refused), message) if refused else cls()
            return replace(reply, accept=lambda record: id(record) not in refused)

        return choose

    @property
    def accepts(self) -> bool:
        """Whether the answer by itself says that everything is taken."""
        return self.code == "OK" and not (self.hang or self.reset)


GrpcReplyLike: TypeAlias = GrpcReply | str | Callable[[ReceivedRequest], GrpcReply]
"""A reply; the name of a code; or a function that chooses the reply for a call."""


class ScriptedGrpcReceiver(Script[GrpcReply]):
    """The receiver; a context manager.

    Args:
        script: what to answer to the first calls, one after the other.
        default: what to answer when the script is used up.
        tls: speak TLS by these credentials (``grpc.ssl_server_credentials``).
        port: where to listen on the loopback interface; 0: on a port that is free.
        message_bytes_max: the largest message that is taken.
    """

    def __init__(
        self,
        *script: GrpcReplyLike,
        default: GrpcReplyLike = "OK",
        tls: grpc.ServerCredentials | None = None,
        port: int = 0,
        message_bytes_max: int = 4 * 1024 * 1024,
    ) -> None:
        import grpc  # noqa: PLC0415 - heavy

        super().__init__(map(_reply, script), _reply(default))
        self._grpc: Any = grpc
        options = [("grpc.max_receive_message_length", message_bytes_max), ("grpc.so_reuseport", 0)]
        self._server: Any = grpc.server(ThreadPoolExecutor(_WORKERS, "scripted-receiver"), options=options)
        self._server.add_generic_rpc_handlers((_Methods(self._answer),))
        if tls is None:
            behind = self._server.add_insecure_port("127.0.0.1:0")
        else:
            behind = self._server.add_secure_port("127.0.0.1:0", tls)
        self._server.start()
        self._line = _Line(port, behind)
        self.port = self._line.port
        self.target = f"127.0.0.1:{self.port}"
        self.endpoint = f"{'https' if tls else 'http'}://{self.target}"

    def __enter__(self) -> ScriptedGrpcReceiver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening and break every open connection.  May be called twice."""
        if not self.closing.is_set():
            self._line.close()  # first, so that no answer of what hangs gets out
            self.closing.set()
            self._server.stop(0).wait(10)

    def script(self, *replies: GrpcReplyLike) -> None:
        """Add to the script."""
        super().script(*map(_reply, replies))

    def _answer(self, path: str, body: bytes, context: Any) -> bytes:
        headers = {str(key): str(value) for key, value in context.invocation_metadata()}
        reply = self.reply_to(ReceivedRequest("POST", path, headers, body, parse_otlp(body)))
        self.closing.wait(reply.delay_s)
        while reply.hang and context.is_active() and not self.closing.wait(0.02):
            pass
        if reply.reset:
            self._line.cut()
        if reply.headers:
            context.send_initial_metadata(tuple(reply.headers.items()))
        context.set_trailing_metadata(tuple(reply.trailers.items()))
        if reply.code != "OK":
            context.set_code(self._grpc.StatusCode[reply.code])
            context.set_details(reply.message)
        return reply.body


def _reply(reply: GrpcReplyLike) -> GrpcReply | Callable[[ReceivedRequest], GrpcReply]:
    return GrpcReply(reply) if isinstance(reply, str) else reply


class _Methods:
    """Every method is answered by one function, on bytes."""

    def __init__(self, answer: Callable[[str, bytes, Any], bytes]) -> None:
        self._answer = answer

    def service(self, details: Any) -> Any:
        import grpc  # noqa: PLC0415 - heavy

        path: str = details.method
        return grpc.unary_unary_rpc_method_handler(lambda body, context: self._answer(path, body, context))


class _Line:
    """Connects whoever comes with the server; can be cut."""

    def __init__(self, port: int, behind: int) -> None:
        self._behind = behind
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._broken: set[tuple[socket.socket, socket.socket]] = set()
        self._closed = False
        self._start(self._accept)

    def cut(self) -> None:
        """Break every connection so that the client sees a reset, not an end; nothing gets through from now on."""
        for pair in list(self._pairs):
            self._broken.add(pair)
            with contextlib.suppress(OSError):
                pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._wake(pair)

    def close(self) -> None:
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _start(self, run: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=run, args=arguments, name="scripted-receiver", daemon=True).start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._behind))
            except OSError:
                continue
            pair = (client, server)
            self._pairs.add(pair)
            self._start(self._pump, client, server, pair)
            self._start(self._pump, server, client, pair)

    def _pump(self, source: socket.socket, target: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        with contextlib.suppress(OSError, ValueError):
            while (data := source.recv(65_536)) and pair not in self._broken:
                target.sendall(data)
        self._end(pair)

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._wake(pair)
        self._pairs.discard(pair)
        for end in pair:
            end.close()

    def _wake(self, pair: tuple[socket.socket, socket.socket]) -> None:
        """End the reading of both; a close alone would not wake a thread that reads."""
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD)
