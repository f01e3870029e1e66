"""Everything that a provider is made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import semconv as sc
from .delivery.destination import Destination
from .durability import Durability
from .journal.journal import Journal
from .journal.layout import Layout
from .own_log import own_log
from .protocols import AuditRecordProcessor, Clock
from .resource import ProcessResource
from .rules import SIZE_BYTES_MAX

_log = own_log("settings")


@dataclass(frozen=True)
class ProviderSettings:
    """``settings.py`` makes it from keywords, environment and files; ``docs/configuration.md`` says what each is.

    Attributes:
        destinations_assumed: nobody named any; they are the default.
        journal_assumed: nobody named the journal, nor the service.
    """

    journal: Path
    journal_assumed: bool = field(default=False, kw_only=True)
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


def make_journal(settings: ProviderSettings, layout: Layout | None = None) -> Journal:
    """The journal of this process.

    Args:
        settings: of the provider.
        layout: the journal's directory; for tests with a faulty file layer.

    Raises:
        UnsafeJournalError: the directory cannot be used.
    """
    journal = Journal(
        layout or Layout(settings.journal, settings.mode, settings.group),
        resource=ProcessResource(settings.service_name, settings.resource_attributes),
        required=[destination.name for destination in settings.destinations if destination.required],
        optional=[destination.name for destination in settings.destinations if not destination.required],
        segment_bytes_max=settings.segment_bytes,
        bytes_max=settings.max_bytes,
        full_timeout_s=settings.full_timeout_s,
        allow_volatile=settings.allow_volatile,
        allow_network=settings.allow_network,
        retention_s=settings.retention_s,
    )
    root = journal.layout.root
    if journal.layout.open_to_everybody:
        _log.warning(
            "journal: every user of this machine may remove or replace what is in %s; take that right away: chmod o-w",
            root,
        )
    if settings.journal_assumed:
        _log.warning(
            "journal: no service_name is given, so this is the journal of unknown_service, which all services without "
            "a name share: %s; give service_name=… or OTEL_SERVICE_NAME",
            root,
        )
    return journal
