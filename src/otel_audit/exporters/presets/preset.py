"""What a preset is: defaults for the options of direct HTTP, few options of its own, and the shape of a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from ... import semconv as sc
from ...errors import ConfigurationError
from ...formats.template import Facts
from ...lazy import lazy
from ...options import REQUIRED, Option, read_options
from ..http import HttpExporter
from ..http_client import HTTP_OPTIONS

_KEEP_IDS: Final = Option(
    "keep_ids", "bool", False, "keep the ids that the receiver gives to records, in the journal's acknowledgements"
)


@dataclass(frozen=True)
class Mode:
    """One way of sending that a service has.

    Attributes:
        path: of the URL, where it has none of its own.
        body, list_name, content_type, response_id, request_records, request_bytes: as of direct HTTP.
    """

    path: str = ""
    body: str = "record"
    list_name: str = "records"
    content_type: str | None = None
    response_id: str = ""
    request_records: int | None = None
    request_bytes: int | None = None


@dataclass(frozen=True)
class Preset:
    """A service, and how it wants its records.  Stands where the class of an exporter does.

    Attributes:
        name: the destination's type.
        service: what it is, for people.
        modes: the ways of sending; the first is used where none is chosen.
        shape: a record as the service wants it, from its plain line and the preset's own options.
        options: of its own.
        auth: what ``auth`` has where it does not say; ``{}``: nothing.
        env: the variable that is read where ``auth`` is not given at all.
        auth_required: whether nothing can be sent without credentials.
        login: of ``auth`` of type ``login``: option → path of its URL.
        login_parameters: name in the request for a token → the option that has its value.
        headers: name of a header → the option that has its value.
        success: statuses that acknowledge.
        idempotency_header: as of direct HTTP.
        exporter: what sends.
    """

    name: str
    service: str
    modes: Mapping[str, Mode]
    shape: Callable[[Facts, Mapping[str, Any]], Any]
    options: tuple[Option, ...] = ()
    auth: Mapping[str, Any] = field(default_factory=dict)
    env: str = ""
    auth_required: bool = False
    login: Mapping[str, str] = field(default_factory=dict)
    login_parameters: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    success: tuple[str, ...] = ("200", "201", "204")
    idempotency_header: str = ""
    exporter: type[HttpExporter] = HttpExporter

    @lazy
    def OPTIONS(self) -> tuple[Option, ...]:  # noqa: N802 - as every exporter's class has it
        """The options that a destination of this type has."""
        first = next(iter(self.modes.values()))
        path = f"; {first.path} is appended where it has no path" if first.path else ""
        if len(self.modes) > 1:
            path = "; where it has no path, that of the mode is appended"
        found = [Option("url", "url", REQUIRED, f"where to send to{path}")]
        if len(self.modes) > 1:
            found.append(Option("mode", "enum", next(iter(self.modes)), "how to send", choices=tuple(self.modes)))
        found += self.options
        needed = "without it, the secret is in " + self.env if self.env else "none where it is not given"
        found.append(Option("auth", "any", None, f"credentials, as of http; {needed}"))
        if any(mode.body != "record" for mode in self.modes.values()):
            found += [
                Option("request_records", "int", first.request_records, "most records in one request", minimum=1),
                Option("request_bytes", "size", first.request_bytes, "largest body, before compression", minimum=1),
            ]
        if any(mode.response_id for mode in self.modes.values()):
            found.append(_KEEP_IDS)
        return (*found, *HTTP_OPTIONS)

    def from_options(self, options: Mapping[str, Any], environ: Mapping[str, str], *, where: str = "") -> HttpExporter:
        """The exporter that these options describe; the environment holds credentials only.

        Raises:
            ConfigurationError: an option is unknown or wrong, or a credential is not there.
        """
        where = where or self.name
        read = read_options(self.OPTIONS, where, options)
        mode = self.modes[read.get("mode", next(iter(self.modes)))]
        auth = self._auth(read, environ, where)
        url = with_path(read["url"], mode.path)
        headers = dict(read["headers"])
        for name, option in self.headers.items():
            if read[option] is not None and not (self.login and auth and auth.get("type") == "login"):
                headers.setdefault(name, read[option])
        passed = {option.name: read[option.name] for option in HTTP_OPTIONS}
        http = passed | {
            "url": url,
            "body": mode.body,
            "list_name": mode.list_name,
            "content_type": mode.content_type,
            "response_id": mode.response_id if read.get("keep_ids") else "",
            "request_records": read.get("request_records"),
            "request_bytes": read.get("request_bytes"),
            "auth": auth,
            "success": self.success,
            "idempotency_header": self.idempotency_header,
            "headers": headers,
        }
        every = {option.name: option.default for option in HttpExporter.OPTIONS} | http
        return self.exporter.made(
            every, environ, where, name=self.name, shape=lambda facts: self.shape(facts, read), own=read
        )

    def _auth(self, read: Mapping[str, Any], environ: Mapping[str, str], where: str) -> dict[str, Any] | None:
        """The whole of ``auth``: what is given, and what the preset knows of it."""
        given = read["auth"]
        if given is None:
            if self.env and environ.get(self.env):
                return {**self.auth, "env": self.env}
            if self.auth_required:
                raise ConfigurationError(
                    f"{where}.auth: {self.service} wants credentials: set {self.env}, or give auth, like "
                    "{'env': 'NAME_OF_A_VARIABLE'}"
                )
            return None
        if not isinstance(given, Mapping):
            raise ConfigurationError(f"{where}.auth: expected a mapping with one of env, file and call")
        known = self.auth if given.get("type") in (None, self.auth.get("type")) else {}
        found = {**known, **given}
        if found.get("type") == "login":
            for option, path in self.login.items():
                found.setdefault(option, urlsplit(read["url"])._replace(path=path, query="").geturl())
            more = {name: read[option] for name, option in self.login_parameters.items() if read[option] is not None}
            found["parameters"] = {**more, **(found.get("parameters") or {})}
        return found

    def __repr__(self) -> str:
        return f"<Preset {self.name}>"


def with_path(url: str, path: str) -> str:
    """The URL, with this path where it has none."""
    parts = urlsplit(url)
    return url if parts.path not in ("", "/") else parts._replace(path=path).geturl()


def level_of(plain: Facts) -> str:
    """``debug``, ``info``, ``warning``, ``error`` or ``critical``, from the severity number of OpenTelemetry."""
    number = plain["attributes"].get(sc.SEVERITY_NUMBER)
    if not isinstance(number, int) or number <= 0:
        return "info"
    return ("debug", "debug", "info", "warning", "error", "critical")[min((number - 1) // 4, 5)]


def microseconds(time: str | None) -> str | None:
    """A time as this package writes it, to the microsecond: many receivers read no more digits."""
    return None if time is None else f"{time[:26]}Z"
