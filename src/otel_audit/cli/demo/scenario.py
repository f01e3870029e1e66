"""What happens in the demonstration, in order."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from ...journal.layout import Layout
from .agreed import DESTINATION, RETENTION, UNWANTED
from .application import Application
from .collector import CollectorReceiver
from .count import Accounts, take_accounts
from .processes import DemoError, Processes, tail_of
from .receivers import EmbeddedReceiver, Receiver

NAMES: Final = ("billing-1", "billing-2", "billing-3", "billing-4")
EACH: Final = 60
"""So many records each process has emitted before something happens to it."""
SOON_S: Final = 30.0
SHIP_TIMEOUT_S: Final = 30.0


class Outcome(msgspec.Struct, kw_only=True):
    """How it ended."""

    receiver: str
    processes: int
    killed: int
    seconds: float
    accounts: Accounts


class Scenario:
    """The demonstration.

    Args:
        processes: starts what has to run; the caller closes it.
        directory: for everything that it makes; empty.
        collector: the Collector to deliver to; ``None``: the embedded receiver.
        tell: called with one line for each step.
    """

    def __init__(
        self, processes: Processes, directory: Path, collector: Path | None, tell: Callable[[str], None]
    ) -> None:
        self._tell = tell
        self._processes = processes
        self._directory = directory
        self.journal = directory / "journal"
        self._receiver: Receiver = (
            CollectorReceiver(processes, collector, directory)
            if collector is not None
            else EmbeddedReceiver(processes, directory, UNWANTED)
        )
        self._application = Application(processes, directory, self.journal, self._receiver.endpoint)

    def run(self) -> Outcome:
        """Let it happen.

        Raises:
            DemoError: something did not start, or ended by itself.
        """
        began = time.monotonic()
        self._receiver.start()
        self._tell(f"the {self._receiver.name} takes OTLP at {self._receiver.endpoint}")
        self._begin()
        self._kill_in_mid_stream()
        self._let_the_receiver_fail()
        self._restart_everything()
        self._end()
        self._ship_the_rest()
        delivered = self._receiver.delivered()
        accounts = take_accounts(Layout(self.journal), DESTINATION, self._application.noted(), delivered)
        return Outcome(
            receiver=self._receiver.name,
            processes=self._application.started,
            killed=self._application.killed,
            seconds=round(time.monotonic() - began, 1),
            accounts=accounts,
        )

    def _begin(self) -> None:
        self._application.run(*NAMES)
        self._until_all_emit(len(NAMES))
        self._tell(f"{len(NAMES)} billing processes emit, through logging, structlog and emit(){self._so_far()}")

    def _kill_in_mid_stream(self) -> None:
        first = NAMES[:2]
        pids = self._application.kill(*first)
        self._tell(f"SIGKILL to {_and(first, pids)} in mid-stream{self._so_far()}")
        self._application.run(*first)
        self._until_all_emit(len(NAMES) + len(first))
        self._tell("they are started again; whoever looks first delivers what the dead left")

    def _let_the_receiver_fail(self) -> None:
        if self._receiver.set_unavailable(unavailable=True):
            self._tell(f"the receiver answers 503 from now on{self._so_far()}")
            self._wait(1.0)
            self._kill_one("billing-3")
            self._wait(1.0)
            self._receiver.set_unavailable(unavailable=False)
            self._tell(f"it answers 200 again{self._so_far()}")
            self._wait(1.5)
        self._receiver.kill()
        self._tell(f"SIGKILL to the receiver; nothing listens there any more{self._so_far()}")
        self._wait(1.0)
        self._kill_one("billing-4")
        self._wait(1.0)
        self._receiver.start()
        self._tell("it is started again on the same port")
        self._wait(1.5)

    def _restart_everything(self) -> None:
        pids = self._application.kill(*NAMES)
        self._tell(f"SIGKILL to {_and(NAMES, pids)} at once{self._so_far()}")
        before = self._application.started
        self._application.run(*NAMES)
        self._until_all_emit(before + len(NAMES))
        self._tell(f"the service is started again{self._so_far()}")

    def _end(self) -> None:
        self._application.stop(*NAMES[2:])
        self._tell(f"SIGTERM to {' and '.join(NAMES[2:])}: they have ended in order{self._so_far()}")
        pids = self._application.kill(*NAMES[:2])
        self._tell(f"SIGKILL to {_and(NAMES[:2], pids)}, for good{self._so_far()}")

    def _ship_the_rest(self) -> None:
        """What is left is delivered from outside, by another command of this program."""
        config = self._directory / "ship.toml"
        config.write_text(
            f'retention = "{RETENTION}"\n[destinations.{DESTINATION}]\ntype = "otlp"\n'
            f'endpoint = "{self._receiver.endpoint}"\n',
            encoding="utf-8",
        )
        program = (__package__ or "").rpartition(".")[0]
        command = [
            sys.executable, "-m", program, "ship", "--once", "--json", "--timeout", f"{SHIP_TIMEOUT_S:g}",
            "--journal", str(self.journal), "--config", str(config),
        ]  # fmt: skip
        said, log = self._directory / "ship.json", self._directory / "ship.log"
        code = self._processes.wait(self._processes.start(command, said, errors=log), SHIP_TIMEOUT_S + 20)
        if not said.read_bytes():
            raise DemoError(f"otel-audit ship ended with code {code}; it says: {tail_of(log)}")
        delivered = msgspec.json.decode(said.read_bytes())["destinations"][0]["delivered"]
        self._tell(f"otel-audit ship --once: {delivered:,} records that were left{self._so_far()}")

    def _kill_one(self, name: str) -> None:
        pids = self._application.kill(name)
        self._tell(f"SIGKILL to {_and((name,), pids)} meanwhile; it is started again{self._so_far()}")
        self._application.run(name)

    def _until_all_emit(self, processes: int) -> None:
        """Wait until that many processes, the dead among them, have each emitted enough to be in mid-stream."""
        deadline = time.monotonic() + SOON_S
        while sum(count >= EACH for count in self._application.count_of_each()) < processes:
            self._application.check()
            if time.monotonic() > deadline:
                raise DemoError(f"the processes did not emit {EACH} records each within {SOON_S:g} s")
            time.sleep(0.05)

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._application.check()
            time.sleep(0.05)

    def _so_far(self) -> str:
        emitted = sum(self._application.count_of_each())
        return f" ({emitted:,} emitted, {len(set(self._receiver.delivered())):,} arrived)"


def _and(names: tuple[str, ...], pids: list[int]) -> str:
    return ", ".join(f"{name} (pid {pid})" for name, pid in zip(names, pids, strict=True))
