"""What is not there, or not known."""

from __future__ import annotations

from collections.abc import Iterator

from ...options import suggestion
from ..catalogue import KNOWN
from ..configuration import normal_type
from .base import Audited, Hit, Severity, rule

_ROLES = ("receivers", "processors", "exporters")


@rule("unknown-component", Severity.WARNING, "a component that otelcol-contrib does not have")
def unknown_component(audited: Audited) -> Iterator[Hit]:
    """Misspelt, or from a Collector of your own."""
    for component in audited.configuration.components():
        known = KNOWN[component.kind]
        if component.type not in known:
            near = suggestion(component.type, sorted(known)).partition("there are: ")[0]
            yield Hit(
                component.settings,
                f"otelcol-contrib has no {component.kind[:-1]} of the type {component.id.partition('/')[0]}: the start "
                "fails, and nothing is known here of what it does to records",
                near or "the right name; where it is from a Collector of your own, ignore this rule with that reason",
            )


@rule("undefined-component", Severity.ERROR, "a pipeline names what is not defined")
def undefined_component(audited: Audited) -> Iterator[Hit]:
    """In any pipeline: the Collector does not start."""
    configuration = audited.configuration
    for pipeline in configuration.pipelines.values():
        for role in _ROLES:
            for use in pipeline.uses(role):
                name = str(use.value)
                if configuration.component(role, name) is None and _is_readable(audited, role):
                    yield Hit(
                        use,
                        f"{pipeline.id} names {name}, which is not defined under {role}: the start fails",
                        f"{suggestion(name, configuration.section(role))}",
                    )
    for use in configuration.root.at("service", "extensions").items():
        name = str(use.value)
        if name not in configuration.section("extensions") and _is_readable(audited, "extensions"):
            yield Hit(
                use, f"{name} is not defined under extensions: the start fails", f"define {name} under extensions"
            )


def _is_readable(audited: Audited, section: str) -> bool:
    value = audited.configuration.root.at(section).value
    return value is None or isinstance(value, dict)


@rule("unconnected", Severity.WARNING, "a receiver of audit records that no pipeline uses")
def unconnected(audited: Audited) -> Iterator[Hit]:
    """It does not listen."""
    configuration = audited.configuration
    used = {name for each in configuration.pipelines.values() for name in each.ids("receivers")}
    for name, component in configuration.section("receivers").items():
        if name not in used and "audit" in name and normal_type(name) in KNOWN["receivers"]:
            yield Hit(
                component.settings,
                f"{name} is in no pipeline: the Collector does not start it, and connections to it are refused",
                "name it in the receivers of the audit pipeline",
            )
