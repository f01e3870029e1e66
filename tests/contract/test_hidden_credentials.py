"""Credentials are never shown: not in a file of the journal, a log line, an error, a traceback, a repr or the status.

The receivers here repeat everything that they were sent, in every place of an answer that somebody might read.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import msgspec
import pytest

from otel_audit.delivery.shipper import Shipper
from otel_audit.destinations import make_destination
from otel_audit.errors import ExportError
from otel_audit.exporters import exporter_class
from otel_audit.journal.journal import Journal
from otel_audit.testing import ReceivedRequest, Reply, ScriptedReceiver
from support.delivery import AT_ONCE, append, make_journal
from support.records import batch_of
from support.services import SECRET, SERVICES, SIGNING

ENVIRON = {"TOKEN": SECRET, "SIGNING": SIGNING}
ACCESS = "acc3ss-tok3n-from-the-service"


def forms_of(secret: str) -> list[str]:
    """Every way in which a secret might be written, and its beginning, which would be enough."""
    pair = f"u:{secret}"
    return [
        secret, secret[:8], quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1], html.escape(secret),
        base64.b64encode(secret.encode()).decode(), base64.b64encode(pair.encode()).decode(),
    ]  # fmt: skip


HIDDEN = [form for secret in (SECRET, SIGNING.removeprefix("whsec_"), ACCESS) for form in forms_of(secret)]


def shown_in(text: str) -> list[str]:
    """The forms of secrets that stand in a text."""
    return [form for form in HIDDEN if form in text]


def repeated(request: ReceivedRequest) -> str:
    """Everything of a request, as a careless receiver writes it into its answer."""
    lines = [f"{name}: {value}" for name, value in request.headers.items() if name not in ("content-length", "host")]
    return " | ".join(lines) + f" | {request.path} | {request.body.decode('utf-8', 'replace')}"


def in_json(status: int) -> Callable[[ReceivedRequest], Reply]:
    return lambda request: Reply(
        status, {"Content-Type": "application/json"}, json.dumps({"error": {"message": repeated(request)}}).encode()
    )


def in_text(status: int) -> Callable[[ReceivedRequest], Reply]:
    return lambda request: Reply(status, {"Content-Type": "text/plain"}, repeated(request).encode())


def in_html(status: int) -> Callable[[ReceivedRequest], Reply]:
    title = "<title>{}</title>"
    return lambda request: Reply(status, {"Content-Type": "text/html"}, title.format(repeated(request)).encode())


def in_headers(status: int) -> Callable[[ReceivedRequest], Reply]:
    def reply(request: ReceivedRequest) -> Reply:
        sent = request.headers.get("authorization") or request.headers.get("x-api-key") or "none"
        names = ("X-Request-Id", "Location", "Content-Type", "Retry-After")
        return Reply(status, dict.fromkeys(names, sent), b"x")

    return reply


def at_the_edge(status: int) -> Callable[[ReceivedRequest], Reply]:
    """The credential stands where a message is cut off."""
    return lambda request: Reply(
        status,
        {"Content-Type": "text/plain"},
        b"x" * 290 + b" " + "".join(value for value in request.headers.values()).encode(),
    )


FAULTS = [
    make(status)
    for make, statuses in (
        (in_json, (400, 401, 403, 409, 413, 422, 429, 500, 503, 200)),
        (in_text, (400, 401, 403, 404, 500, 503)),
        (in_html, (401, 502)),
        (in_headers, (301, 400, 401, 500)),
        (at_the_edge, (400, 401, 500)),
    )
    for status in statuses
]


class Case:
    """A destination, and a receiver that repeats what it is sent."""

    def __init__(self, kind: str, options: dict[str, Any]) -> None:
        self.receiver = ScriptedReceiver()
        self.spec = {
            "type": kind, "url": self.receiver.url + "/services/collector/event", "auth": {"env": "TOKEN"}, **options,
        }  # fmt: skip
        self.auth = dict(self.spec["auth"] or {})
        if self.auth.get("type") in ("oauth2", "login"):
            self.tokens = ScriptedReceiver(default=self._token)
            self.spec["auth"] = {**self.auth, "token_url": self.tokens.url}
        else:
            self.tokens = self.receiver

    @staticmethod
    def _token(_: ReceivedRequest) -> Reply:
        return Reply(200, {"Content-Type": "application/json"}, json.dumps({"access_token": ACCESS}).encode())

    def close(self) -> None:
        self.receiver.close()
        self.tokens.close()


BY_AUTH: dict[str, dict[str, Any]] = {
    "bearer": {"type": "bearer", "env": "TOKEN"},
    "header": {"type": "header", "name": "X-Api-Key", "env": "TOKEN"},
    "basic": {"type": "basic", "username": "u", "env": "TOKEN"},
    "call": {"type": "bearer", "call": lambda: SECRET},
    "oauth2": {"type": "oauth2", "client_id": "u", "env": "TOKEN"},
    "password": {"type": "oauth2", "username": "u", "env": "TOKEN"},
    "login": {"type": "login", "username": "u", "env": "TOKEN"},
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (kind, service.OPTIONS) for name, (kind, service) in SERVICES.items()},  # type: ignore[attr-defined]
    **{f"http, {name}": ("http", {"auth": auth}) for name, auth in BY_AUTH.items()},
    "http, headers": ("http", {"auth": None, "headers": {"Authorization": f"Bearer {SECRET}"}}),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """One case for each preset and mode, and for each kind of credentials."""
    made = Case(*CASES[request.param])
    yield made
    made.close()


def test_no_error_shows_a_credential(case: Case) -> None:
    """Whatever is answered: neither the error, nor what it was raised from, nor the exporter itself."""
    own = {key: value for key, value in case.spec.items() if key != "type"}
    made = exporter_class(case.spec["type"]).from_options(own, ENVIRON, where="destinations.x")
    seen = 0
    for fault in FAULTS:
        for receiver in {case.receiver, case.tokens}:
            receiver.script(fault, fault)
            try:
                made.export(batch_of("r-1", "r-2"), 10.0)
            except ExportError as error:
                seen += 1
                parts = [error, *error.refused.values()]
                text = "".join(traceback.format_exception(error)) + " ".join(
                    f"{part} {part!r} {part.repair} {part.request_id} {part.details} {part.status}" for part in parts
                )
                assert shown_in(text) == []
            receiver._script.clear()
    assert seen >= len(FAULTS) - 2
    assert shown_in(repr(made)) == []
    made.close()


def test_no_file_no_log_line_and_no_status_shows_a_credential(
    case: Case, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The whole way from the journal, over every kind of failure: dead letters, cursors and state are clean."""
    journal = make_journal(tmp_path / "journal", required=["x"])
    append(journal, 4)
    destination = make_destination("x", case.spec, ENVIRON)
    shipper = Shipper(journal, dataclasses.replace(destination, retry=AT_ONCE, blocked=AT_ONCE))
    case.receiver._default = lambda request: Reply(201, {"Content-Type": "application/json"}, b"{}")
    logging.getLogger("otel_audit").setLevel(logging.DEBUG)
    with caplog.at_level(logging.INFO):
        for fault in FAULTS:
            for receiver in {case.receiver, case.tokens}:
                receiver.script(fault, fault)
                _steps(shipper, journal, 2)
                receiver._script.clear()
                assert shown_in(f"{shipper.state!r} {destination!r} {shipper.destination!r}") == []
        append(journal, 1)
        case.receiver.script(in_json(400))
        _steps(shipper, journal, 4)
    shipper.close()
    journal.close()
    lines = [f"{record.getMessage()} {record.exc_text}" for record in caplog.records]
    assert lines
    assert [line for line in lines if shown_in(line)] == []
    files = [path for path in (tmp_path / "journal").rglob("*") if path.is_file()]
    assert len(files) > 3
    for path in files:
        assert shown_in(path.read_text(encoding="utf-8", errors="replace")) == [], path


def _steps(shipper: Shipper, journal: Journal, count: int) -> None:
    for _ in range(count):
        shipper._patience.not_before_s = 0.0
        for shipment in shipper._fleet.shipments():
            shipment.patience.not_before_s = 0.0
        shipper.step()
        assert shown_in(msgspec.json.encode(shipper.state).decode()) == []


def test_the_search_finds_what_it_is_for() -> None:
    """The control: each form is found in the answer that would show it, if nothing covered it."""
    request = ReceivedRequest("POST", "/", {"authorization": f"Bearer {SECRET}"}, b"")
    for fault in FAULTS:
        reply = fault(request)
        said = reply.body.decode() + " ".join(reply.headers.values())
        assert shown_in(said)
