"""Running shippers outside an application: once, or until stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from ..delivery.shipper import Shipper, drain
from ..journal.journal import Journal
from ..sidecars import Sidecar
from .signals import Stop

LOOK_EVERY_S: Final = 60.0
STOP_EXTRA_S: Final = 2.0
"""Beyond the longest time-out of an export: how long stopping may take."""


def ship_what_is_there(journal: Journal, shippers: Sequence[Shipper], *, timeout_s: float, stop: Stop) -> bool:
    """Let every shipper deliver, each in a thread, until nothing is left, the rest is blocked, or time is up.

    Returns:
        Whether the threads ended in time.
    """

    def run(shipper: Shipper) -> None:
        try:
            drain(shipper, timeout_s=timeout_s, on_progress=journal.housekeep_soon, give_up=_no_use(shipper, stop))
        finally:
            shipper.close()

    journal.start()
    threads = [threading.Thread(target=run, args=(shipper,), daemon=True) for shipper in shippers]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout_s
    while any(thread.is_alive() for thread in threads) and time.monotonic() < deadline and not stop.wait(0.05):
        pass
    return _finish(journal, shippers, threads)


def _no_use(shipper: Shipper, stop: Stop) -> Callable[[], bool]:
    """Says after each round whether going on is of no use: it is blocked, and nothing moved since the last round."""
    settled = 0

    def give_up() -> bool:
        nonlocal settled
        before, settled = settled, shipper.settled
        return stop.asked or (shipper.state.state == "blocked" and settled == before)

    return give_up


def ship_until_stopped(
    journal: Journal, shippers: Sequence[Shipper], *, stop: Stop, sidecar: Sidecar, look: Callable[[], None]
) -> bool:
    """Let every shipper run until it is asked to stop, and say every few seconds how they are doing.

    ``look`` is called at first and every minute.

    Returns:
        Whether they ended in time.
    """
    journal.on_housekeeping = lambda: sidecar.write({each.destination.name: each.state for each in shippers})
    journal.on_housekeeping()
    journal.start()
    for shipper in shippers:
        shipper.start()
    look()
    while not stop.wait(LOOK_EVERY_S):
        look()
    ended = _finish(journal, shippers, [])
    sidecar.end()
    return ended


def _finish(journal: Journal, shippers: Sequence[Shipper], threads: Sequence[threading.Thread]) -> bool:
    """End after the batches that are under way; remove what is delivered."""
    deadline = time.monotonic() + max(shipper.destination.timeout_s for shipper in shippers) + STOP_EXTRA_S
    for shipper in shippers:
        shipper.stop(0.0)
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.0))
    ended = not any(thread.is_alive() for thread in threads)
    for shipper in shippers:
        ended = shipper.stop(deadline - time.monotonic()) and ended
    journal.close()
    journal.housekeep()
    return ended
