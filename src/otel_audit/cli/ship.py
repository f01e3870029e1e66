"""``otel-audit ship``: delivers what processes left in a journal, without being one of them."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

import typer

from ..delivery.destination import Destination
from ..delivery.shipper import Shipper
from ..errors import ConfigurationError
from ..health import journal_status
from ..journal.journal import Journal
from ..journal.layout import Layout
from ..settings import load_settings
from ..sidecars import Sidecar
from .left import What, left_to_a_sidecar, needs_for_living, what_is_left
from .locate import (
    ConfigOption,
    DestinationsOption,
    JournalOption,
    JsonOption,
    ServiceOption,
    as_given,
    existing_layout,
    named_destinations,
    wait_for_layout,
)
from .output import ATTENTION, FINE, console, row, say, table, write_json
from .rounds import ship_until_stopped, ship_what_is_there
from .signals import stop_on

TIMEOUT_S: Final = 60.0


def ship(
    journal: JournalOption = None,
    service: ServiceOption = None,
    json: JsonOption = False,
    once: Annotated[bool, typer.Option("--once", help="End when nothing is left.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0, help="With --once: end after so many seconds in any case.")
    ] = TIMEOUT_S,
    destination: DestinationsOption = None,
    config: ConfigOption = None,
    for_living: Annotated[
        bool, typer.Option("--for-living", help="Deliver for living processes too, as a sidecar does.")
    ] = False,
) -> None:
    """Deliver what dead processes left in a journal; what every required destination has is then removed.

    Runs until SIGTERM or SIGINT, and then ends after the batches that are under way; a journal that is not there yet is
    waited for. With --once it ends when nothing is left, when the rest is blocked (somebody has to repair something),
    or when the time is up.

    Exit codes: 0, nothing is left (with --once) or it was stopped in order; 1, something is left, or it did not stop in
    time; 2, wrong usage or configuration.
    """
    options: dict[str, Any] = {"journal": journal, "service_name": service, "config_file": config}
    if destination:
        options["destinations"] = named_destinations(destination)
    settings = load_settings(options)
    _check(settings.destinations)
    _log_to_stderr()
    stop = stop_on(signal.SIGINT, signal.SIGTERM)
    layout = existing_layout(settings.journal) if once else wait_for_layout(settings.journal, stop)
    if layout is None:
        raise typer.Exit(FINE)
    known = _known(layout)
    if settings.destinations_assumed:
        _say_what_is_assumed(settings.destinations[0].name, known)
    _warn_of_strangers(known, settings.destinations)
    own = Journal(
        layout,
        resource=dict,
        required=[],
        segment_bytes_max=settings.segment_bytes,
        bytes_max=settings.max_bytes,
        full_timeout_s=0.0,
        allow_network=settings.allow_network,
        retention_s=settings.retention_s,
    )
    shippers = [Shipper(own, each, for_living=for_living) for each in settings.destinations]
    for_dead = [] if for_living else [each.name for each in settings.destinations if not _has_one_writer(each)]
    if once:
        ended = ship_what_is_there(own, shippers, timeout_s=timeout, stop=stop)
    else:
        sidecar = Sidecar(layout, for_living=for_living)
        ended = ship_until_stopped(own, shippers, stop=stop, sidecar=sidecar, look=_Forgotten(layout, for_dead).look)
    left = what_is_left(layout, shippers, for_living=for_living, for_dead=for_dead, given=as_given(journal, service))
    if json:
        write_json({"journal": str(layout.root), "complete": not left.reasons, **left.document()})
    else:
        _show(left)
    for reason in left.reasons:
        say(reason)
    complete = ended and not (once and left.reasons)
    sys.stdout.flush()
    _end(FINE if complete else ATTENTION, hurry=not ended)


def _check(destinations: Sequence[Destination]) -> None:
    if not destinations:
        raise ConfigurationError("destinations: there are none to ship to; give --destination NAME=SPEC")
    for each in destinations:
        if each.elsewhere:
            raise ConfigurationError(
                f"destinations.{each.name}: 'sidecar' is for applications; this is the sidecar: say where it goes, "
                f"--destination {each.name}=SPEC"
            )


def _log_to_stderr() -> None:
    """What the shipper says, in the form of our other messages."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("otel-audit: %(message)s"))
    logger = logging.getLogger("otel_audit")
    logger.addHandler(handler)
    logger.propagate = False


def _known(layout: Layout) -> set[str]:
    """Destinations that streams of the journal wait for, or have delivered to."""
    return {each.destination for stream in journal_status(layout).streams for each in stream.destinations}


def _say_what_is_assumed(name: str, known: set[str]) -> None:
    """Nobody named a destination: the default of an application is right only where the application had no other.

    Raises:
        ConfigurationError: it had.
    """
    if known and name not in known:
        raise ConfigurationError(
            f"destinations: none is named, and this journal is for {', '.join(sorted(known))}; say where that is: "
            f"--destination {min(known)}=SPEC, --config FILE or OTEL_AUDIT_DESTINATIONS"
        )
    say(f"no destination is named: it is taken to be {name}=otlp, as for an application (OTEL_EXPORTER_OTLP_ENDPOINT)")


def _warn_of_strangers(known: set[str], destinations: Sequence[Destination]) -> None:
    """A name is a cursor: a misspelt one would get everything again, and the right one nothing."""
    for each in destinations:
        if known and each.name not in known:
            say(
                f"destination {each.name} is new to this journal, which knows {', '.join(sorted(known))}: "
                "it gets everything that is there"
            )


def _has_one_writer(destination: Destination) -> bool:
    """Whether it takes from one process at a time: that one delivers for the living too."""
    exporter = destination.make_exporter()
    try:
        return exporter.single_writer
    finally:
        exporter.close()


class _Forgotten:
    """Says of each destination once that living processes leave it to a sidecar, and that this one was not told so."""

    def __init__(self, layout: Layout, names: Sequence[str]) -> None:
        self._layout = layout
        self._names = list(names)

    def look(self) -> None:
        """Look, and say it."""
        try:
            found = journal_status(self._layout) if self._names else None
        except OSError:
            return  # the journal's own threads say it
        for name in self._names.copy():
            if found is not None and (records := left_to_a_sidecar(found, name)):
                self._names.remove(name)
                say(needs_for_living(name, records))


def _show(left: What) -> None:
    made = table("Destination", "#Delivered", "#Dead letters", "#Filtered", "#Left", "State")
    for each in left.destinations:
        made.add_row(*row(each.name, each.delivered, each.dead_lettered, each.filtered, each.pending, each.state))
    console().print(made)


def _end(code: int, *, hurry: bool) -> None:
    """End with this code; without waiting for a thread that did not stop in time."""
    if hurry:
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)
