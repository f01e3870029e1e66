"""``otel-audit collector check``: sends marked records through a chain that runs, and says where each arrived."""

from __future__ import annotations

import contextlib
import os
import secrets
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from ...collector.check.check import Outcome, run_check
from ...collector.check.marks import APP, AUDIT, KINDS, pattern
from ...collector.check.sending import Sender
from ...collector.check.sinks import open_sink
from ...errors import ConfigurationError
from ..locate import JsonOption
from ..output import ATTENTION, FINE, console, row, safe, say, table, write_json


def check(
    audit: Annotated[
        list[str] | None,
        typer.Option(
            "--audit",
            metavar="SINK",
            show_default=False,
            help="Where audit records end: a file of the file exporter, or listen:HOST:PORT; several are possible.",
        ),
    ] = None,
    app: Annotated[
        list[str] | None,
        typer.Option("--app", metavar="SINK", help="Where application logs end.", show_default=False),
    ] = None,
    endpoint: Annotated[
        str | None,
        typer.Option(
            "--endpoint", metavar="URL", help="The first hop; else OTEL_EXPORTER_OTLP_ENDPOINT.", show_default=False
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            metavar="PROTOCOL",
            help="http/protobuf or grpc; else OTEL_EXPORTER_OTLP_PROTOCOL.",
            show_default=False,
        ),
    ] = None,
    audit_only: Annotated[
        bool, typer.Option("--audit-only", help="Send no application log: the endpoint takes audit records only.")
    ] = False,
    count: Annotated[int, typer.Option("--count", metavar="N", min=1, max=10_000, help="Records of each kind.")] = 10,
    timeout: Annotated[
        float,
        typer.Option("--timeout", metavar="S", min=0.1, max=86_400, help="How long to wait for them, in seconds."),
    ] = 30.0,
    settle: Annotated[
        float,
        typer.Option("--settle", metavar="S", min=0, max=86_400, help="How long to look for what must not arrive."),
    ] = 2.0,
    json: JsonOption = False,
) -> None:
    """Send marked records through Collectors that run, and say where each arrived.

    One request mixes audit records, audit records without a name or without an id, and application logs. Exit codes: 0,
    everything was acknowledged, and arrived where it belongs and nowhere else; 1, it did not; 2, wrong usage.
    """  # fmt: skip
    if not audit:
        raise ConfigurationError(
            "collector check: name with --audit where audit records end: a file, or listen:HOST:PORT"
        )
    run = secrets.token_hex(6)
    kinds = [kind for kind in KINDS if not (audit_only and kind.belongs_to == APP)]
    with contextlib.ExitStack() as opened:
        given = {name: text for name, text in (("endpoint", endpoint), ("protocol", protocol)) if text is not None}
        sender = opened.enter_context(contextlib.closing(Sender(given, os.environ)))
        sinks = [
            (role, opened.enter_context(contextlib.closing(open_sink(text, pattern(run)))))
            for role, texts in ((AUDIT, audit), (APP, app or ()))
            for text in texts
        ]
        say(f"sending {len(kinds) * count} records to {sender.url}, marked {run}; waiting up to {timeout:g} s")
        found = run_check(run, sender.send, sinks, kinds, count=count, timeout_s=timeout, settle_s=settle)
    if json:
        arrivals = [{**asdict(each), "right": each.right} for each in found.arrivals]
        document = {"run": run, "endpoint": sender.url, "refused": found.refused or None, "arrivals": arrivals}
        write_json({**document, "waited_s": found.waited_s, "right": found.right})
    else:
        _show(found)
    raise typer.Exit(FINE if found.right else ATTENTION)


def _show(found: Outcome) -> None:
    out = console()
    shown = table("Records", "Looked for in", "#Expected", "#Arrived", "#Again", "")
    for each in found.arrivals:
        if each.right:
            verdict = Text("as it should be", style="green")
        elif each.arrived < each.expected:
            verdict = Text(f"{each.expected - each.arrived} missing", style="red")
        else:
            verdict = Text(f"{each.arrived} that do not belong there", style="red")
        where = f"{each.role}: {each.sink}"
        shown.add_row(*row(each.kind, where, each.expected, each.arrived, each.duplicates, verdict))
    out.print(shown)
    out.print()
    if found.refused:
        out.print(Text(f"! not acknowledged: {safe(found.refused)}", style="red"), soft_wrap=True)
    astray = any(each.role == AUDIT and each.arrived > each.expected for each in found.arrivals)
    if astray and not found.refused:
        out.print(Text("> where the endpoint takes audit records only, say --audit-only", style="yellow"))
    if found.right:
        out.print(Text(f"Everything arrived where it belongs, after {found.waited_s:.1f} s.", style="green"))
