"""Which streams a destination is served from: this process's own, those of dead processes, and of others on request."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from ..errors import DamageError
from ..journal.cursor import Cursor
from ..journal.journal import Journal
from ..journal.ledger import lock_directory
from ..journal.metadata import UnknownFormatError
from ..journal.streams import DEAD, StreamDirectory, list_streams
from ..own_log import own_log
from .destination import Destination
from .shipment import Shipment, open_shipment

SCAN_INTERVAL_S: Final = 3.0
"""How often streams of dead processes are looked for."""
SHIPMENTS_MAX: Final = 64
"""How many streams are open at once; each holds a descriptor."""

_log = own_log("delivery")


class Fleet:
    """The shipments of one destination.

    Args:
        journal: where the streams are.
        destination: where they go.
        adopt: take streams that dead processes left.
        for_living: take those of living processes too.

    Attributes:
        single_writer: the destination takes from one process at a time; that one takes every stream.
    """

    def __init__(self, journal: Journal, destination: Destination, *, adopt: bool, for_living: bool) -> None:
        self.single_writer = False
        self._journal = journal
        self._layout = journal.layout
        self._destination = destination
        self._adopt = adopt
        self._for_living = for_living
        self._lock = lock_directory(journal.layout, destination.name)
        self._open: dict[str, Shipment] = {}
        self._waiting: dict[str, StreamDirectory] = {}
        self._finished: dict[str, Cursor] = {}
        self._past = Cursor()
        self._said: set[str] = set()
        self._looked_s = float("-inf")

    # -- from the shipper's thread --------------------------------------------------------------------

    def look(self) -> None:
        """Look for streams, if it is time to: every few seconds, and when this process has a new one.

        Raises:
            OSError: this process's own stream cannot be shipped.
        """
        own = self._own_id
        new_own = own is not None and own not in self._open and own not in self._finished
        now = time.monotonic()
        if not new_own and now - self._looked_s < SCAN_INTERVAL_S:
            return
        if self.single_writer and not self._lock.acquire():
            self._looked_s = now
            return
        streams = {stream.stream_id: stream for stream in list_streams(self._layout)}
        self._forget_removed(streams)
        if new_own and own in streams:
            self._add(streams[own])
        for key, stream in streams.items():
            if key != own and key not in self._open and key not in self._finished and key not in self._waiting:
                self._add_foreign(stream)
        self._fill_up()
        self._looked_s = now

    def in_turn(self) -> Iterator[Shipment]:
        """Every shipment once, and the one of this process before each of the others, so that it never waits long."""
        own = self._own_id
        mine = self._open.get(own) if own is not None else None
        if mine is not None:
            yield mine
        for shipment in [shipment for shipment in self._open.values() if shipment is not mine]:
            yield shipment
            if mine is not None and not mine.finished:
                yield mine

    def finish(self, shipment: Shipment) -> bool:
        """Everything of a dead stream is settled: let go of it, and take one that waits; whether there was one."""
        key = shipment.stream.stream_id
        self._finished[key] = shipment.cursor
        self._open.pop(key).close()
        others = len(self._open)
        self._fill_up()
        return len(self._open) > others

    def park(self, shipment: Shipment) -> None:
        """There is nothing to ship now: let another stream have the place, if one waits."""
        key = shipment.stream.stream_id
        if not self._waiting or key == self._own_id:
            return
        self._open.pop(key).close()
        self._fill_up()
        self._waiting[key] = shipment.stream

    def close(self) -> None:
        """Let go of all streams and of the destination's lock."""
        for shipment in self._open.values():
            shipment.close()
        self._open.clear()
        self._waiting.clear()
        self._lock.release()

    def forget(self) -> None:
        """In a forked child: close descriptors only."""
        for shipment in list(self._open.values()):
            shipment.forget()
        self._lock.forget()

    # -- from any thread --------------------------------------------------------------------------------

    def look_soon(self) -> None:
        """Look for streams at the next opportunity."""
        self._looked_s = float("-inf")

    def shipments(self) -> list[Shipment]:
        """Those that are open."""
        return list(self._open.values())

    def cursor(self, stream_id: str) -> Cursor | None:
        """How far the destination is in a stream, whoever ships it; ``None``: there is no such stream.

        A stream is gone when every destination that its writer required has everything of it.
        """
        shipment = self._open.get(stream_id)
        if shipment is not None:
            return shipment.cursor
        finished = self._finished.get(stream_id)
        if finished is not None:
            return finished
        stream = StreamDirectory(self._layout, self._layout.streams / stream_id)
        if not stream.path.is_dir():
            return None
        stored = stream.cursor_file(self._destination.name).load() or Cursor()
        shipment = self._open.get(stream_id)  # opened meanwhile: what it wrote may not be on the disk yet
        return shipment.cursor if shipment is not None else stored

    def streams(self) -> tuple[list[StreamDirectory], list[StreamDirectory]]:
        """Streams in the journal that are to be delivered by this process, and those of them that cannot be read.

        Those that another process happens to ship belong to the first, if their writer is dead.  Streams of a newer
        version, and those that this process may not read, are left to others.
        """
        found: list[StreamDirectory] = []
        unreadable: list[StreamDirectory] = []
        for stream in list_streams(self._layout):
            try:
                if stream.stream_id in self._open or self._is_ours(stream):
                    found.append(stream)
            except (UnknownFormatError, PermissionError):  # noqa: PERF203 - the others are looked at all the same
                pass
            except (DamageError, OSError):
                if stream.path.is_dir():  # else it was removed meanwhile
                    unreadable.append(stream)
        return found, unreadable

    def totals(self) -> dict[str, Cursor]:
        """What is known of every stream that was shipped here; under "", the sum of those that were removed since."""
        open_now = {key: shipment.cursor for key, shipment in self._open.copy().items()}
        return {"": self._past, **self._finished, **open_now}

    # -- in detail ----------------------------------------------------------------------------------------

    @property
    def _own_id(self) -> str | None:
        writer = self._journal.writer
        return writer.stream_id if writer is not None else None

    def _is_ours(self, stream: StreamDirectory) -> bool:
        """Whether this process delivers it.

        Raises:
            DamageError, OSError: it cannot be read.
        """
        if stream.stream_id == self._own_id:
            return True
        if stream.owner_state() != DEAD:
            return self._for_living or (self.single_writer and self._lock.held)
        if not self._adopt and not self.single_writer:
            return False
        meant_for = (*stream.metadata.required, *stream.metadata.optional)
        if not self._destination.from_now or self._destination.name in meant_for:
            return True
        cursor = stream.cursor_file(self._destination.name)
        return cursor.load() is not None or cursor.damaged

    def _add_foreign(self, stream: StreamDirectory) -> None:
        """Take a stream, if it is ours; one that cannot be read now is looked at again next time."""
        key = stream.stream_id
        try:
            if self._is_ours(stream):
                self._waiting[key] = stream
        except (DamageError, OSError) as error:
            self._say(key, error)

    def _fill_up(self) -> None:
        """Open streams that wait, as many as may be open."""
        for key, stream in list(self._waiting.items()):
            if len(self._open) >= SHIPMENTS_MAX:
                return
            del self._waiting[key]
            try:
                self._add(stream)
            except OSError as error:
                self._say(key, error)

    def _add(self, stream: StreamDirectory) -> None:
        try:
            shipment = open_shipment(stream, self._destination)
            if shipment is not None:
                self._open[stream.stream_id] = shipment
        except DamageError as error:
            self._say(stream.stream_id, error)

    def _say(self, stream_id: str, error: Exception) -> None:
        if stream_id not in self._said and (self._layout.streams / stream_id).is_dir():  # else it was removed meanwhile
            self._said.add(stream_id)
            _log.error("destination %s: stream %s cannot be shipped now: %s", self._destination.name, stream_id, error)

    def _forget_removed(self, present: dict[str, StreamDirectory]) -> None:
        own = self._own_id
        for key in [key for key in self._finished if key not in present and key != own]:
            gone = self._finished.pop(key)
            self._past = Cursor(
                delivered=self._past.delivered + gone.delivered,
                dead_lettered=self._past.dead_lettered + gone.dead_lettered,
                damaged=self._past.damaged + gone.damaged,
                filtered=self._past.filtered + gone.filtered,
            )
        self._waiting = {key: stream for key, stream in self._waiting.items() if key in present}
        self._said &= set(present)
