"""The command line as a whole: mistakes, help, which journal is meant, and that its page is complete."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from otel_audit.cli.app import app
from otel_audit.cli.output import age, safe, size
from support.cli import clean_environment, emit, everything_in, require, run, run_apart, run_json, stream_of
from support.journal import needs

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where the journal of a test is."""
    return tmp_path / "journal"


# -- mistakes ---------------------------------------------------------------------------------------------------


def test_without_the_extra_it_says_what_to_install() -> None:
    """Where typer is not installed, one line says how to install it, and the exit code is not 0."""
    for missing in ("typer", "rich"):
        script = f"import sys; sys.modules[{missing!r}] = None; from otel_audit.cli import main; sys.exit(main())"
        done = run_apart("status", script=script)
        assert done.returncode == 2
        assert done.stdout == ""
        assert len(done.stderr.splitlines()) == 1
        assert "pip install 'otel-audit[cli]'" in done.stderr
        assert missing in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("stats",), "No such command"),
        (("status", "--jornal", "x"), "No such option"),
        (("status", "surplus"), "unexpected extra argument"),
        (("tail", "-n", "many"), "Invalid value for '--last'"),
        (("tail", "-n", "-1"), "Invalid value for '--last'"),
        (("ship", "--timeout", "-1"), "Invalid value for '--timeout'"),
        (("destination", "retire"), "Missing argument"),
        (("status", "--journal", "/nonexistent/journal"), "/nonexistent/journal does not exist"),
        (("tail", "--journal", "/usr"), "/usr is no journal"),
        (("destination", "list", "--journal", "/nonexistent"), "does not exist"),
        (("ship", "--once", "--journal", "/nonexistent"), "does not exist"),
        (("ship", "--destination", "collector"), "NAME=SPEC"),
        (("ship", "--destination", "no name=otlp"), "'no name'"),
        (("ship", "--destination", "a=otlp", "--destination", "a=otlp"), "twice"),
        (("ship", "--destination", "a=gopher"), "gopher"),
        (("ship", "--config", "/nonexistent.toml"), "/nonexistent.toml"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str
) -> None:
    """Wrong usage and wrong configuration give one line on stderr, nothing on stdout, and exit code 2."""
    assert run(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith("otel-audit: ")
    assert says in said.err


def test_a_mistake_in_a_process_of_its_own() -> None:
    """The process itself ends with exit code 2, one line and no traceback."""
    done = run_apart("status", "--journal", "/nonexistent")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("otel-audit: journal: /nonexistent does not exist")
    assert len(done.stderr.splitlines()) == 1


def test_a_journal_that_may_not_be_read_is_one_line(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """An error of the operating system names the file, without a traceback."""
    emit(journal, "a.b")
    cursor = stream_of(journal) / "cursors" / "collector"
    cursor.mkdir()  # reading it fails, for root too
    assert run("status", "--journal", journal) == 2
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1
    assert str(cursor) in said.err


@pytest.mark.parametrize(
    "command",
    [
        ("status",),
        ("tail",),
        ("doctor", "--no-send", "--destination", "c=file:/dev/null"),
        ("ship", "--destination", "c=file:/dev/null"),
    ],
    ids=lambda command: command[0],
)
def test_a_journal_of_another_user_says_whose_it_is(
    capsys: pytest.CaptureFixture[str], command: tuple[str, ...]
) -> None:
    """And its permissions, and what to do; not only that it cannot be read."""
    needs(os.geteuid() == 0, "root", "becoming another user needs root")
    with tempfile.TemporaryDirectory(prefix="otel-audit-test-") as directory:
        Path(directory).chmod(0o755)
        journal = Path(directory) / "journal"
        emit(journal, "a.b")
        assert run("status", "--journal", journal) == 0  # everything that it needs is loaded by now
        capsys.readouterr()
        os.seteuid(65534)
        try:
            code = run(*command, "--journal", journal)
        finally:
            os.seteuid(0)
        said = capsys.readouterr()
        assert code == (1 if command[0] == "doctor" else 2)
        assert "belongs to root (0700)" in said.err or "uid 0" in said.out
        assert "Traceback" not in said.err


def test_help_and_version_need_no_journal(capsys: pytest.CaptureFixture[str]) -> None:
    """Help lists every command; --version says the version; both succeed."""
    assert run("--help") == 0
    listed = capsys.readouterr().out
    for name in ("status", "tail", "ship", "destination", "demo"):
        assert name in listed
    assert run("--version") == 0
    assert re.fullmatch(r"otel-audit \d+\.\d+\S*\n", capsys.readouterr().out)


@pytest.mark.parametrize("arguments", [(), ("destination",)])
def test_a_command_is_asked_for(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]) -> None:
    """Without a command nothing is done, and what there is to be done is said."""
    code = run(*arguments)
    said = capsys.readouterr()
    assert "COMMAND" in said.out or "otel-audit destination: say which command; there are: list, retire" in said.err
    assert code == (2 if arguments else 0)


# -- which journal ----------------------------------------------------------------------------------------------


def test_the_default_journal_is_the_applications(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An option wins over OTEL_AUDIT_JOURNAL, that over the directory of --service, that over OTEL_SERVICE_NAME."""
    state = tmp_path / "state" / "otel-audit"
    places = {
        "option": tmp_path / "option", "variable": tmp_path / "variable", "service": state / "given",
        "environment": state / "named",
    }  # fmt: skip
    for place in places.values():
        emit(place, "a.b")

    def found(*arguments: object) -> str:
        return str(run_json(capsys, "status", *arguments)["path"])

    monkeypatch.setenv("OTEL_SERVICE_NAME", "named")
    assert found() == str(places["environment"])
    assert found("--service", "given") == str(places["service"])
    monkeypatch.setenv("OTEL_AUDIT_JOURNAL", str(places["variable"]))
    assert found("--service", "given") == str(places["variable"])
    assert found("--journal", places["option"]) == str(places["option"])


def test_looking_changes_nothing(journal: Path) -> None:
    """Reading commands make, change and touch no file of the journal, not even a lock that is missing."""
    emit(journal, "a.b", "c.d")
    require(journal, "collector")
    (stream_of(journal) / "lock").unlink()
    before = everything_in(journal)
    assert run("status", "--journal", journal) == 0
    assert run("tail", "--journal", journal, "--from-start") == 0
    assert run("destination", "list", "--journal", journal) == 0
    assert everything_in(journal) == before


def test_looking_makes_no_journal(tmp_path: Path) -> None:
    """A journal that is not there is not there afterwards either."""
    for command in (["status"], ["tail"], ["destination", "list"], ["ship", "--once"], ["destination", "retire", "x"]):
        assert run(*command, "--journal", tmp_path / "none") == 2
    assert not (tmp_path / "none").exists()


# -- small things -----------------------------------------------------------------------------------------------


def test_ages_and_sizes() -> None:
    """Times and sizes are written in the unit that suits them."""
    assert [age(seconds) for seconds in (None, 0, 59.96, 90, 7200, 200_000)] == [
        None, "0.0 s", "60.0 s", "1.5 min", "2.0 h", "2.3 d",
    ]  # fmt: skip
    assert [size(count) for count in (0, 1023, 1536, 5 * 1024**3, 3 * 1024**4)] == [
        "0 B", "1023 B", "1.5 KiB", "5.0 GiB", "3.0 TiB",
    ]  # fmt: skip


def test_safe_text() -> None:
    """Everything that could steer a terminal or hide text is written as an escape, other text as it is."""
    assert safe("añ→ 漢") == "añ→ 漢"
    assert safe("a\r\n\t\x00\x7f\x85\u2028\u202e\ud800") == "a\\r\\n\\t\\x00\\x7f\\x85\\u2028\\u202e\\ud800"


# -- the page ---------------------------------------------------------------------------------------------------


def commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with its words."""
    below = getattr(command, "commands", None)
    if below is None:
        yield path, command
        return
    for name, each in below.items():
        yield from commands(each, (*path, name))


COMMANDS = dict(commands(typer.main.get_command(app)))


def sections() -> dict[str, str]:
    """The page, by heading."""
    parts = re.split(r"^## ", (ROOT / "docs" / "cli.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {part.partition("\n")[0].strip("` "): part for part in parts[1:]}


def test_the_page_has_every_command() -> None:
    """docs/cli.md has a section for each command and for nothing else, and its list links to each."""
    page = sections()
    names = {f"otel-audit {' '.join(path)}" for path in COMMANDS}
    assert {heading for heading in page if heading.startswith("otel-audit")} == names
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name in names:
        assert f"(#{name.replace(' ', '-')})" in text


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_the_page_has_every_option(path: tuple[str, ...]) -> None:
    """The table in a command's section has each of its options and arguments, in every spelling, and no others."""
    section = sections()[f"otel-audit {' '.join(path)}"]
    rows = "\n".join(line.rpartition(" | ")[0] for line in section.splitlines() if re.match(r"\| `(-|[A-Z])", line))
    shown = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", rows)) | set(re.findall(r"^\| `([A-Z]+)`", rows, re.MULTILINE))
    have = set()
    for parameter in COMMANDS[path].params:
        if parameter.name != "help":
            have |= {parameter.metavar} if parameter.param_type_name == "argument" else set(parameter.opts)
    assert shown == have
