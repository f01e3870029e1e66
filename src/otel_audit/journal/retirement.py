"""Destinations that nobody waits for any more, and in which streams.

Retiring a destination lets go of what the journal holds for it *then*: the mark names the streams of dead processes
that required it.  A stream that begins later and names the destination again is waited for as ever, so a configuration
that still has it, or has it again, loses nothing.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable

import msgspec

from .layout import Layout


class Retirement(msgspec.Struct, frozen=True, kw_only=True):
    """That a destination was retired.

    Attributes:
        retired_ns: when, nanoseconds since 1970; the last time.
        streams: ids of the streams that do not wait for it.
    """

    retired_ns: int
    streams: frozenset[str]


def retire_destination(layout: Layout, destination: str, streams: Iterable[str]) -> None:
    """Let streams wait no longer for a destination, durably.

    Args:
        layout: the journal.
        destination: its name.
        streams: their ids; those of an earlier retirement that are still there are kept.

    Raises:
        OSError: the mark could not be written.
    """
    directory = layout.root / "retired"
    layout.make_directory(directory)
    layout.files.sync_directory(layout.root)
    before = retirements(layout).get(destination)
    still = [] if before is None else [each for each in before.streams if (layout.streams / each).exists()]
    mark = Retirement(retired_ns=time.time_ns(), streams=frozenset([*still, *streams]))
    layout.files.replace(directory / destination, msgspec.json.encode(mark), layout.mode)


def retirements(layout: Layout) -> dict[str, Retirement]:
    """The destinations that were retired.  A mark that cannot be read counts for nothing: then they are waited for."""
    found: dict[str, Retirement] = {}
    with contextlib.suppress(FileNotFoundError):
        for path in sorted((layout.root / "retired").iterdir()):
            with contextlib.suppress(OSError, msgspec.MsgspecError):
                found[path.name] = msgspec.json.decode(path.read_bytes(), type=Retirement)
    return found


def retired_for(layout: Layout, stream_id: str) -> frozenset[str]:
    """Destinations that a stream does not wait for, although it requires them."""
    return frozenset(name for name, mark in retirements(layout).items() if stream_id in mark.streams)
