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

_PUBLIC: Final = {
    "FileExporter": "file", "HttpExporter": "http", "OtlpGrpcExporter": "otlp_grpc", "OtlpHttpExporter": "otlp_http",
}  # fmt: skip
"""Class for use from Python → module in this folder, loaded on first use."""


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)


def exporter_class(type_name: str) -> type[ConfigurableExporter]:
    """The class for a destination's type.

    Raises:
        ConfigurationError: there is no such type; suggests the nearest.
    """
    if type_name not in EXPORTERS:
        raise ConfigurationError(f"there is no destination type {type_name!r}; {suggestion(type_name, EXPORTERS)}")
    module, name = EXPORTERS[type_name]
    found: type[ConfigurableExporter] = getattr(importlib.import_module(f".{module}", __name__), name)
    return found
