"""The demonstration, run as a user runs it: it accounts for every record, and it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from otel_audit.cli.demo.collector import find_collector
from otel_audit.cli.demo.count import take_accounts
from otel_audit.journal.layout import Layout
from otel_audit.settings import build_provider
from support.collector import require_collector

ROOT = Path(__file__).parents[2]
MARK = "TEST_DEMO_MARK"
TIMEOUT_S = 90


class Demo:
    """A demonstration with a temporary directory and a mark in the environment of everything that it starts."""

    def __init__(self, tmp_path: Path, *arguments: str, **env: str) -> None:
        self.mark = uuid.uuid4().hex
        self.temporary = tmp_path / "temporary"
        self.temporary.mkdir()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL")}
        marked = {
            **inherited,
            "PATH": "/nonexistent",
            "OTEL_AUDIT_CACHE": "/nonexistent",
            **env,
            MARK: self.mark,
            "TMPDIR": str(self.temporary),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "otel_audit.cli", "demo", *arguments],
            env=marked, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def finish(self) -> tuple[str, str]:
        """What it wrote on stdout and stderr."""
        try:
            return self.process.communicate(timeout=TIMEOUT_S)
        finally:
            self.process.kill()

    def left(self) -> list[str]:
        """Command lines of processes that still run, and files that are still there."""
        found = [str(path) for path in self.temporary.iterdir()]
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (path / "environ").read_bytes() and int(path.name) != self.process.pid:
                    found.append((path / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
        return found


def check(document: dict[str, Any]) -> None:
    """The accounts are as promised, and something has happened."""
    accounts = document["accounts"]
    emitted = sum(accounts["emitted"].values())
    assert document["ok"] is True
    assert (accounts["lost"], accounts["pending"], accounts["chain"]["damage"]) == (0, 0, [])
    assert accounts["chain"]["intact"] is True
    assert set(accounts["emitted"]) == {"logging", "structlog", "emit"}
    assert min(accounts["emitted"].values()) > 100
    assert accounts["delivered"] + accounts["dead_lettered"] == emitted + accounts["interrupted"]
    assert accounts["chain"]["records"] > emitted
    assert accounts["chain"]["streams"] == document["processes"]
    assert document["killed"] >= 8


def test_nothing_is_lost(tmp_path: Path) -> None:
    """With the embedded receiver it ends with exit code 0 and a table without losses, in time, and leaves nothing."""
    demo = Demo(tmp_path, "--json")
    output, progress = demo.finish()
    assert demo.process.returncode == 0, progress
    document = json.loads(output)
    check(document)
    assert document["receiver"] == "embedded receiver"
    assert document["accounts"]["dead_lettered"] > 0
    assert document["seconds"] < 60
    for step in (
        "no Collector is found",
        "SIGKILL to billing-1",
        "answers 503",
        "SIGKILL to the receiver",
        "ship --once",
    ):
        assert step in progress
    assert demo.left() == []


@pytest.mark.slow
def test_with_a_real_collector(tmp_path: Path) -> None:
    """With the Collector that OTELCOL_BIN names nothing is lost either."""
    binary = require_collector()
    demo = Demo(tmp_path, "--json", OTELCOL_BIN=str(binary))
    output, progress = demo.finish()
    assert demo.process.returncode == 0, progress
    document = json.loads(output)
    check(document)
    assert str(binary) in document["receiver"]
    assert demo.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_can_be_interrupted(tmp_path: Path, number: int) -> None:
    """A signal in the middle ends it soon, without a traceback, and nothing is left running or lying about."""
    demo = Demo(tmp_path)
    assert demo.process.stderr is not None
    for line in demo.process.stderr:
        if "SIGKILL to billing-1" in line:
            break
    assert demo.left() != []
    demo.process.send_signal(number)
    began = time.monotonic()
    _, errors = demo.finish()
    assert time.monotonic() - began < 10
    assert demo.process.returncode == 130
    assert "Traceback" not in errors
    assert demo.left() == []


def test_when_it_is_killed_its_processes_end(tmp_path: Path) -> None:
    """Killed itself, it cannot clean up; the processes that it started end all the same."""
    demo = Demo(tmp_path)
    assert demo.process.stderr is not None
    for line in demo.process.stderr:
        if "billing processes emit" in line:
            break
    demo.process.kill()
    demo.process.wait()
    deadline = time.monotonic() + 10
    while any(" -m " in each for each in demo.left()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [each for each in demo.left() if " -m " in each] == []


def test_what_is_kept_can_be_looked_at(tmp_path: Path) -> None:
    """A directory that is not empty is refused; nothing is started then."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").touch()
    demo = Demo(tmp_path, "--keep", str(tmp_path / "kept"))
    output, errors = demo.finish()
    assert demo.process.returncode == 2
    assert output == ""
    assert "is there and not empty" in errors


def test_the_collector_that_was_built_last_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none is named or on PATH: the newest in the cache that ``make collector`` fills, if it can be run."""
    monkeypatch.setenv("PATH", "/nonexistent")
    cache = {"OTEL_AUDIT_CACHE": str(tmp_path)}
    assert find_collector(cache) is None
    for number, name in enumerate(("old", "new", "broken")):
        built = tmp_path / f"collector-{name}" / "otelcol-audit"
        built.parent.mkdir()
        built.touch(0o644 if name == "broken" else 0o755)
        os.utime(built, (1_000 + number, 1_000 + number))
    assert find_collector(cache) == tmp_path / "collector-new" / "otelcol-audit"
    (tmp_path / "home" / ".cache").mkdir(parents=True)
    (tmp_path / "home" / ".cache" / "otel-audit").symlink_to(tmp_path)
    found = find_collector({"HOME": str(tmp_path / "home")})
    assert found is not None
    assert found.parent.name == "collector-new"


def test_a_collector_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    """Where OTELCOL_BIN names nothing that runs, that is said instead of using the embedded receiver."""
    demo = Demo(tmp_path, OTELCOL_BIN="/nonexistent/otelcol")
    _, errors = demo.finish()
    assert demo.process.returncode == 2
    assert errors.splitlines() == ["otel-audit: OTELCOL_BIN: /nonexistent/otelcol is no executable file"]


# -- it would notice ----------------------------------------------------------------------------------------------


@pytest.fixture
def journaled(tmp_path: Path) -> dict[str, str]:
    """Ids of four records in a journal that nobody delivered, as the application would have noted them."""
    with build_provider(journal=tmp_path / "journal", destinations={}) as provider:
        audit = provider.get_audit_logger()
        return {audit.emit("a.b", actor="u-1", outcome="success").record_id: "emit" for _ in range(4)}


def test_a_loss_is_noticed(tmp_path: Path, journaled: dict[str, str]) -> None:
    """A record whose call returned and that is nowhere counts as lost."""
    layout = Layout(tmp_path / "journal")
    accounts = take_accounts(layout, "collector", journaled, [])
    assert (accounts.lost, accounts.pending, accounts.good) == (0, 4, False)
    accounts = take_accounts(layout, "collector", {**journaled, "nowhere": "logging"}, [*journaled, *journaled])
    assert (accounts.lost, accounts.delivered, accounts.duplicates, accounts.good) == (1, 4, 4, False)


def test_an_interrupted_call_is_extra(tmp_path: Path, journaled: dict[str, str]) -> None:
    """A record that is journaled and was not noted is no loss, and is counted apart."""
    (first, *_) = journaled
    noted = {first: "emit"}
    accounts = take_accounts(Layout(tmp_path / "journal"), "collector", noted, [*journaled])
    assert (accounts.interrupted, accounts.lost, accounts.emitted) == (3, 0, {"emit": 1})


def test_a_broken_chain_is_noticed(tmp_path: Path, journaled: dict[str, str]) -> None:
    """A record that was changed in the journal breaks the chain; a line that was cut off at the end does not."""
    (segment,) = tmp_path.glob("journal/streams/*/0*.jsonl")
    whole = segment.read_bytes()
    segment.write_bytes(whole[:-20])
    layout = Layout(tmp_path / "journal")
    chain = take_accounts(layout, "collector", journaled, [*journaled]).chain
    assert (chain.intact, chain.torn, chain.records) == (True, 1, 5)
    segment.write_bytes(whole.replace(next(iter(journaled)).encode(), b"forged".ljust(36, b"-")))
    accounts = take_accounts(layout, "collector", journaled, [*journaled])
    assert (accounts.chain.intact, accounts.good) == (False, False)


def test_the_example_runs(tmp_path: Path) -> None:
    """examples/billing.py runs by itself and audits in all three ways."""
    journal = tmp_path / "journal"
    example = [sys.executable, str(ROOT / "examples" / "billing.py"), str(journal)]
    done = subprocess.run(example, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (segment,) = journal.glob("streams/*/0*.jsonl")
    names = [json.loads(line)["record"]["event_name"] for line in segment.read_bytes().splitlines()]
    assert names[1:-1] == ["user.login", "invoice.export", "permission.grant", "invoice.delete"]
