"""``group_commit``: how many records a second sixteen callers get onto the disk together, against one."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from otel_audit.journal.files import OS_FILES, Files

from .harness import Bar, Figures, Options, Report, Row, interleave, median, ratio, spread
from .workload import EVENT, EXTRAS, provider

THREADS: Final = 16
SYNC_S: Final = 0.002


class SlowSync(Files):
    """A file layer whose sync takes two milliseconds and does nothing else."""

    @staticmethod
    def _sync(_: int) -> None:
        time.sleep(SYNC_S)

    fsync = _sync
    fdatasync = _sync


def _case(options: Options, threads: int, files: Files) -> Iterator[Figures]:
    each = options.size(5, 100)
    with provider(options.directory, f"group-{threads}", files=files, durability="disk") as ours:
        emit: Any = ours.get_audit_logger("bench.audit").emit
        emit(EVENT, **EXTRAS[0])

        def work(ready: threading.Barrier) -> None:
            ready.wait()
            for facts in EXTRAS[:each]:
                emit(EVENT, **facts)

        while True:
            ready = threading.Barrier(threads + 1)
            workers = [threading.Thread(target=work, args=(ready,)) for _ in range(threads)]
            for worker in workers:
                worker.start()
            ready.wait()
            began = time.perf_counter()
            for worker in workers:
                worker.join()
            yield {"rate": threads * each / (time.perf_counter() - began)}


def one_fixed(options: Options) -> Iterator[Figures]:
    """One caller, a sync of 2 ms."""
    yield from _case(options, 1, SlowSync())


def many_fixed(options: Options) -> Iterator[Figures]:
    """Sixteen callers, a sync of 2 ms."""
    yield from _case(options, THREADS, SlowSync())


def one_real(options: Options) -> Iterator[Figures]:
    """One caller on the real disk."""
    yield from _case(options, 1, OS_FILES)


def many_real(options: Options) -> Iterator[Figures]:
    """Sixteen callers on the real disk."""
    yield from _case(options, THREADS, OS_FILES)


def run(options: Options) -> Report:
    """Measure it."""
    rounds = options.rounds_or(9)
    cases = {"one": one_fixed, "many": many_fixed, "one, disk": one_real, "many, disk": many_real}
    found, _ = interleave(cases, options, rounds)
    report = Report("group_commit", f"records/s onto the disk, {THREADS} callers against one × {rounds}", "one caller")
    figure = functools.partial(_row, found)
    report.rows += [
        figure("one caller, a sync of 2 ms", "one", "one"),
        figure(f"{THREADS} callers, a sync of 2 ms", "many", "one", Bar(8, 14, at_most=False, of="ratio")),
        figure("one caller, this disk", "one, disk", "one, disk"),
        figure(f"{THREADS} callers, this disk", "many, disk", "one, disk"),
    ]
    return report


def _row(found: dict[str, list[dict[str, float]]], label: str, name: str, peer: str, bar: Bar | None = None) -> Row:
    results = found[name]
    share = ratio(results, found[peer], "rate")
    return Row(label, median(results, "rate"), "records/s", spread(results, "rate"), share, bar)
