"""Memory, descriptors and time have bounds, however much waits for a destination."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
from pathlib import Path

import pytest

from otel_audit.batch import RecordBatch
from otel_audit.delivery.fleet import SHIPMENTS_MAX
from otel_audit.errors import RetryableExportError
from otel_audit.health import journal_status
from otel_audit.journal.streams import list_streams
from support.journal import make_entry, make_journal, make_layout, make_writer, needs
from support.provider import login, make_provider

MB = 1_000_000

pytestmark = pytest.mark.timeout(300)


class Counting:
    """An exporter that keeps nothing of what it is given."""

    single_writer = False

    def __init__(self, *, down: bool = False, slow_s: float = 0.0) -> None:
        self.down = down
        self.slow_s = slow_s
        self.calls = 0
        self.count = 0
        self.largest = 0

    def export(self, batch: RecordBatch, timeout_s: float) -> None:
        self.calls += 1
        self.largest = max(self.largest, sum(len(record.canonical) for record in batch.records))
        time.sleep(self.slow_s)
        if self.down:
            raise RetryableExportError("down")
        self.count += len(batch.records)

    def close(self) -> None:
        pass


def resident_bytes() -> int:
    """How much memory this process has."""
    needs(Path("/proc/self/statm").exists(), "proc", "the system does not say how much memory a process has")
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def until(condition: object) -> None:
    while not condition():  # type: ignore[operator]
        time.sleep(0.01)


@pytest.mark.parametrize("count", [20_000, pytest.param(400_000, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_what_waits(tmp_path: Path, count: int):
    """One destination is down, one is slow: what waits is in the journal, and five times as much takes no more."""
    down, slow = Counting(down=True), Counting(slow_s=0.05)
    provider = make_provider(
        tmp_path,
        destinations={
            "down": {"type": down, "delay": 0.01, "batch_bytes": "2MiB"},
            "slow": {"type": slow, "delay": 0.01, "batch_records": 10},
            "fast": {"type": Counting(), "delay": 0.01, "batch_records": 100},
        },
        segment_bytes="4MiB",
    )
    logger = provider.get_audit_logger()
    held = []
    for _ in range(5):
        for _ in range(count // 5):
            login(logger, body="x" * 500)
        until(lambda: down.largest >= 2_000_000 and slow.calls > 0)
        gc.collect()
        held.append(resident_bytes())
    waiting = (provider.journal.writer.sequence if provider.journal.writer else 0) * 3 // 5 * 1000
    assert waiting > 11 * MB, "so much has come since the second look, when each had a batch of the largest size"
    assert held[-1] - held[1] < 8 * MB
    down.down, slow.slow_s = False, 0.0
    provider.shutdown(timeout_s=60)
    assert down.count == slow.count >= count


def test_a_destination_that_is_down_costs_no_descriptor_for_each_stream(tmp_path: Path):
    """Many dead processes have left streams: only so many are open at a time, and all are delivered in the end."""
    layout = make_layout(tmp_path / "root")
    count = SHIPMENTS_MAX + 30
    for number in range(count):
        writer = make_writer(layout, required=["out"])
        writer.append(make_entry(f"r-{number}"))
        writer.close()
    before = len(os.listdir("/dev/fd"))
    exporter = Counting(down=True)
    provider = make_provider(layout.root, destinations={"out": exporter})
    login(provider.get_audit_logger())
    highest = 0
    until(lambda: exporter.calls > 2)
    highest = max(highest, len(os.listdir("/dev/fd")))
    exporter.down = False
    while exporter.count < 2 * count:
        highest = max(highest, len(os.listdir("/dev/fd")))
        time.sleep(0.001)
    assert highest - before < SHIPMENTS_MAX + 20
    provider.shutdown(timeout_s=30)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ten_thousand_streams_that_nobody_delivers(tmp_path: Path):
    """What ten thousand killed processes leave: a start, a status and a delivery stay possible, within bounds."""
    layout = make_layout(tmp_path)
    writer = make_writer(layout, required=["out"])
    writer.append(make_entry("r"))
    writer.close()
    model = writer.directory
    for number in range(9_999):
        directory = model.with_name(f"{number:08d}-0000-4000-8000-000000000000")
        (directory / "cursors").mkdir(parents=True)
        for path in model.rglob("*"):
            if path.is_file():
                target = directory / path.relative_to(model)
                target.write_bytes(path.read_bytes())
    figures: dict[str, float] = {}

    @contextlib.contextmanager
    def measured(name: str):
        began = time.monotonic()
        yield
        figures[name] = round(time.monotonic() - began, 2)

    before = len(os.listdir("/dev/fd"))
    held = resident_bytes()
    with measured("start"):
        journal = make_journal(tmp_path, required=["out"])
        journal.append(make_entry("mine"))
    with measured("status"):
        assert len(journal_status(layout).streams) == 10_001
    journal.close()
    highest = resident_bytes() - held
    exporter = Counting()
    with measured("look"):
        provider = make_provider(layout.root, destinations={"out": exporter})
        login(provider.get_audit_logger())
        until(lambda: exporter.calls > 0)
    descriptors = len(os.listdir("/dev/fd")) - before
    print(figures, f"{highest / MB:.1f} MB, {descriptors} descriptors, {threading.active_count()} threads")
    assert descriptors < SHIPMENTS_MAX + 20
    assert highest < 60 * MB
    assert len(list_streams(layout)) > 9_000
    provider.shutdown(timeout_s=1)
