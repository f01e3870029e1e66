"""``drain_latency``: what a caller who waits for the disk notices of a backlog that is being delivered meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

from otel_audit.journal.files import OS_FILES, Files

from .harness import Bar, Figures, Options, Report, Row, interleave, median, quantile, spread
from .receiver import discard, free_port
from .sink import Sink
from .workload import EVENT, EXTRAS, provider

SYNC_S: Final = 0.0002


class QuickSync(Files):
    """A file layer whose sync takes a fifth of a millisecond: the disk's own noise is not what is measured."""

    @staticmethod
    def _sync(_: int) -> None:
        time.sleep(SYNC_S)

    fsync = _sync
    fdatasync = _sync


def _case(options: Options, files: Files) -> Iterator[Figures]:
    port = free_port()
    count = options.size(20, 400)
    backlog = options.size(500, 20_000)
    with discard(port) as url:
        sink = Sink(url)
        with provider(options.directory, "drain", files=files, destinations=(sink.destination(),)) as ours:
            emit: Any = ours.get_audit_logger("bench.audit").emit
            while True:
                ours.flush(60.0)
                idle = _latencies(emit, count)
                ours.flush(60.0)
                sink.open = False
                for number in range(backlog):
                    emit(EVENT, **EXTRAS[number % len(EXTRAS)])
                before = sink.acknowledged
                sink.open = True
                sink.wait_for(before + 1)
                draining: list[float] = []
                while sink.acknowledged < before + backlog or not draining:
                    draining += _latencies(emit, 5)
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
    rounds = options.rounds_or(5)
    found, _ = interleave({"fixed": fixed, "real": real}, options, rounds)
    report = Report("drain_latency", f"p90 of emit(durability='disk') while a backlog drains × {rounds}", "idle")
    for name, label in (("real", "this disk"), ("fixed", "a sync of 0.2 ms")):
        results = found[name]
        report.rows.append(Row(f"idle, {label}", median(results, "idle_us"), "µs", spread(results, "idle_us"), 1.0))
        calls = median(results, "samples")
        note = f"medians: {median(results, 'median_ratio'):.2f} of idle; {calls:.0f} calls a round"
        row = Row(f"draining, {label}", median(results, "us"), "µs", spread(results, "us"), median(results, "ratio"))
        row.bar, row.note = Bar(2.0, 1.3, of="ratio"), note
        report.rows.append(row)
    return report
