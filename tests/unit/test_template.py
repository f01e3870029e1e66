"""A user's own shape: what a placeholder becomes, and which mistakes are found."""

from __future__ import annotations

from typing import Any

import pytest

from otel_audit import semconv as sc
from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.canonical import canonicalize
from otel_audit.errors import ConfigurationError
from otel_audit.formats.jsonl import as_plain
from otel_audit.formats.template import compile_template

ATTRIBUTES = {
    sc.RECORD_ID: "r-1", sc.ACTOR_ID: "u-42", "n": 7, "ok": True, "ratio": 1.0, "list": [1, "x"], "raw": b"\0",
    "body": "an attribute", "braces": "{{n}}",
}  # fmt: skip
CANONICAL = canonicalize("user.login", 10**18 + 1_500_000, 10**18, "the body", ATTRIBUTES, "", "")
BATCH = RecordBatch("stream-1", {"service.name": "billing", "n": 1}, [StoredRecord(3, "f" * 64, CANONICAL)])


def filled(template: Any) -> Any:
    """The template for the one record."""
    return compile_template(template, "x.template")(as_plain(BATCH.records[0], BATCH))


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{audit.actor.id}}", "u-42"), ("{{ audit.actor.id }}", "u-42"), ("{{n}}", 7), ("{{ok}}", True),
        ("{{ratio}}", 1.0), ("{{list}}", [1, "x"]), ("{{raw}}", {"base64": "AA=="}), ("{{missing}}", None),
        ("{{body}}", "the body"), ("{{attributes.body}}", "an attribute"), ("{{event_name}}", "user.login"),
        ("{{record_id}}", "r-1"), ("{{sequence}}", 3), ("{{stream_id}}", "stream-1"), ("{{sha256}}", "f" * 64),
        ("{{trace_id}}", None), ("{{timestamp}}", "2001-09-09T01:46:40.001500000Z"),
        ("{{timestamp_ns}}", 10**18 + 1_500_000), ("{{timestamp_ms}}", 10**12 + 1), ("{{timestamp_s}}", 10**9 + 0.0015),
        ("{{resource.service.name}}", "billing"), ("{{resource.none}}", None), ("{{resource.n}}", 1),
        ("{{resource}}", {"service.name": "billing", "n": 1}), ("{{attributes.none}}", None),
        ("{{n}} of {{n}}", "7 of 7"), ("<{{missing}}>", "<>"), ("{{ok}}{{list}}", 'true[1,"x"]'),
        ("no {single} braces", "no {single} braces"), ("", ""), ("{{braces}}", "{{n}}"), ("-{{braces}}-", "-{{n}}-"),
        ({"a": ["{{n}}", {"b": "{{ok}}"}], "c": None, "d": 5}, {"a": [7, {"b": True}], "c": None, "d": 5}),
        (("{{n}}",), [7]), (5, 5), ({}, {}),
    ],
)  # fmt: skip
def test_a_template_is_filled(template: Any, expected: Any) -> None:
    """One placeholder keeps the type, several make text, missing ones are null or nothing."""
    result = filled(template)
    assert result == expected
    assert type(result) is type(expected)


def test_a_record_without_a_time() -> None:
    """Its numbers are null."""
    plain = as_plain(StoredRecord(1, "", b"{}"), BATCH)
    assert compile_template(["{{timestamp_ns}}", "{{timestamp}}"], "x")(plain) == [None, None]


@pytest.mark.parametrize(
    ("template", "place"),
    [
        ("{{n", "x"), ("n}}", "x"), ("{{}}", "x"), ("{{ }}", "x"), ("{{a{b}}", "x"),
        ({"a": {"b": "{{"}}, r"x\.a\.b"), ([1, "}}"], r"x\[1\]"), ({"a": object()}, r"x\.a"),
        ({5: 1}, "x"), ({"{{n}}": 1}, "x"), ({"a": b"raw"}, r"x\.a"),
    ],
)  # fmt: skip
def test_a_mistake_is_found_early(template: Any, place: str) -> None:
    """With the place in the template."""
    with pytest.raises(ConfigurationError, match=f"^{place}: "):
        compile_template(template, "x")
