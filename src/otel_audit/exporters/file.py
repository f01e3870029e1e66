"""A file of JSON lines: each batch is appended in one piece and is on the disk before it counts as delivered.

The file is opened, locked and looked at anew for every batch.  So it may be rotated, replaced or removed by others at
any time, nothing is inherited by a forked child, and what a crash left half-written is found before it is written on.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from ..batch import RecordBatch
from ..errors import BlockedExportError, ConfigurationError, DamageError, RejectedExportError, RetryableExportError
from ..formats.jsonl import encode_lines
from ..journal.files import OS_FILES, Files
from ..options import REQUIRED, Option, read_options
from ..protocols import ExportResult
from .courtesy import let_others_run

_OPEN: Final = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_CREATE: Final = _OPEN | os.O_CREAT | os.O_EXCL
_BLOCK: Final = 65_536
_TORN_KEPT: Final = 100

_REPAIRS: Final = {
    errno.ENOSPC: "the file system is full: make room",
    errno.EDQUOT: "the quota is used up: make room",
    errno.EFBIG: "the file is as large as it may be: set rotate_size",
    errno.EROFS: "the file system is mounted read-only",
    errno.EACCES: "give this process the permission to write the file and its directory",
    errno.EPERM: "give this process the permission to write the file and its directory",
    errno.ENOENT: "make the directory, or mount what belongs there",
    errno.ENOTDIR: "a part of the path is not a directory",
    errno.EISDIR: "the path is a directory; name a file",
    errno.ELOOP: "the path is a circle of symbolic links",
    errno.ENAMETOOLONG: "the path is too long",
    errno.ENXIO: "the path is not a regular file; name one",
    errno.ENOLCK: "the file system has no locks; choose another",
    errno.ENOTSUP: "the file system has no locks; choose another",
}
"""Errors of the operating system that do not pass by themselves, and what to do."""


@dataclass(frozen=True)
class TornLine:
    """The beginning of a line whose writer died; it was ended with a line feed and left where it is.

    Its records were not acknowledged, so they follow again, whole.

    Attributes:
        path: the file.
        offset: where the line begins.
        length: how many bytes there are of it.
    """

    path: Path
    offset: int
    length: int


class FileExporter:
    """Appends batches to a file.  The arguments are explained in :attr:`OPTIONS`.

    A file that is full or old is renamed to ``<name>.<UTC time>-<number><suffix>``, which never overwrites another;
    names sort by age.  An empty one means that a rotation was interrupted.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("path", "path", REQUIRED, "file to append to; its directory has to be there"),
        Option("rotate_size", "size", None, "begin a new file before one grows beyond this", minimum=1),
        Option("rotate_every", "duration", None, "begin a new file when this interval of UTC is over", minimum=1),
        Option("keep", "int", None, "how many rotated files to keep; without it, none is ever deleted", minimum=1),
        Option("mode", "str", "0600", "permissions of new files, octal"),
    )

    single_writer = True

    def __init__(
        self,
        path: str | Path,
        *,
        rotate_size: int | str | None = None,
        rotate_every: float | str | None = None,
        keep: int | None = None,
        mode: str = "0600",
        files: Files = OS_FILES,
        now: Callable[[], float] = time.time,
        where: str = "FileExporter",
    ) -> None:
        given = {"path": path, "rotate_size": rotate_size, "rotate_every": rotate_every, "keep": keep, "mode": mode}
        self._start(read_options(self.OPTIONS, where, given), where)
        self._files = files
        self._now = now

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], environ: Mapping[str, str], *, where: str = "file"
    ) -> FileExporter:
        """The exporter that these options describe; the environment is not read.

        Raises:
            ConfigurationError: an option is unknown or wrong.
        """
        return cls(**read_options(cls.OPTIONS, where, options), where=where)

    def _start(self, options: Mapping[str, Any], where: str) -> None:
        self.path: Path = options["path"]
        self._rotate_size: int | None = options["rotate_size"]
        self._rotate_every: float | None = options["rotate_every"]
        self._keep: int | None = options["keep"]
        if not re.fullmatch(r"(0o)?[0-7]{3,4}", options["mode"]):
            raise ConfigurationError(f"{where}.mode: expected octal permissions like '0640', got {options['mode']!r}")
        self._mode = int(options["mode"].removeprefix("0o"), 8)
        if self._mode & 0o600 != 0o600 or self._mode & ~0o666:
            raise ConfigurationError(f"{where}.mode: expected read and write for us at least, got {options['mode']!r}")
        if self._keep is not None and self._rotate_size is None and self._rotate_every is None:
            raise ConfigurationError(f"{where}.keep: needs rotate_size or rotate_every beside it")
        self._synced_inode: tuple[int, int] | None = None
        self._torn: list[TornLine] = []

    @property
    def torn_lines(self) -> tuple[TornLine, ...]:
        """What earlier writers left half-written and this one found; the first hundred."""
        return tuple(self._torn)

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        """Append the whole batch; the time limit is not kept, because a write cannot be interrupted.

        Raises:
            RetryableExportError, BlockedExportError, RejectedExportError: it is not in the file, or not safely.
        """
        try:
            data = encode_lines(batch, let_others_run)
        except DamageError as error:
            raise RejectedExportError(str(error), details={"reason": "damaged"}) from error
        try:
            with self._locked() as fd:
                if not self._is_due(fd, len(data)):
                    self._append(fd, data)
                    return None
                self._rotate(fd)
            with self._locked() as fd:
                self._append(fd, data)
            self._forget_old()
        except OSError as error:
            code = errno.errorcode.get(error.errno or 0, "")
            text = f"{self.path}: {error.strerror or type(error).__name__}"
            if error.errno in _REPAIRS:
                raise BlockedExportError(text, status=code, repair=_REPAIRS[error.errno]) from error
            raise RetryableExportError(text, status=code) from error
        return None

    def close(self) -> None:
        """Nothing is kept open."""

    def __repr__(self) -> str:
        return f"<FileExporter {self.path}>"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The file that has the name now, made where there is none, under its lock."""
        while True:
            fd = self._opened()
            try:
                if not stat.S_ISREG(self._files.fstat(fd).st_mode):
                    raise OSError(errno.ENXIO, "not a regular file")
                if not self._files.lock(fd):
                    raise RetryableExportError(f"{self.path}: another process is writing to it")
                if _identity(self._files.fstat(fd)) == self._identity_of_path():
                    yield fd
                    return
                # It was rotated between opening and locking.
            finally:
                self._files.close(fd)

    def _identity_of_path(self) -> tuple[int, int] | None:
        try:
            return _identity(self._files.stat(self.path))
        except FileNotFoundError:
            return None

    def _opened(self) -> int:
        try:
            return self._files.open(self.path, _OPEN)
        except FileNotFoundError:
            pass
        try:
            fd = self._files.open(self.path, _CREATE, self._mode)
        except FileExistsError:  # another process was quicker
            return self._files.open(self.path, _OPEN)
        self._files.fchmod(fd, self._mode)  # whatever the umask is
        return fd

    def _append(self, fd: int, data: bytes) -> None:
        """Append in one write and make it durable; on failure take back what was written."""
        found = self._files.fstat(fd)
        start = found.st_size
        if torn := self._torn_line(fd, start):
            data = b"\n" + data
        written = 0
        try:
            while written < len(data):
                count = self._files.write(fd, data[written:] if written else data)
                if count <= 0:
                    raise OSError(errno.EIO, "nothing was written")
                written += count
            self._files.fdatasync(fd)
            if self._synced_inode != _identity(found):
                self._files.sync_directory(self.path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                if self._files.fstat(fd).st_size == start + written:  # nobody else has written since
                    self._files.ftruncate(fd, start)
            raise
        self._synced_inode = _identity(found)
        if torn and len(self._torn) < _TORN_KEPT:
            self._torn.append(torn)

    def _torn_line(self, fd: int, size: int) -> TornLine | None:
        """The last line, where it has no end."""
        if size == 0 or self._files.pread(fd, 1, size - 1) == b"\n":
            return None
        end = size
        while end > 0:
            begin = max(0, end - _BLOCK)
            line_feed = self._files.pread(fd, end - begin, begin).rfind(b"\n")
            if line_feed >= 0:
                return TornLine(self.path, begin + line_feed + 1, size - begin - line_feed - 1)
            end = begin
        return TornLine(self.path, 0, size)

    def _is_due(self, fd: int, more: int) -> bool:
        """Whether a new file has to begin before so many bytes are appended."""
        found = self._files.fstat(fd)
        if found.st_size == 0:
            return False
        if self._rotate_size is not None and found.st_size + more > self._rotate_size:
            return True
        every = self._rotate_every
        return every is not None and self._now() // every > found.st_mtime // every

    def _rotate(self, fd: int) -> None:
        """Give the file its final name."""
        size = self._files.fstat(fd).st_size
        if self._torn_line(fd, size):
            self._append(fd, b"")
        final = self._reserved_name()
        try:
            self._files.rename(self.path, final)
        except OSError:
            with contextlib.suppress(OSError):
                self._files.unlink(final)
            raise
        self._synced_inode = None

    def _reserved_name(self) -> Path:
        """A name that no other file had; an empty file holds it, for the rename to replace."""
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(self._now()))
        for number in itertools.count(1):
            path = self.path.with_name(f"{self.path.stem}.{stamp}-{number:04d}{self.path.suffix}")
            with contextlib.suppress(FileExistsError):
                self._files.close(self._files.open(path, _CREATE, self._mode))
                return path
        raise AssertionError("unreachable")

    def _forget_old(self) -> None:
        """Delete the oldest rotated files, where that was asked for; what cannot be deleted now is next time."""
        if self._keep is None:
            return
        stem, suffix = re.escape(self.path.stem), re.escape(self.path.suffix)
        ours = re.compile(stem + r"\.([0-9]{8}T[0-9]{6}Z)-([0-9]+)" + suffix)
        with contextlib.suppress(OSError):
            found = [match for name in self._files.listdir(self.path.parent) if (match := ours.fullmatch(name))]
            found.sort(key=lambda match: (match[1], int(match[2])))
            for match in found[: -self._keep]:
                self._files.unlink(self.path.parent / match[0])


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
