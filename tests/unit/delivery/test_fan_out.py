"""Several destinations of one journal: each at its own pace, and none in the way of another."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from otel_audit.batch import RecordBatch
from otel_audit.errors import BlockedExportError, DeliveryTimeoutError, RetryableExportError
from otel_audit.protocols import ExportResult
from support.delivery import Sink, until
from support.provider import SOON, login, make_provider


class Slow(Sink):
    """Takes one record a request, and each only when it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Semaphore(0)

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        self.let.acquire()
        return super().export(batch, timeout_s)


class Hanging(Sink):
    """Never answers until it is let go; then it fails."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        self.asked.set()
        self.let_go.wait(60)
        raise RetryableExportError("time-out")


def test_dead_slow_and_fast_ones_do_not_wait_for_each_other(tmp_path: Path) -> None:
    """The fast one has everything while one hangs in a request, one is blocked and one is at its first record."""
    fast, slow, hanging = Sink(), Slow(), Hanging()
    blocked = Sink(*[BlockedExportError("401", repair="a new token")] * 100_000)
    provider = make_provider(
        tmp_path / "j",
        destinations={
            "hanging": hanging,
            "blocked": blocked,
            "slow": {"type": slow, "batch_records": 1},
            "fast": {"type": fast, "batch_records": 7},
        },
    )
    logger = provider.get_audit_logger()
    ids = [login(logger).record_id for _ in range(100)]
    until(lambda: hanging.asked.is_set() and len(fast.ids) == len(ids))
    assert fast.ids == ids
    assert slow.ids == []
    assert not hanging.let_go.is_set()
    for number in range(1, 11):  # the slow one goes on at its own pace, in order
        slow.let.release()
        until(lambda so_far=number: len(slow.accepted) == so_far)
    assert slow.ids == ids[:9]  # the first is the journal's own record
    until(lambda: provider.status().destinations[1].state == "blocked")
    until(lambda: provider.status().destinations[2].pending == 91)
    states = {each.name: each for each in provider.status().destinations}
    assert states["fast"].pending == 0
    assert states["blocked"].pending == states["hanging"].pending == 101
    assert states["blocked"].repair == "a new token"
    assert 0 < states["blocked"].oldest_pending_ns <= time.time_ns()
    assert states["fast"].oldest_pending_ns == 0
    _wait_is_for_the_missing_only(logger)
    for _ in range(1000):
        slow.let.release()
    hanging.let_go.set()
    provider.shutdown(0.0)


def _wait_is_for_the_missing_only(logger: object) -> None:
    try:
        login(logger, durability="delivered", timeout_s=10)  # type: ignore[arg-type]
    except DeliveryTimeoutError as error:
        assert set(error.missing) == {"hanging", "blocked", "slow"}
        assert error.journaled is True
    else:
        raise AssertionError("three of them cannot have it")


def test_any_number_of_destinations_gets_everything(tmp_path: Path) -> None:
    """Fifty of them: each has every record once, in order."""
    sinks = {f"d{number}": Sink() for number in range(50)}
    with make_provider(tmp_path / "j", retry=SOON, destinations=sinks) as provider:
        logger = provider.get_audit_logger()
        ids = [login(logger).record_id for _ in range(50)]
        assert provider.flush(60)
        assert all(sink.ids == ids for sink in sinks.values())


def test_an_exporter_that_cannot_be_made_stops_no_other(tmp_path: Path) -> None:
    """Its destination is blocked with the reason; the others go on."""
    fast = Sink()
    provider = make_provider(tmp_path / "j", retry=SOON, destinations={"broken": Sink(), "fast": fast})

    def fails() -> Sink:
        raise RuntimeError("no such library")

    object.__setattr__(provider.shippers[0].destination, "make_exporter", fails)
    receipt = login(provider.get_audit_logger())
    until(lambda: fast.ids == [receipt.record_id])
    until(lambda: provider.shippers[0].state.state == "blocked")
    assert "no such library" in provider.shippers[0].state.error
    provider.shutdown(0.0)
