"""What the doctor sees."""

from __future__ import annotations

from typing import Final

import msgspec

OK: Final = "ok"
NOTE: Final = "note"
WARNING: Final = "warning"
FAILING: Final = "failing"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one check says.

    Attributes:
        check: what was looked at: ``"journal"``, ``"disk"``, ``"environment"``, ``"destination NAME"``, …
        level: ``"ok"``, ``"note"``, ``"warning"`` (it works, and may not for long) or ``"failing"``.
        message: what was seen.
        repair: what to do; empty where nothing is.
    """

    check: str
    level: str
    message: str
    repair: str = ""


class JournalFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of the journal's directory.

    Attributes:
        root: the directory.
        exists: whether it is there; else what follows is of the nearest directory above it.
        uid, gid, mode: of that directory.
        our_uid, our_gids: of this process.
        error: why a file could not be made, written, synced or locked there; empty where it could.
        sync_s: how long one sync of a small file took, in seconds; 0 where none was tried.
        used_bytes, bytes_max: the journal's size, and its limit.
        free_bytes, free_inodes: of the file system, for this user; -1 where that is not known.
        file_system: its type; ``network`` and ``volatile``: of what kind it is.
        allow_network, allow_volatile, durability: as configured.
    """

    root: str
    exists: bool
    uid: int
    gid: int
    mode: int
    our_uid: int
    our_gids: list[int]
    error: str
    sync_s: float
    used_bytes: int
    bytes_max: int
    free_bytes: int
    free_inodes: int
    file_system: str
    network: bool
    volatile: bool
    allow_network: bool
    allow_volatile: bool
    durability: str


class ReachFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of the way to a destination.

    Attributes:
        name: the destination.
        url: where it is, without credentials.
        loopback: it is on this machine.
        secure, verified: whether TLS is spoken, and whether the receiver's certificate is checked.
        proxy: the proxy that requests go through, without credentials; then nothing else was looked at.
        addresses, resolve_error: what its name resolves to, or why it does not.
        connect_error: why no connection could be made.
        tls_error, tls_version: why TLS failed, or which version it is.
        certificate_left_s: how long the receiver's certificate is valid, in seconds; ``None`` where that is not known.
        clock_ahead_s: how far this machine's clock is ahead of the receiver's, in seconds; ``None``: not known.
    """

    name: str
    url: str
    loopback: bool = False
    secure: bool = False
    verified: bool = True
    proxy: str = ""
    addresses: list[str] = []
    resolve_error: str = ""
    connect_error: str = ""
    tls_error: str = ""
    tls_version: str = ""
    certificate_left_s: float | None = None
    clock_ahead_s: float | None = None


class EventFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the test event at one destination.

    Attributes:
        outcome: ``"delivered"``, ``"refused"``, ``"filtered"`` or ``"missing"``.
        record_id: of the event, to look for it there.
        required: whether the destination is.
        state, error, repair: how the last attempt ended, and what a person has to do about it.
    """

    name: str
    outcome: str
    record_id: str
    required: bool
    state: str = ""
    error: str = ""
    repair: str = ""
