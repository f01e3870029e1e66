"""Reading what the linter looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from ..errors import ConfigurationError
from .lint import Source
from .node import Place
from .parsing import SIZE_BYTES_MAX

_STDIN: Final = "-"


def read_source(path: str, stdin: str | None = None) -> Source:
    """A file; ``-`` is what came on standard input.

    Raises:
        ConfigurationError: it is too large, or no text.
        OSError: it cannot be read.
    """
    if path == _STDIN and stdin is not None:
        return Source("<stdin>", stdin)
    file = Path(path)
    if file.stat().st_size > SIZE_BYTES_MAX:
        raise ConfigurationError(
            f"{path}: larger than {SIZE_BYTES_MAX // 1024**2} MiB; is it a Collector configuration?"
        )
    try:
        return Source(path, file.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: not UTF-8 at byte {error.start}") from None


def read_beside(reference: str, place: Place) -> str | None:
    """What ``${file:…}`` names: as the Collector, seen from the current directory; else from beside the file."""
    for path in (Path(reference), Path(place.file).parent / reference):
        text = _read_if_there(path)
        if text is not None:
            return text
    return None


def _read_if_there(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() and path.stat().st_size <= SIZE_BYTES_MAX else None
    except (OSError, ValueError):
        return None
