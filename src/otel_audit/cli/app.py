"""The commands together, and what becomes of a mistake: one line on stderr and an exit code, never a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from .._version import __version__
from ..errors import AuditError, ConfigurationError
from .collector import collector
from .demo.command import demo
from .destination import destinations
from .dlq import dead_letters
from .doctor.command import doctor
from .locate import who_may
from .output import ATTENTION, FINE, WRONG, say
from .ship import ship
from .status import status
from .tail import tail

NAME: Final = "otel-audit"
STDOUT: Final = 1

# What a wrong option or argument raises; typer exports only its subclass.
_UsageError: Final[Any] = typer.BadParameter.__mro__[1]

app = typer.Typer(
    name=NAME,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # lines of a paragraph are one
    context_settings={"help_option_names": ["--help", "-h"]},
    help="Audit logging that loses nothing: look at a journal, follow it, deliver what is left in it.\n\n"
    "Exit codes: 0, all is well; 1, something needs attention; 2, wrong usage or configuration.",
)


def _show_version(value: bool) -> None:
    if value:
        sys.stdout.write(f"{NAME} {__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Say the version and end.")
    ] = False,
) -> None:
    """What stands before the command."""


app.command()(status)
app.command()(tail)
app.command()(ship)
app.add_typer(destinations)
app.add_typer(collector)
app.add_typer(dead_letters)
app.command()(doctor)
app.command()(demo)


def run(arguments: Sequence[str]) -> int:
    """Run a command; the exit code.  Mistakes of the user are one line on stderr."""
    command = typer.main.get_command(app)
    try:
        code = command.main(args=list(arguments) or ["--help"], prog_name=NAME, standalone_mode=False)
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):
        # Whoever read stdout has gone (`otel-audit tail | head`); typer makes a SystemExit of that.  Nothing more can
        # be said there, nor at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
        return FINE
    except typer.Abort:
        say("stopped, nothing was changed")
        return ATTENTION
    except _UsageError as error:
        say(_one_line(_usage(error)))
        return WRONG
    except ConfigurationError as error:
        say(_one_line(str(error)))
        return WRONG
    except AuditError as error:
        say(_one_line(str(error)))
        return ATTENTION
    except PermissionError as error:
        path = Path(os.fsdecode(error.filename)) if isinstance(error.filename, (str, bytes)) else None
        say(_one_line(f"{path}: {who_may(path)}" if path is not None else str(error.strerror)))
        return WRONG
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        say(_one_line(f"{where}{error.strerror or error}"))
        return WRONG
    return code if isinstance(code, int) else FINE


def _usage(error: Any) -> str:
    """What is wrong; where a command is missing, which there are."""
    commands = getattr(getattr(error.ctx, "command", None), "commands", None)
    text: str = error.format_message()
    if commands and text.startswith("Missing command"):
        return f"{error.ctx.command_path}: say which command; there are: {', '.join(commands)}"
    return text


def _one_line(text: str) -> str:
    return " ".join(text.split())
