"""What all questions share: cases in processes of their own, rounds in turn, medians, ratios, and the table.

A *case* is a generator function that takes :class:`Options`.  It prepares itself, and then yields the figures of one
round, by name, each time it is asked.  The first round warms up and does not count.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from otel_audit.journal.layout import file_system

ROOT = Path(__file__).resolve().parents[1]

Figures: TypeAlias = Mapping[str, float]
Case: TypeAlias = Callable[["Options"], Iterator[Figures]]


class Unavailable(Exception):  # noqa: N818 - a finding, not a failure
    """A case that cannot run here; the message says what is missing."""


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        directory: where journals and files are made; on a disk.
        rounds: how many rounds count; 0: as many as each question finds right.
        quick: tiny sizes, and the warm-up counts: to see that everything runs, not to read the figures.
        full: the large sizes of the questions that have them.
        receiver: base URL of an OTLP/HTTP receiver, for the cases that send.
        grpc_receiver: the same for OTLP/gRPC.
    """

    directory: str
    rounds: int = 0
    quick: bool = False
    full: bool = False
    receiver: str = ""
    grpc_receiver: str = ""

    def size(self, quick: int, usual: int, full: int | None = None) -> int:
        """The size that fits."""
        if self.quick:
            return quick
        return full if self.full and full is not None else usual

    def rounds_or(self, usual: int) -> int:
        """How many rounds count."""
        return 1 if self.quick else self.rounds or usual


# -- processes ----------------------------------------------------------------------------------------------


class Worker:
    """A case in a process of its own."""

    def __init__(self, case: Case, options: Options) -> None:
        command = [sys.executable, "-m", "benchmarks.worker", case.__module__, case.__name__]
        self._process = subprocess.Popen(
            [*command, json.dumps(asdict(options))], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._name = f"{case.__module__}.{case.__name__}"
        self.unavailable = ""

    def ask(self) -> None:
        """Have it run a round; :meth:`answer` waits for it."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write("round\n")
            self._process.stdin.flush()

    def answer(self) -> dict[str, float]:
        """The figures of the round; empty where the case cannot run here.

        Raises:
            RuntimeError: the case failed; its traceback is on the standard error stream.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._name} ended with code {self._process.wait()}; see its traceback above")
        figures: dict[str, Any] = json.loads(line)
        self.unavailable = figures.pop("unavailable", "")
        return figures

    def close(self) -> None:
        """End it in order, or kill it."""
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate(timeout=60)
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


Rounds: TypeAlias = list[dict[str, float]]


def interleave(cases: Mapping[str, Case], options: Options, rounds: int) -> tuple[dict[str, Rounds], dict[str, str]]:
    """The figures of each case in each round, all cases taking turns; and why those that cannot run here cannot."""
    workers: dict[str, Worker] = {}
    found: dict[str, Rounds] = {}
    missing: dict[str, str] = {}
    try:
        for name, case in cases.items():
            workers[name] = Worker(case, options)
        for worker in workers.values():
            worker.ask()
        for name, worker in workers.items():  # the warm-up: all at once, it does not count
            figures = worker.answer()
            if worker.unavailable:
                missing[name] = worker.unavailable
            else:
                found[name] = [figures] if options.quick else []
        for _ in range(0 if options.quick else rounds):
            for name, results in found.items():
                touch_memory()
                workers[name].ask()
                results.append(workers[name].answer())
    finally:
        for worker in workers.values():
            worker.close()
    return found, missing


def once(case: Case, options: Options) -> dict[str, float]:
    """One round of one case, without a warm-up, in a process of its own.

    Raises:
        Unavailable: it cannot run here.
    """
    worker = Worker(case, options)
    try:
        worker.ask()
        figures = worker.answer()
        if worker.unavailable:
            raise Unavailable(worker.unavailable)
        return figures
    finally:
        worker.close()


def touch_memory(size: int = 128 * 1024 * 1024) -> None:
    """See that there is free memory which this machine has had in use lately, for whoever runs next.

    In a virtual machine a page that was not used lately has to be asked for from the host: 10 µs, forty times what it
    costs otherwise.  Whoever writes to a file would be charged with it, and nobody else.
    """
    with mmap.mmap(-1, size) as memory:
        for at in range(0, size, mmap.PAGESIZE):
            memory[at] = 1


# -- figures ------------------------------------------------------------------------------------------------


def median(rounds: Rounds, name: str) -> float:
    """The median of a figure over the rounds."""
    return statistics.median(figures[name] for figures in rounds)


def spread(rounds: Rounds, name: str) -> float | None:
    """Half the distance between the quartiles as a share of the median; ``None`` where there are too few rounds."""
    values = [figures[name] for figures in rounds]
    if len(values) < 3 or not statistics.median(values):
        return None
    first, middle, third = statistics.quantiles(values, n=4, method="inclusive")
    return abs(third - first) / 2 / abs(middle)


def ratio(rounds: Rounds, peer: Rounds, name: str) -> float:
    """The median of the ratios to the peer's figure of the same round: what drifts, drifts for both."""
    return statistics.median(ours[name] / theirs[name] for ours, theirs in zip(rounds, peer, strict=True))


def quantile(values: list[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


# -- the table ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """What a figure has to hold.

    Attributes:
        bar, goal: the least that is asked, and what is aimed at.
        at_most: whether smaller is better.
        of: what is judged: ``"figure"`` or ``"ratio"``.
    """

    bar: float
    goal: float
    at_most: bool = True
    of: str = "figure"

    def verdict(self, figure: float | None, ratio: float | None) -> str:
        """In words."""
        value = ratio if self.of == "ratio" else figure
        if value is None:
            return "not measured"
        good, best = ((value <= limit) if self.at_most else (value >= limit) for limit in (self.bar, self.goal))
        return "goal met" if best else "met" if good else "NOT MET"


@dataclass
class Row:
    """A line of a table: a candidate, its figure, and what is asked of it."""

    candidate: str
    figure: float | None
    unit: str
    spread: float | None = None
    ratio: float | None = None
    bar: Bar | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        """Whether it holds what is asked; empty where nothing is."""
        return self.bar.verdict(self.figure, self.ratio) if self.bar is not None else ""


@dataclass
class Report:
    """The answer to one question.

    Attributes:
        name: of the question, as ``--only`` takes it.
        title: the question, and the sizes.
        peer: what the ratios are ratios to.
        rows: the table.
        notes: what one has to know to read it.
    """

    name: str
    title: str
    peer: str = ""
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "rows": [{**asdict(row), "verdict": row.verdict} for row in self.rows]}

    def as_text(self) -> str:
        """As a table for people."""
        head = ("candidate", "figure", "±", f"÷ {self.peer}" if self.peer else "", "bar", "goal", "", "")
        lines = [head, *[_cells(row) for row in self.rows]]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [f"{self.name}: {self.title}"]
        for line in lines:
            cells = [line[0].ljust(widths[0]), *[c.rjust(w) for c, w in zip(line[1:6], widths[1:6], strict=True)]]
            text.append("  " + "  ".join([*cells, line[6].ljust(widths[6]), line[7]]).rstrip())
        return "\n".join([*text, *[f"  {note}" for note in self.notes]])


def _cells(row: Row) -> tuple[str, ...]:
    bar = goal = ""
    if row.bar is not None:
        sign = "≤" if row.bar.at_most else "≥"
        unit = "" if row.bar.of == "ratio" else row.unit
        bar, goal = (f"{sign} {amount(value, unit)}" for value in (row.bar.bar, row.bar.goal))
    return (
        row.candidate,
        amount(row.figure, row.unit) if row.figure is not None else "–",
        f"{row.spread:.0%}" if row.spread is not None else "",
        f"{row.ratio:.3f}" if row.ratio is not None else "",
        bar,
        goal,
        row.verdict,
        row.note,
    )


def amount(value: float, unit: str) -> str:
    """A number with its unit, in as many digits as say something."""
    if abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) >= 100:
        text = f"{value:.0f}"
    else:
        text = f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
    return f"{text} {unit}".rstrip()


# -- places -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def scratch(directory: str | None) -> Iterator[Path]:
    """A new directory on a disk, removed afterwards.

    Args:
        directory: where to make it; ``None``: the system's temporary directory, or the home directory where that is
            in memory.
    """
    parent = directory or tempfile.gettempdir()
    if directory is None and file_system(Path(parent)).volatile:
        parent = str(Path.home())
    with tempfile.TemporaryDirectory(prefix="otel-audit-bench-", dir=parent, ignore_cleanup_errors=True) as made:
        yield Path(made)
