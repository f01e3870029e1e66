"""Destinations as people write them: a string, a mapping or an exporter object."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from .delivery.destination import BYTES_MAX, RECORDS_MAX, Destination
from .delivery.selection import RecordFilter, make_filter
from .errors import ConfigurationError, describe
from .exporters import PRESETS, ConfigurableExporter, exporter_class
from .journal.layout import check_destination_name
from .options import Option, paths_from, read_options, suggestion, working_directory
from .protocols import AuditRecordExporter

SIDECAR: Final = "sidecar"
"""Type of a destination that another process serves: the records are journaled and kept for it, and nothing else."""

DESTINATION_OPTIONS: Final = (
    Option("type", "str", None, "otlp, http, file or a preset; or sidecar: another process serves it"),
    Option("required", "bool", True, "records are kept until it has them; 'delivered' waits for it"),
    Option(
        "start", "enum", "earliest", "what a new destination gets of what is there already", choices=("earliest", "now")
    ),
    Option("delay", "duration", 1.0, "how long records are gathered where there is no backlog"),
    Option("batch_records", "int", RECORDS_MAX, "most records in a batch"),
    Option("batch_bytes", "size", BYTES_MAX, "most bytes of canonical form in a batch"),
    Option("timeout", "duration", 10.0, "how long one export may take"),
    Option("records_per_s", "float", None, "most records that one process sends in a second", minimum=0.001),
    Option("requests_per_s", "float", None, "most requests that one process sends in a second", minimum=0.001),
    Option("filter", "any", None, "which records it is to have; all where it is not given"),
    Option("allow_filtered", "bool", False, "let a required destination have a filter, and so miss records"),
)  # fmt: skip
"""The options that every destination has, beside those of its type."""


def make_destinations(where: str, value: Any, environ: Mapping[str, str]) -> list[Destination]:
    """The destinations that a mapping of names describes, or text as in ``OTEL_AUDIT_DESTINATIONS``.

    Raises:
        ConfigurationError: one of them is wrong.
    """
    if isinstance(value, str):
        value = _destinations_from_text(where, value)
    if not isinstance(value, Mapping):
        raise ConfigurationError(f"{where}: must be a mapping of names to destinations, like {{'collector': 'otlp'}}")
    made = [
        make_destination(check_destination_name(name), spec, environ, where=f"{where}.{name}")
        for name, spec in value.items()
    ]
    files: dict[str, str] = {}
    for each in made:
        path = each.make_exporter.path if isinstance(each.make_exporter, _Maker) else None
        if path is not None and (other := files.setdefault(os.path.realpath(path), each.name)) != each.name:
            raise ConfigurationError(
                f"{where}.{each.name}: {other!r} writes to the same file ({path}), where each record would stand twice;"
                " give it another path"
            )
    return made


def _destinations_from_text(where: str, text: str) -> dict[str, str]:
    """``name=spec`` pairs separated by commas, as in ``OTEL_AUDIT_DESTINATIONS``; ``none`` journals only."""
    if text.strip().lower() == "none":
        return {}
    pairs: dict[str, str] = {}
    for number, item in enumerate(text.split(","), start=1):
        name, separator, spec = (part.strip() for part in item.partition("="))
        if not separator or not spec:
            raise ConfigurationError(
                f"{where}: item {number} must be NAME=SPEC, like collector=otlp,archive=https://audit.example.com"
            )
        if name in pairs:
            raise ConfigurationError(f"{where}: {name!r} is there twice")
        pairs[name] = spec
    return pairs


def make_destination(name: str, spec: Any, environ: Mapping[str, str], *, where: str | None = None) -> Destination:
    """A destination from a string, a mapping or an exporter.

    Args:
        name: keys the cursor.
        spec: the string, mapping or exporter.
        environ: what exporters read their credentials and defaults from.
        where: what error messages call it.

    Raises:
        ConfigurationError: it is none of them, or an option is unknown or has a bad value.
    """
    where = where or f"destinations.{name}"
    if isinstance(spec, str):
        spec = _spec_from_text(where, spec)
    if not isinstance(spec, Mapping):
        spec = {"type": spec}
    kind = spec.get("type")
    if not kind:
        raise ConfigurationError(f"{where}: give its type, like {{'type': 'otlp'}}")
    make: Callable[[], AuditRecordExporter]
    if isinstance(kind, str):
        common = {option.name for option in DESTINATION_OPTIONS}
        own = {key: value for key, value in spec.items() if key not in common}
        make = _made_elsewhere(where, own) if kind == SIDECAR else _make_by_type(where, kind, own, environ)
        values = read_given(DESTINATION_OPTIONS, where, {key: spec[key] for key in spec if key in common})
    else:
        make = _make_by_object(where, kind)
        values = read_given(DESTINATION_OPTIONS, where, {key: spec[key] for key in spec if key != "type"})
    merged = {option.name: option.default for option in DESTINATION_OPTIONS} | values
    if merged["timeout"] <= 0:
        raise ConfigurationError(f"{where}.timeout: must be more than 0")
    return Destination(
        name=name,
        make_exporter=make,
        required=merged["required"],
        from_now=merged["start"] == "now",
        delay_s=merged["delay"],
        records_max=at_least(f"{where}.batch_records", merged["batch_records"], 1),
        bytes_max=at_least(f"{where}.batch_bytes", merged["batch_bytes"], 1),
        timeout_s=merged["timeout"],
        records_per_s=merged["records_per_s"],
        requests_per_s=merged["requests_per_s"],
        filter=_filter(where, merged),
        elsewhere=kind == SIDECAR,
    )


def _filter(where: str, options: Mapping[str, Any]) -> RecordFilter | None:
    """The destination's filter.

    Raises:
        ConfigurationError: it is wrong, or the destination is required and nobody said that it may miss records.
    """
    if options["filter"] is None:
        return None
    made = make_filter(f"{where}.filter", options["filter"])
    if options["required"] and not options["allow_filtered"]:
        raise ConfigurationError(
            f"{where}.filter: the destination is required, and what its filter passes over would never get there. "
            "Say 'allow_filtered': True if that is meant, or 'required': False"
        )
    return made


def _make_by_type(where: str, kind: str, own: dict[str, Any], environ: Mapping[str, str]) -> _Maker:
    """Makes exporters of a type that is known by name; wrong options are an error now, not at the first export."""
    try:
        cls = exporter_class(kind)
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}.type: {error}") from None
    known = [*(option.name for option in cls.OPTIONS), *(option.name for option in DESTINATION_OPTIONS)]
    for key in own:
        if key not in known:
            raise ConfigurationError(f"{where}: there is no option {key!r}; {suggestion(key, known)}")
    path = getattr(cls.from_options(own, environ, where=where), "path", None)
    return _Maker(cls, own, dict(environ), where, path if isinstance(path, Path) else None)


def _made_elsewhere(where: str, own: Mapping[str, Any]) -> Callable[[], AuditRecordExporter]:
    """For a destination that a sidecar serves: where it goes is the sidecar's to know."""
    for key in own:
        raise ConfigurationError(
            f"{where}: a destination of type 'sidecar' has no option {key!r}: where it goes is said to "
            "`otel-audit ship --for-living`"
        )

    def make() -> AuditRecordExporter:
        raise ConfigurationError(f"{where}: is served by a sidecar, not here")

    return make


def _make_by_object(where: str, exporter: Any) -> Callable[[], AuditRecordExporter]:
    """Gives the exporter that the user made."""
    missing = [name for name in ("export", "close", "single_writer") if not hasattr(exporter, name)]
    if isinstance(exporter, type) or "export" in missing or "close" in missing:
        raise ConfigurationError(
            f"{where}: must be a string ('otlp', 'file:PATH', 'https://…'), a mapping with a type, or an exporter "
            f"object; not {describe(exporter)}"
        )
    if missing:
        raise ConfigurationError(
            f"{where}: {describe(exporter)} has no attribute single_writer; set it to False or True"
        )
    return lambda: cast("AuditRecordExporter", exporter)


class _Maker:
    """Makes an exporter in the process that uses it, of the same files wherever that has gone meanwhile.

    Attributes:
        path: the file that they write to; ``None``: they write to none.
    """

    def __init__(
        self,
        cls: type[ConfigurableExporter],
        options: dict[str, Any],
        environ: dict[str, str],
        where: str,
        path: Path | None,
    ) -> None:
        self.path = path
        self._cls = cls
        self._options = options
        self._environ = environ
        self._where = where
        self._directory = working_directory()

    def __call__(self) -> AuditRecordExporter:
        with paths_from(self._directory):
            return self._cls.from_options(self._options, self._environ, where=self._where)

    def __repr__(self) -> str:
        return f"<makes {getattr(self._cls, '__name__', self._cls)}>"


def _spec_from_text(where: str, text: str) -> dict[str, Any]:
    scheme, separator, rest = text.partition(":")
    if text in ("otlp", SIDECAR):
        return {"type": text}
    if scheme in ("http", "https") and rest.startswith("//"):
        return {"type": "http", "url": text}
    if scheme == "file" and separator and rest:
        return {"type": "file", "path": rest}
    if scheme == "file" and separator:
        raise ConfigurationError(f"{where}: the path is missing; 'file:PATH', like file:/var/log/audit.jsonl")
    if scheme in PRESETS and rest.startswith(("http://", "https://")):
        return {"type": scheme, "url": rest}
    if rest.startswith(("http://", "https://")) and re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", scheme):
        raise ConfigurationError(f"{where}: there is no preset {scheme!r}; {suggestion(scheme, PRESETS)}")
    shown = repr(text) if re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", text) else describe(text)  # no credentials
    raise ConfigurationError(
        f"{where}: {shown} is none of 'otlp', 'sidecar', 'file:PATH', 'http://…', 'https://…', 'PRESET:https://…'"
        + (" (to send OTLP to an address: {'type': 'otlp', 'endpoint': …})" if "otlp" in text else "")
        + (" (an address begins with http:// or https://)" if re.fullmatch(r"[\w.-]+:\d+(/.*)?", text) else "")
    )


def at_least(where: str, value: int, least: int) -> int:
    """The value, if it is not too small.

    Raises:
        ConfigurationError: it is.
    """
    if value < least:
        raise ConfigurationError(f"{where}: must be at least {least}, not {value}")
    return value


def read_given(options: Iterable[Option], where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are given, parsed; without the defaults of the others.

    Raises:
        ConfigurationError: an unknown key or a bad value.
    """
    given = {key: value for key, value in values.items() if value is not None}
    return {key: value for key, value in read_options(options, where, given).items() if key in given}
