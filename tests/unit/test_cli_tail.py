"""``otel-audit tail``: which records, in which order, and how they look."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.cli import clean_environment, emit, on_a_terminal, provide, run, run_apart, stream_of


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where the journal of a test is."""
    return tmp_path / "journal"


def events(capsys: pytest.CaptureFixture[str], journal: Path, *arguments: object) -> list[str]:
    """Event names that tail writes as JSON."""
    capsys.readouterr()
    assert run("tail", "--journal", journal, "--json", *arguments) == 0
    return [json.loads(line)["event_name"] for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def two_streams(journal: Path) -> Path:
    """A journal with two streams whose records alternate in time."""
    with provide(journal) as one, provide(journal) as other:
        for number in range(6):
            (one, other)[number % 2].get_audit_logger().emit(f"n.e{number}", actor="u-1", outcome="success")
            time.sleep(0.002)
    return journal


def test_tail_merges_by_time(capsys: pytest.CaptureFixture[str], two_streams: Path) -> None:
    """The records of several streams come in the order of their emission."""
    assert events(capsys, two_streams, "--from-start", "--no-control") == [f"n.e{number}" for number in range(6)]
    all_of_them = events(capsys, two_streams, "--from-start")
    assert all_of_them.count("audit.logging.started") == all_of_them.count("audit.logging.stopped") == 2
    assert len(all_of_them) == 10


def test_tail_begins_with_the_last(capsys: pytest.CaptureFixture[str], two_streams: Path) -> None:
    """-n counts what is shown, over all streams; ten where nothing is said."""
    assert events(capsys, two_streams, "-n", 3, "--no-control") == ["n.e3", "n.e4", "n.e5"]
    assert events(capsys, two_streams, "--last", 2) == ["audit.logging.stopped"] * 2
    assert events(capsys, two_streams, "-n", 0) == []
    emit(two_streams, *(f"m.e{number}" for number in range(20)))
    assert len(events(capsys, two_streams)) == 10


def test_tail_filters_by_event(capsys: pytest.CaptureFixture[str], two_streams: Path) -> None:
    """--event takes patterns; several are alternatives, and -n counts what fits."""
    assert events(capsys, two_streams, "--event", "n.e[24]", "--event", "*.e5") == ["n.e2", "n.e4", "n.e5"]
    assert events(capsys, two_streams, "--event", "n.*", "-n", 1) == ["n.e5"]
    assert events(capsys, two_streams, "--event", "n") == []


def test_tail_keeps_the_chains_order(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """Within a stream the order is the chain's, also where the clock stepped back."""

    class SteppingBack:
        def __init__(self) -> None:
            self.now = time.time_ns()

        def time_ns(self) -> int:
            self.now -= 1_000_000_000
            return self.now

    emit(journal, "n.e0", "n.e1", "n.e2", clock=SteppingBack())
    assert events(capsys, journal, "--no-control") == ["n.e0", "n.e1", "n.e2"]


def test_tail_for_people(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """A line has time, service, event, outcome, actor, target and the rest; nothing in it steers the terminal."""
    with provide(journal) as provider:
        provider.get_audit_logger().emit(
            "user.login",
            actor="u-1\x1b[2J",
            target="door",
            outcome="failure",
            reason="it is shut",
            body="\x9b31m\u202e",
            attributes={"size": 7},
        )
    assert run("tail", "--journal", journal) == 0
    started, login, stopped = capsys.readouterr().out.splitlines()
    assert "audit.logging.started" in started
    assert "audit.logging.stopped" in stopped
    assert re.match(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z shop\[\d+\] user\.login failure u-1\\x1b\[2J → door ", login
    )
    assert "size=7" in login
    assert "reason='it is shut'" in login
    assert "\\x9b31m\\u202e" in login
    assert not set(login) & {"\x1b", "\x9b", "\u202e"}


def test_tail_is_coloured_on_a_terminal_only(journal: Path) -> None:
    """On a terminal the lines are coloured and control records dimmed; in a file nothing is."""
    emit(journal, "a.b")
    plain = run_apart("tail", "--journal", journal)
    assert "a.b" in plain.stdout
    assert "\x1b" not in plain.stdout
    coloured = on_a_terminal("tail", "--journal", journal)
    assert "\x1b[1ma.b\x1b[0m" in coloured
    assert re.search(r"\x1b\[[\d;]*2[\d;]*m\S*audit\.logging\.started", coloured)


def test_tail_says_what_is_missing(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """A damaged record is named on stderr, and the rest is shown."""
    emit(journal, "a.b", "c.d")
    (segment,) = stream_of(journal).glob("0*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b'"a.b"', b'"x.b"'))
    assert run("tail", "--journal", journal, "--json", "--no-control") == 0
    said = capsys.readouterr()
    assert [json.loads(line)["event_name"] for line in said.out.splitlines()] == ["c.d"]
    assert "1 records from number 2 are not there" in said.err


def test_tail_passes_over_what_it_cannot_read(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """A stream of a newer format is named on stderr; the others are shown."""
    emit(journal, "a.b")
    (stream_of(journal) / "stream.json").write_text('{"format": 99}')
    emit(journal, "c.d")
    assert run("tail", "--journal", journal, "--json", "--no-control") == 0
    said = capsys.readouterr()
    assert [json.loads(line)["event_name"] for line in said.out.splitlines()] == ["c.d"]
    assert "format 99 is not known" in said.err


def test_whoever_reads_may_go(journal: Path) -> None:
    """Where the reader of a pipe has gone (``| head -1``), it ends without an error."""
    emit(journal, *(["a.b"] * 3000))
    command = [sys.executable, "-m", "otel_audit.cli", "tail", "--from-start", "--json", "--journal", str(journal)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"audit.logging.started" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0
