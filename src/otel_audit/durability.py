"""What ``emit`` waits for: the disk, or the destinations."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from .delivery.shipper import Shipper
from .errors import (
    ConfigurationError,
    DeliveryFilteredError,
    DeliveryRefusedError,
    DeliveryTimeoutError,
    UnsafeJournalError,
)
from .flushing import deadline_after
from .journal.journal import Journal
from .receipt import AuditReceipt
from .record import AuditRecord

Durability = Literal["process", "disk", "delivered"]
DURABILITIES: Final = ("process", "disk", "delivered")
DELIVERY_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.1


class Durabilities:
    """The durabilities that a provider can give.

    Args:
        journal: of this process.
        required: shippers of the required destinations.
    """

    def __init__(self, journal: Journal, required: Sequence[Shipper]) -> None:
        self._journal = journal
        self._required = required

    def check(self, level: str) -> None:
        """Raise ConfigurationError for a durability that is unknown or cannot be had."""
        if level not in DURABILITIES:
            raise ConfigurationError(f"durability: must be one of {', '.join(DURABILITIES)}, not {level!r}")
        if level == "disk":
            self._journal.require_disk()
        if level == "delivered" and not self._required:
            raise ConfigurationError(
                "durability='delivered' needs at least one required destination, like "
                "configure(destinations={'collector': 'otlp'})"
            )

    def without_destinations(self) -> tuple[str, ...]:
        """Those that this machine alone gives."""
        try:
            self.check("disk")
        except UnsafeJournalError:
            return ("process",)
        return ("process", "disk")

    def owns(self, receipt: AuditReceipt) -> bool:
        """Whether the record is in the stream that this process writes now."""
        writer = self._journal.writer
        return writer is not None and writer.stream_id == receipt.stream_id

    @property
    def selective(self) -> bool:
        """Whether a required destination has a filter."""
        return any(shipper.destination.filter is not None for shipper in self._required)

    def reach(
        self, receipt: AuditReceipt, level: str, timeout_s: float | None = None, record: AuditRecord | None = None
    ) -> AuditReceipt:
        """Wait until a journaled record has the durability; the receipt that says so.

        Args:
            receipt: of the record.
            level: ``"process"``, ``"disk"`` or ``"delivered"``.
            timeout_s: for ``delivered``; ``None``: :data:`DELIVERY_TIMEOUT_S`.
            record: as it was written; destinations whose filter passes it over are not waited for.

        Raises:
            JournalSyncError: it is not known to be on the disk.
            DeliveryTimeoutError: not every required destination has it in time.
            DeliveryRefusedError: a required destination refuses it.
            DeliveryFilteredError: no required destination is to have it.
        """
        if level == "process" or receipt.deferred:
            return receipt
        if level == "disk":
            return self._reach_disk(receipt)
        deadline = _deadline(timeout_s)
        wanting = self._wanting(receipt, record)
        for shipper in wanting:
            shipper.start()
            shipper.notify(urgent=True)
        for shipper in wanting:
            shipper.wait_for(receipt.stream_id, receipt.sequence, deadline - time.monotonic())
        return self._delivered(receipt, wanting)

    async def areach_delivered(
        self, receipt: AuditReceipt, timeout_s: float | None = None, record: AuditRecord | None = None
    ) -> AuditReceipt:
        """:meth:`reach` of ``delivered`` for coroutines: takes no thread.

        Raises:
            DeliveryTimeoutError: not every required destination has it in time.
            DeliveryRefusedError: a required destination refuses it.
            DeliveryFilteredError: no required destination is to have it.
        """
        deadline = _deadline(timeout_s)
        wanting = self._wanting(receipt, record)
        loop = asyncio.get_running_loop()
        moved = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(moved.set)

        for shipper in wanting:
            shipper.start()
            shipper.notify(urgent=True)
        with contextlib.ExitStack() as listening:
            for shipper in wanting:
                listening.enter_context(shipper.listening(tell))
            while (left := deadline - time.monotonic()) > 0 and _missing(receipt, wanting):
                for shipper in wanting:
                    shipper.notify(urgent=True)
                timer = loop.call_later(min(left, _POLL_S), moved.set)  # wait_for would swallow cancellations
                try:
                    await moved.wait()
                finally:
                    timer.cancel()
                moved.clear()
        return self._delivered(receipt, wanting)

    def _reach_disk(self, receipt: AuditReceipt) -> AuditReceipt:
        self._journal.commit(receipt.sequence, receipt.stream_id)
        return msgspec.structs.replace(receipt, durability="disk")

    def _wanting(self, receipt: AuditReceipt, record: AuditRecord | None) -> list[Shipper]:
        """Shippers of the required destinations that are to have the record."""
        if record is None:
            return list(self._required)
        name, attributes = record.event_name, record.attributes
        wanting = []
        for shipper in self._required:
            chosen = shipper.destination.filter
            if chosen is None or chosen.passes(name, attributes):
                wanting.append(shipper)
        if not wanting:
            names = [shipper.destination.name for shipper in self._required]
            raise DeliveryFilteredError(
                f"the filters of all required destinations ({', '.join(names)}) pass the record over; it is journaled "
                f"(stream {receipt.stream_id}, number {receipt.sequence}). Emit it with another durability, or widen a "
                "filter",
                filtered=names,
                receipt=receipt,
            )
        return wanting

    def _delivered(self, receipt: AuditReceipt, wanting: Sequence[Shipper]) -> AuditReceipt:
        missing = _missing(receipt, wanting)
        if missing:
            raise DeliveryTimeoutError(
                f"not delivered in time to {', '.join(_with_reason(wanting, missing))}; the record is journaled "
                f"(stream {receipt.stream_id}, number {receipt.sequence}) and goes on being delivered",
                missing=missing,
                receipt=receipt,
            )
        refused = [
            shipper.destination.name for shipper in wanting if shipper.has_buried(receipt.stream_id, receipt.sequence)
        ]
        if refused:
            raise DeliveryRefusedError(
                f"refused by {', '.join(refused)}; the record is journaled (stream {receipt.stream_id}, number "
                f"{receipt.sequence}), and a dead letter there with the reason",
                refused=refused,
                receipt=receipt,
            )
        return msgspec.structs.replace(receipt, durability="delivered")


def _missing(receipt: AuditReceipt, wanting: Sequence[Shipper]) -> list[str]:
    return [shipper.destination.name for shipper in wanting if not shipper.has(receipt.stream_id, receipt.sequence)]


def _with_reason(wanting: Sequence[Shipper], missing: Sequence[str]) -> list[str]:
    """The names, each with what its last attempt said and what to do about it, as far as there was one."""
    found = []
    for shipper in wanting:
        name, state = shipper.destination.name, shipper.state
        if name in missing:
            reason = "; ".join(filter(None, (state.error, state.repair)))
            found.append(f"{name} ({reason})" if reason else name)
    return found


def _deadline(timeout_s: float | None) -> float:
    return deadline_after(DELIVERY_TIMEOUT_S if timeout_s is None else timeout_s)
