"""``otel-audit ship`` and ``destination``: where to, and for whom nobody waits any more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from otel_audit.cli.app import app
from otel_audit.journal.cursor import Cursor, CursorFile
from otel_audit.journal.files import OS_FILES
from otel_audit.journal.layout import Layout
from otel_audit.journal.retirement import retire_destination
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


def test_a_sidecar_needs_to_know_where_to(
    capsys: pytest.CaptureFixture[str], journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What says to an application that a sidecar serves a destination says nothing to the sidecar."""
    emit(journal, "a.b")
    monkeypatch.setenv("OTEL_AUDIT_DESTINATIONS", "collector=sidecar")
    assert run("ship", "--once", "--journal", journal) == 2
    assert "this is the sidecar: say where it goes, --destination collector=SPEC" in capsys.readouterr().err


def test_a_strange_destination_is_warned_of(journal: Path, tmp_path: Path) -> None:
    """A name that the journal does not know gets everything again: that is said before it is done."""
    emit(journal, "a.b", "c.d")
    require(journal, "collector")
    done = run_apart(
        "ship", "--once", "--json", "--journal", journal, "--destination", f"colector=file:{tmp_path / 'out'}"
    )
    assert done.returncode == 1
    assert "destination colector is new to this journal, which knows collector" in done.stderr
    document = json.loads(done.stdout)
    shipped = [(each["name"], each["delivered"], each["pending"]) for each in document["destinations"]]
    assert shipped == [("colector", 4, 0), ("collector", 0, 4)]
    assert document["complete"] is False


def test_a_forgotten_for_living_is_said(journal: Path, tmp_path: Path) -> None:
    """Living processes leave a destination to a sidecar, and this run was not told to serve them."""
    to: tuple[object, ...] = ("--journal", journal, "--destination", "collector=http://127.0.0.1:9/")
    with provide(journal, destinations={"collector": "sidecar"}) as living:
        living.get_audit_logger().emit("a.b", actor="u-1", outcome="success")
        living.journal.housekeep()
        done = run_apart("ship", "--once", "--json", *to)
        assert done.returncode == 1
        assert [each["pending"] for each in json.loads(done.stdout)["destinations"]] == [2]
        assert (
            "2 records of living processes wait for it, and this run does not serve them: --for-living" in done.stderr
        )
        with subprocess.Popen(
            [sys.executable, "-m", "otel_audit.cli", "ship", *map(str, to)], stderr=subprocess.PIPE, text=True
        ) as running:
            assert running.stderr is not None
            assert "--for-living" in running.stderr.readline()
            running.terminate()
        to = ("--journal", journal, "--destination", f"collector=file:{tmp_path / 'out'}")  # a file has one writer
        assert run_apart("ship", "--once", *to).returncode == 0


def test_an_assumed_destination_is_said(capsys: pytest.CaptureFixture[str], journal: Path, monkeypatch: Any) -> None:
    """Where nobody named one, ship takes what an application would take, and says so before anything else."""
    emit(journal, "a.b")
    require(journal, "collector")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    done = run_apart("ship", "--once", "--timeout", "0", "--journal", journal)
    assert done.returncode == 1
    assert done.stderr.startswith("otel-audit: no destination is named: it is taken to be collector=otlp")
    done = run_apart("ship", "--once", "--timeout", "0", "--journal", journal, "--destination", "collector=otlp")
    assert "no destination is named" not in done.stderr


def test_a_destination_is_not_assumed_for_a_journal_of_another(
    capsys: pytest.CaptureFixture[str], journal: Path
) -> None:
    """Records that wait for another destination are not sent to whatever listens at the default address."""
    emit(journal, "a.b")
    require(journal, "archive", "zoo")
    assert run("ship", "--once", "--journal", journal) == 2
    said = capsys.readouterr().err
    assert "this journal is for archive, zoo" in said
    assert "--destination archive=SPEC" in said


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
    CursorFile(OS_FILES, stream / "cursors" / "optional", 0o600).store(Cursor(acknowledged=2, delivered=2))
    (journal / "dead-letters" / "refused.jsonl").write_text("{}\n")
    retire_destination(Layout(journal), "gone", [path.name for path in (journal / "streams").iterdir()])
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


def test_what_the_living_require_is_not_retired(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """What they emit from now on would be let go of unseen: they have to be configured otherwise first."""
    with provide(journal, destinations={"archive": {"type": "file", "path": str(journal.parent / "out")}}) as living:
        living.get_audit_logger().emit("a.b", actor="u-1", outcome="success")
        assert run("destination", "retire", "archive", "--yes", "--journal", journal) == 2
        said = capsys.readouterr().err
    assert f"living processes require archive ({os.getpid()})" in said
    assert "Nothing was retired" in said
    assert not is_retired(journal)


def test_a_retired_destination_that_is_named_again_gets_its_records(
    capsys: pytest.CaptureFixture[str], with_archive: Path, tmp_path: Path
) -> None:
    """A process that still has it in its configuration, or has it again, loses nothing; it is not shown as retired."""
    assert run("destination", "retire", "archive", "--yes", "--journal", with_archive) == 0
    capsys.readouterr()
    down = {"archive": {"type": "http", "url": "http://127.0.0.1:9/"}}
    with provide(with_archive, destinations=down, exit_timeout=0) as living:
        living.get_audit_logger().emit("e.f", actor="u-1", outcome="success")
        living.journal.housekeep()
        living.shutdown(0)
    (known,) = run_json(capsys, "destination", "list", "--journal", with_archive)["destinations"]
    assert (known["retired"], known["streams"], known["pending"]) == (False, 1, 3)
    out = tmp_path / "out.jsonl"
    with provide(with_archive, destinations={"archive": f"file:{out}"}) as next_one:
        assert next_one.flush(20)
    assert [json.loads(line)["event_name"] for line in out.read_text().splitlines()][1] == "e.f"


def test_what_a_filter_passes_over_is_not_left(
    capsys: pytest.CaptureFixture[str], journal: Path, tmp_path: Path
) -> None:
    """``ship`` applies the filter of its configuration, counts apart, and is done."""
    emit(journal, "user.login", "order.create", "user.logout")
    require(journal, "archive")
    config = tmp_path / "audit.toml"
    lines = ["[destinations.archive]", 'type = "file"', f'path = "{tmp_path / "out.jsonl"}"', "allow_filtered = true"]
    config.write_text("\n".join([*lines, 'filter = { events = ["user.*"], control = false }']))
    done = run_json(capsys, "ship", "--once", "--journal", journal, "--config", config)
    (archive,) = done["destinations"]
    assert done["complete"]
    assert (archive["delivered"], archive["filtered"], archive["pending"]) == (2, 3, 0)
    names = [json.loads(line)["event_name"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert names == ["user.login", "user.logout"]
    assert list((journal / "streams").iterdir()) == [], "what nobody is to have does not stay for ever"
