"""Where everything stands in a journal's directory, and whether that directory can be trusted with it.

::

    <journal>/
      streams/<stream uuid>/stream.json              what is true of every record in it
                            00000000000000000001.jsonl …   segments, named by first sequence number
                            lock                     held (flock) by the writer; as long as the room that it reserved
                            cursors/<destination>    last acknowledged sequence, written in place by whoever ships the
                                                     stream there and holds its lock
                            recovery.json            what a reader found damaged; never a change of the data
      ledger.jsonl                                   one line for each segment that was removed
      dead-letters/<destination>.jsonl               what cannot be delivered, with the reason
      dead-letters/<destination>.replays             what became of those that were sent again
      acknowledgements/<destination>.jsonl           ids that the destination gave to records
      locks/<destination>                            for destinations that must have one writer
      sidecars/<id>.json, <id>.lock                  processes that only deliver, how they are doing
      retired/<destination>                          streams that do not wait for it any more
      locks/<destination>.replay                     held by whoever sends its dead letters again
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..errors import ConfigurationError, UnsafeJournalError
from .files import FULL, OS_FILES, Files

DESTINATION_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

_NETWORK: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs", "lustre",
     "gpfs", "beegfs", "ocfs2", "gfs2", "davfs", "fuse.s3fs", "fuse.gcsfuse"}
)  # fmt: skip
_VOLATILE: Final = frozenset({"tmpfs", "ramfs", "devtmpfs"})


@dataclass(frozen=True)
class Layout:
    """The paths of one journal, and the modes of what is made in it.

    Args:
        root: the journal's directory, absolute.
        mode: permissions of files; directories get the matching execute bits.
        group: group id that owns what is made, for a sidecar that runs as another user; ``None``: as the system
            does.
    """

    root: Path
    mode: int = 0o600
    group: int | None = None
    files: Files = OS_FILES

    @property
    def streams(self) -> Path:
        """Directory of all streams."""
        return self.root / "streams"

    @property
    def ledger(self) -> Path:
        """The ledger of removed segments."""
        return self.root / "ledger.jsonl"

    def dead_letters(self, destination: str) -> Path:
        """Dead letters of a destination."""
        return self.root / "dead-letters" / f"{destination}.jsonl"

    def replays(self, destination: str) -> Path:
        """What became of the dead letters of a destination that were sent again."""
        return self.root / "dead-letters" / f"{destination}.replays"

    def replay_lock(self, destination: str) -> Path:
        """Lock of whoever sends the dead letters of a destination again."""
        return self.root / "locks" / f"{destination}.replay"

    def acknowledgements(self, destination: str) -> Path:
        """Ids that a destination gave to records."""
        return self.root / "acknowledgements" / f"{destination}.jsonl"

    def destination_lock(self, destination: str) -> Path:
        """Lock of a destination that must have one writer."""
        return self.root / "locks" / destination

    @property
    def directory_mode(self) -> int:
        """Permissions of directories: who may read may also enter, and what is made inside belongs to the group."""
        return self.mode | (self.mode & 0o444) >> 2 | (stat.S_ISGID if self.group is not None else 0)

    def make_directory(self, path: Path) -> None:
        """Make one directory, if it is not there, and hand it to the group.

        Raises:
            OSError: it could not be made.
        """
        if self.files.mkdir(path, self.directory_mode) and self.group is not None:
            self.files.chown(path, -1, self.group)

    def make(self) -> None:
        """Make the directories that are not there.  On return they are on the disk, and so are those above them.

        ``locks`` is made last: whoever finds it finds all others, and finds them synced; and the ledger, which has to
        have its room before the disk is full.

        Raises:
            UnsafeJournalError: the directory belongs to somebody else, has files of others in it and is no journal, or
                cannot be made or written.
        """
        last = self.root / "locks"
        try:
            whole = last.is_dir() and self.ledger.exists()
            self._check_is_ours()
            self.root.parent.mkdir(parents=True, exist_ok=True)
            self.make_directory(self.root)
            self._check_owner()
            for name in ("streams", "dead-letters", "acknowledgements"):
                self.make_directory(self.root / name)
            if not whole:
                self.files.append_durably(self.ledger, b"", self.mode)
                self.files.sync_directory(self.root)
                self.files.sync_way_to(self.root)
            self.make_directory(last)
        except OSError as error:
            raise UnsafeJournalError(
                f"journal: cannot use {self.root}: {error.strerror}. {_advice(error, self.root)}: journal=…, or "
                "OTEL_AUDIT_JOURNAL"
            ) from error

    def _check_is_ours(self) -> None:
        """A journal is made in a directory of its own; what a new file system or an editor leaves does not count."""
        try:
            names = set(self.files.listdir(self.root))
        except (FileNotFoundError, NotADirectoryError):
            return
        strange = sorted(name for name in names if name != "lost+found" and not name.startswith("."))
        if strange and "streams" not in names:
            raise UnsafeJournalError(
                f"journal: {self.root} is no journal, and there is something in it ({strange[0]}"
                f"{', …' if len(strange) > 1 else ''}). Give a directory of its own, new or empty, like "
                f"{self.root / 'audit'}: journal=…, or OTEL_AUDIT_JOURNAL"
            )

    @property
    def open_to_everybody(self) -> bool:
        """Whether any user may remove or replace what is in the directory.

        Raises:
            OSError: it cannot be looked at.
        """
        mode = self.files.stat(self.root).st_mode
        return bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX

    def _check_owner(self) -> None:
        info = self.files.stat(self.root)
        ours = info.st_uid == os.geteuid()
        shared = bool(info.st_mode & stat.S_IWGRP) and info.st_gid in {os.getegid(), *os.getgroups()}
        if not (ours or shared):
            raise UnsafeJournalError(
                f"journal: {self.root} belongs to uid {info.st_uid}, this process is uid {os.geteuid()}. "
                "Use a directory of its own, or make it group-writable and use group=…"
            )


def _advice(error: OSError, root: Path) -> str:
    """What to do about a directory that cannot be used."""
    if error.errno in FULL:
        return "Make room on its file system (files and inodes: df, df -i), or give a directory on another"
    if error.errno == errno.EROFS:
        return f"Mount the file system of {root} for writing, or give a directory on another"
    return f"Give a directory that this user (uid {os.geteuid()}) may write to"


def check_platform() -> None:
    """Raise ConfigurationError where the journal cannot keep its promises: Windows, and Python without its lock."""
    if sys.platform == "win32":
        raise ConfigurationError(
            "the journal needs POSIX file locks and fsync: Linux and macOS are supported, Windows is not"
        )
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        raise ConfigurationError(
            "this is a free-threaded Python that runs without its global lock, on which nothing of this package was "
            "proven yet: start it with -X gil=1 or PYTHON_GIL=1"
        )


def check_destination_name(name: object) -> str:
    """A destination's name is a file name: letters, digits, ``-`` and ``_``, at most 64.

    Raises:
        ConfigurationError: it is not.
    """
    if not isinstance(name, str) or not DESTINATION_NAME.fullmatch(name):
        raise ConfigurationError(
            f"destinations: the name {name!r} must be 1 to 64 letters, digits, '-' or '_' and begin with a letter or "
            "digit"
        )
    return name


@dataclass(frozen=True)
class FileSystem:
    """The file system under a path: its type, and what it cannot do."""

    type: str
    network: bool
    volatile: bool


def file_system(path: Path, mountinfo: str | None = None) -> FileSystem:
    """The file system under a path, by ``/proc/self/mountinfo``; ``unknown`` where there is no such file.

    Args:
        path: need not exist; the nearest parent counts.
        mountinfo: the text to read instead, for tests.
    """
    if mountinfo is None:
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return FileSystem("unknown", network=False, volatile=False)
    path = path.resolve()
    best = (-1, "unknown", "")
    for entry in mountinfo.splitlines():
        fields = entry.split(" ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4]))
        if point != path and point not in path.parents:
            continue
        separator = fields.index("-", 6)
        kind, options = fields[separator + 1], ",".join((fields[5], fields[separator + 3]))
        if len(point.parts) >= best[0]:
            best = (len(point.parts), kind, options)
    _, kind, options = best
    volatile = kind in _VOLATILE or (kind == "overlay" and "volatile" in options.split(","))
    return FileSystem(kind, network=kind in _NETWORK, volatile=volatile)
