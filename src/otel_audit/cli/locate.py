"""Which journal a command is about: the rule of ``configure()``, and nothing is made that is not there."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import stat
from pathlib import Path
from typing import Annotated, Final

import typer

from ..errors import ConfigurationError
from ..journal.layout import Layout, check_destination_name
from ..settings import load_settings
from .output import say
from .signals import Stop

_APPEARS_POLL_S: Final = 0.5

JournalOption = Annotated[
    Path | None,
    typer.Option(
        "--journal", metavar="DIR", show_default=False, readable=False,
        help="The journal; else OTEL_AUDIT_JOURNAL, else that of the service.",
    ),
]  # fmt: skip
ServiceOption = Annotated[
    str | None,
    typer.Option(
        "--service", metavar="NAME", help="Whose journal, where no directory is given; else OTEL_SERVICE_NAME.",
        show_default=False,
    ),
]  # fmt: skip
DestinationsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--destination", metavar="NAME=SPEC", show_default=False,
        help="Where to, like collector=otlp or archive=file:/srv/audit.jsonl; may be given several times; else as "
        "configured.",
    ),
]  # fmt: skip
ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", show_default=False,
        help="Configuration file, in TOML; else OTEL_AUDIT_CONFIG, and OTEL_AUDIT_DESTINATIONS and the others.",
    ),
]  # fmt: skip
JsonOption = Annotated[bool, typer.Option("--json", help="Write JSON on stdout, and nothing else there.")]


def find_journal(journal: Path | None, service: str | None) -> Layout:
    """The journal that is meant.

    Raises:
        ConfigurationError: there is none, or the configuration is wrong.
    """
    settings = load_settings({"journal": journal, "service_name": service, "destinations": {}})
    return existing_layout(settings.journal)


def as_given(journal: Path | None, service: str | None) -> str:
    """The options by which the user said which journal is meant, for a command that is pasted."""
    given = (("--journal", journal), ("--service", service))
    return "".join(f" {name} {shlex.quote(str(value))}" for name, value in given if value is not None)


def who_may(path: Path) -> str:
    """Whose it is, and how another user gets at it: for what this one may not."""
    for each in (path, *path.parents):
        with contextlib.suppress(OSError):
            info = each.stat()
            name = "it" if each == path else str(each)
            return (
                f"permission denied: {name} belongs to {_user(info.st_uid)} ({stat.S_IMODE(info.st_mode):04o}), and "
                f"this is {_user(os.geteuid())}; run it as that user, or let the application make its journal with "
                "mode=0660 and group="
            )
    return "permission denied"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def wait_for_layout(root: Path, stop: Stop) -> Layout | None:
    """A journal, once it is there: a sidecar may be started before its application.  ``None``: stopped before.

    Raises:
        ConfigurationError: there is something else in its place.
    """
    said = False
    while not (root / "streams").is_dir():
        if root.exists() and not root.is_dir():
            return existing_layout(root)
        if not said:
            said = True
            say(f"journal: {root} is not there yet; it is waited for")
        if stop.wait(_APPEARS_POLL_S):
            return None
    return existing_layout(root)


def existing_layout(root: Path) -> Layout:
    """A journal that is there, with the permissions and the group that it was made with.

    Raises:
        ConfigurationError: there is none.
    """
    try:
        info = (root / "streams").stat()
    except (FileNotFoundError, NotADirectoryError):
        what = "is no journal" if root.exists() else "does not exist"
        raise ConfigurationError(
            f"journal: {root} {what}; name it with --journal or OTEL_AUDIT_JOURNAL, or the service with --service"
        ) from None
    except PermissionError:
        raise ConfigurationError(f"journal: {root}: {who_may(root)}") from None
    group = info.st_gid if info.st_mode & stat.S_ISGID else None
    return Layout(root, stat.S_IMODE(info.st_mode) & 0o666 | 0o600, group)


def named_destinations(given: list[str]) -> dict[str, str]:
    """What ``--destination NAME=SPEC`` says.

    Raises:
        ConfigurationError: one of them is something else, or a name is there twice.
    """
    named: dict[str, str] = {}
    for item in given:
        name, separator, spec = item.partition("=")
        if not separator or not spec:
            raise ConfigurationError(f"--destination: {item!r} must be NAME=SPEC, like collector=otlp")
        if check_destination_name(name) in named:
            raise ConfigurationError(f"--destination: {name!r} is given twice")
        named[name] = spec
    return named
