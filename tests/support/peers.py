"""An OTLP/gRPC peer that answers as it is told; for HTTP there is ``otel_audit.testing.ScriptedReceiver``."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

import grpc  # type: ignore[import-untyped]
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import (
    LogsServiceServicer,
    add_LogsServiceServicer_to_server,
)

from support.ports import HOST

Answer = Callable[[grpc.ServicerContext], service.ExportLogsServiceResponse]


def accept(_: grpc.ServicerContext) -> service.ExportLogsServiceResponse:
    """Success."""
    return service.ExportLogsServiceResponse()


def refuse(code: grpc.StatusCode, retry_after_s: int | None = None) -> Answer:
    """An error, with ``RetryInfo`` where a time is given."""

    def answer(context: grpc.ServicerContext) -> service.ExportLogsServiceResponse:
        if retry_after_s is not None:
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=retry_after_s)))
            status = status_pb2.Status(code=code.value[0], message="told to", details=[detail])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
        context.abort(code, "told to")
        raise AssertionError("abort raises")

    return answer


class GrpcPeer(LogsServiceServicer):  # type: ignore[misc]
    """The peer; a context manager.  Each request takes the next answer of the script; then all succeed."""

    def __init__(self, *script: Answer) -> None:
        self._script = list(script)
        self.accepted: list[service.ExportLogsServiceRequest] = []
        self.requests = 0
        self._server = grpc.server(ThreadPoolExecutor(4))
        add_LogsServiceServicer_to_server(self, self._server)
        self.url = f"http://{HOST}:{self._server.add_insecure_port(f'{HOST}:0')}"

    def __enter__(self) -> GrpcPeer:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()

    def Export(
        self, request: service.ExportLogsServiceRequest, context: grpc.ServicerContext
    ) -> service.ExportLogsServiceResponse:
        """What the service is called for."""
        self.requests += 1
        answer = (self._script.pop(0) if self._script else accept)(context)
        self.accepted.append(request)
        return answer
