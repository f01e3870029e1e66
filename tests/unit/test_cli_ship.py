"""``otel-audit ship`` and ``destination``: where to, and for whom nobody waits any more."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from otel_audit.cli.app import app
from otel_audit.journal.layout import Layout
from otel_audit.journal.ledger import retire_destination
from support.cli import clean_environment, emit, on_a_terminal, provide, require, run, run_apart, run_json, stream_of


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where the journal of a test is."""
    return tmp_path / "journal"


# -- ship -------------------------------------------------------------------------------------------------------


def test_there_has_to_be_a_destination(capsys: pytest.CaptureFixture[str], journal: Path, monkeypatch: Any) -> None:
    """Where the configuration has no destination, ship says how to give one."""
    emit(journal, "a.b")
    monkeypatch.setenv("OTEL_AUDIT_DESTINATIONS", "none")
    assert run("ship", "--once", "--journal", journal) == 2
    assert "--destination NAME=SPEC" in capsys.readouterr().err


def test_a_strange_destination_is_warned_of(journal: Path, tmp_path: Path) -> None:
    """A name that the journal does not know gets everything again: that is said before it is done."""
    emit(journal, "a.b", "c.d")
    require(journal, "collector")
    done = run_apart(
        "ship", "--once", "--json", "--journal", journal, "--destination", f"colector=file:{tmp_path / 'out'}"
    )
    assert done.returncode == 0
    assert "destination colector is new to this journal, which knows collector" in done.stderr
    (shipped,) = json.loads(done.stdout)["destinations"]
    assert (shipped["name"], shipped["delivered"], shipped["pending"]) == ("colector", 4, 0)


def test_the_configuration_file_says_where_to(journal: Path, tmp_path: Path) -> None:
    """--config names destinations and retention; what is within the retention stays."""
    emit(journal, "a.b")
    require(journal, "archive")
    config = tmp_path / "ship.toml"
    config.write_text(f'retention = "1h"\n[destinations.archive]\ntype = "file"\npath = "{tmp_path / "out.jsonl"}"\n')
    done = run_apart("ship", "--once", "--journal", journal, "--config", config)
    assert done.returncode == 0, done.stderr
    assert "archive" in done.stdout
    lines = (tmp_path / "out.jsonl").read_text().splitlines()
    assert [json.loads(line)["event_name"] for line in lines][1] == "a.b"
    assert list(stream_of(journal).glob("0*.jsonl"))
    config.write_text(config.read_text().replace("1h", "0s"))
    assert run_apart("ship", "--once", "--journal", journal, "--config", config).returncode == 0
    assert not list((journal / "streams").iterdir())


# -- destination ------------------------------------------------------------------------------------------------


def test_destinations_are_listed(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """Those that are required, those with a cursor, with dead letters, and those that are retired."""
    emit(journal, "a.b")
    emit(journal, "c.d")
    require(journal, "collector", "gone")
    stream = next((journal / "streams").iterdir())
    (stream / "cursors" / "optional").write_text('{"acknowledged": 2, "delivered": 2}')
    (journal / "dead-letters" / "refused.jsonl").write_text("{}\n")
    retire_destination(Layout(journal), "gone")
    listed = run_json(capsys, "destination", "list", "--journal", journal)
    known = {each["name"]: each for each in listed["destinations"]}
    assert list(known) == ["collector", "gone", "optional", "refused"]
    assert (known["collector"]["required_by"], known["collector"]["pending"]) == (2, 6)
    assert known["collector"]["oldest_pending_age_s"] >= 0
    assert (known["optional"]["streams"], known["optional"]["required_by"], known["optional"]["pending"]) == (1, 0, 1)
    assert known["refused"]["dead_letters"] == 1
    assert (known["gone"]["retired"], known["gone"]["pending"]) == (True, None)
    assert run("destination", "list", "--journal", journal) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in known)


def is_retired(journal: Path, name: str = "archive") -> bool:
    """Whether a destination is."""
    return (journal / "retired" / name).exists()


@pytest.fixture
def with_archive(journal: Path) -> Path:
    """A journal whose stream waits for ``archive``."""
    emit(journal, "a.b", "c.d")
    require(journal, "archive")
    return journal


def test_retiring_says_what_is_given_up(capsys: pytest.CaptureFixture[str], with_archive: Path) -> None:
    """With --yes it retires, and says how many records nobody waits for any more; a second time changes nothing."""
    document = run_json(capsys, "destination", "retire", "archive", "--yes", "--journal", with_archive)
    assert (document["retired"], document["no_longer_waited_for"]) == ("archive", 4)
    assert is_retired(with_archive)
    mark = (with_archive / "retired" / "archive").read_bytes()
    assert run("destination", "retire", "archive", "-y", "--journal", with_archive) == 0
    assert "is retired already" in capsys.readouterr().err
    assert (with_archive / "retired" / "archive").read_bytes() == mark


def test_retiring_asks(with_archive: Path) -> None:
    """On a terminal the question comes after the counts; no means no, with exit code 1; yes retires."""
    said = on_a_terminal("destination", "retire", "archive", "--journal", with_archive, answer=b"n\n")
    assert "4 records" in said
    assert "1 streams would no longer be waited for by destination archive" in said
    assert "exit code 1" in said
    assert not is_retired(with_archive)
    said = on_a_terminal("destination", "retire", "archive", "--journal", with_archive, answer=b"y\n")
    assert "exit code 0" in said
    assert is_retired(with_archive)


def test_retiring_needs_somebody_to_ask(with_archive: Path) -> None:
    """Where stdin is no terminal, nothing is retired without --yes."""
    done = CliRunner().invoke(app, ["destination", "retire", "archive", "--journal", str(with_archive)], input="y\n")
    assert "give --yes" in str(done.exception)
    done = run_apart("destination", "retire", "archive", "--journal", with_archive)
    assert done.returncode == 2
    assert "give --yes" in done.stderr.splitlines()[-1]
    assert not is_retired(with_archive)


def test_retiring_a_stranger_is_a_mistake(capsys: pytest.CaptureFixture[str], with_archive: Path) -> None:
    """A name that the journal does not know is refused, and the nearest is suggested."""
    assert run("destination", "retire", "archiv", "--yes", "--journal", with_archive) == 2
    assert "did you mean 'archive'?" in capsys.readouterr().err
    assert not is_retired(with_archive, "archiv")


def test_retiring_keeps_the_journals_permissions(journal: Path) -> None:
    """What is made in a journal has the permissions of the journal, not those of the default."""
    group = next(iter({*os.getgroups(), os.getgid()}))
    emit(journal, "a.b", mode=0o640, group=group)
    require(journal, "archive")
    assert run("destination", "retire", "archive", "--yes", "--journal", journal) == 0
    assert (journal / "retired").stat().st_mode & 0o7777 == 0o2750
    assert (journal / "retired").stat().st_gid == group
    assert (journal / "retired" / "archive").stat().st_gid == group
    assert (journal / "retired" / "archive").stat().st_mode & 0o777 == 0o640


def test_retiring_warns_of_the_living(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """Where a living process delivers to it, that is said: it goes on until it is configured otherwise."""
    with provide(journal, destinations={"archive": {"type": "file", "path": str(journal.parent / "out")}}) as living:
        living.get_audit_logger().emit("a.b", actor="u-1", outcome="success")
        assert run("destination", "retire", "archive", "--yes", "--journal", journal) == 0
    assert f"living processes deliver to it ({os.getpid()})" in capsys.readouterr().err
