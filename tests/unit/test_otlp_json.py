"""OTLP/JSON against two oracles: protobuf's own reading of it, and what our protobuf bytes say."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import pytest
from google.protobuf.json_format import Parse
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from otel_audit import semconv as sc
from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.canonical import canonicalize
from otel_audit.errors import DamageError
from otel_audit.formats.otlp import encode_logs_request
from otel_audit.formats.otlp_answer import PartialSuccess, parse_logs_response, parse_logs_response_json
from otel_audit.formats.otlp_json import encode_logs_request_json
from otel_audit.testing.script import parse_otlp, parse_otlp_json

TRACE, SPAN = "0123456789abcdef0123456789abcdef", "0123456789abcdef"
INT64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | text | st.binary()
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4))


def batch_of(attributes: dict[str, Any], body: Any = None, resource: dict[str, Any] | None = None) -> RecordBatch:
    """Two records with the same contents, one of them in a trace."""
    records = [
        StoredRecord(n, "", canonicalize("user.login", 10**18, 10**18 + 1, body, attributes, *ids))
        for n, ids in enumerate((("", ""), (TRACE, SPAN)), 1)
    ]
    return RecordBatch("stream", resource or {}, records)


def read(content: bytes) -> ExportLogsServiceRequest:
    """As protobuf reads JSON; it wants base64 where OTLP has hexadecimal."""
    request = json.loads(content)
    for log in request["resourceLogs"][0]["scopeLogs"][0]["logRecords"]:
        for name in ("traceId", "spanId"):
            if name in log:
                log[name] = b64encode(bytes.fromhex(log[name])).decode()
    return Parse(json.dumps(request), ExportLogsServiceRequest())


@given(st.dictionaries(text, values, max_size=8), values)
@example({"": ""}, "")
@example({"a": {}, "b": [], "c": None, "d": b"", "e": 0, "f": 0.0, "g": False}, {})
@example({"map": {"stringValue": "x"}, "deep": {"intValue": {"intValue": 7}}}, {"stringValue": None})
@example({"low": -(2**63), "high": 2**63 - 1, "whole": 1e300, "tiny": 5e-324}, "")
@example({sc.SEVERITY_NUMBER: 17, sc.SEVERITY_TEXT: "ERROR"}, "")
@example({sc.SEVERITY_NUMBER: 99, sc.SEVERITY_TEXT: 5}, "")
def test_it_says_what_the_protobuf_says(attributes: dict[str, Any], body: Any) -> None:
    """Every value of every type, in both of our forms, by both oracles."""
    batch = batch_of(attributes, body)
    ours = encode_logs_request_json(batch)
    expected = ExportLogsServiceRequest.FromString(encode_logs_request(batch))
    assert read(ours) == expected
    assert parse_otlp_json(ours) == parse_otlp(encode_logs_request(batch))


RESOURCE = {
    "s": "x", "b": True, "i": 7, "big": 2**70, "f": 0.5, "inf": float("-inf"), "bytes": b"\x00", "none": None,
    "list": (1, "a"), "map": {"k": 1}, "odd": 1j, "bad": "\ud800",
}  # fmt: skip


def test_the_resource_says_what_the_protobuf_says() -> None:
    """Also where OTLP has no type for a value."""
    batch = batch_of({}, "x", RESOURCE)
    assert read(encode_logs_request_json(batch)) == ExportLogsServiceRequest.FromString(encode_logs_request(batch))


def test_its_form() -> None:
    """Ids in hexadecimal, integers of 64 bits as strings, enumerations as numbers."""
    batch = batch_of({"n": 7, sc.SEVERITY_NUMBER: 17})
    (_, log) = json.loads(encode_logs_request_json(batch))["resourceLogs"][0]["scopeLogs"][0]["logRecords"]
    assert (log["traceId"], log["spanId"]) == (TRACE, SPAN)
    assert log["timeUnixNano"] == "1000000000000000000"
    assert {"key": "n", "value": {"intValue": "7"}} in log["attributes"]
    assert log["severityNumber"] == 17


@pytest.mark.parametrize(
    "canonical",
    [b"", b"{", b"[]", b'{"attributes":{"a":5}}', b'{"attributes":{"a":{"intValue":7}}}', b'{"timestamp":"x"}',
     b'{"attributes":{"a":{"what":"x"}}}', b'{"trace_id":"xyz"}', b'{"attributes":{"a":{"intValue":"1.5"}}}'],
)  # fmt: skip
def test_what_is_not_canonical_is_damage(canonical: bytes) -> None:
    """It names the record; nothing half is sent."""
    with pytest.raises(DamageError, match="record 9 of stream s"):
        encode_logs_request_json(RecordBatch("s", {}, [StoredRecord(9, "", canonical)]))


def test_others_are_let_run() -> None:
    """While a large batch is written."""
    paused: list[int] = []
    record = batch_of({}).records[0]
    encode_logs_request_json(RecordBatch("s", {}, [record] * 100), lambda: paused.append(1))
    assert len(paused) > 5


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"{}", None),
        (b'{"partialSuccess":null}', None),
        (b'{"partialSuccess":{}}', PartialSuccess(0, "")),
        (b'{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"no"}}', PartialSuccess(3, "no")),
        (b'{"partial_success":{"rejected_log_records":3,"error_message":"no"}}', PartialSuccess(3, "no")),
        (b'{"partialSuccess":{"rejectedLogRecords":"-1","errorMessage":7}}', PartialSuccess(-1, "")),
        (b'{"somethingNew":1}', None),
    ],
)
def test_an_answer_in_json(body: bytes, expected: PartialSuccess | None) -> None:
    """With either spelling of the names, numbers as text or as numbers; what is new is passed over."""
    assert parse_logs_response_json(body) == expected


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"[]", b"null", b'"ok"', b'{"code":14,"message":"full"}', b'{"error":"no"}', b'{"partialSuccess":[]}',
     b'{"detail":"no"}', b'{"errorMessage":"no","errorType":"Error"}', b'{"fault":{"faultstring":"no"}}',
     b'{"partialSuccess":{"rejectedLogRecords":"many"}}', b'{"partialSuccess":{"rejectedLogRecords":1.5}}',
     b'{"partialSuccess":{"rejectedLogRecords":true}}', b"\xff", b"[" * 100_000],
)  # fmt: skip
def test_what_is_no_answer(body: bytes) -> None:
    """Pages, errors under a success, numbers that are none."""
    with pytest.raises(ValueError):
        parse_logs_response_json(body)


@pytest.mark.parametrize("body", [b"\x08\x03", b"\x08\x03\x12\x04full", b"\x12\x04full"])
def test_a_status_is_no_answer(body: bytes) -> None:
    """In protobuf it would read as an empty, accepting answer."""
    with pytest.raises(ValueError, match="Status"):
        parse_logs_response(body)
