"""The command line beside real processes: applications that live, die and are killed, and a receiver."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from otel_audit.testing import ScriptedReceiver

APPLICATION = """
import os, signal, sys
import otel_audit
journal, names, then = sys.argv[1:4]
destinations = {name: {"type": "otlp", "endpoint": "http://127.0.0.1:9/v1/logs"} for name in names.split(",") if name}
otel_audit.configure(service_name="shop", journal=journal, destinations=destinations, adopt=False)
audit = otel_audit.get_audit_logger()
def emit(count):
    for number in range(count):
        print(audit.emit("order.create", actor="u-1", outcome="success", attributes={"number": number}).record_id)
    print("", flush=True)
emit(int(sys.argv[4]))
if then == "die":
    os.kill(os.getpid(), signal.SIGKILL)
for line in sys.stdin:
    emit(int(line))
otel_audit.shutdown(0)
"""
"""Emits; prints the ids and an empty line; is killed, or emits as many as each line of its input says."""


class Application:
    """A process that emits."""

    def __init__(self, journal: Path, destinations: str = "", *, then: str = "live", count: int = 5) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", APPLICATION, str(journal), destinations, then, str(count)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.ids = self._read()

    def _read(self) -> list[str]:
        assert self.process.stdout is not None
        return list(iter(lambda: self.process.stdout.readline().strip(), ""))  # type: ignore[union-attr]

    def emit(self, count: int) -> list[str]:
        """Let it emit; the ids."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        return self._read()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start() -> Iterator[Callable[..., Application]]:
    """Starts applications; none is left running."""
    with contextlib.ExitStack() as cleanup:

        def start(*arguments: Any, **options: Any) -> Application:
            application = Application(*arguments, **options)
            cleanup.callback(application.kill)
            return application

        yield start


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal"


def environment(receiver: ScriptedReceiver | None = None, **more: str) -> dict[str, str]:
    """Without settings of ours; ``otlp`` is the receiver."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    if receiver is not None:
        env["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] = receiver.endpoint
    return {**env, "NO_PROXY": "127.0.0.1", **more}


def command(*arguments: object) -> list[str]:
    """The command line of this interpreter."""
    return [sys.executable, "-m", "otel_audit.cli", *map(str, arguments)]


def run(*arguments: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        command(*arguments), env=env or environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip


def run_json(*arguments: object, code: int = 0, env: Mapping[str, str] | None = None) -> Any:
    """Run a command with --json: its document."""
    done = run(*arguments, "--json", env=env)
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout)


@contextlib.contextmanager
def running(*arguments: object, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on; killed in the end."""
    process = subprocess.Popen(
        command(*arguments), env=env or environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


# -- ship -------------------------------------------------------------------------------------------------------


def test_what_the_dead_left_is_delivered(journal: Path, start: Callable[..., Application]) -> None:
    """With --once ship delivers the streams of killed processes, whole, and removes them; then nothing is left."""
    dead = [start(journal, "collector", then="die", count=count) for count in (5, 700)]
    with ScriptedReceiver(503) as receiver:
        document = run_json("ship", "--once", "--journal", journal, env=environment(receiver))
        again = run_json("ship", "--once", "--journal", journal, env=environment(receiver))
        ids = [record.record_id for record in receiver.records if record.event_name == "order.create"]
    assert sorted(ids) == sorted(record_id for application in dead for record_id in application.ids)
    assert len(ids) == 705
    (shipped,) = document["destinations"]
    assert (shipped["name"], shipped["delivered"], shipped["pending"]) == ("collector", 707, 0)  # two control records
    assert document["complete"] is True
    assert again["destinations"][0]["delivered"] == 0
    assert not list((journal / "streams").iterdir())


def test_the_living_are_left_to_themselves(journal: Path, start: Callable[..., Application]) -> None:
    """Without --for-living the stream of a living process is not touched; with it, it is delivered while it lives."""
    living = start(journal, "")
    with ScriptedReceiver() as receiver:
        env = environment(receiver)
        assert run_json("ship", "--once", "--journal", journal, env=env)["destinations"][0]["delivered"] == 0
        assert receiver.records == []
        document = run_json("ship", "--once", "--for-living", "--journal", journal, env=env)
        assert document["destinations"][0]["delivered"] == 6
        assert [r.record_id for r in receiver.records if r.event_name == "order.create"] == living.ids
        assert living.emit(1)


@pytest.mark.parametrize(
    ("answer", "timeout_s", "says"),
    [(401, 60, "blocked: http://127.0.0.1"), (503, 1, "retrying: http://127.0.0.1"), (400, 60, "blocked: ")],
)
def test_what_is_left_is_said(
    journal: Path, start: Callable[..., Application], answer: int, timeout_s: int, says: str
) -> None:
    """Where a destination does not take it, ship --once ends soon, with exit code 1 and the reason; all is kept."""
    start(journal, "collector", then="die")
    with ScriptedReceiver(default=answer) as receiver:
        began = time.monotonic()
        arguments = ("ship", "--once", "--timeout", timeout_s, "--journal", journal)
        document = run_json(*arguments, code=1, env=environment(receiver))
        assert time.monotonic() - began < 15
    assert document["complete"] is False
    (reason,) = document["reasons"]
    assert reason.startswith("destination collector: 6 records are left: ")
    assert says in reason
    (shipped,) = document["destinations"]
    assert (shipped["delivered"], shipped["dead_lettered"], shipped["pending"]) == (0, 0, 6)
    assert run_json("status", "--journal", journal)["streams"][0]["destinations"][0]["pending"] == 6


def test_one_destination_does_not_hinder_another(
    journal: Path, tmp_path: Path, start: Callable[..., Application]
) -> None:
    """What one destination refuses to take another one gets; the exit code says that something is left."""
    application = start(journal, "collector,archive", then="die")
    out = tmp_path / "out.jsonl"
    with ScriptedReceiver(default=403) as receiver:
        where = ("--destination", "collector=otlp", "--destination", f"archive=file:{out}")
        document = run_json("ship", "--once", "--journal", journal, *where, code=1, env=environment(receiver))
    shipped = {each["name"]: (each["delivered"], each["pending"]) for each in document["destinations"]}
    assert shipped == {"collector": (0, 6), "archive": (6, 0)}
    assert [json.loads(line)["record_id"] for line in out.read_text().splitlines()][1:] == application.ids
    assert [reason.split(":")[0] for reason in document["reasons"]] == ["destination collector"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_goes_on_until_it_is_stopped(journal: Path, start: Callable[..., Application], number: int) -> None:
    """Without --once it delivers what dies later too, and a signal ends it in order, soon, with exit code 0."""
    first = start(journal, "collector")
    with (
        ScriptedReceiver() as receiver,
        running("ship", "--json", "--journal", journal, env=environment(receiver)) as ship,
    ):
        second = start(journal, "collector", then="die")
        receiver.wait_for(records=6)
        first.kill()
        receiver.wait_for(records=12)
        ship.send_signal(number)
        output, errors = ship.communicate(timeout=20)
        assert ship.returncode == 0, errors
        ids = {record.record_id for record in receiver.records}
    assert {*first.ids, *second.ids} < ids
    assert json.loads(output)["destinations"][0]["delivered"] == 12


def test_stopping_takes_a_bounded_time(journal: Path, tmp_path: Path, start: Callable[..., Application]) -> None:
    """Also where a receiver never answers, a signal ends it within the time-out of an export; the records are kept."""
    start(journal, "collector", then="die")
    with ScriptedReceiver(default=lambda _: time.sleep(60)) as receiver:
        config = tmp_path / "ship.toml"
        config.write_text(
            f'[destinations.collector]\ntype = "otlp"\nendpoint = "{receiver.endpoint}"\ntimeout = "1s"\n'
        )
        with running("ship", "--journal", journal, "--config", config) as ship:
            time.sleep(1.0)  # long enough to be within an export
            ship.terminate()
            began = time.monotonic()
            ship.wait(20)
            assert time.monotonic() - began < 5
    assert run_json("status", "--journal", journal)["streams"][0]["destinations"][0]["pending"] == 6


# -- status, tail, destination ----------------------------------------------------------------------------------


def test_status_knows_who_lives(journal: Path, start: Callable[..., Application]) -> None:
    """A stream is living while its process is, and dead when that was killed."""
    living, dead = start(journal), start(journal, then="die")

    def owners() -> dict[int, str]:
        document = run_json("status", "--journal", journal)
        return {stream["pid"]: stream["owner"] for stream in document["streams"]}

    assert owners() == {living.process.pid: "living", dead.process.pid: "dead"}
    living.kill()
    assert owners() == {living.process.pid: "dead", dead.process.pid: "dead"}


def test_status_knows_what_a_process_cannot_deliver(journal: Path, start: Callable[..., Application]) -> None:
    """A destination that a living process cannot reach needs attention within seconds; a dead process's does not."""
    application = start(journal, "collector")  # nobody listens there

    def attention() -> list[str]:
        done = run("status", "--json", "--journal", journal)
        document = json.loads(done.stdout)
        assert done.returncode == (1 if document["attention"] else 0)
        return list(document["attention"])

    deadline = time.monotonic() + 20
    while not attention() and time.monotonic() < deadline:
        time.sleep(0.2)
    (line,) = attention()
    assert f"destination collector is retrying in process {application.process.pid}" in line
    assert "Connection refused" in line
    application.kill()
    assert attention() == []


def lines_of(process: subprocess.Popen[str], count: int, timeout_s: float = 20) -> list[dict[str, Any]]:
    """So many JSON lines that a process writes."""
    assert process.stdout is not None
    fd = process.stdout.fileno()
    deadline = time.monotonic() + timeout_s
    found: list[dict[str, Any]] = []
    rest = b""
    while len(found) < count:
        assert select.select([fd], [], [], max(deadline - time.monotonic(), 0))[0], f"only {len(found)} lines"
        *whole, rest = (rest + os.read(fd, 65536)).split(b"\n")
        found += [json.loads(line) for line in whole]
    assert len(found) == count
    return found


def test_tail_follows(journal: Path, start: Callable[..., Application]) -> None:
    """With -f tail shows what was there, what comes, and what new processes emit; SIGINT ends it with exit code 0."""
    first = start(journal, "", count=2)
    with running("tail", "-f", "--json", "--no-control", "--journal", journal) as tail:
        assert [line["record_id"] for line in lines_of(tail, 2)] == first.ids
        more = first.emit(3)
        assert [line["record_id"] for line in lines_of(tail, 3)] == more
        second = start(journal, "", count=2)
        assert [line["record_id"] for line in lines_of(tail, 2)] == second.ids
        tail.send_signal(signal.SIGINT)
        output, errors = tail.communicate(timeout=10)
        assert (tail.returncode, output, errors) == (0, "", "")


def test_tail_follows_into_new_segments(journal: Path, start: Callable[..., Application], monkeypatch: Any) -> None:
    """Where a stream goes on in another file, tail -f goes on there."""
    monkeypatch.setenv("OTEL_AUDIT_SEGMENT_BYTES", "4096")
    application = start(journal, "", count=1)
    with running("tail", "-f", "--json", "--no-control", "--journal", journal) as tail:
        lines_of(tail, 1)
        emitted = application.emit(40)
        assert [line["record_id"] for line in lines_of(tail, 40)] == emitted
    assert len(list(journal.glob("streams/*/0*.jsonl"))) > 3


def test_a_retired_destination_keeps_nothing(journal: Path, start: Callable[..., Application]) -> None:
    """What waits for a destination that is gone stays until that is retired; then ship removes it."""
    start(journal, "collector,gone", then="die")
    with ScriptedReceiver() as receiver:
        env = environment(receiver)
        document = run_json("ship", "--once", "--journal", journal, code=1, env=env)
        assert document["complete"] is False
        assert [(each["name"], each["pending"], each["state"]) for each in document["destinations"]] == [
            ("collector", 0, "idle"),
            ("gone", 6, "not served"),
        ]
        assert "this run did not serve it; name it, --destination gone=SPEC" in document["reasons"][0]
        assert len(list(journal.glob("streams/*/0*.jsonl"))) == 1
        known = {each["name"]: each for each in run_json("destination", "list", "--journal", journal)["destinations"]}
        assert (known["collector"]["pending"], known["gone"]["pending"]) == (0, 6)
        assert run("destination", "retire", "gone", "--yes", "--journal", journal).returncode == 0
        assert run("ship", "--once", "--journal", journal, env=env).returncode == 0
    assert list(journal.glob("streams/*")) == []
    status = run_json("status", "--journal", journal)
    assert (status["retired"], status["streams"]) == (["gone"], [])
