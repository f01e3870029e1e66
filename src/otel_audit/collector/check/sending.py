"""Sends one request as an OTLP destination would, and says whether it was acknowledged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from ...errors import ConfigurationError, ExportError
from ...exporters.answers import error_of_answer
from ...exporters.grpc_client import GrpcClient
from ...exporters.http_client import HttpClient
from ...exporters.otlp_options import GRPC, HTTP_JSON, otlp_user_agent, read_otlp
from ...formats.otlp_answer import parse_logs_response

_WHERE = "collector check"
_GRPC_PORT: Final = 4317
_HTTP_PORT: Final = 4318


class Sender:
    """Speaks to the first hop.

    Args:
        options: ``endpoint`` and ``protocol`` of an OTLP destination, where they are given.
        environ: for what the options do not say: ``OTEL_EXPORTER_OTLP_…``, credentials and TLS files among it.

    Raises:
        ConfigurationError: an option or a variable is wrong.
    """

    def __init__(self, options: Mapping[str, Any], environ: Mapping[str, str]) -> None:
        read = read_otlp(options, environ, _WHERE)
        if read["protocol"] == HTTP_JSON:
            raise ConfigurationError("collector check: speaks http/protobuf and grpc, not http/json; say --protocol")
        self._client: GrpcClient | HttpClient
        if read["protocol"] == GRPC:
            self._client = GrpcClient(read["endpoint"], read, _WHERE, otlp_user_agent())
        else:
            self._client = HttpClient(read["endpoint"], read, _WHERE, otlp_user_agent())
        self.url = self._client.shown_url

    def send(self, content: bytes, timeout_s: float) -> str:
        """Send a request.

        Returns:
            Why it was not acknowledged; empty where it was.
        """
        deadline = self._client.deadline(timeout_s)
        try:
            if isinstance(self._client, GrpcClient):
                body, _ = self._client.send(content, deadline)
            else:
                answer = self._client.send("POST", content, {"Content-Type": "application/x-protobuf"}, deadline)
                if answer.status not in (200, 204):
                    raise error_of_answer(answer, self.url)
                body = answer.body
            partial = parse_logs_response(body) if body else None
        except ExportError as error:
            return "; ".join(filter(None, (str(error), self._repair(error))))
        except ValueError:
            return f"{self.url}: answered with something that is no OTLP"
        if partial is not None and partial.rejected:
            return f"{self.url}: took a part only, and refused {partial.rejected} records"
        return ""

    def _repair(self, error: ExportError) -> str | None:
        """What to do about it; OTLP has a port for each protocol."""
        grpc = isinstance(self._client, GrpcClient)
        if urlsplit(self.url).port != (_HTTP_PORT if grpc else _GRPC_PORT):
            return error.repair
        other = "4318 is OTLP over HTTP: --protocol http/protobuf" if grpc else "4317 is gRPC: --protocol grpc"
        return other if error.status == "protocol" or not error.repair else f"{error.repair}; {other}"

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()
