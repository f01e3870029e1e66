"""``otel-audit collector lint``: what in a Collector's configuration loses audit records, and how to repair it."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ...collector.files import read_beside, read_source
from ...collector.finding import Finding
from ...collector.lint import Linted
from ...collector.lint import lint as look_at
from ...collector.rules import RULES, Severity
from ...collector.sarif import to_sarif
from ...collector.shipped import rule_pages
from ...errors import ConfigurationError
from ...options import suggestion
from ..locate import JsonOption
from ..output import ATTENTION, FINE, console, safe, write_json

_STYLES = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}


def lint(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE", help="Configurations, each of a Collector of its own; - is stdin.", show_default=False
        ),
    ] = None,
    merge: Annotated[
        bool, typer.Option("--merge", help="All files are one configuration, merged in this order.")
    ] = False,
    chain: Annotated[
        bool, typer.Option("--chain", help="The files are hops that follow one another, the application's first.")
    ] = False,
    audit: Annotated[
        list[str] | None,
        typer.Option(
            "--audit", metavar="PIPELINE", help="Audit records enter here; else found by names.", show_default=False
        ),
    ] = None,
    fail_on: Annotated[
        Severity, typer.Option("--fail-on", help="The least severity that makes exit code 1.")
    ] = Severity.WARNING,
    json: JsonOption = False,
    sarif: Annotated[bool, typer.Option("--sarif", help="Write SARIF 2.1.0 on stdout.")] = False,
    explain: Annotated[
        str | None,
        typer.Option("--explain", metavar="RULE", help="Say what a rule is about, and end.", show_default=False),
    ] = None,
    rules: Annotated[bool, typer.Option("--rules", help="List the rules, and end.")] = False,
) -> None:
    """Look for what loses audit records in configurations of OpenTelemetry Collectors.

    Variables are taken from the environment, else they have their defaults; what cannot be known is held against
    nobody, and said. Exit codes: 0, nothing was found; 1, something was; 2, a file is no Collector configuration.
    """
    if explain is not None:
        _explain(explain)
        return
    if rules:
        _list_rules(json=json)
        return
    if not files:
        raise ConfigurationError("collector lint: name at least one FILE")
    if json and sarif:
        raise ConfigurationError("collector lint: --json or --sarif, not both")
    stdin = sys.stdin.read() if "-" in files else None
    sources = [read_source(file, stdin) for file in files]
    configurations = [sources] if merge else [[source] for source in sources]
    found = look_at(configurations, os.environ, read_file=read_beside, audit=audit or (), chain=chain)
    findings = [finding for linted in found for finding in linted.findings]
    if sarif:
        write_json(to_sarif(findings, rule_pages()))
    elif json:
        write_json({"configurations": [_document(linted) for linted in found], "counts": _counts(findings)})
    else:
        _show(console(), found)
    worst = max((finding.severity.rank for finding in findings if not finding.ignored), default=-1)
    raise typer.Exit(ATTENTION if worst >= fail_on.rank else FINE)


def _counts(findings: Sequence[Finding]) -> dict[str, int]:
    counted = Counter("ignored" if finding.ignored else finding.severity.value for finding in findings)
    return {name: counted[name] for name in ("error", "warning", "note", "ignored")}


def _document(linted: Linted) -> dict[str, Any]:
    return {
        "files": linted.files,
        "audit_pipelines": linted.audit_pipelines,
        "assumed": linted.assumed,
        "unknown": [{"reference": text, "file": at.file, "line": at.line} for text, at in linted.unknown.items()],
        "findings": [_flat(each) for each in linted.findings],
    }


def _flat(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "severity": finding.severity.value,
        "file": finding.place.file,
        "line": finding.place.line,
        "path": finding.path,
        "reason": finding.reason,
        "repair": finding.repair,
        "loses": finding.loses,
        "ignored": finding.ignored or None,
    }


def _show(out: Console, found: Sequence[Linted]) -> None:
    for linted in found:
        for finding in linted.findings:
            _show_finding(out, finding)
        _show_judgement(out, linted)
    counts = _counts([finding for linted in found for finding in linted.findings])
    said = ", ".join(
        f"{count} {name}{'' if name == 'ignored' or count == 1 else 's'}" for name, count in counts.items() if count
    )
    out.print(Text(said or "Nothing was found.", style="bold" if said else "green"))


def _show_finding(out: Console, finding: Finding) -> None:
    if finding.ignored:
        line = f"{finding.place}: ignored: {finding.rule}: {finding.ignored}"
        out.print(Text(safe(line), style="dim"), soft_wrap=True)
        return
    style = _STYLES[finding.severity]
    head = Text.assemble(
        (safe(f"{finding.place}: "), "bold"), (finding.severity.value, style), f": {safe(finding.reason)} ",
        (f"[{finding.rule}]", "dim"),
    )  # fmt: skip
    out.print(head, soft_wrap=True)
    if finding.path:
        out.print(Text(f"    at      {safe(finding.path)}"), soft_wrap=True)
    out.print(Text(f"    repair  {safe(finding.repair)}"), soft_wrap=True)


def _show_judgement(out: Console, linted: Linted) -> None:
    """How it was decided, for whoever wonders why something was found, or was not."""
    name = " + ".join(linted.files)
    if linted.assumed:
        what = "nothing is named audit, so every logs pipeline is taken to carry audit records; say which with --audit"
    else:
        what = "audit records pass " + ", ".join(f"{each} ({why})" for each, why in linted.audit_pipelines.items())
    out.print(Text(safe(f"{name}: {what}"), style="dim"), soft_wrap=True)
    if linted.unknown:
        what = f"not known here, and held against nobody: {', '.join(linted.unknown)}"
        out.print(Text(safe(f"{name}: {what}"), style="dim"), soft_wrap=True)


def _explain(name: str) -> None:
    if name not in RULES:
        raise ConfigurationError(f"collector lint: there is no rule {name!r}; {suggestion(name, RULES)}")
    console().print(Text(f"{name}: {RULES[name].title}\n\n{rule_pages()[name]}"), soft_wrap=True)


def _list_rules(*, json: bool) -> None:
    listed = [
        {"rule": each.id, "severity": each.severity.value, "loses": each.loses, "title": each.title}
        for each in sorted(RULES.values(), key=lambda each: (-each.severity.rank, each.id))
    ]
    if json:
        write_json({"rules": listed})
        return
    out = console()
    for each in listed:
        loses = "loses" if each["loses"] else ""
        out.print(Text(f"{each['rule']:30} {each['severity']:8} {loses:6} {each['title']}"), soft_wrap=True)
