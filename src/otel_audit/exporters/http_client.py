"""One HTTP request at a time, bounded in time and size: what the exporters over HTTP share.

Loads the HTTP library at the first request.  Redirects are not followed, because a body could land where nobody looks;
proxies come from the environment, as the library has it.
"""

from __future__ import annotations

import gzip
import ipaddress
import os
import re
import ssl
import time
import warnings
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

from .._version import __version__
from ..errors import BlockedExportError, ConfigurationError, ExportError
from ..options import Option
from .answers import Answer, clean, error_of_failure
from .endpoint import Endpoint
from .secret import covered, covered_text, secrets_in

if TYPE_CHECKING:
    import httpx

    from .deadline import Deadline

USER_AGENT: Final = f"otel-audit/{__version__}"

BODY_MAX: Final = 64 * 1024
"""How much of an answer's body is read where nobody needs more, in bytes."""

HTTP_OPTIONS: Final = (
    Option("headers", "map", {}, "headers to send with every request; their values are never shown"),
    Option("timeout", "duration", None, "limit for one request, where export allows more", minimum=0.001),
    Option("compression", "enum", "none", "of the request's body", choices=("none", "gzip")),
    Option("certificate", "path", None, "file with the authorities (PEM) that the receiver is checked by"),
    Option("client_certificate", "path", None, "file with our certificate (PEM), where the receiver asks for one"),
    Option("client_key", "path", None, "file with the key of our certificate, where it is not in the same file"),
    Option("verify_tls", "bool", True, "false: accept any certificate; warns, because anybody can then listen"),
)
"""The options that every exporter over HTTP has."""

_OURS: Final = frozenset(
    {"content-type", "content-encoding", "content-length", "transfer-encoding", "accept-encoding", "connection", "host"}
)
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CREDENTIALS: Final = re.compile(r"auth|key|token|secret|cookie", re.IGNORECASE)


class InsecureTransportWarning(UserWarning):
    """A destination's connection can be read or impersonated by others on the network."""


_NO_PROXY: Final = {f"all://{host}": None for host in ("localhost", "127.0.0.1", "[::1]")}
"""What is on this machine is not asked for through a proxy, whatever the environment says of one."""


class HttpClient:
    """A connection to one receiver; made anew in a forked child.

    Args:
        url: the receiver's.
        options: a value for each of :data:`HTTP_OPTIONS`.
        where: what error messages call the options.
        user_agent: what we call ourselves.
        has_credentials: whether requests carry credentials besides what the headers say.

    Raises:
        ConfigurationError: a header, or the files for TLS.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        where: str,
        user_agent: str = USER_AGENT,
        *,
        has_credentials: bool = False,
    ) -> None:
        self.url = url
        self.shown_url = shown(url)
        self._headers = checked_headers(options["headers"], where)
        if "user-agent" not in map(str.lower, self._headers):
            self._headers["User-Agent"] = user_agent
        self._gzip = options["compression"] == "gzip"
        self._timeout_s: float | None = options["timeout"]
        self._verify: bool = options["verify_tls"]
        self._files: tuple[Path | None, ...] = tuple(
            options[name] for name in ("certificate", "client_certificate", "client_key")
        )
        check_tls(url, options, where)
        if not self._verify:
            _warn(f"{where}: verify_tls is false: anybody between here and there can read and swallow records", 5)
        elif has_credentials or carry_credentials(self._headers):
            warn_of_plain_text(url, where)
        carried = {name: value for name, value in self._headers.items() if carry_credentials([name])}
        self._secrets = [*secrets_in(carried), *(value for _, value in parse_qsl(urlsplit(url).query))]
        self._client: httpx.Client | None = None
        self._deadline: Deadline | None = None
        self._pid = 0
        self._inherited: list[object] = []

    @property
    def endpoint(self) -> Endpoint:
        """Where it sends to."""
        certificate, client_certificate, client_key = self._files
        secure = self.url.startswith("https://")
        return Endpoint(self.shown_url, secure, self._verify, certificate, client_certificate, client_key)

    def deadline(self, timeout_s: float) -> float:
        """When a request that begins now has to be over, on the monotonic clock."""
        return time.monotonic() + (timeout_s if self._timeout_s is None else min(timeout_s, self._timeout_s))

    def send(
        self,
        method: str,
        content: bytes,
        headers: Mapping[str, str],
        deadline: float,
        body_max: int = BODY_MAX,
        *,
        secrets: Iterable[str] = (),
        url: str | None = None,
    ) -> Answer:
        """Send a request and read its answer.

        Args:
            method: the HTTP method.
            content: the body, not compressed.
            headers: besides those of every request.
            deadline: when it has to be over, on the monotonic clock.
            body_max: how much of the answer's body to read.
            secrets: what must not be shown of this request; it is covered wherever the receiver repeats it, as are
                credentials in the headers of every request and values in the URL's query.
            url: instead of the client's own.

        Raises:
            ExportError: there was no answer.
        """
        begun = time.monotonic()
        secrets = [*self._secrets, *secrets]
        try:
            client, limit = self._connected()
            limit.at = deadline
            all_headers = {**self._headers, **headers, "Accept-Encoding": "identity"}
            if self._gzip:
                all_headers["Content-Encoding"] = "gzip"
                content = gzip.compress(content, compresslevel=1, mtime=0)
            left = max(deadline - time.monotonic(), 0.001)
            with client.stream(method, url or self.url, content=content, headers=all_headers, timeout=left) as response:
                body, whole = _read(response, body_max)
                names = {name.lower(): covered_text(value, secrets) for name, value in response.headers.items()}
                return Answer(response.status_code, names, covered(body, secrets), whole)
        except ExportError:
            raise
        except Exception as error:  # noqa: BLE001 - it is raised again, as an error of ours
            found = error_of_failure(error, shown(url or self.url), max(deadline - begun, 0.0))
            found.args = tuple(covered_text(str(part), secrets) for part in found.args)
            raise found from (None if _shows(error, secrets) else error)

    def close(self) -> None:
        """Let go of the connection.  May be called twice."""
        client, self._client = self._client, None
        if client is not None and self._pid == os.getpid():
            client.close()

    def _connected(self) -> tuple[httpx.Client, Deadline]:
        if self._pid != os.getpid():
            # A forked child must neither use nor close what its parent is using.
            self._inherited.append(self._client)
            self._client = None
        if self._client is None or self._deadline is None:
            import httpx  # noqa: PLC0415 - heavy

            from .deadline import Deadline, limit  # noqa: PLC0415 - loads httpx

            self._pid = os.getpid()
            self._deadline = Deadline()
            self._client = httpx.Client(verify=self._ssl_context(), follow_redirects=False, mounts=_NO_PROXY)
            limit(self._client, self._deadline)
        return self._client, self._deadline

    def _ssl_context(self) -> ssl.SSLContext | bool:
        if not self.url.startswith("https://"):
            return True
        import httpx  # noqa: PLC0415 - heavy

        certificate, client_certificate, client_key = self._files
        try:
            if not self._verify:
                context = httpx.create_ssl_context(verify=False)
            elif certificate is not None:
                context = ssl.create_default_context(cafile=certificate)
            else:
                context = httpx.create_ssl_context()
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if client_certificate is not None:
                context.load_cert_chain(client_certificate, client_key, password=_no_password)
        except (OSError, ValueError) as error:
            raise BlockedExportError(
                f"{self.shown_url}: the files for TLS cannot be used: {clean(str(error))}",
                status="TLS",
                repair="check the files in certificate, client_certificate and client_key",
            ) from error
        return context


def _shows(error: BaseException, secrets: Iterable[str]) -> bool:
    """Whether a traceback of this would show one of the secrets."""
    current: BaseException | None = error
    for _ in range(16):
        if current is None:
            return False
        if covered_text(text := str(current), secrets) != text:
            return True
        current = current.__cause__ or current.__context__
    return True


def _no_password() -> str:
    raise ValueError("a key with a password cannot be used")  # else OpenSSL would ask on the terminal


def shown(url: str) -> str:
    """A URL as messages show it: without credentials, query and fragment."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def carry_credentials(headers: Iterable[str]) -> bool:
    """Whether one of the headers looks as if it held credentials, by its name."""
    return any(_CREDENTIALS.search(name) for name in headers)


def warn_of_plain_text(url: str, where: str) -> None:
    """Warn where credentials go to another machine without TLS."""
    if url.startswith("http://") and not is_loopback(url):
        _warn(f"{where}: credentials are sent to {shown(url)} without TLS; begin the URL with https://", 6)


def is_loopback(url: str) -> bool:
    """Whether the receiver is on this machine, by what the URL says."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def checked_headers(headers: Mapping[str, str], where: str) -> dict[str, str]:
    """A copy of the headers.

    Raises:
        ConfigurationError: one has a bad name or value.
    """
    for name, value in headers.items():
        check_header_name(name, f"{where}.headers")
        check_header_value(value, f"{where}.headers.{name}")
    return dict(headers)


def check_header_name(name: str, where: str) -> None:
    """A token, and not one of the headers that the exporter sets itself.

    Raises:
        ConfigurationError: it is not.
    """
    if not _TOKEN.fullmatch(name):
        raise ConfigurationError(f"{where}: {name!r} is not the name of a header")
    if name.lower() in _OURS:
        raise ConfigurationError(f"{where}: {name!r} is set by the exporter")


def check_header_value(value: str, where: str) -> None:
    """Printable ASCII, without spaces around it; the message does not show it.

    Raises:
        ConfigurationError: it is not.
    """
    if not re.fullmatch(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?|", value):
        raise ConfigurationError(f"{where}: expected printable ASCII on one line, got a str of length {len(value)}")


def check_tls(url: str, options: Mapping[str, Any], where: str) -> None:
    """See that the files for TLS are there, and that TLS is what is spoken.

    Raises:
        ConfigurationError: they are not, or it is not.
    """
    for name in ("certificate", "client_certificate", "client_key"):
        path: Path | None = options[name]
        if path is None:
            continue
        if url.startswith("http://"):
            raise ConfigurationError(f"{where}.{name}: is for TLS, but {shown(url)} begins with http://")
        if not path.is_file():
            raise ConfigurationError(f"{where}.{name}: there is no file {str(path)!r}")
    if options["client_key"] is not None and options["client_certificate"] is None:
        raise ConfigurationError(f"{where}.client_key: needs client_certificate beside it")


def _warn(message: str, stacklevel: int) -> None:
    warnings.warn(message, InsecureTransportWarning, stacklevel=stacklevel)


def _read(response: httpx.Response, body_max: int) -> tuple[bytes, bool]:
    """The body up to a limit, and whether that is all of it; a compressed one is unpacked within the limit."""
    data = bytearray()
    whole = True
    for piece in response.iter_raw():
        data += piece
        if len(data) > body_max:
            whole = False
            break
    if response.headers.get("content-encoding", "identity").lower() in ("gzip", "x-gzip", "deflate"):
        unpack = zlib.decompressobj(wbits=47)  # gzip or zlib, whichever the body says
        try:
            unpacked = unpack.decompress(bytes(data), body_max)
        except zlib.error:
            return b"", False
        return unpacked, whole and unpack.eof and not unpack.unconsumed_tail and not unpack.unused_data
    return bytes(data[:body_max]), whole
