"""Tokens that are given for a secret and run out: OAuth 2 (RFC 6749) and logins that answer with a JWT.

A token is renewed before it runs out, and once when the receiver does not accept it any more; it is kept in memory
only.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode

import msgspec

from ..errors import BlockedExportError, ConfigurationError, ExportError, RejectedExportError
from ..options import Option
from .answers import Answer, error_of_answer, not_understood
from .http_client import HTTP_OPTIONS, HttpClient, check_header_value
from .secret import Secret, covered

TOKEN_OPTIONS: Final = (
    Option("token_url", "url", None, "where a token is given, for type 'oauth2' and 'login'"),
    Option("refresh_url", "url", None, "where one is renewed, for type 'login' whose answers have a refresh_token"),
    Option("client_id", "str", None, "for type 'oauth2'; without a username, the secret is the client's"),
    Option("client_secret", "any", None, "for type 'oauth2' with a username: {env|file|call} of the client's secret"),
    Option("client_auth", "enum", "basic", "how client_id and its secret are sent", choices=("basic", "body")),
    Option("scope", "str", None, "for type 'oauth2'"),
    Option("parameters", "map", {}, "what else the token's request has: audience, tenant_id"),
)
"""What ``auth`` takes besides, where a token is fetched."""

_BODY_MAX: Final = 64 * 1024
_EARLY_S: Final = 60.0
"""So long before a token runs out it is renewed, or a tenth of its life before, if that is shorter."""


@dataclass
class _Token:
    access: str = field(repr=False)
    refresh: str | None = field(repr=False)
    renew_at_s: float


class Tokens:
    """The token that is valid now.

    Args:
        kind: ``"oauth2"`` or ``"login"``.
        options: a value for each option of ``auth``, parsed.
        secret: the password, or the client's secret.
        environ: the environment.
        where: what error messages call it.
        transport: the destination's options for HTTP: TLS, limits.
        clock: monotonic seconds; for tests.

    Raises:
        ConfigurationError: the client's secret is not there.
    """

    def __init__(
        self,
        kind: str,
        options: Mapping[str, Any],
        secret: Secret,
        environ: Mapping[str, str],
        where: str,
        transport: Mapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kind = kind
        self._options = options
        self._secret = secret
        self._where = where
        self._clock = clock
        source = options["client_secret"]
        self._client_secret = None if source is None else Secret.of(source, environ, f"{where}.client_secret")
        plain = {option.name: option.default for option in HTTP_OPTIONS} | dict(transport)
        plain |= {"headers": {}, "compression": "none"}
        self._client = HttpClient(options["token_url"], plain, where, has_credentials=True)
        self._token: _Token | None = None

    def token(self, deadline: float) -> str:
        """A token that has not run out; fetched or renewed where there is none.

        Args:
            deadline: when that has to be over, on the monotonic clock.

        Raises:
            RetryableExportError, BlockedExportError: it is not to be had, for now or until somebody repairs something.
        """
        token = self._token
        if token is None or self._clock() >= token.renew_at_s:
            token = self._token = self._refreshed(token, deadline) or self._fetched(deadline)
        return token.access

    def forget(self) -> bool:
        """Fetch another token for the next request; whether there was one to forget."""
        if self._token is None:
            return False
        self._token.renew_at_s = 0.0
        return True

    def close(self) -> None:
        """Let go of the connection.  May be called twice."""
        self._client.close()

    def __repr__(self) -> str:
        return f"<Tokens {self._kind} {self._client.shown_url}>"

    def _fetched(self, deadline: float) -> _Token:
        """A token for the secret."""
        secret = self._secret.read()
        if self._kind == "login":
            body = {"username": self._options["username"], "password": secret, **self._options["parameters"]}
            return self._asked(self._options["token_url"], msgspec.json.encode(body), {}, [secret], deadline)
        form: dict[str, str] = {}
        client_secret: str | None = None
        if self._options["username"] is None:
            form["grant_type"] = "client_credentials"
            client_secret = secret
        else:
            form |= {"grant_type": "password", "username": self._options["username"], "password": secret}
            client_secret = self._client_secret.read() if self._client_secret is not None else None
        return self._granted(form, client_secret, [secret], deadline)

    def _refreshed(self, token: _Token | None, deadline: float) -> _Token | None:
        """A token for the refresh token; ``None`` where there is none, or it has run out itself."""
        if token is None or token.refresh is None:
            return None
        try:
            if self._kind == "login":
                if (url := self._options["refresh_url"]) is None:
                    return None
                body = msgspec.json.encode({"refresh_token": token.refresh})
                renewed = self._asked(url, body, {}, [token.refresh, token.access], deadline)
            else:
                form = {"grant_type": "refresh_token", "refresh_token": token.refresh}
                source = self._client_secret if self._options["username"] is not None else self._secret
                client_secret = None if source is None else source.read()
                renewed = self._granted(form, client_secret, [token.refresh, token.access], deadline)
        except BlockedExportError:
            return None
        renewed.refresh = renewed.refresh or token.refresh
        return renewed

    def _granted(self, form: dict[str, str], client_secret: str | None, secrets: list[str], deadline: float) -> _Token:
        """What the token endpoint of OAuth 2 answers to a form."""
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        client_id: str | None = self._options["client_id"]
        if client_secret is not None:
            secrets = [*secrets, client_secret]
        if client_id is not None and client_secret is not None and self._options["client_auth"] == "basic":
            pair = f"{quote(client_id, safe='')}:{quote(client_secret, safe='')}"
            headers["Authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
            secrets = [*secrets, pair]
        elif client_id is not None:
            form = {**form, "client_id": client_id}
            if client_secret is not None:
                form["client_secret"] = client_secret
        if self._options["scope"] is not None:
            form = {**form, "scope": self._options["scope"]}
        content = urlencode({**form, **self._options["parameters"]}).encode()
        return self._asked(self._options["token_url"], content, headers, secrets, deadline)

    def _asked(
        self, url: str, content: bytes, headers: Mapping[str, str], secrets: list[str], deadline: float
    ) -> _Token:
        all_headers = {"Content-Type": "application/json", "Accept": "application/json", **headers}
        asked_s = self._clock()
        answer = self._client.send("POST", content, all_headers, deadline, _BODY_MAX, url=url)
        if answer.status not in (200, 201):
            raise _refused(self._where, _covered(answer, secrets), self._client.shown_url)
        found = _parsed(answer)
        access = found.get("access_token")
        if not isinstance(access, str) or not access:
            raise not_understood(_without_body(answer), self._client.shown_url, "there is no access_token in its body")
        try:
            check_header_value(access, self._where)
        except ConfigurationError as error:
            raise BlockedExportError(f"{self._client.shown_url}: the token: {error}") from None
        refresh = found.get("refresh_token")
        life_s = _seconds(found.get("expires_in"))
        renew_at_s = float("inf") if life_s is None else asked_s + life_s - min(_EARLY_S, life_s * 0.1)
        return _Token(access, refresh if isinstance(refresh, str) and refresh else None, renew_at_s)


def _refused(where: str, answer: Answer, who: str) -> ExportError:
    """The error for a token that was not given: never about the records."""
    error = error_of_answer(answer, who)
    if isinstance(error, RejectedExportError) or answer.status in (401, 403):
        return BlockedExportError(
            f"{where}: no token was given: {error}",
            status=error.status,
            repair="check the credentials in auth: username or client_id, and what the secret's source holds",
            request_id=error.request_id,
            details=error.details,
        )
    return error


def _parsed(answer: Answer) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(value: Any) -> float | None:
    try:
        return max(float(value), 0.0)
    except (TypeError, ValueError):
        return None


def _covered(answer: Answer, secrets: list[str]) -> Answer:
    headers = {name: covered(value.encode(), secrets).decode() for name, value in answer.headers.items()}
    return Answer(answer.status, headers, covered(answer.body, secrets), answer.whole)


def _without_body(answer: Answer) -> Answer:
    return Answer(answer.status, answer.headers, b"", answer.whole)


def check_token_options(kind: str, options: Mapping[str, Any], where: str) -> None:
    """See that what a token needs is there, and nothing that would be ignored.

    Raises:
        ConfigurationError: names the option.
    """
    if options["token_url"] is None:
        raise ConfigurationError(f"{where}.token_url: has to be given for type {kind!r}")
    if kind == "login":
        if options["username"] is None:
            raise ConfigurationError(f"{where}.username: has to be given for type 'login'")
        for name in ("client_id", "client_secret", "scope"):
            if options[name] is not None:
                raise ConfigurationError(f"{where}.{name}: is only for type 'oauth2'")
        return
    if options["refresh_url"] is not None:
        raise ConfigurationError(f"{where}.refresh_url: is only for type 'login'")
    if options["username"] is None:
        if options["client_id"] is None:
            raise ConfigurationError(f"{where}.client_id: has to be given for type 'oauth2'")
        if options["client_secret"] is not None:
            raise ConfigurationError(f"{where}.client_secret: without a username, the secret itself is the client's")
    elif options["client_secret"] is not None and options["client_id"] is None:
        raise ConfigurationError(f"{where}.client_id: has to be given with client_secret")
