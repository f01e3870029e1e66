"""Options that people write: one table per thing that has options, and one way to read values by it.

Values come from Python, from TOML or ``dictConfig`` and from the environment; a string is parsed to the kind that the
table says.  A mistake is a :class:`~otel_audit.errors.ConfigurationError` that says where, which key, what was given
(never a secret) and what was expected, and suggests the nearest key or word.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

from .errors import ConfigurationError, describe

Kind: TypeAlias = Literal[
    "str", "int", "float", "bool", "duration", "size", "list", "map", "url", "path", "enum", "any"
]  # fmt: skip
"""What an option holds.  ``duration``: seconds, or ``"5s"``, ``"200ms"``, ``"1h"``; ``size``: bytes, or ``"4MiB"``;
``path``: absolute when it was read, a relative one begins at the working directory of that time;
``list`` of strings, or ``"a,b"``; ``map`` of strings, or ``"a=1,b=2"`` with percent-encoding; ``url``: http or https,
without credentials; ``enum``: one of ``choices``; ``any``: whatever is given, as it is."""


_directory: Final[ContextVar[Path | None]] = ContextVar("otel_audit_options_directory", default=None)


def working_directory() -> Path | None:
    """The directory that relative paths begin at now; ``None`` where it has been removed."""
    try:
        return Path.cwd()
    except OSError:
        return None


@contextlib.contextmanager
def paths_from(directory: Path | None) -> Iterator[None]:
    """Relative paths that are read meanwhile begin at this directory, wherever the process has gone since.

    Args:
        directory: absolute; ``None``: the present one.
    """
    token = _directory.set(directory)
    try:
        yield
    finally:
        _directory.reset(token)


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required()
"""The default of an option that has none."""


@dataclass(frozen=True)
class Option:
    """One row of a table of options.

    Attributes:
        name: the key.
        kind: what it holds.
        default: as it is used, not as it is written; :data:`REQUIRED` where it has to be given.
        doc: what it does, for people.
        choices: the words of an ``enum``.
        minimum: the smallest number, duration or size.
        secret: never show the value.  Values of a ``map`` are never shown.
    """

    name: str
    kind: Kind
    default: Any = REQUIRED
    doc: str = ""
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    secret: bool = False


def read_options(options: Iterable[Option], where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of the table by name: parsed where it is given, its default where it is absent or ``None``.

    Args:
        options: the table.
        where: what error messages call the mapping: ``"destinations.collector"``.
        values: what was written.

    Raises:
        ConfigurationError: an unknown key, a required one that is missing, or a value that is not of its kind.
    """
    table = {option.name: option for option in options}
    for key in values:
        if key not in table:
            raise ConfigurationError(f"{where}: there is no option {key!r}; {suggestion(key, table)}")
    read: dict[str, Any] = {}
    for name, option in table.items():
        value = values.get(name)
        if value is not None:
            read[name] = read_value(option, f"{where}.{name}", value)
        elif option.default is REQUIRED:
            raise ConfigurationError(f"{where}.{name}: has to be given; {option.doc or option.kind}")
        else:
            read[name] = option.default
    return read


def read_value(option: Option, where: str, value: Any) -> Any:
    """One value, parsed to its kind.

    Args:
        option: its row.
        where: what error messages call it: a key, or the name of an environment variable.
        value: what was written.

    Raises:
        ConfigurationError: it is not of its kind.
    """
    try:
        parsed = _PARSERS[option.kind](option, value)
    except ValueError as error:
        reason = str(error)
    else:
        if option.minimum is None or parsed >= option.minimum:
            return parsed
        reason = f"at least {option.minimum:g}"
    raise ConfigurationError(f"{where}: expected {reason}, got {_shown(option, value)}")


def suggestion(word: object, known: Iterable[str]) -> str:
    """``did you mean 'endpoint'?`` where a known word is near, all of them where none is."""
    import difflib  # noqa: PLC0415 - only for a mistake

    words = list(known)
    near = difflib.get_close_matches(str(word), words, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return "there are: " + ", ".join(words) if words else "there are none"


def _shown(option: Option, value: Any) -> str:
    if option.secret or not isinstance(value, (str, int, float)) or option.kind == "map":
        return describe(value)
    if option.kind == "url":
        return repr(_without_credentials(str(value)))
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}… ({describe(value)})"


def _without_credentials(url: str) -> str:
    """A URL that may be shown: without what stands before ``@`` and without the query."""
    return re.sub(r"^([^/]*//)?[^/@]*@", r"\1…@", url.partition("?")[0])


# -- one parser per kind; the message of its ValueError says what was expected ------------------------------------


def _string(_: Option, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a string")
    return value


def _integer(_: Option, value: Any) -> int:
    if isinstance(value, str):
        try:
            return int(value.strip())
        except ValueError:
            pass
    elif isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("an integer")


def _float(_: Option, value: Any) -> float:
    number = _number(value)
    if number is None:
        raise ValueError("a number")
    return number


def _number(value: Any) -> float | None:
    """A finite number, written as one or as text; else ``None``."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


_TRUTH: Final = {
    "true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False,
}  # fmt: skip


def _bool(_: Option, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    truth = _TRUTH.get(value.strip().lower()) if isinstance(value, str) else None
    if truth is None:
        raise ValueError("true or false")
    return truth


_DURATION: Final = re.compile(r"\s*([0-9.]+)\s*([a-zµ]*)\s*")
_SECONDS: Final = {
    "": 1.0, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0,
}  # fmt: skip


def _duration(_: Option, value: Any) -> float:
    seconds = _scaled(value, _DURATION, _SECONDS)
    if seconds is None:
        raise ValueError("a duration: seconds, or a number with us, ms, s, m, h or d ('200ms')")
    return seconds


_SIZE: Final = re.compile(r"\s*([0-9.]+)\s*([a-z]*)\s*", re.IGNORECASE)
_BYTES: Final = {"": 1.0, "b": 1.0} | {
    f"{letter}{suffix}": float(base**power)
    for power, letter in enumerate("kmgt", 1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}


def _size(_: Option, value: Any) -> int:
    size = _scaled(value.lower() if isinstance(value, str) else value, _SIZE, _BYTES)
    if size is None or size != int(size):
        raise ValueError("a size: whole bytes, or a number with kB, KiB, MB, MiB, GB, GiB, TB or TiB ('4MiB')")
    return int(size)


def _scaled(value: Any, pattern: re.Pattern[str], units: Mapping[str, float]) -> float | None:
    """A number that is not negative, times its unit; ``None`` where it is not one."""
    unit = 1.0
    if isinstance(value, str):
        match = pattern.fullmatch(value)
        if match is None or match[2] not in units:
            return None
        value, unit = match[1], units[match[2]]
    number = _number(value)
    return None if number is None or number < 0 else number * unit


def _list(_: Option, value: Any) -> list[str]:
    if isinstance(value, str):
        return [item.strip() for item in value.split(",") if item.strip()]
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        items = list(value)
        if all(isinstance(item, str) for item in items):
            return items
    raise ValueError("a list of strings")


def _map(_: Option, value: Any) -> dict[str, str]:
    if isinstance(value, str):
        from urllib.parse import unquote  # noqa: PLC0415 - costs milliseconds, and is rarely needed

        pairs = [item.partition("=") for item in value.split(",") if item.strip()]
        if all(equals and key.strip() for key, equals, _ in pairs):
            return {unquote(key.strip()): unquote(text.strip()) for key, _, text in pairs}
    elif isinstance(value, Mapping):
        mapping = dict(value)
        if all(isinstance(key, str) and isinstance(text, str) for key, text in mapping.items()):
            return mapping
    raise ValueError("a mapping of strings to strings ('name=value,other=value' where it is text)")


def _url(_: Option, value: Any) -> str:
    from urllib.parse import urlsplit  # noqa: PLC0415 - costs milliseconds, and is rarely needed

    expected = "a URL that begins with http:// or https:// and names a host"
    if not isinstance(value, str) or re.search(r"[\s\x00-\x1f\x7f]", value.strip()):
        raise ValueError(expected)
    text = value.strip()
    try:
        parts = urlsplit(text)
        port = parts.port  # raises where it is not a port
    except ValueError:
        raise ValueError(expected) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(expected)
    if parts.username is not None or parts.password is not None:
        raise ValueError("a URL without credentials (they belong into headers or auth)")
    return text


def _path(_: Option, value: Any) -> Path:
    if not isinstance(value, (str, Path)) or not str(value).strip() or "\x00" in str(value):
        raise ValueError("a path")
    try:
        path = Path(value).expanduser()
    except RuntimeError:
        raise ValueError("a path (there is no such home directory)") from None
    if path.is_absolute():
        return path
    directory = _directory.get() or working_directory()
    if directory is None:
        raise ValueError("an absolute path, because the working directory has been removed")
    return directory / path


def _enum(option: Option, value: Any) -> str:
    if isinstance(value, str):
        for word in (value, value.strip().lower()):
            if word in option.choices:
                return word
    raise ValueError("one of " + ", ".join(option.choices))


def _any(_: Option, value: Any) -> Any:
    return value


_PARSERS: Final[Mapping[str, Callable[[Option, Any], Any]]] = {
    "str": _string, "int": _integer, "float": _float, "bool": _bool, "duration": _duration, "size": _size,
    "list": _list, "map": _map, "url": _url, "path": _path, "enum": _enum, "any": _any,
}  # fmt: skip
