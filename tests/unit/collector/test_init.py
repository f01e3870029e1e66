"""``otel-audit collector init`` writes what the repository tests, over nothing, and says what has to be set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from otel_audit.collector.start import Kind, templates, variables
from support.cli import everything_in, run

ROOT = Path(__file__).parents[3] / "collector-config"


@pytest.mark.parametrize("kind", Kind)
def test_it_writes_what_the_repository_has(tmp_path: Path, kind: Kind) -> None:
    """Each configuration of the kind, with the same values, and no word of how the repository puts them together."""
    assert run("collector", "init", kind.value, "--to", tmp_path / "new") == 0
    shipped = sorted((ROOT / kind.value).glob("*.yaml"))
    assert sorted(path.name for path in (tmp_path / "new").glob("*.yaml")) == [path.name for path in shipped]
    for path in shipped:
        text = (tmp_path / "new" / path.name).read_text()
        assert yaml.safe_load(text) == yaml.safe_load(path.read_text())
        assert not [line for line in text.splitlines() if "assemble.py" in line or "parts/" in line or ">>>" in line]


@pytest.mark.parametrize("kind", Kind)
def test_what_it_writes_is_clean(tmp_path: Path, kind: Kind) -> None:
    """The linter finds nothing in it."""
    assert run("collector", "init", kind.value, "--to", tmp_path) == 0
    assert run("collector", "lint", *tmp_path.glob("*.yaml"), "--fail-on", "note") == 0


def test_a_chain_of_them_is_clean(tmp_path: Path) -> None:
    """Agent, gateway and the gateway into Kafka fit each other."""
    for kind in ("agent", "gateway", "scale-out"):
        assert run("collector", "init", kind, "--to", tmp_path / kind) == 0
    agent = tmp_path / "agent" / "forward.yaml"
    for gateway in (tmp_path / "gateway" / "config.yaml", tmp_path / "scale-out" / "gateway.yaml"):
        assert run("collector", "lint", "--chain", agent, gateway, "--fail-on", "note") == 0


def test_the_tables_come_along(tmp_path: Path) -> None:
    """Scale-out has the DDL that its ClickHouse exporter needs."""
    assert run("collector", "init", "scale-out", "--to", tmp_path) == 0
    assert (tmp_path / "sql" / "schema.sql").read_text() == (ROOT / "sql" / "schema.sql").read_text()


def test_it_never_writes_over_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where one of the files is there, nothing is written; with --force all are."""
    (tmp_path / "forward.yaml").write_text("mine")
    before = everything_in(tmp_path)
    assert run("collector", "init", "agent", "--to", tmp_path) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{tmp_path / 'forward.yaml'} is there already" in said.err
    assert everything_in(tmp_path) == before
    assert run("collector", "init", "agent", "--to", tmp_path, "--force") == 0
    assert "receivers:" in (tmp_path / "forward.yaml").read_text()


def test_it_says_what_has_to_be_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Variables with their defaults, those without one first; each file with what it is for."""
    assert run("collector", "init", "agent", "--to", tmp_path / "new", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    names = ["config.yaml", "forward.yaml", "relay.yaml"]
    assert document["written"] == [str(tmp_path / "new" / name) for name in names]
    taken = {each["name"]: each for each in document["variables"]}
    gateway = next(iter(taken.values()))
    assert (gateway["name"], gateway["default"]) == ("OTELCOL_GATEWAY_ENDPOINT", None)
    assert "config.yaml" not in gateway["files"]
    assert "forward.yaml" in gateway["files"]
    assert taken["OTELCOL_DATA_DIR"]["default"] == "/var/lib/otelcol-audit"
    assert "config.yaml" in taken["OTELCOL_DATA_DIR"]["files"]
    assert run("collector", "init", "agent", "--to", tmp_path / "other") == 0
    shown = capsys.readouterr().out
    assert "An OpenTelemetry Collector beside the application" in shown
    assert "has to be set" in shown


def test_variables_in_comments_are_none_and_the_first_default_counts() -> None:
    """As in the files: the default stands wherever a variable is used."""
    one, two = "# ${env:NO}\na: ${env:B:-x} # ${env:NO:-1}\nb: ${env:A}\n", "c: ${env:B:-x}"
    found = variables({"one": one, "two": two})
    assert [(each.name, each.default, each.files) for each in found] == [
        ("A", None, ("one",)),
        ("B", "x", ("one", "two")),
    ]


@pytest.mark.parametrize("kind", Kind)
def test_every_file_says_what_it_is_for(kind: Kind) -> None:
    """The first sentence of its first comment."""
    assert all(len(each.about) > 10 for each in templates(kind))


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, and the path."""
    (tmp_path / "file").write_text("")
    assert run("collector", "init", "agent", "--to", tmp_path / "file") == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert str(tmp_path / "file") in said.err
    assert run("collector", "init", "gatway") == 2
