"""Looks at this machine: the journal's directory, its disk, the variables; and sends the test event.

The test event goes the whole way, through a journal of its own in a temporary directory, so nothing is left in the
application's, and whoever runs the doctor need not be the application's user.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from ... import semconv as sc
from ...delivery.shipper import Shipper
from ...exporters.endpoint import Endpoint
from ...journal.files import OS_FILES
from ...journal.layout import file_system
from ...journal.streams import usage_bytes
from ...provider import AuditProvider, ProviderSettings
from ...receipt import AuditReceipt
from ...record import Actor, AuditRecord, Target, complete
from .facts import EventFacts, JournalFacts, ReachFacts
from .reaching import reach

_POLL_S: Final = 0.02


def look_at_journal(settings: ProviderSettings) -> JournalFacts:
    """What is seen of the journal's directory; a small file is made in it, synced, locked and removed."""
    root = settings.journal
    exists = root.is_dir()
    nearest = next(path for path in (root, *root.parents) if path.exists())
    info = nearest.stat()
    room = os.statvfs(nearest)
    kind = file_system(root)
    error, sync_s = _try_out(nearest) if exists else (_why_not_writable(nearest), 0.0)
    return JournalFacts(
        root=str(root),
        exists=exists,
        uid=info.st_uid if exists else os.geteuid(),
        gid=info.st_gid,
        mode=stat.S_IMODE(info.st_mode),
        our_uid=os.geteuid(),
        our_gids=sorted({os.getegid(), *os.getgroups()}),
        error=error,
        sync_s=sync_s,
        used_bytes=_used_bytes(root) if exists else 0,
        bytes_max=settings.max_bytes,
        free_bytes=room.f_bavail * room.f_frsize,
        free_inodes=room.f_favail if room.f_files else -1,
        file_system=kind.type,
        network=kind.network,
        volatile=kind.volatile,
        allow_network=settings.allow_network,
        allow_volatile=settings.allow_volatile,
        durability=settings.durability,
    )


def _used_bytes(root: Path) -> int:
    try:
        return usage_bytes(root)
    except OSError:
        return 0


def _why_not_writable(directory: Path) -> str:
    if not directory.is_dir():
        return f"{directory} is not a directory"
    return "" if os.access(directory, os.W_OK | os.X_OK) else f"{directory} may not be written to"


def _try_out(directory: Path) -> tuple[str, float]:
    """Why the directory cannot be worked in, and how long a sync took, in seconds."""
    path = directory / f".doctor-{os.urandom(8).hex()}"
    try:
        fd = OS_FILES.create(path, 0o600)
        try:
            OS_FILES.write_all(fd, b"otel-audit doctor\n")
            begun = time.perf_counter()
            OS_FILES.fdatasync(fd)
            took = time.perf_counter() - begun
            if not OS_FILES.lock(fd):
                return "a file of our own is locked by somebody else", took
        finally:
            OS_FILES.close(fd)
            with contextlib.suppress(OSError):
                OS_FILES.unlink(path)
    except OSError as error:
        return str(error.strerror or error), 0.0
    return "", took


def look_at_ways(settings: ProviderSettings, timeout_s: float) -> Iterator[ReachFacts]:
    """What is seen of the way to each destination that has an address.

    Args:
        settings: whose destinations.
        timeout_s: for each step, in seconds.
    """
    for destination in settings.destinations:
        exporter = destination.make_exporter()
        try:
            endpoint = getattr(exporter, "endpoint", None)
        finally:
            exporter.close()
        if isinstance(endpoint, Endpoint):
            seen = reach(destination.name, endpoint, timeout_s)
            if seen is not None:
                yield seen


def send_test_event(settings: ProviderSettings, timeout_s: float) -> list[EventFacts]:
    """Emit the test event, and see what becomes of it at each destination.

    The resource has the mark of the event too: so the records of the journal itself that go with it (logging started,
    stopped) are not taken for the application's.

    Args:
        settings: where to.
        timeout_s: how long to wait, in seconds; a destination that is blocked is not waited for.
    """
    with tempfile.TemporaryDirectory(prefix="otel-audit-doctor-", ignore_cleanup_errors=True) as directory:
        apart = dataclasses.replace(
            settings, journal=Path(directory) / "journal", allow_volatile=True, allow_network=True, adopt=False,
            durability="process", retention_s=None, group=None, exit_timeout_s=0.0,
            resource_attributes={**settings.resource_attributes, sc.TEST: True},
        )  # fmt: skip
        provider = AuditProvider(apart)
        try:
            record = _test_event()
            receipt = provider.emit_record(record)
            _wait(provider.shippers, receipt, time.monotonic() + timeout_s)
            return [_event_facts(shipper, record, receipt) for shipper in provider.shippers]
        finally:
            provider.shutdown(0.0)


def _test_event() -> AuditRecord:
    """An event that nobody can take for one of the application."""
    record = AuditRecord(
        sc.EVENT_TEST,
        actor=Actor("otel-audit-doctor", type="system"),
        action="TEST",
        outcome="success",
        target=Target(socket.gethostname(), type="host"),
        reason="sent by otel-audit doctor to test the configuration; no event of an application",
        attributes={sc.TEST: True},
    )
    complete(record)
    return record


def _wait(shippers: Sequence[Shipper], receipt: AuditReceipt, deadline: float) -> None:
    for shipper in shippers:
        shipper.start()
        shipper.notify(urgent=True)
    while time.monotonic() < deadline:
        waiting = [
            shipper
            for shipper in shippers
            if not shipper.has(receipt.stream_id, receipt.sequence) and shipper.state.state != "blocked"
        ]
        if not waiting:
            return
        time.sleep(_POLL_S)


def _event_facts(shipper: Shipper, record: AuditRecord, receipt: AuditReceipt) -> EventFacts:
    destination, state = shipper.destination, shipper.state
    chosen = destination.filter
    if chosen is not None and not chosen.passes(record.event_name, record.attributes):
        outcome = "filtered"
    elif not shipper.has(receipt.stream_id, receipt.sequence):
        outcome = "missing"
    elif shipper.has_buried(receipt.stream_id, receipt.sequence):
        outcome = "refused"
    else:
        outcome = "delivered"
    return EventFacts(
        name=destination.name,
        outcome=outcome,
        record_id=receipt.record_id,
        required=destination.required,
        state=state.state,
        error=state.error,
        repair=state.repair,
    )
