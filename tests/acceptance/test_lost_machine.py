"""What a lost disk or a removed container takes with it, and what it does not: the fine print of each durability."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from otel_audit import AuditProvider
from otel_audit import semconv as sc
from otel_audit.settings import load_settings
from otel_audit.testing import Reply, ScriptedReceiver

PROGRAM = """
import os, sys, otel_audit
journal, endpoint, durability = sys.argv[1:]
otel_audit.configure(
    service_name="shop", journal=journal, allow_volatile=True,
    destinations={"collector": {"type": "otlp", "endpoint": endpoint, "delay": 0.01, "timeout": 2}},
)
audit = otel_audit.get_audit_logger()
for number in range(20):
    receipt = audit.emit("user.login", actor="u-42", outcome="success", durability=durability, timeout_s=60)
    print(receipt.record_id, flush=True)
os.kill(os.getpid(), 9)
"""


def run(journal: Path, endpoint: str, durability: str) -> list[str]:
    """A process that emits and is killed; the ids for which ``emit`` returned."""
    command = [sys.executable, "-c", PROGRAM, str(journal), endpoint, durability]
    done = subprocess.run(command, env=dict(os.environ), stdout=subprocess.PIPE, text=True, check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    return done.stdout.split()


def drain(journal: Path, endpoint: str) -> None:
    """What the next process on the same volume delivers."""
    destination = {"type": "otlp", "endpoint": endpoint, "delay": 0.01, "timeout": 5}
    provider = AuditProvider(load_settings({"journal": journal, "destinations": {"collector": destination}}, {}))
    try:
        assert provider.flush(60)
    finally:
        provider.shutdown(5)


def arrived(receiver: ScriptedReceiver) -> set[str]:
    """Ids of the application's records that the receiver has."""
    return {record.attributes[sc.RECORD_ID] for record in receiver.records if sc.CONTROL not in record.attributes}


@pytest.mark.parametrize("durability", ["process", "disk", "delivered"])
def test_what_a_lost_disk_takes_with_it(tmp_path: Path, durability: str) -> None:
    """Disk, node or container layer are gone: so is what was not delivered; what was ``delivered`` is not."""
    journal = tmp_path / "journal"
    down = durability != "delivered"
    with ScriptedReceiver(default=lambda _: Reply(503) if down else Reply()) as receiver:
        ids = run(journal, receiver.endpoint, durability)
        shutil.rmtree(journal)
        down = False
        drain(journal, receiver.endpoint)
        assert len(ids) == 20
        assert arrived(receiver) & set(ids) == (set(ids) if durability == "delivered" else set())


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_the_next_container_on_the_volume_delivers_the_rest(tmp_path: Path, durability: str) -> None:
    """Only the process and its own files are gone, not the volume with the journal."""
    down = True
    with ScriptedReceiver(default=lambda _: Reply(503) if down else Reply()) as receiver:
        ids = run(tmp_path / "volume", receiver.endpoint, durability)
        assert arrived(receiver) == set()
        down = False
        drain(tmp_path / "volume", receiver.endpoint)
        assert arrived(receiver) == set(ids)
        assert len(ids) == 20
