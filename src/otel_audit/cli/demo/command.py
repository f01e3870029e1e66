"""``otel-audit demo``: shows on this machine, in seconds, what is promised."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.text import Text

from ...errors import ConfigurationError
from ..locate import JsonOption
from ..output import ATTENTION, FINE, console, row, table, write_json
from .agreed import UNWANTED
from .collector import BINARY_VARIABLE, NAMES, find_collector
from .count import Accounts
from .processes import Processes
from .receivers import EMBEDDED
from .scenario import Outcome, Scenario


def demo(
    json: JsonOption = False,
    keep: Annotated[
        Path | None,
        typer.Option(
            "--keep",
            metavar="DIR",
            show_default=False,
            help="Keep journal, logs and notes in this new or empty directory; else everything is removed at the end.",
        ),
    ] = None,
) -> None:
    """Show what is promised: kill processes in mid-stream, let the receiver fail, and account for every record.

    Four processes of a small billing service emit through logging, structlog and emit(); they are killed with SIGKILL,
    the receiver answers 503 and is killed, everything is started again. The receiver is the OpenTelemetry Collector
    that OTELCOL_BIN names, else otelcol-contrib or otelcol on PATH, else what `make collector` built, else one that is
    built in, which also refuses one kind of event on purpose. Takes about 20 seconds,
    uses the loopback interface only, and leaves nothing behind.

    Exit codes: 0, nothing is lost or pending and every chain is intact; 1, something is; 2, wrong usage.
    """
    collector = find_collector(os.environ)
    began = time.monotonic()
    out = console(stderr=True)

    def tell(text: str) -> None:
        out.print(Text.assemble((f"{time.monotonic() - began:5.1f} s  ", "cyan"), text), soft_wrap=True)

    processes = Processes()
    processes.end_on(signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    with contextlib.ExitStack() as cleanup:
        directory = _empty(keep) if keep is not None else _temporary(cleanup)
        if collector is None:
            tell(
                f"no Collector is found ({BINARY_VARIABLE}, {', '.join(NAMES)}, `make collector`): the embedded "
                "receiver is used"
            )
        cleanup.callback(processes.close)
        outcome = Scenario(processes, directory, collector, tell).run()
    if json:
        write_json({**msgspec.to_builtins(outcome), "ok": outcome.accounts.good})
    else:
        _show(outcome)
    if keep is not None:
        tell(f"kept in {directory}; look at it: otel-audit tail --journal {directory / 'journal'}")
    raise typer.Exit(FINE if outcome.accounts.good else ATTENTION)


def _empty(directory: Path) -> Path:
    directory = directory.expanduser().absolute()
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigurationError(f"--keep: {directory} is there and not empty")
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _temporary(cleanup: contextlib.ExitStack) -> Path:
    made = tempfile.TemporaryDirectory(prefix="otel-audit-demo-", ignore_cleanup_errors=True)
    return Path(cleanup.enter_context(made))


def _show(outcome: Outcome) -> None:
    accounts = outcome.accounts
    out = console()
    made = table("", "#Records", "")
    for cells in _rows(accounts, picky=outcome.receiver == EMBEDDED):
        made.add_row(*row(*cells))
    out.print()
    out.print(made)
    out.print()
    chain = accounts.chain
    whole = "intact" if chain.intact else "BROKEN"
    out.print(
        Text.assemble(
            "Chain ", (whole, "bold green" if chain.intact else "bold red"),
            f": {chain.records:,} records in {chain.streams} streams, each verified; the journal's own, that logging "
            "started and stopped, among them",
            f"; {chain.torn} lines that SIGKILL cut within their write" if chain.torn else "",
        )
    )  # fmt: skip
    for damage in chain.damage:
        out.print(Text(f"  {damage}", style="red"))
    out.print(
        f"{outcome.processes} processes, {outcome.killed} of them killed with SIGKILL; {outcome.receiver}; "
        f"{outcome.seconds:g} s"
    )


def _rows(accounts: Accounts, *, picky: bool) -> list[tuple[Any, ...]]:
    ways = ", ".join(f"{way} {count:,}" for way, count in accounts.emitted.items())
    return [
        ("emitted", sum(accounts.emitted.values()), f"the call returned: {ways}"),
        ("delivered", accounts.delivered, "different records that the receiver has"),
        ("duplicates", accounts.duplicates, "sent again after a failure; the record id tells"),
        (
            "dead-lettered",
            accounts.dead_lettered,
            f"{UNWANTED}, which this receiver refuses on purpose; kept" if picky else "refused by the receiver; kept",
        ),
        ("pending", accounts.pending, "in the journal, not delivered yet"),
        ("extra, interrupted call", accounts.interrupted, "journaled, and killed before the call returned"),
        (_bold("lost", accounts.lost), _bold(f"{accounts.lost:,}", accounts.lost), "emitted, and nowhere"),
    ]


def _bold(text: str, lost: int) -> Text:
    return Text(text, style="bold red" if lost else "bold green")
