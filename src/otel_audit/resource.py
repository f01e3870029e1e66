"""The OpenTelemetry resource of this process."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from typing import Any, Final

from . import semconv as sc
from .errors import ConfigurationError, describe

_PLAIN: Final = (str, bool, int, float)


class ProcessResource:
    """Resource attributes by the OpenTelemetry SDK, as plain values.

    ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES`` and the detectors of ``OTEL_EXPERIMENTAL_RESOURCE_DETECTORS``
    are read by the SDK, once, when this is made: detectors need threads and time, which a forked child or an
    interpreter that ends may not have.  What is given here wins.  The process and its host are added.  A forked child
    is an instance of its own, unless ``service.instance.id`` was given.

    Args:
        service_name: ``service.name``; ``None``: from the environment.
        attributes: further resource attributes.

    Raises:
        ConfigurationError: an attribute is not what OpenTelemetry allows; the SDK would drop it with a warning.
    """

    def __init__(self, service_name: str | None, attributes: Mapping[str, Any]) -> None:
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - 30 ms, and only where something is configured

        for name, value in attributes.items():
            _check_attribute(name, value)
        given = dict(attributes)
        if service_name is not None:
            given[sc.SERVICE_NAME] = service_name
        found = Resource.create(given).attributes
        self._attributes = {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}
        self._pid = os.getpid()
        from_environment = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        self._named = sc.SERVICE_INSTANCE_ID in given or f"{sc.SERVICE_INSTANCE_ID}=" in from_environment

    def __call__(self) -> dict[str, Any]:
        """The attributes for a stream that this process begins now."""
        pid = os.getpid()
        attributes = {sc.HOST_NAME: socket.gethostname(), **self._attributes, sc.PROCESS_PID: pid}
        if sc.SERVICE_INSTANCE_ID not in attributes or (pid != self._pid and not self._named):
            attributes[sc.SERVICE_INSTANCE_ID] = str(uuid.uuid4())
        return attributes


def _check_attribute(name: object, value: object) -> None:
    """Names are strings; values are strings, booleans, 64-bit integers and doubles, or lists of one kind of them."""
    where = f"resource_attributes[{name!r}]"
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{where}: a name must be a string that is not empty")
    items: list[Any] = list(value) if isinstance(value, (list, tuple)) else [value]
    kinds = {type(item) for item in items}
    if len(kinds) > 1 or not kinds <= set(_PLAIN):
        raise ConfigurationError(
            f"{where}: must be a string, a boolean, an integer, a float or a list of one of them, not {describe(value)}"
        )
    if int in kinds and not all(-(2**63) <= item < 2**63 for item in items):
        raise ConfigurationError(f"{where}: integers must fit into 64 bits")
