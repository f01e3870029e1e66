"""What the doctor's facts mean, and what to do.  Pure."""

from __future__ import annotations

import difflib
import stat
from collections.abc import Iterable, Iterator
from typing import Final

from ..output import age, size
from .facts import FAILING, NOTE, OK, WARNING, EventFacts, Finding, JournalFacts, ReachFacts

FREE_BYTES_MIN: Final = 64 * 1024 * 1024
FREE_INODES_MIN: Final = 1000
SLOW_SYNC_S: Final = 0.1
CLOCK_WARNING_S: Final = 2.0
"""The receiver's Date header has whole seconds, so less cannot be seen."""
CLOCK_FAILING_S: Final = 300.0
EXPIRY_WARNING_S: Final = 14 * 86_400.0

_OTLP: Final = "OTEL_EXPORTER_OTLP_"
_SIGNALS: Final = ("", "AUDIT_", "LOGS_", "TRACES_", "METRICS_", "PROFILES_")
_OTLP_OPTIONS: Final = (
    "ENDPOINT", "HEADERS", "TIMEOUT", "PROTOCOL", "COMPRESSION", "CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY",
    "INSECURE",
)  # fmt: skip
_OTLP_KNOWN: Final = frozenset(
    {_OTLP + signal + option for signal in _SIGNALS for option in _OTLP_OPTIONS}
    | {f"{_OTLP}METRICS_TEMPORALITY_PREFERENCE", f"{_OTLP}METRICS_DEFAULT_HISTOGRAM_AGGREGATION"}
)


def judge_variables(names: Iterable[str], known: Iterable[str]) -> Iterator[Finding]:
    """Variables that look like ours or like the OTLP exporter's, and that nobody reads.

    Args:
        names: what is set.
        known: our own that are read.
    """
    ours = set(known)
    unknown = 0
    for name in sorted(names):
        among = ours if name.startswith("OTEL_AUDIT_") else _OTLP_KNOWN if name.startswith(_OTLP) else None
        if among is None or name in among:
            continue
        unknown += 1
        near = difflib.get_close_matches(name, among, n=1, cutoff=0.75)
        repair = f"did you mean {near[0]}?" if near else "unset it, or see docs/configuration.md for what there is"
        yield Finding(check="environment", level=WARNING, message=f"{name} is set and nobody reads it", repair=repair)
    if not unknown:
        yield Finding(check="environment", level=OK, message="every OTEL_AUDIT_ and OTLP variable that is set is known")


def judge_destinations(durability: str, required: int, optional: int, *, assumed: bool) -> Iterator[Finding]:
    """Whether the destinations together can do what is asked of them.

    Args:
        durability: as configured.
        required: how many destinations are required.
        optional: how many are not.
        assumed: nobody named one, so the default one stands there.
    """
    if not required and durability == "delivered":
        yield Finding(
            check="configuration", level=FAILING, message="durability 'delivered' needs a required destination",
            repair="make one required, or ask for durability 'disk'",
        )  # fmt: skip
    if not required and not optional:
        yield Finding(
            check="configuration", level=WARNING, message="there are no destinations: records stay in the journal",
            repair="that is fine where 'otel-audit ship' or a sidecar delivers them; else give destinations",
        )  # fmt: skip
    if assumed:
        yield Finding(
            check="configuration", level=NOTE, message="no destination is configured, so it is collector=otlp",
            repair="give the doctor what the application has: --config, --destination, or its environment",
        )  # fmt: skip


def judge_journal(seen: JournalFacts) -> Iterator[Finding]:
    """Whether records can be kept there, and are safe there."""
    what = seen.root if seen.exists else f"{seen.root} (not made yet)"
    if seen.uid != seen.our_uid and not _shared(seen):
        yield Finding(
            check="journal", level=FAILING, message=f"{what} belongs to uid {seen.uid}, this process is {seen.our_uid}",
            repair="run the doctor as the user of the application, or share the directory with mode and group",
        )  # fmt: skip
    elif seen.error:
        yield Finding(
            check="journal", level=FAILING, message=f"{what}: {seen.error}",
            repair="give the application's user a directory that it may write to: journal=…, or OTEL_AUDIT_JOURNAL",
        )  # fmt: skip
    else:
        yield Finding(check="journal", level=OK, message=f"{what} can be written, synced and locked")
    if seen.exists and seen.mode & 0o007:
        yield Finding(
            check="journal", level=WARNING, message=f"{seen.root} is open to every user of this machine",
            repair=f"chmod o-rwx {seen.root}",
        )  # fmt: skip
    yield from _file_system(seen)
    if seen.sync_s > SLOW_SYNC_S:
        yield Finding(
            check="disk", level=WARNING, message=f"one sync took {seen.sync_s * 1000:.0f} ms",
            repair="durability='disk' waits for that; a faster disk helps, and more threads share one sync",
        )  # fmt: skip
    yield from _room(seen)


def _shared(seen: JournalFacts) -> bool:
    return bool(seen.mode & stat.S_IWGRP) and seen.gid in seen.our_gids


def _file_system(seen: JournalFacts) -> Iterator[Finding]:
    if seen.network:
        level = WARNING if seen.allow_network else FAILING
        yield Finding(
            check="disk", level=level, message=f"the journal is on a network file system ({seen.file_system})",
            repair="locks and syncs cannot be relied on there: use a local directory"
            + ("" if seen.allow_network else ", or allow_network if you know better"),
        )  # fmt: skip
    if seen.volatile:
        level = FAILING if seen.durability == "disk" and not seen.allow_volatile else WARNING
        yield Finding(
            check="disk", level=level, message=f"the journal is on a volatile file system ({seen.file_system})",
            repair="a power loss or the end of the container empties it: use a directory on a disk",
        )  # fmt: skip


def _room(seen: JournalFacts) -> Iterator[Finding]:
    left = max(seen.bytes_max - seen.used_bytes, 0)
    limit = f"{size(seen.used_bytes)} of {size(seen.bytes_max)} are used, {size(max(seen.free_bytes, 0))} are free"
    if 0 <= seen.free_bytes < FREE_BYTES_MIN or left < seen.bytes_max // 20:
        yield Finding(
            check="disk", level=FAILING, message=f"there is hardly any room: {limit}",
            repair="see `otel-audit status` for the destination that does not take its records; make room on the disk",
        )  # fmt: skip
    elif 0 <= seen.free_bytes < left:
        yield Finding(
            check="disk", level=WARNING, message=f"the disk is full before the journal is: {limit}",
            repair="lower max_bytes, or make room on the disk",
        )  # fmt: skip
    else:
        yield Finding(check="disk", level=OK, message=f"there is room: {limit}")
    if 0 <= seen.free_inodes < FREE_INODES_MIN:
        yield Finding(
            check="disk", level=FAILING, message=f"the file system has {seen.free_inodes} inodes left",
            repair="each stream needs some: remove files",
        )  # fmt: skip


def judge_reach(seen: ReachFacts) -> Iterator[Finding]:
    """Whether a destination can be reached, and how safe the way there is."""
    check = f"destination {seen.name}"
    if seen.proxy:
        yield Finding(
            check=check, level=NOTE, message=f"{seen.url} is reached through the proxy {seen.proxy}",
            repair="only the test event shows whether that works",
        )  # fmt: skip
        return
    if not seen.secure and not seen.loopback:
        yield Finding(
            check=check, level=WARNING, message=f"{seen.url} is spoken to without TLS",
            repair="anybody on the network can read and change the records: use https://",
        )  # fmt: skip
    elif not seen.verified:
        yield Finding(
            check=check, level=WARNING, message=f"the certificate of {seen.url} is not checked",
            repair="give the authority with certificate=, and take out verify_tls",
        )  # fmt: skip
    if seen.resolve_error:
        yield Finding(
            check=check, level=FAILING, message=f"the host of {seen.url} cannot be resolved: {seen.resolve_error}",
            repair="see that the name is spelt right, and that this machine's DNS knows it",
        )  # fmt: skip
    elif seen.connect_error:
        yield Finding(
            check=check, level=FAILING, message=f"{seen.url} takes no connection: {seen.connect_error}",
            repair="see that the receiver runs, listens on this port, and that no firewall is between",
        )  # fmt: skip
    elif seen.tls_error:
        yield Finding(
            check=check, level=FAILING, message=f"TLS with {seen.url} fails: {seen.tls_error}",
            repair="see that the port speaks TLS, that the certificate is for this host, and that certificate= names "
            "the file of its authority",
        )  # fmt: skip
    else:
        how = f"by {seen.tls_version}" if seen.tls_version else "without TLS"
        yield Finding(check=check, level=OK, message=f"{seen.url} takes connections, {how}")
        yield from _expiry(check, seen)
        yield from _clock(seen)


def _expiry(check: str, seen: ReachFacts) -> Iterator[Finding]:
    left = seen.certificate_left_s
    if left is None:
        return
    if left <= 0:
        yield Finding(
            check=check, level=FAILING, message=f"the certificate of {seen.url} expired {age(-left)} ago",
            repair="have the receiver's certificate renewed",
        )  # fmt: skip
    elif left < EXPIRY_WARNING_S:
        yield Finding(
            check=check, level=WARNING, message=f"the certificate of {seen.url} expires in {age(left)}",
            repair="have it renewed before: afterwards every request fails",
        )  # fmt: skip


def _clock(seen: ReachFacts) -> Iterator[Finding]:
    ahead = seen.clock_ahead_s
    if ahead is None:
        return
    if abs(ahead) < CLOCK_WARNING_S:
        yield Finding(check="clock", level=OK, message=f"this machine's clock agrees with that of {seen.url}")
        return
    where = "ahead of" if ahead > 0 else "behind"
    yield Finding(
        check="clock",
        level=FAILING if abs(ahead) >= CLOCK_FAILING_S else WARNING,
        message=f"this machine's clock is {age(abs(ahead))} {where} that of {seen.url}",
        repair="have both kept by NTP: the times of audit events are evidence",
    )


def judge_event(seen: EventFacts) -> Finding:
    """Whether the test event arrived."""
    check = f"destination {seen.name}"
    if seen.outcome == "delivered":
        message = f"took the test event (record {seen.record_id})"
        return Finding(check=check, level=OK, message=message)
    if seen.outcome == "filtered":
        return Finding(
            check=check, level=NOTE, message="its filter passes the test event over, so nothing was sent",
            repair="only a record that it wants shows whether it takes records",
        )  # fmt: skip
    what = "refuses the test event" if seen.outcome == "refused" else "did not take the test event in time"
    error = f": {seen.state}: {seen.error}" if seen.error else ""
    return Finding(
        check=check,
        level=FAILING if seen.required else WARNING,
        message=what + error,
        repair=seen.repair or "see what the receiver's own log says of it; give it longer with --timeout",
    )
