"""What a destination is: a name, an exporter, how it is served, and how it is doing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from ..protocols import AuditRecordExporter
from .backoff import BLOCKED, RETRY, Backoff
from .selection import RecordFilter

BYTES_MAX: Final = 4 * 1024 * 1024
RECORDS_MAX: Final = 16_384

ELSEWHERE: Final = "elsewhere"
"""State of a destination that another process serves."""


@dataclass(frozen=True)
class Destination:
    """One place where records have to go.

    Args:
        name: keys the cursor; renaming a destination makes a new one.
        make_exporter: makes the exporter, in the process and thread that uses it.
        required: records are kept until it has them, and ``durability="delivered"`` waits for it.
        from_now: without a cursor, what dead processes left earlier is not for it.
        delay_s: how long to gather records where there is no backlog, in seconds.
        records_max, bytes_max: the largest batch; bytes are those of the canonical form.
        timeout_s: how long one export may take.
        records_per_s, requests_per_s: how fast one process may send; ``None``: as fast as it takes them.
        retry, blocked: back-off after failures that pass by themselves, and after those that do not.
        filter: says which records it is to have; ``None``: all.
        elsewhere: another process serves it, also for this one: nothing is exported here, and no thread is started.
    """

    name: str
    make_exporter: Callable[[], AuditRecordExporter] = field(repr=False)
    required: bool = True
    from_now: bool = False
    delay_s: float = 1.0
    records_max: int = RECORDS_MAX
    bytes_max: int = BYTES_MAX
    timeout_s: float = 10.0
    records_per_s: float | None = None
    requests_per_s: float | None = None
    retry: Backoff = RETRY
    blocked: Backoff = BLOCKED
    filter: RecordFilter | None = None
    elsewhere: bool = False


class DestinationState(msgspec.Struct, frozen=True, kw_only=True):
    """How a destination is doing, as ``status`` shows it.

    Attributes:
        state: ``"idle"``, ``"delivering"``, ``"retrying"``, ``"blocked"``, ``"elsewhere"``: another process serves it.
        error, repair: the last failure, and what a person has to do about it.
        failures: failures in a row.
        last_success_ns: when it last took something, nanoseconds since 1970; 0: not since this process began.
    """

    state: str = "idle"
    error: str = ""
    repair: str = ""
    failures: int = 0
    last_success_ns: int = 0
