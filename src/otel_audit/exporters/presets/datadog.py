"""Datadog logs, as its API reference (v2, "Send logs") has them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from ... import semconv as sc
from ...formats.jsonl import parse_rfc3339
from ...formats.template import Facts
from ...options import Option
from .preset import Mode, Preset, level_of

_AGE_MAX_S: Final = 17.5 * 3600
"""Datadog takes no log that is older than 18 hours by its timestamp."""


def _shape(plain: Facts, options: Mapping[str, Any]) -> dict[str, Any]:
    """A record that waited too long goes without a timestamp of Datadog's, so that it is not dropped in silence."""
    body = plain["body"]
    found: dict[str, Any] = {
        "message": body if isinstance(body, str) and body else plain["event_name"],
        "status": level_of(plain),
        "service": plain["resource"].get(sc.SERVICE_NAME),
        "hostname": plain["resource"].get(sc.HOST_NAME),
        "ddsource": options["source"],
        "ddtags": options["tags"],
        "event": {**plain, "body": None if isinstance(body, str) else body},
    }
    happened_ns = parse_rfc3339(plain["timestamp"]) if plain["timestamp"] else 0
    if time.time() - happened_ns / 1e9 < _AGE_MAX_S:
        found["timestamp"] = happened_ns // 1_000_000
    return {name: value for name, value in found.items() if value is not None}


DATADOG: Final = Preset(
    name="datadog",
    service="Datadog",
    modes={"batch": Mode("/api/v2/logs", "array", request_records=1000, request_bytes=4_500_000)},
    shape=_shape,
    options=(
        Option("source", "str", "otel-audit", "ddsource: the integration that the logs are said to come from"),
        Option("tags", "str", None, "ddtags: 'env:prod,team:audit'"),
    ),
    auth={"type": "header", "name": "DD-API-KEY"},
    env="DD_API_KEY",
    auth_required=True,
    success=("202",),
)
