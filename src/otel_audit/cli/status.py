"""``otel-audit status``: how a journal is doing, and what in it needs attention."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from ..delivery.destination import DestinationState
from ..health import DestinationStatus, JournalStatus, StreamStatus, journal_status
from ..journal.layout import Layout
from ..journal.streams import LIVING
from ..sidecars import for_dead_only
from ..unserved import find_unserved
from .left import left_to_a_sidecar
from .locate import JournalOption, JsonOption, ServiceOption, as_given, find_journal
from .output import ATTENTION, FINE, age, console, row, safe, size, table, write_json

_FAILING: Final = ("retrying", "blocked")
_FREE_BYTES_LEAST: Final = 1024 * 1024
_FULL_SHARE: Final = 0.95
_NO_DESTINATION: Final = "No destination: the records stay in the journal."


def status(
    journal: JournalOption = None,
    service: ServiceOption = None,
    json: JsonOption = False,
) -> None:
    """Show the streams of a journal, what each destination has of them, and what needs attention.

    Exit codes: 0, all is well; 1, something needs attention (dead letters, damage, a destination that fails, handlers
    out of reach, records that were refused, no room); 2, there is no such journal.
    """
    layout = find_journal(journal, service)
    found = journal_status(layout)
    given = as_given(journal, service)
    unserved = [each for each in find_unserved(layout) if not each.not_for_living]
    attention = [
        *what_needs_attention(found, given),
        *_forgotten(layout, found),
        *(each.described(given) for each in unserved),
    ]
    hints = list(_hints(found, given))
    if json:
        write_json({**msgspec.to_builtins(found), "attention": attention, "hints": hints})
    else:
        _show(console(), found, attention, hints)
    raise typer.Exit(ATTENTION if attention else FINE)


def what_needs_attention(found: JournalStatus, given: str = "") -> Iterator[str]:
    """One line for each thing that a person has to look at.

    Args:
        found: the journal.
        given: the options that name it, for commands that are pasted.
    """
    for name, count in found.dead_letters.items():
        if count:
            yield f"destination {name}: {count} dead letters: otel-audit dlq list {name}{given}"
    yield from _lack_of_room(found)
    for stream in found.streams:
        if stream.problem:
            yield stream.problem
        for damage in stream.damage:
            missing = f", {damage.count} records missing from number {damage.sequence}" if damage.count else ""
            where = f"{damage.segment}, bytes {damage.start} to {damage.stop}"
            yield f"stream {stream.stream_id}: {damage.kind} in {where}{missing}"
        process = stream.process
        if process is None or stream.owner != LIVING:
            continue
        for destination in process.destinations:
            if destination.state in _FAILING:
                repair = f"; {destination.repair}" if destination.repair else ""
                yield (
                    f"destination {destination.name} is {destination.state} in process {stream.pid} "
                    f"({destination.failures} failures): {destination.error}{repair}"
                )
        if refused := process.counters.get("records.not_journaled", 0):
            yield (
                f"process {stream.pid}: {refused} records were refused, because the journal could not take them; they "
                "are not recorded, and each caller got an error that says why"
            )
        for handler in process.unreachable_handlers:
            yield f"process {stream.pid}: records do not reach the audit handler of {handler}"
    for sidecar in found.sidecars:
        for name, state in sidecar.destinations.items():
            if state.state in _FAILING:
                repair = f"; {state.repair}" if state.repair else ""
                yield (
                    f"destination {name} is {state.state} in the sidecar {sidecar.pid} ({state.failures} failures): "
                    f"{state.error}{repair}"
                )


def _lack_of_room(found: JournalStatus) -> Iterator[str]:
    """Why records are refused now, or soon will be."""
    if 0 <= found.free_bytes < _FREE_BYTES_LEAST or found.free_inodes == 0:
        room = f"{size(found.free_bytes)}" + (" and no inode" if found.free_inodes == 0 else "")
        yield (
            f"the journal's file system has {room} free, and records are refused where there is no room; make room on "
            f"it (df, df -i {found.path})"
        )
    if found.bytes_max and found.bytes >= _FULL_SHARE * found.bytes_max:
        yield (
            f"the journal is full to {found.bytes / found.bytes_max:.0%} of max_bytes ({size(found.bytes_max)}), where "
            "records are refused; what its destinations take makes room, or raise max_bytes"
        )


def _forgotten(layout: Layout, found: JournalStatus) -> Iterator[str]:
    """What living processes leave to a sidecar that was not told to serve them."""
    for name in sorted(for_dead_only(layout, found.sidecars)):
        if records := left_to_a_sidecar(found, name):
            pids = ", ".join(str(sidecar.pid) for sidecar in found.sidecars if name in sidecar.destinations)
            yield (
                f"destination {name}: {records} records of living processes wait for a sidecar, and what runs "
                f"(process {pids}) delivers for dead processes only; start it with --for-living"
            )


def _hints(found: JournalStatus, given: str) -> Iterator[str]:
    """What is well as yet, and may be worth a command."""
    waiting: Counter[str] = Counter()
    for stream in found.streams:
        if stream.owner == LIVING:
            return
        for destination in stream.destinations:
            if destination.required and destination.pending:
                waiting[destination.destination] += destination.pending
    if waiting:
        where = "".join(f" --destination {name}=SPEC" for name in sorted(waiting))
        yield (
            f"{sum(waiting.values())} deliveries wait in streams of dead processes, and no process lives: "
            f"otel-audit ship --once{given}{where}"
        )


def _show(out: Console, found: JournalStatus, attention: list[str], hints: list[str]) -> None:
    out.print(Text.assemble(("Journal ", "bold"), safe(found.path), f"  {size(found.bytes)}"))
    out.print()
    if found.streams:
        out.print(_streams(found))
        out.print()
        out.print(_destinations(found) if any(stream.destinations for stream in found.streams) else _NO_DESTINATION)
    else:
        out.print("It has no streams.")
    for more in (_states(found), _counters(found)):
        if more.row_count:
            out.print()
            out.print(more)
    if found.retired:
        out.print()
        out.print(f"Retired, nobody waits for them: {safe(', '.join(found.retired))}")
    out.print()
    for line in attention:
        out.print(Text(f"! {safe(line)}", style="red"), soft_wrap=True)
    for line in hints:
        out.print(Text(f"> {safe(line)}", style="yellow"), soft_wrap=True)
    if not attention:
        out.print(Text("Nothing needs attention.", style="green"))


def _short(stream: StreamStatus) -> str:
    """Enough of a stream's id to tell it from the others, and to find its directory."""
    return stream.stream_id[:8]


def _streams(found: JournalStatus) -> Any:
    made = table("Stream", "Owner", "#PID", "Host", "Service", "#Records", "#Size", title="Streams")
    for stream in found.streams:
        style = "green" if stream.owner == LIVING else "dim"
        pid = Text(str(stream.pid)) if stream.pid else None
        made.add_row(
            *row(
                _short(stream), Text(stream.owner, style=style), pid, stream.host, stream.service, stream.records,
                size(stream.bytes),
            )
        )  # fmt: skip
    return made


def _destinations(found: JournalStatus) -> Any:
    made = table(
        "Stream", "Destination", "Required", "#Acked", "#Pending", "#Oldest", "#Letters", "#Filtered", "#Damaged",
        title="What each destination has",
    )  # fmt: skip
    for stream in found.streams:
        for destination in stream.destinations:
            made.add_row(
                *row(
                    _short(stream),
                    destination.destination,
                    "yes" if destination.required else "no",
                    destination.acknowledged,
                    destination.pending,
                    age(destination.oldest_pending_age_s),
                    destination.dead_lettered,
                    destination.filtered,
                    destination.damaged,
                )
            )
    return made


def _states(found: JournalStatus) -> Any:
    """What living processes and sidecars say of their destinations."""
    made = table("#PID", "Destination", "#Failures", "#Last success", "State", title="Destinations of living processes")
    for stream in found.streams:
        if stream.process is None or stream.owner != LIVING:
            continue
        for destination in stream.process.destinations:
            made.add_row(*_state(str(stream.pid), destination.name, destination))
    for sidecar in found.sidecars:
        for name, each in sidecar.destinations.items():
            made.add_row(*_state(f"{sidecar.pid} (sidecar)", name, each))
    return made


def _state(process: str, name: str, found: DestinationStatus | DestinationState) -> Any:
    last = found.last_success_ns
    ago = f"{age(max(time.time() - last / 1e9, 0.0))} ago" if last else "never"
    state = Text(safe(found.state), style="red" if found.state in _FAILING else "")
    return row(Text(process), name, found.failures, ago, state)


def _counters(found: JournalStatus) -> Any:
    made = table("Stream", "Counter", "#Count", title="Counters of the processes")
    for stream in found.streams:
        for name, count in (stream.process.counters if stream.process is not None else {}).items():
            made.add_row(*row(_short(stream), name, count))
    return made
