"""Where a record says that it belongs."""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from .. import semconv as sc


class Place(NamedTuple):
    """A record's place in the chain, as it says itself; ``previous_hash`` is empty for the first of a stream."""

    stream_id: str
    sequence: int
    previous_hash: str


class _Integer(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    intValue: str  # noqa: N815 - as it is written


class _String(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    stringValue: str  # noqa: N815


class _Attributes(msgspec.Struct, gc=False):
    stream_id: _String = msgspec.field(name=sc.SEQUENCE_STREAM_ID)
    number: _Integer = msgspec.field(name=sc.SEQUENCE_NUMBER)
    previous_hash: _String | None = msgspec.field(name=sc.SEQUENCE_PREVIOUS_HASH, default=None)


class _Record(msgspec.Struct, gc=False):
    attributes: _Attributes


read_claim: Final = msgspec.json.Decoder(_Record).decode
"""What :func:`place_of` reads, as it is written."""
UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""What :data:`read_claim` raises for bytes that name no place."""


class Expectation:
    """What the next record of a stream has to say, for many records of which most do.

    Attributes:
        claim: equal to what ``read_claim`` gives for that record.
        number: the part that is to be set to its number; as text, because ``007`` is no number of ours.
        previous: the part that is to be set to the hash of the record before it.
    """

    __slots__ = ("claim", "number", "previous")

    def __init__(self, stream_id: str, previous_hash: str) -> None:
        self.number = _Integer("")
        self.previous = _String(previous_hash)
        self.claim = _Record(_Attributes(_String(stream_id), self.number, self.previous))

    def is_met_after_a_gap(self, claim: _Record) -> bool:
        """Whether a record is the next one, whatever it says of the one before it: that one is not known."""
        said, expected = claim.attributes, self.claim.attributes
        return said.number == expected.number and said.stream_id == expected.stream_id


def place_of(canonical: bytes) -> Place | None:
    """The place that a canonical form names, ``None`` where it names none.

    By parsing: what stands in a nested map may look the same and is somebody's own.
    """
    try:
        attributes = read_claim(canonical).attributes
        sequence = int(attributes.number.intValue)
    except UNREADABLE:
        return None
    previous = attributes.previous_hash
    return Place(attributes.stream_id.stringValue, sequence, previous.stringValue if previous is not None else "")
