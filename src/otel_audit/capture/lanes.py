"""The lanes (``otel_audit/lanes.py``) of what goes through :mod:`logging`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final, NamedTuple

from ..encoding import Writer
from ..lanes import STRINGS, Sites, write_lane
from .shapes import Shapes

Site = tuple[str, str, int, int]
"""Message, name of the logger, level, number of names."""

LOOKED_AT: Final = {"name", "levelno", "msg", "args", "created", "thread", "exc_info", "exc_text", "stack_info"}
"""What the handler fetches of every record."""


class Lane(NamedTuple):
    """The straight way of a site.

    Attributes:
        others: fetches what ``write`` and :data:`LOOKED_AT` do not, and so raises ``KeyError`` where a name is missing.
            A record with as many names has no other name then.
        write: see :func:`~otel_audit.lanes.write_lane`; the mapping is the record's.
    """

    others: Callable[[Mapping[str, Any]], object]
    write: Writer


class Lanes(Sites[Lane]):
    """The lanes of one capture.

    Args:
        shapes: of the same capture.
        own: names of the attributes that the capture adds.
    """

    def __init__(self, shapes: Shapes, own: Iterable[str]) -> None:
        super().__init__()
        self._shapes = shapes
        self._own = tuple(own)

    def notice(self, site: Site, given: Mapping[str, Any], added: Sequence[Any]) -> None:
        """A record of this site was read another way: write its lane, if it has come often enough.

        Args:
            site: where it comes from.
            given: its names and values.
            added: values of the attributes that the capture adds.
        """
        if not self.is_due(site):
            return
        straight = self._shapes.straight(tuple(given), site[0])
        if straight is None:
            return
        names, action, outcome = straight
        free = {name: type(given[name]) for name, attribute in names.items() if attribute not in STRINGS}
        write = write_lane(site[0], names, action, outcome, free, dict(zip(self._own, added, strict=True)))
        if write is not None:
            self.known[site] = Lane(itemgetter(*given.keys() - names.keys() - LOOKED_AT), write)
