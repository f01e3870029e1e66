"""What an answer means: the table, word for word, and what is read from the answer beside its status."""

from __future__ import annotations

import email.utils
import json
import time
from typing import Any

import pytest
from google.rpc.status_pb2 import Status

from otel_audit.errors import BlockedExportError, ExportError, RejectedExportError, RetryableExportError
from otel_audit.exporters.answers import (
    RETRY_AFTER_MAX_S,
    TEXT_MAX,
    Answer,
    class_of,
    error_of_answer,
    request_id_of,
    retry_after_s,
    text_of,
)

RETRY = {202, 408, 425, 429, 502, 503, 504}
REJECTED = {400, 409, 413, 422}


@pytest.mark.parametrize("status", range(100, 600))
def test_every_status_has_its_class(status: int) -> None:
    """Known to pass: retry.  About the records: rejected.  Everything else: blocked."""
    expected: type[ExportError] = BlockedExportError
    if status in RETRY:
        expected = RetryableExportError
    elif status in REJECTED:
        expected = RejectedExportError
    assert class_of(status) is expected
    error = error_of_answer(Answer(status, {}, b""), "http://h", accepted=2)
    assert type(error) is expected
    assert (error.status, error.accepted) == (status, 2)
    assert str(error).startswith(f"http://h answered {status}")


@pytest.mark.parametrize("status", [301, 307, 401, 403, 404, 405, 407, 415, 431, 500])
def test_what_is_blocked_says_what_to_repair(status: int) -> None:
    """Each status that people meet in practice has a hint."""
    assert error_of_answer(Answer(status, {}, b""), "http://h").repair


def test_a_redirect_names_the_place() -> None:
    """Without its query, which may hold a token."""
    error = error_of_answer(Answer(308, {"location": "https://other/v1/logs?token=s3cret"}, b""), "http://h")
    assert "https://other/v1/logs" in str(error.repair)
    assert "s3cret" not in f"{error} {error.repair} {error.details}"


def test_plain_http_to_a_tls_port_is_recognised() -> None:
    """Go's server answers 400 with this text."""
    body = b"Client sent an HTTP request to an HTTPS server.\n"
    assert "https://" in str(error_of_answer(Answer(400, {"content-type": "text/plain"}, body), "http://h").repair)


def test_a_conflict_has_its_own_reason() -> None:
    """409: the id is known, with something else behind it."""
    assert error_of_answer(Answer(409, {}, b""), "http://h").details["reason"] == "conflict"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None), ("0", 0.0), ("7", 7.0), (" 7 ", 7.0), ("1.5", 1.5), ("99999999", RETRY_AFTER_MAX_S),
        ("-5", None), ("soon", None), ("", None), ("1e9", None), ("9" * 40, None), ("Mon, 99 Foo 2026", None),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0), ("Fri, 31 Dec 9999 23:59:59 GMT", RETRY_AFTER_MAX_S),
    ],
)  # fmt: skip
def test_retry_after(value: str | None, expected: float | None) -> None:
    """Seconds or a date, between nothing and ten minutes; nonsense says nothing."""
    assert retry_after_s(value) == expected


def test_retry_after_as_a_date() -> None:
    """A date in a minute is about a minute."""
    waited = retry_after_s(email.utils.formatdate(time.time() + 60, usegmt=True))
    assert waited is not None
    assert 57 <= waited <= 61


def test_a_request_id_is_picked_up() -> None:
    """By the names that are in use; a long one is cut."""
    assert request_id_of({"x-amzn-requestid": "abc"}) == "abc"
    assert request_id_of({"x-request-id": "", "cf-ray": "7d-FRA"}) == "7d-FRA"
    assert request_id_of({}) is None
    assert len(str(request_id_of({"x-request-id": "x" * 5000}))) == TEXT_MAX


PROTOBUF = "application/x-protobuf"


@pytest.mark.parametrize(
    ("kind", "body", "expected"),
    [
        (PROTOBUF, Status(message="queue is full").SerializeToString(), "queue is full"),
        (PROTOBUF, b"<html>", ""),
        ("application/json", b'{"message":"no such tenant"}', "no such tenant"),
        ("application/problem+json; charset=utf-8", b'{"title":"Bad","detail":"no actor"}', "no actor"),
        ("application/json", b'{"error":{"type":"x","reason":"mapping"}}', "mapping"),
        ("application/json", b'{"errors":[{"message":"a"},{"message":"b"}]}', "a; b"),
        ("application/json", b'"text"', "text"),
        ("application/json", b"{", ""),
        ("application/json", b"[" * 100_000, ""),
        ("application/json", b'{"code":3}', ""),
        ("text/html; charset=utf-8", b"<html><title>Sign in</title>", "an HTML page, 'Sign in'"),
        ("text/html", b"<p>", "an HTML page"),
        ("text/plain", b"line\nand\x1b[31m line\xff", "line and\ufffd[31m line\ufffd"),
        ("", b"bare", "bare"),
        ("image/png", b"\x89PNG", ""),
        ("text/plain", b"", ""),
    ],
)
def test_what_a_body_says(kind: str, body: bytes, expected: str) -> None:
    """Protobuf, the JSON shapes that are in use, HTML, text; on one line, without control characters."""
    assert text_of(Answer(400, {"content-type": kind}, body)) == expected


def test_what_a_body_repeats_of_the_request_is_not_shown() -> None:
    """FastAPI puts the input beside each message."""
    detail = [{"type": "missing", "loc": ["body", "tenant_id"], "msg": "Field required", "input": {"name": "Zoë"}}]
    body = json.dumps({"detail": detail}).encode()
    assert text_of(Answer(422, {"content-type": "application/json"}, body)) == "body.tenant_id: Field required"


def test_what_a_body_says_is_bounded() -> None:
    """In the message and in the details."""
    body = json.dumps({"message": "x" * 100_000}).encode()
    error = error_of_answer(Answer(503, {"content-type": "application/json"}, body), "http://h")
    assert len(str(error)) < TEXT_MAX + 100
    assert len(str(error.details["message"])) == TEXT_MAX


def test_everything_is_carried_by_the_error() -> None:
    """Status, waiting time, request id and text."""
    headers: dict[str, Any] = {"retry-after": "3", "x-request-id": "q-1", "content-type": "text/plain"}
    error = error_of_answer(Answer(429, headers, b"slow down"), "http://h/v1/logs")
    assert isinstance(error, RetryableExportError)
    assert (error.status, error.retry_after_s, error.request_id) == (429, 3.0, "q-1")
    assert str(error) == "http://h/v1/logs answered 429 Too Many Requests: slow down"
    assert error.details == {"message": "slow down"}
