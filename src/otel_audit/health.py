"""How auditing is doing: of this process, and of a whole journal as anybody may see it from outside."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from . import semconv as sc
from .delivery.replay import count_open
from .errors import AuditError
from .journal.damage import DamageReport, read_damage
from .journal.layout import Layout
from .journal.reader import StreamReader
from .journal.retirement import Retirement, retirements
from .journal.segment import list_segments
from .journal.streams import StreamDirectory, list_streams, usage_bytes
from .sidecars import SidecarStatus, living_sidecars

STATE_NAME = "state.json"


class DestinationStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How a destination is doing in one process.

    Attributes:
        state: ``"idle"``, ``"delivering"``, ``"retrying"``, ``"blocked"``, or ``"elsewhere"``: a sidecar serves it.
        delivered, pending, dead_lettered, damaged: records.  Pending are those that it has not, those that its filter
            has not been asked about yet among them.
        filtered: records that its filter passed over; they are not counted as delivered.
        oldest_pending_ns: when the oldest of the pending ones was emitted, nanoseconds since 1970; 0: none is pending,
            or that is not known.
        error, repair: the last failure, and what a person has to do about it.
        failures: failures in a row.
        last_success_ns: nanoseconds since 1970; 0: never.
    """

    name: str
    required: bool
    delivered: int
    pending: int
    dead_lettered: int
    damaged: int
    state: str
    error: str
    repair: str
    failures: int
    last_success_ns: int
    filtered: int = 0
    oldest_pending_ns: int = 0


class FlushResult(msgspec.Struct, frozen=True):
    """What ``flush`` found.  True only where nothing is pending for a required destination and nothing is damaged.

    The sums are over the required destinations; ``destinations`` has each of them, the optional ones too.
    """

    destinations: tuple[DestinationStatus, ...]

    @property
    def delivered(self) -> int:
        """Records that required destinations took."""
        return sum(d.delivered for d in self.destinations if d.required)

    @property
    def pending(self) -> int:
        """Records that required destinations do not have yet."""
        return sum(d.pending for d in self.destinations if d.required)

    @property
    def dead_lettered(self) -> int:
        """Records that destinations refuse; they are in the dead letters."""
        return sum(d.dead_lettered for d in self.destinations if d.required)

    @property
    def filtered(self) -> int:
        """Records that the filters of required destinations passed over: those never get them."""
        return sum(d.filtered for d in self.destinations if d.required)

    @property
    def damaged(self) -> int:
        """Records that were found damaged in the journal."""
        return max((d.damaged for d in self.destinations), default=0)

    def __bool__(self) -> bool:
        return self.pending == 0 and self.damaged == 0


class ProviderStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How this process's auditing is doing.

    Attributes:
        notes: what is not wrong and yet worth knowing, one line each.
        others: of the handlers that have a journal of their own, where this is another one's.
        journal: its directory.
        stream_id: of the stream that it writes; ``None``: none was begun yet.
        records: in that stream.
        counters: what was counted, by name; ``docs/metrics.md`` says what each means.
        unreachable_handlers: audit handlers that records do not reach.
        journal_bytes_max: ``max_bytes``; 0: a process of an older version did not say it.
    """

    journal: str
    stream_id: str | None
    records: int
    shut_down: bool
    destinations: list[DestinationStatus]
    counters: dict[str, int]
    unreachable_handlers: list[str]
    notes: list[str] = []
    others: list[ProviderStatus] = []
    journal_bytes_max: int = 0


class PendingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What one destination has of one stream."""

    destination: str
    required: bool
    acknowledged: int
    pending: int
    dead_lettered: int
    damaged: int
    oldest_pending_age_s: float | None
    filtered: int = 0


class StreamStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One stream, as anybody may see it."""

    stream_id: str
    owner: str
    pid: int
    host: str
    service: str
    records: int
    bytes: int
    destinations: list[PendingStatus]
    damage: list[DamageReport]
    process: ProviderStatus | None
    problem: str = ""


class JournalStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A whole journal.

    Attributes:
        dead_letters: by destination, those that nobody has: without those that a replay delivered.
        bytes_max: the smallest ``max_bytes`` that a process of its streams named; 0: none did.
        free_bytes, free_inodes: room on its file system for this user; -1 where that is not known.
    """

    path: str
    bytes: int
    streams: list[StreamStatus]
    dead_letters: dict[str, int]
    retired: list[str]
    sidecars: list[SidecarStatus] = []
    bytes_max: int = 0
    free_bytes: int = -1
    free_inodes: int = -1


def journal_status(layout: Layout) -> JournalStatus:
    """Look at a journal from outside; changes nothing.

    Raises:
        OSError: it cannot be read.
    """
    retired = retirements(layout)
    streams = [_stream_status(stream, retired) for stream in list_streams(layout)]
    streams = [status for status in streams if (layout.streams / status.stream_id).exists()]  # not removed meanwhile
    names = sorted(path.stem for path in (layout.root / "dead-letters").glob("*.jsonl"))
    letters = {name: count_open(layout, name) for name in names}
    limits = [stream.process.journal_bytes_max for stream in streams if stream.process is not None]
    free_bytes, free_inodes = _free(layout.root)
    return JournalStatus(
        path=str(layout.root),
        bytes=usage_bytes(layout.root, reserved=False),
        streams=sorted(streams, key=lambda stream: stream.stream_id),
        dead_letters=letters,
        retired=sorted(name for name in retired if not _is_waited_for(name, streams)),
        sidecars=living_sidecars(layout),
        bytes_max=min(filter(None, limits), default=0),
        free_bytes=free_bytes,
        free_inodes=free_inodes,
    )


def _free(root: Path) -> tuple[int, int]:
    try:
        room = os.statvfs(root)
    except OSError:
        return -1, -1
    return room.f_bavail * room.f_frsize, room.f_favail if room.f_files else -1


def _is_waited_for(name: str, streams: Sequence[StreamStatus]) -> bool:
    return any(each.destination == name and each.required for stream in streams for each in stream.destinations)


def _stream_status(stream: StreamDirectory, retired: Mapping[str, Retirement]) -> StreamStatus:
    try:
        metadata = stream.metadata
        owner = stream.owner_state()
    except AuditError as error:
        return StreamStatus(
            stream_id=stream.stream_id, owner="unknown", pid=0, host="", service="", records=0, bytes=0,
            destinations=[], damage=[], process=None, problem=str(error),
        )  # fmt: skip
    last = last_sequence(stream)
    cursors = stream.cursors()
    given_up = {name for name, mark in retired.items() if stream.stream_id in mark.streams}
    names = sorted({*metadata.required, *cursors} - given_up)
    pending = []
    for name in names:
        cursor = cursors.get(name)
        acknowledged = cursor.acknowledged if cursor is not None else 0
        behind = max(last - acknowledged, 0)
        pending.append(
            PendingStatus(
                destination=name,
                required=name in metadata.required,
                acknowledged=acknowledged,
                pending=behind,
                dead_lettered=cursor.dead_lettered if cursor is not None else 0,
                damaged=cursor.damaged if cursor is not None else 0,
                oldest_pending_age_s=_age_s(stream, acknowledged) if behind else None,
                filtered=cursor.filtered if cursor is not None else 0,
            )
        )
    return StreamStatus(
        stream_id=stream.stream_id,
        owner=owner,
        pid=metadata.pid,
        host=metadata.host,
        service=str(metadata.resource.get(sc.SERVICE_NAME, "")),
        records=last,
        bytes=_segment_bytes(stream),
        destinations=pending,
        damage=_damage(stream),
        process=process_state(stream),
    )


def _segment_bytes(stream: StreamDirectory) -> int:
    total = 0
    for segment in list_segments(stream.path):
        with contextlib.suppress(FileNotFoundError):  # delivered and removed in between
            total += segment.path.stat().st_size
    return total


def last_sequence(stream: StreamDirectory) -> int:
    """Number of the last whole record of a stream."""
    segments = list_segments(stream.path)
    if not segments:
        return 0
    reader = StreamReader(stream.path, after=segments[-1].first - 1, files=stream.layout.files)
    last = segments[-1].first - 1
    while records := reader.read(records_max=10_000, bytes_max=1024 * 1024, final=False):
        last = records[-1].sequence
    return last


def _age_s(stream: StreamDirectory, acknowledged: int) -> float | None:
    emitted_ns = emitted_after(stream, acknowledged)
    return round(max(time.time() - emitted_ns / 1e9, 0.0), 3) if emitted_ns else None


def emitted_after(stream: StreamDirectory, acknowledged: int) -> int:
    """When the first record behind a cursor was emitted, nanoseconds since 1970; 0 where there is none.

    Raises:
        OSError: the stream cannot be read.
    """
    reader = StreamReader(stream.path, after=acknowledged, files=stream.layout.files)
    records = reader.read(records_max=1, bytes_max=1, final=False)
    return records[0].observed_ns if records else 0


def _damage(stream: StreamDirectory) -> list[DamageReport]:
    with contextlib.suppress(OSError):
        return read_damage(stream.path) or []
    return []


def process_state(stream: StreamDirectory) -> ProviderStatus | None:
    """What the process that writes a stream said of itself a few seconds ago; ``None``: nothing yet."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((stream.path / STATE_NAME).read_bytes(), type=ProviderStatus)
    return None


def write_process_state(layout: Layout, directory: Path, status: ProviderStatus) -> None:
    """Leave the state of a process beside its stream, for ``otel-audit status`` in another one.

    Raises:
        OSError: it could not be written.
    """
    data = msgspec.json.encode(status)
    path = directory / STATE_NAME
    try:
        if path.read_bytes() == data:
            return
    except OSError:
        pass
    layout.files.replace(path, data, layout.mode, sync_directory=False)
