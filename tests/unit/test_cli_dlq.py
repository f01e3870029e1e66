"""``otel-audit dlq``: letters as people see them, and sending them again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_audit.delivery.shipper import Shipper, drain
from otel_audit.testing import ScriptedReceiver
from support.cli import clean_environment, everything_in, on_a_terminal, run, run_json
from support.delivery import Sink, append, destination, make_journal


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """A journal in which ``archive`` refused two records, and took all others."""
    made = make_journal(tmp_path / "journal", required=["archive"])
    append(made, 2)
    bad = append(made, 2, note="bad \x1b[31m")
    shipper = Shipper(made, destination(Sink(refuses=lambda record: record.record_id in bad), "archive"))
    assert drain(shipper, timeout_s=20)
    shipper.close()
    made.close()
    return tmp_path / "journal"


@pytest.fixture
def receiver() -> Iterator[ScriptedReceiver]:
    """An OTLP receiver that takes everything."""
    with ScriptedReceiver() as running:
        yield running


def listed(capsys: pytest.CaptureFixture[str], journal: Path, *more: str) -> list[dict[str, object]]:
    """The letters that ``dlq list`` shows."""
    letters: list[dict[str, object]] = run_json(capsys, "dlq", "list", *more, "--journal", journal)["letters"]
    return letters


def test_list_shows_what_was_refused_and_why(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """For people and as JSON; it changes nothing."""
    before = everything_in(journal)
    letters = listed(capsys, journal)
    assert [(each["destination"], each["state"], each["reason"], each["status"]) for each in letters] == [
        ("archive", "open", "one of them is bad", 400)
    ] * 2
    assert run("dlq", "list", "archive", "--journal", journal) == 0
    shown = capsys.readouterr().out
    for word in ("archive", "user.login", "open", "one of them is bad", str(letters[0]["record_id"])):
        assert word in shown
    assert everything_in(journal) == before


def test_no_letters_are_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An empty list is an answer, not a mistake."""
    append(make_journal(tmp_path / "journal"), 1)
    assert run("dlq", "list", "--journal", tmp_path / "journal") == 0
    assert "There are no dead letters" in capsys.readouterr().out


def test_show_has_the_whole_record(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """Everything that is needed to see what was wrong; a record cannot steer the terminal."""
    record_id = str(listed(capsys, journal)[0]["record_id"])
    (letter,) = run_json(capsys, "dlq", "show", record_id, "--journal", journal)["letters"]
    assert letter["record"]["record_id"] == record_id
    assert letter["record"]["resource"] == {"service.name": "test"}
    assert letter["steps"] == []
    shown = on_a_terminal("dlq", "show", record_id, "--journal", journal)
    assert "exit code 0" in shown
    assert "bad \\" in shown
    assert "\x1b[31m" not in shown


def test_replay_delivers_and_says_so(
    capsys: pytest.CaptureFixture[str], journal: Path, receiver: ScriptedReceiver
) -> None:
    """Over real HTTP; afterwards nothing needs attention, and a second run sends nothing."""
    config = journal.parent / "audit.toml"
    config.write_text(f'[destinations.archive]\ntype = "otlp"\nendpoint = "{receiver.url}"\n')
    ids = [each["record_id"] for each in listed(capsys, journal)]
    assert run_json(capsys, "status", "--journal", journal, code=1)["dead_letters"] == {"archive": 2}
    arguments = ("dlq", "replay", "archive", "--journal", journal, "--config", config)
    done = run_json(capsys, *arguments)
    assert (done["delivered"], done["from"], done["to"], done["left"]) == (2, "archive", "archive", 0)
    assert [record.record_id for record in receiver.records] == ids
    assert run_json(capsys, "status", "--journal", journal)["dead_letters"] == {"archive": 0}
    assert listed(capsys, journal) == []
    assert [each["state"] for each in listed(capsys, journal, "--all")] == ["delivered", "delivered"]
    done = run_json(capsys, *arguments)
    assert (done["delivered"], done["skipped"]) == (0, 2)
    assert len(receiver.records) == 2
    assert run_json(capsys, *arguments, ids[0], "--again")["delivered"] == 1
    assert len(receiver.records) == 3


def test_a_letter_that_was_changed_is_not_sent(
    capsys: pytest.CaptureFixture[str], journal: Path, receiver: ScriptedReceiver
) -> None:
    """What is not what was journaled is no audit record; and what cannot be read is said, not passed over."""
    letters = journal / "dead-letters" / "archive.jsonl"
    first, second = letters.read_bytes().splitlines(keepends=True)
    target = ("--journal", journal, "--destination", f"archive={receiver.url}")
    letters.write_bytes(first.replace(b"user.login", b"user.logon") + b"\0" * 40 + second[40:])
    assert [each["state"] for each in listed(capsys, journal)] == ["damaged"]
    assert run("dlq", "list", "--journal", journal) == 0
    assert f"1 lines of {letters} cannot be read" in capsys.readouterr().err
    for more in ((), ("--again",)):
        assert run_json(capsys, "dlq", "replay", "archive", *target, *more, code=1)["damaged"] == 1
    assert receiver.requests == []
    letters.write_bytes(b"\0" * 40 + first[40:] + second)
    assert run_json(capsys, "dlq", "replay", "archive", *target, code=1)["delivered"] == 1
    assert run_json(capsys, "status", "--journal", journal, code=1)["dead_letters"] == {"archive": 1}


def test_the_half_that_a_crash_left_is_not_missing(
    capsys: pytest.CaptureFixture[str], journal: Path, receiver: ScriptedReceiver
) -> None:
    """Its record was buried again, whole."""
    letters = journal / "dead-letters" / "archive.jsonl"
    first, second = letters.read_bytes().splitlines(keepends=True)
    letters.write_bytes(first + second[:-40] + b"\n" + second)
    assert len(listed(capsys, journal)) == 2
    assert run("dlq", "list", "--journal", journal) == 0
    assert "cannot be read" not in capsys.readouterr().err
    target = ("--journal", journal, "--destination", f"archive={receiver.url}")
    assert run_json(capsys, "dlq", "replay", "archive", *target)["delivered"] == 2
    assert run_json(capsys, "status", "--journal", journal)["dead_letters"] == {"archive": 0}


def test_replay_to_another_destination(capsys: pytest.CaptureFixture[str], journal: Path, tmp_path: Path) -> None:
    """Into a file, given on the command line."""
    file = tmp_path / "letters.jsonl"
    arguments = ("dlq", "replay", "archive", "--to", "local", "--destination", f"local=file:{file}")
    assert run(*arguments, "--journal", journal) == 0
    assert len(file.read_text().splitlines()) == 2
    assert "Delivered" in capsys.readouterr().out


def test_a_destination_that_does_not_answer_leaves_them(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """Exit code 1; what is left, and why."""
    arguments = ("dlq", "replay", "archive", "--destination", "archive=http://127.0.0.1:9/v1", "--timeout", "0.2")
    assert run(*arguments, "--journal", journal) == 1
    said = capsys.readouterr().err
    assert "2 are left" in said
    assert "127.0.0.1:9" in said
    assert [each["state"] for each in listed(capsys, journal)] == ["open", "open"]


def test_export_has_the_bytes_that_were_hashed(
    capsys: pytest.CaptureFixture[str], journal: Path, tmp_path: Path
) -> None:
    """Each line verifies by itself; a file that is there is not overwritten."""
    capsys.readouterr()
    assert run("dlq", "export", "--journal", journal) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    for line in lines:
        letter = json.loads(line)
        start = line.index('"record":') + len('"record":')
        canonical = line[start : line.index(',"resource":', start)]
        assert hashlib.sha256(canonical.encode()).hexdigest() == letter["sha256"]
        assert letter["state"] == "open"
    file = tmp_path / "letters.jsonl"
    assert run("dlq", "export", "archive", "--journal", journal, "--output", file) == 0
    assert file.stat().st_mode & 0o077 == 0, "as private as the journal"
    assert file.read_text().splitlines() == lines
    assert run("dlq", "export", "archive", "--journal", journal, "--output", file) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("list", "archiv"), "did you mean 'archive'"),
        (("show", "no-such-record"), "there is no dead letter of record"),
        (("export", "collector"), "there are no dead letters of 'collector'"),
        (("replay", "archive", "--destination", "other=otlp"), "destination 'archive' is not configured"),
        (("replay", "archive", "nothing", "--destination", "archive=otlp"), "no dead letter of record 'nothing'"),
        (("replay", "archive", "--destination", "archive"), "must be NAME=SPEC"),
        (("replay", "archive", "--destination", "archive=nonsense"), "is none of 'otlp'"),
        (("replay", "archive"), "destination 'archive' is not configured; there are none. Give it with"),
        (("replay",), "Missing argument"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], journal: Path, arguments: tuple[str, ...], says: str
) -> None:
    """Exit code 2, and nothing is sent or changed."""
    before = everything_in(journal)
    assert run("dlq", *arguments, "--journal", journal) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert len(said.err.splitlines()) == 1
    assert "Traceback" not in said.err
    assert everything_in(journal) == before
