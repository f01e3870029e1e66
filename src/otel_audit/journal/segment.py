"""Segments: the files of a stream, named by the sequence number of their first record."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import NamedTuple

from .files import OS_FILES, READ_AND_APPEND, Files
from .layout import Layout
from .line import Line, make_line, scan
from .locks import is_named, is_same_file

_NAME = re.compile(r"(\d{20})\.jsonl")


class Segment(NamedTuple):
    """One file of a stream."""

    first: int
    path: Path


def segment_path(directory: Path, first: int) -> Path:
    """Path of the segment whose first record has this sequence number."""
    return directory / f"{first:020d}.jsonl"


def list_segments(directory: Path, files: Files = OS_FILES) -> list[Segment]:
    """The segments of a stream, in order.  Empty where the directory is gone."""
    try:
        names = files.listdir(directory)
    except FileNotFoundError:
        return []
    found = (_NAME.fullmatch(name) for name in names)
    return sorted(Segment(int(match[1]), directory / match[0]) for match in found if match)


class OpenSegment:
    """The segment that a writer appends to, and the descriptor through which it does.

    Attributes:
        path: where it is.
        first: sequence number of its first record.
        fd: the descriptor; -1 when it is closed.
        end: the offset behind the last line that is known to be written.
        synced_end: the offset behind the last line that is known to be on the disk.
    """

    __slots__ = ("_files", "_identity", "end", "fd", "first", "path", "synced_end")

    def __init__(self, files: Files, path: Path, first: int, fd: int, end: int = 0) -> None:
        info = files.fstat(fd)
        self._files = files
        self._identity = (info.st_dev, info.st_ino)
        self.path = path
        self.first = first
        self.fd = fd
        self.end = end
        self.synced_end = end

    def is_ours(self) -> bool:
        """Whether the descriptor still names this file: a daemoniser closes all, and numbers are used again."""
        return is_same_file(self._files, self.fd, self._identity)

    def size(self) -> int | None:
        """The file's size; ``None`` where the descriptor is not ours any more or the path does not name the file."""
        try:
            info = self._files.fstat(self.fd)
        except OSError:
            return None
        if (info.st_dev, info.st_ino) != self._identity or not is_named(self._files, self.path, info):
            return None
        return info.st_size

    def read(self, start: int, stop: int) -> bytes:
        """The bytes between two offsets.

        Raises:
            OSError: they cannot be read.
        """
        return self._files.pread(self.fd, stop - start, start)

    def reopened(self) -> OpenSegment:
        """The same segment through a new descriptor: the file that stands in its place now.

        Raises:
            FileNotFoundError: it was removed.
            OSError: it cannot be opened.
        """
        held: list[int] = []
        try:
            self._files.open_into(held, self.path, READ_AND_APPEND)
            fd = self._files.lift(held)
            again = OpenSegment(self._files, self.path, self.first, fd, self.end)
            again.synced_end = self.synced_end
        except BaseException:
            for fd in held:
                self._files.close(fd)
            raise
        return again

    def close_unless(self, again: OpenSegment) -> None:
        """Close the descriptor if it is still ours, and names another file than the segment that took its place."""
        if self._identity != again._identity:
            self.close()

    def close(self) -> None:
        """Close the descriptor, if it is still ours."""
        if self.is_ours():
            try:
                fd, self.fd = self.fd, -1
                self._files.close(fd)
            except OSError:
                pass
        self.fd = -1


def new_segment(layout: Layout, directory: Path, first: int) -> OpenSegment:
    """Make an empty segment, durable in its directory.

    Raises:
        OSError: it could not be made.
    """
    files = layout.files
    path = segment_path(directory, first)
    with contextlib.suppress(FileNotFoundError):
        if files.stat(path).st_size == 0:
            files.unlink(path)  # left by an attempt that was interrupted
    held: list[int] = []
    try:
        files.create_into(held, path, layout.mode)
        segment = OpenSegment(files, path, first, files.lift(held))
        files.sync_directory(directory)
    except BaseException:
        for fd in held:
            files.close(fd)
        raise
    return segment


def move_unsynced(layout: Layout, segment: OpenSegment, first: int) -> tuple[OpenSegment, int]:
    """Copy what a failed sync left in doubt from the page cache to a new segment, and sync that.

    The copy appears under its final name when it is on the disk.  Where nothing of the old segment was synced, it takes
    the old one's place.

    Args:
        layout: the journal.
        segment: whose sync failed.
        first: sequence number of its first record that is not synced.

    Returns:
        The new segment, and how many records are in it.

    Raises:
        OSError: it cannot be done (now); the old segment is as it was.
    """
    files = layout.files
    directory = segment.path.parent
    data = segment.read(segment.synced_end, segment.end)
    lines = [item for item in scan(data, final=True) if isinstance(item, Line)]
    whole = b"".join([make_line(line.canonical)[0] for line in lines])
    beside = directory / f".{first:020d}.{os.urandom(8).hex()}.rescue"
    held: list[int] = []
    try:
        files.create_into(held, beside, layout.mode)
        fd = files.lift(held)
        files.write_all(fd, whole)
        files.fdatasync(fd)
        path = segment_path(directory, first)
        moved = OpenSegment(files, path, first, fd, len(whole))
        files.rename(beside, path)
        files.sync_directory(directory)
    except BaseException:
        for fd in held:
            files.close(fd)
        with contextlib.suppress(OSError):
            files.unlink(beside)
        raise
    return moved, len(lines)
