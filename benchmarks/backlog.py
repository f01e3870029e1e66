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

from otel_audit.delivery.backoff import Backoff
from otel_audit.delivery.destination import Destination
from otel_audit.settings import make_destination

from .harness import Bar, Figures, Options, Report, Row, once
from .receiver import discard, free_port
from .workload import EXTRAS, log_all, logger_with, provider

MIB: Final = 1024 * 1024
_SOON: Final = Backoff(first_s=0.2, max_s=0.2)


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


def destination(port: int) -> Destination:
    """The local receiver as a destination that is tried again five times a second."""
    made = make_destination("sink", {"type": "otlp", "endpoint": f"http://127.0.0.1:{port}"}, {})
    return Destination("sink", made.make_exporter, retry=_SOON, blocked=_SOON)


def outage(options: Options) -> Iterator[Figures]:
    """Log while nobody listens; then somebody does."""
    from otel_audit import AuditHandler

    count = _count(options)
    port = free_port()
    with provider(options.directory, "backlog", destinations=(destination(port),), max_bytes=16 * 1024**3) as ours:
        log = functools.partial(log_all, logger_with(AuditHandler(ours)))
        log(EXTRAS)
        while ours.shippers[0].state.failures == 0:
            time.sleep(0.01)
        before = resident_bytes()
        watch = _Watch()
        watch.start()
        began = time.perf_counter()
        for _ in range(count // len(EXTRAS)):
            log(EXTRAS)
        logged_s = time.perf_counter() - began
        logged = watch.stop() - before
        watch = _Watch()
        watch.start()
        assert ours.journal.writer is not None
        with discard(port):
            stream, last = ours.journal.writer.stream_id, ours.journal.writer.sequence
            while ours.shippers[0].acknowledged(stream) == 0:
                time.sleep(0.0005)
            began, first = time.perf_counter(), ours.shippers[0].acknowledged(stream)
            cpu = time.process_time()
            if not ours.flush(600.0):
                raise RuntimeError("not everything was delivered")
            drained_s = time.perf_counter() - began
            cpu = time.process_time() - cpu
        figures = {
            "logged_rate": count / logged_s,
            "logged_mib": logged / MIB,
            "drained_mib": (watch.stop() - before) / MIB,
        }
        if last > first:
            figures |= {"rate": (last - first) / drained_s, "cpu_us": cpu / (last - first) * 1e6}
        yield figures


def run(options: Options) -> Report:
    """Measure it, once: it takes as long as many rounds of other questions."""
    count = _count(options)
    figures = once(outage, options)
    report = Report("backlog", f"destination down, {count:,} records behind, then drained into a local receiver")
    memory = Bar(60, 60)
    logged = f"{figures['logged_rate']:,.0f} records/s were logged meanwhile"
    report.rows.append(Row("memory, grown while it is down", figures["logged_mib"], "MiB", bar=memory, note=logged))
    report.rows.append(Row("memory, grown while it drains", figures["drained_mib"], "MiB", bar=memory))
    note = f"{figures['cpu_us']:.1f} µs CPU a record" if "cpu_us" in figures else "too few records for a rate"
    rate = Bar(20_000, 50_000, at_most=False)
    report.rows.append(Row("drained", figures.get("rate"), "records/s", bar=rate, note=note))
    return report
