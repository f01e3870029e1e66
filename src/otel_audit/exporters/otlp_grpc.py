"""OTLP over gRPC: a batch is acknowledged only when the receiver took all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from ..batch import RecordBatch
from ..errors import BlockedExportError, RejectedExportError
from ..formats.otlp import encode_logs_request
from ..formats.otlp_answer import parse_logs_response
from ..options import Option, read_options
from ..protocols import ExportResult
from .answers import rejected_in_part, request_id_of
from .endpoint import Endpoint
from .grpc_client import GrpcClient
from .otlp_options import (
    GRPC,
    GRPC_ENDPOINT,
    OTLP_GRPC_OPTIONS,
    REQUEST_BYTES,
    grpc_endpoint,
    otlp_user_agent,
    read_otlp,
    send_in_parts,
)


class OtlpGrpcExporter:
    """Sends batches by OTLP/gRPC.  The arguments are explained in :attr:`OPTIONS`.

    The constructor reads no environment; :meth:`from_options` does.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    OPTIONS: ClassVar[tuple[Option, ...]] = OTLP_GRPC_OPTIONS

    single_writer = False

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | str | None = None,
        compression: str = "none",
        certificate: Any = None,
        client_certificate: Any = None,
        client_key: Any = None,
        request_bytes: int | str = REQUEST_BYTES,
        insecure: bool = False,
        keepalive: float | str | None = None,
        where: str = "OtlpGrpcExporter",
    ) -> None:
        given = {
            "endpoint": endpoint,
            "headers": headers,
            "timeout": timeout,
            "compression": compression,
            "certificate": certificate,
            "client_certificate": client_certificate,
            "client_key": client_key,
            "request_bytes": request_bytes,
            "insecure": insecure,
            "keepalive": keepalive,
        }
        read = read_options(self.OPTIONS, where, given)
        text = read["endpoint"] or GRPC_ENDPOINT
        read["endpoint"] = grpc_endpoint(text, f"{where}.endpoint", insecure=read["insecure"])
        self._start(read, where)

    def _start(self, read: Mapping[str, Any], where: str) -> None:
        self._request_bytes: int = read["request_bytes"]
        self._client = GrpcClient(read["endpoint"], read, where, otlp_user_agent())

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], environ: Mapping[str, str], *, where: str = "otlp"
    ) -> OtlpGrpcExporter:
        """The exporter that these options describe, and the environment where they say nothing.

        What is read from the environment stands in :func:`~otel_audit.exporters.otlp_options.read_otlp`; the
        protocol is gRPC, whatever it says.

        Raises:
            ConfigurationError: an option or an environment variable is unknown or wrong.
        """
        return cls.from_read(read_otlp({**options, "protocol": GRPC}, environ, where), where)

    @classmethod
    def from_read(cls, read: Mapping[str, Any], where: str) -> OtlpGrpcExporter:
        """The exporter for what :func:`~otel_audit.exporters.otlp_options.read_otlp` gave.

        Raises:
            ConfigurationError: a header, or the files for TLS.
        """
        self = cls.__new__(cls)
        self._start(read, where)
        return self

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        """Deliver the whole batch: in one request, or in several where one would be too large.

        Raises:
            RetryableExportError, BlockedExportError, RejectedExportError: it was not taken, or not all of it;
                ``accepted`` says how many records from the start were.
        """
        deadline = self._client.deadline(timeout_s)

        def send(content: bytes, part: RecordBatch) -> None:
            try:
                answer, headers = self._client.send(content, deadline)
            except RejectedExportError as error:
                # The receiver has this very record: a conflict with itself is none.
                if len(part.records) == 1 and error.details.get("integrity_hash") == part.records[0].sha256:
                    return
                raise
            self._judge(answer, headers, len(part.records))

        send_in_parts(batch, self._request_bytes, encode_logs_request, send)
        return None

    def close(self) -> None:
        """Let go of the connection.  May be called twice."""
        self._client.close()

    @property
    def endpoint(self) -> Endpoint:
        """Where it sends to."""
        return self._client.endpoint

    def __repr__(self) -> str:
        return f"<OtlpGrpcExporter {self._client.shown_url}>"

    def _judge(self, answer: bytes, headers: Mapping[str, Any], count: int) -> None:
        """Return where all records were taken, raise where not, or where it cannot be known."""
        who, request_id = self._client.shown_url, request_id_of(headers)
        try:
            partial = parse_logs_response(answer)
        except ValueError:
            raise BlockedExportError(
                f"{who} answered OK, but its message is not that of an OTLP receiver",
                status="OK",
                repair="something that is not the receiver answers there: check host and port, and proxies on the way",
                request_id=request_id,
            ) from None
        if partial is not None and partial.rejected:
            partial = replace(partial, message=self._client.cover(partial.message))
            raise rejected_in_part(partial, who, count, "OK", request_id)
