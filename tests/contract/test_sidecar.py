"""A sidecar ships for living processes: they name the destination, know nothing of where it is, and hold no network."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_audit.testing import ScriptedReceiver
from support.delivery import until
from support.journal import needs
from support.program import Place
from support.servers import as_user, environment, running, ship, stop

ROOT = Path(__file__).parents[2]

PROGRAM = """
otel_audit.configure(journal=root, destinations={"collector": "sidecar"}, segment_bytes="64KiB", **OPTIONS)
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A journal."""
    return Place(tmp_path)


@pytest.fixture
def receiver() -> Iterator[ScriptedReceiver]:
    """What the sidecar delivers to."""
    with ScriptedReceiver() as receiver:
        yield receiver


def program(source: str, **options: Any) -> str:
    """A program whose destination a sidecar serves."""
    return PROGRAM.replace("OPTIONS", repr(options)) + source


def test_the_application_waits_for_a_sidecar_and_holds_no_network(place: Place, receiver: ScriptedReceiver) -> None:
    """``delivered`` and ``flush`` hold although another process delivers; full segments go; no library is loaded."""
    with ship(place.journal, f"collector=otlp:{receiver.endpoint}"):
        place.run(
            program(
                """
emit(durability="delivered", timeout_s=60)
for n in range(1000): emit("x" * 200)
assert otel_audit.flush(60)
assert not {"httpx", "httpcore", "grpc"} & set(sys.modules), "a network library is loaded"
assert len(os.listdir("/proc/self/task")) == 2, "more threads than this one and the one that syncs"
assert [d.state for d in otel_audit.status().destinations] == ["elsewhere"]
from otel_audit.default import get_provider
get_provider().journal.housekeep()
assert len([f for f in os.listdir(next(os.scandir(root + "/streams")).path) if f.endswith(".jsonl")]) == 1
"""
            )
        )
        receiver.wait_for(records=1002, timeout_s=60)
    assert set(place.returned) <= set(receiver.record_ids)


def test_an_exit_does_not_wait_for_a_sidecar(place: Place, receiver: ScriptedReceiver) -> None:
    """Nobody serves it yet: the process ends at once, without a word; the sidecar finds everything when it comes."""
    errors = place.run(program("emit()", exit_timeout=3600))
    assert errors == ""
    place.run(program("emit()\nr = otel_audit.shutdown(3600); assert r.pending == 5, r"))
    with ship(place.journal, f"collector=otlp:{receiver.endpoint}"):
        receiver.wait_for(records=5, timeout_s=60)
        until(lambda: not list((place.journal / "streams").iterdir()), 60)
    assert set(place.returned) <= set(receiver.record_ids)


def test_a_sidecar_may_come_first_and_be_killed(place: Place, receiver: ScriptedReceiver) -> None:
    """It waits for the journal; what it had not delivered when it was killed the next one delivers, while all live."""
    with ship(place.journal, f"collector=otlp:{receiver.endpoint}") as sidecar:
        application = place.start(program("emit()\nfor line in sys.stdin: emit()\n"))
        try:
            receiver.wait_for(records=2, timeout_s=60)
            sidecar.send_signal(signal.SIGKILL)
            sidecar.wait(60)
            assert application.stdin is not None
            for _ in range(5):
                application.stdin.write("\n")
                application.stdin.flush()
            until(lambda: len(place.returned) == 6, 60)
            with ship(place.journal, f"collector=otlp:{receiver.endpoint}") as another:
                receiver.wait_for(records=7, timeout_s=60)
                assert another.poll() is None
        finally:
            application.kill()
            application.communicate(timeout=60)
    assert set(place.returned) <= set(receiver.record_ids)


def test_a_sidecar_ends_in_order(place: Place, receiver: ScriptedReceiver) -> None:
    """SIGTERM ends it with exit code 0, and also while it still waits for a journal."""
    with ship(place.journal, f"collector=otlp:{receiver.endpoint}") as waiting:
        assert waiting.stderr is not None
        assert "is not there yet; it is waited for" in waiting.stderr.readline()
        assert stop(waiting) == 0
    place.run(program("emit()"))
    with ship(place.journal, f"collector=otlp:{receiver.endpoint}") as sidecar:
        receiver.wait_for(records=2, timeout_s=60)
        assert stop(sidecar) == 0


def test_status_shows_how_a_sidecar_is_doing(place: Place) -> None:
    """What it cannot deliver needs attention, with what to repair; one that was killed is not shown any more."""
    place.run(program("emit()"))

    def status() -> dict[str, Any]:
        command = [sys.executable, "-m", "otel_audit.cli", "status", "--json", "--journal", str(place.journal)]
        done = subprocess.run(command, capture_output=True, check=False, timeout=60, env=environment())
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    with (
        ScriptedReceiver(default=401) as receiver,
        ship(place.journal, f"collector=otlp:{receiver.endpoint}") as sidecar,
    ):
        until(lambda: status()["attention"], 60)
        found = status()
        assert [each["pid"] for each in found["sidecars"]] == [sidecar.pid]
        [line] = found["attention"]
        assert f"destination collector is blocked in the sidecar {sidecar.pid}" in line
        sidecar.kill()
        sidecar.wait(60)
        assert (status()["sidecars"], status()["attention"]) == ([], [])
    with ScriptedReceiver() as receiver, ship(place.journal, f"collector=otlp:{receiver.endpoint}") as sidecar:
        receiver.wait_for(records=2, timeout_s=60)
        until(
            lambda: (
                [path.suffix for path in (place.journal / "sidecars").iterdir()]
                in ([".json", ".lock"], [".lock", ".json"])
            ),
            60,
        )
        assert stop(sidecar) == 0
    assert list((place.journal / "sidecars").iterdir()) == []


def commands() -> dict[str, str]:
    """The commands with which the documentation and the examples start a sidecar, by where they stand."""
    page = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
    unit = (ROOT / "examples" / "systemd" / "otel-audit-ship@.service").read_text(encoding="utf-8")
    pod = yaml.safe_load((ROOT / "examples" / "kubernetes" / "sidecar.yaml").read_text(encoding="utf-8"))
    [sidecar] = pod["spec"]["template"]["spec"]["initContainers"]
    [in_page] = re.findall("^otel-audit ship --for-living .*$", page, re.MULTILINE)
    [in_unit] = re.findall("^ExecStart=/usr/bin/(.*)$", unit, re.MULTILINE)
    return {"page": in_page, "systemd": in_unit.replace("%i", "billing"), "kubernetes": shlex.join(sidecar["command"])}


@pytest.mark.parametrize("where", ["page", "systemd", "kubernetes"])
def test_the_commands_that_are_shown_work(place: Place, receiver: ScriptedReceiver, where: str) -> None:
    """Each of them delivers what a living process journals."""
    config = place.path / "ship.toml"
    config.write_text(f'[destinations.collector]\ntype = "otlp"\nendpoint = "{receiver.endpoint}"\n')
    command = commands()[where].replace("/etc/otel-audit/billing.toml", str(config))
    for journal in ("/var/lib/billing/audit", "/var/lib/audit/journal"):
        command = command.replace(journal, str(place.journal))
    name, *arguments = shlex.split(command)
    assert name == "otel-audit"
    env = environment(OTEL_EXPORTER_OTLP_LOGS_ENDPOINT=receiver.endpoint)
    with running([sys.executable, "-m", "otel_audit.cli", *arguments], env=env):
        place.run(program('emit(durability="delivered", timeout_s=60)'))
    assert set(place.returned) <= set(receiver.record_ids)


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory into which everybody may look."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o755)
        yield Path(path)


@pytest.mark.parametrize("mode", ["0640", "0660"])
def test_a_sidecar_of_another_user_needs_a_group_that_may_write(
    open_path: Path, receiver: ScriptedReceiver, mode: str
) -> None:
    """With mode 0660 and a group that both are in, it ships and removes; where the group may only read, it says so."""
    needs(os.geteuid() == 0 and shutil.which("setpriv"), "root", "only root can start processes of two other users")
    user, other, group = 61_001, 61_002, 61_003
    os.chown(open_path, user, group)
    place = Place(open_path)
    source = program("emit()\nemit()\n", mode=mode, group=group)
    place.run(source, before=as_user(user, group))
    with ship(place.journal, f"collector=otlp:{receiver.endpoint}", user=other, group=group) as sidecar:
        if mode == "0660":
            receiver.wait_for(records=3, timeout_s=60)
            until(lambda: not list((place.journal / "streams").iterdir()), 60)
            place.run(source, before=as_user(user, group))
            receiver.wait_for(records=6, timeout_s=60)
        else:
            assert sidecar.wait(60) == 2
            assert sidecar.stderr is not None
            assert "group-writable" in sidecar.stderr.read()
    assert (place.journal.stat().st_uid, place.journal.stat().st_gid) == (user, group)
