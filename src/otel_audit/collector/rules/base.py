"""What a rule is, and what it is given: the configuration, and the pipelines of it that carry audit records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from ..catalogue import FETCHING, QUEUED_BY_DEFAULT
from ..configuration import Component, Configuration, Pipeline
from ..flow import Flow
from ..node import UNKNOWN, View


class Severity(str, Enum):
    """How bad it is: ``error``, records get lost, or it does not run; ``warning``, they can; ``note``, worth a look."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    @property
    def rank(self) -> int:
        """Larger is worse."""
        return (Severity.NOTE, Severity.WARNING, Severity.ERROR).index(self)


@dataclass(frozen=True, slots=True)
class Hit:
    """What a rule has found.

    Attributes:
        view: where: the key that is wrong, or the nearest thing above the one that is missing.
        reason: what happens because of it.
        repair: what to write instead.
    """

    view: View
    reason: str
    repair: str


class Audited:
    """A configuration as rules see it: through the pipelines that carry audit records.

    Args:
        configuration: the Collector's.
        flow: which of its pipelines carry audit records.
    """

    def __init__(self, configuration: Configuration, flow: Flow) -> None:
        self.configuration: Final = configuration
        self.flow: Final = flow
        self.pipelines: Final = flow.pipelines

    def processors(self, *types: str) -> Iterator[tuple[Pipeline, View, Component]]:
        """The processors of these types that audit records pass, with the line in the pipeline that names them."""
        for pipeline in self.pipelines:
            for use in pipeline.uses("processors"):
                component = self.configuration.component("processors", str(use.value))
                if component is not None and component.type in types:
                    yield pipeline, use, component

    def exporters(self, *types: str) -> Iterator[Component]:
        """The exporters that audit records end in, each once; of these types, or all."""
        yield from self._ends("exporters", types)

    def receivers(self, *types: str) -> Iterator[Component]:
        """The receivers that audit records come in by, each once; of these types, or all."""
        yield from self._ends("receivers", types)

    def pushed_to(self, pipelines: Iterable[Pipeline]) -> bool:
        """Whether a receiver of these pipelines has clients that wait for it, instead of fetching at its own pace."""
        used = {name for pipeline in pipelines for name in pipeline.ids("receivers")}
        receivers = self.configuration.section("receivers")
        return any(receivers[name].type not in FETCHING for name in used if name in receivers)

    def connectors(self, *types: str) -> Iterator[tuple[Pipeline, Component]]:
        """The connectors of these types that audit records go into, with the pipeline from which they do."""
        for pipeline in self.pipelines:
            for name in pipeline.ids("exporters"):
                component = self.configuration.component("exporters", name)
                if component is not None and component.kind == "connectors" and component.type in types:
                    yield pipeline, component

    def _ends(self, role: str, types: tuple[str, ...]) -> Iterator[Component]:
        seen = set()
        for pipeline in self.pipelines:
            for name in pipeline.ids(role):
                component = self.configuration.section(role).get(name)
                if component is None or name in seen or (types and component.type not in types):
                    continue
                seen.add(name)
                yield from _parts(component)


def _parts(component: Component) -> Iterator[Component]:
    """A component; of one that hands on to exporters of its own, those too."""
    if component.type != "loadbalancing":
        yield component
        return
    yield Component(component.kind, component.id, component.settings.at("protocol", "otlp"))
    if component.settings.at("sending_queue").given:  # its own is off where nothing is said
        yield component


Check: TypeAlias = Callable[[Audited], Iterator[Hit]]
HopCheck: TypeAlias = Callable[[Audited, Audited], Iterator[Hit]]


@dataclass(frozen=True)
class Rule:
    """A rule.

    Attributes:
        id: its name in reports, comments and documentation.
        severity: of what it finds.
        title: what is wrong, in a few words.
        loses: whether records that were acknowledged are lost where it is broken.
        check: finds it in one configuration.
        hop_check: finds it between two that follow one another; the first is the sender.
    """

    id: str
    severity: Severity
    title: str
    loses: bool = False
    check: Check | None = field(default=None, repr=False)
    hop_check: HopCheck | None = field(default=None, repr=False)


RULES: Final[dict[str, Rule]] = {}
"""Every rule by its id; filled as the files of this folder are loaded."""


def rule(rule_id: str, severity: Severity, title: str, *, loses: bool = False) -> Callable[[Check], Check]:
    """Make a function the check of a rule."""

    def register(check: Check) -> Check:
        _register(Rule(rule_id, severity, title, loses, check=check))
        return check

    return register


def hop_rule(rule_id: str, severity: Severity, title: str, *, loses: bool = False) -> Callable[[HopCheck], HopCheck]:
    """Make a function the check of a rule about two configurations that follow one another."""

    def register(check: HopCheck) -> HopCheck:
        _register(Rule(rule_id, severity, title, loses, hop_check=check))
        return check

    return register


def bare_rule(rule_id: str, severity: Severity, title: str) -> Rule:
    """A rule that something else than a check finds."""
    return _register(Rule(rule_id, severity, title))


def _register(made: Rule) -> Rule:
    assert made.id not in RULES, made.id  # noqa: S101 - a mistake in this package
    RULES[made.id] = made
    return made


def queue_of(exporter: Component) -> View | None:
    """The settings of an exporter's sending queue; ``None`` where it has none, or where that cannot be known."""
    queue = exporter.settings.at("sending_queue")
    enabled = queue.at("enabled").boolean(True)
    if enabled is not True or queue.value is UNKNOWN:
        return None
    return queue if queue.given or exporter.type in QUEUED_BY_DEFAULT else None


def answers_early(exporter: Component) -> View | None:
    """The queue of an exporter that acknowledges what it has not sent yet; ``None`` where it does not, or may not."""
    queue = queue_of(exporter)
    if queue is None or queue.at("wait_for_result").boolean(False) is not False:
        return None
    return queue


def persistent(queue: View) -> bool:
    """Whether a queue is kept by a storage extension; one that cannot be known counts as kept."""
    storage = queue.at("storage")
    return storage.value is not None


def storage_of(audited: Audited, queue: View) -> Component | None:
    """The storage extension of a queue, where it is defined."""
    name = queue.at("storage").text()
    return audited.configuration.section("extensions").get(name) if isinstance(name, str) else None
