"""The destination type ``otlp``: chooses the exporter by protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from ..options import Option
from .otlp_grpc import OtlpGrpcExporter
from .otlp_http import OtlpHttpExporter
from .otlp_options import GRPC, OTLP_OPTIONS, read_otlp


class OtlpExporter:
    """Makes the exporter that the option ``protocol``, or the environment, asks for."""

    OPTIONS: ClassVar[tuple[Option, ...]] = OTLP_OPTIONS

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], environ: Mapping[str, str], *, where: str = "otlp"
    ) -> OtlpHttpExporter | OtlpGrpcExporter:
        """The exporter that these options describe, and the environment where they say nothing.

        What is read from the environment stands in :func:`~otel_audit.exporters.otlp_options.read_otlp`.

        Raises:
            ConfigurationError: an option or an environment variable is unknown or wrong.
        """
        read = read_otlp(options, environ, where)
        if read["protocol"] == GRPC:
            return OtlpGrpcExporter.from_read(read, where)
        return OtlpHttpExporter.from_read(read, where)
