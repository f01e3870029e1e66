"""Secrets: never written down in the configuration, read anew whenever they are needed, never shown.

They come from an environment variable, from a file (which may be replaced while we run) or from a function.  What a
receiver repeats of them is covered before anything else looks at its answer.
"""

from __future__ import annotations

import contextlib
import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, quote_plus

from ..errors import BlockedExportError, ConfigurationError, ExportError, RetryableExportError
from ..options import Option, read_options

SECRET_OPTIONS: Final = (
    Option("env", "str", None, "name of the environment variable that holds the secret"),
    Option("file", "path", None, "file that holds the secret; a line feed at its end does not count"),
    Option("call", "any", None, "function without arguments that returns the secret (from Python only)"),
)
"""Where a secret is.  Exactly one has to be given."""

COVER: Final = "[secret]"
"""What is shown in the place of a secret."""

_COVERED_MIN: Final = 4
"""Shorter ones are not looked for: they stand in every text by chance."""


class Secret:
    """One secret.

    Args:
        options: a value for each of :data:`SECRET_OPTIONS`, parsed.
        environ: the environment.
        where: what error messages call it.

    Raises:
        ConfigurationError: there is not exactly one source, the variable is not set, or the file is not there.
    """

    def __init__(self, options: Mapping[str, Any], environ: Mapping[str, str], where: str) -> None:
        self._environ = environ
        self._where = where
        self._env: str | None = options["env"]
        self._file: Path | None = options["file"]
        self._call: Callable[[], Any] | None = options["call"]
        if [self._env, self._file, self._call].count(None) != 2:
            raise ConfigurationError(f"{where}: expected exactly one of env, file and call")
        if self._call is None:
            self._checked(self._stored())
        elif not callable(self._call):
            raise ConfigurationError(f"{where}.call: expected a function")

    @classmethod
    def of(cls, source: Any, environ: Mapping[str, str], where: str) -> Secret:
        """The secret that a mapping with one of ``env``, ``file`` and ``call`` describes.

        Raises:
            ConfigurationError: it is something else, or the secret is not there.
        """
        if not isinstance(source, Mapping):
            raise ConfigurationError(f"{where}: expected a mapping with one of env, file and call")
        return cls(read_options(SECRET_OPTIONS, where, source), environ, where)

    def read(self) -> str:
        """The secret, as it is now.

        Raises:
            RetryableExportError: the function failed at input or output.
            BlockedExportError: it is not to be had.
        """
        # What a function of the user's raises may show the secret, so it is not kept as a cause.
        try:
            return self._checked(self._call() if self._call is not None else self._stored())
        except ExportError:
            raise
        except OSError as error:
            raise RetryableExportError(f"{self._where}: the secret is not to be had: {type(error).__name__}") from None
        except Exception as error:  # noqa: BLE001 - whatever it is, there is no secret
            text = str(error) if isinstance(error, ConfigurationError) else f"{self._where}: {type(error).__name__}"
            raise BlockedExportError(text, repair="check where this destination's credentials come from") from None

    def _stored(self) -> str:
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
        return secret

    def __repr__(self) -> str:
        return "<Secret>"


def secrets_in(headers: Mapping[str, str]) -> list[str]:
    """What must not be shown of these headers: their values, without the word before, and what Basic hides."""
    found: list[str] = []
    for value in headers.values():
        scheme, _, rest = value.partition(" ")
        found += [value, rest]
        if scheme.lower() == "basic":
            with contextlib.suppress(ValueError):  # it is no Base64, so it hides nothing
                pair = b64decode(rest + "==").decode("utf-8", "replace")
                found += [pair, pair.partition(":")[2]]
    return found


def covered(data: bytes, secrets: Iterable[str]) -> bytes:
    """Data without these secrets, in whatever form a receiver may repeat them."""
    for form in _forms(secrets):
        data = data.replace(form, COVER.encode())
    return data


def covered_text(text: str, secrets: Iterable[str]) -> str:
    """A text without these secrets."""
    for form in _forms(secrets):
        text = text.replace(form.decode("utf-8", "surrogateescape"), COVER)
    return text


def _forms(secrets: Iterable[str]) -> list[bytes]:
    """A secret as it is, in JSON, in a URL, in Base64; the longest first, so that no rest of one remains."""
    found: set[bytes] = set()
    for secret in secrets:
        if len(secret) < _COVERED_MIN:
            continue
        raw = secret.encode("utf-8", "surrogateescape")
        found |= {raw, b64encode(raw), b64encode(raw).rstrip(b"=")}
        found |= {form.encode() for form in (quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1])}
        found.add(json.dumps(secret, ensure_ascii=False)[1:-1].encode("utf-8", "surrogateescape"))
    return sorted(found, key=len, reverse=True)
