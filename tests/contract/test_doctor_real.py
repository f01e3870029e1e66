"""``otel-audit doctor`` beside real receivers, certificates, disks and variables."""

from __future__ import annotations

import json
import os
import ssl
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from otel_audit import semconv as sc
from otel_audit.testing import ScriptedReceiver
from otel_audit.testing.grpc_receiver import ScriptedGrpcReceiver
from support.cli import clean_environment, emit, everything_in, provide, run, run_json

HOST = "127.0.0.1"


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where the journal of a test is, or will be."""
    return tmp_path / "journal"


def examine(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> dict[str, list[dict[str, str]]]:
    """The findings, by check."""
    found: dict[str, list[dict[str, str]]] = {}
    document = run_json(capsys, "doctor", *arguments, code=code)
    for each in document["findings"]:
        found.setdefault(each["check"], []).append(each)
    failing = any(each["level"] == "failing" for each in document["findings"])
    assert document["healthy"] is not failing
    return found


def levels(found: list[dict[str, str]]) -> list[str]:
    """Their levels."""
    return [each["level"] for each in found]


# -- well -----------------------------------------------------------------------------------------------------


def test_a_configuration_that_works(capsys: pytest.CaptureFixture[str], journal: Path, tmp_path: Path) -> None:
    """The test event arrives everywhere and can be told from the application's; nothing is left behind."""
    emit(journal, "a.b")
    before = everything_in(journal)
    file = tmp_path / "out.jsonl"
    with ScriptedReceiver() as receiver:
        config = tmp_path / "audit.toml"
        config.write_text(f'[destinations.collector]\ntype = "otlp"\nendpoint = "{receiver.endpoint}"\n')
        arguments = ("--journal", journal, "--config", config, "--timeout", 20)
        found = examine(capsys, *arguments)
        assert levels(found["destination collector"]) == ["ok", "ok"]
        assert levels(found["clock"]) == ["ok"]
        assert "took the test event" in found["destination collector"][1]["message"]
        events = [record for record in receiver.records if record.attributes.get(sc.TEST) is True]
        assert [event.event_name for event in events] == [sc.EVENT_TEST]
        assert events[0].record_id in found["destination collector"][1]["message"]
        assert run("doctor", *arguments, "--no-send") == 0
        assert "took the test event" not in capsys.readouterr().out
        assert len([record for record in receiver.records if record.attributes.get(sc.TEST)]) == 1
    found = examine(capsys, "--journal", journal, "--destination", f"local=file:{file}", "--timeout", 20)
    assert levels(found["destination local"]) == ["ok"]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["event_name"] for line in lines if line["attributes"].get(sc.TEST)] == [sc.EVENT_TEST]
    assert all(line["resource"][sc.TEST] is True for line in lines), "the journal's own records are marked too"
    assert set(everything_in(journal)) == set(before), "the application's journal has nothing new"
    assert {path: each[2] for path, each in everything_in(journal).items()} == {p: e[2] for p, e in before.items()}


def test_a_journal_that_is_not_made_yet_is_not_made(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """The doctor may be another user than the application: what it made the application could not use."""
    found = examine(capsys, "--journal", journal, "--destination", f"l=file:{journal.parent / 'x'}", "--timeout", 20)
    assert "(not made yet)" in found["journal"][0]["message"]
    assert not journal.exists()


# -- not well -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "says", "repair"),
    [(401, "blocked", "credential"), (404, "blocked", "path"), (503, "retrying", "")],
)
def test_a_receiver_that_does_not_take_it(
    capsys: pytest.CaptureFixture[str], journal: Path, status: int, says: str, repair: str
) -> None:
    """What it answered, and what to repair; exit code 1."""
    with ScriptedReceiver(default=status) as receiver:
        spec = f"api={receiver.url}/v1/events"
        found = examine(capsys, "--journal", journal, "--destination", spec, "--timeout", 1, code=1)
    assert levels(found["destination api"]) == ["ok", "failing"]
    last = found["destination api"][1]
    assert str(status) in last["message"]
    assert says in last["message"]
    assert repair in last["repair"].lower()


def test_nobody_listens(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """The connection is refused, and what that may be is said."""
    found = examine(capsys, "--journal", journal, "--destination", f"c=http://{HOST}:9", "--timeout", 0.5, code=1)
    assert "takes no connection: Connection refused" in found["destination c"][0]["message"]


def test_a_host_that_does_not_exist(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """The name is the problem."""
    spec = "c=https://no-such-host.invalid/v1"
    found = examine(capsys, "--journal", journal, "--destination", spec, "--timeout", 0.5, code=1)
    assert "cannot be resolved" in found["destination c"][0]["message"]


class Certified:
    """An HTTPS receiver with a certificate that is valid for so many days more, and its authority's file."""

    def __init__(self, folder: Path, days: float) -> None:
        authority = trustme.CA()
        now = datetime.now(timezone.utc)
        issued = authority.issue_cert(HOST, not_before=now - timedelta(days=30), not_after=now + timedelta(days=days))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        self.authority = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.authority)
        self.receiver = ScriptedReceiver(tls=context)

    def config(self, folder: Path, **more: Any) -> Path:
        """A configuration that delivers to it."""
        path = folder / "audit.toml"
        lines = ["[destinations.c]", 'type = "otlp"', f'endpoint = "{self.receiver.endpoint}"']
        path.write_text("\n".join([*lines, *(f"{key} = {json.dumps(value)}" for key, value in more.items())]))
        return path


@pytest.mark.parametrize(
    ("days", "level", "says"),
    [(200, "ok", "TLSv1.3"), (5, "warning", "expires in"), (-1, "failing", "certificate has expired")],
)
def test_tls_and_its_certificate(
    capsys: pytest.CaptureFixture[str], journal: Path, tmp_path: Path, days: float, level: str, says: str
) -> None:
    """A good one, one that expires soon, and one that has expired."""
    made = Certified(tmp_path, days)
    with made.receiver:
        config = made.config(tmp_path, certificate=str(made.authority))
        code = 1 if level == "failing" else 0
        arguments = ("--journal", journal, "--config", config, "--timeout", 1 if code else 20)
        found = examine(capsys, *arguments, code=code)
        assert any(each["level"] == level and says in each["message"] for each in found["destination c"])
        if level == "warning":
            assert run("doctor", *arguments, "--strict") == 1


def test_an_authority_that_is_not_known(capsys: pytest.CaptureFixture[str], journal: Path, tmp_path: Path) -> None:
    """The usual mistake with a private authority; ``certificate`` is what is missing."""
    made = Certified(tmp_path, 100)
    with made.receiver:
        config = made.config(tmp_path)
        found = examine(capsys, "--journal", journal, "--config", config, "--timeout", 1, code=1)
        assert "TLS with" in found["destination c"][0]["message"]
        assert "certificate=" in found["destination c"][0]["repair"]


@pytest.fixture
def skewed() -> Iterator[str]:
    """An API whose clock is two hours behind."""

    class Handler(BaseHTTPRequestHandler):
        def date_time_string(self, timestamp: float | None = None) -> str:
            return format_datetime(datetime.now(timezone.utc) - timedelta(hours=2), usegmt=True)

        def do_HEAD(self) -> None:
            self.send_response(405)
            self.end_headers()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield f"http://{HOST}:{server.server_address[1]}/v1/events"
    server.shutdown()
    server.server_close()


def test_a_clock_that_is_off(capsys: pytest.CaptureFixture[str], journal: Path, skewed: str) -> None:
    """The receiver's Date is compared with ours; the event arrives all the same."""
    found = examine(capsys, "--journal", journal, "--destination", f"api={skewed}", "--timeout", 20, code=1)
    assert levels(found["destination api"]) == ["ok", "ok"]
    assert levels(found["clock"]) == ["failing"]
    assert "2.0 h ahead of" in found["clock"][0]["message"]


def test_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, journal: Path, tmp_path: Path
) -> None:
    """A variable that nobody reads is named."""
    monkeypatch.setenv("OTEL_AUDIT_COLOUR", "blue")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPONT", "http://collector:4318")
    spec = f"local=file:{tmp_path / 'x'}"
    found = examine(capsys, "--journal", journal, "--destination", spec, "--timeout", 20)
    assert [each["message"].split()[0] for each in found["environment"]] == [
        "OTEL_AUDIT_COLOUR", "OTEL_EXPORTER_OTLP_ENDPONT",
    ]  # fmt: skip


def test_a_configuration_that_is_wrong(capsys: pytest.CaptureFixture[str], journal: Path, tmp_path: Path) -> None:
    """The error is a finding, with what is known of the environment before it."""
    config = tmp_path / "audit.toml"
    config.write_text('[destinations.c]\ntype = "otpl"\n')
    found = examine(capsys, "--journal", journal, "--config", config, code=1)
    assert levels(found["configuration"]) == ["failing"]
    assert "did you mean 'otlp'" in found["configuration"][0]["message"]


def test_a_credential_that_is_not_there(capsys: pytest.CaptureFixture[str], journal: Path, tmp_path: Path) -> None:
    """The variable that should hold it is named."""
    config = tmp_path / "audit.toml"
    auth = 'auth = { type = "bearer", env = "NO_SUCH_TOKEN" }'
    config.write_text(f'[destinations.c]\ntype = "http"\nurl = "http://{HOST}:9/"\n{auth}\n')
    found = examine(capsys, "--journal", journal, "--config", config, code=1)
    assert "NO_SUCH_TOKEN" in found["configuration"][0]["message"]


@pytest.mark.parametrize("where", ["/proc/tty", "a file"])
def test_a_directory_that_cannot_be_worked_in(capsys: pytest.CaptureFixture[str], tmp_path: Path, where: str) -> None:
    """Permissions are tried out, not read: in /proc not even root makes a file."""
    place = Path(where)
    if where == "a file":
        place = tmp_path / "file"
        place.touch()
    found = examine(capsys, "--journal", place, "--destination", f"l=file:{tmp_path / 'x'}", "--no-send", code=1)
    assert levels(found["journal"])[0] == "failing"
    assert "OTEL_AUDIT_JOURNAL" in found["journal"][0]["repair"] or "user" in found["journal"][0]["repair"]


def test_a_journal_of_another_user(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, journal: Path, tmp_path: Path
) -> None:
    """As it would be refused when the application starts."""
    emit(journal, "a.b")
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    found = examine(capsys, "--journal", journal, "--destination", f"l=file:{tmp_path / 'x'}", "--no-send", code=1)
    assert "this process is 12345" in found["journal"][0]["message"]


def test_what_living_processes_say_is_told(capsys: pytest.CaptureFixture[str], journal: Path, tmp_path: Path) -> None:
    """Handlers that cannot be reached, and whatever else ``status`` would say."""
    with provide(journal) as living:
        living.unreachable_handlers = lambda: ["audit: its level is ERROR"]
        living.get_audit_logger().emit("a.b", actor="u", outcome="success")
        living.journal.housekeep()
        found = examine(capsys, "--journal", journal, "--destination", f"l=file:{tmp_path / 'x'}", "--timeout", 20)
    assert any(
        "do not reach the audit handler of audit: its level is ERROR" in each["message"] for each in found["journal"]
    )


def test_a_filter_passes_the_event_over(capsys: pytest.CaptureFixture[str], journal: Path, tmp_path: Path) -> None:
    """Then nothing is proven, and that is said."""
    config = tmp_path / "audit.toml"
    lines = ["[destinations.f]", 'type = "file"', f'path = "{tmp_path / "x"}"', "required = false"]
    config.write_text("\n".join([*lines, 'filter = { tenants = ["acme"] }']))
    found = examine(capsys, "--journal", journal, "--config", config, "--timeout", 20)
    assert levels(found["destination f"]) == ["note"]


def test_it_says_it_for_people(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """One line each, and what to do below."""
    capsys.readouterr()
    assert run("doctor", "--journal", journal, "--destination", f"c=http://{HOST}:9", "--timeout", 0.5) == 1
    said = capsys.readouterr()
    assert "failing  destination c: " in said.out
    assert "→ see that the receiver runs" in said.out
    assert "Traceback" not in said.out + said.err
    assert run("doctor", "--destination", "c") == 2


def test_a_receiver_of_grpc(capsys: pytest.CaptureFixture[str], journal: Path, tmp_path: Path) -> None:
    """Reached and tried like the others; it says no time, so the clocks are not compared."""
    config = tmp_path / "audit.toml"
    with ScriptedGrpcReceiver() as receiver:
        lines = ["[destinations.c]", 'type = "otlp"', 'protocol = "grpc"', f'endpoint = "{receiver.endpoint}"']
        config.write_text("\n".join(lines))
        found = examine(capsys, "--journal", journal, "--config", config, "--timeout", 20)
        assert levels(found["destination c"]) == ["ok", "ok"]
        assert "clock" not in found
        assert [record.event_name for record in receiver.records if record.attributes.get(sc.TEST)] == [sc.EVENT_TEST]
