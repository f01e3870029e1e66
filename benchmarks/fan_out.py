"""``fan_out``: what a fast destination notices of slow and dead ones beside it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

from otel_audit.batch import RecordBatch
from otel_audit.delivery.destination import Destination
from otel_audit.errors import RetryableExportError
from otel_audit.formats.otlp import encode_logs_request

from .harness import Bar, Figures, Options, Report, Row, interleave, median, ratio, spread
from .workload import EVENT, EXTRAS, provider

SLOW_S: Final = 0.1
_PATIENCE_S: Final = 300.0


class Fast:
    """Encodes what it is given, as an OTLP exporter does, and has it at once."""

    single_writer = False

    def __init__(self) -> None:
        self.records = 0

    def export(self, batch: RecordBatch, timeout_s: float) -> None:
        """Take it."""
        encode_logs_request(batch)
        self.records += len(batch.records)

    def close(self) -> None:
        """Nothing is open."""

    def wait_for(self, records: int) -> None:
        """Wait until it has so many.

        Raises:
            RuntimeError: it has not, in five minutes.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while self.records < records:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the fast destination has {self.records} of {records} records")
            time.sleep(0.0005)


class Slow(Fast):
    """Takes a tenth of a second for each request."""

    def export(self, batch: RecordBatch, timeout_s: float) -> None:
        """Take it, slowly."""
        time.sleep(SLOW_S)
        super().export(batch, timeout_s)


class Hanging(Fast):
    """Takes a connection and says nothing, until the time is over."""

    def export(self, batch: RecordBatch, timeout_s: float) -> None:
        """Never answer."""
        time.sleep(timeout_s)
        raise RetryableExportError("time-out")


class Dead(Fast):
    """Nobody listens there."""

    def export(self, batch: RecordBatch, timeout_s: float) -> None:
        """Fail at once."""
        raise RetryableExportError("connection refused")


def _case(options: Options, neighbours: Sequence[type[Fast]]) -> Iterator[Figures]:
    count = options.size(200, 5000)
    fast = Fast()
    made: list[tuple[str, Fast]] = [("fast", fast), *((kind.__name__.lower(), kind()) for kind in neighbours)]
    destinations = tuple(
        Destination(name, lambda exporter=exporter: exporter, records_max=512, timeout_s=2.0, delay_s=0.01)  # type: ignore[misc]
        for name, exporter in made
    )
    with provider(options.directory, "fan", destinations=destinations) as ours:
        emit: Any = ours.get_audit_logger("bench.audit").emit
        while True:
            before = fast.records
            begun = time.perf_counter()
            for number in range(count):
                emit(EVENT, **EXTRAS[number % len(EXTRAS)])
            emitted = time.perf_counter()
            fast.wait_for(before + count)
            ended = time.perf_counter()
            yield {
                "rate": count / (ended - begun),
                "us": (ended - begun) / count * 1e6,
                "emit_us": (emitted - begun) / count * 1e6,
            }


def alone(options: Options) -> Iterator[Figures]:
    """The fast one and nobody else."""
    yield from _case(options, ())


def slow(options: Options) -> Iterator[Figures]:
    """A slow one beside it."""
    yield from _case(options, (Slow,))


def dead(options: Options) -> Iterator[Figures]:
    """A dead one beside it."""
    yield from _case(options, (Dead,))


def everybody(options: Options) -> Iterator[Figures]:
    """A slow one, a dead one and one that hangs beside it."""
    yield from _case(options, (Slow, Dead, Hanging))


def run(options: Options) -> Report:
    """Measure it."""
    rounds = options.rounds_or(7)
    found, _ = interleave({"alone": alone, "slow": slow, "dead": dead, "everybody": everybody}, options, rounds)
    report = Report(
        "fan_out", f"from emit to the acknowledgement of a fast destination, a record × {rounds}", "fast alone"
    )
    labels = {
        "alone": "fast alone",
        "slow": "a slow one beside",
        "dead": "a dead one beside",
        "everybody": "slow, dead, hanging",
    }
    for name, label in labels.items():
        results = found[name]
        row = Row(label, median(results, "us"), "µs", spread(results, "us"), ratio(results, found["alone"], "us"))
        if name != "alone":
            row.bar = Bar(1.5, 1.15, of="ratio")
        row.note = f"{median(results, 'rate'):,.0f} records/s; emit alone {median(results, 'emit_us'):.0f} µs"
        report.rows.append(row)
    return report
