"""What the OTLP exporters are told, by options and by the environment, and which of them is meant.

The variables have the meaning that the OpenTelemetry specification (1.11 of OTLP) gives them; ``TIMEOUT`` is in
milliseconds.  Loads neither an HTTP library nor gRPC.
"""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from ..batch import RecordBatch
from ..errors import ConfigurationError, DamageError, ExportError, RejectedExportError
from ..options import Option, read_options, read_value
from .courtesy import let_others_run
from .http_client import HTTP_OPTIONS, USER_AGENT, shown

GRPC: Final = "grpc"
HTTP_PROTOBUF: Final = "http/protobuf"
HTTP_JSON: Final = "http/json"
HTTP_ENDPOINT: Final = "http://localhost:4318/v1/logs"
GRPC_ENDPOINT: Final = "http://localhost:4317"
REQUEST_BYTES: Final = 4 * 1024 * 1024
"""What a Collector takes over gRPC unless it is told otherwise."""

_PREFIXES: Final = ("OTEL_EXPORTER_OTLP_AUDIT_", "OTEL_EXPORTER_OTLP_LOGS_", "OTEL_EXPORTER_OTLP_")
_MILLISECONDS: Final = Option("timeout", "float", minimum=1)
_GRPC_PORT: Final = 4317

_ENDPOINT: Final = Option(
    "endpoint", "str", None,
    f"where the receiver is, {HTTP_ENDPOINT} or for grpc {GRPC_ENDPOINT} if nothing says it; over HTTP /v1/logs is "
    "appended where it has no path, else it is used as it stands; for grpc also host:port",
)  # fmt: skip
_URL: Final = Option("endpoint", "url")
_PROTOCOL: Final = Option(
    "protocol", "enum", HTTP_PROTOBUF, "how to speak to it", choices=(HTTP_PROTOBUF, HTTP_JSON, GRPC)
)
_REQUEST_BYTES: Final = Option(
    "request_bytes", "size", REQUEST_BYTES, "a larger request, before compression, is sent in parts", minimum=1
)
_GRPC_ONLY: Final = (
    Option("insecure", "bool", False, "grpc: no TLS, where the endpoint begins with neither http:// nor https://"),
    Option(
        "keepalive", "duration", None,
        "grpc: ask this often whether an idle connection lives; many receivers take at most one in 5 minutes",
        minimum=1,
    ),
)  # fmt: skip
_HTTP_ONLY: Final = tuple(option for option in HTTP_OPTIONS if option.name == "verify_tls")
_BOTH: Final = tuple(option for option in HTTP_OPTIONS if option.name != "verify_tls")

OTLP_OPTIONS: Final = (_ENDPOINT, _PROTOCOL, *_BOTH, *_HTTP_ONLY, _REQUEST_BYTES, *_GRPC_ONLY)
"""The options of a destination of type ``otlp``."""

OTLP_HTTP_OPTIONS: Final = (
    _ENDPOINT,
    Option("protocol", "enum", HTTP_PROTOBUF, _PROTOCOL.doc, choices=(HTTP_PROTOBUF, HTTP_JSON)),
    *_BOTH,
    *_HTTP_ONLY,
    _REQUEST_BYTES,
)
OTLP_GRPC_OPTIONS: Final = (_ENDPOINT, *_BOTH, _REQUEST_BYTES, *_GRPC_ONLY)


# -- options and environment -----------------------------------------------------------------------------------


def read_otlp(options: Mapping[str, Any], environ: Mapping[str, str], where: str) -> dict[str, Any]:
    """Every option, from what is given, then from the environment, then by default.

    Read are ``OTEL_EXPORTER_OTLP_AUDIT_…``, then ``OTEL_EXPORTER_OTLP_LOGS_…``, then ``OTEL_EXPORTER_OTLP_…``, each
    with ``PROTOCOL``, ``ENDPOINT``, ``HEADERS``, ``TIMEOUT``, ``COMPRESSION``, ``CERTIFICATE``, ``CLIENT_CERTIFICATE``,
    ``CLIENT_KEY`` and, for gRPC, ``INSECURE``; an empty one counts as absent.  Over HTTP, the first two endpoints are
    used as they stand, and ``/v1/logs`` is appended to the general one.

    Returns:
        The options by name.  ``endpoint`` is a whole URL; for gRPC it is a :class:`GrpcEndpoint`.

    Raises:
        ConfigurationError: an option or a variable is unknown or wrong.
    """
    read = read_options(OTLP_OPTIONS, where, options)
    chosen = {name for name, value in options.items() if value is not None}
    read |= _from_environment(environ, chosen, ("protocol",))
    grpc = read["protocol"] == GRPC
    check_choice(read, where, _HTTP_ONLY if grpc else _GRPC_ONLY, read["protocol"])
    if grpc:
        read |= _from_environment(environ, chosen, ("insecure",))
        entry = None if "endpoint" in chosen else _variable("ENDPOINT", environ)
        name, text = entry or (f"{where}.endpoint", read["endpoint"] or GRPC_ENDPOINT)
        read["endpoint"] = grpc_endpoint(text, name, insecure=read["insecure"])
        secure = read["endpoint"].secure
    else:
        read["endpoint"] = (
            http_endpoint(read["endpoint"], f"{where}.endpoint") if "endpoint" in chosen else _endpoint_from(environ)
        )
        secure = read["endpoint"].startswith("https://")
    names = ["headers", "timeout", "compression"]
    if secure:  # else the general ones are meant for other signals
        names += ["certificate", "client_certificate", "client_key"]
    return read | _from_environment(environ, chosen, names)


def check_choice(read: Mapping[str, Any], where: str, foreign: tuple[Option, ...], protocol: str) -> None:
    """Refuse an option of another protocol.

    Raises:
        ConfigurationError: one is given.
    """
    for option in foreign:
        if read[option.name] != option.default:
            hint = "" if option.name != "verify_tls" else "; set certificate to what the receiver is to be checked by"
            raise ConfigurationError(f"{where}.{option.name}: there is no such thing with protocol {protocol}{hint}")


def _from_environment(environ: Mapping[str, str], chosen: Container[str], names: Any) -> dict[str, Any]:
    """What the environment says of options that were not chosen; a mistake is reported by its variable."""
    found: dict[str, Any] = {}
    for option in names:
        entry = None if option in chosen else _variable(option.upper(), environ)
        if entry is None:
            continue
        name, text = entry
        if option == "timeout":
            found[option] = read_value(_MILLISECONDS, name, text) / 1000
        else:
            found[option] = read_value(_TABLE[option], name, text)
    return found


_TABLE: Final = {option.name: option for option in OTLP_OPTIONS}


def _variable(name: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The first of the variables for an option that is set, and its value."""
    for prefix in _PREFIXES:
        if text := environ.get(prefix + name, "").strip():
            return prefix + name, text
    return None


# -- endpoints ---------------------------------------------------------------------------------------------------


def http_endpoint(endpoint: str, where: str) -> str:
    """The URL to send to.

    Raises:
        ConfigurationError: it is not a URL.
    """
    url: str = read_value(_URL, where, endpoint)
    return _with_path(url, "/v1/logs") if urlsplit(url).path in ("", "/") else url


def _endpoint_from(environ: Mapping[str, str]) -> str:
    """The URL that the environment says, or the default one."""
    entry = _variable("ENDPOINT", environ)
    if entry is None:
        return HTTP_ENDPOINT
    name, text = entry
    url: str = read_value(_URL, name, text)
    if name != f"{_PREFIXES[-1]}ENDPOINT":
        return url
    return _with_path(url, urlsplit(url).path.rstrip("/") + "/v1/logs")


def _with_path(url: str, path: str) -> str:
    return urlsplit(url)._replace(path=path).geturl()


@dataclass(frozen=True)
class GrpcEndpoint:
    """Where a gRPC receiver is.

    Attributes:
        target: as gRPC wants it.
        secure: whether to speak TLS.
        url: for messages, and to see whether it is this machine.
    """

    target: str
    secure: bool
    url: str


_HOST_AND_PORT: Final = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_RESOLVED: Final = re.compile(r"(?:dns|unix|unix-abstract|ipv4|ipv6|xds):[^\s@?]+")


def grpc_endpoint(endpoint: str, where: str, *, insecure: bool) -> GrpcEndpoint:
    """What an endpoint says to gRPC.

    Args:
        endpoint: a URL, ``host:port``, or a name in gRPC's own notation (``dns:///host:port``, ``unix:/path``).
        where: what error messages call it.
        insecure: no TLS, where it is no URL.

    Raises:
        ConfigurationError: it is none of them, or a URL with a path.
    """
    text = endpoint.strip()
    if re.match(r"https?://", text):
        parts = urlsplit(read_value(_URL, where, text))
        if parts.path not in ("", "/") or parts.query:
            raise ConfigurationError(f"{where}: gRPC has no paths; leave out what follows the port in {shown(text)!r}")
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        secure = parts.scheme == "https"
        target = f"{host}:{parts.port or (443 if secure else 80)}"
        return GrpcEndpoint(target, secure, f"{parts.scheme}://{target}")
    secure = not insecure
    scheme = "https" if secure else "http"
    match = _HOST_AND_PORT.fullmatch(text)
    if match is not None and int(match[2] or _GRPC_PORT) in range(1, 65536):
        target = text if match[2] else f"{text}:{_GRPC_PORT}"
        return GrpcEndpoint(target, secure, f"{scheme}://{target}")
    if _RESOLVED.fullmatch(text):
        return GrpcEndpoint(text, secure, f"{scheme}://localhost" if text.startswith("unix") else f"{scheme}://{text}")
    # Not shown: it may have credentials in it.
    raise ConfigurationError(f"{where}: expected http://HOST:PORT, https://HOST:PORT or HOST:PORT")


# -- what both send ------------------------------------------------------------------------------------------------


def send_in_parts(
    batch: RecordBatch,
    size_max: int,
    encode: Callable[[RecordBatch, Callable[[], object]], bytes],
    send: Callable[[bytes, RecordBatch], None],
) -> None:
    """Send a batch, in one request if it is not too large for that; a record that is too large alone goes by itself.

    Args:
        batch: the records.
        size_max: largest request, in bytes.
        encode: makes the request of a part.
        send: sends one; raises as an exporter does.

    Raises:
        ExportError: a part was not taken; ``accepted`` counts what was before.
        RejectedExportError: a record cannot be written; nothing was sent.
    """
    done = 0
    waiting = [batch]
    while waiting:
        part = waiting.pop()
        try:
            content = encode(part, let_others_run)
        except DamageError as error:
            raise RejectedExportError(str(error), accepted=done, details={"reason": "damaged"}) from error
        count = len(part.records)
        if len(content) > size_max and count > 1:
            middle = count // 2
            waiting += [part.part(middle, count), part.part(0, middle)]
            continue
        try:
            send(content, part)
        except ExportError as error:
            error.accepted += done
            raise
        done += count


def otlp_user_agent() -> str:
    """Ours, then what the specification asks for."""
    try:
        version = importlib.metadata.version("opentelemetry-exporter-otlp")
    except importlib.metadata.PackageNotFoundError:
        return USER_AGENT
    return f"{USER_AGENT} OTel-OTLP-Exporter-Python/{version}"
