"""Reading lines that are just what is expected: nearly all are.

A portion at a time, and each step for all lines of it: half the time of looking at one line after the other as closely
as :func:`~otel_audit.journal.line.scan` does.  It believes nothing that the careful way would not believe, and leaves
to that one whatever is odd in the least.
"""

from __future__ import annotations

from hashlib import sha256
from typing import NamedTuple

from .line import BRACE, HEAD, HEAD_LENGTH
from .place import UNREADABLE, Expectation, read_claim


class PlainLines(NamedTuple):
    """Lines that follow each other: the hash and the canonical form of each."""

    hashes: list[str]
    canonicals: list[bytes]


def plain_lines(data: bytes, at: int, expected: Expectation, first: int, count: int) -> PlainLines:
    """The lines that are what is expected, up to the first that is not.

    Args:
        data: bytes of a segment.
        at: where a line begins in it.
        expected: says which record is to come; afterwards it is of no use.
        first: the sequence number of that record.
        count: so many lines at most.
    """
    find = data.find
    heads, canonicals = [], []
    for _ in range(count):
        start = at + HEAD_LENGTH
        newline = find(b"\n", start)
        if newline < 0 or data[newline - 1] != BRACE:
            break
        heads.append(data[at:start])
        canonicals.append(data[start : newline - 1])
        at = newline + 1
    hashes = [sha256(canonical).hexdigest() for canonical in canonicals]
    claim, number, previous = expected.claim, expected.number, expected.previous
    sequences = range(first, first + len(heads))
    for sequence, head, canonical, digest in zip(sequences, heads, canonicals, hashes, strict=True):
        if head != HEAD % digest.encode():
            break
        number.intValue = str(sequence)
        try:
            said = read_claim(canonical)
        except UNREADABLE:
            break
        if said != claim and (previous.stringValue or not expected.is_met_after_a_gap(said)):
            break
        previous.stringValue = digest
    else:
        return PlainLines(hashes, canonicals)
    return PlainLines(hashes[: sequence - first], canonicals[: sequence - first])
