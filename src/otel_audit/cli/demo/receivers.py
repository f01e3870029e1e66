"""Who the demonstration delivers to, seen from outside: starting, failing, killing it, and what it has."""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from ...errors import AuditError
from .agreed import IDS, UNAVAILABLE

HOST: Final = "127.0.0.1"
START_TIMEOUT_S: Final = 20.0


class DemoError(AuditError):
    """The demonstration could not go on; what it wanted to show is not shown."""


class Receiver(Protocol):
    """What the scenario needs of a receiver.

    Attributes:
        name: for people.
        endpoint: where it takes OTLP over HTTP, the whole URL.
    """

    name: str
    endpoint: str

    def start(self) -> None:
        """Start it, and return when it answers; after ``kill`` again, on the same port.

        Raises:
            DemoError: it does not answer in time.
        """

    def kill(self) -> None:
        """SIGKILL; nothing where it does not run."""

    def set_unavailable(self, *, unavailable: bool) -> bool:
        """Answer 503 from now on, or no longer; whether it can do that."""

    def delivered(self) -> list[str]:
        """Ids of the application's records that it has acknowledged, doubles included; without control records."""


class EmbeddedReceiver:
    """The receiver of ``receiver.py``, in a process of its own.

    Args:
        directory: where it keeps what it has.
        unwanted: the event that it refuses.
        env: its environment.
    """

    def __init__(self, directory: Path, unwanted: str, env: Mapping[str, str]) -> None:
        (self._port,) = free_ports(1)
        self.name = "embedded receiver"
        self.endpoint = f"http://{HOST}:{self._port}/v1/logs"
        self._directory = directory
        self._unwanted = unwanted
        self._env = env
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        module = f"{__package__}.receiver"
        arguments = [sys.executable, "-m", module, str(self._port), str(self._directory), self._unwanted]
        self._process = start(arguments, self._env, self._directory / "receiver.log")
        wait_until_it_answers(self._process, self._port, self._directory / "receiver.log")

    def kill(self) -> None:
        """SIGKILL."""
        kill(self._process)

    def set_unavailable(self, *, unavailable: bool) -> bool:
        """It can."""
        flag = self._directory / UNAVAILABLE
        flag.touch() if unavailable else flag.unlink(missing_ok=True)
        return True

    def delivered(self) -> list[str]:
        """What stands in its file."""
        with contextlib.suppress(FileNotFoundError):
            return whole_lines(self._directory / IDS)
        return []


def whole_lines(path: Path) -> list[str]:
    """The lines of a file; what a kill left unfinished at its end is passed over."""
    return path.read_text(encoding="ascii").split("\n")[:-1]


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below the range from which systems take them for outgoing connections."""
    draw = random.SystemRandom()
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = draw.randrange(15000, 32000)
            candidate = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                candidate.bind((HOST, port))
                ports.append(port)
        return ports


def start(arguments: Sequence[str | Path], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
    """Start a process; what it says goes to a file, and its standard input ends when this process ends."""
    with log.open("ab") as file:
        return subprocess.Popen(arguments, env=dict(env), stdin=subprocess.PIPE, stdout=file, stderr=file)  # noqa: S603


def kill(process: subprocess.Popen[bytes] | None) -> None:
    """SIGKILL, and wait until it is gone."""
    if process is not None:
        process.kill()
        process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()


def wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when an HTTP server answers 200 on the port.

    Raises:
        DemoError: the process ended, or it takes too long.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
            kill(process)
            raise DemoError(f"the receiver did not start; it says: {tail_of(log)}")
        time.sleep(0.02)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=2)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def tail_of(log: Path) -> str:
    """The last lines of a log."""
    with contextlib.suppress(OSError):
        return " | ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]) or "nothing"
    return "nothing"


def quiet_environment() -> dict[str, str]:
    """The environment for everything that is started: nothing of OpenTelemetry is set, and no proxy stands between."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "OTELCOL_"))}
    return {**env, "NO_PROXY": HOST, "no_proxy": HOST}
