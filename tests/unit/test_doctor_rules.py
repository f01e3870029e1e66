"""What the doctor's facts mean: every rule, without looking at anything."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from otel_audit.cli.doctor.facts import (
    FAILING,
    NOTE,
    OK,
    WARNING,
    EventFacts,
    Finding,
    JournalFacts,
    ReachFacts,
)
from otel_audit.cli.doctor.rules import (
    judge_destinations,
    judge_event,
    judge_journal,
    judge_reach,
    judge_variables,
)
from otel_audit.settings import known_variables

GIB = 1024**3
DAY = 86_400.0

JOURNAL = JournalFacts(
    root="/var/lib/audit", exists=True, uid=1000, gid=1000, mode=0o700, our_uid=1000, our_gids=[1000], error="",
    sync_s=0.002, used_bytes=0, bytes_max=4 * GIB, free_bytes=50 * GIB, free_inodes=10**6, file_system="ext4",
    network=False, volatile=False, allow_network=False, allow_volatile=False, durability="process",
)  # fmt: skip
WAY = ReachFacts(
    name="one", url="https://audit.example.com/v1/logs", secure=True, addresses=["192.0.2.1"], tls_version="TLSv1.3",
    certificate_left_s=300 * DAY, clock_ahead_s=0.2,
)  # fmt: skip
EVENT = EventFacts(name="one", outcome="delivered", record_id="r-1", required=True)


def not_ok(found: Iterable[Finding]) -> list[tuple[str, str, str]]:
    """Check, level and message of what is not as it should be; each says what to do."""
    wrong = [each for each in found if each.level != OK]
    assert all(each.repair for each in wrong)
    return [(each.check, each.level, each.message) for each in wrong]


def test_all_is_well() -> None:
    """Each thing that was looked at is named, and nothing else is said."""
    found = [*judge_journal(JOURNAL), *judge_reach(WAY), judge_event(EVENT), *judge_variables({}, known_variables())]
    assert {each.level for each in found} == {OK}
    assert {each.check for each in found} == {"journal", "disk", "destination one", "clock", "environment"}


@pytest.mark.parametrize(
    ("more", "check", "level", "says"),
    [
        ({"uid": 0}, "journal", FAILING, "belongs to uid 0, this process is 1000"),
        ({"uid": 0, "gid": 5, "mode": 0o770}, "journal", FAILING, "belongs to uid 0"),
        ({"error": "Permission denied"}, "journal", FAILING, "/var/lib/audit: Permission denied"),
        ({"mode": 0o755}, "journal", WARNING, "open to every user"),
        ({"network": True, "file_system": "nfs4"}, "disk", FAILING, "network file system (nfs4)"),
        ({"network": True, "allow_network": True}, "disk", WARNING, "network file system"),
        ({"volatile": True, "file_system": "tmpfs"}, "disk", WARNING, "volatile file system (tmpfs)"),
        ({"volatile": True, "durability": "disk"}, "disk", FAILING, "volatile file system"),
        ({"volatile": True, "durability": "disk", "allow_volatile": True}, "disk", WARNING, "volatile file system"),
        ({"sync_s": 0.3}, "disk", WARNING, "one sync took 300 ms"),
        ({"free_bytes": GIB}, "disk", WARNING, "the disk is full before the journal is: 0 B of 4.0 GiB"),
        ({"free_bytes": 10**7}, "disk", FAILING, "hardly any room"),
        ({"used_bytes": 4 * GIB - 10}, "disk", FAILING, "hardly any room"),
        ({"free_inodes": 3}, "disk", FAILING, "3 inodes left"),
    ],
)
def test_what_is_wrong_with_a_journal(more: dict[str, Any], check: str, level: str, says: str) -> None:
    """Each fault by itself, with its level."""
    [(found_check, found_level, message)] = not_ok(judge_journal(msgspec.structs.replace(JOURNAL, **more)))
    assert (found_check, found_level) == (check, level)
    assert says in message


@pytest.mark.parametrize(
    "more",
    [
        {"uid": 0, "gid": 1000, "mode": 0o770},
        {"free_bytes": -1, "free_inodes": -1},
        {"exists": False, "mode": 0o755},
    ],
)
def test_what_is_no_fault_of_a_journal(more: dict[str, Any]) -> None:
    """Shared by a group that we are in; a file system that does not say how full it is; not made yet."""
    assert not_ok(judge_journal(msgspec.structs.replace(JOURNAL, **more))) == []


@pytest.mark.parametrize(
    ("more", "check", "level", "says"),
    [
        ({"resolve_error": "Name or service not known"}, "destination one", FAILING, "cannot be resolved: Name or"),
        (
            {"connect_error": "Connection refused"},
            "destination one",
            FAILING,
            "takes no connection: Connection refused",
        ),
        ({"tls_error": "self-signed certificate"}, "destination one", FAILING, "TLS with https://audit.example.com"),
        ({"certificate_left_s": 3 * DAY}, "destination one", WARNING, "expires in 3.0 d"),
        ({"certificate_left_s": -3 * DAY}, "destination one", FAILING, "expired 3.0 d ago"),
        ({"verified": False}, "destination one", WARNING, "is not checked"),
        ({"secure": False, "tls_version": ""}, "destination one", WARNING, "without TLS"),
        ({"clock_ahead_s": 7.0}, "clock", WARNING, "clock is 7.0 s ahead of"),
        ({"clock_ahead_s": -7200.0}, "clock", FAILING, "clock is 2.0 h behind"),
        (
            {"proxy": "http://proxy:3128", "connect_error": "x"},
            "destination one",
            NOTE,
            "through the proxy http://proxy",
        ),
    ],
)
def test_what_is_wrong_with_a_way(more: dict[str, Any], check: str, level: str, says: str) -> None:
    """Each fault by itself: what comes after it was not looked at."""
    [(found_check, found_level, message)] = not_ok(judge_reach(msgspec.structs.replace(WAY, **more)))
    assert (found_check, found_level) == (check, level)
    assert says in message


def test_this_machine_needs_no_tls() -> None:
    """A Collector on the same machine is spoken to in clear, and that is well."""
    seen = msgspec.structs.replace(WAY, url="http://127.0.0.1:4318", secure=False, loopback=True, tls_version="")
    assert not_ok(judge_reach(seen)) == []


@pytest.mark.parametrize(
    ("more", "level", "says"),
    [
        ({"outcome": "missing", "state": "blocked", "error": "401", "repair": "a new token"}, FAILING, "blocked: 401"),
        ({"outcome": "missing", "required": False}, WARNING, "did not take the test event in time"),
        ({"outcome": "refused"}, FAILING, "refuses the test event"),
        ({"outcome": "filtered"}, NOTE, "its filter passes the test event over"),
    ],
)
def test_what_became_of_the_event(more: dict[str, Any], level: str, says: str) -> None:
    """What a required destination does not take is a failure, of an optional one a warning."""
    found = judge_event(msgspec.structs.replace(EVENT, **more))
    assert found.level == level
    assert says in found.message
    assert found.repair
    if more.get("repair"):
        assert found.repair == more["repair"]


def test_variables_that_nobody_reads() -> None:
    """Ours and the OTLP exporter's are known by name; others are somebody else's."""
    fine = {
        "OTEL_AUDIT_JOURNAL", "OTEL_AUDIT_CONFIG", "OTEL_AUDIT_MAX_BYTES", "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_AUDIT_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_SERVICE_NAME", "HOME",
    }  # fmt: skip
    assert not_ok(judge_variables(fine, known_variables())) == []
    wrong = {"OTEL_AUDIT_DESTINATION": "OTEL_AUDIT_DESTINATIONS", "OTEL_EXPORTER_OTLP_AUDIT_HEADER": ""}
    found = list(judge_variables([*fine, *wrong, "OTEL_AUDIT_COLOUR_OF_THE_SKY"], known_variables()))
    assert [each.level for each in found] == [WARNING] * 3
    assert found[0].repair.startswith("unset it")
    assert found[1].repair == "did you mean OTEL_AUDIT_DESTINATIONS?"
    assert found[2].repair == "did you mean OTEL_EXPORTER_OTLP_AUDIT_HEADERS?"


@pytest.mark.parametrize(
    ("durability", "required", "optional", "assumed", "expected"),
    [
        ("delivered", 1, 0, False, []),
        ("delivered", 0, 1, False, [(FAILING, "needs a required destination")]),
        ("process", 0, 0, False, [(WARNING, "there are no destinations")]),
        ("process", 1, 0, True, [(NOTE, "so it is collector=otlp")]),
    ],
)
def test_destinations_together(
    durability: str, required: int, optional: int, assumed: bool, expected: list[tuple[str, str]]
) -> None:
    """What is asked of them has to be possible; the default is named, because it may not be what was meant."""
    found = not_ok(judge_destinations(durability, required, optional, assumed=assumed))
    assert [(level, message) for _, level, message in found if any(says in message for _, says in expected)] == [
        (level, next(message for *_, message in found if says in message)) for level, says in expected
    ]
    assert len(found) == len(expected)
