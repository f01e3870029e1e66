"""The command line, ``otel-audit``: says what to install where the extra ``cli`` is missing, else runs ``app``.

Exit codes, of every command: 0, all is well; 1, something needs attention; 2, wrong usage or configuration.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.util import find_spec


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; ``None``: those of the process.

    Returns:
        The exit code.
    """
    missing = [name for name in ("typer", "rich") if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"otel-audit: the command line needs {' and '.join(missing)}: pip install 'otel-audit[cli]'\n")
        return 2
    from .app import run  # noqa: PLC0415 - needs what was just looked for

    return run(sys.argv[1:] if arguments is None else arguments)
