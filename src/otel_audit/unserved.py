"""Destinations that records are kept for and that nobody serves: renamed, dropped, or without their sidecar.

Each of them keeps segments until the journal is full, and then nothing is taken any more.  So it is said, with the age.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Collection, Iterator
from typing import Final

import msgspec

from .delivery.destination import ELSEWHERE
from .errors import AuditError
from .flushing import Tails
from .health import emitted_after, process_state
from .journal.layout import Layout
from .journal.retirement import retired_for
from .journal.segment import list_segments
from .journal.streams import LIVING, StreamDirectory, list_streams
from .own_log import own_log
from .sidecars import for_dead_only, living_sidecars

UNSERVED_AFTER_S: Final = 600.0
"""How old the oldest record must be before it is said: processes with another configuration come and go."""
LOOK_EVERY_S: Final = 300.0
SAY_EVERY_S: Final = 3600.0
COUNTED_MAX: Final = 64
"""In so many streams of a destination records are counted."""

_log = own_log("delivery")


class Unserved(msgspec.Struct, frozen=True, kw_only=True):
    """A destination that nobody serves.

    Attributes:
        records: how many are kept for it, in so many streams; at least, where there are more than
            :data:`COUNTED_MAX`.
        oldest_age_s: how old the oldest of them is, in seconds.
        not_for_living: a sidecar delivers it for dead processes, and nobody for the living ones that leave it to one.
    """

    destination: str
    records: int
    streams: int
    oldest_age_s: float
    not_for_living: bool = False

    def __str__(self) -> str:
        return self.described("")

    def described(self, given: str) -> str:
        """The line for people.

        Args:
            given: the options that name the journal, for commands that are pasted.
        """
        if self.not_for_living:
            return (
                f"destination {self.destination}: {self.records} records in {self.streams} streams of living processes "
                f"wait for a sidecar, the oldest for {self.oldest_age_s / 3600:.1f} h, and the one that runs delivers "
                f"for dead processes only; start it with --for-living"
            )
        return (
            f"destination {self.destination}: {self.records} records in {self.streams} streams are kept for it, the "
            f"oldest for {self.oldest_age_s / 3600:.1f} h, and nobody serves it; they stay until the journal is full. "
            f"Configure it under this name, deliver them (otel-audit ship{given} --destination {self.destination}=SPEC"
            f"), or let go of them (otel-audit destination retire {self.destination}{given})"
        )


def find_unserved(layout: Layout, served: Collection[str] = (), *, after_s: float = UNSERVED_AFTER_S) -> list[Unserved]:
    """Required destinations whose oldest record is that old, and that no living process or sidecar serves.

    A sidecar without ``--for-living`` serves dead processes only.

    Args:
        layout: the journal.
        served: names that this process serves.
        after_s: how old, in seconds.

    Raises:
        OSError: the journal cannot be read.
    """
    sidecars = living_sidecars(layout)
    for_dead = for_dead_only(layout, sidecars).difference(served)
    known = {*served, *(name for sidecar in sidecars for name in sidecar.destinations if name not in for_dead)}
    waiting: dict[str, list[tuple[StreamDirectory, int, int]]] = {}
    tails = Tails()
    for stream in list_streams(layout):
        try:
            known.update(_served_by_owner(stream))
            for name, acknowledged in _required(layout, stream, known):
                if name in for_dead and stream.owner_state() != LIVING:
                    continue
                if stream.ship_lock(name).held_by_anybody():
                    known.add(name)
                elif (behind := _behind(tails, stream, acknowledged, len(waiting.get(name, ())))) > 0:
                    waiting.setdefault(name, []).append((stream, acknowledged, behind))
        except (AuditError, FileNotFoundError):
            continue
    found = [
        _describe(name, streams, not_for_living=name in for_dead)
        for name, streams in sorted(waiting.items())
        if name not in known
    ]
    return [each for each in found if each.oldest_age_s >= after_s]


def _behind(tails: Tails, stream: StreamDirectory, acknowledged: int, counted: int) -> int:
    """Records behind a cursor; where many streams wait, at least one for each: counting means reading."""
    if counted < COUNTED_MAX:
        return tails.last(stream) - acknowledged
    segments = list_segments(stream.path)
    return int(bool(segments) and (segments[-1].first > acknowledged or segments[-1].path.stat().st_size > 0))


def _served_by_owner(stream: StreamDirectory) -> Iterator[str]:
    """What a living process serves; one that has not said yet what it does is taken to serve all that it names."""
    if stream.owner_state() != LIVING:
        return
    state = process_state(stream)
    if state is None:
        yield from stream.metadata.required
    else:
        yield from (each.name for each in state.destinations if each.state != ELSEWHERE)


def _required(layout: Layout, stream: StreamDirectory, known: Collection[str]) -> Iterator[tuple[str, int]]:
    """Destinations that a stream waits for, and how far they are."""
    names = set(stream.metadata.required).difference(known)
    if not names:
        return
    for name in sorted(names - retired_for(layout, stream.stream_id)):
        cursor = stream.cursor_file(name).load()
        yield name, cursor.acknowledged if cursor is not None else 0


def _describe(name: str, streams: list[tuple[StreamDirectory, int, int]], *, not_for_living: bool) -> Unserved:
    first, acknowledged, _ = min(streams, key=lambda each: each[0].metadata.created_ns)
    emitted_ns = emitted_after(first, acknowledged)
    return Unserved(
        destination=name,
        records=sum(behind for _, _, behind in streams),
        streams=len(streams),
        oldest_age_s=max(time.time() - emitted_ns / 1e9, 0.0) if emitted_ns else 0.0,
        not_for_living=not_for_living,
    )


class Watch:
    """Looks every few minutes, and says each destination once an hour.

    Args:
        layout: the journal.
        served: names of the destinations that this process serves.
    """

    def __init__(self, layout: Layout, served: Collection[str]) -> None:
        self._layout = layout
        self._served = frozenset(served)
        self._looked_s = time.monotonic()
        self._said_s: dict[str, float] = {}

    def look(self, now_s: float | None = None) -> None:
        """Look, if it is time to.

        Args:
            now_s: by the monotonic clock; ``None``: now.

        Raises:
            OSError: the journal cannot be read.
        """
        now_s = time.monotonic() if now_s is None else now_s
        if now_s - self._looked_s < LOOK_EVERY_S:
            return
        self._looked_s = now_s
        for each in find_unserved(self._layout, self._served):
            if now_s - self._said_s.get(each.destination, float("-inf")) >= SAY_EVERY_S:
                self._said_s[each.destination] = now_s
                _log.warning("%s", each.described(f" --journal {shlex.quote(str(self._layout.root))}"))
