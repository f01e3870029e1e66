"""The page about configuration has every option, as the code has it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from otel_audit.delivery.selection import FILTER_OPTIONS
from otel_audit.exporters import EXPORTERS, PRESETS, exporter_class
from otel_audit.exporters.credentials import AUTH_OPTIONS
from otel_audit.exporters.http_client import HTTP_OPTIONS
from otel_audit.options import REQUIRED, Option
from otel_audit.settings import DESTINATION_OPTIONS, OPTIONS, load_settings

PAGE = Path(__file__).resolve().parents[2] / "docs" / "configuration.md"
DESTINATIONS = PAGE.with_name("destinations.md")

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


@pytest.mark.parametrize("kind", PRESETS)
def test_the_page_of_destinations_has_every_preset(kind: str) -> None:
    """Its own options, and in the table at the top what its acknowledgement is worth."""
    page = DESTINATIONS.read_text(encoding="utf-8")
    expected = table([option for option in exporter_class(kind).OPTIONS if option not in HTTP_OPTIONS])
    assert expected in page, f"docs/destinations.md must contain:\n{expected}"
    assert f'type = "{kind}"' in page or f"`{kind}`" in page


@pytest.mark.parametrize("text", re.findall(r"```toml\n(.*?)```", DESTINATIONS.read_text(encoding="utf-8"), re.DOTALL))
def test_a_configuration_of_the_page_can_be_copied(text: str, tmp_path: Path) -> None:
    """Into a file that is read as every configuration is; only the secrets have to be put where it says."""
    for path in re.findall(r"\"(/[^\"]+)\"", text):
        there = tmp_path / Path(path).name
        there.write_text("a-secret")
        text = text.replace(path, str(there))
    file = tmp_path / "audit.toml"
    file.write_text(text, encoding="utf-8")
    signing = "whsec_" + "QUJD" * 12
    environ = dict.fromkeys(re.findall(r"env = \"(\w+)\"", text), signing)
    settings = load_settings({"config_file": str(file), "journal": str(tmp_path / "journal")}, environ)
    [made] = settings.destinations
    exporter = made.make_exporter()
    assert signing not in repr(exporter)
    exporter.close()
