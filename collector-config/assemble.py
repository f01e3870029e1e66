#!/usr/bin/env python3
"""Writes the shared parts into the configurations: ``assemble.py`` rewrites, ``assemble.py --check`` only compares.

Each configuration is one complete file, so that it can be read, linted and run alone.  What several have in common
stands once, in ``parts/``.  A configuration takes it between two comments, at the depth of the comments::

    # <<< parts/processors.yaml
    …
    # >>>

What stands between them is replaced; everything else is left as it is.  A part may take another part in the same way.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
_BLOCK = re.compile(
    r"(?P<begin>^(?P<indent> *)# <<< (?P<part>parts/[\w-]+\.yaml)\n)(?:.*\n)*?(?P<end>(?P=indent)# >>>\n)", re.MULTILINE
)


def assembled(text: str) -> str:
    """The text of a configuration with its parts as ``parts/`` has them."""
    return _BLOCK.sub(lambda found: found["begin"] + _body(found) + found["end"], text)


def _body(block: re.Match[str]) -> str:
    """What belongs between the two comments of a block, without those of the parts within."""
    text = _BLOCK.sub(_body, (HERE / block["part"]).read_text(encoding="utf-8"))
    return "".join(block["indent"] + line if line.strip() else line for line in text.splitlines(keepends=True))


def configurations() -> list[Path]:
    """Every complete configuration."""
    folders = ("agent", "gateway", "scale-out")
    return sorted(path for folder in folders for path in (HERE / folder).glob("*.yaml"))


def main(arguments: list[str]) -> int:
    """Rewrite what differs, or name it."""
    if arguments not in ([], ["--check"]):
        print("usage: assemble.py [--check]", file=sys.stderr)
        return 2
    differ = []
    for path in configurations():
        text = path.read_text(encoding="utf-8")
        if (new := assembled(text)) != text:
            differ.append(str(path.relative_to(HERE)))
            if not arguments:
                path.write_text(new, encoding="utf-8")
    if differ:
        print(("differ from parts/, run assemble.py: " if arguments else "rewritten: ") + ", ".join(differ))
    return 1 if differ and arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
