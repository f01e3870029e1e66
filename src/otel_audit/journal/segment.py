"""Segments: the files of a stream, named by the sequence number of their first record."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_NAME = re.compile(r"(\d{20})\.jsonl")


class Segment(NamedTuple):
    """One file of a stream."""

    first: int
    path: Path


def segment_path(directory: Path, first: int) -> Path:
    """Path of the segment whose first record has this sequence number."""
    return directory / f"{first:020d}.jsonl"


def list_segments(directory: Path) -> list[Segment]:
    """The segments of a stream, in order.  Empty where the directory is gone."""
    try:
        names = [entry.name for entry in directory.iterdir()]
    except FileNotFoundError:
        return []
    found = (_NAME.fullmatch(name) for name in names)
    return sorted(Segment(int(match[1]), directory / match[0]) for match in found if match)
