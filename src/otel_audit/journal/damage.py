"""What readers say of damage."""

from __future__ import annotations

import msgspec


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
