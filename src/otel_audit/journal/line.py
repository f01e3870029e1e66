r"""The line: how one record stands in a segment, and how whole lines are found again after damage.

``{"sha256":"<64 hex>","record":{…}}\n``.  The hash is of exactly the bytes ``line[86:-2]``, which are the record's
canonical form; nothing of the record stands outside it.

The marker ``{"sha256":"`` cannot occur inside a record, because values there are tagged: a map with the key
``sha256`` is written ``{"sha256":{"stringValue":…}}``.  So after damage the next line is found by its marker, even
where the damage hit a newline; newlines alone would lose the line behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from typing import Final, NamedTuple

MARKER: Final = b'{"sha256":"'
MIDDLE: Final = b'","record":'
END: Final = b"}\n"
HEAD_LENGTH: Final = 86
LINE_OVERHEAD: Final = HEAD_LENGTH + len(END)

_HASH_END: Final = len(MARKER) + 64
HEAD: Final = MARKER + b"%b" + MIDDLE
"""What stands before the canonical form; to be formatted with the hash."""
BRACE: Final = ord("}")


class Line(NamedTuple):
    """A whole line.  ``newline`` is false where only the newline behind it was damaged or missing."""

    start: int
    stop: int
    sha256: str
    canonical: bytes
    newline: bool = True


class Damage(NamedTuple):
    """Bytes that are no whole line: from offset ``start`` up to, not including, ``stop``."""

    start: int
    stop: int


def make_line(canonical: bytes) -> tuple[bytes, str]:
    """The line of a canonical form, and its SHA-256 in lower-case hex."""
    digest = sha256(canonical).hexdigest()
    return b"".join((MARKER, digest.encode(), MIDDLE, canonical, END)), digest


def scan(data: bytes, base: int = 0, *, final: bool) -> Iterator[Line | Damage]:
    """Whole lines and the damage between them, in order.

    Args:
        data: bytes of a segment, beginning at a line's start (or at damage).
        base: offset of ``data`` in the segment; added to every offset that is given back.
        final: nothing will follow.  Where it is false, an unfinished tail is left alone, neither line nor damage: the
            caller comes back with more.

    Yields:
        Lines whose hash is right, and damage between them.
    """
    at = 0
    end = len(data)
    while at < end:
        line = _line_at(data, at, base)
        if line is not None:
            yield line
            at = line.stop - base
            continue
        following = data.find(MARKER, at + 1)
        stop = following if following >= 0 else end
        line = _line_without_newline(data, at, stop, base)
        if line is not None and (following >= 0 or final):
            yield line
        elif following >= 0 or final:
            yield Damage(base + at, base + stop)
        else:
            return  # perhaps only half written as yet
        at = stop


def _line_at(data: bytes, at: int, base: int) -> Line | None:
    """The whole line that begins here, ended by the next newline."""
    newline = data.find(b"\n", at + HEAD_LENGTH)
    if newline < 0:
        return None
    return _checked(data, at, newline, newline + 1, base, newline=True)


def _line_without_newline(data: bytes, at: int, stop: int, base: int) -> Line | None:
    """The line between here and the next marker (or the end), its newline being damaged or missing."""
    return _checked(data, at, stop - 1, stop, base, newline=False) or _checked(
        data, at, stop, stop, base, newline=False
    )


def _checked(data: bytes, at: int, brace_end: int, stop: int, base: int, *, newline: bool) -> Line | None:
    if (
        not data.startswith(MARKER, at)
        or data[at + _HASH_END : at + HEAD_LENGTH] != MIDDLE
        or data[brace_end - 1 : brace_end] != b"}"
    ):
        return None
    canonical = data[at + HEAD_LENGTH : brace_end - 1]
    digest = sha256(canonical).hexdigest()
    if data[at + len(MARKER) : at + _HASH_END] != digest.encode():
        return None
    return Line(base + at, base + stop, digest, canonical, newline)
