"""Runs the questions and prints their tables: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from otel_audit.journal.layout import file_system

from .harness import Options, Report, scratch

QUESTIONS = {
    "caller": "caller",
    "whole_way": "whole_way",
    "disk_one": "disk_one",
    "group_commit": "group_commit",
    "drain_latency": "drain_latency",
    "backlog": "backlog",
    "fan_out": "fan_out",
    "short_processes": "short_processes",
    "verify": "verify",
    "import": "importing",
    "encode": "encode",
}
"""Name of a question → the file that answers it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; 1 where ``--check`` is given and something does not hold what is asked of it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", action="append", choices=[*QUESTIONS], metavar="NAME", help=", ".join(QUESTIONS))
    parser.add_argument("--rounds", type=int, default=0, help="rounds that count; by default as each question needs")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does everything run?")
    parser.add_argument("--full", action="store_true", help="large sizes: a million records behind")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    parser.add_argument("--check", action="store_true", help="end with code 1 where a bar is not met")
    parser.add_argument("--directory", help="where to make journals; on the disk that is to be measured")
    given = parser.parse_args(arguments)
    with scratch(given.directory) as directory:
        options = Options(str(directory), given.rounds, given.quick, given.full)
        where = environment(directory)
        if not given.json:
            print(", ".join(f"{name} {value}" for name, value in where.items()), flush=True)
        reports = [_answer(name, options, given.json) for name in given.only or QUESTIONS]
    if given.json:
        print(json.dumps({"environment": where, "reports": [report.as_json() for report in reports]}, indent=2))
    missed = [row for report in reports for row in report.rows if row.verdict in ("NOT MET", "not measured")]
    return 1 if given.check and missed else 0


def _answer(name: str, options: Options, quiet: bool) -> Report:
    run: Callable[[Options], Report] = importlib.import_module(f".{QUESTIONS[name]}", __package__).run
    began = time.perf_counter()
    report = run(options)
    if not quiet:
        print(f"\n{report.as_text()}\n  ({time.perf_counter() - began:.0f} s)", flush=True)
    return report


def environment(directory: Path) -> dict[str, str]:
    """What the figures depend on."""
    return {
        "Python": platform.python_version(),
        "on": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "file system": file_system(directory).type,
        "opentelemetry-sdk": importlib.metadata.version("opentelemetry-sdk"),
        "otel-audit": importlib.metadata.version("otel-audit"),
    }


if __name__ == "__main__":
    sys.exit(main())
