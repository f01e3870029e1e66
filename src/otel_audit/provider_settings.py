"""Everything that a provider is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import semconv as sc
from .delivery.destination import Destination
from .durability import Durability
from .protocols import AuditRecordProcessor, Clock
from .rules import SIZE_BYTES_MAX


@dataclass(frozen=True)
class ProviderSettings:
    """``settings.py`` makes it from keywords, environment and files; ``docs/configuration.md`` says what each is.

    Attributes:
        destinations_assumed: nobody named any; they are the default.
    """

    journal: Path
    destinations: Sequence[Destination] = ()
    destinations_assumed: bool = False
    service_name: str | None = None
    resource_attributes: dict[str, Any] = field(default_factory=dict)
    durability: Durability = "process"
    strict: bool = False
    default_event_name: str = sc.EVENT_DEFAULT
    size_bytes_max: int = SIZE_BYTES_MAX
    max_bytes: int = 4 * 1024**3
    segment_bytes: int = 16 * 1024**2
    full_timeout_s: float = 1.0
    retention_s: float | None = None
    exit_timeout_s: float = 5.0
    allow_volatile: bool = False
    allow_network: bool = False
    adopt: bool = True
    mode: int = 0o600
    group: int | None = None
    processors: Sequence[AuditRecordProcessor] = ()
    clock: Clock | None = None
