"""What commands write: results on stdout, messages for people on stderr; and the exit codes."""

from __future__ import annotations

import re
import sys
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

FINE: Final = 0
"""All is well."""
ATTENTION: Final = 1
"""Something needs attention: the output says what."""
WRONG: Final = 2
"""Wrong usage or configuration: nothing was done."""

WIDTH_OF_A_FILE: Final = 200
"""How wide tables are where stdout is no terminal."""

_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def write_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n")
    sys.stdout.flush()


def say(message: str) -> None:
    """One line for people, on stderr."""
    sys.stderr.write(f"otel-audit: {safe(message)}\n")
    sys.stderr.flush()


def console(*, stderr: bool = False) -> Console:
    """Where tables and coloured lines go; colour only on a terminal."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else WIDTH_OF_A_FILE
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def safe(value: object) -> str:
    """Text of others as a terminal may show it: what would steer the terminal is written as an escape."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), str(value))


def table(*columns: str, title: str = "") -> Table:
    """An empty table; a column whose name begins with ``#`` holds numbers.  Only the last column is wrapped."""
    made = Table(title=Text(title, style="bold") if title else None, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        number = name.startswith("#")
        made.add_column(
            name.lstrip("#"), justify="right" if number else "left", no_wrap=name is not columns[-1], overflow="fold"
        )
    return made


def row(*cells: object) -> list[Text]:
    """Cells for a table; numbers with separators, ``None`` as a dash, text made safe."""
    return [cell if isinstance(cell, Text) else Text(_shown(cell)) for cell in cells]


def _shown(cell: object) -> str:
    if cell is None:
        return "–"
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else safe(cell)


def age(seconds: float | None) -> str | None:
    """A time that has passed, for people: ``4.2 s``, ``12 min``, ``3 h``, ``5 d``."""
    if seconds is None:
        return None
    for limit, unit, length in ((60, "s", 1), (3600, "min", 60), (86_400, "h", 3600)):
        if seconds < limit:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds / 86_400:.1f} d"


def size(count: int) -> str:
    """Bytes, for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
