"""A Collector configuration: its components and pipelines, merged from one or several files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from ..errors import ConfigurationError
from ..lazy import lazy
from .node import Node, Place, Unknown, View

KINDS: Final = ("receivers", "processors", "exporters", "connectors", "extensions")
"""The sections that define components."""


@dataclass(frozen=True)
class Component:
    """A component as its section defines it.

    Attributes:
        kind: its section.
        id: ``otlp_grpc/gateway``.
        settings: what stands below its id.
    """

    kind: str
    id: str
    settings: View

    @property
    def type(self) -> str:
        """Its type without underscores, so that old and new spellings are one: ``otlphttp``."""
        return normal_type(self.id)

    @property
    def name(self) -> str:
        """What follows the stroke."""
        return self.id.partition("/")[2]


@dataclass(frozen=True)
class Pipeline:
    """A pipeline.

    Attributes:
        id: ``logs/audit``.
        view: what stands below its id.
    """

    id: str
    view: View

    @property
    def signal(self) -> str:
        """The word before the stroke: ``logs``, ``traces``, ``metrics``."""
        return self.id.partition("/")[0]

    def uses(self, role: str) -> list[View]:
        """The ids in its ``receivers``, ``processors`` or ``exporters``, each with its line."""
        return [item for item in self.view.at(role).items() if isinstance(item.value, str)]

    def ids(self, role: str) -> list[str]:
        """The same without lines."""
        return [str(item.value) for item in self.uses(role)]


class Configuration:
    """What one Collector is started with.

    Args:
        root: expanded.

    Raises:
        ConfigurationError: a section has a shape that the Collector refuses; names file and line.
    """

    def __init__(self, root: Node) -> None:
        self.root = View(root, (), root.place)
        self._check(self.root)
        for kind in KINDS:
            self._check(self.root.at(kind))
        self._check(self.root.at("service"))
        pipelines = self.root.at("service", "pipelines")
        self._check(pipelines)
        for view in pipelines.children().values():
            self._check(view)
        self.pipelines: Final = {name: Pipeline(name, view) for name, view in pipelines.children().items()}
        if not self.pipelines and not isinstance(pipelines.value, Unknown):
            raise ConfigurationError(
                f"{pipelines.place}: service.pipelines is empty; is it a Collector configuration, or only a part of "
                "one (then give all its files and --merge)?"
            )

    @staticmethod
    def _check(view: View) -> None:
        if view.value is not None and not isinstance(view.value, (dict, Unknown)):
            what = "a list" if isinstance(view.value, list) else "a single value"
            raise ConfigurationError(f"{view.place}: {view.name or 'the document'} has to be a mapping, and is {what}")

    def section(self, kind: str) -> dict[str, Component]:
        """The components of a section by id."""
        return self._sections[kind]

    @lazy
    def _sections(self) -> dict[str, dict[str, Component]]:
        return {
            kind: {name: Component(kind, name, view) for name, view in self.root.at(kind).children().items()}
            for kind in KINDS
        }

    def component(self, role: str, name: str) -> Component | None:
        """What a pipeline means by an id in one of its lists: a connector stands among receivers and exporters."""
        found = self.section(role).get(name)
        if found is None and role in ("receivers", "exporters"):
            found = self.section("connectors").get(name)
        return found

    def components(self) -> Iterator[Component]:
        """All that are defined."""
        for kind in KINDS:
            yield from self.section(kind).values()

    @property
    def active_extensions(self) -> list[str]:
        """``service.extensions``."""
        return self.root.at("service", "extensions").texts()


def normal_type(component_id: str) -> str:
    """The type in an id, without underscores."""
    return component_id.partition("/")[0].strip().replace("_", "").lower()


def merge(roots: Iterable[Node]) -> Node:
    """Several files as one, as the Collector merges them: mappings key by key, everything else by the last."""
    merged: Node | None = None
    for root in roots:
        merged = root if merged is None else _merge(merged, root)
    return merged or Node({}, Place("", 1))


def _merge(first: Node, second: Node) -> Node:
    if not isinstance(first.value, dict) or not isinstance(second.value, dict):
        return second
    made = dict(first.value)
    for key, node in second.value.items():
        made[key] = _merge(made[key], node) if key in made else node
    return Node(made, second.place)
