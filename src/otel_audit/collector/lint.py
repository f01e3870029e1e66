"""The linter: the texts of configurations in, findings out.  No I/O but what ``read_file`` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

from ..errors import ConfigurationError
from ..options import suggestion
from .configuration import Configuration, merge
from .expansion import Expansion
from .finding import Finding
from .flow import Flow
from .node import Place
from .parsing import Parsed, parse
from .rules import RULES, Audited, Hit, Rule
from .suppression import apply_comments


@dataclass(frozen=True)
class Linted:
    """What was found in one configuration.

    Attributes:
        files: the files that it was merged from.
        findings: by file and line, those that comments leave included.
        audit_pipelines: pipeline → why it is taken to carry audit records.
        assumed: whether that is only an assumption, because nothing is named audit.
        unknown: what could not be known, with where it stands; nothing was held against it.
    """

    files: tuple[str, ...]
    findings: list[Finding]
    audit_pipelines: Mapping[str, str]
    assumed: bool
    unknown: Mapping[str, Place]


@dataclass(frozen=True)
class Source:
    """A file that was read."""

    name: str
    text: str


ReadFile: TypeAlias = Callable[[str, Place], "str | None"]
"""The text of a file that ``${file:…}`` names, and where it does; ``None`` where it cannot be had."""


def lint(
    configurations: Sequence[Sequence[Source]],
    environ: Mapping[str, str],
    *,
    read_file: ReadFile = lambda _reference, _place: None,
    audit: Sequence[str] = (),
    chain: bool = False,
) -> list[Linted]:
    """Look at configurations.

    Args:
        configurations: each the files that one Collector is started with, in that order.
        environ: for ``${env:…}``; what is not in it has its default, or is unknown.
        read_file: reads what ``${file:…}`` names; else that is unknown.
        audit: pipelines that audit records enter, in the configurations that have them; empty: found by their names.
        chain: whether the configurations are hops that follow one another, the application's first.

    Raises:
        ConfigurationError: a file is not a Collector configuration; names file and line.
    """
    prepared = [_prepare(sources, Expansion(environ, read_file), audit) for sources in configurations]
    logs = {name: None for _, audited, _ in prepared for name in audited.flow.logs}
    for name in audit:
        if name not in logs:
            raise ConfigurationError(f"--audit: there is no logs pipeline {name!r}; {suggestion(name, logs)}")
    found = [list(_findings(audited)) for _, audited, _ in prepared]
    if chain:
        for number, (sender, receiver) in enumerate(pairwise(prepared)):
            found[number] += _hop_findings(sender[1], receiver[1])
    return [
        Linted(
            files=tuple(source.name for source in sources),
            findings=_sorted(apply_comments(findings, parsed)),
            audit_pipelines={pipeline.id: audited.flow.reasons[pipeline.id] for pipeline in audited.pipelines},
            assumed=audited.flow.assumed,
            unknown=expansion.unknown,
        )
        for sources, (parsed, audited, expansion), findings in zip(configurations, prepared, found, strict=True)
    ]


def _prepare(
    sources: Sequence[Source], expansion: Expansion, audit: Sequence[str]
) -> tuple[list[Parsed], Audited, Expansion]:
    parsed = [parse(source.text, source.name) for source in sources]
    configuration = Configuration(expansion.expand(merge(each.root for each in parsed)))
    return parsed, Audited(configuration, Flow(configuration, audit)), expansion


def _findings(audited: Audited) -> Iterator[Finding]:
    for rule in RULES.values():
        if rule.check is not None:
            yield from _of_rule(rule, rule.check(audited))


def _hop_findings(sender: Audited, receiver: Audited) -> Iterator[Finding]:
    for rule in RULES.values():
        if rule.hop_check is not None:
            yield from _of_rule(rule, rule.hop_check(sender, receiver))


def _of_rule(rule: Rule, hits: Iterator[Hit]) -> Iterator[Finding]:
    """Findings, each once: two pipelines may lead to the same line."""
    seen = set()
    for hit in hits:
        key = (hit.view.name, hit.view.place)
        if key not in seen:
            seen.add(key)
            yield Finding(rule.id, rule.severity, hit.view.place, hit.view.name, hit.reason, hit.repair, rule.loses)


def _sorted(findings: list[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda each: (each.place.file, each.place.line, -each.severity.rank, each.rule))
