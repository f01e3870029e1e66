"""``backlog``: the destination is down for long, then it comes back."""

from __future__ import annotations

import functools
import resource
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from .harness import Bar, Figures, Options, Report, Row, once
from .receiver import discard, free_port
from .sink import Sink
from .workload import EXTRAS, log_all, logger_with, provider

MB: Final = 1_000_000


def _count(options: Options) -> int:
    return options.size(1_000, 100_000, 1_000_000)


def resident_bytes() -> int:
    """How much of the memory this process has; where the system does not say, the most that it ever had."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return pages * resource.getpagesize()


class _Watch(threading.Thread):
    """Looks at the memory every few milliseconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.highest = resident_bytes()
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(0.02):
            self.highest = max(self.highest, resident_bytes())

    def stop(self) -> int:
        """End it; the highest figure."""
        self._ended.set()
        self.join()
        return max(self.highest, resident_bytes())


def outage(options: Options) -> Iterator[Figures]:
    """Log while nobody listens; then somebody does."""
    from otel_audit import AuditHandler

    count = _count(options)
    port = free_port()
    sink = Sink(f"http://127.0.0.1:{port}")
    to = (sink.destination(),)
    with provider(options.directory, "backlog", destinations=to, max_bytes=16 * 1024**3) as ours:
        log = functools.partial(log_all, logger_with(AuditHandler(ours)))
        log(EXTRAS)
        while sink.attempts == 0:
            time.sleep(0.01)
        before = resident_bytes()
        watch = _Watch()
        watch.start()
        began = time.perf_counter()
        for _ in range(count // len(EXTRAS)):
            log(EXTRAS)
        logged_s = time.perf_counter() - began
        figures = {"logged_rate": count / logged_s, "logged_mb": (watch.stop() - before) / MB}
        watch = _Watch()
        watch.start()
        with discard(port):
            sink.wait_for(1)
            began, cpu, first = time.perf_counter(), time.process_time(), sink.acknowledged
            sink.wait_for(count)
            drained_s, cpu = time.perf_counter() - began, time.process_time() - cpu
            drained = sink.acknowledged - first
            if not ours.flush(60.0):
                raise RuntimeError("not everything was delivered")
        figures["drained_mb"] = (watch.stop() - before) / MB
        if drained:
            figures |= {"rate": drained / drained_s, "cpu_us": cpu / drained * 1e6}
        yield figures


def run(options: Options) -> Report:
    """Measure it, once: it takes as long as many rounds of other questions."""
    count = _count(options)
    figures = once(outage, options)
    report = Report("backlog", f"destination down, {count:,} records behind, then drained into a local receiver")
    memory = Bar(60, 60)
    logged = f"{figures['logged_rate']:,.0f} records/s were logged meanwhile"
    report.rows.append(Row("memory, grown while it is down", figures["logged_mb"], "MB", bar=memory, note=logged))
    report.rows.append(Row("memory, grown while it drains", figures["drained_mb"], "MB", bar=memory))
    note = f"{figures['cpu_us']:.1f} µs CPU a record" if "cpu_us" in figures else "too few records for a rate"
    rate = Bar(20_000, 50_000, at_most=False)
    report.rows.append(Row("drained", figures.get("rate"), "records/s", bar=rate, note=note))
    return report
