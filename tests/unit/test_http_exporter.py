"""Direct HTTP against a real server: bodies, credentials, idempotency, ids that come back, what was accepted."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from otel_audit import semconv as sc
from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.canonical import canonicalize
from otel_audit.delivery.splitting import Splitting
from otel_audit.errors import (
    BlockedExportError,
    ConfigurationError,
    ExportError,
    RejectedExportError,
    RetryableExportError,
)
from otel_audit.exporters.http import HttpExporter
from otel_audit.exporters.http_client import HttpClient, InsecureTransportWarning
from otel_audit.testing import ReceivedRequest, Reply, ScriptedReceiver

JSON = {"Content-Type": "application/json"}


def batch_of(*ids: str) -> RecordBatch:
    """A batch of small records."""
    records = []
    for sequence, record_id in enumerate(ids, 1):
        attributes = {sc.RECORD_ID: record_id, sc.ACTOR_ID: "u-1", sc.ACTION: "LOGIN", "n": sequence}
        canonical = canonicalize("user.login", 10**18, 10**18, "Grüße", attributes, "", "")
        records.append(StoredRecord(sequence, f"{sequence:064x}", canonical))
    return RecordBatch("stream-1", {"service.name": "billing"}, records)


@pytest.fixture
def receiver() -> Iterator[ScriptedReceiver]:
    """A receiver that takes everything unless it is told otherwise."""
    with ScriptedReceiver(default=Reply(201, JSON, b"{}")) as running:
        yield running


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


def sent(receiver: ScriptedReceiver, *ids: str, **options: Any) -> list[ReceivedRequest]:
    """The requests for one batch."""
    exporter = HttpExporter(receiver.url + "/api", **options)
    exporter.export(batch_of(*ids), 5.0)
    exporter.close()
    return receiver.requests


# -- bodies -------------------------------------------------------------------------------------------------------


def test_one_record_per_request(receiver: ScriptedReceiver) -> None:
    """In order, as the plain line, with the record id as idempotency key."""
    first, second = sent(receiver, "r-1", "r-2")
    assert (first.method, first.path) == ("POST", "/api")
    assert first.headers["content-type"] == "application/json"
    assert first.headers["idempotency-key"] == "r-1"
    assert second.headers["idempotency-key"] == "r-2"
    assert first.json["record_id"] == "r-1"
    assert first.json["attributes"][sc.ACTOR_ID] == "u-1"
    assert first.json["resource"] == {"service.name": "billing"}


@pytest.mark.parametrize(
    ("body", "kind", "read"),
    [
        ("array", "application/json", lambda request: request.json),
        ("object", "application/json", lambda request: request.json["events"]),
        ("ndjson", "application/x-ndjson", lambda request: [json.loads(x) for x in request.body.splitlines()]),
    ],
)
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_batch_per_request(
    receiver: ScriptedReceiver, body: str, kind: str, read: Callable[[ReceivedRequest], Any], compression: str
) -> None:
    """As an array, as an object with a list, as lines; with one key for the batch, the same for the same records."""
    options: dict[str, Any] = {"body": body, "list_name": "events", "compression": compression}
    (request,) = sent(receiver, "r-1", "r-2", **options)
    assert [line["record_id"] for line in read(request)] == ["r-1", "r-2"]
    assert request.headers["content-type"] == kind
    key = request.headers["idempotency-key"]
    assert key == hashlib.sha256(b'["r-1","r-2"]').hexdigest()
    again, other = sent(receiver, "r-1", "r-2", **options)[-1], sent(receiver, "r-2", "r-1", **options)[-1]
    assert again.headers["idempotency-key"] == key != other.headers["idempotency-key"]


def test_lines_end_with_a_line_feed(receiver: ScriptedReceiver) -> None:
    """The last one too; receivers of bulk requests insist on it."""
    assert sent(receiver, "r-1", body="ndjson")[0].body.endswith(b"}\n")


def test_a_template(receiver: ScriptedReceiver) -> None:
    """The receiver's own shape."""
    template = {"who": "{{audit.actor.id}}", "text": "{{audit.action}} no. {{n}}", "none": "{{session.id}}", "v": [1]}
    (request,) = sent(receiver, "r-1", template=template)
    assert request.json == {"who": "u-1", "text": "LOGIN no. 1", "none": None, "v": [1]}


def test_a_function_as_template(receiver: ScriptedReceiver) -> None:
    """It is given the record and the batch; what it raises is about the record."""

    def shape(record: StoredRecord, batch: RecordBatch) -> Any:
        if record.record_id == "bad":
            raise KeyError("s3cret")
        return {"id": record.record_id, "from": batch.resource["service.name"]}

    assert sent(receiver, "r-1", template=shape)[0].json == {"id": "r-1", "from": "billing"}
    exporter = HttpExporter(receiver.url, template=shape)
    with pytest.raises(RejectedExportError, match="record 2 of stream") as caught:
        exporter.export(batch_of("r-2", "bad", "r-3"), 5.0)
    assert caught.value.accepted == 1
    assert caught.value.details["reason"] == "template"
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("record_id", ["with\r\nheader: x", "ünï", "a b", "x" * 256])
def test_an_id_that_cannot_stand_in_a_header(receiver: ScriptedReceiver, record_id: str) -> None:
    """Its hash does."""
    key = sent(receiver, record_id)[0].headers["idempotency-key"]
    assert len(key) == 64


def test_other_methods_and_headers(receiver: ScriptedReceiver) -> None:
    """PUT, another media type, another name for the key, or none."""
    sent(receiver, "r-1", method="PUT", content_type="application/vnd.x+json", idempotency_header="X-Once")
    (request,) = receiver.requests
    assert (request.method, request.headers["content-type"]) == ("PUT", "application/vnd.x+json")
    assert request.headers["x-once"] == "r-1"
    assert "idempotency-key" not in request.headers
    assert "idempotency-key" not in sent(receiver, "r-1", idempotency_header="")[-1].headers


# -- answers ------------------------------------------------------------------------------------------------------


def test_what_was_accepted_before_an_error(receiver: ScriptedReceiver) -> None:
    """The error counts the records from the start of the batch that were taken; the rest can follow."""
    receiver.script(201, 201, 503)
    exporter = HttpExporter(receiver.url)
    batch = batch_of("r-1", "r-2", "r-3", "r-4")
    with pytest.raises(RetryableExportError) as caught:
        exporter.export(batch, 5.0)
    assert caught.value.accepted == 2
    exporter.export(batch.part(2, 4), 5.0)
    assert [request.json["record_id"] for request in receiver.accepted_requests] == ["r-1", "r-2", "r-3", "r-4"]
    exporter.close()


def test_a_record_that_is_refused_alone_is_named(receiver: ScriptedReceiver) -> None:
    """One in the middle of a long batch costs one request more, not a search by halves."""
    requests: list[str] = []

    def reply(request: ReceivedRequest) -> Reply:
        requests.append(request.json["record_id"])
        return Reply(422 if requests[-1] == "r-20" else 201)

    receiver._default = reply
    exporter = HttpExporter(receiver.url)
    splitting = Splitting(lambda part: exporter.export(part, 20.0))
    splitting.run(batch_of(*(f"r-{n}" for n in range(1, 65))))
    assert [record.sequence for record, _ in splitting.refused] == [20]
    assert requests == [f"r-{n}" for n in range(1, 65)]
    exporter.close()


def test_the_time_limit_holds_for_the_batch(receiver: ScriptedReceiver) -> None:
    """Not for each of its requests."""
    receiver.script(*[Reply(201, delay_s=0.1)] * 20)
    exporter = HttpExporter(receiver.url)
    with pytest.raises(RetryableExportError) as caught:
        exporter.export(batch_of(*(f"r-{n}" for n in range(20))), 0.45)
    assert 1 <= caught.value.accepted <= 4
    exporter.close()


@pytest.mark.parametrize(
    ("success", "status", "expected"),
    [
        (None, 200, None), (None, 204, None), (None, 299, BlockedExportError),
        (None, 202, RetryableExportError), (None, 301, BlockedExportError), (None, 409, RejectedExportError),
        (None, 422, RejectedExportError), (None, 500, BlockedExportError), (None, 504, RetryableExportError),
        (["202"], 202, None), (["202"], 200, BlockedExportError), ([201, "203-204"], 204, None),
        ("200-299, 409", 409, None), (201, 201, None), (201, 204, BlockedExportError),
    ],
)  # fmt: skip
def test_statuses(receiver: ScriptedReceiver, success: Any, status: int, expected: type[ExportError] | None) -> None:
    """By the table, with other statuses as success where they are chosen."""
    receiver.script(Reply(status, {"Content-Type": ""}))
    exporter = HttpExporter(receiver.url, **({} if success is None else {"success": success}))
    if expected is None:
        exporter.export(batch_of("r-1"), 5.0)
    else:
        with pytest.raises(expected) as caught:
            exporter.export(batch_of("r-1"), 5.0)
        assert type(caught.value) is expected
        assert caught.value.details.get("reason") == ("conflict" if status == 409 else None)


@pytest.mark.parametrize(
    ("content_type", "body", "is_page"),
    [
        ("text/html", b"<!DOCTYPE html><title>Sign in</title>", True), ("text/html; charset=utf-8", b"\n <HTML>", True),
        ("", b"<html>", True), ("text/html", b"OK", False), ("application/json", b'"<html>"', False),
    ],
)  # fmt: skip
def test_a_page_is_no_success(receiver: ScriptedReceiver, content_type: str, body: bytes, is_page: bool) -> None:
    """A page for signing in says 200 too; a short word is one, whatever its type."""
    receiver.script(Reply(200, {"Content-Type": content_type}, body))
    exporter = HttpExporter(receiver.url)
    if is_page:
        with pytest.raises(BlockedExportError, match="HTML page") as caught:
            exporter.export(batch_of("r-1"), 5.0)
        assert "proxies" in (caught.value.repair or "")
    else:
        exporter.export(batch_of("r-1"), 5.0)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("id", {"id": "d-1"}, {"r-1": "d-1"}),
        ("data.id", {"data": {"id": 7}}, {"r-1": "7"}),
        ("id", {}, {}),
        ("id.x", {"id": 5}, {}),
        ("id", [], {}),
        ("id", {"id": None}, {}),
        ("id", {"id": {"a": 1}}, {}),
    ],
)
def test_ids_that_come_back(receiver: ScriptedReceiver, path: str, body: Any, expected: Mapping[str, str]) -> None:
    """Of one record; an answer without one is a success all the same."""
    receiver.script(Reply(201, JSON, json.dumps(body).encode()))
    result = HttpExporter(receiver.url, response_id=path).export(batch_of("r-1"), 5.0)
    assert result is not None
    assert result.response_ids == expected


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("*.id", [{"id": "a"}, {"id": "b"}], {"r-1": "a", "r-2": "b"}),
        ("items.*.create.id", {"items": [{"create": {"id": 1}}, {"create": {"id": 2}}]}, {"r-1": "1", "r-2": "2"}),
        ("*.id", [{"id": "a"}], {}),
        ("*.id", [{"id": "a"}, {}], {}),
        ("*.id", {"id": "a"}, {}),
    ],
)
def test_ids_of_a_batch_that_come_back(
    receiver: ScriptedReceiver, path: str, body: Any, expected: Mapping[str, str]
) -> None:
    """In the order of the records; not at all where there is not one for each."""
    receiver.script(Reply(201, JSON, json.dumps(body).encode()))
    result = HttpExporter(receiver.url, body="array", response_id=path).export(batch_of("r-1", "r-2"), 5.0)
    assert result is not None
    assert result.response_ids == expected


@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"[" * 10_000])
def test_an_answer_that_is_not_json_has_no_ids(receiver: ScriptedReceiver, body: bytes) -> None:
    """The status has acknowledged."""
    receiver.script(Reply(200, {}, body))
    result = HttpExporter(receiver.url, response_id="id").export(batch_of("r-1"), 5.0)
    assert result is not None
    assert result.response_ids == {}


# -- credentials ---------------------------------------------------------------------------------------------------


def test_credentials_from_the_environment(receiver: ScriptedReceiver) -> None:
    """As bearer token, as a header, as password; read anew for every request."""
    environ = {"T": "one"}
    exporter = HttpExporter(receiver.url, auth={"type": "bearer", "env": "T"}, environ=environ)
    exporter.export(batch_of("r-1"), 5.0)
    environ["T"] = "two"
    exporter.export(batch_of("r-2"), 5.0)
    assert [request.headers["authorization"] for request in receiver.requests] == ["Bearer one", "Bearer two"]
    header = {"type": "header", "name": "X-Api-Key", "env": "T"}
    assert sent(receiver, "r-1", auth=header, environ=environ)[-1].headers["x-api-key"] == "two"
    basic = {"type": "basic", "username": "u", "env": "T"}
    value = sent(receiver, "r-1", auth=basic, environ=environ)[-1].headers["authorization"]
    assert base64.b64decode(value.removeprefix("Basic ")) == b"u:two"


def test_credentials_from_a_file(receiver: ScriptedReceiver, tmp_path: Path) -> None:
    """It may be replaced while we run; where it is gone, somebody has to repair something."""
    file = tmp_path / "token"
    file.write_text("one\n")
    exporter = HttpExporter(receiver.url, auth={"type": "bearer", "file": str(file)})
    exporter.export(batch_of("r-1"), 5.0)
    file.write_text("two")
    exporter.export(batch_of("r-2"), 5.0)
    assert [request.headers["authorization"] for request in receiver.requests] == ["Bearer one", "Bearer two"]
    file.unlink()
    with pytest.raises(BlockedExportError, match="cannot be read") as caught:
        exporter.export(batch_of("r-3"), 5.0)
    assert caught.value.repair


def test_credentials_from_a_function(receiver: ScriptedReceiver) -> None:
    """What it raises decides: input and output may work again, the rest needs a person."""
    answers: list[Any] = ["one", OSError("s3cret"), ValueError("s3cret"), "s3cret\nline", None, ""]

    def call() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    exporter = HttpExporter(receiver.url, auth={"type": "bearer", "call": call})
    exporter.export(batch_of("r-1"), 5.0)
    for kind in (RetryableExportError, *[BlockedExportError] * 4):
        with pytest.raises(kind) as caught:
            exporter.export(batch_of("r-2"), 5.0)
        assert "s3cret" not in f"{caught.value} {caught.value.repair}"


@pytest.mark.parametrize(
    ("auth", "message"),
    [
        ("s3cret", "expected a mapping"),
        ({"type": "bearer", "token": "s3cret"}, "no option 'token'"),
        ({"type": "bearer"}, "exactly one of env, file and call"),
        ({"type": "bearer", "env": "T", "file": "x"}, "exactly one of env, file and call"),
        ({"type": "bearer", "env": "MISSING"}, "'MISSING' is not set"),
        ({"type": "bearer", "file": "/nowhere/token"}, "cannot be read"),
        ({"type": "bearer", "env": "LINES"}, "printable ASCII"),
        ({"type": "bearer", "env": "T", "name": "X"}, "only for type 'header'"),
        ({"type": "header", "env": "T"}, "name"),
        ({"type": "header", "env": "T", "name": "Host"}, "set by the exporter"),
        ({"type": "basic", "env": "T"}, "username"),
        ({"type": "digest", "env": "T"}, "one of bearer, header, basic"),
        ({"type": "bearer", "call": "s3cret"}, "expected a function"),
    ],
)
def test_wrong_credentials(auth: Any, message: str) -> None:
    """Are found when the exporter is made; nothing secret is shown."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        HttpExporter("https://h", auth=auth, environ={"T": "s3cret", "LINES": "s3cret\nx"})
    assert "s3cret" not in str(caught.value)


def test_credentials_without_tls_warn() -> None:
    """They are known to be there, whatever the header is called."""
    with pytest.warns(InsecureTransportWarning, match="without TLS"):
        HttpExporter("http://h", auth={"type": "header", "name": "X-Who", "env": "T"}, environ={"T": "x"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"body": "list"}, "body: expected one of"),
        ({"method": "GET"}, "method: expected one of"),
        ({"success": ["2xx"]}, "success: expected statuses"),
        ({"success": []}, "success: only statuses"),
        ({"success": ["200-302"]}, "success: only statuses"),
        ({"success": 7}, "success: expected statuses"),
        ({"template": {"a": "{{x"}}, r"template\.a: a placeholder"),
        ({"template": {"a": object()}}, r"template\.a: must be something"),
        ({"idempotency_header": "Content-Length"}, "set by the exporter"),
        ({"idempotency_header": "a b"}, "not the name of a header"),
    ],
)
def test_a_wrong_argument(options: dict[str, Any], message: str) -> None:
    """Each is found when the exporter is made."""
    with pytest.raises(ConfigurationError, match=message):
        HttpExporter("https://h", **options)


def test_a_conflict_with_itself_is_none(receiver: ScriptedReceiver) -> None:
    """A receiver that has the record, by the hash that we sent: delivered; by another hash: rejected."""
    exporter = HttpExporter(receiver.url)
    sha256 = batch_of("r-1").records[0].sha256
    receiver.script(Reply(409, JSON, json.dumps({"integrity_hash": sha256}).encode()))
    exporter.export(batch_of("r-1"), 5.0)
    receiver.script(Reply(409, JSON, json.dumps({"integrity_hash": "ab" * 32}).encode()))
    with pytest.raises(RejectedExportError) as caught:
        exporter.export(batch_of("r-1"), 5.0)
    assert caught.value.details["reason"] == "conflict"
    exporter.close()
