"""Tokens: fetched for a secret, renewed in time, and once where the receiver does not accept one any more."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest

from otel_audit.errors import BlockedExportError, ConfigurationError, ExportError, RetryableExportError
from otel_audit.exporters.credentials import Credentials
from otel_audit.exporters.secret import covered, covered_text, secrets_in
from otel_audit.testing import ReceivedRequest, Reply, ScriptedReceiver

JSON = {"Content-Type": "application/json"}
URL = "https://h"
ENVIRON = {"SECRET": "c0rrect horse:battery/staple"}


class TokenService:
    """A token endpoint as RFC 6749 has it, or a login that answers with a JWT; numbers its tokens.

    Attributes:
        life_s: ``expires_in`` of the tokens that it gives; ``None`` leaves it out.
        refuses_refresh: refresh tokens have run out.
    """

    def __init__(self) -> None:
        self.life_s: Any = 3600
        self.refuses_refresh = False
        self.gives_refresh = True
        self.given = 0
        self.receiver = ScriptedReceiver(default=self._answer)

    @property
    def url(self) -> str:
        return self.receiver.url + "/token"

    @property
    def asked(self) -> list[dict[str, str]]:
        """What was asked, request by request."""
        return [self._read(request) for request in self.receiver.requests]

    @staticmethod
    def _read(request: ReceivedRequest) -> dict[str, str]:
        if request.headers["content-type"] == "application/json":
            return {"path": request.path, **request.json}
        return {"path": request.path, **dict(parse_qsl(request.body.decode(), strict_parsing=True))}

    def _answer(self, request: ReceivedRequest) -> Reply:
        asked = self._read(request)
        if asked.get("refresh_token") and self.refuses_refresh:
            return Reply(400, JSON, b'{"error":"invalid_grant","error_description":"the refresh token has run out"}')
        self.given += 1
        body: dict[str, Any] = {"access_token": f"access-{self.given}", "token_type": "bearer"}
        if self.life_s is not None:
            body["expires_in"] = self.life_s
        if self.gives_refresh:
            body["refresh_token"] = f"refresh-{self.given}"
        return Reply(200, JSON, json.dumps(body).encode())


@pytest.fixture
def service() -> Iterator[TokenService]:
    """A token service."""
    made = TokenService()
    yield made
    made.receiver.close()


def credentials(service: TokenService, **auth: Any) -> Credentials:
    """Credentials that fetch their tokens there."""
    return Credentials({"env": "SECRET", "token_url": service.url, **auth}, ENVIRON, "destinations.x.auth")


def sent(made: Credentials) -> str:
    """The header that would be sent now."""
    return made.headers(time.monotonic() + 10)["Authorization"]


def client(service: TokenService, **more: Any) -> Credentials:
    """Client credentials without refresh tokens, as RFC 6749 wants."""
    service.gives_refresh = False
    return credentials(service, type="oauth2", client_id="cl:ient", **more)


def test_client_credentials(service: TokenService) -> None:
    """Identifier and secret go as RFC 6749 2.3.1 has it, form-encoded, then Base64; the token is used until it ends."""
    made = client(service, scope="audit.write", parameters={"audience": "https://api"})
    assert [sent(made), sent(made)] == ["Bearer access-1", "Bearer access-1"]
    [request] = service.receiver.requests
    pair = base64.b64decode(request.headers["authorization"].removeprefix("Basic ")).decode()
    assert pair == "cl%3Aient:c0rrect%20horse%3Abattery%2Fstaple"
    assert service.asked == [
        {"path": "/token", "grant_type": "client_credentials", "scope": "audit.write", "audience": "https://api"}
    ]
    made.close()


def test_client_credentials_in_the_body(service: TokenService) -> None:
    """Where the service wants them there."""
    made = client(service, client_auth="body")
    sent(made)
    [request] = service.receiver.requests
    assert "authorization" not in request.headers
    assert service.asked[0]["client_id"] == "cl:ient"
    assert service.asked[0]["client_secret"] == ENVIRON["SECRET"]
    made.close()


def test_a_password(service: TokenService) -> None:
    """The secret is the password; a client's own may be beside it; then the refresh token takes its place."""
    made = credentials(
        service, type="oauth2", username="u", client_id="c", client_secret={"call": lambda: "cs"}, client_auth="body"
    )
    service.life_s = 0
    assert [sent(made), sent(made)] == ["Bearer access-1", "Bearer access-2"]
    first, second = service.asked
    assert (first["grant_type"], first["username"], first["password"]) == ("password", "u", ENVIRON["SECRET"])
    assert (first["client_id"], first["client_secret"]) == ("c", "cs")
    assert (second["grant_type"], second["refresh_token"], second["client_secret"]) == (
        "refresh_token", "refresh-1", "cs",
    )  # fmt: skip
    assert "password" not in second
    made.close()


def test_a_login(service: TokenService) -> None:
    """JSON with name, password and what else the API wants; renewed where it says."""
    url = service.receiver.url
    made = Credentials(
        {
            "type": "login", "env": "SECRET", "username": "u", "token_url": url + "/login",
            "refresh_url": url + "/refresh", "parameters": {"tenant_id": "t"},
        },
        ENVIRON, "auth",
    )  # fmt: skip
    service.life_s = 0
    assert [sent(made), sent(made)] == ["Bearer access-1", "Bearer access-2"]
    assert service.asked == [
        {"path": "/login", "username": "u", "password": ENVIRON["SECRET"], "tenant_id": "t"},
        {"path": "/refresh", "refresh_token": "refresh-1"},
    ]
    made.close()


@pytest.mark.parametrize(
    ("life_s", "renewed"), [(3600, False), (None, False), ("3600", False), (0.2, True), (-5, True)]
)
def test_a_token_is_renewed_before_it_runs_out(service: TokenService, life_s: Any, renewed: bool) -> None:
    """Not before it is nearly over; one without an end is used until the receiver refuses it."""
    service.life_s = life_s
    made = client(service)
    sent(made)
    time.sleep(0.25)
    assert sent(made) == ("Bearer access-2" if renewed else "Bearer access-1")
    made.close()


def test_a_refresh_token_that_has_run_out(service: TokenService) -> None:
    """The secret gives a new one."""
    made = credentials(service, type="oauth2", username="u")
    service.life_s = 0
    sent(made)
    service.refuses_refresh = True
    assert sent(made) == "Bearer access-2"
    assert [asked["grant_type"] for asked in service.asked] == ["password", "refresh_token", "password"]
    made.close()


def test_a_token_that_is_not_accepted_any_more_is_renewed_once(service: TokenService) -> None:
    """The next header has another one, once there was one at all."""
    made = client(service)
    assert not made.renew()
    assert sent(made) == "Bearer access-1"
    assert made.renew()
    assert sent(made) == "Bearer access-2"
    plain = Credentials({"type": "bearer", "call": lambda: "x"}, {}, "auth")
    assert not plain.renew()
    made.close()


@pytest.mark.parametrize(
    ("reply", "kind", "says"),
    [
        (Reply(400, JSON, b'{"error":"invalid_client"}'), BlockedExportError, "invalid_client"),
        (Reply(401, JSON, b'{"error":"invalid_client"}'), BlockedExportError, "no token was given"),
        (Reply(422, JSON, b"{}"), BlockedExportError, "422"),
        (Reply(404, JSON, b"{}"), BlockedExportError, "404"),
        (Reply(500, JSON, b"{}"), BlockedExportError, "500"),
        (Reply(503, JSON, b"{}"), RetryableExportError, "503"),
        (Reply(429, {**JSON, "Retry-After": "7"}, b"{}"), RetryableExportError, "429"),
        (Reply(reset="before"), RetryableExportError, "127.0.0.1"),
        (Reply(200, JSON, b"{}"), BlockedExportError, "access_token"),
        (Reply(200, JSON, b'{"access_token":7}'), BlockedExportError, "access_token"),
        (Reply(200, JSON, b'{"access_token":"a\\nb"}'), BlockedExportError, "token"),
        (Reply(200, {}, b"<html>"), BlockedExportError, "access_token"),
        (Reply(302, {"Location": "http://else/"}, b""), BlockedExportError, "302"),
    ],
)
def test_a_token_that_is_not_given(service: TokenService, reply: Reply, kind: type[ExportError], says: str) -> None:
    """Never a fault of the records: it passes, or somebody has to repair something; and the next try asks again."""
    made = client(service)
    service.receiver.script(reply)
    with pytest.raises(kind, match=says) as caught:
        sent(made)
    assert type(caught.value) is kind
    if reply.status == 429:
        assert caught.value.retry_after_s == 7
    assert sent(made) == "Bearer access-1"
    made.close()


def test_a_token_service_that_repeats_what_it_was_sent(service: TokenService) -> None:
    """What it repeats of the secret is covered, however it writes it."""

    def echo(request: ReceivedRequest) -> Reply:
        said = {"error_description": request.body.decode() + " " + request.headers.get("authorization", "")}
        return Reply(400, {**JSON, "X-Request-Id": "id-" + ENVIRON["SECRET"]}, json.dumps(said).encode())

    secret = ENVIRON["SECRET"]
    for more in ({}, {"client_auth": "body"}):
        made = client(service, **more)
        service.receiver.script(echo)
        with pytest.raises(BlockedExportError) as caught:
            sent(made)
        shown = f"{caught.value} {caught.value.request_id} {caught.value.details} {caught.value.repair} {made!r}"
        for form in (secret, "horse", base64.b64encode(secret.encode()).decode(), "c0rrect+horse"):
            assert form not in shown
        made.close()


@pytest.mark.parametrize(
    ("auth", "says"),
    [
        ({"type": "oauth2", "client_id": "c"}, "token_url: has to be given"),
        ({"type": "oauth2", "token_url": URL}, "client_id: has to be given"),
        ({"type": "oauth2", "token_url": URL, "client_id": "c", "client_secret": {"env": "SECRET"}}, "username"),
        ({"type": "oauth2", "token_url": URL, "username": "u", "client_secret": {"env": "SECRET"}}, "client_id"),
        ({"type": "oauth2", "token_url": URL, "username": "u", "client_id": "c", "client_secret": "x"}, "mapping"),
        ({"type": "oauth2", "token_url": URL, "client_id": "c", "refresh_url": URL}, "only for type 'login'"),
        ({"type": "login", "token_url": URL}, "username: has to be given"),
        ({"type": "login", "token_url": URL, "username": "u", "scope": "s"}, "only for type 'oauth2'"),
        ({"type": "bearer", "token_url": URL}, "only for type 'oauth2' or 'login'"),
        ({"type": "basic", "username": "u", "scheme": "X"}, "only for type 'bearer'"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit(auth: Mapping[str, Any], says: str) -> None:
    """Are named when the exporter is made."""
    with pytest.raises(ConfigurationError, match=says):
        Credentials({"env": "SECRET", **auth}, ENVIRON, "auth")


def test_another_scheme() -> None:
    """Some services have a word of their own before the secret."""
    made = Credentials({"type": "bearer", "env": "T", "scheme": "Splunk"}, {"T": "abc"}, "auth")
    assert sent(made) == "Splunk abc"


def test_the_destinations_files_for_tls_hold_for_its_tokens(tmp_path: Path) -> None:
    """A client certificate that is not there is found where only tokens are fetched over TLS."""
    from otel_audit.exporters.http import HttpExporter

    with pytest.raises(ConfigurationError, match="client_certificate"):
        HttpExporter(
            "http://h",
            auth={"type": "oauth2", "env": "SECRET", "token_url": URL, "client_id": "c"},
            client_certificate=tmp_path / "missing.pem",
            environ=ENVIRON,
        )


SECRET = 's3c"ret/ü+x'


@pytest.mark.parametrize(
    "shown",
    [
        SECRET, json.dumps(SECRET), json.dumps(SECRET, ensure_ascii=False), "s3c%22ret%2F%C3%BC%2Bx",
        base64.b64encode(SECRET.encode()).decode(), "Basic " + base64.b64encode(f"u:{SECRET}".encode()).decode(),
        f"Bearer {SECRET}",
    ],
)  # fmt: skip
def test_a_secret_is_covered_in_every_form(shown: str) -> None:
    """As it is, in JSON, in a URL, in Base64, alone and within something."""
    basic = "Basic " + base64.b64encode(f"u:{SECRET}".encode()).decode()
    secrets = secrets_in({"A": f"Bearer {SECRET}", "B": basic})
    text = f"you sent '{shown}', why?"
    assert covered(text.encode(), secrets).decode() == covered_text(text, secrets)
    left = covered_text(text, secrets)
    assert "s3c" not in left
    assert base64.b64encode(SECRET.encode()).decode() not in left
    assert "[secret]" in left
    assert left.startswith("you sent '")
    assert left.endswith("', why?")


def test_a_basic_header_without_base64_hides_nothing() -> None:
    """It is the receiver's to refuse it; nothing fails here."""
    assert "abcde" in secrets_in({"Authorization": "Basic abcde"})
