"""Everything that the demonstration starts: none of it is left running, whenever and however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from ...errors import AuditError
from .agreed import HOST


class DemoError(AuditError):
    """The demonstration could not go on; what it wanted to show is not shown."""


class Processes:
    """Starts processes and ends them.

    Nothing of OpenTelemetry is set in their environment, and no proxy stands between them.  Their standard input ends
    when this process ends, so that those of ours end even where this one is killed.

    Attributes:
        env: their environment.
    """

    def __init__(self) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "OTELCOL_"))}
        self.env = {**inherited, "NO_PROXY": HOST, "no_proxy": HOST}
        self._running: list[subprocess.Popen[bytes]] = []
        self._held = False
        self._interrupted = False
        self._raised = False

    def end_on(self, *signals: signal.Signals) -> None:
        """Let the first of these signals raise KeyboardInterrupt, but not while a process is started."""
        for number in signals:
            signal.signal(number, self._handle)

    def _handle(self, _: int, __: FrameType | None) -> None:
        self._interrupted = True
        self._raise()

    def _raise(self) -> None:
        if self._interrupted and not self._held and not self._raised:
            self._raised = True
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def _uninterrupted(self) -> Iterator[None]:
        self._held = True
        try:
            yield
        finally:
            self._held = False
            self._raise()

    def start(
        self,
        arguments: Sequence[object],
        log: Path,
        *,
        errors: Path | None = None,
        variables: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process.

        Args:
            arguments: the program and its arguments.
            log: what it says is appended to this file.
            errors: what it says on stderr is appended to this one.
            variables: for its environment.
        """
        command = [str(argument) for argument in arguments]
        env = {**self.env, **(variables or {})}
        with log.open("ab") as out, (errors or log).open("ab") as err, self._uninterrupted():
            process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=out, stderr=err)  # noqa: S603
            self._running.append(process)
        return process

    def wait(self, process: subprocess.Popen[bytes], timeout_s: float) -> int:
        """Wait for the end of a process; its exit code.

        Raises:
            DemoError: it takes too long.
        """
        try:
            return process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise DemoError(f"process {process.pid} did not end within {timeout_s:g} s") from None
        finally:
            self.kill(process)

    def kill(self, *processes: subprocess.Popen[bytes] | None) -> None:
        """SIGKILL to all of them at once, and wait until they are gone; nothing for those that are."""
        there = [process for process in processes if process in self._running]
        for process in there:
            process.kill()
        for process in there:
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
            self._running.remove(process)

    def close(self) -> None:
        """Leave nothing running."""
        self.kill(*list(self._running))


def tail_of(log: Path) -> str:
    """The last lines of a log."""
    with contextlib.suppress(OSError):
        return " | ".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]) or "nothing"
    return "nothing"


def whole_lines(path: Path) -> list[str]:
    """The lines of a file; what a kill left unfinished at its end is passed over, a missing file has none."""
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="ascii").split("\n")[:-1]
    return []
