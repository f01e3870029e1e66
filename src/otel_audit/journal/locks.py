"""Who owns a stream: file locks that die with their process, and a second opinion on owners that seem alive."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Final

from .files import Files

_NO_LOCKS: Final = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class FileLock:
    """An exclusive ``flock`` on a file of its own; held until released or until the process dies.

    A forked child must call :meth:`forget`, never :meth:`release`: unlocking would take the lock from the living
    parent, because both share one open file.

    Args:
        create: make the file if it is not there; else there is nothing to hold.
    """

    def __init__(self, files: Files, path: Path, mode: int, *, create: bool = True) -> None:
        self._files = files
        self.path = path
        self._mode = mode
        self._create = create
        self._fd = -1
        self._identity = (0, 0)
        self._pid = 0

    @property
    def held(self) -> bool:
        """Whether this object holds it, as far as it knows."""
        return self._fd >= 0

    def acquire(self) -> bool:
        """Take it without waiting; whether it was got.

        Raises:
            FileNotFoundError: the file is not there, or its directory.
            OSError: the file cannot be opened, or its file system has no locks.
        """
        if self.held:
            return True
        held: list[int] = []
        try:
            fd = self._open(held)
            if not self._files.lock(fd):
                return False
            info = self._files.fstat(fd)
            if not is_named(self._files, self.path, info):
                return False
            identity = (info.st_dev, info.st_ino)
            pid = os.getpid()
            self._identity, self._pid, self._fd = identity, pid, fd
            held.clear()
            return True
        finally:
            for fd in held:
                self._files.close(fd)

    def _open(self, held: list[int]) -> int:
        """Open the file; reading is enough for a lock, so that whoever may read a stream can see whether it lives."""
        while True:
            try:
                return self._files.open_into(held, self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                if not self._create:
                    raise
            with contextlib.suppress(FileExistsError):
                self._files.close(self._files.create(self.path, self._mode))

    def held_by_anybody(self) -> bool:
        """Whether a process holds it now; takes and makes nothing."""
        try:
            fd = self._files.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not self._files.lock(fd, shared=True)
        finally:
            self._files.close(fd)

    def is_intact(self) -> bool:
        """Whether the lock protects what it should.

        Somebody may have closed the descriptor, or removed, moved or replaced the file.
        """
        try:
            info = self._files.fstat(self._fd)
        except OSError:
            return False
        return (info.st_dev, info.st_ino) == self._identity and is_named(self._files, self.path, info)

    def regain(self) -> bool:
        """Take it again after it was found not to be intact; whether it was got.

        Raises:
            OSError: the file cannot be opened.
        """
        self.forget()
        return self.acquire()

    def release(self) -> None:
        """Let go of it, also where a child inherited the descriptor."""
        if self._pid == os.getpid() and is_same_file(self._files, self._fd, self._identity):
            with contextlib.suppress(OSError):
                self._files.unlock(self._fd)
        self.forget()

    def forget(self) -> None:
        """Close the descriptor.  In the process that took the lock this releases it; in a forked child it does not."""
        fd, self._fd = self._fd, -1
        if fd >= 0 and is_same_file(self._files, fd, self._identity):
            with contextlib.suppress(OSError):
                self._files.close(fd)


def locks_work(files: Files, path: Path) -> bool:
    """Whether the file system under a file has locks at all; some of the network and in user space have none.

    Raises:
        OSError: the file cannot be opened.
    """
    held: list[int] = []
    try:
        files.lock(files.open_into(held, path, os.O_RDONLY | os.O_CLOEXEC), shared=True)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    finally:
        for fd in held:
            files.close(fd)
    return True


def is_same_file(files: Files, fd: int, identity: tuple[int, int]) -> bool:
    """Whether a descriptor is open and names the file with this device and inode number."""
    try:
        info = files.fstat(fd)
    except OSError:
        return False
    return (info.st_dev, info.st_ino) == identity


def is_named(files: Files, path: Path, info: os.stat_result) -> bool:
    """Whether the path still names this file: it may have been removed, moved away or replaced.

    Where nobody lets us look (we gave up our privileges, say), it is believed.
    """
    try:
        named = files.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return info.st_nlink > 0
    return (named.st_dev, named.st_ino) == (info.st_dev, info.st_ino)


@lru_cache(maxsize=1)
def boot_id() -> str:
    """An id of this boot of the machine: a process id of an earlier boot says nothing."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return f"{sys.platform}-{uuid.getnode():x}"


@lru_cache(maxsize=1)
def _pid_namespace_of(pid: int) -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def pid_namespace() -> str:
    """An id of the space in which this process's id counts (a container has its own); empty where there is only one."""
    return _pid_namespace_of(os.getpid())


def owner_lives(pid: int, owner_boot_id: str, owner_pid_namespace: str | None = None) -> bool:
    """Whether the process that wrote a stream can still be there.  For a stream whose lock is taken.

    A descriptor that a child inherited keeps the lock after its owner's death, so the process is looked for.  Where
    that proves nothing, because its id does not count here (another container, another kernel), the lock is believed.

    Args:
        pid: the owner's.
        owner_boot_id: of the kernel that it runs on.
        owner_pid_namespace: where its id counts; ``None``: where ours does.
    """
    if owner_boot_id != boot_id():
        return True
    if owner_pid_namespace is not None and owner_pid_namespace != pid_namespace():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
