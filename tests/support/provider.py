"""For tests of the provider: one in a directory, and what is in its journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from otel_audit.batch import StoredRecord
from otel_audit.delivery.backoff import Backoff
from otel_audit.journal.layout import Layout
from otel_audit.journal.reader import StreamReader
from otel_audit.journal.streams import list_streams
from otel_audit.logger import AuditLogger
from otel_audit.provider import AuditProvider
from otel_audit.settings import load_settings
from support.delivery import AT_ONCE

SOON = Backoff(first_s=0.05, max_s=0.05)
"""For a destination that is down beside others that are not: it leaves them the processor."""

LOGIN: dict[str, Any] = {"actor": "u-42", "outcome": "success"}


def make_provider(root: Path, *, files: Any = None, retry: Backoff = AT_ONCE, **options: Any) -> AuditProvider:
    """A provider that journals only, on whatever file system; its destinations are tried again at once."""
    settings = load_settings({"journal": root, "destinations": {}, "allow_volatile": True, **options}, {})
    for destination in settings.destinations:
        object.__setattr__(destination, "retry", retry)
        object.__setattr__(destination, "blocked", retry)
        object.__setattr__(destination, "delay_s", 0.0)
    return AuditProvider(settings, layout=Layout(root, files=files) if files is not None else None)


def login(logger: AuditLogger, **fields: Any) -> Any:
    """Emit a record with everything that is mandatory."""
    return logger.emit("user.login", **{**LOGIN, **fields})


def stored(root: Path, *, control: bool = False) -> list[StoredRecord]:
    """Every record in a journal, stream after stream; without those of the journal itself."""
    found: list[StoredRecord] = []
    for stream in sorted(list_streams(Layout(root)), key=lambda stream: stream.metadata.created_ns):
        reader = StreamReader(stream.path)
        while records := reader.read(records_max=1000, bytes_max=1 << 20, final=True):
            found += [record for record in records if control or not record.is_control]
        assert reader.damage == []
    return found
