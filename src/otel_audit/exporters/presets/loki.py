"""Grafana Loki, by its push API, as JSON with structured metadata.

Labels say where a record comes from and never what is in it, so their number does not grow with the records.  Loki
takes the same line with the same labels and time for the same entry, so a record that is sent twice is stored once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ... import semconv as sc
from ...formats.jsonl import parse_rfc3339
from ...formats.template import Facts
from ...options import Option
from .preset import Mode, Preset

_METADATA: Final = {
    "record_id": sc.RECORD_ID,
    "actor_id": sc.ACTOR_ID,
    "action": sc.ACTION,
    "outcome": sc.OUTCOME,
    "target_id": sc.TARGET_ID,
    "tenant": sc.TENANT,
}


def _shape(plain: Facts, options: Mapping[str, Any]) -> dict[str, Any]:
    service = str(plain["resource"].get(sc.SERVICE_NAME) or sc.UNKNOWN)
    entry: list[Any] = [str(parse_rfc3339(plain["timestamp"])), msgspec.json.encode(plain).decode()]
    if options["structured_metadata"]:
        get = plain["attributes"].get
        entry.append(
            {"event_name": str(plain["event_name"])}
            | {name: str(get(key)) for name, key in _METADATA.items() if get(key) is not None}
            | {name: plain[name] for name in ("trace_id", "span_id") if plain[name]}
        )
    return {"stream": {"job": "otel-audit", "service_name": service, **options["labels"]}, "values": [entry]}


LOKI: Final = Preset(
    name="loki",
    service="Grafana Loki",
    modes={"batch": Mode("/loki/api/v1/push", "object", "streams", request_records=2000, request_bytes=2_000_000)},
    shape=_shape,
    options=(
        Option("labels", "map", {}, "labels of every stream, beside job and service_name; at most a few"),
        Option("tenant", "str", None, "header X-Scope-OrgID"),
        Option("structured_metadata", "bool", True, "send ids beside the line; needs schema v13 or newer in Loki"),
    ),
    auth={"type": "bearer"},
    headers={"X-Scope-OrgID": "tenant"},
    success=("200", "204"),
)
