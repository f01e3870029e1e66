"""A small program that audits, in a process of its own, for tests of how processes end.

Its records go to a file through a destination; the id of each is written to another file, with one ``write(2)``, after
the ``emit`` has returned.  What the program does is given as source text.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_BEGIN = """
import atexit, logging, os, signal, sys, threading, time
import otel_audit
from otel_audit.errors import RetryableExportError

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
root, returned, arrived, options = sys.argv[1:5]
_fd = os.open(returned, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

class Down:
    single_writer = False
    def export(self, batch, timeout_s):
        raise RetryableExportError("down")
    def close(self):
        pass

class Hangs(Down):
    def export(self, batch, timeout_s):
        time.sleep(3600)

def configure(exporter=None, **more):
    destination = exporter or {"type": "file", "path": arrived}
    otel_audit.configure(journal=root, destinations={"one": destination}, **{"exit_timeout": 20, **more})

def emit(body="", **fields):
    receipt = audit.emit("user.login", actor="u", outcome="success", body=body, **fields)
    os.write(_fd, receipt.record_id.encode() + b"\\n")
    return receipt

audit = otel_audit.get_audit_logger()
"""


@dataclass(frozen=True)
class Place:
    """Where the journal of a test is, and the two files beside it."""

    path: Path

    @property
    def journal(self) -> Path:
        """The journal."""
        return self.path / "journal"

    def start(self, source: str, *, before: Sequence[str] = ()) -> subprocess.Popen[str]:
        """Start a program; what it does follows ``import otel_audit`` and two functions, ``configure`` and ``emit``.

        Args:
            source: the program.
            before: what stands before the command, like another user's identity.
        """
        program = _BEGIN + textwrap.dedent(source)
        command = [*before, sys.executable, "-c", program, *map(str, (self.journal, self.noted, self._arrived)), ""]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.path
        )

    def run(self, source: str, code: int = 0, *, before: Sequence[str] = ()) -> str:
        """Run a program to its end, which must have this exit code; what it wrote to standard error."""
        process = self.start(source, before=before)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == code, errors
        return errors

    def deliver_the_rest(self) -> None:
        """The next process that uses the journal: it delivers what is left, and nothing is."""
        self.run("configure()\nassert otel_audit.flush(60)\notel_audit.shutdown()")

    @property
    def returned(self) -> list[str]:
        """Ids of the records whose ``emit`` has returned."""
        return self.noted.read_text().split() if self.noted.exists() else []

    @property
    def arrived(self) -> set[str]:
        """Ids of the records that the destination has."""
        text = self._arrived.read_text() if self._arrived.exists() else ""
        return set(re.findall(r'"record_id":"([0-9a-f-]{36})"', text))

    def missing(self) -> set[str]:
        """Ids of records whose ``emit`` has returned, and that the destination does not have."""
        return set(self.returned) - self.arrived

    def note(self, record_id: str) -> None:
        """Another program's ``emit`` has returned."""
        with self.noted.open("a") as file:
            file.write(f"{record_id}\n")

    @property
    def noted(self) -> Path:
        """Where ids of records are noted whose ``emit`` has returned."""
        return self.path / f"returned-{os.getpid()}"

    @property
    def _arrived(self) -> Path:
        return self.path / "arrived.jsonl"
