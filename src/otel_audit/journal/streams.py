"""The streams in a journal's directory, seen from outside: whose they are, how far they go, who has what of them."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from ..lazy import lazy
from .cursor import Cursor, CursorFile
from .layout import Layout
from .locks import FileLock, owner_lives
from .metadata import StreamMetadata, read_metadata

LIVING = "living"
DEAD = "dead"
GONE = ".gone-"
"""What the name of a directory begins with that is being removed."""


@dataclass(frozen=True)
class StreamDirectory:
    """One stream's directory, of whichever process."""

    layout: Layout
    path: Path

    @property
    def stream_id(self) -> str:
        """The stream's UUID."""
        return self.path.name

    @lazy
    def metadata(self) -> StreamMetadata:
        """What ``stream.json`` says.

        Raises:
            UnknownFormatError: written by a newer version.
            DamageError: missing or unreadable.
        """
        return read_metadata(self.path)

    def owner_lock(self) -> FileLock:
        """The lock that its writer holds; to be had only when the writer is dead.  Only the writer makes it."""
        return FileLock(self.layout.files, self.path / "lock", self.layout.mode, create=False)

    def owner_state(self) -> str:
        """``"living"`` or ``"dead"``.

        A taken lock alone is not believed: a child that inherited the descriptor keeps it after its owner's death.

        Raises:
            DamageError: the metadata cannot be read.
        """
        files = self.layout.files
        try:
            fd = files.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return DEAD
        try:
            if files.lock(fd, shared=True):  # shared: two that look at the same moment must not see each other
                return DEAD
        finally:
            files.close(fd)
        owner = self.metadata
        return LIVING if owner_lives(owner.pid, owner.boot_id, owner.pid_namespace) else DEAD

    def cursor_file(self, destination: str) -> CursorFile:
        """The cursor of a destination."""
        return CursorFile(self.layout.files, self.path / "cursors" / destination, self.layout.mode)

    def ship_lock(self, destination: str) -> FileLock:
        """The lock of whoever ships this stream to a destination; it is on the cursor's own file."""
        return FileLock(self.layout.files, self.path / "cursors" / destination, self.layout.mode)

    def cursors(self) -> dict[str, Cursor | None]:
        """Every destination that has stored a cursor here; ``None`` where the cursor is damaged."""
        found: dict[str, Cursor | None] = {}
        with contextlib.suppress(FileNotFoundError):
            for path in sorted((self.path / "cursors").iterdir()):
                file = self.cursor_file(path.name)
                cursor = file.load()
                if cursor is not None or file.damaged:
                    found[path.name] = cursor
        return found


def list_streams(layout: Layout) -> list[StreamDirectory]:
    """Every stream in the journal, in no particular order; those being made or removed are left out."""
    try:
        with os.scandir(layout.streams) as entries:
            return [StreamDirectory(layout, Path(entry.path)) for entry in entries if not entry.name.startswith(".")]
    except FileNotFoundError:
        return []


def remove_stream_directory(layout: Layout, directory: Path) -> None:
    """Remove the directory of a stream without segments: in one step for everybody who looks, then file by file.

    Whoever is killed meanwhile leaves a hidden directory, which is removed later.

    Raises:
        OSError: it could not be removed.
    """
    files = layout.files
    if not directory.name.startswith("."):
        hidden = directory.with_name(f"{GONE}{directory.name}")
        files.rename(directory, hidden)
        directory = hidden
    cursors = directory / "cursors"
    with contextlib.suppress(FileNotFoundError):
        for name in files.listdir(cursors):
            files.unlink(cursors / name)
        files.rmdir(cursors)
    for name in sorted(files.listdir(directory), key=lambda name: name == "lock"):
        files.unlink(directory / name)
    files.rmdir(directory)


def usage_bytes(root: Path, *, reserved: bool = True) -> int:
    """Bytes of everything in the journal, dead letters included.

    Args:
        root: the journal's directory.
        reserved: with what processes have reserved for their next records, which is the size of their locks' files.
    """
    total = 0
    pending = [str(root)]
    while pending:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    elif reserved or entry.name != "lock":
                        total += entry.stat(follow_symlinks=False).st_size
    return total
