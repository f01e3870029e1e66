"""From keywords, environment and file to a provider: one table of options, one way to read them.

Order, the first wins: keyword arguments, ``OTEL_AUDIT_<OPTION>`` variables, the TOML file that ``config_file`` or
``OTEL_AUDIT_CONFIG`` names.  ``OTEL_EXPORTER_OTLP_*`` is read by the OTLP exporter, ``OTEL_SERVICE_NAME`` and
``OTEL_RESOURCE_ATTRIBUTES`` by the OpenTelemetry SDK.  ``OTEL_SDK_DISABLED`` does not switch auditing off.
"""

from __future__ import annotations

import difflib
import grp
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

from .delivery.destination import BYTES_MAX, RECORDS_MAX, Destination
from .errors import ConfigurationError
from .exporters import exporter_class
from .journal.layout import check_destination_name
from .options import Option, read_options, read_value
from .protocols import AuditRecordExporter, AuditRecordProcessor, Clock
from .provider import DURABILITIES, AuditProvider, Durability, ProviderSettings
from .rules import SIZE_BYTES_MAX, is_event_name
from .semconv import EVENT_DEFAULT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PREFIX: Final = "OTEL_AUDIT_"
CONFIG_VARIABLE: Final = "OTEL_AUDIT_CONFIG"
DEFAULT_DESTINATIONS: Final = {"collector": "otlp"}

OPTIONS: Final = (
    Option("journal", "path", None, "directory of the journal; the XDG state directory of the service"),
    Option("destinations", "any", DEFAULT_DESTINATIONS, "name → where to; {} journals only"),
    Option("service_name", "str", None, "service.name of the resource; else OTEL_SERVICE_NAME"),
    Option("resource_attributes", "any", {}, "further resource attributes"),
    Option("durability", "enum", "process", "what emit waits for: process, disk or delivered", choices=DURABILITIES),
    Option("strict", "bool", False, "captures raise for incomplete records, and everything over the size limit raises"),
    Option("event_name", "str", EVENT_DEFAULT, "event name of captured messages that name none"),
    Option("max_record_bytes", "size", SIZE_BYTES_MAX, "largest canonical form of a record; what is over is cut, marked"),
    Option("max_bytes", "size", 4 * 1024**3, "room for the whole journal, dead letters included"),
    Option("segment_bytes", "size", 16 * 1024**2, "size at which a segment is left for a new one"),
    Option("full_timeout", "duration", 1.0, "how long emit waits for room in a full journal"),
    Option("retention", "duration", None, "how long delivered segments stay; not at all where it is not given"),
    Option("exit_timeout", "duration", 5.0, "how long delivery goes on at interpreter exit"),
    Option("allow_volatile", "bool", False, "let durability=disk stand on tmpfs and the like"),
    Option("allow_network", "bool", False, "let the journal stand on a network file system"),
    Option("adopt", "bool", True, "deliver what dead processes left in the journal"),
    Option("mode", "any", 0o600, "permissions of the journal's files, octal; directories follow"),
    Option("group", "any", None, "group that owns the journal's files, for a sidecar of another user"),
    Option("processors", "any", (), "objects with on_emit(record) that add attributes"),
    Option("clock", "any", None, "an object with time_ns()"),
)
"""Every option of ``configure()``, ``AuditHandler(…)``, the environment and the file."""

DESTINATION_OPTIONS: Final = (
    Option("type", "str", None, "otlp, http or file"),
    Option("required", "bool", True, "records are kept until it has them; 'delivered' waits for it"),
    Option("start", "enum", "earliest", "what a new destination gets of what is there already", choices=("earliest", "now")),
    Option("delay", "duration", 0.2, "how long records are gathered where there is no backlog"),
    Option("batch_records", "int", RECORDS_MAX, "most records in a batch"),
    Option("batch_bytes", "size", BYTES_MAX, "most bytes of canonical form in a batch"),
    Option("timeout", "duration", 10.0, "how long one export may take"),
)
"""The options that every destination has, beside those of its type."""


class ProviderOptions(TypedDict, total=False):
    """Keywords of ``configure()`` and of an ``AuditHandler`` with a provider of its own; see :data:`OPTIONS`."""

    journal: str | os.PathLike[str]
    destinations: Mapping[str, str | Mapping[str, Any] | AuditRecordExporter] | str
    service_name: str
    resource_attributes: Mapping[str, Any]
    durability: Durability
    strict: bool
    event_name: str
    max_record_bytes: int | str
    max_bytes: int | str
    segment_bytes: int | str
    full_timeout: float | str
    retention: float | str | None
    exit_timeout: float | str
    allow_volatile: bool
    allow_network: bool
    adopt: bool
    mode: int | str
    group: int | str
    processors: Sequence[AuditRecordProcessor]
    clock: Clock
    config_file: str | os.PathLike[str]


def build_provider(**options: Any) -> AuditProvider:
    """A provider from options, environment and file.

    Raises:
        ConfigurationError: an option is unknown or has a bad value; the message names it and the nearest right one.
        UnsafeJournalError: the journal's directory cannot be used.
    """
    return AuditProvider(load_settings(options))


def load_settings(options: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> ProviderSettings:
    """Settings from the three sources.

    Args:
        options: keyword arguments; ``None`` counts as not given.
        environ: instead of the process's environment.

    Raises:
        ConfigurationError: see :func:`build_provider`.
    """
    environ = os.environ if environ is None else environ
    given = {key: value for key, value in options.items() if value is not None}
    file = given.pop("config_file", None) or environ.get(CONFIG_VARIABLE)
    merged = {option.name: option.default for option in OPTIONS}
    if file:
        merged |= read_given(OPTIONS, str(file), _from_file(Path(file)))
    merged |= _from_environment(environ)
    merged |= read_given(OPTIONS, "configure()", given)
    return _settings(merged, environ)


def _settings(values: dict[str, Any], environ: Mapping[str, str]) -> ProviderSettings:
    if not is_event_name(values["event_name"]):
        raise ConfigurationError(f"event_name: {values['event_name']!r} must be dotted, lower-case ASCII")
    service = values["service_name"] or environ.get("OTEL_SERVICE_NAME") or None
    return ProviderSettings(
        journal=_absolute(values["journal"] or _default_journal(service, environ)),
        destinations=tuple(_destinations(values["destinations"], environ)),
        service_name=values["service_name"],
        resource_attributes=_mapping("resource_attributes", values["resource_attributes"]),
        durability=values["durability"],
        strict=values["strict"],
        default_event_name=values["event_name"],
        size_bytes_max=_at_least("max_record_bytes", values["max_record_bytes"], 4096),
        max_bytes=_at_least("max_bytes", values["max_bytes"], 1024 * 1024),
        segment_bytes=_at_least("segment_bytes", values["segment_bytes"], 4096),
        full_timeout_s=values["full_timeout"],
        retention_s=values["retention"],
        exit_timeout_s=values["exit_timeout"],
        allow_volatile=values["allow_volatile"],
        allow_network=values["allow_network"],
        adopt=values["adopt"],
        mode=_mode(values["mode"]),
        group=_group(values["group"]),
        processors=tuple(_with_method("processors", p, "on_emit") for p in values["processors"]),
        clock=_with_method("clock", values["clock"], "time_ns") if values["clock"] is not None else None,
    )


# -- sources ----------------------------------------------------------------------------------------------


def read_given(options: Iterable[Option], where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are given, parsed; without the defaults of the others.

    Raises:
        ConfigurationError: an unknown key or a bad value.
    """
    given = {key: value for key, value in values.items() if value is not None}
    return {key: value for key, value in read_options(options, where, given).items() if key in given}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    """Values of ``OTEL_AUDIT_<OPTION>``.  A variable that looks like a misspelt one is an error, others are left alone."""
    found: dict[str, Any] = {}
    names = {PREFIX + option.name.upper(): option for option in OPTIONS if option.name not in ("processors", "clock")}
    for variable, value in environ.items():
        if variable in names:
            if value != "":
                option = names[variable]
                found[option.name] = read_value(option, variable, value)
        elif variable.startswith(PREFIX) and variable != CONFIG_VARIABLE:
            near = difflib.get_close_matches(variable, [*names, CONFIG_VARIABLE], n=1, cutoff=0.88)
            if near:
                raise ConfigurationError(f"environment: unknown variable {variable}; did you mean {near[0]}?")
    return found


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"config_file: cannot read {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"config_file: {path} is not TOML: {error}") from error


# -- destinations -------------------------------------------------------------------------------------------


def _destinations(value: Any, environ: Mapping[str, str]) -> list[Destination]:
    if isinstance(value, str):
        value = _destinations_from_text(value)
    if not isinstance(value, Mapping):
        raise ConfigurationError("destinations: must be a mapping of names to destinations, like {'collector': 'otlp'}")
    return [make_destination(check_destination_name(name), spec, environ) for name, spec in value.items()]


def _destinations_from_text(text: str) -> dict[str, str]:
    """``name=spec`` pairs separated by commas, as in ``OTEL_AUDIT_DESTINATIONS``; ``none`` journals only."""
    if text.strip().lower() == "none":
        return {}
    pairs: dict[str, str] = {}
    for item in text.split(","):
        name, separator, spec = item.strip().partition("=")
        if not separator or not spec:
            raise ConfigurationError(
                f"destinations: {item.strip()!r} must be NAME=SPEC, like collector=otlp,archive=https://audit.example.com"
            )
        pairs[name] = spec
    return pairs


def make_destination(name: str, spec: Any, environ: Mapping[str, str]) -> Destination:
    """A destination from a string, a mapping or an exporter.

    Raises:
        ConfigurationError: it is none of them, or an option is unknown or has a bad value.
    """
    where = f"destinations.{name}"
    if isinstance(spec, str):
        spec = _spec_from_text(where, spec)
    if isinstance(spec, Mapping):
        common = {option.name for option in DESTINATION_OPTIONS}
        values = read_given(DESTINATION_OPTIONS, where, {k: v for k, v in spec.items() if k in common})
        kind = values.get("type")
        if not kind:
            raise ConfigurationError(f"{where}: give its type, like {{'type': 'otlp'}}")
        cls = exporter_class(kind)
        own = {key: value for key, value in spec.items() if key not in common}
        cls.from_options(own, environ)  # wrong options are an error now, not at the first export
        make = _Maker(cls, own, dict(environ))
    elif hasattr(spec, "export") and hasattr(spec, "close"):
        values, make = {}, lambda: spec
    else:
        raise ConfigurationError(
            f"{where}: must be a string ('otlp', 'file:PATH', 'https://…'), a mapping with a type, or an exporter; "
            f"not {type(spec).__name__}"
        )
    merged = {option.name: option.default for option in DESTINATION_OPTIONS} | values
    return Destination(
        name=name,
        make_exporter=make,
        required=merged["required"],
        from_now=merged["start"] == "now",
        delay_s=merged["delay"],
        records_max=_at_least(f"{where}.batch_records", merged["batch_records"], 1),
        bytes_max=_at_least(f"{where}.batch_bytes", merged["batch_bytes"], 1),
        timeout_s=merged["timeout"],
    )


class _Maker:
    """Makes an exporter in the process that uses it."""

    def __init__(self, cls: Any, options: dict[str, Any], environ: dict[str, str]) -> None:
        self._cls = cls
        self._options = options
        self._environ = environ

    def __call__(self) -> AuditRecordExporter:
        exporter: AuditRecordExporter = self._cls.from_options(self._options, self._environ)
        return exporter

    def __repr__(self) -> str:
        return f"<makes {self._cls.__name__}>"


def _spec_from_text(where: str, text: str) -> dict[str, Any]:
    scheme, separator, rest = text.partition(":")
    if text == "otlp":
        return {"type": "otlp"}
    if scheme in ("http", "https") and rest.startswith("//"):
        return {"type": "http", "url": text}
    if scheme == "file" and separator and rest:
        return {"type": "file", "path": rest}
    raise ConfigurationError(
        f"{where}: {text!r} is none of 'otlp', 'file:PATH', 'http://…', 'https://…'"
        + (" (to send OTLP to an address: {'type': 'otlp', 'endpoint': …})" if "otlp" in text else "")
    )


# -- single values --------------------------------------------------------------------------------------------


def _at_least(name: str, value: int, least: int) -> int:
    if value < least:
        raise ConfigurationError(f"{name}: must be at least {least}, not {value}")
    return value


def _absolute(path: Any) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow links


def _default_journal(service: str | None, environ: Mapping[str, str]) -> Path:
    """``$XDG_STATE_HOME/otel-audit/<service>``; the XDG base directory specification has the default."""
    state = environ.get("XDG_STATE_HOME") or "~/.local/state"
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", service or "unknown_service").strip(".") or "unknown_service"
    return Path(state) / "otel-audit" / slug


def _mode(value: Any) -> int:
    try:
        mode = value if isinstance(value, int) else int(value, 8)
    except (TypeError, ValueError):
        mode = -1
    if mode & ~0o666 or mode & 0o600 != 0o600:
        raise ConfigurationError(
            f"mode: {value!r} must be octal permissions of files with 6 for the owner, like 0o600 or '0640'"
        )
    return mode


def _group(value: Any) -> int | None:
    if value is None or (isinstance(value, int) and value >= 0):
        return value
    if isinstance(value, str) and value.isdigit():
        return int(value)
    try:
        return grp.getgrnam(value).gr_gid
    except (KeyError, TypeError):
        raise ConfigurationError(f"group: there is no group {value!r} on this machine") from None


def _mapping(name: str, value: Any) -> dict[str, Any]:
    """A mapping, or ``key=value,key=value`` as ``OTEL_RESOURCE_ATTRIBUTES`` has it."""
    if isinstance(value, str):
        return dict(read_value(Option(name, "map"), name, value))
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{name}: must be a mapping of names to values, not {type(value).__name__}")
    return dict(value)


def _with_method(name: str, value: Any, method: str) -> Any:
    if not callable(getattr(value, method, None)):
        raise ConfigurationError(f"{name}: {type(value).__name__} has no method {method}()")
    return value
