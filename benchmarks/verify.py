"""``verify``: how fast one core reads a stream back and checks it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from otel_audit.batch import StoredRecord
from otel_audit.canonical import canonicalize
from otel_audit.journal.reader import StreamReader
from otel_audit.proof.canonicity import is_canonical

from .harness import Bar, Figures, Options, Report, Row, interleave, median, spread
from .workload import EXTRAS, log_all, logger_with, provider, stream_of

BATCH: Final = 1024


def _stream(options: Options) -> Path:
    """A finished stream with the workload in it."""
    from otel_audit import AuditHandler

    with provider(options.directory, "verify") as ours:
        logger = logger_with(AuditHandler(ours))
        for _ in range(options.size(1, 30)):
            log_all(logger, EXTRAS)
        return stream_of(ours)


def _case(options: Options, check: Callable[[list[StoredRecord]], None]) -> Iterator[Figures]:
    directory = _stream(options)
    while True:
        reader = StreamReader(directory)
        count = 0
        began = time.perf_counter()
        cpu = time.process_time()
        while records := reader.read(records_max=BATCH, bytes_max=1 << 30, final=True):
            check(records)
            count += len(records)
        cpu = time.process_time() - cpu
        taken = time.perf_counter() - began
        if reader.damage or count < len(EXTRAS):
            raise RuntimeError(f"{count} records, damage: {reader.damage}")
        yield {"rate": count / cpu, "wall_rate": count / taken}


def hashes_and_chain(options: Options) -> Iterator[Figures]:
    """Every hash computed anew, every record after its predecessor."""
    yield from _case(options, lambda records: None)


def _each(check: Callable[[bytes], bool]) -> Callable[[list[StoredRecord]], None]:
    def check_all(records: list[StoredRecord]) -> None:
        for record in records:
            if not check(record.canonical):
                raise RuntimeError(f"record {record.sequence} is not canonical")

    return check_all


def canonical_form(options: Options) -> Iterator[Figures]:
    """And that the bytes are the canonical form of the values in them."""
    yield from _case(options, _each(is_canonical))


def plainly(options: Options) -> Iterator[Figures]:
    """The same the plain way: every value is read, and written again."""
    yield from _case(options, _each(is_derived))


def is_derived(canonical: bytes) -> bool:
    """Whether the values, written again, give the same bytes."""
    record = StoredRecord(0, "", canonical)
    derived = canonicalize(
        record.event_name,
        record.timestamp_ns,
        record.observed_ns,
        record.body,
        record.attributes,
        record.trace_id,
        record.span_id,
    )
    return derived == canonical


CASES = {"hashes": hashes_and_chain, "canonical": canonical_form, "plainly": plainly}


def run(options: Options) -> Report:
    """Measure it."""
    rounds = options.rounds_or(9)
    found, _ = interleave(CASES, options, rounds)
    report = Report("verify", f"reading a stream back, records a second of CPU × {rounds}")
    rows: list[tuple[str, str, Any]] = [
        ("hashes", "hashes and chain", Bar(300_000, 500_000, at_most=False)),
        ("canonical", "and that each is the canonical form of its values", Bar(150_000, 200_000, at_most=False)),
        ("plainly", "the same by reading and writing every value", None),
    ]
    for name, label, bar in rows:
        results = found[name]
        note = f"{1e6 / median(results, 'rate'):.1f} µs; {median(results, 'wall_rate'):,.0f} a second of the clock"
        report.rows.append(Row(label, median(results, "rate"), "records/s", spread(results, "rate"), None, bar, note))
    return report
