"""OTLP over HTTP, as protobuf or JSON: a batch is acknowledged only when the receiver took all of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from ..batch import RecordBatch
from ..errors import ConfigurationError
from ..formats.otlp import encode_logs_request
from ..formats.otlp_answer import PartialSuccess, parse_logs_response, parse_logs_response_json
from ..formats.otlp_json import encode_logs_request_json
from ..options import Option, read_options
from ..protocols import ExportResult
from .answers import (
    Answer,
    clean,
    error_of_answer,
    is_conflict_with_itself,
    not_understood,
    rejected_in_part,
    request_id_of,
)
from .endpoint import Endpoint
from .http_client import HttpClient
from .otlp_options import (
    GRPC,
    HTTP_ENDPOINT,
    HTTP_JSON,
    HTTP_PROTOBUF,
    OTLP_HTTP_OPTIONS,
    REQUEST_BYTES,
    http_endpoint,
    otlp_user_agent,
    read_otlp,
    send_in_parts,
)


@dataclass(frozen=True)
class _Wire:
    """One of the two ways to write requests and answers."""

    content_type: str
    encode: Callable[[RecordBatch, Callable[[], object]], bytes]
    parse: Callable[[bytes], PartialSuccess | None]


_WIRES: Final = {
    HTTP_PROTOBUF: _Wire("application/x-protobuf", encode_logs_request, parse_logs_response),
    HTTP_JSON: _Wire("application/json", encode_logs_request_json, parse_logs_response_json),
}

_PATH_HINT: Final = "OTLP receivers listen on /v1/logs unless they were configured otherwise"


class OtlpHttpExporter:
    """Sends batches by OTLP/HTTP.  The arguments are explained in :attr:`OPTIONS`.

    The constructor reads no environment; :meth:`from_options` does.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    OPTIONS: ClassVar[tuple[Option, ...]] = OTLP_HTTP_OPTIONS

    single_writer = False

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        protocol: str = HTTP_PROTOBUF,
        headers: Mapping[str, str] | None = None,
        timeout: float | str | None = None,
        compression: str = "none",
        certificate: Any = None,
        client_certificate: Any = None,
        client_key: Any = None,
        verify_tls: bool = True,
        request_bytes: int | str = REQUEST_BYTES,
        where: str = "OtlpHttpExporter",
    ) -> None:
        given = {
            "endpoint": endpoint,
            "protocol": protocol,
            "headers": headers,
            "timeout": timeout,
            "compression": compression,
            "certificate": certificate,
            "client_certificate": client_certificate,
            "client_key": client_key,
            "verify_tls": verify_tls,
            "request_bytes": request_bytes,
        }
        read = read_options(self.OPTIONS, where, given)
        read["endpoint"] = http_endpoint(read["endpoint"] or HTTP_ENDPOINT, f"{where}.endpoint")
        self._start(read, where)

    def _start(self, read: Mapping[str, Any], where: str) -> None:
        self._wire = _WIRES[read["protocol"]]
        self._request_bytes: int = read["request_bytes"]
        self._client = HttpClient(read["endpoint"], read, where, otlp_user_agent())

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], environ: Mapping[str, str], *, where: str = "otlp"
    ) -> OtlpHttpExporter:
        """The exporter that these options describe, and the environment where they say nothing.

        What is read from the environment stands in :func:`~otel_audit.exporters.otlp_options.read_otlp`.

        Raises:
            ConfigurationError: an option or an environment variable is unknown or wrong, or asks for gRPC.
        """
        read = read_otlp(options, environ, where)
        if read["protocol"] == GRPC:
            raise ConfigurationError(f"{where}.protocol: this exporter speaks HTTP; OtlpGrpcExporter speaks grpc")
        return cls.from_read(read, where)

    @classmethod
    def from_read(cls, read: Mapping[str, Any], where: str) -> OtlpHttpExporter:
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
            answer = self._client.send("POST", content, {"Content-Type": self._wire.content_type}, deadline)
            self._judge(answer, part)

        send_in_parts(batch, self._request_bytes, self._wire.encode, send)
        return None

    def close(self) -> None:
        """Let go of the connection.  May be called twice."""
        self._client.close()

    @property
    def endpoint(self) -> Endpoint:
        """Where it sends to."""
        return self._client.endpoint

    def __repr__(self) -> str:
        return f"<OtlpHttpExporter {self._client.shown_url}>"

    def _judge(self, answer: Answer, part: RecordBatch) -> None:
        """Return where all records were taken, raise where not, or where it cannot be known."""
        who, expected = self._client.shown_url, self._wire.content_type
        if answer.status == 204:
            return
        if answer.status != 200:
            if len(part.records) == 1 and is_conflict_with_itself(answer, part.records[0].sha256):
                return
            raise error_of_answer(answer, who, path_hint=_PATH_HINT)
        if answer.content_type not in ((expected,) if answer.body else (expected, "")):
            raise not_understood(answer, who, f"with {clean(answer.content_type) or 'no content type'}, not {expected}")
        if not answer.whole:
            raise not_understood(answer, who, "its body is longer than an OTLP answer, or damaged")
        try:
            partial = self._wire.parse(answer.body) if answer.body else None
        except ValueError:
            raise not_understood(answer, who, "its body is not that of an OTLP receiver") from None
        if partial is not None and partial.rejected:
            raise rejected_in_part(partial, who, len(part.records), 200, request_id_of(answer.headers))
