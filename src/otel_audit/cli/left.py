"""What a run of ``otel-audit ship`` delivered, and what is left, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Final

import msgspec

from ..delivery.destination import ELSEWHERE
from ..delivery.shipper import Shipper
from ..health import JournalStatus, StreamStatus, journal_status
from ..journal.layout import Layout
from ..journal.streams import LIVING

NOT_SERVED: Final = "not served"


class Destination(msgspec.Struct, frozen=True):
    """One destination after the run.

    Attributes:
        delivered, dead_lettered, filtered: by this run.
        pending: what it should have and has not.
        state: how the last attempt ended; ``"not served"``: it was not named, and something is kept for it.
        error, repair: why, and what a person has to do about it.
    """

    name: str
    delivered: int
    dead_lettered: int
    pending: int
    state: str
    error: str
    repair: str
    filtered: int = 0


class What(msgspec.Struct, frozen=True):
    """The outcome of a run.

    Attributes:
        reasons: why something is left, one line each; empty where nothing is.
    """

    destinations: list[Destination]
    reasons: list[str]

    def document(self) -> dict[str, Any]:
        """For ``--json``."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain


def what_is_left(
    layout: Layout, shippers: Sequence[Shipper], *, for_living: bool, for_dead: Collection[str] = (), given: str = ""
) -> What:
    """Look at the journal again: what the shippers say of themselves is not enough.

    Args:
        layout: the journal.
        shippers: after they ended.
        for_living: streams of living processes count too.
        for_dead: destinations that living processes were not served.
        given: the options that name the journal, for commands that are pasted.
    """
    found = journal_status(layout)
    destinations = []
    reasons = [stream.problem for stream in found.streams if stream.problem]
    for shipper in shippers:
        pending = _pending(found, shipper, for_living=for_living)
        state = shipper.state
        name = shipper.destination.name
        living = left_to_a_sidecar(found, name) if name in for_dead else 0
        destinations.append(
            Destination(
                name,
                shipper.delivered,
                shipper.dead_lettered,
                pending + living,
                state.state,
                state.error,
                state.repair,
                shipper.filtered,
            )
        )
        if pending:
            reasons.append(f"destination {name}: {pending} records are left: {_why(shipper)}")
        if living:
            reasons.append(needs_for_living(name, living))
    for name, pending in _not_served(found, {each.name for each in destinations}, for_living=for_living).items():
        repair = (
            f"name it, --destination {name}=SPEC; or, if it is gone for good: otel-audit destination retire "
            f"{name}{given}"
        )
        destinations.append(Destination(name, 0, 0, pending, NOT_SERVED, "", repair))
        reasons.append(f"destination {name}: {pending} records are left, and this run did not serve it; {repair}")
    return What(destinations, reasons)


def left_to_a_sidecar(found: JournalStatus, name: str) -> int:
    """Records of living processes that say that a sidecar serves this destination, and that it has not."""
    return sum(
        each.pending
        for stream in found.streams
        if stream.owner == LIVING and stream.process is not None
        if any(said.name == name and said.state == ELSEWHERE for said in stream.process.destinations)
        for each in stream.destinations
        if each.destination == name
    )


def needs_for_living(name: str, records: int) -> str:
    """What to say where a run leaves them."""
    return (
        f"destination {name}: {records} records of living processes wait for it, and this run does not serve them: "
        "--for-living"
    )


def _not_served(found: JournalStatus, served: set[str], *, for_living: bool) -> dict[str, int]:
    """What is kept for required destinations that nobody named."""
    left: Counter[str] = Counter()
    for stream in _in_question(found, for_living=for_living):
        for each in stream.destinations:
            if each.required and each.pending and each.destination not in served:
                left[each.destination] += each.pending
    return dict(sorted(left.items()))


def _pending(found: JournalStatus, shipper: Shipper, *, for_living: bool) -> int:
    return sum(_pending_of(stream, shipper) for stream in _in_question(found, for_living=for_living))


def _in_question(found: JournalStatus, *, for_living: bool) -> list[StreamStatus]:
    """Streams that this run was to deliver."""
    return [each for each in found.streams if not each.problem and (each.owner != LIVING or for_living)]


def _pending_of(stream: StreamStatus, shipper: Shipper) -> int:
    for destination in stream.destinations:
        if destination.destination == shipper.destination.name:
            has_cursor = destination.acknowledged > 0
            return 0 if shipper.destination.from_now and not has_cursor else destination.pending
    return 0 if shipper.destination.from_now else stream.records


def _why(shipper: Shipper) -> str:
    state = shipper.state
    if state.error:
        return f"{state.state}: {state.error}" + (f"; {state.repair}" if state.repair else "")
    return "time was up, or another process ships them"
