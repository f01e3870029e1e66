"""``otel-audit dlq``: what destinations refused; looking at it, sending it again, writing it out."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.text import Text

from ..batch import RecordBatch
from ..delivery.destination import Destination
from ..delivery.replay import DELIVERED, Letter, Replay, Replayed, count_unreadable, read_letters
from ..errors import ConfigurationError, DamageError
from ..formats.jsonl import as_plain
from ..journal.layout import Layout, check_destination_name
from ..options import suggestion
from ..settings import load_settings
from .locate import (
    ConfigOption,
    DestinationsOption,
    JournalOption,
    JsonOption,
    ServiceOption,
    as_given,
    existing_layout,
    find_journal,
    named_destinations,
)
from .output import ATTENTION, FINE, age, console, row, safe, say, table, write_json

TIMEOUT_S = 60.0

dead_letters = typer.Typer(
    name="dlq", no_args_is_help=False, help="Dead letters: what destinations refused. List, show, send again, export."
)

NameArgument = Annotated[
    str | None,
    typer.Argument(metavar="NAME", help="Only letters of this destination; else of all.", show_default=False),
]
AllOption = Annotated[bool, typer.Option("--all", help="Also those that a replay delivered.")]


@dead_letters.command("list")
def list_letters(
    name: NameArgument = None,
    journal: JournalOption = None,
    service: ServiceOption = None,
    json: JsonOption = False,
    everything: AllOption = False,
) -> None:
    """Show the letters that nobody has yet: which record, why it was refused, and what was tried since.

    Exit codes: 0, or 2 where there is no such journal, or no dead letters of such a destination.
    """
    layout = find_journal(journal, service)
    found = [letter for letter in _letters(layout, name) if everything or letter.state != DELIVERED]
    if json:
        write_json({"journal": str(layout.root), "letters": [_summary(letter) for letter in found]})
        return
    made = table("Destination", "Record", "Event", "#Refused", "State", "Reason")
    for letter in found:
        said = _summary(letter)
        refused = age(max(time.time() - letter.letter.refused_ns / 1e9, 0.0))
        made.add_row(
            *row(said["destination"], said["record_id"], said["event_name"], f"{refused} ago", said["state"],
                 said["reason"])
        )  # fmt: skip
    console().print(made if found else "There are no dead letters.")


@dead_letters.command("show")
def show(
    record: Annotated[str, typer.Argument(metavar="RECORD", help="The record's id, as 'dlq list' shows it.")],
    journal: JournalOption = None,
    service: ServiceOption = None,
    json: JsonOption = False,
) -> None:
    """Show everything about a letter: the record, the reason, and what was tried since.

    Exit codes: 0, or 2 where there is no such letter.
    """
    layout = find_journal(journal, service)
    found = [letter for letter in _letters(layout, None) if letter.record.record_id == record]
    if not found:
        raise ConfigurationError(f"dlq: there is no dead letter of record {record!r}; 'otel-audit dlq list --all'")
    documents = [_document(letter) for letter in found]
    if json:
        write_json({"journal": str(layout.root), "letters": documents})
        return
    out = console()
    for document in documents:
        for key, value in document.items():
            text = value if isinstance(value, str) else msgspec.json.format(msgspec.json.encode(value), indent=2)
            shown = "\n".join(map(safe, (text if isinstance(text, str) else text.decode()).split("\n")))
            out.print(Text.assemble((f"{key}: ", "bold"), shown), soft_wrap=True)


@dead_letters.command("export")
def export(
    name: NameArgument = None,
    journal: JournalOption = None,
    service: ServiceOption = None,
    everything: AllOption = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="A new file, instead of stdout.", show_default=False),
    ] = None,
) -> None:
    """Write letters as JSON lines: the canonical form byte for byte, its hash, the reason, and what was tried since.

    Exit codes: 0, or 2 where there is no such journal, or the file is there already.
    """
    layout = find_journal(journal, service)
    chosen = [letter for letter in _letters(layout, name) if everything or letter.state != DELIVERED]
    lines = [msgspec.json.encode(_exported(letter)) + b"\n" for letter in chosen]
    if output is None:
        sys.stdout.write(b"".join(lines).decode())
        sys.stdout.flush()
        return
    try:
        # As private as the journal: they are the records themselves.
        with open(output, "xb", opener=lambda path, flags: os.open(path, flags, layout.mode)) as file:
            file.writelines(lines)
    except FileExistsError:
        raise ConfigurationError(f"--output: {output} is there already; name a new file") from None
    say(f"{len(lines)} letters are in {output}")


@dead_letters.command("replay")
def replay(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The destination that refused them.")],
    records: Annotated[
        list[str] | None,
        typer.Argument(metavar="RECORD", help="Only letters of these records; else all.", show_default=False),
    ] = None,
    journal: JournalOption = None,
    service: ServiceOption = None,
    json: JsonOption = False,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="OTHER", help="Send them to this destination instead.", show_default=False),
    ] = None,
    destination: DestinationsOption = None,
    config: ConfigOption = None,
    again: Annotated[
        bool, typer.Option("--again", help="Also those that a replay delivered, or perhaps delivered.")
    ] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0, help="Stop trying after so many seconds.")
    ] = TIMEOUT_S,
) -> None:
    """Send letters again, when what made the destination refuse them is repaired; each is delivered once.

    What became of each is on the disk before the next is sent. No letter is ever removed. One that an earlier replay
    delivered is passed over; so is one that it was sending when it was interrupted, because the destination may have
    it: --again sends those too.

    Exit codes: 0, all of them are delivered; 1, some are refused again, left, in doubt or
    damaged; 2, wrong usage or
    configuration.
    """  # fmt: skip
    options: dict[str, Any] = {"journal": journal, "service_name": service, "config_file": config}
    if destination:
        options["destinations"] = named_destinations(destination)
    settings = load_settings(options)
    layout = existing_layout(settings.journal)
    letters = _letters(layout, name)
    wanted = _wanted(letters, name, records or [])
    target = _target(settings.destinations, to or name, assumed=settings.destinations_assumed)
    result = Replay(layout, name, target, again=again).run(wanted, timeout_s=timeout)
    if json:
        write_json({"journal": str(layout.root), "from": name, "to": target.name, **msgspec.to_builtins(result)})
    else:
        made = table("#Delivered", "#Refused", "#Left", "#Filtered", "#Skipped", "#In doubt", "#Damaged")
        counts = (result.delivered, result.refused, result.left, result.filtered, result.skipped, result.in_doubt,
                  result.damaged)  # fmt: skip
        made.add_row(*row(*counts))
        console().print(made)
    for line in _what_is_left(result, f"{name}{as_given(journal, service)}"):
        say(line)
    unread = not records and count_unreadable(layout, name)
    complete = not (result.refused or result.left or result.in_doubt or result.damaged or unread)
    raise typer.Exit(FINE if complete else ATTENTION)


def _what_is_left(result: Replayed, name: str) -> Iterable[str]:
    if result.refused:
        yield f"{result.refused} are refused again; 'otel-audit dlq list {name}' has the reasons"
    if result.left:
        yield f"{result.left} are left: {result.error}" + (f"; {result.repair}" if result.repair else "")
    if result.in_doubt:
        yield (
            f"{result.in_doubt} may have been delivered by a replay that was interrupted, and were not sent; receivers "
            "know a record by its id, so --again does no harm where they drop doubles"
        )
    if result.damaged:
        yield (
            f"{result.damaged} are not what was journaled, by their hash, and were not sent; 'otel-audit dlq export "
            f"{name}' has them as they are"
        )
    if result.filtered:
        yield f"{result.filtered} were not sent: the filter of the destination passes them over"


def _letters(layout: Layout, name: str | None) -> list[Letter]:
    """The letters of a destination, or of all.

    Raises:
        ConfigurationError: there are none of that name.
    """
    known = sorted(path.stem for path in (layout.root / "dead-letters").glob("*.jsonl"))
    if name is not None and check_destination_name(name) not in known:
        raise ConfigurationError(f"dlq: there are no dead letters of {name!r}; {suggestion(name, known)}")
    names = [name] if name is not None else known
    for each in names:
        if unreadable := count_unreadable(layout, each):
            say(f"{unreadable} lines of {layout.dead_letters(each)} cannot be read: somebody or the disk changed them")
    return [letter for each in names for letter in read_letters(layout, each)]


def _wanted(letters: list[Letter], name: str, records: list[str]) -> Any:
    """Chooses the letters of these records.

    Raises:
        ConfigurationError: there is none of one of them.
    """
    ids = {(letter.letter.stream_id, letter.letter.sequence): letter.record.record_id for letter in letters}
    for record in records:
        if record not in ids.values():
            raise ConfigurationError(f"dlq: {name} has no dead letter of record {record!r}; 'otel-audit dlq list'")
    chosen = {key for key, record_id in ids.items() if not records or record_id in records}
    return lambda letter: (letter.letter.stream_id, letter.letter.sequence) in chosen


def _target(destinations: Iterable[Destination], name: str, *, assumed: bool) -> Destination:
    known = {each.name: each for each in destinations}
    if name not in known:
        raise ConfigurationError(
            f"dlq: destination {name!r} is not configured; {suggestion(name, () if assumed else known)}. Give it with "
            f"--destination {name}=SPEC, or with --config the file that the application uses"
        )
    return known[name]


def _summary(letter: Letter) -> dict[str, Any]:
    """What a list has of a letter: the newest reason, where it was tried again."""
    record, last = letter.record, letter.steps[-1] if letter.steps else None
    told = last if last is not None and last.reason else letter.letter
    return {
        "destination": letter.letter.destination,
        "record_id": record.record_id,
        "event_name": record.event_name,
        "stream_id": letter.letter.stream_id,
        "sequence": letter.letter.sequence,
        "refused_ns": letter.letter.refused_ns,
        "state": letter.state,
        "tries": sum(step.what != "sending" for step in letter.steps),
        "reason": told.reason,
        "status": told.status,
    }


def _document(letter: Letter) -> dict[str, Any]:
    """Everything about a letter, its record as plain JSON."""
    stored = letter.record
    batch = RecordBatch(letter.letter.stream_id, letter.letter.resource or {}, [stored])
    try:
        plain = as_plain(stored, batch)
    except DamageError as error:
        plain = {"damaged": str(error)}
    return {**_summary(letter), "reason": letter.letter.reason, "status": letter.letter.status,
            "steps": msgspec.to_builtins(letter.steps), "record": plain}  # fmt: skip


def _exported(letter: Letter) -> dict[str, Any]:
    fields = {name: getattr(letter.letter, name) for name in letter.letter.__struct_fields__}
    return {**fields, "record_id": letter.record.record_id, "state": letter.state, "steps": letter.steps}
