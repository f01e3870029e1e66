"""``short_processes``: what a process costs that emits one record and ends, and what many of them leave."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from otel_audit.health import journal_status
from otel_audit.journal.layout import Layout
from otel_audit.journal.streams import list_streams, usage_bytes

from .backlog import MB, resident_bytes
from .harness import Bar, Figures, Options, Report, Row, interleave, median, once, ratio, spread
from .receiver import discard, free_port
from .sink import Sink
from .workload import EVENT, EXTRAS, provider


def _count(options: Options) -> int:
    return options.size(5, 300, 10_000)


def _in_children(count: int, run: Callable[[], object]) -> float:
    """Fork so many children, one after the other, which run this and end; seconds."""
    began = time.perf_counter()
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                run()
                code = 0
            finally:
                os._exit(code)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError("a child failed; see its traceback above")
    return time.perf_counter() - began


def _rounds(options: Options, run: Callable[[], object]) -> Iterator[Figures]:
    count = options.size(5, 50)
    while True:
        yield {"ms": _in_children(count, run) / count * 1e3}


def nothing(options: Options) -> Iterator[Figures]:
    """A child that ends at once."""
    yield from _rounds(options, lambda: None)


def json_file(options: Options) -> Iterator[Figures]:
    """A child that logs one line of JSON into a file of its own, synced."""
    directory = Path(options.directory, "json-files")
    directory.mkdir()

    def run() -> None:
        handler = logging.FileHandler(directory / str(os.getpid()))
        handler.emit(logging.makeLogRecord({"msg": json.dumps(EXTRAS[0])}))
        os.fsync(handler.stream.fileno())
        handler.close()

    yield from _rounds(options, run)


def ours_process(options: Options) -> Iterator[Figures]:
    """A child that journals one record and ends in order."""
    yield from _ours(options, "process")


def ours_disk(options: Options) -> Iterator[Figures]:
    """The same, and waits until it is on the disk."""
    yield from _ours(options, "disk")


def _ours(options: Options, durability: str) -> Iterator[Figures]:
    with provider(options.directory, f"short-{durability}", durability=durability) as ours:
        logger = ours.get_audit_logger("bench.audit")

        def run() -> None:
            logger.emit(EVENT, **EXTRAS[0])
            ours.shutdown()

        yield from _rounds(options, run)


def many(options: Options) -> Iterator[Figures]:
    """What so many leave while the destination is down, and how it is delivered when it works again."""
    count = _count(options)
    port = free_port()
    sink = Sink(f"http://127.0.0.1:{port}")
    sink.open = False
    with provider(options.directory, "many", destinations=(sink.destination(),)) as ours:
        logger = ours.get_audit_logger("bench.audit")

        def run() -> None:
            logger.emit(EVENT, **EXTRAS[0])
            ours.shutdown(0.0)

        _in_children(count, run)
        root = ours.journal.layout.root
        figures = {"kb": usage_bytes(root, reserved=False) / count / 1e3}
        began = time.perf_counter()
        status = journal_status(Layout(root))
        figures["status_s"] = time.perf_counter() - began
        if len(status.streams) != count:
            raise RuntimeError(f"{len(status.streams)} streams of {count} processes are left")
        del status
        before = resident_bytes()
        began = time.perf_counter()
        logger.emit(EVENT, **EXTRAS[0])
        figures["first_ms"] = (time.perf_counter() - began) * 1e3
        with discard(port):
            sink.open = True
            descriptors = highest = 0
            while len(list_streams(Layout(root))) > 1:
                descriptors = max(descriptors, len(os.listdir("/dev/fd")))
                highest = max(highest, resident_bytes())
                time.sleep(0.05)
            figures["drained_s"] = time.perf_counter() - began
            figures |= {"descriptors": float(descriptors), "mb": max(highest - before, 0) / MB}
            if sink.acknowledged < 3 * count:
                raise RuntimeError(f"only {sink.acknowledged} records of {count} processes were delivered")
    yield figures


def run(options: Options) -> Report:
    """Measure it."""
    rounds = options.rounds_or(5)
    cases = {"nothing": nothing, "json": json_file, "process": ours_process, "disk": ours_disk}
    found, _ = interleave(cases, options, rounds)
    count = _count(options)
    report = Report(
        "short_processes", f"a process that emits once and ends × {rounds}; {count:,} of them", "one JSON line"
    )
    for label, name in (
        ("fork and exit, nothing else", "nothing"),
        ("one line of JSON into a file, synced", "json"),
        ("one record, an orderly end", "process"),
        ("one record onto the disk, an orderly end", "disk"),
    ):
        share = ratio(found[name], found["json"], "ms")
        report.rows.append(Row(label, median(found[name], "ms"), "ms", spread(found[name], "ms"), share))
    figures = once(many, options)
    for label, name, unit in (
        ("files that each leaves while nobody delivers", "kb", "kB"),
        (f"status of {count:,} streams", "status_s", "s"),
        (f"first emit beside {count:,} streams", "first_ms", "ms"),
        (f"all {count:,} adopted, delivered and removed", "drained_s", "s"),
        ("memory, grown meanwhile", "mb", "MB"),
        ("descriptors, at most", "descriptors", ""),
    ):
        bar = Bar(60, 60) if name == "mb" else None
        report.rows.append(Row(label, figures[name], unit, bar=bar))
    return report
