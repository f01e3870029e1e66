"""Credentials for a destination: what is sent to be let in.

A secret is sent as it is (``bearer``, ``header``, ``basic``), or exchanged for a token that is renewed in time
(``oauth2``, ``login``; see ``tokens``).
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final

from ..errors import BlockedExportError, ConfigurationError
from ..options import Option, read_options
from .http_client import check_header_name, check_header_value
from .secret import SECRET_OPTIONS, Secret
from .tokens import TOKEN_OPTIONS, Tokens, check_token_options

AUTH_OPTIONS: Final = (
    Option("type", "enum", doc="how they are sent", choices=("bearer", "header", "basic", "oauth2", "login")),
    *SECRET_OPTIONS,
    Option("name", "str", None, "name of the header, for type 'header'"),
    Option("scheme", "str", "Bearer", "the word before the secret, for type 'bearer'"),
    Option("username", "str", None, "for type 'basic', 'login', and 'oauth2' by password; the secret is the password"),
    *TOKEN_OPTIONS,
)  # fmt: skip
"""What ``auth`` takes.  Exactly one of ``env``, ``file`` and ``call`` has to be given."""

_FOR: Final = {
    "name": ("header",),
    "scheme": ("bearer",),
    "username": ("basic", "oauth2", "login"),
    **{option.name: ("oauth2", "login") for option in TOKEN_OPTIONS},
}
_WRITTEN_DOWN: Final = frozenset(
    {"token", "password", "secret", "key", "api_key", "apikey", "value", "bearer", "access_token", "credentials"}
)
"""What people call a secret that they are about to write down."""
_NEEDED: Final = {"header": ("name",), "basic": ("username",)}


class Credentials:
    """What to send to be let in.

    Args:
        auth: by the names in :data:`AUTH_OPTIONS`; ``None`` for none.
        environ: the environment.
        where: what error messages call it.
        transport: the destination's own options for HTTP, by which tokens are fetched.

    Raises:
        ConfigurationError: an option is wrong, the variable is not set, or the file is not there.
    """

    def __init__(
        self, auth: Any, environ: Mapping[str, str], where: str, transport: Mapping[str, Any] | None = None
    ) -> None:
        self._type = ""
        self._where = where
        self._header = "Authorization"
        self._tokens: Tokens | None = None
        if auth is None:
            return
        if not isinstance(auth, Mapping):
            raise ConfigurationError(f"{where}: expected a mapping with type and one of env, file and call")
        for name in sorted(_WRITTEN_DOWN.intersection(auth)):
            raise ConfigurationError(
                f"{where}: there is no option {name!r}: a secret is not written into a configuration; say where it is, "
                "with 'env', 'file' or 'call'"
            )
        options = read_options(AUTH_OPTIONS, where, auth)
        self._type = options["type"]
        given = {name for name, value in auth.items() if value is not None}
        for name, kinds in _FOR.items():
            if name in given and self._type not in kinds:
                raise ConfigurationError(f"{where}.{name}: is only for type {' or '.join(map(repr, kinds))}")
            if name not in given and name in _NEEDED.get(self._type, ()):
                raise ConfigurationError(f"{where}.{name}: has to be given for type {self._type!r}")
        self._secret = Secret(options, environ, where)
        self._scheme: str = options["scheme"]
        self._username: str = options["username"] or ""
        if self._type == "header":
            self._header = options["name"]
            check_header_name(self._header, f"{where}.name")
        elif self._type in ("oauth2", "login"):
            check_token_options(self._type, options, where)
            self._tokens = Tokens(self._type, options, self._secret, environ, where, transport or {})
        if self._type in ("bearer", "header") and options["call"] is None:
            check_header_value(self._secret.read(), where)

    def __bool__(self) -> bool:
        return bool(self._type)

    def headers(self, deadline: float) -> dict[str, str]:
        """The header to send now.

        Args:
            deadline: when fetching a token has to be over, on the monotonic clock.

        Raises:
            RetryableExportError: the function failed at input or output, or a token could not be fetched now.
            BlockedExportError: the secret or the token is not to be had.
        """
        if not self._type:
            return {}
        if self._tokens is not None:
            return {self._header: f"Bearer {self._tokens.token(deadline)}"}
        secret = self._secret.read()
        if self._type == "basic":
            return {self._header: f"Basic {b64encode(f'{self._username}:{secret}'.encode()).decode()}"}
        try:
            check_header_value(secret, self._where)
        except ConfigurationError as error:
            raise BlockedExportError(
                str(error), repair="check where this destination's credentials come from"
            ) from None
        return {self._header: f"{self._scheme} {secret}" if self._type == "bearer" else secret}

    def renew(self) -> bool:
        """The receiver does not accept what was sent: see to it that other credentials come; whether there are any."""
        return self._tokens is not None and self._tokens.forget()

    def close(self) -> None:
        """Let go of connections.  May be called twice."""
        if self._tokens is not None:
            self._tokens.close()

    def __repr__(self) -> str:
        return f"<Credentials {self._type or 'none'}>"
