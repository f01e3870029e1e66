"""The OTLP encoder against its oracle: what opentelemetry-proto reads from our bytes is what it would have built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from google.rpc.status_pb2 import Status
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_audit import __version__
from otel_audit import semconv as sc
from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.canonical import canonicalize
from otel_audit.errors import DamageError
from otel_audit.formats import otlp, otlp_quick
from otel_audit.formats.otlp import encode_logs_request
from otel_audit.formats.otlp_answer import PartialSuccess, parse_logs_response, parse_status
from otel_audit.formats.otlp_answer import Status as ReadStatus
from otel_audit.formats.otlp_quick import NOTICE_EVERY, SIGHTS, WRITERS_MAX, quick

TRACE = "0123456789abcdef0123456789abcdef"
SPAN = "0123456789abcdef"
TIME = 1_700_000_000_123_456_789
INT64 = st.integers(-(2**63), 2**63 - 1)

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | text | st.binary()
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4))
plain_scalars = text | INT64 | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)


def any_value(value: Any) -> AnyValue:
    """The oracle's value."""
    if value is None:
        return AnyValue()
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    if isinstance(value, float):
        return AnyValue(double_value=value + 0.0)  # the canonical form has no minus zero
    if isinstance(value, str):
        return AnyValue(string_value=value)
    if isinstance(value, bytes):
        return AnyValue(bytes_value=value)
    if isinstance(value, Mapping):
        return AnyValue(kvlist_value=KeyValueList(values=pairs(value)))
    return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))


def pairs(mapping: Mapping[str, Any]) -> list[KeyValue]:
    """The oracle's pairs, in the order of the canonical form."""
    ordered = sorted(mapping.items(), key=lambda item: item[0].encode("utf-16-be"))
    return [KeyValue(key=key, value=any_value(value)) for key, value in ordered]


def stored(
    attributes: Mapping[str, Any],
    body: Any = None,
    event_name: str = "user.login",
    times: tuple[int, int] = (TIME, TIME + 1),
    ids: tuple[str, str] = (TRACE, SPAN),
    sequence: int = 1,
) -> StoredRecord:
    """A record as the journal has it."""
    return StoredRecord(sequence, "0" * 64, canonicalize(event_name, *times, body, attributes, *ids))


def parsed(*records: StoredRecord, resource: Mapping[str, Any] | None = None) -> ExportLogsServiceRequest:
    """What the oracle reads from our bytes."""
    data = encode_logs_request(RecordBatch("stream", resource or {}, records))
    return ExportLogsServiceRequest.FromString(data)


def logs(request: ExportLogsServiceRequest) -> list[LogRecord]:
    """The records of a request."""
    return list(request.resource_logs[0].scope_logs[0].log_records)


def expected(
    attributes: Mapping[str, Any],
    body: Any = None,
    event_name: str = "user.login",
    times: tuple[int, int] = (TIME, TIME + 1),
    ids: tuple[str, str] = (TRACE, SPAN),
) -> LogRecord:
    """The oracle's record."""
    return LogRecord(
        time_unix_nano=times[0],
        observed_time_unix_nano=times[1],
        event_name=event_name,
        attributes=pairs(attributes),
        body=None if body is None else any_value(body),
        trace_id=bytes.fromhex(ids[0]),
        span_id=bytes.fromhex(ids[1]),
    )


@given(st.dictionaries(text, values, max_size=8), values)
@example({"": ""}, "")
@example({"a": {}, "b": [], "c": None, "d": b"", "e": 0, "f": 0.0, "g": False}, {})
@example({"map": {"stringValue": "x"}, "deep": {"intValue": {"intValue": 7}}}, {"stringValue": None})
@example({"map": {"bytesValue": b"\x00\xff"}, "list": [[], {}, None, [None]]}, [])
@example({"low": -(2**63), "high": 2**63 - 1, "minus": -1}, "")
@example({"\U0001f600": "😀", "\ufb33": "\x00\x1b\x7f\x80ÿĀ"}, "\ud7ff\ue000")
@example({"ends": -0.0, "tiny": 5e-324, "large": 1.7976931348623157e308}, -0.0)
def test_any_record_reads_as_the_oracle_would_have_built_it(attributes: dict[str, Any], body: Any) -> None:
    """Nested maps, arrays, bytes, empty and unset values, all of Unicode, the bounds of integers."""
    (log,) = logs(parsed(stored(attributes, body)))
    assert log == expected(attributes, body)


@given(st.dictionaries(text, plain_scalars, max_size=20), text, text)
def test_records_of_scalars_read_as_the_oracle_would_have_built_them(
    attributes: dict[str, Any], body: str, event_name: str
) -> None:
    """The way that nearly every record takes, with all of Unicode in keys, values, body and event name."""
    (log,) = logs(parsed(stored(attributes, body, event_name)))
    assert log == expected(attributes, body, event_name)


@given(st.dictionaries(text, plain_scalars, max_size=6), text)
def test_both_ways_write_the_same(attributes: dict[str, Any], body: str) -> None:
    """The quick way and the thorough way agree where both can."""
    canonical = stored(attributes, body).canonical
    thorough = LogRecord.FromString(b"".join(otlp._thorough(canonical)))
    for _ in range(NOTICE_EVERY * (SIGHTS + 2)):  # the last ones by the function for its shape
        parts = quick(canonical)
        assert parts is None or LogRecord.FromString(b"".join(parts)) == thorough


def test_an_ordinary_record_takes_the_quick_way() -> None:
    """Strings, integers, booleans and doubles, a text, ids and non-ASCII do not need the thorough one."""
    attributes = {sc.RECORD_ID: "r", "n": 7, "ok": True, "ratio": 0.5, "name": "Zoë", sc.SEVERITY_NUMBER: 9}
    assert quick(stored(attributes, "Grüße").canonical) is not None


def test_each_shape_that_comes_often_reads_right_among_others() -> None:
    """Records of more shapes than have a function, some of them with ids, odd severities and one tag changed."""
    ids = [("", ""), (TRACE, SPAN), (TRACE, "")]
    kinds: list[Any] = ["text", 7, -1, True, False, 0.5, "é" * 90, "x" * 300]
    for turn in range(3 * SIGHTS * NOTICE_EVERY):
        for shape in range(WRITERS_MAX + 4):
            names = {f"{chr(97 + shape)}-{n}": kinds[(turn // 20 + n + shape) % len(kinds)] for n in range(shape % 7)}
            level = {sc.SEVERITY_NUMBER: shape, sc.SEVERITY_TEXT: ["INFO", "", 5][shape % 3]}
            attributes = level | {"turn": turn} | names
            members = [None, "", "Grüße"][shape % 3], "user.login", (TIME, TIME), ids[(turn + shape) % 3]
            (log,) = logs(parsed(stored(attributes, *members)))
            assert (log.severity_number, log.severity_text) == (shape, "INFO" if shape % 3 == 0 else "")
            log.ClearField("severity_number")
            log.ClearField("severity_text")
            assert log == expected(attributes, *members)
    assert 0 < len(otlp_quick._writers) <= WRITERS_MAX


@pytest.mark.parametrize("times", [(0, 0), (TIME, 0), (0, TIME), (2**63 - 1, 2**63 - 1)])
@pytest.mark.parametrize("ids", [("", ""), (TRACE, ""), (TRACE, SPAN)])
@pytest.mark.parametrize("event_name", ["", "user.login"])
def test_members_that_are_left_out_stay_unset(times: tuple[int, int], ids: tuple[str, str], event_name: str) -> None:
    """Every combination of times, ids and event name that a canonical form can lack."""
    (log,) = logs(parsed(stored({"k": "v"}, None, event_name, times, ids)))
    assert log == expected({"k": "v"}, None, event_name, times, ids)
    assert not log.HasField("body")


@pytest.mark.parametrize("length", [0, 1, 90, 100, 126, 127, 128, 129, 16_250, 16_383, 16_384, 70_000, 300_000])
@pytest.mark.parametrize("unit", ["x", "é", "😀"])
def test_lengths_around_each_size_of_a_varint(length: int, unit: str) -> None:
    """A value, a key and a body of each length, in characters of one, two and four bytes."""
    attributes = {"k": unit * length, unit * length: "v"}
    (log,) = logs(parsed(stored(attributes, unit * length)))
    assert log == expected(attributes, unit * length)


def test_order_and_number_of_records() -> None:
    """A request holds every record of the batch, in its order."""
    request = parsed(*(stored({sc.RECORD_ID: f"r-{n}"}, sequence=n) for n in range(1, 101)))
    assert [log.attributes[0].value.string_value for log in logs(request)] == [f"r-{n}" for n in range(1, 101)]
    assert len(request.resource_logs) == len(request.resource_logs[0].scope_logs) == 1


def test_resource_and_scope() -> None:
    """The resource of the process that wrote the records, of whatever types, and our own name and version."""
    resource = {"service.name": "billing", "n": 2**63 - 1, "list": [1, "zwei", None], "map": {"ok": True}, "raw": b"\0"}
    request = parsed(stored({}), resource=resource)
    found = {pair.key: pair.value for pair in request.resource_logs[0].resource.attributes}
    assert found == {key: any_value(value) for key, value in resource.items()}
    scope = request.resource_logs[0].scope_logs[0].scope
    assert (scope.name, scope.version) == ("otel_audit", __version__)


def test_a_resource_value_that_otlp_has_no_type_for_becomes_text() -> None:
    """Integers beyond 64 bits and foreign objects do not stop delivery."""
    request = parsed(stored({}), resource={"big": 2**64, "odd": {1}, "lone": "\ud800"})
    texts = [pair.value.string_value for pair in request.resource_logs[0].resource.attributes]
    assert texts == [str(2**64), "{1}", "\\ud800"]


@pytest.mark.parametrize(
    ("attributes", "number", "name"),
    [
        ({sc.SEVERITY_NUMBER: 9, sc.SEVERITY_TEXT: "INFO"}, 9, "INFO"),
        ({sc.SEVERITY_NUMBER: 24}, 24, ""),
        ({sc.SEVERITY_TEXT: "Größe"}, 0, "Größe"),
        ({sc.SEVERITY_NUMBER: 25, sc.SEVERITY_TEXT: 7}, 0, ""),
        ({sc.SEVERITY_NUMBER: -1, sc.SEVERITY_TEXT: ""}, 0, ""),
        ({sc.SEVERITY_NUMBER: "9", sc.SEVERITY_TEXT: {"stringValue": "x"}}, 0, ""),
    ],
)
@pytest.mark.parametrize("extra", [{}, {"list": [1]}], ids=["quick", "thorough"])
def test_severity_is_lifted_and_stays(
    attributes: dict[str, Any], number: int, name: str, extra: dict[str, Any]
) -> None:
    """It is in its own fields where it is one, and an attribute in any case."""
    (log,) = logs(parsed(stored(attributes | extra)))
    assert (log.severity_number, log.severity_text) == (number, name)
    assert list(log.attributes) == pairs(attributes | extra)


@pytest.mark.parametrize(
    "canonical",
    [
        b"", b"[]", b"{", b"null", b'{"attributes":{"a":5}}', b'{"attributes":{"a":"bare"}}', b'{"attributes":[]}',
        b'{"attributes":{"a":{"intValue":"x"}}}', b'{"attributes":{"a":{"oddValue":"x"}}}', b'{"trace_id":"xyz"}',
        b'{"attributes":{"a":{"stringValue":"\xff"}}}', b'{"timestamp":"-1"}',
        b'{"attributes":{"a":{"bytesValue":"?"}}}', b'{"body":7}',
    ],
)  # fmt: skip
def test_what_is_no_canonical_form_is_damage(canonical: bytes) -> None:
    """One error that says which record, whatever is wrong with it."""
    with pytest.raises(DamageError, match=r"record 7 of stream stream"):
        parsed(StoredRecord(7, "", canonical))


def test_an_escaped_character_beyond_one_byte_is_not_mistaken() -> None:
    """A writer that escapes more than the canonical form does is still read right."""
    canonical = stored({"a": "here"}).canonical.replace(b"here", rb"\u00e9\u20ac")
    (log,) = logs(parsed(StoredRecord(1, "", canonical)))
    assert log.attributes[0].value.string_value == "é€"


def test_what_is_remembered_stays_bounded() -> None:
    """Values of ever new lengths under ever new keys do not grow memory without end, and stay right."""
    for n in range(40):
        attributes = {f"key-{n}-{m}": "x" * (m % 700) for m in range(1000)}
        (log,) = logs(parsed(stored(attributes)))
        assert log == expected(attributes)
    assert sum(map(len, otlp_quick._heads.values())) <= otlp_quick.HEADS_MAX


def test_other_threads_get_the_interpreter() -> None:
    """``pause`` is called after every so many records."""
    calls: list[None] = []
    batch = RecordBatch("s", {}, [stored({})] * (3 * otlp.PAUSE_EVERY + 1))
    encode_logs_request(batch, lambda: calls.append(None))
    assert len(calls) == 3


def test_partial_success_is_read() -> None:
    """All taken, a warning, some rejected; and what is no answer at all."""
    response = ExportLogsServiceResponse(
        partial_success=ExportLogsPartialSuccess(rejected_log_records=3, error_message="no")
    )
    assert parse_logs_response(response.SerializeToString()) == PartialSuccess(3, "no")
    assert parse_logs_response(b"") is None
    for garbage in (b"<html>", b"{}", b"OK", b"\xff\xff"):
        with pytest.raises(ValueError, match="not an ExportLogsServiceResponse"):
            parse_logs_response(garbage)


def test_a_status_is_read() -> None:
    """The message of an error body; garbage is told apart."""
    assert parse_status(Status(code=3, message="bad record").SerializeToString()) == ReadStatus(3, "bad record")
    with pytest.raises(ValueError, match=r"not a google\.rpc\.Status"):
        parse_status(b"<html>")
