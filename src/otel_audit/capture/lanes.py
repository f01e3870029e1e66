"""Lanes: the straight way from a plain ``LogRecord`` to canonical bytes, for what is logged again and again.

A *site* is an event name, a logger, a level and a number of names: nearly always one line of the program.  A site that
has come often gets a function of its own, written for the names and the types of the values that it has then.  All that
is the same in each of its records (event name, action, logger, severity) stands in the function's text already, as it
stands in the canonical form; the rest is looked at and put between.  That takes half the time of reading the record
(``shapes.py``) and encoding it (``encoding.py``), and gives the same bytes.

Names and what is the same enter a function's source as literals only; values never.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from .. import semconv as sc
from ..canonical import OutsideProfile
from ..encoding import Source, Writer, new_writer
from .fields import EVENT_NAME, FIELDS, address_type
from .shapes import BUILTINS, Shapes, items_of, look

SIGHTS: Final = 8
"""A site gets its lane when it has come so often: writing one costs as much as a hundred records."""
PATIENCE: Final = 8
"""Where a site's records change their names or types, each lane is waited for so many times as long as the last."""
SITES_MAX: Final = 1024
"""How many sites are remembered; at one more all are forgotten."""

_PLAIN: Final = frozenset({str, int, bool, float})
_NO_ESCAPE: Final = frozenset({sc.ACTOR_TYPE, sc.OUTCOME, sc.RECORD_ID, sc.SOURCE_TYPE, EVENT_NAME})
"""What has been looked at, or is ours."""

Site = tuple[str, str, int, int]
"""Message, name of the logger, level, number of names."""

NOT_PLAIN: Final = (OutsideProfile, UnicodeError, TypeError)
"""What a lane raises where a value has to be converted."""


class Lane(NamedTuple):
    """The straight way of a site.

    Attributes:
        names: of the record, in their order; another record's are not for this lane.
        write: from the mapping, record id, observed time and time (nanoseconds since 1970), span and trace id
            (lower-case hex, or empty) to head and tail of the canonical form; ``None`` where a value is not plain.
    """

    names: list[str]
    write: Writer


class Lanes:
    """The lanes of one capture.

    Args:
        shapes: of the same capture.
        own: names of the attributes that the capture adds.

    Attributes:
        known: site → lane.
    """

    def __init__(self, shapes: Shapes, own: Iterable[str]) -> None:
        self.known: dict[Site, Lane] = {}
        self._shapes = shapes
        self._own = tuple(own)
        self._left: dict[Site, tuple[int, int]] = {}

    def notice(self, site: Site, given: Mapping[str, Any], added: Sequence[Any]) -> None:
        """A record of this site was read another way: write its lane, if it has come often enough.

        Args:
            site: where it comes from.
            given: its names and values.
            added: values of the attributes that the capture adds.
        """
        left, patience = self._left.get(site, (SIGHTS, SIGHTS))
        if left > 1:
            if len(self._left) >= SITES_MAX and site not in self._left:
                self._left.clear()
                self.known.clear()
            self._left[site] = (left - 1, patience)
            return
        self._left[site] = (patience * PATIENCE, patience * PATIENCE)
        straight = self._shapes.straight(tuple(given), site[0])
        write = _write_lane(site[0], straight, given, dict(zip(self._own, added, strict=True))) if straight else None
        if write is not None:
            self.known[site] = Lane(list(given), write)


def _write_lane(
    event: str, straight: tuple[Mapping[str, str], str, str], sample: Mapping[str, Any], added: Mapping[str, Any]
) -> Writer | None:
    """The function; ``None`` where a value of the sample is of no plain type."""
    names, action, outcome = straight
    free = {name: type(sample[name]) for name in names if name not in FIELDS}
    if not set(free.values()) <= _PLAIN:
        return None
    items = items_of(names, tuple(added), tuple(added))
    fixed = {sc.ACTION: action, **added}
    if items[sc.OUTCOME] == "outcome":
        fixed[sc.OUTCOME] = outcome
    kinds: dict[str, type] = dict.fromkeys(items, str) | {name: type(value) for name, value in added.items()} | free
    if sc.SOURCE_ID in items:
        items[sc.SOURCE_TYPE] = f"address_type({items[sc.SOURCE_ID]})"
        kinds[sc.SOURCE_TYPE] = str
    if sc.ACTOR_TYPE in items:
        fixed[sc.ACTOR_TYPE] = "user"
    order = sorted(items)
    if not all(name.isascii() for name in order):
        return None  # sorting by code point is sorting by UTF-16 code unit only where all is ASCII
    source = Source(
        ["given", "record_id"], look(names, free), [items[name] for name in order],
        {**BUILTINS, "address_type": address_type}, fixed, event,
    )  # fmt: skip
    try:
        return new_writer(order, [kinds[name] for name in order], type(None), plain=_NO_ESCAPE, source=source)
    except NOT_PLAIN:  # the logger's name, say
        return None
