"""Whether auditing is well, in one word and with reasons: for the readiness route of a web application.

The rule is pure; what it judges is an :class:`~otel_audit.observation.Observation`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final, TypedDict

import msgspec

from .metrics import age_s
from .observation import Observation, Observatory

OK: Final = "ok"
DEGRADED: Final = "degraded"
FAILING: Final = "failing"

_NOT_CONFIGURED: Final = "auditing is not configured: nothing is recorded"


class Thresholds(msgspec.Struct, frozen=True, kw_only=True):
    """From when on something is not well.

    Attributes:
        degraded_age_s, failing_age_s: age of the oldest record that a required destination has not, in seconds.
        degraded_fullness, failing_fullness: how full the journal is, as a share of ``max_bytes``, or its file system.
        degraded_dead_letters: so many records that a destination refuses.
    """

    degraded_age_s: float = 300.0
    failing_age_s: float = 86_400.0
    degraded_fullness: float = 0.8
    failing_fullness: float = 0.95
    degraded_dead_letters: int = 1


class ThresholdOptions(TypedDict, total=False):
    """Keywords of ``check_health``: the fields of :class:`Thresholds`."""

    degraded_age_s: float
    failing_age_s: float
    degraded_fullness: float
    failing_fullness: float
    degraded_dead_letters: int


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether auditing is well.

    Attributes:
        status: ``"ok"``; ``"degraded"``: records are safe here, and somebody should look; ``"failing"``: records are
            not taken any more, or soon will not be.
        reasons: what is not well and what to do, one line each; empty where all is well.
        pending: records that required destinations do not have yet.
        oldest_pending_age_s: how old the oldest of them is, in seconds.
        dead_letters: records that destinations refuse.
        fullness: how full the journal is, from 0 to 1.
        notes: what is not wrong and yet worth knowing, one line each; they change no status.
    """

    status: str
    reasons: list[str]
    pending: int = 0
    oldest_pending_age_s: float = 0.0
    dead_letters: int = 0
    fullness: float = 0.0
    notes: list[str] = []

    @property
    def http_status(self) -> int:
        """200 where records are taken (also while degraded), 503 where not: for a readiness route."""
        return 503 if self.status == FAILING else 200


def judge(found: Observation, limits: Thresholds, now_ns: int) -> Health:
    """What an observation means.

    Args:
        found: what was seen.
        limits: from when on something is not well.
        now_ns: the time, nanoseconds since 1970.
    """
    failing: list[str] = []
    degraded: list[str] = []
    if found.shut_down:
        failing.append("auditing was shut down: nothing is recorded")
    required = [each for each in found.destinations if each.required]
    oldest = 0.0
    for each in required:
        age = age_s(each.oldest_pending_ns, now_ns)
        oldest = max(oldest, age)
        if age >= min(limits.degraded_age_s, limits.failing_age_s):
            where = failing if age >= limits.failing_age_s else degraded
            where.append(f"destination {each.name}: the oldest of {each.pending} pending records is {age:.0f} s old")
    for each in found.destinations:
        if each.state == "blocked":
            repair = f"; {each.repair}" if each.repair else ""
            degraded.append(f"destination {each.name} is blocked: {each.error}{repair}")
        if each.damaged:
            degraded.append(f"destination {each.name}: {each.damaged} records were damaged in the journal")
    for name, count in found.dead_letters.items():
        if count >= max(limits.degraded_dead_letters, 1):
            degraded.append(f"destination {name}: {count} dead letters; see `otel-audit dlq list {name}`")
    full = fullness(found)
    if full >= min(limits.degraded_fullness, limits.failing_fullness):
        where = failing if full >= limits.failing_fullness else degraded
        where.append(f"the journal is {full:.0%} full: at 100 % nothing is taken any more")
    degraded += [f"records do not reach the audit handler of {handler}" for handler in found.unreachable_handlers]
    return Health(
        status=FAILING if failing else DEGRADED if degraded else OK,
        reasons=failing + degraded,
        pending=sum(each.pending for each in required),
        oldest_pending_age_s=round(oldest, 3),
        dead_letters=sum(found.dead_letters.values()),
        fullness=round(full, 4),
    )


def fullness(found: Observation) -> float:
    """How full the journal is, from 0 to 1: by its own limit, or because its file system has no room for the rest."""
    limit = found.journal_bytes_max
    if found.free_bytes >= 0:
        limit = min(limit, found.journal_bytes + found.free_bytes)
    return min(found.journal_bytes / limit, 1.0) if limit > 0 else 1.0


def together(found: Sequence[tuple[str, Health]], notes: Sequence[str] = ()) -> Health:
    """The health of a process with several journals: the worst, and the sums.

    Args:
        found: a journal's path, and the health of its provider; at least one.
        notes: what is to be said besides.
    """
    reasons: dict[str, str] = {}  # what concerns the whole process is the same in each of them
    for status in (FAILING, DEGRADED):
        for journal, health in found:
            if health.status == status:
                for reason in health.reasons:
                    reasons.setdefault(reason, reason if len(found) == 1 else f"{reason} (journal {journal})")
    each = [health for _, health in found]
    return Health(
        status=max((health.status for health in each), key=(OK, DEGRADED, FAILING).index),
        reasons=list(reasons.values()),
        pending=sum(health.pending for health in each),
        oldest_pending_age_s=max(health.oldest_pending_age_s for health in each),
        dead_letters=sum(health.dead_letters for health in each),
        fullness=max(health.fullness for health in each),
        notes=list(notes),
    )


def not_configured() -> Health:
    """What is said where there is no provider."""
    return Health(status=FAILING, reasons=[_NOT_CONFIGURED])


def check(observatory: Observatory, limits: Thresholds) -> Health:
    """Look at a provider, and judge.  Does not raise."""
    try:
        return judge(observatory.look(), limits, time.time_ns())
    except OSError as error:
        return Health(status=FAILING, reasons=[f"the journal cannot be read: {error.strerror or error}"])
