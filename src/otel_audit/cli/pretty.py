"""One record as one line for people."""

from __future__ import annotations

import time
from typing import Any, Final

from rich.text import Text

from .. import semconv as sc
from .follow import Found
from .output import safe

_OUTCOME: Final = {"success": "green", "failure": "red"}
_IN_FRONT: Final = frozenset(
    {sc.RECORD_ID, sc.ACTOR_ID, sc.ACTOR_TYPE, sc.ACTION, sc.OUTCOME, sc.TARGET_ID, sc.TARGET_TYPE, sc.TARGET_NAME,
     sc.LOGGER_NAME, sc.SCHEMA_VERSION, sc.CONTROL, sc.STREAM_METADATA_HASH, sc.SEVERITY_NUMBER}
)  # fmt: skip
"""Attributes that are shown before the others, or not at all: ``--json`` has every one."""
_VALUE_LENGTH_MAX: Final = 200


def line(found: Found) -> Text:
    """Time, service and process, event, outcome, who, on what, and the rest."""
    record = found.record
    attributes = record.attributes
    outcome = str(attributes.get(sc.OUTCOME, sc.UNKNOWN))
    service = found.batch.resource.get(sc.SERVICE_NAME, sc.UNKNOWN)
    process = found.batch.resource.get(sc.PROCESS_PID) or found.stream_id[:8]
    made = Text.assemble(
        (_time(record.observed_ns), "cyan"),
        " ",
        (safe(f"{service}[{process}]"), "magenta"),
        " ",
        (safe(record.event_name), "bold"),
        " ",
        (safe(outcome), _OUTCOME.get(outcome, "yellow")),
        " ",
        safe(_thing(attributes, sc.ACTOR_ID, sc.ACTOR_TYPE, hidden="user")),
    )
    if sc.TARGET_ID in attributes:
        made.append(safe(f" → {_thing(attributes, sc.TARGET_ID, sc.TARGET_TYPE)}"))
    for name, value in attributes.items():
        if name not in _IN_FRONT and not name.startswith(sc.RESERVED_PREFIXES):
            made.append(safe(f" {name.removeprefix(sc.OWN_PREFIX)}={_shown(value)}"), style="dim")
    if record.body is not None:
        made.append(safe(f" {_shown(record.body)}"))
    if record.is_control:
        made.stylize("dim")
    return made


def _time(ns: int) -> str:
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{rest // 1_000_000:03d}Z"


def _thing(attributes: dict[str, Any], name: str, kind: str, hidden: str = "") -> str:
    of = attributes.get(kind)
    shown = _shown(attributes.get(name, sc.UNKNOWN))
    return f"{of}:{shown}" if of and of != hidden else shown


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value and " " not in value else repr(value)
    return text if len(text) <= _VALUE_LENGTH_MAX else f"{text[:_VALUE_LENGTH_MAX]}…"
