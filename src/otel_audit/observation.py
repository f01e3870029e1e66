"""What can be seen of a provider at any time without disturbing it: for metrics, and for health checks.

Everything is read from counts that are kept anyway and from the journal's directory; nothing waits for the network, and
nothing is added to the way of a record.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec

from .delivery.replay import count_open
from .delivery.shipper import Shipper
from .flushing import Reckoning
from .health import DestinationStatus
from .journal.journal import Journal
from .journal.streams import usage_bytes
from .telemetry import Counters

MAX_AGE_S: Final = 1.0
"""How old an observation may be that is given again."""
SHARE: Final = 20.0
"""How many times as long as it took it stands, at least: thousands of streams must not keep a processor busy."""


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """How a provider was doing at one moment.

    Attributes:
        taken_ns: that moment, nanoseconds since 1970.
        emitted: records that this process journaled, the journal's own (logging started, stopped) among them, as they
            are in exported.
        exported: by destination, records that this process brought there.
        filtered: by destination, records that the destination's filter passed over in this process.
        dead_letters: by destination, those that nobody has.
        journal_bytes, journal_bytes_max: the journal's size, dead letters included, and its limit.
        free_bytes: room on its file system for this user; -1 where that is not known.
        syncs, sync_s: how often this process synced the journal, and how long that took in all, in seconds.
    """

    taken_ns: int
    shut_down: bool
    emitted: int
    exported: dict[str, int]
    filtered: dict[str, int]
    dead_letters: dict[str, int]
    destinations: list[DestinationStatus]
    counters: dict[str, int]
    journal_bytes: int
    journal_bytes_max: int
    free_bytes: int
    syncs: int
    sync_s: float
    unreachable_handlers: list[str]


class Observed(Protocol):
    """The parts of a provider that are looked at."""

    journal: Journal
    shippers: list[Shipper]
    reckoning: Reckoning
    counters: Counters
    unreachable_handlers: Callable[[], Sequence[object]]
    is_shut_down: bool


class Observatory:
    """Looks at one provider.

    Args:
        provider: which.
    """

    def __init__(self, provider: Observed) -> None:
        self._provider = provider
        self._last: Observation | None = None
        self._good_until_s = 0.0

    def look(self) -> Observation:
        """How the provider is doing; at most :data:`MAX_AGE_S` old, or older where looking takes long.

        Raises:
            OSError: the journal's directory cannot be read.
        """
        last = self._last
        if last is not None and time.monotonic() < self._good_until_s and last.shut_down == self._provider.is_shut_down:
            return last
        begun = time.monotonic()
        self._last = found = self.look_now()
        ended = time.monotonic()
        self._good_until_s = ended + max(MAX_AGE_S, SHARE * (ended - begun))
        return found

    def forget(self) -> None:
        """In a forked child: what was seen was the parent's."""
        self._last = None

    def look_now(self) -> Observation:
        """The same, of this very moment.

        Raises:
            OSError: the journal's directory cannot be read.
        """
        provider = self._provider
        journal, shippers = provider.journal, provider.shippers
        root = journal.layout.root
        return Observation(
            taken_ns=time.time_ns(),
            shut_down=provider.is_shut_down,
            emitted=journal.emitted,
            exported={shipper.destination.name: shipper.delivered for shipper in shippers},
            filtered={shipper.destination.name: shipper.filtered for shipper in shippers},
            dead_letters={
                shipper.destination.name: count_open(journal.layout, shipper.destination.name) for shipper in shippers
            },
            destinations=provider.reckoning.destinations(),
            counters=provider.counters.read(),
            journal_bytes=usage_bytes(root, reserved=False),
            journal_bytes_max=journal.bytes_max,
            free_bytes=_free_bytes(root),
            syncs=journal.syncs,
            sync_s=journal.sync_s,
            unreachable_handlers=[str(handler) for handler in provider.unreachable_handlers()],
        )


def _free_bytes(root: object) -> int:
    try:
        return shutil.disk_usage(str(root)).free
    except OSError:
        return -1
