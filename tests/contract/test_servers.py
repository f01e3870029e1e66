"""Servers that fork workers, kill them and start others: every record that a request was told is journaled arrives."""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_audit.errors import DamageError
from otel_audit.journal.layout import Layout
from otel_audit.journal.streams import list_streams
from otel_audit.testing import Reply, ScriptedReceiver
from support.delivery import until
from support.program import Place
from support.servers import environment, free_port, running, stop, until_it_answers

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "running"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A journal, and the applications of the examples."""
    for example in EXAMPLES.glob("*.py"):
        shutil.copy(example, tmp_path)
    return Place(tmp_path)


def settings(place: Place, **more: str) -> dict[str, str]:
    """The environment that says where the journal is, and where its records go."""
    destination = f"one=file:{place.path / 'arrived.jsonl'}"
    known = {"OTEL_AUDIT_JOURNAL": str(place.journal), "OTEL_AUDIT_DESTINATIONS": destination}
    return environment(**{**known, **more})


class Client:
    """Asks a server for records, from several threads, until it is stopped; a refused connection is asked again."""

    def __init__(self, place: Place, port: int) -> None:
        self._place = place
        self._port = port
        self._stopped = threading.Event()
        self.pids: set[int] = set()

    def ask(self) -> int | None:
        """One request: which process answered; what it journaled is noted."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request("GET", "/")
            answer = connection.getresponse().read().decode().split()
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        if len(answer) != 2:
            return None
        self._place.note(answer[1])
        self.pids.add(int(answer[0]))
        return int(answer[0])

    def _work(self) -> None:
        while not self._stopped.is_set():
            if self.ask() is None:
                time.sleep(0.01)

    @contextlib.contextmanager
    def asking(self, threads: int = 3) -> Iterator[None]:
        """Ask all the time within the block."""
        workers = [threading.Thread(target=self._work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        try:
            yield
        finally:
            self._stopped.set()
            for worker in workers:
                worker.join()


@contextlib.contextmanager
def serving(place: Place, *command: str, **more: str) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """A server of the application; port 8000 is replaced by one that was free."""
    port = free_port()
    filled = [str(part).replace("8000", str(port)) for part in command]
    with running([sys.executable, "-m", *filled], env=settings(place, **more), cwd=place.path) as server:
        until_it_answers(server, port)
        yield server, Client(place, port)


def all_arrives(place: Place) -> None:
    """What the server left the next process delivers."""

    def all_dead() -> bool:
        try:
            return all(stream.owner_state() == "dead" for stream in list_streams(Layout(place.journal)))
        except DamageError:  # somebody is removing it
            return False

    until(all_dead, 60)
    place.deliver_the_rest()
    assert place.missing() == set()
    assert len(set(place.returned)) == len(place.returned)
    assert list_streams(Layout(place.journal)) == []


def owners(place: Place) -> set[int]:
    """Processes that have a stream in the journal; one that is removed meanwhile is not there."""
    found = set()
    for stream in list_streams(Layout(place.journal)):
        with contextlib.suppress(DamageError):
            found.add(stream.metadata.pid)
    return found


def commands(*names: str) -> list[str]:
    """The commands of these programs that the page about running shows."""
    lines = (ROOT / "docs" / "running.md").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith(tuple(f"{name} " for name in names))]


SERVERS = [
    *commands("gunicorn", "uvicorn"),
    "gunicorn --workers 2 --bind 127.0.0.1:8000 --preload --max-requests 10 wsgi_app:app",
]
PLAIN, PRELOADED, ASYNCHRONOUS = SERVERS[0], SERVERS[1], SERVERS[3]


def test_the_page_has_the_commands() -> None:
    """Those that the tests below are about."""
    assert ("--preload" in PRELOADED, "--preload" in PLAIN) == (True, False)
    assert [line.split()[0] for line in SERVERS] == ["gunicorn"] * 3 + ["uvicorn"] * 2 + ["gunicorn"]
    assert len(commands("celery")) == 1


@pytest.mark.parametrize(
    ("command", "number"),
    [*((command, signal.SIGTERM) for command in SERVERS), (PLAIN, signal.SIGINT), (ASYNCHRONOUS, signal.SIGINT)],
)
def test_a_server_that_is_stopped_loses_nothing(place: Place, command: str, number: int) -> None:
    """Several workers answer, each with a stream of its own, and it is stopped in the middle of requests."""
    with serving(place, *shlex.split(command)) as (server, client):
        with client.asking():
            until(lambda: len(client.pids) >= 2 and len(place.returned) >= 60, 120)
            stop(server, number)
        assert server.pid not in client.pids
    all_arrives(place)


@pytest.mark.parametrize("command", [PLAIN, PRELOADED, ASYNCHRONOUS])
def test_a_worker_that_is_killed_loses_nothing(place: Place, command: str) -> None:
    """SIGKILL takes workers one after the other; others adopt what they left while the server goes on."""
    with serving(place, *shlex.split(command)) as (server, client):
        with client.asking(2):
            for _ in range(3):
                until(lambda: client.ask() is not None, 60)
                for pid in client.pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                client.pids.clear()
            until(lambda: client.pids, 120)
        killed = {each for each in owners(place) if not _lives(each)}
        until(lambda: not killed & owners(place), 120)  # while the server lives
        assert server.poll() is None
        stop(server)
    all_arrives(place)


@pytest.mark.parametrize("command", [PLAIN, ASYNCHRONOUS])
def test_a_server_is_not_held_back_by_a_destination_that_never_answers(place: Place, command: str) -> None:
    """Its workers end within their exit time-out, so the server needs to kill none; the next process delivers."""
    with ScriptedReceiver(default=Reply(hang=True)) as receiver:
        where = receiver.endpoint.replace("/v1/logs", "/events")
        more = {"OTEL_AUDIT_DESTINATIONS": f"one={where}", "OTEL_AUDIT_EXIT_TIMEOUT": "500ms"}
        with serving(place, *shlex.split(command), **more) as (server, client):
            with client.asking():
                until(lambda: len(client.pids) >= 2 and len(place.returned) >= 30, 120)
            stop(server)
            _, errors = server.communicate(timeout=60)
    assert ("are still to be delivered" in errors) == (command == PLAIN)  # uvicorn's workers end without ``atexit``
    assert "SIGKILL" not in errors
    all_arrives(place)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_celery_workers_lose_nothing(place: Place, how: str) -> None:
    """Prefork children end without ``atexit`` and are recycled; the worker is stopped, or killed with all of them."""
    queue = place.path / "queue"
    queue.mkdir()
    env = settings(place, BROKER_DIRECTORY=str(queue))
    send = f"import celery_app\nfor n in range(60): celery_app.charge.delay(n, {str(place.noted)!r})"
    subprocess.run([sys.executable, "-c", send], env=env, cwd=place.path, check=True, timeout=120)
    [command] = commands("celery")
    more = "--max-tasks-per-child 10 --loglevel ERROR --without-gossip --without-mingle --without-heartbeat"
    with running([sys.executable, "-m", *shlex.split(f"{command} {more}")], env=env, cwd=place.path) as worker:
        if how == "SIGKILL":
            until(lambda: len(place.returned) >= 20, 120)
            os.killpg(worker.pid, signal.SIGKILL)
        else:
            until(lambda: len(place.returned) >= 60, 120)
            stop(worker)
    all_arrives(place)
    assert len(place.returned) >= (60 if how == "SIGTERM" else 20)
