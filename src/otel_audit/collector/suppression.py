"""``# otel-audit: ignore RULE, RULE: reason``: leaves findings of the line that it stands on, or of the next one.

At the end of a line it is about that line, on a line of its own about the next line that holds something.  A comment
without a reason, with a rule that is not there, or that leaves nothing is itself reported, and leaves nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from ..options import suggestion
from .finding import Finding
from .node import Place
from .parsing import Comment, Parsed
from .rules import RULES, Rule
from .rules.comment import UNKNOWN_RULE, UNUSED, WITHOUT_REASON

_COMMENT: Final = re.compile(r"otel-audit\s*:?\s*ignore\b\s*(?P<rules>[^:]*)(:\s*(?P<reason>.*))?")


@dataclass
class _Suppression:
    place: Place
    line: int
    rules: tuple[str, ...]
    reason: str
    used: set[str] = field(default_factory=set)

    def __contains__(self, finding: Finding) -> bool:
        return finding.place == Place(self.place.file, self.line) and finding.rule in self.rules


def apply_comments(findings: Iterable[Finding], files: Iterable[Parsed]) -> list[Finding]:
    """The findings, those that a comment leaves marked with its reason, and those about the comments themselves."""
    made: list[Finding] = []
    suppressions = []
    for parsed in files:
        for comment in parsed.comments:
            match = _COMMENT.match(comment.text)
            if match is None:
                continue
            suppression = _read(match, comment, parsed)
            about = list(_mistakes(suppression))
            made += about
            if not about:
                suppressions.append(suppression)
    for finding in findings:
        by = next((each for each in suppressions if finding in each), None)
        if by is not None:
            by.used.add(finding.rule)
        made.append(replace(finding, ignored=by.reason) if by else finding)
    for suppression in suppressions:
        for name in suppression.rules:
            if name not in suppression.used:
                made.append(
                    _about(suppression, UNUSED, f"{name} finds nothing in line {suppression.line}", "take it out")
                )
    return made


def _read(match: re.Match[str], comment: Comment, parsed: Parsed) -> _Suppression:
    line = comment.place.line
    if comment.alone:
        position = bisect_right(parsed.filled_lines, line)
        line = parsed.filled_lines[position] if position < len(parsed.filled_lines) else line
    rules = tuple(dict.fromkeys(name for name in re.split(r"[,\s]+", match["rules"].strip()) if name))
    return _Suppression(comment.place, line, rules, (match["reason"] or "").strip())


def _mistakes(suppression: _Suppression) -> Iterator[Finding]:
    form = "# otel-audit: ignore RULE: reason"
    if not suppression.rules:
        yield _about(suppression, UNKNOWN_RULE, "it names no rule", form)
    elif not suppression.reason:
        yield _about(suppression, WITHOUT_REASON, "whoever reads it later cannot tell whether it still holds", form)
    for name in suppression.rules:
        if name not in RULES:
            yield _about(suppression, UNKNOWN_RULE, f"there is no rule {name}", suggestion(name, RULES))


def _about(suppression: _Suppression, rule: Rule, reason: str, repair: str) -> Finding:
    return Finding(rule.id, rule.severity, suppression.place, "", reason, repair)
