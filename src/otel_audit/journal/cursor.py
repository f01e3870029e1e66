"""Cursors: how far each destination has acknowledged each stream."""

from __future__ import annotations

from pathlib import Path

import msgspec

from .files import Files


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


class CursorFile:
    """The cursor of one destination in one stream, kept in a file that is replaced atomically.

    A lost or damaged cursor costs duplicates, never records: reading begins again at the stream's first record, and
    receivers know a record by its id.
    """

    def __init__(self, files: Files, path: Path, mode: int) -> None:
        self._files = files
        self.path = path
        self._mode = mode
        self.damaged = False

    def load(self) -> Cursor | None:
        """What the file says; ``None`` where there is none or where it is damaged (then ``damaged`` is true)."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            return msgspec.json.decode(data, type=Cursor)
        except msgspec.MsgspecError:
            self.damaged = True
            return None

    def store(self, cursor: Cursor) -> None:
        """Replace the file.  Durable before it is visible; the directory is synced only before a segment goes.

        Raises:
            OSError: it could not be written; the old one still stands.
        """
        self._files.replace(self.path, msgspec.json.encode(cursor), self._mode, sync_directory=False)
