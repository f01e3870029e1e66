"""Which pipelines carry audit records: where they enter, followed through connectors.

1. Where the user says it (``--audit PIPELINE``), they enter there.
2. Else a pipeline carries them whose name, or the name of one of its receivers or exporters, contains ``audit``; or
   one of whose receivers has an ``audit`` in its path (``logs_url_path: /v1/audit``) or topic.
3. Where nothing says ``audit``, every logs pipeline is taken to carry them.

Then connectors are followed, against the stream (what feeds an audit pipeline carries audit records too) and with it.
A routing connector leads them to its default pipelines and by every row of its table whose condition does not exclude
audit records; where a row selects them (``… != nil``), only by such rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from .. import semconv as sc
from .configuration import Component, Configuration, Pipeline
from .node import View

SIGNAL: Final = "logs"
APPLICATION_LOGS: Final = f'log.event_name == "" and log.attributes["{sc.RECORD_ID}"] == nil'
"""The condition, in log context, of what is no audit record."""
_WORD: Final = "audit"
_NIL: Final = r"""(nil|"")"""
_ELSEWHERE: Final = r"""(?<!resource\.attributes\[")(?<!scope\.attributes\[")"""  # where no audit attribute stands
_SUBJECT: Final = rf"""(?:{_ELSEWHERE}audit\.[\w.]+"\]|\bevent_name)"""
_EXCLUDES: Final = re.compile(rf"{_SUBJECT}\s*==\s*{_NIL}")
_NO_NAME: Final = re.compile(r"""\bevent_name\s*==\s*"\"""")
_NO_ID: Final = re.compile(rf"""{_ELSEWHERE}audit\.[\w.]+"\]\s*==\s*{_NIL}""")
_OR: Final = re.compile(r"\bor\b")
_NOT: Final = re.compile(r"\bnot\b|\)\s*[!=]=")
"""What may turn a condition round: ``not (…)``, ``(…) == false``."""
_SELECTS: Final = re.compile(rf"""{_SUBJECT}\s*!=\s*{_NIL}|==\s*"[^"]*audit[^"]*"|IsMatch\([^)]*audit""")
# Turn log records into something else: what comes out of them is no audit record.
END_OF_RECORDS: Final = frozenset(("count", "sum", "signaltometrics", "spanmetrics", "servicegraph", "datadog"))


def row_condition(row: View) -> str:
    """The condition of a row of a routing table, also where it is written as a statement."""
    for key in ("condition", "statement"):
        text = row.at(key).text()
        if isinstance(text, str) and text:
            return text
    return ""


def excludes_audit(condition: str) -> bool:
    """Whether a condition is true only of records that are no audit records."""
    return bool(_EXCLUDES.search(condition)) and not _NOT.search(condition)


def excludes_every_audit_record(condition: str) -> bool:
    """Whether it asks for both, no name and no id, so that no audit record fits, whatever it lacks."""
    asks_for_both = bool(_NO_NAME.search(condition) and _NO_ID.search(condition))
    return asks_for_both and not _OR.search(condition) and not _NOT.search(condition)


def excludes_audit_alone(condition: str) -> bool:
    """The same, where nothing in it lets other records in beside."""
    return excludes_audit(condition) and not _OR.search(condition)


def selects_audit(condition: str) -> bool:
    """Whether a condition picks audit records out."""
    return not excludes_audit(condition) and bool(_SELECTS.search(condition))


class Flow:
    """The pipelines that carry audit records, and why.

    Args:
        configuration: the Collector's.
        entries: pipelines that the user names; empty: found by their names.  One that is not there is passed over.

    Attributes:
        logs: every logs pipeline by its id.
        reasons: pipeline → why it is taken to carry audit records.
        assumed: whether nothing said ``audit``, and so all logs pipelines are.
    """

    def __init__(self, configuration: Configuration, entries: Sequence[str] = ()) -> None:
        self.configuration = configuration
        self.logs = {name: each for name, each in configuration.pipelines.items() if each.signal == SIGNAL}
        found = {name: "named by --audit" for name in entries if name in self.logs} or {
            name: reason for name, each in self.logs.items() if (reason := self._sign(each))
        }
        self.assumed = not found
        if self.assumed:
            found = dict.fromkeys(self.logs, "nothing is named audit, so every logs pipeline is taken to be")
        self.reasons = found
        self._follow()

    def _sign(self, pipeline: Pipeline) -> str:
        if _WORD in pipeline.id:
            return "its name"
        for role in ("receivers", "exporters"):
            for name in pipeline.ids(role):
                component = self.configuration.component(role, name)
                if _WORD in name and (component is None or component.kind != "connectors"):
                    return f"the name of {name}"
                if component is not None and component.kind != "connectors" and _takes_audit(component):
                    return f"a path or topic of {name}"
        return ""

    def _follow(self) -> None:
        grown = True
        while grown:
            grown = False
            for source in self.logs.values():
                for connector, target in self.edges(source):
                    if source.id in self.reasons and self.leads(connector, target.id):
                        grown |= self._add(target, f"fed by {source.id} through {connector.id}")
                    elif target.id in self.reasons and not self._leads_something_else(connector, target):
                        grown |= self._add(source, f"feeds {target.id} through {connector.id}")

    def _leads_something_else(self, connector: Component, target: Pipeline) -> bool:
        """Whether it leads what is no audit record into a pipeline that has audit records from elsewhere."""
        return connector.type == "routing" and not self.leads(connector, target.id)

    def _add(self, pipeline: Pipeline, reason: str) -> bool:
        if pipeline.id in self.reasons:
            return False
        self.reasons[pipeline.id] = reason
        return True

    def edges(self, source: Pipeline) -> Iterator[tuple[Component, Pipeline]]:
        """The logs pipelines that a pipeline feeds, and through which connector."""
        for name in source.ids("exporters"):
            connector = self.configuration.component("exporters", name)
            if connector is None or connector.kind != "connectors" or connector.type in END_OF_RECORDS:
                continue
            for target in self.logs.values():
                if name in target.ids("receivers"):
                    yield connector, target

    def leads(self, connector: Component, target: str) -> bool:
        """Whether audit records that enter a connector come out into this pipeline."""
        if connector.type != "routing":
            return True
        rows = connector.settings.at("table").mappings()
        selecting = [row for row in rows if selects_audit(row_condition(row))]
        for row in selecting or rows:
            if target in row.at("pipelines").texts() and not excludes_audit(row_condition(row)):
                return True
        return not selecting and target in connector.settings.at("default_pipelines").texts()

    @property
    def pipelines(self) -> list[Pipeline]:
        """Those that carry audit records, in the order of the configuration."""
        return [each for name, each in self.logs.items() if name in self.reasons]


def _takes_audit(component: Component) -> bool:
    settings = component.settings
    paths = [settings.at("protocols", "http", "logs_url_path"), settings.at("topic"), settings.at("logs", "topic")]
    texts = [path.text() for path in paths]
    texts += [*settings.at("logs", "topics").texts(), *settings.at("topics").texts()]
    return any(isinstance(text, str) and _WORD in text for text in texts)
