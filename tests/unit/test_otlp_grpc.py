"""The gRPC exporter against a real server that answers by script: what acknowledges, and what raises which error."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

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
from otel_audit.exporters import grpc_client
from otel_audit.exporters.http_client import InsecureTransportWarning
from otel_audit.exporters.otlp_grpc import OtlpGrpcExporter
from otel_audit.testing import GrpcReply, ScriptedGrpcReceiver, ScriptedReceiver
from support.certificates import folder_of_certificates

CODES = sorted(code.name for code in grpc.StatusCode if code.name != "OK")
RETRY = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
REJECTED = {"INVALID_ARGUMENT", "ALREADY_EXISTS"}
HASH = "ab" * 32


def batch_of(count: int = 3, size: int = 10) -> RecordBatch:
    """A batch of records with a body of some size."""
    records = [
        StoredRecord(n, HASH, canonicalize("user.login", 10**18, 10**18, "x" * size, {sc.RECORD_ID: f"r-{n}"}, "", ""))
        for n in range(1, count + 1)
    ]
    return RecordBatch("stream-1", {"service.name": "billing"}, records)


@pytest.fixture
def receiver() -> Iterator[ScriptedGrpcReceiver]:
    """A receiver that takes everything unless it is told otherwise."""
    with ScriptedGrpcReceiver() as running:
        yield running


def raised(
    receiver: ScriptedGrpcReceiver, reply: GrpcReply, timeout_s: float = 5.0, count: int = 3, **options: Any
) -> ExportError:
    """The error for one reply; the exporter must work again after it."""
    exporter = OtlpGrpcExporter(receiver.endpoint, **options)
    receiver.script(reply)
    with pytest.raises(ExportError) as caught:
        exporter.export(batch_of(count), timeout_s)
    exporter.export(batch_of(1), 20.0)
    assert receiver.record_ids[-1] == "r-1"
    exporter.close()
    return caught.value


# -- what acknowledges, and what the receiver says -----------------------------------------------------------------


@pytest.mark.parametrize("reply", [GrpcReply(), GrpcReply.partial(0), GrpcReply.partial(0, "a warning")])
def test_an_acknowledgement(receiver: ScriptedGrpcReceiver, reply: GrpcReply) -> None:
    """OK with an empty message, or with a warning that rejects nothing."""
    exporter = OtlpGrpcExporter(receiver.endpoint)
    receiver.script(reply)
    assert exporter.export(batch_of(), 5.0) is None
    assert len(receiver.requests) == 1
    exporter.close()


@pytest.mark.parametrize("rejected", [1, 3, 4, -1, 2**62])
def test_partial_success_is_a_rejection(receiver: ScriptedGrpcReceiver, rejected: int) -> None:
    """Also where the number makes no sense."""
    error = raised(receiver, GrpcReply.partial(rejected, "too old"))
    assert isinstance(error, RejectedExportError)
    assert error.details == {"reason": "partial_success", "rejected": rejected, "message": "too old"}


@pytest.mark.parametrize("code", CODES)
def test_every_code_has_its_class(receiver: ScriptedGrpcReceiver, code: str) -> None:
    """Known to pass: retry.  About the records: rejected.  Everything else: blocked, with what to repair."""
    error = raised(receiver, GrpcReply(code, "says why", trailers={"x-request-id": "q-1"}))
    expected: type[ExportError] = BlockedExportError
    if code in RETRY:
        expected = RetryableExportError
    elif code in REJECTED:
        expected = RejectedExportError
    assert type(error) is expected
    assert (error.status, error.request_id) == (code, "q-1")
    assert "says why" in str(error)
    assert (error.repair is not None) is (expected is BlockedExportError)


@pytest.mark.parametrize(("asks_s", "expected"), [(2.5, 2.5), (0.0, 0.0), (-5.0, 0.0), (86_400.0, 600.0)])
@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED"])
def test_retry_info(receiver: ScriptedGrpcReceiver, code: str, asks_s: float, expected: float) -> None:
    """It is kept within bounds, and makes of an exhaustion one that passes."""
    error = raised(receiver, GrpcReply.error(code, "busy", retry_after_s=asks_s, request_id="q-2"))
    assert type(error) is RetryableExportError
    assert (error.retry_after_s, error.request_id) == (expected, "q-2")


@pytest.mark.parametrize("trailer", [b"", b"\x0a\xff\xff", b"\x1a\x02\xff\xff", b"x" * 8000])
def test_details_that_cannot_be_read(receiver: ScriptedGrpcReceiver, trailer: bytes) -> None:
    """The code alone decides."""
    error = raised(receiver, GrpcReply("UNAVAILABLE", "busy", trailers={"grpc-status-details-bin": trailer}))
    assert type(error) is RetryableExportError
    assert error.retry_after_s is None


def test_a_conflict_with_itself_is_none(receiver: ScriptedGrpcReceiver) -> None:
    """The receiver has the record by its hash: delivered.  Another hash, or none: rejected, with its own reason."""
    exporter = OtlpGrpcExporter(receiver.endpoint)
    receiver.script(GrpcReply.error("ALREADY_EXISTS", "there", integrity_hash=HASH))
    exporter.export(batch_of(1), 5.0)
    exporter.close()
    for told in ({"integrity_hash": "cd" * 32}, {}):
        error = raised(receiver, GrpcReply.error("ALREADY_EXISTS", "there", **told), count=1)
        assert isinstance(error, RejectedExportError)
        assert error.details["reason"] == "conflict"
    error = raised(receiver, GrpcReply.error("ALREADY_EXISTS", "there", integrity_hash=HASH), count=2)
    assert isinstance(error, RejectedExportError)


@pytest.mark.parametrize("body", [b"<html>", b"\x0a" + b"\xff" * 100, b"\x08\x03\x12\x04full", b"\x12\x04full"])
def test_what_only_looks_like_success_is_blocked(receiver: ScriptedGrpcReceiver, body: bytes) -> None:
    """A message that cannot be read, and a Status in place of one."""
    error = raised(receiver, GrpcReply(body=body, headers={"x-request-id": "q-3"}))
    assert isinstance(error, BlockedExportError)
    assert (error.status, error.request_id) == ("OK", "q-3")


@pytest.mark.parametrize(
    "flood",
    [{"body": b"\x12\x00" * 200_000}, {"headers": {"x": "y" * 40_000}}, {"trailers": {"x": "y" * 40_000}}],
    ids=["message", "headers", "trailers"],
)
def test_a_flood_is_cut(receiver: ScriptedGrpcReceiver, flood: dict[str, Any]) -> None:
    """An answer that is longer than OTLP's can be is not read, and is no success."""
    error = raised(receiver, GrpcReply(**flood))
    assert isinstance(error, BlockedExportError)
    assert "more than an OTLP receiver would" in str(error)


@pytest.mark.parametrize(
    "reply",
    [
        GrpcReply("UNAUTHENTICATED", "s3cret-value is not known", headers={"x-request-id": "s3cret-value"}),
        GrpcReply.error("INTERNAL", "x", request_id="s3cret-value", where="s3cret-value"),
        GrpcReply.partial(1, "from s3cret-value"),
    ],
)
def test_what_the_receiver_repeats_of_credentials_is_covered(receiver: ScriptedGrpcReceiver, reply: GrpcReply) -> None:
    """In the message, the details, the request id and the traceback."""
    error = raised(receiver, reply, headers={"X-Api-Key": "s3cret-value"})
    shown = "".join(traceback.format_exception(error)) + f"{error.details} {error.request_id} {error.repair}"
    assert "s3cret" not in shown


# -- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_batch_over_the_limit_goes_in_parts(receiver: ScriptedGrpcReceiver, compression: str) -> None:
    """In order, none larger than a receiver takes by default."""
    exporter = OtlpGrpcExporter(receiver.endpoint, compression=compression)
    exporter.export(batch_of(60, 200_000), 30.0)
    exporter.close()
    assert receiver.record_ids == [f"r-{n}" for n in range(1, 61)]
    assert len(receiver.requests) == 4
    assert max(len(request.body) for request in receiver.requests) <= 4 * 1024 * 1024


def test_what_was_taken_before_a_part_failed_is_said(receiver: ScriptedGrpcReceiver) -> None:
    """The shipper need not send it again."""
    exporter = OtlpGrpcExporter(receiver.endpoint)
    receiver.script("OK", "UNAVAILABLE")
    with pytest.raises(RetryableExportError) as caught:
        exporter.export(batch_of(60, 200_000), 30.0)
    assert caught.value.accepted == len(receiver.records) == 15
    exporter.close()


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_receiver_that_takes_less(compression: str) -> None:
    """Its refusal is about the size of the records: rejected, so that the batch is split."""
    with ScriptedGrpcReceiver(message_bytes_max=10_000) as small:
        exporter = OtlpGrpcExporter(small.endpoint, compression=compression)
        with pytest.raises(RejectedExportError) as caught:
            exporter.export(batch_of(60, 1000), 5.0)
        assert caught.value.details["reason"] == "too_large"
        assert "request_bytes" in str(caught.value.repair)
        exporter.export(batch_of(6, 1000), 5.0)
        exporter.close()


@pytest.mark.parametrize(
    "text",
    ["grpc: received message larger than max (5242890 vs. 4194304)",
     "grpc: received message after decompression larger than max (5242890 vs. 4194304)"],
)  # fmt: skip
def test_what_a_collector_says_of_a_large_request(receiver: ScriptedGrpcReceiver, text: str) -> None:
    """In the words of gRPC in Go."""
    error = raised(receiver, GrpcReply("RESOURCE_EXHAUSTED", text))
    assert isinstance(error, RejectedExportError)


# -- the network -----------------------------------------------------------------------------------------------------


def test_a_reset_is_worth_another_try(receiver: ScriptedGrpcReceiver) -> None:
    """In the middle of a call."""
    error = raised(receiver, GrpcReply(reset=True))
    assert type(error) is RetryableExportError
    assert "broke" in str(error)


@pytest.mark.parametrize("reply", [GrpcReply(hang=True), GrpcReply(delay_s=3.0)])
def test_an_answer_that_does_not_come(receiver: ScriptedGrpcReceiver, reply: GrpcReply) -> None:
    """The time limit holds."""
    begun = time.monotonic()
    error = raised(receiver, reply, timeout_s=0.4)
    assert type(error) is RetryableExportError
    assert "did not answer within 0.4 s" in str(error)
    assert time.monotonic() - begun < 3.0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.mark.parametrize(
    ("endpoint", "hint"),
    [("http://127.0.0.1:{port}", "listens on that port"), ("http://collector.invalid:4317", "name of the host")],
)
def test_nobody_is_there(endpoint: str, hint: str) -> None:
    """Worth another try, with a hint."""
    exporter = OtlpGrpcExporter(endpoint.format(port=free_port()))
    with pytest.raises(RetryableExportError) as caught:
        exporter.export(batch_of(), 5.0)
    assert hint in str(caught.value.repair)
    exporter.close()


def test_a_receiver_that_comes_back_is_found_at_once() -> None:
    """However long it was away: a channel's own back-off does not keep us from trying."""
    port = free_port()
    exporter = OtlpGrpcExporter(f"http://127.0.0.1:{port}")
    for _ in range(8):
        with pytest.raises(RetryableExportError):
            exporter.export(batch_of(), 5.0)
    with ScriptedGrpcReceiver(port=port) as back:
        exporter.export(batch_of(), 5.0)
        assert len(back.records) == 3
    with pytest.raises(RetryableExportError):
        exporter.export(batch_of(), 5.0)
    with ScriptedGrpcReceiver(port=port) as back:
        exporter.export(batch_of(), 5.0)
        assert len(back.records) == 3
    exporter.close()


@pytest.mark.parametrize(
    "raw", [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", b"SSH-2.0-OpenSSH_9\r\n" + bytes(20)]
)
def test_another_protocol_is_blocked(raw: bytes) -> None:
    """The port of OTLP over HTTP, of SSH."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1)
                connection.sendall(raw)

        thread = threading.Thread(target=answer)
        thread.start()
        exporter = OtlpGrpcExporter(f"http://127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(BlockedExportError) as caught:
            exporter.export(batch_of(), 20.0)
        thread.join()
        exporter.close()
    assert (caught.value.status, "4317" in str(caught.value.repair)) == ("protocol", True)


def test_the_port_of_the_other_protocol_is_blocked() -> None:
    """A receiver of OTLP over HTTP."""
    with ScriptedReceiver() as other:
        exporter = OtlpGrpcExporter(other.url)
        with pytest.raises(ExportError):
            exporter.export(batch_of(), 5.0)
        exporter.close()
        assert other.records == []


def test_closing_ends_a_call_that_is_under_way(receiver: ScriptedGrpcReceiver) -> None:
    """From another thread, and at once; what it carried may be sent again."""
    exporter = OtlpGrpcExporter(receiver.endpoint)
    receiver.script(GrpcReply(hang=True))
    errors: list[ExportError] = []

    def export() -> None:
        try:
            exporter.export(batch_of(), 60.0)
        except ExportError as error:
            errors.append(error)

    thread = threading.Thread(target=export)
    thread.start()
    receiver.wait_for(requests=1)
    exporter.close()
    thread.join(20)
    assert [type(error) for error in errors] == [RetryableExportError]


# -- forks -----------------------------------------------------------------------------------------------------------

SERVER = """
import sys
from otel_audit.testing import GrpcReply, ScriptedGrpcReceiver
with ScriptedGrpcReceiver(default=GrpcReply(delay_s=0.05)) as receiver:
    print(receiver.endpoint, flush=True)
    sys.stdin.read()
    print(*receiver.record_ids)
"""

FORKER = """
import os, sys, threading, time
from otel_audit import semconv as sc
from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.canonical import canonicalize
from otel_audit.errors import RetryableExportError
from otel_audit.exporters.otlp_grpc import OtlpGrpcExporter

def batch_of(count):
    ids = [f"r-{n}" for n in range(1, count + 1)]
    forms = [canonicalize("user.login", 10**18, 10**18, None, {sc.RECORD_ID: one}, "", "") for one in ids]
    return RecordBatch("s", {}, [StoredRecord(n, "", form) for n, form in enumerate(forms, 1)])

endpoint, busy = sys.argv[1], sys.argv[2] == "busy"
exporter = OtlpGrpcExporter(endpoint)
exporter.export(batch_of(1), 20.0)
interrupted = []
stop = threading.Event()

def keep_exporting():
    while not stop.is_set():
        try:
            exporter.export(batch_of(1), 20.0)
        except RetryableExportError as error:
            interrupted.append(error)

threads = [threading.Thread(target=keep_exporting)] if busy else []
for thread in threads:
    thread.start()
codes = []
for number in range(3):
    time.sleep(0.06 if busy else 0)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            ours = OtlpGrpcExporter(endpoint)
            ours.export(batch_of(2), 20.0)
            ours.close()
            if not busy:
                exporter.export(batch_of(3), 20.0)
            code = 0
        finally:
            os._exit(code)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
stop.set()
for thread in threads:
    thread.join()
exporter.export(batch_of(1), 20.0)
exporter.close()
print(codes, len(interrupted))
"""


@pytest.mark.parametrize("how", ["idle", "busy"])
def test_a_process_forks(tmp_path: Path, how: str) -> None:
    """The children export, with exporters of their own and with the parent's; the parent goes on.

    ``busy``: another thread of the parent is in the middle of exports all the time.
    """
    (tmp_path / "forker.py").write_text(FORKER)
    with subprocess.Popen(
        [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            endpoint = server.stdout.readline().strip()
            done = subprocess.run(
                [sys.executable, str(tmp_path / "forker.py"), endpoint, how],
                capture_output=True, text=True, timeout=100,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            codes, _, interrupted = done.stdout.strip().rpartition(" ")
            assert codes == str([0] * 3), done.stderr
            assert (int(interrupted) > 0) is (how == "busy")
            output, _ = server.communicate("", timeout=30)
            assert output.split().count("r-2") == (6 if how == "idle" else 3)
        finally:
            server.kill()


def test_a_fork_that_does_not_wait_for_another_leaves_the_exporter_usable(
    receiver: ScriptedGrpcReceiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread is about to fork, another one does so meanwhile: afterwards requests are made as ever."""
    exporter = OtlpGrpcExporter(receiver.endpoint)
    exporter.export(batch_of(), 5.0)
    monkeypatch.setattr(grpc_client, "_FORK_WAIT_S", 0.05)
    grpc_client._before_fork()
    other = threading.Thread(target=lambda: (grpc_client._before_fork(), grpc_client._after_fork()))
    other.start()
    other.join(20.0)
    grpc_client._after_fork()

    def export() -> None:
        with contextlib.suppress(RetryableExportError):  # the other fork has closed the channel
            exporter.export(batch_of(1), 20.0)
        exporter.export(batch_of(1), 20.0)

    sender = threading.Thread(target=export, daemon=True)
    sender.start()
    sender.join(20.0)
    assert not sender.is_alive()
    assert len(receiver.records) >= 4
    exporter.close()


# -- what is sent, and options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_what_arrives(receiver: ScriptedGrpcReceiver, compression: str) -> None:
    """Every record, the resource, and the metadata."""
    headers = {"X-Tenant": "acme", "token-bin": "abc"}
    exporter = OtlpGrpcExporter(receiver.endpoint, headers=headers, compression=compression)
    exporter.export(batch_of(), 5.0)
    exporter.close()
    (request,) = receiver.requests
    assert request.path == "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
    assert request.headers["x-tenant"] == "acme"
    assert request.headers["user-agent"].startswith(f"otel-audit/{__version__} OTel-OTLP-Exporter-Python/")
    assert receiver.records[0].resource == {"service.name": "billing"}


def test_a_connection_is_used_again(receiver: ScriptedGrpcReceiver) -> None:
    """One channel for many batches; closing is no end."""
    exporter = OtlpGrpcExporter(receiver.endpoint)
    exporter.export(batch_of(), 5.0)
    channel = exporter._client._channel
    exporter.export(batch_of(), 5.0)
    assert exporter._client._channel is channel
    exporter.close()
    exporter.export(batch_of(), 5.0)
    exporter.close()
    assert len(receiver.requests) == 3


def test_keepalive_is_asked_for(receiver: ScriptedGrpcReceiver) -> None:
    """It reaches gRPC, and is not there unless somebody wants it."""
    asking = OtlpGrpcExporter(receiver.endpoint, keepalive="10s")
    asking.export(batch_of(), 5.0)
    asking.close()
    assert dict(asking._client._arguments())["grpc.keepalive_time_ms"] == 10_000
    assert "grpc.keepalive_time_ms" not in dict(OtlpGrpcExporter()._client._arguments())


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"headers": {"Grpc-Timeout": "1"}}, "Grpc-Timeout"),
        ({"headers": {"bad name": "x"}}, "bad name"),
        ({"headers": {"x": "s3crét"}}, r"headers\.x"),
        ({"timeout": 0}, "timeout"),
        ({"keepalive": 0}, "keepalive"),
        ({"request_bytes": 0}, "request_bytes"),
        ({"endpoint": "http://user:s3cret@h"}, "endpoint"),
        ({"endpoint": "user:s3cret@h:4317"}, "endpoint"),
        ({"endpoint": "http://h:4317/v1/logs"}, "gRPC has no paths"),
        ({"certificate": "ca.crt"}, "certificate: is for TLS"),
        ({"endpoint": "h:4317", "certificate": "/nowhere/ca.pem"}, "certificate: there is no file"),
        ({"endpoint": "https://h", "client_key": os.devnull}, "client_key"),
    ],
)
def test_a_wrong_argument(options: dict[str, Any], key: str) -> None:
    """Each is found when the exporter is made, and no secret is shown."""
    with pytest.raises(ConfigurationError, match=key) as caught:
        OtlpGrpcExporter(**options)
    assert "s3cr" not in str(caught.value)


# -- TLS -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once."""
    return folder_of_certificates(tmp_path_factory.mktemp("tls"))


def server_side(folder: Path, name: str = "server", *, asks: bool = False) -> grpc.ServerCredentials:
    """The receiver's side of TLS."""
    pair = ((folder / f"{name}.key").read_bytes(), (folder / f"{name}.crt").read_bytes())
    return grpc.ssl_server_credentials([pair], (folder / "ca.crt").read_bytes() if asks else None, asks)


def test_tls_with_our_authority(certificates: Path) -> None:
    """The certificate's file is what the receiver is checked by; host and port without a scheme mean TLS."""
    with ScriptedGrpcReceiver(tls=server_side(certificates)) as receiver:
        for endpoint in (receiver.endpoint, receiver.target):
            exporter = OtlpGrpcExporter(endpoint, certificate=certificates / "ca.crt")
            exporter.export(batch_of(), 5.0)
            exporter.close()
        assert len(receiver.records) == 6


def test_tls_with_a_client_certificate(certificates: Path, tmp_path: Path) -> None:
    """It is sent where the receiver asks for one, from two files or from one, and missed where it is not given."""
    files = {"certificate": certificates / "ca.crt"}
    ours = {"client_certificate": certificates / "client.crt", "client_key": certificates / "client.key"}
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(path.read_bytes() for path in ours.values()))
    with ScriptedGrpcReceiver(tls=server_side(certificates, asks=True)) as receiver:
        for client in (ours, {"client_certificate": both}):
            exporter = OtlpGrpcExporter(receiver.endpoint, **files, **client)
            exporter.export(batch_of(), 5.0)
            exporter.close()
        without = OtlpGrpcExporter(receiver.endpoint, **files)
        with pytest.raises(ExportError) as caught:
            without.export(batch_of(), 5.0)
        without.close()
        assert "client_certificate" in str(caught.value.repair)
        assert len(receiver.records) == 6


@pytest.mark.parametrize(
    ("name", "options"),
    [("server", {}), ("expired", {"certificate": "ca.crt"}), ("server", {"certificate": "client.crt"})],
    ids=["unknown authority", "expired", "wrong authority"],
)
def test_a_receiver_that_cannot_be_trusted(certificates: Path, name: str, options: dict[str, str]) -> None:
    """Blocked, with what to repair; no record leaves."""
    files = {key: certificates / value for key, value in options.items()}
    with ScriptedGrpcReceiver(tls=server_side(certificates, name)) as receiver:
        exporter = OtlpGrpcExporter(receiver.endpoint, **files)
        with pytest.raises(BlockedExportError, match="TLS failed") as caught:
            exporter.export(batch_of(), 5.0)
        exporter.close()
        assert "certificate" in str(caught.value.repair)
        assert receiver.requests == []


def test_tls_and_no_tls_are_mixed_up(certificates: Path, receiver: ScriptedGrpcReceiver) -> None:
    """Either way round: blocked, or worth another try where the receiver only closes; never delivered."""
    exporter = OtlpGrpcExporter(receiver.endpoint.replace("http:", "https:"))
    with pytest.raises(BlockedExportError) as caught:
        exporter.export(batch_of(), 5.0)
    exporter.close()
    assert "http://" in str(caught.value.repair)
    with ScriptedGrpcReceiver(tls=server_side(certificates)) as strict:
        exporter = OtlpGrpcExporter(strict.endpoint.replace("https:", "http:"))
        with pytest.raises(ExportError) as found:
            exporter.export(batch_of(), 5.0)
        exporter.close()
        assert "https://" in str(found.value.repair)
        assert strict.requests == []


def test_files_for_tls_that_are_broken(certificates: Path, tmp_path: Path) -> None:
    """Blocked when they are needed, with what to repair."""
    gone = tmp_path / "gone.pem"
    gone.write_bytes((certificates / "ca.crt").read_bytes())
    with ScriptedGrpcReceiver(tls=server_side(certificates)) as receiver:
        exporters = [
            OtlpGrpcExporter(receiver.endpoint, **{key: certificates / value for key, value in files.items()})
            for files in (
                {"certificate": "junk"},
                {"client_certificate": "client.crt", "client_key": "server.key"},
            )
        ]
        exporters.append(OtlpGrpcExporter(receiver.endpoint, certificate=gone))
        gone.unlink()
        for exporter in exporters:
            with pytest.raises(BlockedExportError) as caught:
                exporter.export(batch_of(), 5.0)
            exporter.close()
            assert "client_key" in str(caught.value.repair)


def test_credentials_without_tls_warn() -> None:
    """To another machine, not to this one."""
    with pytest.warns(InsecureTransportWarning, match="credentials"):
        OtlpGrpcExporter("http://h:4317", headers={"X-Api-Key": "k"})


def test_credentials_to_this_machine_do_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    """An agent on the loopback is the usual case."""
    for host, headers in itertools.product(("localhost", "127.0.0.1", "[::1]"), ({}, {"Authorization": "x"})):
        OtlpGrpcExporter(f"http://{host}:4317", headers=headers)
    OtlpGrpcExporter("https://h", headers={"Authorization": "x"})
    assert not recwarn.list
