"""Making a stream, so that nobody takes it for a dead one meanwhile; and removing what an interrupted attempt left.

A stream is built under a hidden name, locked from the start, and renamed when it is complete: between a visible
directory and its lock an adopter would find an owner that seems dead.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Final

from .control import started
from .cursor import CursorFile
from .layout import Layout
from .locks import FileLock
from .metadata import NAME, StreamMetadata
from .stream import StreamWriter
from .streams import GONE, remove_stream_directory

HIDDEN: Final = ".new-"
UNFINISHED_S: Final = 60.0
"""How old a hidden directory must be before it is taken for left over."""


def begin_stream(
    layout: Layout,
    describe: Callable[[str], StreamMetadata],
    *,
    segment_bytes_max: int,
    admit: Callable[[Path], None] = lambda _: None,
) -> StreamWriter:
    """Make a stream and write its first record.

    Args:
        layout: the journal; its directories are there.
        describe: the metadata of a stream with this id.
        segment_bytes_max: see :class:`~otel_audit.journal.stream.StreamWriter`.
        admit: given the stream's lock file; raises where there is no room for the stream.

    Raises:
        OSError: it could not be made.
        JournalError: its first record could not be written.
    """
    files = layout.files
    stream_id = str(uuid.uuid4())
    hidden, final = layout.streams / f"{HIDDEN}{stream_id}", layout.streams / stream_id
    lock = FileLock(files, hidden / "lock", layout.mode)
    writer: StreamWriter | None = None
    try:
        layout.make_directory(hidden)
        lock.acquire()
        admit(lock.path)
        layout.make_directory(hidden / "cursors")
        metadata = describe(stream_id)
        for destination in {*metadata.required, *metadata.optional}:
            CursorFile(files, hidden / "cursors" / destination, layout.mode).prepare()
        files.replace(hidden / NAME, metadata.encode(), layout.mode)
        files.rename(hidden, final)
        files.sync_directory(layout.streams)
        lock.path = final / "lock"
        writer = StreamWriter(layout, metadata, lock, segment_bytes_max=segment_bytes_max)
        writer.append(started(metadata))
    except BaseException:
        if writer is not None:
            writer.abandon()
        lock.forget()
        with contextlib.suppress(OSError):
            remove_stream_directory(layout, hidden)
        raise
    return writer


def remove_unfinished(layout: Layout) -> int:
    """Remove hidden directories that nobody makes or removes any more; how many.

    Raises:
        OSError: one could not be removed.
    """
    files = layout.files
    removed = 0
    for name in files.listdir(layout.streams):
        path = layout.streams / name
        if not name.startswith((HIDDEN, GONE)):
            continue
        with contextlib.suppress(FileNotFoundError):  # finished, or removed, in between
            if time.time() - files.stat(path).st_mtime < UNFINISHED_S:
                continue
            lock = FileLock(files, path / "lock", layout.mode)
            try:
                if lock.acquire():
                    remove_stream_directory(layout, path)
                    removed += 1
            finally:
                lock.release()
    return removed
