"""``drain_latency``: what a caller who waits for the disk notices of a backlog that is being delivered meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from otel_audit.batch import RecordBatch
from otel_audit.delivery.destination import Destination
from otel_audit.errors import RetryableExportError
from otel_audit.journal.files import OS_FILES, Files
from otel_audit.protocols import AuditRecordExporter, ExportResult
from otel_audit.settings import make_destination

from .backlog import _SOON
from .harness import Bar, Figures, Options, Report, Row, interleave, median, quantile, spread
from .receiver import discard, free_port
from .workload import EVENT, EXTRAS, provider

SYNC_S: Final = 0.0002


class QuickSync(Files):
    """A file layer whose sync takes a fifth of a millisecond: the disk's own noise is not what is measured."""

    @staticmethod
    def _sync(_: int) -> None:
        time.sleep(SYNC_S)

    fsync = _sync
    fdatasync = _sync


class Gate:
    """An exporter before another; while it is shut, the destination is down."""

    single_writer = False

    def __init__(self, behind: AuditRecordExporter) -> None:
        self.open = False
        self._behind = behind

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        """Deliver, or be down."""
        if not self.open:
            raise RetryableExportError("the gate is shut")
        return self._behind.export(batch, timeout_s)

    def close(self) -> None:
        """Nothing to do: the process ends."""


def _case(options: Options, files: Files) -> Iterator[Figures]:
    port = free_port()
    count = options.size(20, 400)
    with discard(port) as url:
        gate = Gate(make_destination("sink", {"type": "otlp", "endpoint": url}, {}).make_exporter())
        to = Destination("sink", lambda: gate, retry=_SOON, blocked=_SOON)
        with provider(options.directory, "drain", files=files, destinations=(to,)) as ours:
            emit: Any = ours.get_audit_logger("bench.audit").emit
            while True:
                gate.open = True
                ours.flush(60.0)
                idle = _latencies(emit, count)
                gate.open = False
                for number in range(options.size(500, 30_000)):
                    emit(EVENT, **EXTRAS[number % len(EXTRAS)])
                gate.open = True
                assert ours.journal.writer is not None
                stream, last = ours.journal.writer.stream_id, ours.journal.writer.sequence
                before = ours.shippers[0].acknowledged(stream)
                while ours.shippers[0].acknowledged(stream) == before:
                    time.sleep(0.001)
                draining: list[float] = []
                while ours.shippers[0].acknowledged(stream) < last:
                    draining += _latencies(emit, 5)
                draining = draining or _latencies(emit, 5)
                yield {
                    "idle_us": quantile(idle, 0.9),
                    "us": quantile(draining, 0.9),
                    "ratio": quantile(draining, 0.9) / quantile(idle, 0.9),
                    "median_ratio": quantile(draining, 0.5) / quantile(idle, 0.5),
                    "samples": len(draining),
                }


def _latencies(emit: Any, count: int) -> list[float]:
    """Microseconds of so many calls."""
    found = []
    for facts in EXTRAS[:count]:
        began = time.perf_counter_ns()
        emit(EVENT, durability="disk", **facts)
        found.append((time.perf_counter_ns() - began) / 1000)
    return found


def fixed(options: Options) -> Iterator[Figures]:
    """With a sync that always takes as long."""
    yield from _case(options, QuickSync())


def real(options: Options) -> Iterator[Figures]:
    """On the real disk."""
    yield from _case(options, OS_FILES)


def run(options: Options) -> Report:
    """Measure it."""
    rounds = options.rounds_or(7)
    found, _ = interleave({"fixed": fixed, "real": real}, options, rounds)
    report = Report("drain_latency", f"p90 of emit(durability='disk') while a backlog drains × {rounds}", "idle")
    for name, label in (("real", "this disk"), ("fixed", "a sync of 0.2 ms")):
        results = found[name]
        report.rows.append(Row(f"idle, {label}", median(results, "idle_us"), "µs", spread(results, "idle_us"), 1.0))
        note = f"median of the calls: {median(results, 'median_ratio'):.2f}; {median(results, 'samples'):.0f} calls a round"
        row = Row(f"draining, {label}", median(results, "us"), "µs", spread(results, "us"), median(results, "ratio"))
        row.bar, row.note = Bar(2.0, 1.3, of="ratio"), note
        report.rows.append(row)
    return report
