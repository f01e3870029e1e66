"""Processes are killed at any moment, again and again: nothing that they were told is journaled is lost."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from otel_audit.batch import StoredRecord
from otel_audit.journal.layout import Layout
from otel_audit.journal.reader import StreamReader
from otel_audit.journal.streams import list_streams
from otel_audit.testing import ScriptedReceiver
from support.provider import make_provider

WRITER = """
import os, sys, threading
import otel_audit

journal, endpoint, returned, threads = sys.argv[1:5]
destination = {"type": "otlp", "endpoint": endpoint, "delay": 0.02} if endpoint else None
otel_audit.configure(
    journal=journal, destinations={"collector": destination} if destination else {}, segment_bytes="64KiB"
)
audit = otel_audit.get_audit_logger()
fd = os.open(returned, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def work():
    while True:
        receipt = audit.emit("user.login", actor="u-42", outcome="success", attributes={"padding": "x" * 100})
        os.write(fd, receipt.record_id.encode() + b"\\n")

for _ in range(int(threads) - 1):
    threading.Thread(target=work, daemon=True).start()
print("ready", flush=True)
work()
"""


class Writer:
    """One place at the table: a process that emits without a pause, and is killed and replaced.

    Args:
        number: which of the writers.
        journal: shared by all.
        endpoint: where they deliver to; empty: they journal only.
        path: where the files with the ids stand.
    """

    def __init__(self, number: int, journal: Path, endpoint: str, path: Path) -> None:
        self._number = number
        self._arguments = [str(journal), endpoint]
        self._path = path
        self._random = random.Random(number)
        self.kills = 0

    def live_and_die(self, times: int) -> None:
        """Start, let it emit for a random time, kill; so many times."""
        for kill in range(times):
            returned = self._path / f"returned-{self._number}-{kill}"
            threads = str(self._random.choice((1, 3)))
            command = [sys.executable, "-c", WRITER, *self._arguments, str(returned), threads]
            process = subprocess.Popen(command, stdout=subprocess.PIPE)
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == b"ready\n"
                time.sleep(self._random.uniform(0.0, 0.15))
                process.send_signal(signal.SIGKILL)
                assert process.wait(60) == -signal.SIGKILL
                self.kills += 1
            finally:
                process.kill()
                process.stdout.close()  # type: ignore[union-attr]


def returned_ids(path: Path) -> list[str]:
    """Ids whose ``emit`` had returned; one that was killed while it was noted is not among them."""
    found: list[str] = []
    for file in path.glob("returned-*"):
        found += [line for line in file.read_text().split("\n")[:-1] if len(line) == 36]
    return found


def check_streams(journal: Path) -> list[StoredRecord]:
    """Every record in the journal; each stream is a whole chain, but for a last line that was just being written."""
    found: list[StoredRecord] = []
    for stream in list_streams(Layout(journal)):
        reader = StreamReader(stream.path)
        while records := reader.read(records_max=10_000, bytes_max=1 << 22, final=True):
            found += records
        assert {report.kind for report in reader.damage} <= {"torn-tail"}, reader.damage
        assert sum(report.count for report in reader.damage) == 0
    return found


def kill_writers(writers: int, kills: int, journal: Path, endpoint: str, path: Path) -> None:
    """Let so many writers be killed so many times each, side by side."""
    table = [Writer(number, journal, endpoint, path) for number in range(writers)]
    threads = [threading.Thread(target=writer.live_and_die, args=(kills,)) for writer in table]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [writer.kills for writer in table] == [kills] * writers


@pytest.mark.parametrize(
    ("writers", "kills"),
    [
        pytest.param(2, 5, id="10-kills"),
        pytest.param(4, 250, id="1000-kills", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_nothing_that_was_acknowledged_is_lost(tmp_path: Path, writers: int, kills: int) -> None:
    """What had returned is in the journal once, in whole chains; the next process delivers it all."""
    journal = tmp_path / "journal"
    kill_writers(writers, kills, journal, "", tmp_path)
    returned = returned_ids(tmp_path)
    records = check_streams(journal)
    written = Counter(record.record_id for record in records)
    assert len(returned) >= 10 * kills
    assert set(returned) <= set(written)
    assert set(written.values()) == {1}
    with ScriptedReceiver() as receiver:
        destination = {"type": "otlp", "endpoint": receiver.endpoint}
        with make_provider(journal, destinations={"collector": destination}) as provider:
            result = provider.flush(600)
            assert result
        arrived = Counter(receiver.record_ids)
    assert set(written) <= set(arrived)
    assert set(arrived.values()) == {1}
    print(f"{writers * kills} kills, {len(returned)} acknowledged, {len(written)} journaled, {len(arrived)} delivered")


@pytest.mark.parametrize(
    ("writers", "kills"),
    [
        pytest.param(2, 5, id="10-kills"),
        pytest.param(4, 250, id="1000-kills", marks=[pytest.mark.slow, pytest.mark.timeout(3600)]),
    ],
)
def test_nothing_is_lost_when_shippers_are_killed_too(tmp_path: Path, writers: int, kills: int) -> None:
    """Writers deliver, adopt each other's streams and remove what is delivered, and are killed in the middle of it."""
    journal = tmp_path / "journal"
    with ScriptedReceiver() as receiver:
        kill_writers(writers, kills, journal, receiver.endpoint, tmp_path)
        returned = returned_ids(tmp_path)
        check_streams(journal)
        destination = {"type": "otlp", "endpoint": receiver.endpoint}
        with make_provider(journal, destinations={"collector": destination}) as provider:
            assert provider.flush(600)
        arrived = set(receiver.record_ids)
    assert len(returned) >= 10 * kills
    assert set(returned) <= arrived
    print(f"{writers * kills} kills, {len(returned)} acknowledged, {len(arrived)} delivered")
    assert not list(list_streams(Layout(journal)))
    assert not os.listdir(journal / "dead-letters")
