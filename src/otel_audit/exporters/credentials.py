"""Credentials for a destination: never written down in the configuration, read anew for every request, never shown.

They come from an environment variable, from a file (which may be replaced while we run) or from a function.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ..errors import BlockedExportError, ConfigurationError, ExportError, RetryableExportError
from ..options import Option, read_options
from .http_client import check_header_name, check_header_value

AUTH_OPTIONS: Final = (
    Option("type", "enum", doc="how they are sent", choices=("bearer", "header", "basic")),
    Option("env", "str", None, "name of the environment variable that holds the secret"),
    Option("file", "path", None, "file that holds the secret; a line feed at its end does not count"),
    Option("call", "any", None, "function without arguments that returns the secret (from Python only)"),
    Option("name", "str", None, "name of the header, for type 'header'"),
    Option("username", "str", None, "for type 'basic'; the secret is the password"),
)
"""What ``auth`` takes.  Exactly one of ``env``, ``file`` and ``call`` has to be given."""


class Credentials:
    """What to send to be let in.

    Args:
        auth: by the names in :data:`AUTH_OPTIONS`; ``None`` for none.
        environ: the environment.
        where: what error messages call it.

    Raises:
        ConfigurationError: an option is wrong, the variable is not set, or the file is not there.
    """

    def __init__(self, auth: Any, environ: Mapping[str, str], where: str) -> None:
        self._type = ""
        self._header = "Authorization"
        self._environ = environ
        if auth is None:
            return
        if not isinstance(auth, Mapping):
            raise ConfigurationError(f"{where}: expected a mapping with type and one of env, file and call")
        options = read_options(AUTH_OPTIONS, where, auth)
        self._type = options["type"]
        self._where = where
        self._env: str | None = options["env"]
        self._file: Path | None = options["file"]
        self._call: Callable[[], Any] | None = options["call"]
        self._username: str = options["username"] or ""
        if [self._env, self._file, self._call].count(None) != 2:
            raise ConfigurationError(f"{where}: expected exactly one of env, file and call")
        if self._type == "header":
            self._header = options["name"] or ""
            check_header_name(self._header, f"{where}.name")
        for name, kind in (("name", "header"), ("username", "basic")):
            if (options[name] is not None) != (self._type == kind):
                wrong = "has to be given for" if self._type == kind else "is only for"
                raise ConfigurationError(f"{where}.{name}: {wrong} type {kind!r}")
        if self._call is None:
            self._checked(self._read())
        elif not callable(self._call):
            raise ConfigurationError(f"{where}.call: expected a function")

    def __bool__(self) -> bool:
        return bool(self._type)

    def headers(self) -> dict[str, str]:
        """The header to send now.

        Raises:
            RetryableExportError: the function failed at input or output.
            BlockedExportError: the secret is not to be had.
        """
        if not self._type:
            return {}
        try:
            secret = self._checked(self._call() if self._call is not None else self._read())
        except ExportError:
            raise
        except OSError as error:
            raise RetryableExportError(f"{self._where}: the secret is not to be had: {type(error).__name__}") from error
        except Exception as error:
            text = str(error) if isinstance(error, ConfigurationError) else f"{self._where}: {type(error).__name__}"
            raise BlockedExportError(text, repair="check where this destination's credentials come from") from error
        if self._type == "basic":
            return {self._header: f"Basic {b64encode(f'{self._username}:{secret}'.encode()).decode()}"}
        return {self._header: f"Bearer {secret}" if self._type == "bearer" else secret}

    def _read(self) -> str:
        if self._env is not None:
            secret = self._environ.get(self._env, "")
            if not secret:
                raise ConfigurationError(f"{self._where}.env: the environment variable {self._env!r} is not set")
            return secret
        assert self._file is not None  # noqa: S101 - one of the two is given
        try:
            return self._file.read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or type(error).__name__
            raise ConfigurationError(f"{self._where}.file: {str(self._file)!r} cannot be read: {reason}") from None

    def _checked(self, secret: Any) -> str:
        if not isinstance(secret, str) or not secret:
            raise ConfigurationError(f"{self._where}: the secret has to be a str that is not empty")
        if self._type != "basic":
            check_header_value(secret, self._where)
        return secret

    def __repr__(self) -> str:
        return f"<Credentials {self._type or 'none'}>"
