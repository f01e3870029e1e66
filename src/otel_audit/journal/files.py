"""The system calls of the journal, so that a test can make each of them fail.

All that writes, locks, syncs, renames and removes goes through here, and all reading of segments.  What only looks (for
streams, for sizes, at small files) is done by :mod:`pathlib` and :mod:`os` where it is needed.

Subclass :class:`Files` to put faults in (see ``otel_audit.testing``).  Methods raise :class:`OSError`, as the
operating system does.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

APPEND: Final = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
READ_AND_APPEND: Final = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
CREATE: Final = READ_AND_APPEND | os.O_CREAT | os.O_EXCL
OVERWRITE: Final = os.O_WRONLY | os.O_CLOEXEC

RESERVE_BYTES: Final = 64 * 1024
"""So much room is reserved behind the end of a file that must grow on a full disk too."""
FULL: Final = (errno.ENOSPC, errno.EDQUOT)
"""What the operating system says where there is no room."""

MAKE_ROOM: Final = (
    "Make room on the journal's file system (bytes and inodes: df, df -i); what destinations have makes room too, see "
    "`otel-audit status`"
)
"""What to do then."""

HIGH_NUMBERS: Final = (700, 190)
"""From which number on the descriptor that records are written to is looked for: below the usual limits of 1024 and of
256, and no higher, because every fork copies the kernel's table up to the highest number."""

_KEEP_SIZE: Final = 1
_F_FULLFSYNC: Final = getattr(fcntl, "F_FULLFSYNC", None)


@functools.cache
def _fallocate() -> Callable[[int, int, int, int], int] | None:
    """The system call that Python has no name for; ``None`` where there is none."""
    if sys.platform != "linux":
        return None
    import ctypes  # noqa: PLC0415 - most processes never remove a segment

    libc = ctypes.CDLL(None, use_errno=True)
    call = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)
    if call is None:
        return None
    call.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return lambda *arguments: 0 if call(*arguments) == 0 else ctypes.get_errno()


def _reserve(fd: int, start: int, size: int) -> None:
    call = _fallocate()
    error = call(fd, _KEEP_SIZE, start, size) if call is not None else errno.ENOSYS
    if error:
        raise OSError(error, os.strerror(error))


def _full_sync(fd: int) -> None:
    """Make the file's data durable; on macOS ``fsync`` does not reach the medium, ``F_FULLFSYNC`` does."""
    if _F_FULLFSYNC is None:
        os.fsync(fd)
        return
    try:
        fcntl.fcntl(fd, _F_FULLFSYNC)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EINVAL):
            raise
        os.fsync(fd)


def with_repair(text: str, error: OSError) -> str:
    """A message, and what to do where it is about a lack of room."""
    return f"{text}. {MAKE_ROOM}" if error.errno in FULL else text


class Files:
    """The real system calls."""

    open: Callable[..., int] = staticmethod(os.open)
    write: Callable[[int, bytes], int] = staticmethod(os.write)
    pwrite: Callable[[int, bytes, int], int] = staticmethod(os.pwrite)
    pread: Callable[[int, int, int], bytes] = staticmethod(os.pread)
    fstat: Callable[[int], os.stat_result] = staticmethod(os.fstat)
    ftruncate: Callable[[int, int], None] = staticmethod(os.ftruncate)
    truncate: Callable[[Path, int], None] = staticmethod(os.truncate)
    close: Callable[[int], None] = staticmethod(os.close)
    stat: Callable[[Path], os.stat_result] = staticmethod(os.stat)
    listdir: Callable[[Path], list[str]] = staticmethod(os.listdir)
    rename: Callable[[Path, Path], None] = staticmethod(os.rename)
    unlink: Callable[[Path], None] = staticmethod(os.unlink)
    dup: Callable[[int, int, int], int] = staticmethod(fcntl.fcntl)
    rmdir: Callable[[Path], None] = staticmethod(os.rmdir)
    chown: Callable[[Path, int, int], None] = staticmethod(os.chown)
    fchmod: Callable[[int, int], None] = staticmethod(os.fchmod)
    fsync: Callable[[int], None] = staticmethod(_full_sync)
    reserve: Callable[[int, int, int], None] = staticmethod(_reserve)
    fdatasync: Callable[[int], None] = staticmethod(_full_sync if sys.platform == "darwin" else os.fdatasync)

    def mkdir(self, path: Path, mode: int) -> bool:
        """Make one directory with exactly this mode, whatever the umask; whether it was not there before."""
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            return False
        path.chmod(mode)
        return True

    def open_into(self, held: list[int], path: Path, flags: int, mode: int = 0o600) -> int:
        """Open a file and keep its descriptor in a list.

        One step of the interpreter does both: whatever interrupts, no descriptor is left open that nobody knows.
        """
        held.extend(map(self.open, [path], [flags], [mode]))
        return held[-1]

    def lift(self, held: list[int]) -> int:
        """Give the only descriptor of a list a high number, which nobody is given by chance.

        A daemoniser closes every descriptor, and what is opened next is given the lowest free number.  A write to a
        high one then fails, and the writer notices; a write to a low one would go into somebody else's file.

        Each of the two steps is one of the interpreter, as in :meth:`open_into`.
        """
        for least in HIGH_NUMBERS:
            with contextlib.suppress(OSError):  # this process may not have such a number, or has them all in use
                held.extend(map(self.dup, list(held), [fcntl.F_DUPFD_CLOEXEC], [least]))
                list(map(self.close, map(held.pop, [0])))
                break
        return held[0]

    def create(self, path: Path, mode: int) -> int:
        """Make a file with exactly this mode, whatever the umask, and open it for reading and appending.

        Raises:
            FileExistsError: it is there.
        """
        held: list[int] = []
        try:
            return self.create_into(held, path, mode)
        except BaseException:
            for fd in held:
                self.close(fd)
            raise

    def create_into(self, held: list[int], path: Path, mode: int, flags: int = CREATE) -> int:
        """As :meth:`create`, and keep the descriptor in a list, as :meth:`open_into` does."""
        self.fchmod(self.open_into(held, path, flags, mode), mode)
        return held[-1]

    def sync_way_to(self, path: Path) -> None:
        """Make a directory durable in the one above it, and that one too, up to the root of the file system."""
        device = self.stat(path).st_dev
        for parent in itertools.takewhile(lambda parent: self.stat(parent).st_dev == device, path.parents):
            self.sync_directory(parent)

    def sync_directory(self, path: Path) -> None:
        """Make creations, renames and removals in a directory durable."""
        held: list[int] = []
        try:
            self.fsync(self.open_into(held, path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except PermissionError:  # only who may read a directory can open it, and others may make something in it
            os.sync()
        finally:
            for fd in held:
                self.close(fd)

    def lock(self, fd: int, *, shared: bool = False) -> bool:
        """Take the lock of an open file without waiting, exclusively or shared; whether it was got."""
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return False
            raise
        return True

    def unlock(self, fd: int) -> None:
        """Give the lock back, for every descriptor that shares this open file."""
        fcntl.flock(fd, fcntl.LOCK_UN)

    def write_all(self, fd: int, data: bytes) -> None:
        """Write all of it or raise; after an error some of it may have been written."""
        done = self.write(fd, data)
        while done < len(data):
            done += self.write(fd, data[done:])

    def write_at(self, fd: int, data: bytes, offset: int) -> None:
        """Write all of it at this place or raise; after an error some of it may have been written."""
        done = self.pwrite(fd, data, offset)
        while done < len(data):
            done += self.pwrite(fd, data[done:], offset + done)

    def replace(self, path: Path, data: bytes, mode: int, *, sync_directory: bool = True) -> None:
        """Replace a small file atomically and durably: write beside it, sync, rename, sync the directory."""
        beside = path.with_name(f".{path.name}.{os.urandom(8).hex()}.new")
        try:
            fd = self.create(beside, mode)
            try:
                self.write_all(fd, data)
                self.fdatasync(fd)
            finally:
                self.close(fd)
            self.rename(beside, path)
        except BaseException:
            with contextlib.suppress(OSError):
                self.unlink(beside)
            raise
        if sync_directory:
            self.sync_directory(path.parent)

    def append_durably(self, path: Path, data: bytes, mode: int) -> None:
        """Append to a file that may be new, and sync it (and its directory, if it was new); nothing, to make it.

        Room behind its end is reserved where the system can do that, so that the next lines find some on a full disk.
        """
        fd, new = self._open_to_append(path, mode)
        try:
            size = self.fstat(fd).st_size
            if size and self._last_byte(path, size) != b"\n":
                data = b"\n" + data  # the last writer died in mid-line: its rest must not swallow this line
            if data:
                self.write_all(fd, data)
            self._keep_room(fd)
            self.fdatasync(fd)
        finally:
            self.close(fd)
        if new:
            self.sync_directory(path.parent)

    def _keep_room(self, fd: int) -> None:
        info = self.fstat(fd)
        if info.st_blocks * 512 - info.st_size < RESERVE_BYTES // 2:
            with contextlib.suppress(OSError):  # there is no room now, or the file system cannot do it
                self.reserve(fd, info.st_size, RESERVE_BYTES)

    def _open_to_append(self, path: Path, mode: int) -> tuple[int, bool]:
        while True:
            try:
                return self.open(path, APPEND, mode), False
            except FileNotFoundError:  # noqa: PERF203 - at most twice
                with contextlib.suppress(FileExistsError):  # another process was quicker
                    return self.create(path, mode), True

    def _last_byte(self, path: Path, size: int) -> bytes:
        fd = self.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return self.pread(fd, 1, size - 1)
        finally:
            self.close(fd)


OS_FILES: Final = Files()
