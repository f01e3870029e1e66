"""OTLP over HTTP with protobuf: a batch is acknowledged only when the receiver took all of it."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Container, Mapping
from typing import Any, ClassVar, Final
from urllib.parse import urlsplit

from ..batch import RecordBatch
from ..errors import ConfigurationError, DamageError, RejectedExportError
from ..formats.otlp import encode_logs_request, parse_logs_response
from ..options import Option, read_options, read_value
from ..protocols import ExportResult
from .answers import Answer, clean, error_of_answer, not_understood, request_id_of
from .courtesy import let_others_run
from .http_client import HTTP_OPTIONS, USER_AGENT, HttpClient

DEFAULT_ENDPOINT: Final = "http://localhost:4318/v1/logs"
_PROTOBUF: Final = "application/x-protobuf"
_PREFIXES: Final = ("OTEL_EXPORTER_OTLP_AUDIT_", "OTEL_EXPORTER_OTLP_LOGS_", "OTEL_EXPORTER_OTLP_")
_MILLISECONDS: Final = Option("timeout", "float", minimum=1)


class OtlpHttpExporter:
    """Sends batches by OTLP/HTTP with protobuf.  The arguments are explained in :attr:`OPTIONS`.

    The constructor reads no environment; :meth:`from_options` does.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option(
            "endpoint", "url", DEFAULT_ENDPOINT,
            "where the receiver is; /v1/logs is appended where it has no path, else it is used as it stands",
        ),
        Option("protocol", "str", "http/protobuf", "the only one that this version has"),
        *HTTP_OPTIONS,
    )  # fmt: skip

    single_writer = False

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        *,
        protocol: str = "http/protobuf",
        headers: Mapping[str, str] | None = None,
        timeout: float | str | None = None,
        compression: str = "none",
        certificate: Any = None,
        client_certificate: Any = None,
        client_key: Any = None,
        verify_tls: bool = True,
        where: str = "OtlpHttpExporter",
    ) -> None:
        options = read_options(
            self.OPTIONS,
            where,
            {
                "endpoint": endpoint,
                "protocol": protocol,
                "headers": headers,
                "timeout": timeout,
                "compression": compression,
                "certificate": certificate,
                "client_certificate": client_certificate,
                "client_key": client_key,
                "verify_tls": verify_tls,
            },
        )
        self._start(_explicit(options["endpoint"]), options, where)

    def _start(self, url: str, options: Mapping[str, Any], where: str) -> None:
        _check_protocol(options["protocol"], f"{where}.protocol")
        self._client = HttpClient(url, options, where, _user_agent())

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], environ: Mapping[str, str], *, where: str = "otlp"
    ) -> OtlpHttpExporter:
        """The exporter that these options describe, and the environment where they say nothing.

        Read are ``OTEL_EXPORTER_OTLP_AUDIT_…``, then ``OTEL_EXPORTER_OTLP_LOGS_…``, then ``OTEL_EXPORTER_OTLP_…``,
        each with ``ENDPOINT``, ``PROTOCOL``, ``HEADERS``, ``TIMEOUT`` (milliseconds), ``COMPRESSION``,
        ``CERTIFICATE``, ``CLIENT_CERTIFICATE`` and ``CLIENT_KEY``; an empty one counts as absent.  The first two
        endpoints are used as they stand, ``/v1/logs`` is appended to the general one.

        Raises:
            ConfigurationError: an option or an environment variable is unknown or wrong.
        """
        read = read_options(cls.OPTIONS, where, options)
        chosen = {name for name, value in options.items() if value is not None}
        url = _explicit(read["endpoint"]) if "endpoint" in chosen else _endpoint_from(environ)
        read |= _from_environment(environ, chosen, url)
        self = cls.__new__(cls)
        self._start(url, read, where)
        return self

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        """Deliver the whole batch in one request.

        Raises:
            RetryableExportError, BlockedExportError, RejectedExportError: it was not taken, or not all of it.
        """
        deadline = self._client.deadline(timeout_s)
        try:
            content = encode_logs_request(batch, let_others_run)
        except DamageError as error:
            raise RejectedExportError(str(error), details={"reason": "damaged"}) from error
        answer = self._client.send("POST", content, {"Content-Type": _PROTOBUF}, deadline)
        _judge(answer, self._client.shown_url, len(batch.records))
        return None

    def close(self) -> None:
        """Let go of the connection.  May be called twice."""
        self._client.close()

    def __repr__(self) -> str:
        return f"<OtlpHttpExporter {self._client.shown_url}>"


def _judge(answer: Answer, who: str, count: int) -> None:
    """Return where all records were taken, raise where not, or where it cannot be known."""
    if answer.status == 204:
        return
    if answer.status != 200:
        raise error_of_answer(answer, who)
    if answer.content_type not in ((_PROTOBUF,) if answer.body else (_PROTOBUF, "")):
        raise not_understood(answer, who, f"with {clean(answer.content_type) or 'no content type'}, not {_PROTOBUF}")
    if not answer.whole:
        raise not_understood(answer, who, "its body is longer than an OTLP answer, or damaged")
    try:
        partial = parse_logs_response(answer.body)
    except ValueError:
        raise not_understood(answer, who, "its body is not that of an OTLP receiver") from None
    if partial is None or partial.rejected == 0:
        return
    text = clean(partial.message)
    raise RejectedExportError(
        f"{who} rejected {partial.rejected} of {count} records" + (f": {text}" if text else ""),
        status=200,
        request_id=request_id_of(answer.headers),
        details={"reason": "partial_success", "rejected": partial.rejected, "message": text},
    )


def _explicit(endpoint: str) -> str:
    return _with_path(endpoint, "/v1/logs") if urlsplit(endpoint).path in ("", "/") else endpoint


def _endpoint_from(environ: Mapping[str, str]) -> str:
    """The endpoint that the environment says, or the default one."""
    entry = _variable("ENDPOINT", environ)
    if entry is None:
        return DEFAULT_ENDPOINT
    name, text = entry
    url: str = read_value(_TABLE["endpoint"], name, text)
    if name != f"{_PREFIXES[-1]}ENDPOINT":
        return url
    return _with_path(url, urlsplit(url).path.rstrip("/") + "/v1/logs")


def _from_environment(environ: Mapping[str, str], chosen: Container[str], url: str) -> dict[str, Any]:
    """What the environment says of the other options that were not chosen; a mistake is reported by its variable."""
    names = ["protocol", "headers", "timeout", "compression"]
    if url.startswith("https://"):  # else the general ones are meant for other signals
        names += ["certificate", "client_certificate", "client_key"]
    found: dict[str, Any] = {}
    for option in names:
        entry = _variable(option.upper(), environ)
        if option in chosen or entry is None:
            continue
        name, text = entry
        if option == "protocol":
            _check_protocol(text, name)
        elif option == "timeout":
            found[option] = read_value(_MILLISECONDS, name, text) / 1000
        else:
            found[option] = read_value(_TABLE[option], name, text)
    return found


_TABLE: Final = {option.name: option for option in OtlpHttpExporter.OPTIONS}


def _variable(name: str, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The first of the variables for an option that is set, and its value."""
    for prefix in _PREFIXES:
        if text := environ.get(prefix + name, "").strip():
            return prefix + name, text
    return None


def _check_protocol(value: str, where: str) -> None:
    if value != "http/protobuf":
        raise ConfigurationError(
            f"{where}: only http/protobuf is supported by this version, got {value!r}; "
            "set the destination's option protocol to 'http/protobuf' if its endpoint takes that"
        )


def _with_path(url: str, path: str) -> str:
    return urlsplit(url)._replace(path=path).geturl()


def _user_agent() -> str:
    try:
        version = importlib.metadata.version("opentelemetry-exporter-otlp")
    except importlib.metadata.PackageNotFoundError:
        return USER_AGENT
    return f"{USER_AGENT} OTel-OTLP-Exporter-Python/{version}"
