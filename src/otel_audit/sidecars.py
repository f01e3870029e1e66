"""Processes that only deliver (``otel-audit ship``), as ``otel-audit status`` sees them from outside.

They have no stream, so each leaves its state in ``sidecars/<id>.json`` and holds ``sidecars/<id>.lock`` for as long as
it lives.  What a killed one left is not believed, and the next sidecar removes it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from .delivery.destination import DestinationState
from .journal.layout import Layout
from .journal.locks import FileLock


class SidecarStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A sidecar, as it last described itself.

    Attributes:
        host, pid: where it runs.
        for_living: it delivers for living processes too.
        destinations: how each of those that it serves is doing, by name.
    """

    host: str
    pid: int
    for_living: bool
    destinations: dict[str, DestinationState]


class Sidecar:
    """The present process, while it delivers.

    Args:
        layout: the journal.
        for_living: it delivers for living processes too.

    Raises:
        OSError: the journal cannot be written.
    """

    def __init__(self, layout: Layout, *, for_living: bool) -> None:
        self._layout = layout
        self._for_living = for_living
        directory = _directory(layout)
        layout.make_directory(directory)
        _remove_dead(layout)
        self._path = directory / f"{uuid.uuid4()}.json"
        self._lock = FileLock(layout.files, self._path.with_suffix(".lock"), layout.mode)
        self._lock.acquire()
        self._before = b""

    def write(self, destinations: Mapping[str, DestinationState]) -> None:
        """Say how the destinations are doing.

        Raises:
            OSError: it could not be written.
        """
        state = SidecarStatus(
            host=socket.gethostname(), pid=os.getpid(), for_living=self._for_living, destinations=dict(destinations)
        )
        data = msgspec.json.encode(state)
        if data != self._before:
            self._layout.files.replace(self._path, data, self._layout.mode, sync_directory=False)
            self._before = data

    def end(self) -> None:
        """It delivers no more.  Does not raise."""
        for path in (self._path, self._lock.path):
            with contextlib.suppress(OSError):
                self._layout.files.unlink(path)
        self._lock.release()


def living_sidecars(layout: Layout) -> list[SidecarStatus]:
    """The sidecars of a journal that live; changes nothing."""
    found = []
    for path, lock in _all(layout):
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            if lock.held_by_anybody():
                found.append(msgspec.json.decode(path.read_bytes(), type=SidecarStatus))
    return found


def for_dead_only(layout: Layout, sidecars: Sequence[SidecarStatus]) -> set[str]:
    """Destinations that sidecars deliver for dead processes only: without ``--for-living``.

    One that takes from one process at a time gets everything from the one that holds its lock.
    """
    for_living = {name for sidecar in sidecars if sidecar.for_living for name in sidecar.destinations}
    named = {name for sidecar in sidecars for name in sidecar.destinations} - for_living
    locks = {name: FileLock(layout.files, layout.destination_lock(name), layout.mode) for name in named}
    return {name for name, lock in locks.items() if not lock.held_by_anybody()}


def _remove_dead(layout: Layout) -> None:
    for path, lock in _all(layout):
        with contextlib.suppress(OSError):
            if lock.acquire():
                layout.files.unlink(path)
                layout.files.unlink(lock.path)
                lock.release()


def _all(layout: Layout) -> Iterator[tuple[Path, FileLock]]:
    for path in sorted(_directory(layout).glob("*.json")):
        yield path, FileLock(layout.files, path.with_suffix(".lock"), layout.mode)


def _directory(layout: Layout) -> Path:
    return layout.root / "sidecars"
