"""The plain line: its shape, its values, its times."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_audit import semconv as sc
from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.canonical import canonicalize
from otel_audit.errors import DamageError
from otel_audit.formats.jsonl import MEMBERS, as_plain, encode_lines, parse_rfc3339, rfc3339

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | text | st.binary()
    | st.floats(allow_nan=False, allow_infinity=False)
)  # fmt: skip
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3))


def batch_of(attributes: Mapping[str, Any], body: Any = None, **resource: Any) -> RecordBatch:
    """A batch with one record."""
    canonical = canonicalize("user.login", 10**18 + 5, 10**18 + 6, body, attributes, "ab" * 16, "cd" * 8)
    return RecordBatch("stream-1", resource, [StoredRecord(7, "f" * 64, canonical)])


def as_json(value: Any) -> Any:
    """What a JSON reader has of a value."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value


@given(st.dictionaries(text, values, max_size=5), values)
def test_values_are_plain(attributes: dict[str, Any], body: Any) -> None:
    """Of every type and nesting; a map that looks like a tag is a map."""
    line = json.loads(encode_lines(batch_of(attributes, body)))
    assert line["attributes"] == as_json(attributes)
    assert line["body"] == as_json(body)


def test_the_shape_is_what_is_documented() -> None:
    """Every member, in its order."""
    batch = batch_of({sc.RECORD_ID: "r-1", "whole": 2.0, "large": 2**63 - 1}, "text", **{"service.name": "billing"})
    line = encode_lines(batch)
    assert line.count(b"\n") == 1
    read = json.loads(line)
    assert tuple(read) == MEMBERS
    assert read == {
        "timestamp": "2001-09-09T01:46:40.000000005Z",
        "event_name": "user.login",
        "record_id": "r-1",
        "attributes": {sc.RECORD_ID: "r-1", "whole": 2.0, "large": 2**63 - 1},
        "body": "text",
        "trace_id": "ab" * 16,
        "span_id": "cd" * 8,
        "observed_timestamp": "2001-09-09T01:46:40.000000006Z",
        "resource": {"service.name": "billing"},
        "stream_id": "stream-1",
        "sequence": 7,
        "sha256": "f" * 64,
    }
    assert b'"whole":2.0,' in line.replace(b"}", b",")
    assert as_plain(batch.records[0], batch) == read


def test_what_is_unset_is_null() -> None:
    """The members are there all the same."""
    batch = RecordBatch("s", {}, [StoredRecord(1, "", b"{}")])
    read = json.loads(encode_lines(batch))
    assert tuple(read) == MEMBERS
    unset = ("timestamp", "event_name", "record_id", "body", "trace_id", "span_id", "observed_timestamp")
    assert [read[name] for name in unset] == [None] * len(unset)


def test_line_breaks_stay_inside_of_strings() -> None:
    """One record is one line, whatever it holds."""
    assert encode_lines(batch_of({"a": "x\ny\r\u2028"}, "\n")).count(b"\n") == 1


def test_a_resource_of_any_kind() -> None:
    """Nothing in it stops delivery."""
    resource = {"raw": b"\x00", "list": (1, None), "map": {"a": 1.5}, "odd": {1}, "nan": float("nan")}
    read = json.loads(encode_lines(batch_of({}, **resource)))["resource"]
    assert read == {"raw": {"base64": "AA=="}, "list": [1, None], "map": {"a": 1.5}, "odd": "{1}", "nan": None}


@pytest.mark.parametrize(
    "canonical",
    [b"", b"[]", b'{"attributes":{"a":5}}', b'{"attributes":{"a":{"intValue":"x"}}}', b'{"timestamp":"x"}'],
)
def test_what_is_no_canonical_form_is_damage(canonical: bytes) -> None:
    """One error that says which record."""
    with pytest.raises(DamageError, match="record 7 of stream s "):
        encode_lines(RecordBatch("s", {}, [StoredRecord(7, "", canonical)]))


@given(st.integers(1, 2**63 - 1))
def test_times_come_back(ns: int) -> None:
    """To the nanosecond, and as ``datetime`` has them."""
    written = rfc3339(ns)
    assert parse_rfc3339(written) == ns
    seconds = datetime.strptime(written[:19], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=timezone.utc).timestamp()
    assert int(seconds) == ns // 10**9


def test_a_foreign_time_is_not_read() -> None:
    """Only what this package wrote."""
    for foreign in ("2001-09-09T01:46:40Z", "2001-09-09T01:46:40.000000005+00", ""):
        with pytest.raises(ValueError, match="not a time as this package writes it"):
            parse_rfc3339(foreign)
