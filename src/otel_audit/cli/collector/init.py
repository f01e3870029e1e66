"""``otel-audit collector init``: writes a configuration to start from; never over one that is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from ...collector.start import Kind, Template, Variable, templates, variables
from ...errors import ConfigurationError
from ..locate import JsonOption
from ..output import console, row, safe, table, write_json


def init(
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help="agent, gateway, scale-out.", show_default=False)],
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Where to write; else ./KIND.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    json: JsonOption = False,
) -> None:
    """Write Collector configurations to start from, and say which variables they take.

    They are those that otel-audit is tested with. Exit codes: 0, written; 2, one is there already.
    """
    directory = to or Path(kind.value)
    made = templates(kind)
    there = [directory / each.name for each in made if (directory / each.name).exists()]
    if there and not force:
        raise ConfigurationError(
            f"collector init: {', '.join(map(str, there))} {'is' if len(there) == 1 else 'are'} there already; "
            "choose another directory with --to, or write over with --force"
        )
    for each in made:
        _write(directory / each.name, each.text, force=force)
    needed = variables({each.name: each.text for each in made if each.name.endswith(".yaml")})
    if json:
        write_json(
            {
                "written": [str(directory / each.name) for each in made],
                "variables": [{"name": each.name, "default": each.default, "files": each.files} for each in needed],
            }
        )
    else:
        _show(directory, made, needed)


def _write(path: Path, text: str, *, force: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w" if force else "x", encoding="utf-8") as file:
        file.write(text)


def _show(directory: Path, made: list[Template], needed: list[Variable]) -> None:
    out = console()
    for each in made:
        out.print(Text.assemble((safe(directory / each.name), "bold"), f"  {each.about}"), soft_wrap=True)
    out.print()
    shown = table("Variable", "Default", "In")
    for variable in needed:
        default = Text("has to be set", style="yellow") if variable.default is None else variable.default
        shown.add_row(*row(variable.name, default, ", ".join(variable.files)))
    out.print(shown)
