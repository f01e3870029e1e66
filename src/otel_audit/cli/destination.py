"""``otel-audit destination``: the destinations that a journal knows, and retiring one that is gone for good."""

from __future__ import annotations

import sys
from typing import Annotated

import msgspec
import typer
from rich.text import Text

from ..errors import ConfigurationError
from ..health import JournalStatus, journal_status
from ..journal.layout import Layout, check_destination_name
from ..journal.retirement import retire_destination
from ..journal.streams import LIVING
from ..options import suggestion
from .locate import JournalOption, JsonOption, ServiceOption, find_journal
from .output import age, console, row, say, table, write_json

destinations = typer.Typer(
    name="destination", no_args_is_help=False, help="The destinations that a journal knows; retire one that is gone."
)


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A destination as all streams of a journal together know it.

    Attributes:
        required_by: streams whose records are kept until it has them.
        living: process ids of the living among them.
        pending: records that it has not; ``None`` where it is retired: nobody waits for them.
    """

    name: str
    retired: bool
    streams: int
    required_by: int
    living: list[int]
    pending: int | None
    oldest_pending_age_s: float | None
    dead_letters: int


def known_destinations(found: JournalStatus) -> list[Known]:
    """Every destination that has a cursor, is required, has dead letters or is retired."""
    seen = {each.destination for stream in found.streams for each in stream.destinations}
    return [_known(found, name) for name in sorted(seen | set(found.dead_letters) | set(found.retired))]


def _known(found: JournalStatus, name: str) -> Known:
    pairs = [(stream, each) for stream in found.streams for each in stream.destinations if each.destination == name]
    ages = [each.oldest_pending_age_s for _, each in pairs if each.oldest_pending_age_s is not None]
    retired = name in found.retired
    return Known(
        name=name,
        retired=retired,
        streams=len(pairs),
        required_by=sum(each.required for _, each in pairs),
        living=[stream.pid for stream, each in pairs if stream.owner == LIVING and each.required],
        pending=None if retired else sum(each.pending for _, each in pairs),
        oldest_pending_age_s=max(ages, default=None),
        dead_letters=found.dead_letters.get(name, 0),
    )


@destinations.command("list")
def list_known(
    journal: JournalOption = None,
    service: ServiceOption = None,
    json: JsonOption = False,
) -> None:
    """Show every destination that the journal knows, with what it has not yet and since when.

    Exit codes: 0, or 2 where there is no such journal.
    """
    found = journal_status(find_journal(journal, service))
    known = known_destinations(found)
    if json:
        write_json({"journal": found.path, "destinations": known})
        return
    made = table("Destination", "#Streams", "#Required by", "#Pending", "#Oldest", "#Dead letters", "")
    for each in known:
        note = Text("retired", style="dim") if each.retired else Text("")
        made.add_row(
            *row(
                each.name, each.streams, each.required_by, each.pending, age(each.oldest_pending_age_s),
                each.dead_letters, note,
            )
        )  # fmt: skip
    console().print(made if known else "The journal knows no destination.")


@destinations.command("retire")
def retire(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The destination, as 'destination list' shows it.")],
    journal: JournalOption = None,
    service: ServiceOption = None,
    json: JsonOption = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Stop waiting for a destination: what only it has not may be removed from the journal, never to be sent to it.

    Says first how many records that are, and asks. What a process emits that still names it, or names it again, is
    kept for it as ever. Exit codes: 0, it is retired; 1, the answer was no; 2, the journal does not know it, a living
    process requires it, or there is nobody to ask.
    """
    layout = find_journal(journal, service)
    check_destination_name(name)
    found = journal_status(layout)
    known = {each.name: each for each in known_destinations(found)}
    if name not in known:
        raise ConfigurationError(f"destination: this journal knows no {name!r}; {suggestion(name, known)}")
    before = known[name]
    if before.retired:
        say(f"destination {name} is retired already")
    else:
        _confirm(before, yes=yes)
        _retire(layout, found, name)
    if json:
        write_json({"journal": found.path, "retired": name, "no_longer_waited_for": before.pending or 0})


def _confirm(known: Known, *, yes: bool) -> None:
    if known.living:
        pids = ", ".join(map(str, known.living))
        raise ConfigurationError(
            f"destination retire: living processes require {known.name} ({pids}), and what they emit is kept for it; "
            "take it out of their configuration and start them again first. Nothing was retired"
        )
    since = age(known.oldest_pending_age_s)
    waited = f"{known.pending} records" + (f", the oldest {since} old," if since else "")
    say(f"{waited} in {known.streams} streams would no longer be waited for by destination {known.name}")
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigurationError("destination retire: there is nobody to ask; give --yes")
    typer.confirm(f"Retire {known.name}?", abort=True, err=True)


def _retire(layout: Layout, found: JournalStatus, name: str) -> None:
    retire_destination(
        layout,
        name,
        [
            stream.stream_id
            for stream in found.streams
            for each in stream.destinations
            if each.destination == name and each.required and stream.owner != LIVING
        ],
    )
    say(f"destination {name} is retired; what nobody else waits for goes when a process or 'ship' uses the journal")
