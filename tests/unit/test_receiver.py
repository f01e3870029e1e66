"""The scripted receiver: it does what the script says, and keeps what came."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_audit import semconv as sc
from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.canonical import canonicalize
from otel_audit.errors import ExportError, RejectedExportError, RetryableExportError
from otel_audit.exporters.http_client import HttpClient
from otel_audit.exporters.otlp_grpc import OtlpGrpcExporter
from otel_audit.exporters.otlp_http import OtlpHttpExporter
from otel_audit.formats.otlp import encode_logs_request
from otel_audit.testing import GrpcReply, ReceivedRequest, Reply, ScriptedGrpcReceiver, ScriptedReceiver

ATTRIBUTES: dict[str, Any] = {
    sc.RECORD_ID: "r-1", "n": -7, "ok": True, "half": 0.5, "raw": b"\0", "none": None, "list": [1, ["x"]],
    "map": {"a": {"b": 1}},
}  # fmt: skip


def batch_of(record_id: str = "r-1") -> RecordBatch:
    """A batch with one record that has a value of every type."""
    attributes = {**ATTRIBUTES, sc.RECORD_ID: record_id}
    canonical = canonicalize("user.login", 10**18, 10**18 + 1, {"text": "x"}, attributes, "ab" * 16, "cd" * 8)
    return RecordBatch("stream-1", {"service.name": "billing"}, [StoredRecord(1, "", canonical)])


@pytest.fixture(autouse=True)
def _closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the connections that a test leaves open."""
    made: list[HttpClient] = []
    real = HttpClient.__init__

    def init(self: HttpClient, *arguments: Any, **options: Any) -> None:
        real(self, *arguments, **options)
        made.append(self)

    monkeypatch.setattr(HttpClient, "__init__", init)
    yield
    for client in made:
        client.close()


def post(receiver: ScriptedReceiver, body: bytes = b"", kind: str = "text/plain") -> int:
    """The status for one request."""
    connection = http.client.HTTPConnection("127.0.0.1", receiver.port, timeout=5)
    try:
        connection.request("POST", "/x", body, {"Content-Type": kind})
        return connection.getresponse().status
    finally:
        connection.close()


def test_records_are_kept_with_plain_values() -> None:
    """Every field and type."""
    with ScriptedReceiver() as receiver:
        post(receiver, encode_logs_request(batch_of()), "application/x-protobuf")
        (record,) = receiver.records
    assert record.attributes == ATTRIBUTES
    assert (record.record_id, record.event_name, record.body) == ("r-1", "user.login", {"text": "x"})
    assert (record.timestamp_ns, record.observed_ns) == (10**18, 10**18 + 1)
    assert (record.trace_id, record.span_id) == ("ab" * 16, "cd" * 8)
    assert record.resource == {"service.name": "billing"}


def test_the_script_is_followed() -> None:
    """Statuses, replies and functions, one per request; then the default."""

    def choose(request: ReceivedRequest) -> Reply:
        return Reply(418 if request.body == b"tea" else 200)

    with ScriptedReceiver(503, Reply(400), choose, default=201) as receiver:
        receiver.script(choose)
        assert [post(receiver, body) for body in (b"", b"", b"tea", b"", b"", b"")] == [503, 400, 418, 200, 201, 201]
        assert len(receiver.requests) == 6
        assert len(receiver.accepted_requests) == 3


@pytest.mark.parametrize(
    ("reply", "taken"),
    [
        (Reply(), True), (Reply(204), True), (Reply(503), False), (Reply(reset="body"), False),
        (Reply(hang=True), False),
        (Reply(503, accept=True), True), (Reply(200, accept=False), False), (Reply.partial(0), True),
        (Reply.partial(1), False), (Reply.partial(1, accept=True), True), (Reply.error(400, "x"), False),
        (Reply(raw=b"x"), False),
    ],
)  # fmt: skip
def test_what_counts_as_taken(reply: Reply, taken: bool) -> None:
    """By the answer, unless the script says otherwise."""
    with ScriptedReceiver(reply) as receiver:
        exporter = OtlpHttpExporter(receiver.endpoint)
        with contextlib.suppress(ExportError):
            exporter.export(batch_of(), 0.3 if reply.hang else 20.0)
        exporter.close()
        assert receiver.record_ids == (["r-1"] if taken else [])
        assert len(receiver.requests) == 1


def test_a_receiver_that_takes_all_but_some() -> None:
    """It says how many it refuses, and keeps the others; a request in JSON is answered in JSON."""
    for protocol in ("http/protobuf", "http/json"):
        with ScriptedReceiver(Reply.refusing(lambda record: record.record_id == "r-2")) as receiver:
            exporter = OtlpHttpExporter(receiver.endpoint, protocol=protocol)
            three = RecordBatch("s", {}, [batch_of(f"r-{n}").records[0] for n in (1, 2, 3)])
            with pytest.raises(RejectedExportError, match="rejected 1 of 3 records: refused"):
                exporter.export(three, 5.0)
            exporter.close()
            assert receiver.record_ids == ["r-1", "r-3"]
            receiver.clear()
            assert receiver.requests == receiver.records == receiver.accepted_requests == []


def test_it_can_come_back_on_the_same_port() -> None:
    """As a receiver that is started again."""
    with ScriptedReceiver() as first:
        port = first.port
    with ScriptedReceiver(port=port) as second:
        assert second.port == port
        assert post(second) == 200


def test_a_grpc_receiver() -> None:
    """The script is followed; what came and what was taken is kept, with plain values."""

    def choose(request: ReceivedRequest) -> GrpcReply:
        return GrpcReply("ABORTED" if len(request.records) > 1 else "OK")

    with ScriptedGrpcReceiver("UNAVAILABLE", choose, default=GrpcReply.refusing(lambda _: True)) as receiver:
        receiver.script(choose)
        exporter = OtlpGrpcExporter(receiver.endpoint)
        two = RecordBatch("s", {}, [*batch_of("r-1").records, *batch_of("r-2").records])
        for expected in ("UNAVAILABLE", "ABORTED", None, "rejected 2 of 2"):
            if expected is None:
                exporter.export(batch_of("r-1"), 5.0)
                continue
            with pytest.raises(ExportError, match=expected):
                exporter.export(two, 5.0)
        exporter.close()
        (record,) = receiver.records
        assert (record.attributes, record.trace_id) == ({**ATTRIBUTES, sc.RECORD_ID: "r-1"}, "ab" * 16)
        assert [len(request.records) for request in receiver.requests] == [2, 2, 1, 2]
        assert [len(request.records) for request in receiver.accepted_requests] == [1]


@pytest.mark.parametrize("reply", [GrpcReply(hang=True), GrpcReply(delay_s=60)])
def test_closing_a_grpc_receiver_ends_what_hangs(reply: GrpcReply) -> None:
    """No test waits for a receiver."""
    receiver = ScriptedGrpcReceiver(reply)
    exporter = OtlpGrpcExporter(receiver.endpoint)
    outcome: list[ExportError] = []

    def export() -> None:
        try:
            exporter.export(batch_of(), 60.0)
        except ExportError as error:
            outcome.append(error)

    client = threading.Thread(target=export)
    client.start()
    receiver.wait_for(requests=1)
    receiver.close()
    receiver.close()
    client.join(30)
    exporter.close()
    assert [type(error) for error in outcome] == [RetryableExportError]


def test_waiting() -> None:
    """For different records and for requests; in vain, it says what came."""
    with ScriptedReceiver() as receiver:
        later = threading.Timer(0.1, OtlpHttpExporter(receiver.endpoint).export, (batch_of(), 5.0))
        later.start()
        receiver.wait_for(records=1, requests=1)
        later.join()
        with pytest.raises(TimeoutError, match="2 records, 0 requests; got 1 records, 1 requests"):
            receiver.wait_for(records=2, timeout_s=0.05)


@pytest.mark.parametrize("reply", [Reply(hang=True), Reply(endless=True, trickle_s=0.01), Reply(delay_s=60)])
def test_closing_ends_what_hangs(reply: Reply) -> None:
    """No test waits for a receiver."""
    receiver = ScriptedReceiver(reply)
    outcome: list[BaseException] = []

    def export(call: Callable[..., Any]) -> None:
        try:
            call(batch_of(), 30.0)
        except ExportError as error:
            outcome.append(error)

    client = threading.Thread(target=export, args=(OtlpHttpExporter(receiver.endpoint).export,))
    client.start()
    receiver.wait_for(requests=1)
    begun = time.monotonic()
    receiver.close()
    receiver.close()
    client.join(10)
    assert not client.is_alive()
    assert time.monotonic() - begun < 5


def test_it_loads_on_first_use() -> None:
    """The package costs nothing until a receiver is wanted."""
    script = (
        "import sys, otel_audit.testing as t; assert 'otel_audit.testing.receiver' not in sys.modules; "
        "assert 'ScriptedReceiver' in dir(t); t.ScriptedReceiver().close(); "
        "assert 'google.protobuf' not in sys.modules\n"
        "try: t.Nothing\nexcept AttributeError: pass\nelse: raise SystemExit(1)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
