"""From keywords, environment and file to a provider: one table of options, one way to read them.

Order, the first wins: keyword arguments, ``OTEL_AUDIT_<OPTION>`` variables, the TOML file that ``config_file`` or
``OTEL_AUDIT_CONFIG`` names.  ``OTEL_EXPORTER_OTLP_*`` is read by the OTLP exporter, ``OTEL_SERVICE_NAME`` and
``OTEL_RESOURCE_ATTRIBUTES`` by the OpenTelemetry SDK.  ``OTEL_SDK_DISABLED`` does not switch auditing off.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypedDict

from .destinations import DESTINATION_OPTIONS, at_least, make_destination, make_destinations, read_given
from .durability import DURABILITIES, Durability
from .errors import ConfigurationError, describe
from .options import Option, read_value
from .own_log import own_log
from .protocols import AuditRecordExporter, AuditRecordProcessor, Clock
from .provider import AuditProvider, ProviderSettings
from .rules import SIZE_BYTES_MAX, is_event_name
from .semconv import EVENT_DEFAULT, SERVICE_NAME

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "DESTINATION_OPTIONS",
    "OPTIONS",
    "ProviderOptions",
    "build_provider",
    "load_settings",
    "make_destination",
]

PREFIX: Final = "OTEL_AUDIT_"
CONFIG_VARIABLE: Final = "OTEL_AUDIT_CONFIG"
DEFAULT_DESTINATIONS: Final = {"collector": "otlp"}
_ONLY_OBJECTS: Final = ("processors", "clock")

OPTIONS: Final = (
    Option("journal", "path", None, "directory of the journal; the XDG state directory of the service"),
    Option("destinations", "any", DEFAULT_DESTINATIONS, "name → where to; {} journals only"),
    Option("service_name", "str", None, "service.name of the resource; else OTEL_SERVICE_NAME"),
    Option("resource_attributes", "any", {}, "further resource attributes"),
    Option("durability", "enum", "process", "what emit waits for: process, disk or delivered", choices=DURABILITIES),
    Option("strict", "bool", False, "captures raise for incomplete records, and everything over the size limit raises"),
    Option("event_name", "str", EVENT_DEFAULT, "event name of captured messages that name none"),
    Option(
        "max_record_bytes", "size", SIZE_BYTES_MAX, "largest canonical form of a record; what is over is cut, marked"
    ),
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


_log: Final = own_log("settings")
_said: Final = {PREFIX + "CACHE", PREFIX + "REQUIRE"}
"""Variables that nothing more is said of; at first those of this project's own scripts and tests."""


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


def build_provider(where: str = "configure()", /, **options: Any) -> AuditProvider:
    """A provider from options, environment and file.

    Args:
        where: what error messages call the place that the options were given in.
        **options: see :data:`OPTIONS`.

    Raises:
        ConfigurationError: an option is unknown or has a bad value; the message names it and the nearest right one.
        UnsafeJournalError: the journal's directory cannot be used.
    """
    return AuditProvider(load_settings(options, where=where))


def load_settings(
    options: Mapping[str, Any], environ: Mapping[str, str] | None = None, *, where: str = "configure()"
) -> ProviderSettings:
    """Settings from the three sources.

    Args:
        options: keyword arguments; ``None`` counts as not given.
        environ: instead of the process's environment.
        where: see :func:`build_provider`.

    Raises:
        ConfigurationError: see :func:`build_provider`.
    """
    environ = os.environ if environ is None else environ
    given = {key: value for key, value in options.items() if value is not None}
    given = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in given.items()}
    file = given.pop("config_file", None) or environ.get(CONFIG_VARIABLE)
    values = _Values()
    if file:
        values.take(str(file), _from_file(Path(file)))
    values.take_environment(environ)
    values.take(where, given)
    return _settings(values, environ)


class _Values:
    """The value of each option, and the name by which an error calls it."""

    def __init__(self) -> None:
        self.by_name: dict[str, Any] = {option.name: option.default for option in OPTIONS}
        self.where: dict[str, str] = {option.name: option.name for option in OPTIONS}

    def __getitem__(self, name: str) -> Any:
        return self.by_name[name]

    def take(self, where: str, values: Mapping[str, Any]) -> None:
        """Values that win over those that were there before.

        Raises:
            ConfigurationError: an unknown key or a bad value.
        """
        for name, value in read_given(OPTIONS, where, values).items():
            self.by_name[name] = value
            self.where[name] = f"{where}.{name}"

    def take_environment(self, environ: Mapping[str, str]) -> None:
        """The same from ``OTEL_AUDIT_<OPTION>``; an empty one counts as absent.

        A variable that looks like a misspelt one is an error; of others, which may be somebody else's, it is said once
        that they are not read.
        """
        names = _variables()
        for variable, value in environ.items():
            option = names.get(variable)
            if option is not None:
                if value.strip():
                    self.by_name[option.name] = read_value(option, variable, value)
                    self.where[option.name] = variable
            elif variable.startswith(PREFIX) and variable != CONFIG_VARIABLE:
                near = difflib.get_close_matches(variable, [*names, CONFIG_VARIABLE], n=1, cutoff=0.88)
                if near:
                    raise ConfigurationError(f"environment: unknown variable {variable}; did you mean {near[0]}?")
                if variable not in _said:
                    _said.add(variable)
                    _log.warning(
                        "environment: %s is no option of otel-audit and is not read, unless your configuration names "
                        "it; the options are in docs/configuration.md",
                        variable,
                    )

    def is_given(self, name: str) -> bool:
        """Whether anybody said anything about an option."""
        return self.where[name] != name

    def at_least(self, name: str, least: int) -> int:
        """The value of an option, if it is not too small."""
        return at_least(self.where[name], self[name], least)

    def with_method(self, name: str, value: Any, method: str) -> Any:
        """An object that was given for an option, if it has the method."""
        if isinstance(value, type) or not callable(getattr(value, method, None)):
            raise ConfigurationError(f"{self.where[name]}: {describe(value)} is no object with a method {method}()")
        return value


def _settings(values: _Values, environ: Mapping[str, str]) -> ProviderSettings:
    where = values.where
    if not is_event_name(values["event_name"]):
        raise ConfigurationError(f"{where['event_name']}: {values['event_name']!r} must be dotted, lower-case ASCII")
    attributes = _mapping(where["resource_attributes"], values["resource_attributes"])
    service = values["service_name"] or None
    processors = values["processors"]
    if isinstance(processors, str) or not isinstance(processors, Iterable):
        processors = [processors]
    max_bytes = values.at_least("max_bytes", 1024 * 1024)
    whose = service or _service(attributes, environ)
    return ProviderSettings(
        journal=_absolute(where["journal"], values["journal"] or _default_journal(whose, environ)),
        journal_assumed=not values["journal"] and not whose,
        destinations=tuple(make_destinations(where["destinations"], values["destinations"], environ)),
        destinations_assumed=not values.is_given("destinations"),
        service_name=service,
        resource_attributes=attributes,
        durability=values["durability"],
        strict=values["strict"],
        default_event_name=values["event_name"],
        size_bytes_max=values.at_least("max_record_bytes", 4096),
        max_bytes=max_bytes,
        segment_bytes=_segment_bytes(values, max_bytes),
        full_timeout_s=values["full_timeout"],
        retention_s=values["retention"],
        exit_timeout_s=values["exit_timeout"],
        allow_volatile=values["allow_volatile"],
        allow_network=values["allow_network"],
        adopt=values["adopt"],
        mode=_mode(where["mode"], values["mode"]),
        group=_group(where["group"], values["group"]),
        processors=tuple(values.with_method("processors", each, "on_emit") for each in processors),
        clock=values.with_method("clock", values["clock"], "time_ns") if values["clock"] is not None else None,
    )


def _from_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            found: dict[str, Any] = tomllib.load(file)
    except OSError as error:
        raise ConfigurationError(f"config_file: cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"config_file: {path} is not TOML: {error}") from error
    return found


def _variables() -> dict[str, Option]:
    return {PREFIX + option.name.upper(): option for option in OPTIONS if option.name not in _ONLY_OBJECTS}


def known_variables() -> frozenset[str]:
    """Names of all environment variables of ours that are read."""
    return frozenset({*_variables(), CONFIG_VARIABLE})


# -- single values --------------------------------------------------------------------------------------------


def _segment_bytes(values: _Values, max_bytes: int) -> int:
    """A segment can only be removed as a whole, so several have to fit into the journal."""
    segment_bytes = values.at_least("segment_bytes", 4096)
    if segment_bytes <= max_bytes // 4:
        return segment_bytes
    if values.where["segment_bytes"] == "segment_bytes":  # not given
        return max_bytes // 4
    raise ConfigurationError(
        f"{values.where['segment_bytes']}: must be at most a quarter of max_bytes ({max_bytes}), not {segment_bytes}"
    )


def _absolute(where: str, path: Any) -> Path:
    try:
        return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100 - resolve() would follow links
    except RuntimeError:
        raise ConfigurationError(f"{where}: there is no home directory; give an absolute path") from None


def _service(attributes: Mapping[str, Any], environ: Mapping[str, str]) -> str | None:
    """The service's name where it is not given by its own option, as the OpenTelemetry SDK finds it."""
    if attributes.get(SERVICE_NAME):
        return str(attributes[SERVICE_NAME])
    if environ.get("OTEL_SERVICE_NAME"):
        return environ["OTEL_SERVICE_NAME"]
    pairs = (item.partition("=") for item in environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","))
    found = [value.strip() for key, _, value in pairs if key.strip() == SERVICE_NAME]
    return found[-1] if found else None


def _default_journal(service: str | None, environ: Mapping[str, str]) -> Path:
    """``$XDG_STATE_HOME/otel-audit/<service>``; the XDG base directory specification has the default."""
    state = environ.get("XDG_STATE_HOME", "")
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", service or "unknown_service").strip(".") or "unknown_service"
    return Path(state if Path(state).is_absolute() else "~/.local/state") / "otel-audit" / slug


def _mode(where: str, value: Any) -> int:
    try:
        mode = value if isinstance(value, int) else int(value, 8)
    except (TypeError, ValueError):
        mode = -1
    if mode & ~0o666 or mode & 0o600 != 0o600:
        raise ConfigurationError(
            f"{where}: {value!r} must be octal permissions of files with 6 for the owner, like 0o600 or '0640'"
        )
    return mode


def _group(where: str, value: Any) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
        return value
    if isinstance(value, str) and value.isdigit():
        return int(value)
    import grp  # noqa: PLC0415 - not on every platform

    try:
        return grp.getgrnam(value).gr_gid
    except (KeyError, TypeError):
        raise ConfigurationError(f"{where}: there is no group {value!r} on this machine") from None


def _mapping(where: str, value: Any) -> dict[str, Any]:
    """A mapping, or ``key=value,key=value`` as ``OTEL_RESOURCE_ATTRIBUTES`` has it."""
    if isinstance(value, str):
        found: dict[str, Any] = read_value(Option("resource_attributes", "map"), where, value)
        return found
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where}: must be a mapping of names to values, not {describe(value)}")
    return dict(value)
