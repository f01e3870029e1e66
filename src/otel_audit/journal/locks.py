"""Who owns a stream: file locks that die with their process, and a second opinion on owners that seem alive."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from functools import lru_cache
from pathlib import Path

from .files import Files


class FileLock:
    """An exclusive ``flock`` on a file of its own; held until released or until the process dies.

    A forked child must call :meth:`forget`, never :meth:`release`: unlocking would take the lock from the living
    parent, because both share one open file.
    """

    def __init__(self, files: Files, path: Path, mode: int) -> None:
        self._files = files
        self.path = path
        self._mode = mode
        self._fd = -1

    @property
    def held(self) -> bool:
        """Whether this object holds it."""
        return self._fd >= 0

    def acquire(self) -> bool:
        """Take it without waiting; whether it was got.  The file is made if it is not there.

        Raises:
            OSError: the file cannot be opened, or its file system has no locks.
        """
        if self.held:
            return True
        fd = self._files.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, self._mode)
        try:
            if self._files.lock(fd) and self._is_still(fd):
                self._fd, fd = fd, -1
                return True
            return False
        finally:
            if fd >= 0:
                self._files.close(fd)

    def _is_still(self, fd: int) -> bool:
        """Whether the path still names the file that was locked (it may have been removed in between)."""
        try:
            named = self.path.stat()
        except FileNotFoundError:
            return False
        held = self._files.fstat(fd)
        return (named.st_dev, named.st_ino) == (held.st_dev, held.st_ino)

    def release(self) -> None:
        """Let go of it."""
        self.forget()

    def forget(self) -> None:
        """Close the descriptor.  In the process that took the lock this releases it; in a forked child it does not."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with contextlib.suppress(OSError):
                self._files.close(fd)


@lru_cache(maxsize=1)
def boot_id() -> str:
    """An id of this boot of the machine: a process id of an earlier boot says nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"{sys.platform}-{uuid.getnode():x}"


def owner_lives(pid: int, owner_boot_id: str) -> bool:
    """Whether the process that wrote a stream can still be there.

    For a stream whose lock is taken: a descriptor that a child inherited keeps the lock after its owner's death.
    """
    if owner_boot_id != boot_id():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
