"""What is logged in every question: a log-in with eight facts, a thousand of them that differ; and our side of it."""

from __future__ import annotations

import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from otel_audit.journal.files import OS_FILES, Files
from otel_audit.journal.layout import Layout
from otel_audit.provider import AuditProvider, ProviderSettings

EVENT = "user.login"
_REASONS = ("password", "single sign-on", "hardware token", "session restored")


def extra(number: int) -> dict[str, str]:
    """The eight facts of one log-in."""
    return {
        "actor": f"u-{number * 7919 % 100_000}",
        "target": f"document:{number}",
        "outcome": "success" if number % 10 else "failure",
        "source": f"10.{number % 7}.{number % 200}.{number % 250}",
        "tenant": f"tenant-{number % 40}",
        "session": f"s-{uuid.UUID(int=number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128).hex[:16]}",
        "request_id": str(uuid.UUID(int=number * 0xD1342543DE82EF95C2B2AE3D27D4EB4F % 2**128)),
        "reason": _REASONS[number % len(_REASONS)],
    }


EXTRAS = [extra(number) for number in range(1, 1001)]


def logger_with(handler: logging.Handler, name: str = "bench.audit") -> logging.Logger:
    """A logger that gives its records to this handler only."""
    logger = logging.getLogger(name)
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(logging.INFO)
    return logger


@contextlib.contextmanager
def provider(directory: str, name: str, *, files: Files = OS_FILES, **settings: Any) -> Iterator[AuditProvider]:
    """A provider with a journal of its own below the directory."""
    path = Path(directory) / f"{name}-{uuid.uuid4().hex[:8]}"
    layout = Layout(path, files=files)
    made = AuditProvider(ProviderSettings(journal=path, service_name="bench", **settings), layout=layout)
    try:
        yield made
    finally:
        made.shutdown(1.0)


class Meter:
    """Measures portions of calls.

    Args:
        log: logs once for each set of facts.
        count: how many calls make a round; they are made in portions of a thousand.
        drain: called after each portion, outside of what is measured.
    """

    def __init__(
        self, log: Callable[[Sequence[dict[str, str]]], None], count: int, drain: Callable[[], object] = lambda: None
    ) -> None:
        self._log = log
        self._count = count
        self._drain = drain
        self._process_ns = 0

    def round(self) -> dict[str, float]:
        """Microseconds a call: of the clock, of the calling thread's CPU, and of the CPU of the whole process.

        The last is what was used since the round before, so that what threads did in the background meanwhile is in it.
        """
        before, self._process_ns = self._process_ns, time.process_time_ns()
        wall = cpu = 0
        left = self._count
        while left > 0:
            portion = EXTRAS[: min(left, len(EXTRAS))]
            cpu -= time.thread_time_ns()
            wall -= time.perf_counter_ns()
            self._log(portion)
            wall += time.perf_counter_ns()
            cpu += time.thread_time_ns()
            self._drain()
            left -= len(portion)
        each = 1000 * self._count
        return {"us": wall / each, "cpu_us": cpu / each, "process_us": (self._process_ns - before) / each}

    def rounds(self) -> Iterator[dict[str, float]]:
        """Without end."""
        while True:
            yield self.round()


def stream_of(made: AuditProvider) -> Path:
    """The directory of the one stream in a provider's journal."""
    (directory,) = (made.settings.journal / "streams").iterdir()
    return directory


def log_all(logger: logging.Logger, portion: Iterable[dict[str, str]]) -> None:
    """One ``info`` for each set of facts."""
    info = logger.info
    for facts in portion:
        info(EVENT, extra=facts)
