"""The billing processes of the demonstration, seen from outside: started, killed, stopped, and what they noted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .processes import DemoError, Processes, tail_of, whole_lines

STOP_TIMEOUT_S = 15.0


class Application:
    """Several billing processes with one journal.

    Args:
        processes: starts them.
        directory: for their notes and logs.
        journal: the journal that they share.
        endpoint: where they deliver to.
    """

    def __init__(self, processes: Processes, directory: Path, journal: Path, endpoint: str) -> None:
        self.started = 0
        self.killed = 0
        self._all = processes
        self._directory = directory
        self._journal = journal
        self._endpoint = endpoint
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *names: str) -> None:
        """Start a process for each name; the one of that name must be gone."""
        for name in names:
            self.started += 1
            stem = self._directory / f"{name}-{self.started}"
            arguments = [str(self._journal), self._endpoint, f"{stem}.notes", f"{stem}.app.log"]
            module = f"{__package__}.billing"
            command = [sys.executable, "-m", module, *arguments]
            self._processes[name] = self._all.start(command, self._directory / f"{name}.log")

    def kill(self, *names: str) -> list[int]:
        """SIGKILL to these; their process ids."""
        processes = [self._processes.pop(name) for name in names]
        self._all.kill(*processes)
        self.killed += len(processes)
        return [process.pid for process in processes]

    def check(self) -> None:
        """Raise DemoError where a process has ended by itself."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = tail_of(self._directory / f"{name}.log")
                raise DemoError(f"the process {name} ended with code {process.returncode}; it says: {log}")

    def stop(self, *names: str) -> None:
        """SIGTERM to these, and wait until they have ended in order."""
        processes = {name: self._processes[name] for name in names}
        for process in processes.values():
            process.terminate()
        for name, process in processes.items():
            code = self._all.wait(process, STOP_TIMEOUT_S)
            if code:
                log = tail_of(self._directory / f"{name}.log")
                raise DemoError(f"the process {name} did not end in order (code {code}); it says: {log}")
            del self._processes[name]

    def noted(self) -> dict[str, str]:
        """Record id → way, of every record whose call has returned."""
        found: dict[str, str] = {}
        for path in self._directory.glob("*.notes"):
            for line in whole_lines(path):
                record_id, _, way = line.partition(" ")
                found[record_id] = way
        return found

    def count_of_each(self) -> list[int]:
        """How many records each process has noted so far."""
        return [path.read_bytes().count(b"\n") for path in self._directory.glob("*.notes")]
