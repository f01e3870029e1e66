"""Routing: which way a record takes, above all one that nobody thought of."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ..flow import (
    APPLICATION_LOGS,
    excludes_audit,
    excludes_every_audit_record,
    row_condition,
    selects_audit,
)
from ..node import Unknown, View
from .base import Audited, Hit, Severity, rule

_UNQUALIFIED: Final = re.compile(r"(?<![\w.])attributes\[")
_OF_OTHERS: Final = re.compile(r"""(?:resource|scope)\.attributes\["audit\.""")


@rule("no-default-route", Severity.ERROR, "no default route", loses=True)
def no_default_route(audited: Audited) -> Iterator[Hit]:
    """What no row matches is dropped, and acknowledged."""
    for connector in _routing(audited):
        default = connector.at("default_pipelines")
        if default.value is None or default.value == []:
            yield Hit(
                default,
                f"{connector.path[1]} drops what no row of its table matches, and acknowledges it",
                "default_pipelines: the audit pipeline; and match application logs in the table",
            )


@rule("audit-not-default", Severity.ERROR, "audit records are matched instead of being the default", loses=True)
def audit_not_default(audited: Audited) -> Iterator[Hit]:
    """A record that the condition does not know is no audit record any more."""
    for connector in _routing(audited):
        for row in connector.at("table").mappings():
            if selects_audit(row_condition(row)):
                yield Hit(
                    row.at("condition" if row.at("condition").given else "statement"),
                    f"{connector.path[1]} picks audit records out: one without what the condition asks for (no name, "
                    "no id, an older library) goes where application logs go",
                    "default_pipelines: the audit pipeline; and a row in context log that matches application logs: "
                    f"{APPLICATION_LOGS}",
                )


@rule("application-too-wide", Severity.WARNING, "application logs are matched too widely", loses=True)
def application_too_wide(audited: Audited) -> Iterator[Hit]:
    """A row for what has no id takes audit records that have only a name along; so does one with an ``or``."""
    for connector in _routing(audited):
        for row in connector.at("table").mappings():
            condition = row_condition(row)
            in_log_context = row.at("context").text("resource") == "log"
            if in_log_context and excludes_audit(condition) and not excludes_every_audit_record(condition):
                yield Hit(
                    row.at("condition" if row.at("condition").given else "statement"),
                    f"{connector.path[1]} takes what lacks only a name, or only an id, for an application log: an "
                    "audit record of another library goes where application logs go",
                    f"ask for both: {APPLICATION_LOGS}",
                )


@rule("wrong-context", Severity.ERROR, "the attributes of the resource instead of the record's", loses=True)
def wrong_context(audited: Audited) -> Iterator[Hit]:
    """A condition without ``context`` is asked of the resource, where no audit attribute stands."""
    for connector in _routing(audited):
        for row in connector.at("table").mappings():
            context = row.at("context").text("resource")
            condition = row_condition(row)
            of_resource = not isinstance(context, Unknown) and context == "resource"
            unqualified = of_resource and _UNQUALIFIED.search(condition) and re.search(r"audit\.|event", condition)
            if unqualified or _OF_OTHERS.search(condition):
                yield Hit(
                    row.at("condition" if row.at("condition").given else "statement"),
                    "these attributes[...] are those of the resource (as without context: log) or of the scope, where "
                    "no audit record has them: the condition is true, or false, of all of them",
                    "context: log, and log.attributes[...] in the condition",
                )


@rule("error-mode", Severity.ERROR, "a condition that fails sends the record elsewhere", loses=True)
def error_mode(audited: Audited) -> Iterator[Hit]:
    """``ignore`` and ``silent`` take the default route; ``propagate``, which is the default, refuses the request."""
    for connector in _routing(audited):
        mode = connector.at("error_mode")
        default = connector.at("default_pipelines")
        if mode.text("propagate") not in ("ignore", "silent") or isinstance(default.value, Unknown):
            continue
        if not any(name in audited.flow.reasons for name in default.texts()):
            yield Hit(
                mode,
                f"where a condition of {connector.path[1]} cannot be evaluated, its record goes to the default route, "
                "which is not the audit pipeline, and the sender hears nothing of it",
                "error_mode: propagate: the request is refused and can be sent again; and audit as the default route",
            )


def _routing(audited: Audited) -> Iterator[View]:
    """The settings of the routing connectors that audit records enter, each once."""
    seen = set()
    for _, connector in audited.connectors("routing"):
        if connector.id not in seen:
            seen.add(connector.id)
            yield connector.settings
