"""Servers that fork workers, kill them and start others: every record that a request was told is journaled arrives."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_audit.journal.layout import Layout
from otel_audit.journal.streams import list_streams
from support.delivery import until
from support.program import Place
from support.servers import environment, free_port, running, stop, until_it_answers

WSGI = """
import os, sys, threading
import otel_audit

otel_audit.configure(service_name="shop", journal=os.environ["JOURNAL"],
                     destinations={"one": {"type": "file", "path": os.environ["ARRIVED"]}})
audit = otel_audit.get_audit_logger()

def app(environ, start_response):
    receipt = audit.emit("order.create", actor="u-42", outcome="success")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Connection", "close")])
    return [f"{os.getpid()} {receipt.record_id}".encode()]
"""

ASGI = """
import os
import otel_audit

otel_audit.configure(service_name="shop", journal=os.environ["JOURNAL"],
                     destinations={"one": {"type": "file", "path": os.environ["ARRIVED"]}})
audit = otel_audit.get_audit_logger()

async def app(scope, receive, send):
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    receipt = await audit.aemit("order.create", actor="u-42", outcome="success")
    body = f"{os.getpid()} {receipt.record_id}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A journal, and the two applications."""
    (tmp_path / "wsgi.py").write_text(WSGI)
    (tmp_path / "asgi.py").write_text(ASGI)
    return Place(tmp_path)


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
def serving(place: Place, *command: object) -> Iterator[tuple[subprocess.Popen[str], Client]]:
    """A server of the application; ``PORT`` in the command is one that was free."""
    port = free_port()
    filled = [str(part).replace("PORT", str(port)) for part in command]
    env = environment(JOURNAL=str(place.journal), ARRIVED=str(place.path / "arrived.jsonl"))
    with running([sys.executable, "-m", *filled], env=env, cwd=place.path) as server:
        until_it_answers(server, port)
        yield server, Client(place, port)


def all_arrives(place: Place) -> None:
    """What the server left the next process delivers."""
    until(lambda: all(stream.owner_state() == "dead" for stream in list_streams(Layout(place.journal))), 60)
    place.deliver_the_rest()
    assert place.missing() == set()
    assert len(set(place.returned)) == len(place.returned)
    assert list_streams(Layout(place.journal)) == []


def owners(place: Place) -> set[int]:
    """Processes that have a stream in the journal."""
    return {stream.metadata.pid for stream in list_streams(Layout(place.journal))}


GUNICORN = ("gunicorn", "--workers", 2, "--bind", "127.0.0.1:PORT", "--log-level", "warning")
UVICORN = ("uvicorn", "--workers", 2, "--port", "PORT", "--log-level", "warning")
SERVERS = {
    "gunicorn": (*GUNICORN, "wsgi:app"),
    "gunicorn, preloaded": (*GUNICORN, "--preload", "wsgi:app"),
    "gunicorn, threads": (*GUNICORN, "--threads", 4, "wsgi:app"),
    "gunicorn, preloaded, workers recycled": (*GUNICORN, "--preload", "--max-requests", 10, "wsgi:app"),
    "uvicorn": (*UVICORN, "--loop", "asyncio", "asgi:app"),
    "uvicorn, uvloop": (*UVICORN, "--loop", "uvloop", "asgi:app"),
}


@pytest.mark.parametrize(
    ("name", "number"),
    [*((name, signal.SIGTERM) for name in SERVERS), ("gunicorn", signal.SIGINT), ("uvicorn", signal.SIGINT)],
)
def test_a_server_that_is_stopped_loses_nothing(place: Place, name: str, number: int) -> None:
    """Several workers answer, each with a stream of its own, and it is stopped in the middle of requests."""
    with serving(place, *SERVERS[name]) as (server, client):
        with client.asking():
            until(lambda: len(client.pids) >= 2 and len(place.returned) >= 60, 120)
            stop(server, number)
        assert server.pid not in client.pids
    all_arrives(place)


@pytest.mark.parametrize("name", ["gunicorn", "gunicorn, preloaded", "uvicorn"])
def test_a_worker_that_is_killed_loses_nothing(place: Place, name: str) -> None:
    """SIGKILL takes workers one after the other; others adopt what they left while the server goes on."""
    with serving(place, *SERVERS[name]) as (server, client):
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


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


CELERY = """
import os
import otel_audit
from celery import Celery
from celery.signals import worker_process_shutdown

otel_audit.configure(service_name="jobs", journal=os.environ["JOURNAL"],
                     destinations={"one": {"type": "file", "path": os.environ["ARRIVED"]}})
audit = otel_audit.get_audit_logger()

app = Celery("jobs", broker="filesystem://")
app.conf.broker_transport_options = {name: os.environ["QUEUE"] for name in ("data_folder_in", "data_folder_out")}
app.conf.worker_hijack_root_logger = False
app.conf.worker_max_tasks_per_child = 10
app.conf.task_acks_late = True

@app.task
def work(n):
    receipt = audit.emit("job.run", actor="u-42", outcome="success", attributes={"n": n})
    with open(os.environ["NOTED"], "a") as file:
        file.write(receipt.record_id + "\\n")
"""


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
def test_celery_workers_lose_nothing(place: Place, how: str) -> None:
    """Prefork children end without ``atexit`` and are recycled; the worker is stopped, or killed with all of them."""
    (place.path / "jobs.py").write_text(CELERY)
    (place.path / "queue").mkdir()
    env = environment(
        JOURNAL=str(place.journal), ARRIVED=str(place.path / "arrived.jsonl"), QUEUE=str(place.path / "queue"),
        NOTED=str(place.noted),
    )  # fmt: skip
    command = [sys.executable, "-m", "celery", "-A", "jobs", "worker", "--pool", "prefork", "--concurrency", "2"]
    send = "import jobs\nfor n in range(60): jobs.work.delay(n)"
    subprocess.run([sys.executable, "-c", send], env=env, cwd=place.path, check=True, timeout=120)
    more = ["--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    with running([*command, *more], env=env, cwd=place.path) as worker:
        if how == "SIGKILL":
            until(lambda: len(place.returned) >= 20, 120)
            os.killpg(worker.pid, signal.SIGKILL)
        else:
            until(lambda: len(place.returned) >= 60, 120)
            stop(worker)
    all_arrives(place)
    assert len(place.returned) >= (60 if how == "SIGTERM" else 20)
