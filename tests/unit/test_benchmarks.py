"""Every benchmark runs, with tiny sizes, and prints its table; what the figures are is not looked at."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(not (ROOT / "benchmarks").is_dir(), reason="not in this distribution")

QUESTIONS = (
    "caller", "whole_way", "disk_one", "group_commit", "drain_latency", "backlog", "fan_out", "short_processes",
    "verify", "import", "encode",
)  # fmt: skip


def _run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", "--quick", "--directory", str(directory), *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What all of them answer, by name."""
    directory = tmp_path_factory.mktemp("benchmarks")
    done = _run(directory, "--json")
    assert done.returncode == 0, done.stderr
    assert not list(directory.iterdir()), "it leaves nothing behind"
    answered = json.loads(done.stdout)
    assert answered["environment"]["file system"]
    return {report["name"]: report for report in answered["reports"]}


def test_every_question_is_answered(reports: dict[str, Any]) -> None:
    """None is left out, and none is added without a line here."""
    assert tuple(reports) == QUESTIONS


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_report_has_figures(name: str, reports: dict[str, Any]) -> None:
    """Every row has a figure, or says why not; and at least one is held against a bar."""
    rows = reports[name]["rows"]
    assert all(row["figure"] is not None or row["note"] for row in rows)
    assert any(row["bar"] for row in rows)
    for row in rows:
        allowed = ("met", "goal met", "NOT MET", "not measured") if row["bar"] else ("",)
        assert row["verdict"] in allowed


def test_a_table_is_printed(tmp_path: Path) -> None:
    """Without ``--json`` it is for people: the machine, the question, a line for each candidate."""
    done = _run(tmp_path, "--only", "encode")
    assert done.returncode == 0, done.stderr
    machine, _, question, head, *lines = done.stdout.splitlines()
    assert machine.startswith("Python ")
    assert question.startswith("encode: ")
    assert head.split()[:2] == ["candidate", "figure"]
    assert any("≤" in line for line in lines)


def test_a_wrong_question_is_named(tmp_path: Path) -> None:
    """A misspelt name ends it before anything is measured."""
    done = _run(tmp_path, "--only", "cller")
    assert done.returncode == 2
    assert "cller" in done.stderr


def test_a_bar_that_is_not_met_is_said() -> None:
    """A verdict depends on the figure or the ratio, whichever the bar is for."""
    spec = importlib.util.spec_from_file_location("benchmarks_harness", ROOT / "benchmarks" / "harness.py")
    assert spec is not None
    assert spec.loader is not None
    harness = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = harness
    try:
        spec.loader.exec_module(harness)
        bar = harness.Bar(0.7, 0.55, of="ratio")
        assert [bar.verdict(9.9, ratio) for ratio in (0.5, 0.6, 0.8, None)] == [
            "goal met", "met", "NOT MET", "not measured",
        ]  # fmt: skip
        rate = harness.Bar(100, 200, at_most=False)
        assert [rate.verdict(figure, None) for figure in (250, 150, 50)] == ["goal met", "met", "NOT MET"]
        assert harness.spread([{"a": 1.0}, {"a": 2.0}], "a") is None
        assert harness.ratio([{"a": 1.0}, {"a": 9.0}, {"a": 3.0}], [{"a": 2.0}, {"a": 3.0}, {"a": 6.0}], "a") == 0.5
    finally:
        del sys.modules[spec.name]
