"""The last hop: what an exporter's acknowledgement is worth."""

from __future__ import annotations

from collections.abc import Iterator

from ..configuration import normal_type
from ..flow import END_OF_RECORDS
from ..node import UNKNOWN
from .base import Audited, Hit, Severity, rule


@rule("file-append", Severity.ERROR, "a file that is written by and by", loses=True)
def file_append(audited: Audited) -> Iterator[Hit]:
    """With ``append`` and without ``rotation`` the exporter buffers for a second."""
    for exporter in audited.exporters("file"):
        settings = exporter.settings
        if settings.at("append").boolean(False) is True and not settings.at("rotation").given:
            yield Hit(
                settings.at("append"),
                f"{exporter.id} acknowledges what it holds in a buffer for up to a second: killed, it loses that",
                "rotation instead of append: with it every request is written at once, and the file is not truncated "
                "at a start",
            )


@rule("file-truncated", Severity.ERROR, "a file that is emptied at every start", loses=True)
def file_truncated(audited: Audited) -> Iterator[Hit]:
    """The default of the file exporter."""
    for exporter in audited.exporters("file"):
        settings = exporter.settings
        grouped = settings.at("group_by", "enabled").boolean(False) is not False
        if settings.at("append").boolean(False) is False and not settings.at("rotation").given and not grouped:
            yield Hit(
                settings,
                f"{exporter.id} truncates its file when the Collector starts",
                "rotation: {max_megabytes: 100, max_backups: 0}",
            )


@rule("file-deleted", Severity.ERROR, "rotation that deletes old files", loses=True)
def file_deleted(audited: Audited) -> Iterator[Hit]:
    """100 old files are kept where nothing is said."""
    for exporter in audited.exporters("file"):
        rotation = exporter.settings.at("rotation")
        if not rotation.given or rotation.value is UNKNOWN:
            continue
        for key, default in (("max_backups", 100), ("max_days", 0)):
            limit = rotation.at(key)
            kept = limit.number(default)
            if kept is not UNKNOWN and kept != 0:
                what = f"the oldest of {kept:g} rotated files" if key == "max_backups" else f"files after {kept:g} days"
                said = "" if limit.given else ", which is the default"
                yield Hit(
                    limit,
                    f"{exporter.id} deletes {what}{said}",
                    f"{key}: 0, and let whoever archives the files remove them",
                )


@rule("nowhere", Severity.ERROR, "a pipeline that keeps nothing", loses=True)
def nowhere(audited: Audited) -> Iterator[Hit]:
    """All its exporters are for looking at, or count records and let them go."""
    for pipeline in audited.pipelines:
        uses = pipeline.uses("exporters")
        if uses and all(_keeps_nothing(audited, str(use.value)) for use in uses):
            yield Hit(
                pipeline.view.at("exporters"),
                f"{pipeline.id} acknowledges records and keeps them nowhere",
                "an exporter that stores or forwards them",
            )


def _keeps_nothing(audited: Audited, name: str) -> bool:
    component = audited.configuration.component("exporters", name)
    if component is not None and component.kind == "connectors":
        return component.type in END_OF_RECORDS
    return normal_type(name) in ("debug", "nop", "logging")


@rule("clickhouse-async-insert", Severity.ERROR, "ClickHouse acknowledges before it has written")
def clickhouse_async_insert(audited: Audited) -> Iterator[Hit]:
    """On where nothing is said."""
    for exporter in audited.exporters("clickhouse"):
        setting = exporter.settings.at("async_insert")
        if setting.boolean(True) is True:
            yield Hit(
                setting,
                f"{exporter.id} lets the server collect inserts in memory: depending on its settings it acknowledges "
                "before they are in a table",
                "async_insert: false, and batches of 5,000 rows or more",
            )


@rule("clickhouse-create-schema", Severity.WARNING, "the exporter makes the tables")
def clickhouse_create_schema(audited: Audited) -> Iterator[Hit]:
    """Its tables do not deduplicate, and a TTL deletes."""
    for exporter in audited.exporters("clickhouse"):
        setting = exporter.settings.at("create_schema")
        if setting.boolean(True) is True:
            yield Hit(
                setting,
                f"{exporter.id} makes its own tables: they keep every duplicate, and it needs the right to make tables",
                "create_schema: false, and the tables from collector-config/sql",
            )


@rule("s3-same-name", Severity.WARNING, "objects that may replace one another", loses=True)
def s3_same_name(audited: Audited) -> Iterator[Hit]:
    """Nine random digits where nothing is said."""
    for exporter in audited.exporters("awss3"):
        name = exporter.settings.at("s3uploader", "unique_key_func_name")
        if name.text() == "":
            yield Hit(
                name,
                f"{exporter.id} tells objects of the same minute apart by nine random digits: at many objects a minute "
                "one replaces another, unless the bucket keeps versions",
                "s3uploader.unique_key_func_name: uuidv7",
            )
