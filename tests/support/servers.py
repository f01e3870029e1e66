"""Programs that go on until they are stopped, for tests: the command ``ship``, and servers of other people."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def environment(**more: str) -> dict[str, str]:
    """Without settings of ours and without a proxy."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return {**env, "NO_PROXY": "127.0.0.1", "PYTHONUNBUFFERED": "1", **more}


def as_user(user: int | None, group: int | None) -> list[str]:
    """What stands before a command that is to run as somebody else.  Empty: as this user.

    Of root's rights it keeps the one to read, because the interpreter may stand where others must not look; what
    others may not write it cannot write.
    """
    if user is None:
        return []
    keep = "-all,+dac_read_search"
    return ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", f"--inh-caps={keep}",
            f"--ambient-caps={keep}"]  # fmt: skip


@contextlib.contextmanager
def running(command: Sequence[object], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program of its own process group; nothing of that group is left in the end."""
    process = subprocess.Popen(
        [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, **{"env": environment(), **options},
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)


@contextlib.contextmanager
def ship(
    journal: Path, destination: str, *more: object, user: int | None = None, group: int | None = None
) -> Iterator[subprocess.Popen[str]]:
    """``otel-audit ship --for-living``, to one destination (``NAME=SPEC``, or ``NAME=otlp:ENDPOINT``)."""
    name, _, spec = destination.partition("=")
    env = environment()
    if spec.startswith("otlp:"):
        spec, env["OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"] = "otlp", spec.removeprefix("otlp:")
    command = [*as_user(user, group), sys.executable, "-m", "otel_audit.cli", "ship", "--for-living"]
    with running([*command, "--journal", journal, "--destination", f"{name}={spec}", *more], env=env) as process:
        yield process


def stop(process: subprocess.Popen[str], number: int = signal.SIGTERM, timeout_s: float = 60) -> int:
    """Send a signal; the exit code."""
    process.send_signal(number)
    return process.wait(timeout_s)


def free_port() -> int:
    """A port of the loopback interface where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def until_it_answers(process: subprocess.Popen[str], port: int, timeout_s: float = 60) -> None:
    """Wait until a server listens; fail with what it said where it ends before."""
    deadline = time.monotonic() + timeout_s
    while True:
        if process.poll() is not None:
            output, errors = process.communicate(timeout=10)
            raise AssertionError(f"it ended with exit code {process.returncode}: {output}{errors}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert time.monotonic() < deadline, "it does not listen"
        time.sleep(0.02)
