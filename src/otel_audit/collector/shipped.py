"""What the package brings along: the configurations of ``collector-config/`` and the pages of the linter's rules.

A checkout has them where they are written; the wheel has copies of the same files, made when it is built.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from ..errors import ConfigurationError

_CHECKOUT: Final = Path(__file__).resolve().parents[3]
_PACKAGED: Final = Path(__file__).resolve().parent / "shipped"
_PAGE: Final = "docs/collector-lint.md"


def shipped(path: str) -> Path:
    """A file or directory by its path in the repository.

    Raises:
        ConfigurationError: it is not there: the installation is not whole.
    """
    roots = (_CHECKOUT, _PACKAGED) if (_CHECKOUT / "pyproject.toml").is_file() else (_PACKAGED,)
    for root in roots:
        if (root / path).exists():
            return root / path
    raise ConfigurationError(f"{path} is missing from this installation; install otel-audit again")


def rule_pages() -> dict[str, str]:
    """The documentation of each rule of the linter, in Markdown, without its heading."""
    text = shipped(_PAGE).read_text(encoding="utf-8")
    parts = re.split(r"^### `([\w-]+)`\n", text, flags=re.MULTILINE)
    pages = (re.split(r"^## ", page, flags=re.MULTILINE)[0].strip() for page in parts[2::2])
    return dict(zip(parts[1::2], pages, strict=True))
