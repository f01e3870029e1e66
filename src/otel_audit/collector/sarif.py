"""Findings as SARIF 2.1.0, which code hosts show beside the lines of a change."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from .._version import __version__
from .finding import Finding
from .rules import RULES

SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"
_ORDER: Final = {name: index for index, name in enumerate(RULES)}


def to_sarif(findings: Iterable[Finding], pages: Mapping[str, str]) -> dict[str, Any]:
    """A SARIF log with one run.

    Args:
        findings: those that a comment leaves are marked as suppressed in the source.
        pages: the documentation of each rule, in Markdown.
    """
    driver = {
        "name": "otel-audit collector lint",
        "version": __version__,
        "rules": [_rule(name, pages.get(name, "")) for name in _ORDER],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_result(each) for each in findings],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(name: str, page: str) -> dict[str, Any]:
    rule = RULES[name]
    described: dict[str, Any] = {
        "id": name,
        "shortDescription": {"text": rule.title},
        "defaultConfiguration": {"level": rule.severity.value},
        "properties": {"loses": rule.loses},
    }
    if page:
        described["help"] = {"text": page, "markdown": page}
    return described


def _result(finding: Finding) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": finding.rule,
        "ruleIndex": _ORDER[finding.rule],
        "level": finding.severity.value,
        "message": {"text": f"{finding.reason}. Repair: {finding.repair}"},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(finding.place.file)},
                    "region": {"startLine": finding.place.line},
                },
                **({"logicalLocations": [{"fullyQualifiedName": finding.path}]} if finding.path else {}),
            }
        ],
    }
    if finding.ignored:
        result["suppressions"] = [{"kind": "inSource", "justification": finding.ignored}]
    return result


def _uri(file: str) -> str:
    path = Path(file)
    return path.as_uri() if path.is_absolute() else quote(path.as_posix())
