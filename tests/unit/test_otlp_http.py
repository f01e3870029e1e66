"""The OTLP exporter against a real server that answers by script: what acknowledges, and what raises which error."""

from __future__ import annotations

import gzip
import itertools
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.rpc.error_details_pb2 import RequestInfo, RetryInfo
from google.rpc.status_pb2 import Status

from otel_audit import __version__
from otel_audit import semconv as sc
from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.canonical import canonicalize
from otel_audit.errors import (
    BlockedExportError,
    ConfigurationError,
    ExportError,
    RejectedExportError,
    RetryableExportError,
)
from otel_audit.exporters.http_client import BODY_MAX, HttpClient, InsecureTransportWarning
from otel_audit.exporters.otlp_http import OtlpHttpExporter
from otel_audit.testing import Reply, ScriptedReceiver
from support.certificates import folder_of_certificates

HTML = {"Content-Type": "text/html"}
JSON = {"Content-Type": "application/json"}
TEXT = {"Content-Type": "text/plain"}


def batch_of(count: int = 3, size: int = 10) -> RecordBatch:
    """A batch of records with a body of some size."""
    records = [
        StoredRecord(n, "", canonicalize("user.login", 10**18, 10**18, "x" * size, {sc.RECORD_ID: f"r-{n}"}, "", ""))
        for n in range(1, count + 1)
    ]
    return RecordBatch("stream-1", {"service.name": "billing"}, records)


@pytest.fixture
def receiver() -> Iterator[ScriptedReceiver]:
    """A receiver that takes everything unless it is told otherwise."""
    with ScriptedReceiver() as running:
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


def raised(receiver: ScriptedReceiver, reply: Reply, timeout_s: float = 5.0, **options: Any) -> ExportError:
    """The error for one reply; the exporter must work again after it."""
    exporter = OtlpHttpExporter(receiver.endpoint, **options)
    receiver.script(reply)
    with pytest.raises(ExportError) as caught:
        exporter.export(batch_of(), timeout_s)
    exporter.export(batch_of(1), 5.0)
    assert receiver.record_ids[-1] == "r-1"
    exporter.close()
    return caught.value


# -- what acknowledges ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        Reply(),
        Reply(204),
        Reply(204, {"Content-Type": ""}),
        Reply(200, {"Content-Type": ""}),
        Reply(200, {"Content-Type": "application/x-protobuf; charset=utf-8"}),
        Reply.partial(0),
        Reply.partial(0, "a warning"),
    ],
)
def test_an_acknowledgement(receiver: ScriptedReceiver, reply: Reply) -> None:
    """OTLP's success, whole, also without a body; 204; a warning without a rejection."""
    exporter = OtlpHttpExporter(receiver.endpoint)
    receiver.script(reply)
    assert exporter.export(batch_of(), 5.0) is None
    assert len(receiver.requests) == 1
    exporter.close()


@pytest.mark.parametrize("rejected", [1, 3, 4, -1, 2**62])
def test_partial_success_is_a_rejection(receiver: ScriptedReceiver, rejected: int) -> None:
    """Also where the number makes no sense."""
    error = raised(receiver, Reply.partial(rejected, "too old"))
    assert isinstance(error, RejectedExportError)
    assert error.details == {"reason": "partial_success", "rejected": rejected, "message": "too old"}
    assert "too old" in str(error)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, HTML, b"<html>log in</html>"),
        Reply(200, HTML),
        Reply(200, TEXT, b"OK"),
        Reply(200, {"Content-Type": "application/json"}, b"{}"),
        Reply(200, {"Content-Type": ""}, b"OK"),
        Reply(200, {}, b"<html>"),
        Reply(200, {}, b"\x0a" + b"\xff" * 100),
        Reply(200, {}, b"\x12\x00" * BODY_MAX),
        Reply(200, {"Content-Encoding": "gzip"}, b"not gzip"),
        Reply(200, {"Content-Encoding": "gzip"}, gzip.compress(b"\x12\x00" * 50_000_000, 1)),
        Reply(200, {"Content-Encoding": "gzip"}, gzip.compress(b"")[:-9]),
        Reply(200, {"Content-Encoding": "gzip"}, gzip.compress(b"") + gzip.compress(b"\x0a\x02\x08\x01")),
        Reply(200, body=Status(code=14, message="full").SerializeToString()),
        Reply(200, body=Status(message="full").SerializeToString()),
        Reply(200, body=Status(code=14).SerializeToString()),
        Reply(201),
        Reply(206),
        Reply(304),
        Reply(301, {"Location": "/elsewhere"}),
        Reply(307, {"Location": "/elsewhere"}),
    ],
)
def test_what_only_looks_like_success_is_blocked(receiver: ScriptedReceiver, reply: Reply) -> None:
    """Pages of proxies, other types, unreadable bodies, other statuses, redirects (which are not followed)."""
    error = raised(receiver, reply)
    assert isinstance(error, BlockedExportError)
    assert error.status == reply.status
    assert len(receiver.requests) == 2
    if reply.status in (200, 301, 307):
        assert error.repair


@pytest.mark.parametrize(
    ("status", "expected"),
    [(202, RetryableExportError), (429, RetryableExportError), (503, RetryableExportError), (400, RejectedExportError),
     (413, RejectedExportError), (401, BlockedExportError), (404, BlockedExportError), (500, BlockedExportError)],
)  # fmt: skip
def test_a_refusal_carries_what_the_receiver_says(
    receiver: ScriptedReceiver, status: int, expected: type[ExportError]
) -> None:
    """Class by status, the message of the ``Status``, the waiting time, the request's id."""
    error = raised(receiver, Reply.error(status, "queue is full", Retry_After="7", X_Request_Id="q-1"))
    assert type(error) is expected
    assert "queue is full" in str(error)
    assert (error.status, error.retry_after_s, error.request_id) == (status, 7.0, "q-1")


def test_a_status_can_ask_for_patience(receiver: ScriptedReceiver) -> None:
    """By its RetryInfo, where there is no Retry-After; and name the request."""
    status = Status(code=14, message="full")
    info = RetryInfo()
    info.retry_delay.FromMilliseconds(2500)
    status.details.add().Pack(info)
    status.details.add().Pack(RequestInfo(request_id="q-7"))
    error = raised(receiver, Reply(503, body=status.SerializeToString()))
    assert (error.retry_after_s, error.request_id) == (2.5, "q-7")
    error = raised(receiver, Reply(503, {"Retry-After": "7", "X-Request-Id": "q-8"}, status.SerializeToString()))
    assert (error.retry_after_s, error.request_id) == (7.0, "q-8")


def test_a_conflict_with_itself_is_none(receiver: ScriptedReceiver) -> None:
    """The receiver has the record by its hash: delivered.  Another hash, or none: rejected, with its own reason."""
    (record,) = batch_of(1).records
    batch = RecordBatch("s", {}, [StoredRecord(1, "ab" * 32, record.canonical)])
    exporter = OtlpHttpExporter(receiver.endpoint)
    receiver.script(Reply(409, JSON, b'{"record_id":"r-1","integrity_hash":"%s"}' % (b"ab" * 32)))
    exporter.export(batch, 5.0)
    for body in (b'{"integrity_hash":"%s"}' % (b"cd" * 32), b'"%s"' % (b"ab" * 32), b"{", b"[" * 50_000, b""):
        receiver.script(Reply(409, JSON, body))
        with pytest.raises(RejectedExportError) as caught:
            exporter.export(batch, 5.0)
        assert caught.value.details["reason"] == "conflict"
    receiver.script(Reply(409, JSON, b'{"integrity_hash":"%s"}' % (b"ab" * 32)))
    two = RecordBatch("s", {}, [*batch.records, StoredRecord(2, "ab" * 32, record.canonical)])
    with pytest.raises(RejectedExportError):
        exporter.export(two, 5.0)
    exporter.close()


# -- OTLP/JSON ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply", [Reply(), Reply(204), Reply(200, {"Content-Type": ""}), Reply.partial(0, "slow"), Reply(200, JSON, b"{}")]
)
def test_an_acknowledgement_in_json(receiver: ScriptedReceiver, reply: Reply) -> None:
    """As in protobuf."""
    exporter = OtlpHttpExporter(receiver.endpoint, protocol="http/json")
    receiver.script(reply)
    assert exporter.export(batch_of(), 5.0) is None
    assert receiver.requests[0].headers["content-type"] == "application/json"
    assert receiver.record_ids == ["r-1", "r-2", "r-3"]
    exporter.close()


@pytest.mark.parametrize("rejected", [1, 4, -1, 2**62])
def test_partial_success_in_json(receiver: ScriptedReceiver, rejected: int) -> None:
    """Numbers of 64 bits come as text."""
    error = raised(receiver, Reply.partial(rejected, "too old"), protocol="http/json")
    assert isinstance(error, RejectedExportError)
    assert error.details == {"reason": "partial_success", "rejected": rejected, "message": "too old"}


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, JSON, b'{"error":"no such tenant"}'),
        Reply(200, JSON, b"[]"),
        Reply(200, JSON, b"<html>"),
        Reply(200, HTML, b"<html>"),
        Reply(200, {"Content-Type": "application/x-protobuf"}),
    ],
)
def test_what_only_looks_like_success_in_json_is_blocked(receiver: ScriptedReceiver, reply: Reply) -> None:
    """Errors under a success, pages, the other language."""
    if reply.headers["Content-Type"] == "application/x-protobuf":
        reply = Reply(200, reply.headers, b"\x0a\x00")
    assert isinstance(raised(receiver, reply, protocol="http/json"), BlockedExportError)


def test_an_error_in_json_says_why(receiver: ScriptedReceiver) -> None:
    """The message of the Status."""
    error = raised(receiver, Reply.error(503, "queue is full"), protocol="http/json")
    assert isinstance(error, RetryableExportError)
    assert "queue is full" in str(error)


# -- the network ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", ["before", "headers", "body"])
def test_a_reset_is_worth_another_try(receiver: ScriptedReceiver, reset: Any) -> None:
    """Wherever in the answer it comes."""
    error = raised(receiver, Reply(reset=reset, body=b"\x0a"))
    assert isinstance(error, RetryableExportError)


def test_nobody_listens() -> None:
    """A refused connection is worth another try, with a hint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    exporter = OtlpHttpExporter(f"http://127.0.0.1:{port}")
    with pytest.raises(RetryableExportError, match="refused") as caught:
        exporter.export(batch_of(), 5.0)
    assert "listens on that port" in str(caught.value.repair)


def test_a_name_that_is_not_known() -> None:
    """May be a name server that is away: worth another try, with a hint."""
    exporter = OtlpHttpExporter("http://collector.invalid:4318")
    with pytest.raises(RetryableExportError) as caught:
        exporter.export(batch_of(), 5.0)
    assert "name of the host" in str(caught.value.repair)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(hang=True),
        Reply(delay_s=2.0),
        Reply(endless=True, trickle_s=0.02),
        Reply(raw=b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 500, trickle_s=0.02),
        Reply(raw=b"HTTP/1.1 100 Continue\r\n\r\n" * 50, trickle_s=0.02),
    ],
    ids=["silence", "too late", "endless body", "a header byte by byte", "interim answers without end"],
)
def test_an_answer_that_does_not_end(receiver: ScriptedReceiver, reply: Reply) -> None:
    """The time limit holds for the whole exchange, whatever arrives in the meantime."""
    begun = time.monotonic()
    error = raised(receiver, reply, timeout_s=0.4)
    assert isinstance(error, RetryableExportError)
    assert 0.4 <= time.monotonic() - begun < 1.5


def test_a_flood_is_cut(receiver: ScriptedReceiver) -> None:
    """An answer without end at full speed is not read beyond what an OTLP answer can be."""
    error = raised(receiver, Reply(endless=True, body=b"\x12\x00" * 4096))
    assert isinstance(error, BlockedExportError)


def test_a_receiver_that_does_not_read() -> None:
    """A request that does not fit into the socket's buffers does not hang either."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        exporter = OtlpHttpExporter(f"http://127.0.0.1:{server.getsockname()[1]}")
        begun = time.monotonic()
        with pytest.raises(RetryableExportError, match="did not answer within"):
            exporter.export(batch_of(60, 200_000), 0.5)
        assert time.monotonic() - begun < 2.0
        exporter.close()


@pytest.mark.parametrize("raw", [b"\x00\x00\x12\x04" + bytes(23), b"SSH-2.0-OpenSSH_9\r\n\r\n", b"HTTP/9 x\r\n\r\n"])
def test_another_protocol_is_blocked(receiver: ScriptedReceiver, raw: bytes) -> None:
    """The port of gRPC, of SSH, and nonsense."""
    error = raised(receiver, Reply(raw=raw))
    assert isinstance(error, BlockedExportError)
    assert "4317" in str(error.repair)


def test_a_connection_is_used_again_and_replaced(receiver: ScriptedReceiver) -> None:
    """One connection for many batches; a receiver that comes back is found again without a new exporter."""
    exporter = OtlpHttpExporter(receiver.endpoint)
    for _ in range(3):
        exporter.export(batch_of(), 5.0)
    client, _ = exporter._client._connected()
    (connection,) = client._transport._pool.connections
    assert connection._connection._request_count == 3
    exporter.close()
    exporter.export(batch_of(), 5.0)
    exporter.close()


def test_a_proxy_from_the_environment(receiver: ScriptedReceiver, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is used, within the time limit; what it refuses itself says nothing about the records."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name.lower(), receiver.url)
    monkeypatch.setenv("no_proxy", "")
    plain = OtlpHttpExporter("http://collector.example:4318")
    plain.export(batch_of(), 5.0)
    assert receiver.requests[0].path == "http://collector.example:4318/v1/logs"
    receiver.script(Reply(raw=b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 500, trickle_s=0.02))
    with pytest.raises(RetryableExportError, match="did not answer"):
        plain.export(batch_of(), 0.3)
    receiver.script(407, 400, 503)
    for kind in (BlockedExportError, BlockedExportError, RetryableExportError):
        with pytest.raises(kind, match="proxy"):
            OtlpHttpExporter("https://collector.example:4318").export(batch_of(), 5.0)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_what_is_on_this_machine_is_not_sent_to_a_proxy(
    receiver: ScriptedReceiver, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    """A proxy of the environment sees neither the records nor the credentials for the Collector next door."""
    with ScriptedReceiver() as proxy:
        for name in ("HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name.lower(), proxy.url)
        monkeypatch.setenv("no_proxy", "")
        OtlpHttpExporter(receiver.url.replace("127.0.0.1", host)).export(batch_of(), 5.0)
        assert (len(receiver.requests), len(proxy.requests)) == (1, 0)


# -- what is sent -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_what_arrives(receiver: ScriptedReceiver, compression: str) -> None:
    """Every record, the resource, and the headers."""
    exporter = OtlpHttpExporter(receiver.url, headers={"X-Tenant": "acme"}, compression=compression)
    exporter.export(batch_of(), 5.0)
    exporter.close()
    (request,) = receiver.requests
    assert request.path == "/v1/logs"
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers.get("content-encoding") == (None if compression == "none" else "gzip")
    assert request.headers["x-tenant"] == "acme"
    ours, theirs = request.headers["user-agent"].split(" ")
    assert ours == f"otel-audit/{__version__}"
    assert theirs.startswith("OTel-OTLP-Exporter-Python/1.")
    assert receiver.record_ids == ["r-1", "r-2", "r-3"]
    assert receiver.records[0].resource == {"service.name": "billing"}
    assert receiver.records[0].event_name == "user.login"


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("http://h:4318", "http://h:4318/v1/logs"),
        ("http://h:4318/", "http://h:4318/v1/logs"),
        ("http://h:4318/v1/audit", "http://h:4318/v1/audit"),
        ("http://h:4318/prefix/", "http://h:4318/prefix/"),
    ],
)
def test_an_explicit_endpoint(endpoint: str, expected: str) -> None:
    """Used as it stands if it has a path."""
    assert OtlpHttpExporter(endpoint)._client.url == expected
    assert OtlpHttpExporter.from_options({"endpoint": endpoint}, {})._client.url == expected


GENERAL, LOGS, AUDIT = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_LOGS_", "OTEL_EXPORTER_OTLP_AUDIT_"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "http://localhost:4318/v1/logs"),
        ({GENERAL + "ENDPOINT": "http://g:1"}, "http://g:1/v1/logs"),
        ({GENERAL + "ENDPOINT": "http://g:1/p/"}, "http://g:1/p/v1/logs"),
        ({GENERAL + "ENDPOINT": "http://g:1", LOGS + "ENDPOINT": "http://l:2"}, "http://l:2"),
        ({LOGS + "ENDPOINT": "http://l:2/x", AUDIT + "ENDPOINT": "http://a:3/v1/audit"}, "http://a:3/v1/audit"),
        ({AUDIT + "ENDPOINT": " ", LOGS + "ENDPOINT": "", GENERAL + "ENDPOINT": "http://g:1"}, "http://g:1/v1/logs"),
    ],
)
def test_the_endpoint_from_the_environment(environ: dict[str, str], expected: str) -> None:
    """The nearest variable wins; only the general one gets a path appended; an empty one counts as absent."""
    assert OtlpHttpExporter.from_options({}, environ)._client.url == expected


def test_the_rest_from_the_environment() -> None:
    """Headers are decoded, the time-out is in milliseconds, the nearest variable wins, options win over all."""
    environ = {
        GENERAL + "HEADERS": "x-general=1", LOGS + "HEADERS": "x-key=a%20b, x-other=c",
        GENERAL + "TIMEOUT": "2500", AUDIT + "TIMEOUT": "1500", GENERAL + "COMPRESSION": "gzip",
    }  # fmt: skip
    client = OtlpHttpExporter.from_options({}, environ)._client
    assert {"x-key": "a b", "x-other": "c"}.items() <= client._headers.items()
    assert "x-general" not in client._headers
    assert (client._timeout_s, client._gzip) == (1.5, True)
    chosen = {"timeout": "4s", "compression": "none", "headers": {}}
    client = OtlpHttpExporter.from_options(chosen, environ)._client
    assert (client._timeout_s, client._gzip, client._headers.get("x-key")) == (4.0, False, None)


@pytest.mark.parametrize(
    ("variable", "value", "shown"),
    [
        (GENERAL + "TIMEOUT", "soon", True),
        (GENERAL + "TIMEOUT", "0", True),
        (LOGS + "COMPRESSION", "zstd", True),
        (AUDIT + "ENDPOINT", "collector:4317", True),
        (GENERAL + "HEADERS", "s3cret", False),
        (GENERAL + "HEADERS", "x=%0d%0as3cret", False),
        (GENERAL + "PROTOCOL", "http", True),
        (LOGS + "PROTOCOL", "thrift", True),
    ],
)
def test_a_mistake_in_the_environment(variable: str, value: str, shown: bool) -> None:
    """Is found early and names its variable; the value of a header is not shown."""
    with pytest.raises(ConfigurationError) as caught:
        OtlpHttpExporter.from_options({}, {variable: value})
    assert variable in str(caught.value) or "headers" in str(caught.value)
    assert (value in str(caught.value)) is shown


def test_a_mistake_that_an_option_makes_good_is_none() -> None:
    """What the environment says of an option that is given is not looked at."""
    environ = {GENERAL + "PROTOCOL": "grpc", GENERAL + "ENDPOINT": "x", GENERAL + "TIMEOUT": "x"}
    options = {"protocol": "http/protobuf", "endpoint": "http://h", "timeout": 1}
    assert OtlpHttpExporter.from_options(options, environ)._client.url == "http://h/v1/logs"
    with pytest.raises(ConfigurationError, match="expected one of http/protobuf, http/json"):
        OtlpHttpExporter(protocol="grpc")


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"headers": {"Content-Type": "text/plain"}}, "Content-Type"),
        ({"headers": {"bad name": "x"}}, "bad name"),
        ({"headers": {"x": "s3cret\r\ny: z"}}, r"headers\.x"),
        ({"headers": {"x": "s3crét"}}, r"headers\.x"),
        ({"timeout": 0}, "timeout"),
        ({"endpoint": "http://user:s3cret@h"}, "endpoint"),
        ({"certificate": "ca.crt"}, "certificate: is for TLS"),
        ({"endpoint": "https://h", "certificate": "/nowhere/ca.pem"}, "certificate: there is no file"),
        ({"endpoint": "https://h", "client_key": os.devnull}, "client_key"),
    ],
)
def test_a_wrong_argument(options: dict[str, Any], key: str) -> None:
    """Each is found when the exporter is made, and no secret is shown."""
    with pytest.raises(ConfigurationError, match=key) as caught:
        OtlpHttpExporter(**options)
    assert "s3cr" not in str(caught.value)


# -- TLS --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once."""
    return folder_of_certificates(tmp_path_factory.mktemp("tls"))


def server_side(folder: Path, name: str = "server", *, asks: bool = False) -> ssl.SSLContext:
    """The receiver's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(folder / "ca.crt")
    return context


def test_tls_with_our_authority(certificates: Path) -> None:
    """The certificate's file is what the receiver is checked by."""
    with ScriptedReceiver(tls=server_side(certificates)) as receiver:
        exporter = OtlpHttpExporter(receiver.endpoint, certificate=certificates / "ca.crt")
        exporter.export(batch_of(), 5.0)
        exporter.close()
        assert receiver.record_ids == ["r-1", "r-2", "r-3"]


def test_tls_with_a_client_certificate(certificates: Path) -> None:
    """It is sent where the receiver asks for one, and missed where it is not given."""
    files = {"certificate": certificates / "ca.crt"}
    ours = {"client_certificate": certificates / "client.crt", "client_key": certificates / "client.key"}
    with ScriptedReceiver(tls=server_side(certificates, asks=True)) as receiver:
        exporter = OtlpHttpExporter(receiver.endpoint, **files, **ours)
        exporter.export(batch_of(), 5.0)
        exporter.close()
        with pytest.raises(BlockedExportError, match="TLS") as caught:
            OtlpHttpExporter(receiver.endpoint, **files).export(batch_of(), 5.0)
        assert "client_certificate" in str(caught.value.repair)
        assert len(receiver.records) == 3


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [("server", {}, "certificate"), ("expired", {"certificate": "ca.crt"}, "expired"),
     ("server", {"certificate": "client.crt"}, "certificate")],
    ids=["unknown authority", "expired", "wrong authority"],
)  # fmt: skip
def test_a_receiver_that_cannot_be_trusted(certificates: Path, name: str, options: dict[str, str], reason: str) -> None:
    """Blocked, with what to repair; no record leaves."""
    files = {key: certificates / value for key, value in options.items()}
    with ScriptedReceiver(tls=server_side(certificates, name)) as receiver:
        with pytest.raises(BlockedExportError, match=reason) as caught:
            OtlpHttpExporter(receiver.endpoint, **files).export(batch_of(), 5.0)
        assert "certificate" in str(caught.value.repair)
        assert receiver.requests == []


def test_tls_and_no_tls_are_mixed_up(certificates: Path, receiver: ScriptedReceiver) -> None:
    """Either way round: blocked, or worth another try where the receiver only closes; never delivered."""
    with pytest.raises(BlockedExportError) as caught:
        OtlpHttpExporter(receiver.endpoint.replace("http:", "https:")).export(batch_of(), 5.0)
    assert "http://" in str(caught.value.repair)
    with ScriptedReceiver(tls=server_side(certificates)) as strict:
        with pytest.raises(ExportError):
            OtlpHttpExporter(strict.endpoint.replace("https:", "http:")).export(batch_of(), 5.0)
        assert strict.requests == []


def test_files_for_tls_that_are_broken(certificates: Path) -> None:
    """Blocked when they are needed, with what to repair."""
    with ScriptedReceiver(tls=server_side(certificates)) as receiver:
        for files in ({"certificate": "junk"}, {"client_certificate": "client.crt", "client_key": "server.key"}):
            paths = {key: certificates / value for key, value in files.items()}
            with pytest.raises(BlockedExportError, match="files for TLS") as caught:
                OtlpHttpExporter(receiver.endpoint, **paths).export(batch_of(), 5.0)
            assert "client_key" in str(caught.value.repair)


def test_insecure_transport_is_never_silent(certificates: Path) -> None:
    """Not checking the receiver, and sending credentials without TLS to another machine, warn."""
    with pytest.warns(InsecureTransportWarning, match="verify_tls"):
        unchecked = OtlpHttpExporter("https://h", verify_tls=False)
    unchecked.close()
    with pytest.warns(InsecureTransportWarning, match="credentials"):
        OtlpHttpExporter("http://h", headers={"X-Api-Key": "k"})
    with ScriptedReceiver(tls=server_side(certificates)) as receiver:
        with pytest.warns(InsecureTransportWarning):
            exporter = OtlpHttpExporter(receiver.endpoint, verify_tls=False)
        exporter.export(batch_of(), 5.0)
        exporter.close()
        assert len(receiver.records) == 3


def test_credentials_to_this_machine_do_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    """An agent on the loopback is the usual case."""
    for host, headers in itertools.product(("localhost", "127.0.0.1", "[::1]"), ({}, {"Authorization": "x"})):
        OtlpHttpExporter(f"http://{host}:4318", headers=headers)
    OtlpHttpExporter("http://h", headers={"X-Tenant": "acme"})
    assert not recwarn.list
