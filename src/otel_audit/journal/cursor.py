"""Cursors: how far each destination has acknowledged each stream.

A cursor file has two slots of 512 bytes, each one line of JSON::

    {"crc32":"1c291ca3","turn":7,"cursor":{"acknowledged":4711,"delivered":4711,"dead_lettered":0,"damaged":0}}

A new state is written over the older of the two, in place, and synced.  So the younger one is whole at every moment,
and a disk that is full does not stand in the way: the file was made, with all its bytes, together with its stream.
Were it replaced by a new one, a full disk could never be relieved of what is delivered.

What cannot be read costs duplicates, never records: where one slot is damaged the other counts, and where both are,
reading begins again at the stream's first record; receivers know a record by its id.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final
from zlib import crc32

import msgspec

from .files import OVERWRITE, Files

SLOT_BYTES: Final = 512
"""A sector: what a power loss leaves of it is the old or the new."""
_BLANK: Final = (b" " * (SLOT_BYTES - 1) + b"\n") * 2


class Cursor(msgspec.Struct, frozen=True):
    """How far a destination is in a stream.

    Attributes:
        acknowledged: every record up to this sequence number is settled: delivered or dead-lettered.
        delivered: how many of them the destination took.
        dead_lettered: how many of them went to the dead letters.
        damaged: how many of them were found damaged in the journal and could go nowhere.
        filtered: how many of them the destination's filter passed over: they are not for it.
    """

    acknowledged: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    damaged: int = 0
    filtered: int = 0


class _Slot(msgspec.Struct):
    """What is written down: the cursor, its turn (the higher one counts) and a checksum of both."""

    crc32: str
    turn: int
    cursor: msgspec.Raw


class CursorFile:
    """The cursor of one destination in one stream.

    Whoever stores holds the file's lock (``StreamDirectory.ship_lock``).

    Attributes:
        damaged: what :meth:`load` found last cannot be read.
    """

    def __init__(self, files: Files, path: Path, mode: int) -> None:
        self._files = files
        self.path = path
        self._mode = mode
        self._turn = -1
        self.damaged = False

    def load(self) -> Cursor | None:
        """What the file says; ``None`` where nothing was stored yet or where it is damaged (``damaged`` is true then).

        Raises:
            OSError: it cannot be read.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        slots = [data[:SLOT_BYTES], data[SLOT_BYTES : 2 * SLOT_BYTES]]
        found = max(map(_read, slots), key=lambda slot: slot[0])
        self._turn = found[0]
        self.damaged = found[1] is None and bool(data.strip(b" \n\0"))
        return found[1]

    def store(self, cursor: Cursor) -> None:
        """Write it over the older slot.  On return it is on the disk; the directory is synced before a segment goes.

        Raises:
            OSError: it could not be written; the one before still stands.
        """
        if self._turn < 0:
            self.load()
        turn = self._turn + 1
        state = msgspec.json.encode(cursor)
        line = b'{"crc32":"%08x","turn":%d,"cursor":%b}' % (_checksum(turn, state), turn, state)
        held: list[int] = []
        try:
            fd = self._open(held)
            self._files.write_at(fd, line.ljust(SLOT_BYTES - 1) + b"\n", turn % 2 * SLOT_BYTES)
            self._files.fdatasync(fd)
        finally:
            for fd in held:
                self._files.close(fd)
        self._turn = turn

    def sync(self) -> None:
        """Have on the disk what the file says: whoever stores it may not be done.

        Raises:
            OSError: it could not be synced.
        """
        held: list[int] = []
        try:
            self._files.fdatasync(self._files.open_into(held, self.path, OVERWRITE))
        finally:
            for fd in held:
                self._files.close(fd)

    def prepare(self) -> None:
        """Make the file, so that storing needs no room.

        Raises:
            OSError: it could not be made.
        """
        held: list[int] = []
        try:
            self._open(held)
        finally:
            for fd in held:
                self._files.close(fd)

    def _open(self, held: list[int]) -> int:
        """The file, with all its bytes."""
        try:
            fd = self._files.open_into(held, self.path, OVERWRITE)
        except FileNotFoundError:
            fd = self._files.create_into(held, self.path, self._mode, OVERWRITE | os.O_CREAT | os.O_EXCL)
        size = self._files.fstat(fd).st_size
        if size < len(_BLANK):
            self._files.write_at(fd, _BLANK[size:], size)
        return fd


def _checksum(turn: int, state: bytes) -> int:
    return crc32(b"%d%b" % (turn, state))


def _read(slot: bytes) -> tuple[int, Cursor | None]:
    """A slot's turn and cursor; -1 and ``None`` where it is blank or damaged."""
    try:
        found = msgspec.json.decode(slot, type=_Slot)
        if found.crc32 == f"{_checksum(found.turn, bytes(found.cursor)):08x}":
            return found.turn, msgspec.json.decode(found.cursor, type=Cursor)
    except (msgspec.MsgspecError, ValueError):
        pass
    return -1, None
