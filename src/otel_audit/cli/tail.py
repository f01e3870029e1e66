"""``otel-audit tail``: the records of a journal, in the order of time, and those that come."""

from __future__ import annotations

import fnmatch
import re
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Annotated, Final

import typer

from ..errors import DamageError
from ..formats.jsonl import encode_lines
from .follow import Follower, Found
from .locate import JournalOption, JsonOption, ServiceOption, find_journal
from .output import console, say
from .pretty import line
from .signals import stop_on

POLL_S: Final = 0.2
"""How often new records are looked for."""
LAST: Final = 10


def tail(
    journal: JournalOption = None,
    service: ServiceOption = None,
    json: JsonOption = False,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until it is interrupted.")
    ] = False,
    last: Annotated[
        int, typer.Option("--last", "-n", metavar="N", min=0, help="Begin with the last N records.")
    ] = LAST,
    from_start: Annotated[bool, typer.Option("--from-start", help="Begin with the first record.")] = False,
    event: Annotated[
        list[str] | None,
        typer.Option(
            "--event",
            metavar="PATTERN",
            show_default=False,
            help="Only events whose name fits, like 'user.*'; may be given several times.",
        ),
    ] = None,
    no_control: Annotated[
        bool, typer.Option("--no-control", help="Leave out what the journal itself records: logging started, stopped.")
    ] = False,
) -> None:
    """Show the records of all streams, merged by the time of their emission; with -f also those that come.

    With --json each record is one line of JSON, as a "file" destination has it. What is damaged or missing is said on
    stderr.

    Exit codes: 0, or 2 where there is no such journal.
    """
    layout = find_journal(journal, service)
    stop = stop_on(signal.SIGINT, signal.SIGTERM) if follow else None
    write = _write_json if json else _writer()
    wanted = _filter(event or [], no_control=no_control)
    follower = Follower(layout, say)
    if from_start:
        write(found for found in follower.everything() if wanted is None or wanted(found))
    elif last or follow:
        write(follower.last(last, wanted))
    while stop is not None and not stop.wait(POLL_S):
        write(found for found in follower.new() if wanted is None or wanted(found))


def _filter(patterns: list[str], *, no_control: bool) -> Callable[[Found], bool] | None:
    """Says of a record whether it is wanted; ``None``: all are."""
    if not patterns and not no_control:
        return None
    match = re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns)).match

    def wanted(found: Found) -> bool:
        record = found.record
        return bool(match(record.event_name)) and not (no_control and record.is_control)

    return wanted


def _write_json(records: Iterable[Found]) -> None:
    for found in records:
        sys.stdout.write(_json_line(found))
    sys.stdout.flush()


def _json_line(found: Found) -> str:
    try:
        return encode_lines(found.batch).decode("utf-8")
    except DamageError as error:
        say(str(error))
        return ""


def _writer() -> Callable[[Iterable[Found]], None]:
    out = console()

    def write(records: Iterable[Found]) -> None:
        for found in records:
            out.print(line(found), soft_wrap=True)
        sys.stdout.flush()

    return write
