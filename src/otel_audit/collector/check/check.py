"""A check: send, wait until everything that belongs somewhere is there, look a little longer for the rest, judge."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from .marks import Arrival, Kind, judge, request_of
from .sinks import Sink

_POLL_S: Final = 0.1


@dataclass(frozen=True)
class Outcome:
    """What a check found.

    Attributes:
        refused: why the first hop did not acknowledge the records; empty where it did.
        arrivals: each kind at each sink.
        waited_s: how long it took until everything had arrived, or until the time was over.
    """

    refused: str
    arrivals: list[Arrival]
    waited_s: float

    @property
    def right(self) -> bool:
        """Whether everything was acknowledged and arrived where it belongs, and nowhere else."""
        return not self.refused and all(each.right for each in self.arrivals)


def run_check(
    run: str,
    send: Callable[[bytes, float], str],
    sinks: Sequence[tuple[str, Sink]],
    kinds: Sequence[Kind],
    *,
    count: int,
    timeout_s: float,
    settle_s: float,
) -> Outcome:
    """Send marked records and see where they arrive.

    Args:
        run: the name of the check, part of every mark.
        send: sends a request within so many seconds; says why it was not acknowledged.
        sinks: each with its role.
        kinds: what to send.
        count: of each kind.
        timeout_s: how long to wait for everything to arrive, sending included.
        settle_s: how long to look for what must not arrive, after that.
    """
    begun = time.monotonic()
    refused = send(request_of(run, kinds, count, time.time_ns()), timeout_s)

    def look() -> list[Arrival]:
        seen = [(sink.name, role, sink.look()) for role, sink in sinks]
        return list(judge(seen, kinds, count))

    # What was refused may have arrived in part, so it is looked for, but not waited for.
    ends = begun if refused else begun + timeout_s
    while any(each.arrived < each.expected for each in look()) and time.monotonic() < ends:
        time.sleep(_POLL_S)
    waited_s = time.monotonic() - begun
    time.sleep(settle_s)
    return Outcome(refused, look(), waited_s)
