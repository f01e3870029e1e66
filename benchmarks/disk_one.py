"""``disk_one``: what ``durability="disk"`` adds to the write and the sync themselves, for one caller."""

from __future__ import annotations

import hashlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from otel_audit.journal.files import Files

from .harness import Bar, Figures, Options, Report, Row, interleave, median, spread
from .workload import EVENT, EXTRAS, provider, stream_of

PEER = "write + fdatasync"


def _count(options: Options) -> int:
    return options.size(10, 300)


def _measure(each: Callable[[int], object], count: int) -> dict[str, float]:
    waits = []
    cpu = time.process_time_ns()
    for number in range(count):
        began = time.perf_counter_ns()
        each(number)
        waits.append(time.perf_counter_ns() - began)
    cpu = time.process_time_ns() - cpu
    return {"us": cpu / count / 1000, "wall_us": sorted(waits)[count // 2] / 1000}


def _lines(options: Options) -> list[bytes]:
    """What our journal writes for the workload."""
    with provider(options.directory, "lines") as ours:
        logger = ours.get_audit_logger("bench.audit")
        for facts in EXTRAS[: _count(options)]:
            logger.emit(EVENT, **facts)
        segments = sorted(stream_of(ours).glob("*.jsonl"))
        return segments[0].read_bytes().splitlines(keepends=True)[1:]


def raw(options: Options) -> Iterator[Figures]:
    """The same bytes by ``write(2)`` and ``fdatasync(2)``, nothing else."""
    lines = _lines(options)
    fd = os.open(Path(options.directory) / f"raw-{uuid.uuid4().hex[:8]}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)

    def each(number: int) -> None:
        os.write(fd, lines[number])
        sync(fd)

    while True:
        yield _measure(each, _count(options))


def plain(options: Options) -> Iterator[Figures]:
    """The least that a chained line of JSON takes: the facts, an id and the time by ``json``, SHA-256, write, sync.

    Nothing is looked at, converted, or made safe against an interruption; it is not the canonical form either.
    """
    fd = os.open(
        Path(options.directory) / f"plain-{uuid.uuid4().hex[:8]}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
    )
    sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
    previous = ""

    def each(number: int) -> None:
        nonlocal previous
        facts = {name: {"stringValue": value} for name, value in EXTRAS[number].items()}
        record = {"event_name": EVENT, "attributes": facts, "id": str(uuid.uuid4()), "time": str(time.time_ns())}
        text = json.dumps({**record, "previous": previous}, sort_keys=True, separators=(",", ":")).encode()
        previous = hashlib.sha256(text).hexdigest()
        os.write(fd, b'{"sha256":"' + previous.encode() + b'","record":' + text + b"}\n")
        sync(fd)

    while True:
        yield _measure(each, _count(options))


def ours(options: Options) -> Iterator[Figures]:
    """``emit(…, durability="disk")``."""
    with provider(options.directory, "disk", durability="disk") as made:
        emit: Any = made.get_audit_logger("bench.audit").emit
        while True:
            yield _measure(lambda number: emit(EVENT, **EXTRAS[number]), _count(options))


class NoSync(Files):
    """A file layer whose sync does nothing."""

    @staticmethod
    def _sync(_: int) -> None:
        pass

    fsync = _sync
    fdatasync = _sync


def warm(options: Options) -> Iterator[Figures]:
    """The same where the sync does nothing: without the caches that are cold after each wait for a disk."""
    with provider(options.directory, "warm", files=NoSync(), durability="disk") as made:
        emit: Any = made.get_audit_logger("bench.audit").emit
        while True:
            yield _measure(lambda number: emit(EVENT, **EXTRAS[number]), _count(options))


def process(options: Options) -> Iterator[Figures]:
    """``emit(…)`` with durability ``process``: what of the difference is the record itself."""
    with provider(options.directory, "process") as made:
        emit: Any = made.get_audit_logger("bench.audit").emit
        while True:
            yield _measure(lambda number: emit(EVENT, **EXTRAS[number]), _count(options))


def run(options: Options) -> Report:
    """Measure it."""
    rounds = options.rounds_or(11)
    cases = {PEER: raw, "plain": plain, "disk": ours, "warm": warm, "process": process}
    found, _ = interleave(cases, options, rounds)
    report = Report("disk_one", f"durability='disk', one caller, CPU a record, {_count(options):,} records × {rounds}")
    labels = {PEER: "write + fdatasync of the same bytes", "disk": "emit(durability='disk')"}
    labels["plain"] = "json.dumps, SHA-256, write + fdatasync"
    labels |= {"warm": "emit(durability='disk') with a sync that does nothing", "process": "emit()"}
    for name, results in found.items():
        wall = f"{median(results, 'wall_us'):.0f} µs of the clock (median)"
        report.rows.append(Row(labels[name], median(results, "us"), "µs", spread(results, "us"), note=wall))
    added = [
        {"us": ours["us"] - raw["us"], "wall_us": ours["wall_us"] - raw["wall_us"]}
        for ours, raw in zip(found["disk"], found[PEER], strict=True)
    ]
    wall = f"{median(added, 'wall_us'):+.0f} µs of the clock"
    report.rows.append(Row("added by us", median(added, "us"), "µs", None, None, Bar(25, 15), wall))
    return report
