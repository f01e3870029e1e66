"""The page about configuration has every option, as the code has it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from otel_audit.delivery.selection import FILTER_OPTIONS
from otel_audit.exporters import EXPORTERS, exporter_class
from otel_audit.exporters.credentials import AUTH_OPTIONS
from otel_audit.options import REQUIRED, Option
from otel_audit.settings import DESTINATION_OPTIONS, OPTIONS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"

TABLES: dict[str, Iterable[Option]] = {
    "configure": OPTIONS,
    "destination": DESTINATION_OPTIONS,
    "auth": AUTH_OPTIONS,
    "filter": FILTER_OPTIONS,
    **{name: exporter_class(name).OPTIONS for name in EXPORTERS},
}


def table(options: Iterable[Option]) -> str:
    """A table of options as the page has it."""
    lines = ["| option | kind | default | |", "|---|---|---|---|"]
    for option in options:
        kind = " / ".join(option.choices) if option.kind == "enum" else option.kind
        lines.append(f"| `{option.name}` | {kind} | {_default(option)} | {option.doc} |")
    return "\n".join(lines) + "\n"


def _default(option: Option) -> str:
    if option.default is REQUIRED:
        return "has to be given"
    if option.default in (None, (), {}):
        return "–"
    if option.name == "mode" and isinstance(option.default, int):
        return f"`{option.default:#o}`"
    if option.kind == "size" and option.default % 1024 == 0:
        power = 3 if option.default % 1024**3 == 0 else 2 if option.default % 1024**2 == 0 else 1
        return f"`{option.default // 1024**power}{'KMG'[power - 1]}iB`"
    return f"`{option.default}`"


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_the_table(name: str) -> None:
    """Each option stands there with its kind, its default and what it does."""
    expected = table(TABLES[name])
    assert expected in PAGE.read_text(encoding="utf-8"), f"docs/configuration.md must contain:\n{expected}"
