"""Who the demonstration delivers to, seen from outside: starting, failing, killing it, and what it has."""

from __future__ import annotations

import contextlib
import http.client
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, Protocol

from .agreed import HOST, IDS, UNAVAILABLE
from .processes import DemoError, Processes, tail_of, whole_lines

EMBEDDED: Final = "embedded receiver"
START_TIMEOUT_S: Final = 20.0


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
        """SIGKILL."""

    def set_unavailable(self, *, unavailable: bool) -> bool:
        """Answer 503 from now on, or no longer; whether it can do that."""

    def delivered(self) -> list[str]:
        """Ids of the application's records that it has acknowledged, doubles included; without control records."""


class EmbeddedReceiver:
    """The receiver of ``receiver.py``, in a process of its own.

    Args:
        processes: starts it.
        directory: where it keeps what it has.
        unwanted: the event that it refuses.
    """

    def __init__(self, processes: Processes, directory: Path, unwanted: str) -> None:
        (self._port,) = free_ports(1)
        self.name = EMBEDDED
        self.endpoint = f"http://{HOST}:{self._port}/v1/logs"
        self._processes = processes
        self._directory = directory
        self._unwanted = unwanted
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        module = f"{__package__}.receiver"
        command = [sys.executable, "-m", module, str(self._port), str(self._directory), self._unwanted]
        log = self._directory / "receiver.log"
        self._process = self._processes.start(command, log)
        wait_until_it_answers(self._process, self._port, log)

    def kill(self) -> None:
        """SIGKILL."""
        self._processes.kill(self._process)

    def set_unavailable(self, *, unavailable: bool) -> bool:
        """It can."""
        flag = self._directory / UNAVAILABLE
        flag.touch() if unavailable else flag.unlink(missing_ok=True)
        return True

    def delivered(self) -> list[str]:
        """What stands in its file."""
        return whole_lines(self._directory / IDS)


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


def wait_until_it_answers(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return when an HTTP server answers 200 on the port.

    Raises:
        DemoError: the process ended, or it takes too long.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > deadline:
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
