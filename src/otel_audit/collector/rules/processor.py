"""Processors: what stands between an acknowledgement and an exporter, and what may touch a record."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ..configuration import Component
from ..flow import APPLICATION_LOGS, excludes_audit_alone, excludes_every_audit_record
from ..node import View
from .base import Audited, Hit, Severity, rule


@rule("batch-processor", Severity.ERROR, "the batch processor", loses=True)
def batch_processor(audited: Audited) -> Iterator[Hit]:
    """It answers for what it holds in memory."""
    for pipeline, use, component in audited.processors("batch", "groupbytrace", "interval"):
        yield Hit(
            use,
            f"{component.id} in {pipeline.id} acknowledges records that it holds in memory only: a pending batch is "
            "gone with the process",
            "take it out; where larger requests are needed, sending_queue.batch of an exporter whose queue has storage",
        )


@rule("sampling", Severity.ERROR, "a sampler", loses=True)
def sampling(audited: Audited) -> Iterator[Hit]:
    """Its job is to drop."""
    for pipeline, use, component in audited.processors("probabilisticsampler", "tailsampling", "isolationforest"):
        yield Hit(
            use,
            f"{component.id} in {pipeline.id} drops records on purpose, and acknowledges them",
            f"take it out of {pipeline.id}; sample application logs in a pipeline of their own",
        )


@rule("filter", Severity.ERROR, "a filter that may drop audit records", loses=True)
def filter_(audited: Audited) -> Iterator[Hit]:
    """Silent where it has no condition for logs, or where each excludes audit records."""
    for pipeline, _, component in audited.processors("filter"):
        for condition in _filter_conditions(component):
            text = condition.text()
            if isinstance(text, str) and text and not excludes_every_audit_record(text):
                yield Hit(
                    condition,
                    f"{component.id} in {pipeline.id} drops what fits this, acknowledged, and nothing in it says that "
                    "audit records do not",
                    f"filter application logs after the routing connector; or begin with {APPLICATION_LOGS} and",
                )


def _filter_conditions(component: Component) -> Iterator[View]:
    settings = component.settings
    for view in (settings.at("logs"), settings.at("log_conditions")):
        for each in view.walk():
            if isinstance(each.value, str) and "match_type" not in each.path and "error_mode" not in each.path:
                yield each


@rule("dedup", Severity.ERROR, "log_dedup", loses=True)
def dedup(audited: Audited) -> Iterator[Hit]:
    """It aggregates by content and rewrites time stamps, in memory."""
    for pipeline, use, component in audited.processors("logdedup"):
        yield Hit(
            use,
            f"{component.id} in {pipeline.id} holds records in memory, merges those that look alike, and rewrites "
            "their time stamps",
            "take it out; storage deduplicates by audit.record.id",
        )


_ALTERING: Final = (
    "attributes",
    "redaction",
    "logstransform",
    "groupbyattrs",
    "geoip",
    "sumologic",
    "schema",
    "unroll",
)
_RESOURCE_ONLY: Final = re.compile(r"resource\.|scope\.")


@rule("alters-records", Severity.ERROR, "a processor that changes audit records")
def alters_records(audited: Audited) -> Iterator[Hit]:
    """What was hashed and signed is no longer what is stored."""
    for pipeline, use, component in audited.processors(*_ALTERING):
        yield Hit(use, _altering(component.id, pipeline.id), _REPAIR_ALTERING)
    for pipeline, _, component in audited.processors("transform"):
        for statement in _statements(component):
            yield Hit(statement, _altering(component.id, pipeline.id), _REPAIR_ALTERING)


_REPAIR_ALTERING: Final = (
    "take it out; what has to be added belongs on the resource (the resource processor with action: insert), which no "
    "hash covers; what must not leave the application is redacted there, before it is hashed"
)


def _altering(component: str, pipeline: str) -> str:
    return f"{component} in {pipeline} changes records after they were hashed: nobody can verify them any more"


def _statements(component: Component) -> Iterator[View]:
    """The statements of a transform processor that touch records, not only their resource."""
    for group in component.settings.at("log_statements").items():
        if isinstance(group.value, str):
            if not _only_resource(group.value) and not _guarded(group.value):
                yield group
            continue
        context = group.at("context").text()
        conditions = group.at("conditions").texts()  # it is enough that one of them is true
        excluded = bool(conditions) and all(excludes_audit_alone(text) for text in conditions)
        if context in ("resource", "scope") or excluded:
            continue
        for statement in group.at("statements").items():
            text = statement.value
            if isinstance(text, str) and not _guarded(text) and not (context == "" and _only_resource(text)):
                yield statement


def _only_resource(statement: str) -> bool:
    """Whether the first argument of a statement's function is on the resource."""
    _, _, arguments = statement.partition("(")
    return bool(_RESOURCE_ONLY.match(arguments.strip()))


def _guarded(statement: str) -> bool:
    return excludes_audit_alone(statement.partition(" where ")[2])


@rule("alters-resource", Severity.WARNING, "a processor that changes whose records they are")
def alters_resource(audited: Audited) -> Iterator[Hit]:
    """``insert`` adds; everything else replaces what the application said of itself."""
    for pipeline, _, component in audited.processors("resource"):
        for action in component.settings.at("attributes").mappings():
            verb = action.at("action").text()
            if isinstance(verb, str) and verb in ("update", "upsert", "delete", "hash", "extract", "convert"):
                yield Hit(
                    action.at("action"),
                    f"{component.id} in {pipeline.id} replaces or removes what the application said of itself, and "
                    "nothing keeps the original",
                    "action: insert, under a key of your own",
                )


@rule("no-memory-limiter", Severity.WARNING, "nothing refuses before memory runs out")
def no_memory_limiter(audited: Audited) -> Iterator[Hit]:
    """Looked for where clients push records in: what a receiver fetches itself is bounded by what it fetches."""
    for pipeline in audited.pipelines:
        if not audited.pushed_to([pipeline]):
            continue
        types = [use.partition("/")[0] for use in pipeline.ids("processors")]
        if "memory_limiter" not in types:
            yield Hit(
                pipeline.view.at("processors"),
                f"under load the Collector is killed for want of memory, and with it everything that {pipeline.id} had "
                "in flight",
                f"memory_limiter as the first processor of {pipeline.id}: it answers 503 or UNAVAILABLE, and the "
                "client tries again",
            )
        elif types[0] != "memory_limiter":
            yield Hit(
                pipeline.view.at("processors"),
                f"in {pipeline.id} other processors take memory before memory_limiter can refuse",
                "memory_limiter first",
            )


@rule("memory-limiter-extension", Severity.ERROR, "memory_limiter as an extension")
def memory_limiter_extension(audited: Audited) -> Iterator[Hit]:
    """As an extension it answers RESOURCE_EXHAUSTED without RetryInfo, which clients take for final."""
    for component in audited.configuration.section("extensions").values():
        if component.type == "memorylimiter":
            yield Hit(
                component.settings,
                f"{component.id} as an extension refuses with RESOURCE_EXHAUSTED without RetryInfo: a client that "
                "keeps to OTLP does not try again, and drops the records",
                "memory_limiter as the first processor of each pipeline",
            )
