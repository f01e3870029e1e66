"""One table of options and one reading of the environment for all protocols of OTLP."""

from __future__ import annotations

import os
from typing import Any

import pytest

from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.errors import ConfigurationError, RejectedExportError, RetryableExportError
from otel_audit.exporters.otlp import OtlpExporter
from otel_audit.exporters.otlp_grpc import OtlpGrpcExporter
from otel_audit.exporters.otlp_http import OtlpHttpExporter
from otel_audit.exporters.otlp_options import GrpcEndpoint, grpc_endpoint, read_otlp, send_in_parts

GENERAL, LOGS, AUDIT = "OTEL_EXPORTER_OTLP_", "OTEL_EXPORTER_OTLP_LOGS_", "OTEL_EXPORTER_OTLP_AUDIT_"


@pytest.mark.parametrize(
    ("options", "environ", "expected"),
    [
        ({}, {}, "<OtlpHttpExporter http://localhost:4318/v1/logs>"),
        ({"protocol": "http/json"}, {}, "<OtlpHttpExporter http://localhost:4318/v1/logs>"),
        ({"protocol": "grpc"}, {}, "<OtlpGrpcExporter http://localhost:4317>"),
        ({}, {GENERAL + "PROTOCOL": "grpc"}, "<OtlpGrpcExporter http://localhost:4317>"),
        ({}, {GENERAL + "PROTOCOL": "http/json", LOGS + "PROTOCOL": "grpc"}, "<OtlpGrpcExporter http://localhost:4317>"),
        ({"protocol": "http/protobuf"}, {AUDIT + "PROTOCOL": "grpc"}, "<OtlpHttpExporter http://localhost:4318/v1/logs>"),
        ({}, {GENERAL + "PROTOCOL": "", LOGS + "PROTOCOL": " "}, "<OtlpHttpExporter http://localhost:4318/v1/logs>"),
        ({}, {AUDIT + "PROTOCOL": "grpc", AUDIT + "ENDPOINT": "https://a:1", GENERAL + "ENDPOINT": "http://b"},
         "<OtlpGrpcExporter https://a:1>"),
        ({"protocol": "grpc", "endpoint": "http://c"}, {GENERAL + "ENDPOINT": "nonsense://"},
         "<OtlpGrpcExporter http://c:80>"),
        ({"protocol": "grpc"}, {GENERAL + "ENDPOINT": "c:4317", GENERAL + "INSECURE": "true"},
         "<OtlpGrpcExporter http://c:4317>"),
        ({"protocol": "grpc"}, {GENERAL + "ENDPOINT": "c:4317", LOGS + "INSECURE": "0", GENERAL + "INSECURE": "true"},
         "<OtlpGrpcExporter https://c:4317>"),
        ({"protocol": "grpc", "insecure": True}, {GENERAL + "ENDPOINT": "https://c", GENERAL + "INSECURE": "x"},
         "<OtlpGrpcExporter https://c:443>"),
    ],
)  # fmt: skip
def test_the_protocol_and_the_endpoint(options: dict[str, Any], environ: dict[str, str], expected: str) -> None:
    """An option before the audit's own variable, before that of logs, before the general one; empty is absent."""
    assert repr(OtlpExporter.from_options(options, environ)) == expected


@pytest.mark.parametrize("protocol", ["grpc", "http/json", "http/protobuf"])
def test_every_variable_holds_for_every_protocol(protocol: str) -> None:
    """With the specification's meaning: milliseconds, percent-encoding; files where TLS is spoken."""
    environ = {
        GENERAL + "PROTOCOL": protocol,
        GENERAL + "HEADERS": "x-key=a%20b,x-other=c",
        LOGS + "TIMEOUT": "1500",
        GENERAL + "TIMEOUT": "9",
        AUDIT + "COMPRESSION": "gzip",
        GENERAL + "ENDPOINT": "https://h:9",
        GENERAL + "CERTIFICATE": os.devnull,
        LOGS + "CLIENT_CERTIFICATE": "c.pem",
        AUDIT + "CLIENT_KEY": "k.pem",
    }
    read = read_otlp({}, environ, "otlp")
    assert read["headers"] == {"x-key": "a b", "x-other": "c"}
    assert (read["timeout"], read["compression"], read["request_bytes"]) == (1.5, "gzip", 4 << 20)
    files = [str(read[name]) for name in ("certificate", "client_certificate", "client_key")]
    assert files == [os.devnull, os.path.abspath("c.pem"), os.path.abspath("k.pem")]
    plain = read_otlp({}, {**environ, GENERAL + "ENDPOINT": "http://h:9"}, "otlp")
    assert plain["certificate"] is None  # meant for other signals


@pytest.mark.parametrize(
    ("options", "environ", "said"),
    [
        ({}, {GENERAL + "PROTOCOL": "thrift"}, f"{GENERAL}PROTOCOL: expected one of http/protobuf, http/json, grpc"),
        ({"protocol": "grpc"}, {LOGS + "ENDPOINT": "http://h/v1/logs"}, f"{LOGS}ENDPOINT: gRPC has no paths"),
        ({"protocol": "grpc"}, {GENERAL + "INSECURE": "maybe"}, f"{GENERAL}INSECURE: expected true or false"),
        ({"protocol": "grpc"}, {GENERAL + "TIMEOUT": "5s"}, f"{GENERAL}TIMEOUT: expected a number"),
        ({"protocol": "grpc", "verify_tls": False}, {}, r"verify_tls: there is no such thing .* grpc; .*cert"),
        ({"insecure": True}, {}, "insecure: there is no such thing with protocol http/protobuf"),
        ({"keepalive": 30}, {GENERAL + "PROTOCOL": "http/json"}, "keepalive: there is no such thing .*http/json"),
        ({"protokol": "grpc"}, {}, "no option 'protokol'; did you mean 'protocol'"),
        ({"protocol": "grpc", "endpoint": "ftp://h"}, {}, r"x\.endpoint: expected http://HOST:PORT"),
        ({"protocol": "http/json", "endpoint": "h:4318"}, {}, r"x\.endpoint: expected a URL"),
    ],
)  # fmt: skip
def test_a_mistake(options: dict[str, Any], environ: dict[str, str], said: str) -> None:
    """Is found when the exporter is made, by the name of the option or the variable."""
    with pytest.raises(ConfigurationError, match=said):
        OtlpExporter.from_options(options, environ, where="x")


def test_the_classes_know_their_protocol() -> None:
    """One speaks gRPC whatever the environment says; the other says that it does not."""
    environ = {GENERAL + "PROTOCOL": "http/json"}
    assert repr(OtlpGrpcExporter.from_options({}, environ)) == "<OtlpGrpcExporter http://localhost:4317>"
    with pytest.raises(ConfigurationError, match="OtlpGrpcExporter speaks grpc"):
        OtlpHttpExporter.from_options({}, {GENERAL + "PROTOCOL": "grpc"})


@pytest.mark.parametrize(
    ("text", "insecure", "expected"),
    [
        ("http://h:4317", False, GrpcEndpoint("h:4317", False, "http://h:4317")),
        ("https://h:4317/", True, GrpcEndpoint("h:4317", True, "https://h:4317")),
        ("http://[::1]:4317", False, GrpcEndpoint("[::1]:4317", False, "http://[::1]:4317")),
        ("h", True, GrpcEndpoint("h:4317", False, "http://h:4317")),
        ("h:1", False, GrpcEndpoint("h:1", True, "https://h:1")),
        ("[::1]:5", True, GrpcEndpoint("[::1]:5", False, "http://[::1]:5")),
        ("dns:///h:4317", True, GrpcEndpoint("dns:///h:4317", False, "http://dns:///h:4317")),
        ("unix:/run/otel.sock", True, GrpcEndpoint("unix:/run/otel.sock", False, "http://localhost")),
    ],
)  # fmt: skip
def test_what_grpc_is_told(text: str, insecure: bool, expected: GrpcEndpoint) -> None:
    """A scheme decides about TLS; without one, the option does."""
    assert grpc_endpoint(text, "x", insecure=insecure) == expected


@pytest.mark.parametrize(
    "text", ["", "h:0", "h:99999", "h:x", "u:p@h:1", "a b", "grpc://h", "http://", "https://h?x=1"]
)
def test_what_is_no_endpoint(text: str) -> None:
    """Is refused, and not shown where it could hold a password."""
    with pytest.raises(ConfigurationError, match="x: ") as caught:
        grpc_endpoint(text, "x", insecure=False)
    assert "u:p" not in str(caught.value)


# -- parts -----------------------------------------------------------------------------------------------------------


def batch_of(*sizes: int) -> RecordBatch:
    """Records of these sizes."""
    return RecordBatch("s", {}, [StoredRecord(n, "", b"x" * size) for n, size in enumerate(sizes, 1)])


def encode(part: RecordBatch, _: object) -> bytes:
    """As long as the records are."""
    return b"".join(record.canonical for record in part.records)


def test_a_batch_is_sent_in_parts_that_fit() -> None:
    """In order; what is too large alone goes alone."""
    sent: list[tuple[int, ...]] = []
    send_in_parts(
        batch_of(3, 3, 3, 20, 1, 9, 1),
        10,
        encode,
        lambda content, part: sent.append(tuple(record.sequence for record in part.records)),
    )
    assert [number for part in sent for number in part] == list(range(1, 8))
    assert (4,) in sent
    assert all(part == (4,) or sum((3, 3, 3, 20, 1, 9, 1)[n - 1] for n in part) <= 10 for part in sent)


def test_a_failure_says_how_many_records_were_taken() -> None:
    """Those of the parts before, and what the failing part says itself."""

    def send(content: bytes, part: RecordBatch) -> None:
        if part.records[0].sequence > 2:
            raise RetryableExportError("away", accepted=1)

    with pytest.raises(RetryableExportError) as caught:
        send_in_parts(batch_of(5, 5, 5, 5), 10, encode, send)
    assert caught.value.accepted == 3


def test_a_record_that_cannot_be_written_stops_everything() -> None:
    """Before anything is sent."""
    sent: list[bytes] = []
    bad = RecordBatch("s", {}, [*batch_of(5, 5).records, StoredRecord(3, "", b"nonsense")])
    exporter = OtlpHttpExporter()
    with pytest.raises(RejectedExportError) as caught:
        send_in_parts(bad, 10, exporter._wire.encode, lambda content, _: sent.append(content))
    assert (caught.value.details["reason"], sent) == ("damaged", [])
