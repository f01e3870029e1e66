"""The OpenTelemetry resource of this process."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping
from typing import Any

from . import semconv as sc


def make_resource(service_name: str | None, attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Resource attributes by the OpenTelemetry SDK, as plain values.

    ``OTEL_SERVICE_NAME``, ``OTEL_RESOURCE_ATTRIBUTES`` and the detectors of ``OTEL_EXPERIMENTAL_RESOURCE_DETECTORS``
    are read by the SDK; what is given here wins.  The process, its host and a new instance id are added.

    Args:
        service_name: ``service.name``; ``None``: from the environment.
        attributes: further resource attributes.
    """
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - 30 ms, and only where something is configured

    own: dict[str, Any] = {
        sc.SERVICE_INSTANCE_ID: str(uuid.uuid4()),
        sc.HOST_NAME: socket.gethostname(),
        sc.PROCESS_PID: os.getpid(),
    }
    resource = Resource(own).merge(Resource.create(dict(attributes)))
    if service_name is not None:
        resource = resource.merge(Resource({sc.SERVICE_NAME: service_name}))
    return {
        key: list(value) if isinstance(value, (tuple, list)) else value for key, value in resource.attributes.items()
    }
