"""``otel-audit doctor``: looks at everything that a configuration depends on, and says what to do."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from typing import Annotated, Any, Final

import typer
from rich.text import Text

from ...errors import AuditError, ConfigurationError
from ...health import journal_status
from ...provider import ProviderSettings
from ...settings import known_variables, load_settings
from ..locate import (
    ConfigOption,
    DestinationsOption,
    JournalOption,
    JsonOption,
    ServiceOption,
    existing_layout,
    named_destinations,
)
from ..output import ATTENTION, FINE, console, safe, write_json
from ..status import what_needs_attention
from .facts import FAILING, NOTE, OK, WARNING, Finding
from .looking import look_at_journal, look_at_ways, send_test_event
from .rules import judge_destinations, judge_event, judge_journal, judge_reach, judge_variables

TIMEOUT_S: Final = 10.0
_STYLES: Final = {OK: "green", NOTE: "cyan", WARNING: "yellow", FAILING: "red"}


def doctor(
    journal: JournalOption = None,
    service: ServiceOption = None,
    json: JsonOption = False,
    destination: DestinationsOption = None,
    config: ConfigOption = None,
    no_send: Annotated[bool, typer.Option("--no-send", help="Send no test event.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings too.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="S", min=0.1, help="How long each destination may take.")
    ] = TIMEOUT_S,
) -> None:
    """Check a configuration from end to end: environment, journal, disk, each destination and the way there, clock.

    A test event is sent to each destination, through a journal of its own: its name is audit.delivery.test, and its
    attribute otel_audit.test is true. Nothing is left in the application's journal.

    Exit codes: 0, nothing fails; 1, something does, or with --strict something is not as it should be; 2, wrong usage.
    """  # fmt: skip
    options: dict[str, Any] = {"journal": journal, "service_name": service, "config_file": config}
    if destination:
        options["destinations"] = named_destinations(destination)
    logging.getLogger("otel_audit").addHandler(logging.NullHandler())
    logging.getLogger("otel_audit").propagate = False  # what it says is among the findings
    found = list(_findings(options, send=not no_send, timeout_s=timeout))
    failing = any(each.level == FAILING for each in found)
    if json:
        write_json({"healthy": not failing, "findings": found})
    else:
        _show(found)
    wrong = failing or (strict and any(each.level == WARNING for each in found))
    raise typer.Exit(ATTENTION if wrong else FINE)


def _findings(options: dict[str, Any], *, send: bool, timeout_s: float) -> Iterator[Finding]:
    yield from judge_variables(os.environ, known_variables())
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            settings = load_settings(options)
    except ConfigurationError as error:
        yield Finding(check="configuration", level=FAILING, message=str(error), repair="see docs/configuration.md")
        return
    yield Finding(check="configuration", level=OK, message=_summary(settings))
    for each in told:
        yield Finding(check="configuration", level=WARNING, message=str(each.message))
    required = sum(each.required for each in settings.destinations)
    optional = len(settings.destinations) - required
    yield from judge_destinations(settings.durability, required, optional, assumed=settings.destinations_assumed)
    yield from judge_journal(look_at_journal(settings))
    yield from _inside(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they were told above
        yield from _ways(settings, send=send, timeout_s=timeout_s)


def _summary(settings: ProviderSettings) -> str:
    names = ", ".join(each.name + ("" if each.required else " (optional)") for each in settings.destinations)
    return f"journal {settings.journal}, durability {settings.durability}, destinations: {names or 'none'}"


def _ways(settings: ProviderSettings, *, send: bool, timeout_s: float) -> Iterator[Finding]:
    for seen in look_at_ways(settings, timeout_s):
        yield from judge_reach(seen)
    if send and settings.destinations:
        for event in send_test_event(settings, timeout_s):
            yield judge_event(event)


def _inside(settings: ProviderSettings) -> Iterator[Finding]:
    """What the journal itself says: what is left in it, and what living processes wrote of themselves."""
    try:
        status = journal_status(existing_layout(settings.journal))
    except ConfigurationError:  # there is none yet
        return
    except (AuditError, OSError) as error:
        yield Finding(
            check="journal", level=FAILING, message=f"it cannot be read: {error}",
            repair="run the doctor as the user of the application",
        )  # fmt: skip
        return
    for line in what_needs_attention(status):
        yield Finding(check="journal", level=WARNING, message=line, repair="see `otel-audit status`")


def _show(found: list[Finding]) -> None:
    out = console()
    width = max(len(each.level) for each in found)
    for each in found:
        style = _STYLES[each.level]
        line = Text.assemble(
            (each.level.ljust(width), style), "  ", (f"{safe(each.check)}: ", "bold"), safe(each.message)
        )
        out.print(line, soft_wrap=True)
        if each.repair and each.level != OK:
            out.print(Text(f"{' ' * width}  → {safe(each.repair)}", style=style), soft_wrap=True)
