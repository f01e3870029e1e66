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


_decode: Final = msgspec.json.Decoder(_Record).decode


def claim_of(canonical: bytes) -> _Attributes | None:
    """What :func:`place_of` reads, as it is written: for whoever knows what to expect."""
    try:
        return _decode(canonical).attributes
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def place_of(canonical: bytes) -> Place | None:
    """The place that a canonical form names, ``None`` where it names none.

    By parsing: what stands in a nested map may look the same and is somebody's own.
    """
    try:
        attributes = _decode(canonical).attributes
        sequence = int(attributes.number.intValue)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    previous = attributes.previous_hash
    return Place(attributes.stream_id.stringValue, sequence, previous.stringValue if previous is not None else "")
