"""``otel-audit collector check`` with ends that are at hand: what it sends, how it looks, and what it calls right."""

from __future__ import annotations

import gzip
import http.client
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_audit import semconv as sc
from otel_audit.collector.check.check import run_check
from otel_audit.collector.check.marks import APP, AUDIT, KINDS, MARK_BYTES_MAX, judge, mark, pattern, request_of
from otel_audit.collector.check.sinks import BODY_BYTES_MAX, Listener, WrittenFile, open_sink
from otel_audit.errors import ConfigurationError
from otel_audit.testing.receiver import Reply, ScriptedReceiver, parse_otlp
from support.cli import clean_environment, run, run_json

RUN = "abc123"
NAMES = [kind.name for kind in KINDS]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


# -- what is sent -----------------------------------------------------------------------------------------------------


def test_four_kinds_are_mixed_in_one_request() -> None:
    """Audit records whole, without name and without id, and application logs; each with a mark of its own."""
    records = parse_otlp(request_of(RUN, KINDS, 3, time.time_ns()))
    assert len(records) == 12
    assert len({record.body for record in records}) == 12
    for record in records:
        (match,) = pattern(RUN).finditer(record.body.encode())
        kind = next(kind for kind in KINDS if kind.name == match[1].decode())
        assert bool(record.event_name) == kind.named
        assert bool(record.record_id) == kind.identified
        assert (sc.ACTOR_ID in record.attributes) == (kind.belongs_to == AUDIT)
    assert len({record.record_id for record in records if record.record_id}) == 6


def test_a_mark_is_found_once_and_only_its_own() -> None:
    """In the bytes of a request each mark stands once; another run's are not found; a mark is short."""
    body = request_of(RUN, KINDS, 5, 1)
    assert Counter(match[0] for match in pattern(RUN).finditer(body)).most_common(1)[0][1] == 1
    assert not pattern("other").search(body)
    assert max(len(mark("0" * 12, kind, 9999)) for kind in KINDS) < MARK_BYTES_MAX


def test_what_is_right() -> None:
    """All of a kind where it belongs, none elsewhere; doubles are counted and no fault."""
    whole = Counter({(kind.name, number): 1 for kind in KINDS for number in range(2)})
    audit = Counter({key: times for key, times in whole.items() if key[0] != "application"})
    app = whole - audit
    audit["audit", 0] = 3
    assert all(each.right for each in judge([("a", AUDIT, audit), ("b", APP, app)], KINDS, 2))
    assert [each.duplicates for each in judge([("a", AUDIT, audit)], KINDS, 2)] == [2, 0, 0, 0]
    astray = [each.kind for each in judge([("a", AUDIT, whole)], KINDS, 2) if not each.right]
    assert astray == ["application"]
    missing = [each.kind for each in judge([("b", APP, Counter())], KINDS, 2) if not each.right]
    assert missing == ["application"]


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that had a mark of this run before anybody looked."""
    path = tmp_path / "audit.jsonl"
    path.write_bytes(line(99))
    return path


def line(number: int) -> bytes:
    """A line with a mark."""
    return f'{{"body": "{mark(RUN, KINDS[0], number)}"}}\n'.encode()


def append(path: Path, data: bytes) -> None:
    """Add to a file."""
    with path.open("ab") as opened:
        opened.write(data)


def seen(sink: WrittenFile | Listener) -> dict[int, int]:
    """Number of a mark → how often it was seen."""
    return {number: times for (_, number), times in sink.look().items()}


def test_a_file_is_read_from_where_it_ends(file: Path) -> None:
    """What was there is passed over, what comes is seen once, however often one looks."""
    sink = open_sink(str(file), pattern(RUN))
    assert isinstance(sink, WrittenFile)
    assert seen(sink) == {}
    append(file, line(1))
    assert seen(sink) == {1: 1}
    assert seen(sink) == {1: 1}
    append(file, line(1) + line(2))
    assert seen(sink) == {1: 2, 2: 1}


def test_a_mark_that_is_written_in_two_parts_is_seen_once(file: Path) -> None:
    """Wherever the writer happens to be interrupted."""
    sink = WrittenFile(file, pattern(RUN))
    expected = {}
    for number, at in enumerate(range(1, len(line(10)), 3), 10):
        append(file, line(number)[:at])
        seen(sink)
        append(file, line(number)[at:])
        expected[number] = 1
        assert seen(sink) == expected


def test_rotation_and_truncation_hide_nothing(file: Path) -> None:
    """A renamed file is read on, the new one from its beginning; so is one that was emptied."""
    sink = WrittenFile(file, pattern(RUN))
    append(file, line(1))
    assert seen(sink) == {1: 1}
    append(file, line(2))
    file.rename(file.with_name("audit-2026-01-01T00-00-00.000.jsonl"))
    file.write_bytes(line(3))
    assert seen(sink) == {1: 1, 2: 1, 3: 1}
    append(file, b"x" * 5000)
    seen(sink)
    os.truncate(file, 0)
    append(file, line(4))
    assert seen(sink) == {1: 1, 2: 1, 3: 1, 4: 1}


def test_a_file_that_is_not_there_yet(tmp_path: Path) -> None:
    """The exporter makes it with the first record; a directory that is not there is a mistake."""
    sink = open_sink(f"file:{tmp_path / 'audit.jsonl'}", pattern(RUN))
    assert sink.look() == Counter()
    (tmp_path / "audit.jsonl").write_bytes(line(1))
    assert sink.look() == Counter({("audit", 1): 1})
    with pytest.raises(ConfigurationError, match="is no directory"):
        open_sink(str(tmp_path / "none" / "audit.jsonl"), pattern(RUN))


def test_a_large_file_is_read_in_pieces(file: Path) -> None:
    """Marks over the borders of what is read at once are seen, each once."""
    sink = WrittenFile(file, pattern(RUN))
    append(file, b"".join(line(number) + b" " * 997 for number in range(3000)))
    assert seen(sink) == dict.fromkeys(range(3000), 1)


# -- the listener -----------------------------------------------------------------------------------------------------


@pytest.fixture
def listener() -> Iterator[Listener]:
    """A listener on a free port."""
    opened = Listener("listen:127.0.0.1:0", pattern(RUN))
    yield opened
    opened.close()


def post(listener: Listener, body: bytes, **headers: str) -> tuple[int, bytes]:
    """Send something; status and body of the answer."""
    connection = http.client.HTTPConnection("127.0.0.1", listener.port, timeout=10)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("POST", "/v1/logs", body, named)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_listener_takes_what_an_exporter_sends(listener: Listener) -> None:
    """Protobuf and JSON, plain and with gzip, in the form in which each wants its answer."""
    assert post(listener, line(1), Content_Type="application/x-protobuf") == (200, b"")
    assert post(listener, gzip.compress(line(2)), Content_Encoding="gzip") == (200, b"")
    assert post(listener, line(3), Content_Type="application/json") == (200, b"{}")
    assert seen(listener) == {1: 1, 2: 1, 3: 1}


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (line(1), {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(line(1))[:-9], {"Content_Encoding": "gzip"}, 400),
        (gzip.compress(b"\0" * (BODY_BYTES_MAX + 1)), {"Content_Encoding": "gzip"}, 400),
        (line(1), {"Content_Encoding": "zstd"}, 415),
        (b"", {"Content_Length": str(BODY_BYTES_MAX + 1)}, 413),
        (b"", {"Content_Length": "-1"}, 411),
    ],
)
def test_a_listener_refuses_what_it_cannot_read(
    listener: Listener, body: bytes, headers: dict[str, str], status: int
) -> None:
    """What it would have to count without understanding it, and what is too large; then it goes on."""
    assert post(listener, body, **headers)[0] == status
    assert post(listener, line(7))[0] == 200
    assert seen(listener) == {7: 1}


def test_addresses_that_cannot_be_listened_on(listener: Listener) -> None:
    """Neither a port that is taken, nor what is no address."""
    for text in (f"listen:127.0.0.1:{listener.port}", "listen:", "listen:127.0.0.1", "listen:127.0.0.1:99999"):
        with pytest.raises(ConfigurationError, match="collector check"):
            open_sink(text, pattern(RUN))


# -- all of it --------------------------------------------------------------------------------------------------------


def chain(file: Path, keep: Callable[[str], bool] = lambda _: True) -> Callable[[Any], Reply]:
    """A receiver that writes the bodies of audit records to a file, where they are to be kept."""

    def reply(request: Any) -> Reply:
        kept = [each.body for each in request.records if (each.event_name or each.record_id) and keep(each.body)]
        append(file, "\n".join(kept).encode() + b"\n")
        return Reply(200)

    return reply


def test_a_chain_that_works(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Exit code 0, one line for each kind and end, as a table or as JSON."""
    file = tmp_path / "audit.jsonl"
    with ScriptedReceiver(default=chain(file)) as receiver:
        document = run_json(
            capsys, "collector", "check", "--settle", "0.2", "--endpoint", receiver.url, "--audit", file
        )
        assert document["right"]
        assert document["refused"] is None
        assert [(each["kind"], each["expected"], each["arrived"]) for each in document["arrivals"]] == [
            ("audit", 10, 10), ("nameless", 10, 10), ("without-id", 10, 10), ("application", 0, 0),
        ]  # fmt: skip
        assert (
            run("collector", "check", "--settle", "0.2", "--endpoint", receiver.url, "--audit", file, "--count", 1) == 0
        )
    assert "Everything arrived where it belongs" in capsys.readouterr().out


def test_a_chain_that_loses(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What is acknowledged and does not arrive is missing when the time is over; the exit code is 1."""
    file = tmp_path / "audit.jsonl"
    arguments = ("collector", "check", "--settle", "0.2", "--audit", file, "--timeout", "1.5")
    with ScriptedReceiver(default=chain(file, keep=lambda body: "without-id" not in body)) as receiver:
        begun = time.monotonic()
        document = run_json(capsys, *arguments, "--endpoint", receiver.url, code=1)
        assert time.monotonic() - begun < 15
        assert [each["kind"] for each in document["arrivals"] if not each["right"]] == ["without-id"]
        assert run(*arguments, "--endpoint", receiver.url) == 1
    assert "10 missing" in capsys.readouterr().out


def test_what_arrives_where_it_does_not_belong(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """An application log in the audit file is a fault, unless none is sent."""
    file = tmp_path / "audit.jsonl"

    def everything(request: Any) -> Reply:
        append(file, "\n".join(each.body for each in request.records).encode() + b"\n")
        return Reply(200)

    with ScriptedReceiver(default=everything) as receiver:
        arguments = ("collector", "check", "--settle", "0.2", "--endpoint", receiver.url, "--audit", file)
        assert run(*arguments) == 1
        said = capsys.readouterr().out
        assert "10 that do not belong there" in said
        assert "--audit-only" in said
        assert run(*arguments, "--audit-only") == 0


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(503), "503"),
        (Reply(401), "401"),
        (Reply.partial(4, "no"), "refused 4 records"),
        (Reply(body=b"\xff"), ""),
    ],
)
def test_what_is_not_acknowledged(capsys: pytest.CaptureFixture[str], tmp_path: Path, reply: Reply, says: str) -> None:
    """A refusal is said with its reason, is not waited for, and is exit code 1."""
    with ScriptedReceiver(default=reply) as receiver:
        arguments = (
            "collector",
            "check",
            "--settle",
            "0.2",
            "--endpoint",
            receiver.url,
            "--audit",
            tmp_path / "a.jsonl",
            "--timeout",
            60,
        )
        begun = time.monotonic()
        document = run_json(capsys, *arguments, code=1)
        assert time.monotonic() - begun < 30
    assert says in document["refused"]
    assert document["refused"]


def test_a_receiver_that_does_not_answer(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The time is bounded also where nobody listens, or nobody answers."""
    arguments = ("collector", "check", "--settle", "0.2", "--audit", tmp_path / "a.jsonl", "--timeout", 1)
    with ScriptedReceiver(default=Reply(hang=True)) as receiver:
        assert run_json(capsys, *arguments, "--endpoint", receiver.url, code=1)["refused"]
    assert run_json(capsys, *arguments, "--endpoint", receiver.url, code=1)["refused"]


def test_the_port_of_the_other_protocol_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    """OTLP has a port for each protocol; whoever sends HTTP to that of gRPC is told which option to give."""
    arguments = ("--audit", "listen:127.0.0.1:0", "--settle", "0", "--timeout", "0.5", "--endpoint")
    for port, protocol, says in (
        (4317, "http/protobuf", "4317 is gRPC: --protocol grpc"),
        (4318, "grpc", "4318 is OTLP"),
    ):
        endpoint = f"http://127.0.0.2:{port}"  # nobody listens there
        assert run("collector", "check", *arguments, endpoint, "--protocol", protocol) == 1
        assert says in capsys.readouterr().out


def test_credentials_come_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As for an application: endpoint and headers by OpenTelemetry's variables."""
    file = tmp_path / "audit.jsonl"
    with ScriptedReceiver(default=chain(file)) as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=acme")
        run_json(capsys, "collector", "check", "--settle", "0.2", "--audit", file)
        assert receiver.requests[0].headers["x-tenant"] == "acme"


def test_what_was_refused_may_have_arrived() -> None:
    """It is looked for all the same: acknowledged is one thing, stored another."""

    class There:
        name = "there"

        def look(self) -> Counter[tuple[str, int]]:
            return Counter({(kind.name, 0): 1 for kind in KINDS if kind.belongs_to == AUDIT})

        def close(self) -> None: ...

    found = run_check(RUN, lambda *_: "no", [(AUDIT, There())], KINDS, count=1, timeout_s=5, settle_s=0)
    assert all(each.right for each in found.arrivals)
    assert not found.right


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "name with --audit"),
        (("--audit", "/nonexistent/audit.jsonl"), "is no directory"),
        (("--audit", "listen:nowhere"), "expected listen:HOST:PORT"),
        (("--audit", "listen:127.0.0.1:0", "--endpoint", "gopher://x"), "expected a URL"),
        (("--audit", "listen:127.0.0.1:0", "--protocol", "smoke"), "smoke"),
        (("--audit", "listen:127.0.0.1:0", "--protocol", "http/json"), "not http/json"),
        (("--audit", "listen:127.0.0.1:0", "--count", "0"), "--count"),
        (("--audit", "listen:127.0.0.1:0", "--timeout", "0"), "--timeout"),
    ],
)
def test_a_mistake_is_one_line(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], says: str) -> None:
    """Exit code 2, one line on stderr, and nothing was sent."""
    assert run("collector", "check", *arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert says in said.err
    assert json.dumps(said.err)
