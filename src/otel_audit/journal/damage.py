"""What readers say of damage, and where that is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

RECOVERY_NAME: Final = "recovery.json"
"""The file beside a stream in which shippers keep what they found damaged in it."""


class DamageReport(msgspec.Struct, frozen=True):
    """What a reader found damaged in a stream.

    Attributes:
        kind: ``"hole"`` – records are missing; ``"torn-tail"`` – the last bytes are the beginning of a line whose
            ``emit`` had not returned; ``"lost-tail"`` – the last bytes are damaged lines; ``"newline"`` – only a line's
            newline was damaged, the record is whole; ``"chain"`` – a whole record does not follow its predecessor;
            ``"foreign"`` – a whole line that does not belong here; ``"noise"`` – bytes between two records, nothing
            missing.
        segment: file name.
        start, stop: offsets in that file, in bytes; equal where records are missing and no bytes stand in their place.
        sequence: the first sequence number concerned.
        count: how many records are missing.
    """

    kind: str
    segment: str
    start: int
    stop: int
    sequence: int
    count: int = 0


def read_damage(directory: Path) -> list[DamageReport] | None:
    """What shippers found damaged in a stream; ``None`` where that was written down and cannot be understood.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return msgspec.json.decode((directory / RECOVERY_NAME).read_bytes(), type=list[DamageReport])
    except FileNotFoundError:
        return []
    except msgspec.MsgspecError:
        return None
