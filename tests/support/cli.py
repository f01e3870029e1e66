"""Journals for the command line to look at, and running it: in this process, in another one, and on a terminal."""

from __future__ import annotations

import json
import logging
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from otel_audit import AuditProvider
from otel_audit.cli import main
from otel_audit.settings import build_provider


def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing of ours or of OpenTelemetry is set, nor anything about colours; the state directory is the test's."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    for name in ("FORCE_COLOR", "NO_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def provide(journal: Path, **options: Any) -> AuditProvider:
    """A provider that delivers nowhere."""
    return build_provider(journal=journal, service_name="shop", **{"destinations": {}, **options})


def emit(journal: Path, *events: str, **options: Any) -> None:
    """A stream with these events, which ended in order."""
    with provide(journal, **options) as provider:
        for event in events:
            provider.get_audit_logger().emit(event, actor="u-1", outcome="success")


def stream_of(journal: Path) -> Path:
    """The directory of the only stream."""
    (stream,) = (journal / "streams").iterdir()
    return stream


def require(journal: Path, *names: str) -> None:
    """Let the dead streams of a journal have required these destinations."""
    for path in (journal / "streams").glob("*/stream.json"):
        described = json.loads(path.read_text())
        described["required"] = sorted(names)
        path.write_text(json.dumps(described))


def run(*arguments: object) -> int:
    """Run the command line in this process; what it does to our logger ends with it."""
    logger = logging.getLogger("otel_audit")
    handlers, propagate = logger.handlers[:], logger.propagate
    try:
        return main([str(argument) for argument in arguments])
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> Any:
    """Run a command with --json: its document; nothing else stands on stdout."""
    capsys.readouterr()
    assert run(*arguments, "--json") == code
    return json.loads(capsys.readouterr().out)


def run_apart(*arguments: object, script: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    program = script or "import sys; from otel_audit.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL, **options
    )


def everything_in(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and directory below: mode, time of change, contents."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        info = path.lstat()
        found[str(path)] = (info.st_mode, info.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
    return found


def on_a_terminal(*arguments: object, answer: bytes = b"") -> str:
    """What a command writes on a terminal of its own, and what the terminal echoes of the answer."""
    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    env.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "otel_audit.cli", *map(str, arguments)]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    os.write(master, answer)
    said = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 0.1)[0]:
            if process.poll() is not None:
                break
            continue
        try:
            said += os.read(master, 65536)
        except OSError:  # the other side is closed
            break
    process.wait(10)
    os.close(master)
    return f"{said.decode()}\nexit code {process.returncode}"
