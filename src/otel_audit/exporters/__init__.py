"""Exporters: each moves one batch to one kind of destination, and raises when it fails.

A destination's type names its class here; the module is loaded when it is asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar, Final, Protocol

from ..errors import ConfigurationError
from ..options import Option, suggestion
from ..protocols import AuditRecordExporter


class ConfigurableExporter(AuditRecordExporter, Protocol):
    """An exporter that can be made from a mapping of options."""

    OPTIONS: ClassVar[tuple[Option, ...]]
    """What it takes: the same names as its constructor's arguments."""

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], environ: Mapping[str, str], *, where: str = ...
    ) -> ConfigurableExporter:
        """The exporter that these options describe; loads no HTTP library and opens nothing.

        Args:
            options: by the names in :attr:`OPTIONS`.
            environ: the environment, for what the options do not say.
            where: what error messages call the options: ``"destinations.collector"``.

        Raises:
            ConfigurationError: an option or an environment variable is unknown or wrong.
        """


EXPORTERS: Final[Mapping[str, tuple[str, str]]] = {
    "otlp": ("otlp", "OtlpExporter"),
    "http": ("http", "HttpExporter"),
    "file": ("file", "FileExporter"),
}
"""Type of a destination → module in this folder, class."""

PRESETS: Final[Mapping[str, tuple[str, str]]] = {
    "logvault": ("apis", "LOGVAULT"),
    "logvault-0.1": ("apis", "LOGVAULT_OLD"),
    "audit-log-framework": ("apis", "AUDIT_LOG_FRAMEWORK"),
    "audit-log-framework-sdk": ("apis", "AUDIT_LOG_FRAMEWORK_SDK"),
    "events": ("apis", "EVENTS"),
    "splunk-hec": ("splunk", "SPLUNK"),
    "elasticsearch": ("bulk", "ELASTICSEARCH"),
    "opensearch": ("bulk", "OPENSEARCH"),
    "loki": ("loki", "LOKI"),
    "datadog": ("datadog", "DATADOG"),
    "cloudevents": ("events_http", "CLOUDEVENTS"),
    "webhook": ("events_http", "WEBHOOK"),
}
"""Type of a destination that is direct HTTP to a particular service → module in the folder ``presets``, its preset."""

_PUBLIC: Final = {
    "FileExporter": "file", "HttpExporter": "http", "OtlpGrpcExporter": "otlp_grpc", "OtlpHttpExporter": "otlp_http",
}  # fmt: skip
"""Class for use from Python → module in this folder, loaded on first use."""


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)


def exporter_class(type_name: str) -> type[ConfigurableExporter]:
    """The class for a destination's type; for a preset, what stands in the place of one.

    Raises:
        ConfigurationError: there is no such type; suggests the nearest.
    """
    known = {**EXPORTERS, **{kind: (f"presets.{module}", name) for kind, (module, name) in PRESETS.items()}}
    if type_name not in known:
        raise ConfigurationError(f"there is no destination type {type_name!r}; {suggestion(type_name, known)}")
    module, name = known[type_name]
    found: type[ConfigurableExporter] = getattr(importlib.import_module(f".{module}", __name__), name)
    return found
