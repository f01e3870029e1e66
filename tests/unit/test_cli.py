"""The command line: options, output, exit codes; journals are made by providers in this process."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from otel_audit import AuditProvider
from otel_audit.cli import main
from otel_audit.cli.app import app
from otel_audit.cli.output import age, safe, size
from otel_audit.health import DestinationStatus, write_process_state
from otel_audit.journal.layout import Layout
from otel_audit.journal.ledger import retire_destination
from otel_audit.settings import build_provider

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    for name in ("FORCE_COLOR", "NO_COLOR", "CLICOLOR_FORCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where the journal of a test is."""
    return tmp_path / "journal"


class Nowhere:
    """An exporter that takes nothing and is never asked to: its provider is not started."""

    single_writer = False

    def export(self, batch: Any, timeout_s: float) -> None:
        raise AssertionError("nothing is delivered here")

    def close(self) -> None:
        """Nothing to close."""


def provide(journal: Path, **options: Any) -> AuditProvider:
    """A provider that delivers nowhere."""
    return build_provider(journal=journal, service_name="shop", **{"destinations": {}, **options})


def emit(journal: Path, *events: str, **options: Any) -> None:
    """A stream with these events, which ended in order."""
    with provide(journal, **options) as provider:
        for event in events:
            provider.get_audit_logger().emit(event, actor="u-1", outcome="success")


def stream_of(journal: Path) -> Path:
    """The directory of the only stream."""
    (stream,) = (journal / "streams").iterdir()
    return stream


def require(journal: Path, *names: str) -> None:
    """Let the dead streams of a journal have required these destinations."""
    for path in (journal / "streams").glob("*/stream.json"):
        described = json.loads(path.read_text())
        described["required"] = sorted(names)
        path.write_text(json.dumps(described))


def run(*arguments: object) -> int:
    """Run the command line in this process."""
    return main([str(argument) for argument in arguments])


def run_json(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> Any:
    """Run a command with --json: its document; nothing else stands on stdout."""
    capsys.readouterr()
    assert run(*arguments, "--json") == code
    return json.loads(capsys.readouterr().out)


def run_apart(*arguments: object, script: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    program = script or "import sys; from otel_audit.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL, **options
    )


def everything_in(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file and directory below: mode, time of change, contents."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        info = path.lstat()
        found[str(path)] = (info.st_mode, info.st_mtime_ns, path.read_bytes() if path.is_file() else b"")
    return found


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
    assert "COMMAND" in said.out or "Missing command" in said.err
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


# -- status -----------------------------------------------------------------------------------------------------


def test_status_of_a_journal_that_is_well(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """Living and dead streams, their process, service, records and what is pending; exit code 0."""
    emit(journal, "a.b", "c.d")
    require(journal, "collector")
    with provide(journal) as living:
        living.get_audit_logger().emit("e.f", actor="u-1", outcome="success")
        status = run_json(capsys, "status", "--journal", journal)
        assert run("status", "--journal", journal) == 0
    shown = capsys.readouterr().out
    streams = {stream["owner"]: stream for stream in status["streams"]}
    assert set(streams) == {"living", "dead"}
    assert {stream["pid"] for stream in status["streams"]} == {os.getpid()}
    assert {stream["service"] for stream in status["streams"]} == {"shop"}
    assert (streams["dead"]["records"], streams["living"]["records"]) == (4, 2)  # logging started and stopped count
    (pending,) = streams["dead"]["destinations"]
    assert (pending["destination"], pending["required"], pending["acknowledged"]) == ("collector", True, 0)
    assert pending["pending"] == 4
    assert 0 <= pending["oldest_pending_age_s"] < 60
    assert status["attention"] == []
    assert status["bytes"] > streams["dead"]["bytes"] > 0
    assert "Nothing needs attention" in shown
    for word in ("living", "dead", "shop", "collector", streams["dead"]["stream_id"]):
        assert word in shown


def test_status_hints_at_what_nobody_delivers(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """Where records of the dead wait and no process lives, it says which command delivers them."""
    emit(journal, "a.b")
    assert run_json(capsys, "status", "--journal", journal)["hints"] == []
    require(journal, "collector")
    (hint,) = run_json(capsys, "status", "--journal", journal)["hints"]
    assert "otel-audit ship --once" in hint


def needs_attention(capsys: pytest.CaptureFixture[str], journal: Path) -> list[str]:
    """What needs attention; the exit code says that something does, the output for people shows it."""
    attention = run_json(capsys, "status", "--journal", journal, code=1)["attention"]
    assert run("status", "--journal", journal) == 1
    shown = capsys.readouterr().out
    assert all(line in shown for line in attention)
    return list(attention)


def test_dead_letters_need_attention(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """Dead letters are counted by destination and make the exit code 1."""
    emit(journal, "a.b")
    (journal / "dead-letters" / "collector.jsonl").write_text('{"reason":"no"}\n{"reason":"no"}\n')
    (line,) = needs_attention(capsys, journal)
    assert "destination collector: 2 dead letters" in line


def test_damage_needs_attention(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """What a reader found damaged is shown with its place."""
    emit(journal, "a.b")
    report = [{"kind": "hole", "segment": "1.jsonl", "start": 7, "stop": 9, "sequence": 2, "count": 3}]
    (stream_of(journal) / "recovery.json").write_text(json.dumps(report))
    (line,) = needs_attention(capsys, journal)
    assert "hole in 1.jsonl, bytes 7 to 9, 3 records missing from number 2" in line


def test_a_stream_that_cannot_be_read_needs_attention(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """A stream of a newer format is named, and the others are shown."""
    emit(journal, "a.b")
    (stream_of(journal) / "stream.json").write_text('{"format": 99}')
    emit(journal, "c.d")
    (line,) = needs_attention(capsys, journal)
    assert "format 99 is not known" in line
    assert len(run_json(capsys, "status", "--journal", journal, code=1)["streams"]) == 2


@pytest.mark.parametrize("living", [True, False])
def test_what_a_living_process_says_needs_attention(
    capsys: pytest.CaptureFixture[str], journal: Path, living: bool
) -> None:
    """A failing destination and an unreachable handler count in a living process, and no more when it is dead."""
    provider = provide(journal)
    provider.get_audit_logger().emit("a.b", actor="u-1", outcome="success")
    fine = {"required": True, "delivered": 0, "pending": 1, "dead_lettered": 0, "damaged": 0, "last_success_ns": 0}
    said = msgspec.structs.replace(
        provider.status(),
        destinations=[
            DestinationStatus(
                name="collector", state="blocked", error="401", repair="a new token", failures=3, **fine
            ),
            DestinationStatus(name="archive", state="idle", error="", repair="", failures=0, **fine),
        ],
        unreachable_handlers=["audit: its level is ERROR"],
        counters={"records.invalid": 2},
    )  # fmt: skip
    if living:
        write_process_state(Layout(journal), stream_of(journal), said)
        lines = needs_attention(capsys, journal)
        assert len(lines) == 2
        assert "destination collector is blocked" in lines[0]
        assert "401; a new token" in lines[0]
        assert "audit: its level is ERROR" in lines[1]
    provider.shutdown(1)
    write_process_state(Layout(journal), stream_of(journal), said)
    assert run_json(capsys, "status", "--journal", journal)["attention"] == []
    assert run("status", "--journal", journal) == 0
    assert "records.invalid" in capsys.readouterr().out


# -- tail -------------------------------------------------------------------------------------------------------


def events(capsys: pytest.CaptureFixture[str], journal: Path, *arguments: object) -> list[str]:
    """Event names that tail writes as JSON."""
    capsys.readouterr()
    assert run("tail", "--journal", journal, "--json", *arguments) == 0
    return [json.loads(line)["event_name"] for line in capsys.readouterr().out.splitlines()]


@pytest.fixture
def two_streams(journal: Path) -> Path:
    """A journal with two streams whose records alternate in time."""
    with provide(journal) as one, provide(journal) as other:
        for number in range(6):
            (one, other)[number % 2].get_audit_logger().emit(f"n.e{number}", actor="u-1", outcome="success")
            time.sleep(0.002)
    return journal


def test_tail_merges_by_time(capsys: pytest.CaptureFixture[str], two_streams: Path) -> None:
    """The records of several streams come in the order of their emission."""
    assert events(capsys, two_streams, "--from-start", "--no-control") == [f"n.e{number}" for number in range(6)]
    all_of_them = events(capsys, two_streams, "--from-start")
    assert all_of_them.count("audit.logging.started") == all_of_them.count("audit.logging.stopped") == 2
    assert len(all_of_them) == 10


def test_tail_begins_with_the_last(capsys: pytest.CaptureFixture[str], two_streams: Path) -> None:
    """-n counts what is shown, over all streams; ten where nothing is said."""
    assert events(capsys, two_streams, "-n", 3, "--no-control") == ["n.e3", "n.e4", "n.e5"]
    assert events(capsys, two_streams, "--last", 2) == ["audit.logging.stopped"] * 2
    assert events(capsys, two_streams, "-n", 0) == []
    emit(two_streams, *(f"m.e{number}" for number in range(20)))
    assert len(events(capsys, two_streams)) == 10


def test_tail_filters_by_event(capsys: pytest.CaptureFixture[str], two_streams: Path) -> None:
    """--event takes patterns; several are alternatives, and -n counts what fits."""
    assert events(capsys, two_streams, "--event", "n.e[24]", "--event", "*.e5") == ["n.e2", "n.e4", "n.e5"]
    assert events(capsys, two_streams, "--event", "n.*", "-n", 1) == ["n.e5"]
    assert events(capsys, two_streams, "--event", "n") == []


def test_tail_keeps_the_chains_order(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """Within a stream the order is the chain's, also where the clock stepped back."""

    class SteppingBack:
        def __init__(self) -> None:
            self.now = time.time_ns()

        def time_ns(self) -> int:
            self.now -= 1_000_000_000
            return self.now

    emit(journal, "n.e0", "n.e1", "n.e2", clock=SteppingBack())
    assert events(capsys, journal, "--no-control") == ["n.e0", "n.e1", "n.e2"]


def test_tail_for_people(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """A line has time, service, event, outcome, actor, target and the rest; nothing in it steers the terminal."""
    with provide(journal) as provider:
        provider.get_audit_logger().emit(
            "user.login",
            actor="u-1\x1b[2J",
            target="door",
            outcome="failure",
            reason="it is shut",
            body="\x9b31m\u202e",
            attributes={"size": 7},
        )
    assert run("tail", "--journal", journal) == 0
    started, login, stopped = capsys.readouterr().out.splitlines()
    assert "audit.logging.started" in started
    assert "audit.logging.stopped" in stopped
    assert re.match(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z shop\[\d+\] user\.login failure u-1\\x1b\[2J → door ", login
    )
    assert "size=7" in login
    assert "reason='it is shut'" in login
    assert "\\x9b31m\\u202e" in login
    assert not set(login) & {"\x1b", "\x9b", "\u202e"}


def test_tail_is_coloured_on_a_terminal_only(journal: Path) -> None:
    """On a terminal the lines are coloured and control records dimmed; in a file nothing is."""
    emit(journal, "a.b")
    plain = run_apart("tail", "--journal", journal)
    assert "a.b" in plain.stdout
    assert "\x1b" not in plain.stdout
    coloured = on_a_terminal("tail", "--journal", journal)
    assert "\x1b[1ma.b\x1b[0m" in coloured
    assert re.search(r"\x1b\[[\d;]*2[\d;]*m\S*audit\.logging\.started", coloured)


def on_a_terminal(*arguments: object, answer: bytes = b"") -> str:
    """What a command writes on a terminal of its own, and what the terminal echoes of the answer."""
    master, slave = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "200"}
    env.pop("NO_COLOR", None)
    command = [sys.executable, "-m", "otel_audit.cli", *map(str, arguments)]
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=env)
    os.close(slave)
    os.write(master, answer)
    said = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 0.1)[0]:
            if process.poll() is not None:
                break
            continue
        try:
            said += os.read(master, 65536)
        except OSError:  # the other side is closed
            break
    process.wait(10)
    os.close(master)
    return f"{said.decode()}\nexit code {process.returncode}"


def test_tail_says_what_is_missing(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """A damaged record is named on stderr, and the rest is shown."""
    emit(journal, "a.b", "c.d")
    (segment,) = stream_of(journal).glob("0*.jsonl")
    segment.write_bytes(segment.read_bytes().replace(b'"a.b"', b'"x.b"'))
    assert run("tail", "--journal", journal, "--json", "--no-control") == 0
    said = capsys.readouterr()
    assert [json.loads(line)["event_name"] for line in said.out.splitlines()] == ["c.d"]
    assert "1 records from number 2 are not there" in said.err


def test_tail_passes_over_what_it_cannot_read(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """A stream of a newer format is named on stderr; the others are shown."""
    emit(journal, "a.b")
    (stream_of(journal) / "stream.json").write_text('{"format": 99}')
    emit(journal, "c.d")
    assert run("tail", "--journal", journal, "--json", "--no-control") == 0
    said = capsys.readouterr()
    assert [json.loads(line)["event_name"] for line in said.out.splitlines()] == ["c.d"]
    assert "format 99 is not known" in said.err


def test_whoever_reads_may_go(journal: Path) -> None:
    """Where the reader of a pipe has gone (``| head -1``), it ends without an error."""
    emit(journal, *(["a.b"] * 3000))
    command = [sys.executable, "-m", "otel_audit.cli", "tail", "--from-start", "--json", "--journal", str(journal)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert b"audit.logging.started" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


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
    emit(journal, "a.b", mode=0o640)
    require(journal, "archive")
    assert run("destination", "retire", "archive", "--yes", "--journal", journal) == 0
    assert (journal / "retired").stat().st_mode & 0o777 == 0o750
    assert (journal / "retired" / "archive").stat().st_mode & 0o777 == 0o640


def test_retiring_warns_of_the_living(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """Where a living process delivers to it, that is said: it goes on until it is configured otherwise."""
    with provide(journal, destinations={"archive": {"type": "file", "path": str(journal.parent / "out")}}) as living:
        living.get_audit_logger().emit("a.b", actor="u-1", outcome="success")
        assert run("destination", "retire", "archive", "--yes", "--journal", journal) == 0
    assert f"living processes deliver to it ({os.getpid()})" in capsys.readouterr().err


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
