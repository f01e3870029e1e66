"""Lanes: the straight way from plain values to canonical bytes, for what is recorded again and again.

A *site* is what nearly always is one line of the program: an event name and the names of the values beside it.  A site
that has come often gets a function of its own, written for its names and, where they are free, the types of its values.
All that is the same in each of its records (event name, action, logger) stands in the function's text already, as it
stands in the canonical form; the rest is looked at and put between.  That takes half the time of making the record and
encoding it (``encoding.py``), and gives the same bytes.

Names and what is the same enter a function's source as literals only; values never.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from . import semconv as sc
from .canonical import OutsideProfile
from .encoding import Source, Writer, new_writer
from .rules import ID_LENGTH_MAX, is_action, source_type

SIGHTS: Final = 8
"""A site gets its lane when it has come so often: writing one costs as much as a hundred records."""
PATIENCE: Final = 8
"""Where a site's records change their names or types, each lane is waited for so many times as long as the last."""
SITES_MAX: Final = 1024
"""How many sites are remembered; at one more all are forgotten."""

EVENT_NAME: Final = "event_name"
"""What stands for the event name where the names of attributes are wanted."""

IDENTIFIERS: Final = frozenset({sc.RECORD_ID, sc.ACTOR_ID, sc.TARGET_ID, sc.TARGET_TYPE, sc.TARGET_NAME, sc.SOURCE_ID})
"""Attributes whose values keep ``rules.check_id``."""

STRINGS: Final = IDENTIFIERS | {
    sc.ACTION, sc.OUTCOME, sc.TENANT, sc.SESSION_ID, sc.REQUEST_ID, sc.USER_AGENT, sc.REASON, EVENT_NAME,
}  # fmt: skip
"""Attributes whose values have to be strings; any other that is asked about here is free."""

NOT_PLAIN: Final = (OutsideProfile, UnicodeError, TypeError)
"""What a lane raises where a value has to be converted."""

BUILTINS: Final[dict[str, Any]] = {kind.__name__: kind for kind in (str, int, bool, float)} | {
    "len": len, "outcomes": sc.OUTCOMES, "type": type,
}  # fmt: skip
"""The names that the lines of :func:`look` use."""

_PLAIN: Final = frozenset({str, int, bool, float})
_NO_ESCAPE: Final = frozenset({sc.ACTION, sc.ACTOR_TYPE, sc.OUTCOME, sc.RECORD_ID, sc.SOURCE_TYPE, EVENT_NAME})
"""What has been looked at, or is ours."""

_Lane = TypeVar("_Lane")


class Sites(Generic[_Lane]):
    """The sites that were seen, and their lanes.

    Attributes:
        known: site → lane; for a site that :meth:`is_due` the caller puts one there.
    """

    def __init__(self) -> None:
        self.known: dict[tuple[Any, ...], _Lane] = {}
        self._left: dict[tuple[Any, ...], tuple[int, int]] = {}

    def is_due(self, site: tuple[Any, ...]) -> bool:
        """A record of this site went another way: whether it has come often enough for a lane, or for another one."""
        left, patience = self._left.get(site, (SIGHTS, SIGHTS))
        if left > 1:
            if len(self._left) >= SITES_MAX and site not in self._left:
                self._left.clear()
                self.known.clear()
            self._left[site] = (left - 1, patience)
            return False
        self._left[site] = (patience * PATIENCE, patience * PATIENCE)
        return True


def write_lane(
    event: str,
    names: Mapping[str, str],
    action: str,
    outcome: str,
    free: Mapping[str, type],
    added: Mapping[str, Any],
) -> Writer | None:
    """The function for a site; ``None`` where a value is of no plain type.

    Args:
        event: the event name, which has to keep its rule.
        names: name in the mapping → name of the attribute; the actor's must be among them.
        action: what the event name says, for what the mapping does not have.
        outcome: the same.
        free: types of the values of free names.
        added: attributes that are the same in every record.

    Returns:
        From the mapping, record id, observed time and time (nanoseconds since 1970), span and trace id (lower-case hex,
        or empty) to head and tail of the canonical form; ``None`` where a value is not plain.  It raises one of
        :data:`NOT_PLAIN` where a value has to be converted.
    """
    if not set(free.values()) <= _PLAIN:
        return None
    items = items_of(names, tuple(added), tuple(added))
    lines = look(names, free)
    fixed = {sc.ACTOR_TYPE: "user", **added}
    if items[sc.ACTION] == "action":
        fixed[sc.ACTION] = action
    else:
        lines.append(f" if not is_action({items[sc.ACTION]}): return None")
    if items[sc.OUTCOME] == "outcome":
        fixed[sc.OUTCOME] = outcome
    kinds = {**dict.fromkeys(items, str), **{name: type(value) for name, value in added.items()}, **free}
    if sc.SOURCE_ID in items:
        items[sc.SOURCE_TYPE] = f"source_type({items[sc.SOURCE_ID]})"
        kinds[sc.SOURCE_TYPE] = str
    order = sorted(items)
    if not all(name.isascii() for name in order):
        return None  # sorting by code point is sorting by UTF-16 code unit only where all is ASCII
    space = {**BUILTINS, "is_action": is_action, "source_type": source_type}
    source = Source(["given", "record_id"], lines, [items[name] for name in order], space, fixed, event)
    try:
        return new_writer(order, [kinds[name] for name in order], type(None), plain=_NO_ESCAPE, source=source)
    except NOT_PLAIN:  # the logger's name, say
        return None


def items_of(names: Mapping[str, str], own: Sequence[str], parameters: Sequence[str]) -> dict[str, str]:
    """Name of each attribute → the variable that holds its value."""
    items = {sc.ACTION: "action", sc.OUTCOME: "outcome", sc.RECORD_ID: "record_id"}
    if sc.ACTOR_ID in names.values():
        items[sc.ACTOR_TYPE] = "'user'"
    for number, attribute in enumerate(names.values()):
        if attribute != EVENT_NAME:
            items[attribute] = f"v{number}"
    items.update(zip(own, parameters, strict=True))
    return items


def look(names: Mapping[str, str], free: Mapping[str, type]) -> list[str]:
    """Source that fetches the values, and returns ``None`` where one does not plainly keep its rule.

    Args:
        names: name in the mapping → name of the attribute.
        free: type that the value of a free name must have, for those that must have one.
    """
    lines: list[str] = []
    rules: list[str] = []
    lengths: list[str] = []
    for number, (name, attribute) in enumerate(names.items()):
        value = f"v{number}"
        lines.append(f" {value} = given[{name!r}]")
        if name in free:
            rules.append(f"type({value}) is {free[name].__name__}")
        if attribute not in STRINGS:
            continue
        rules.append(f"type({value}) is str")
        if attribute in IDENTIFIERS:
            rules.append(value)
            lengths.append(f"len({value})")
        elif attribute == sc.OUTCOME:
            rules.append(f"{value} in outcomes")
    if lengths:
        rules.append(f"{' + '.join(lengths)} <= {ID_LENGTH_MAX}")
    if rules:
        lines.append(f" if not ({' and '.join(rules)}): return None")
    return lines
