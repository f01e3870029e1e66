"""Queues: where an exporter keeps what it has acknowledged and not yet sent."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..node import Unknown
from .base import Audited, Hit, Severity, answers_early, persistent, queue_of, rule, storage_of


@rule("memory-queue", Severity.ERROR, "a sending queue in memory", loses=True)
def memory_queue(audited: Audited) -> Iterator[Hit]:
    """The default of most exporters; the failover connector has one where it is given."""
    for exporter in (*audited.exporters(), *(each for _, each in audited.connectors("failover"))):
        queue = answers_early(exporter)
        if queue is not None and not persistent(queue):
            what = "queues" if queue.given else "queues by default"
            yield Hit(
                queue.at("storage") if queue.given else exporter.settings,
                f"{exporter.id} {what} in memory: what it has acknowledged is gone with the process",
                "sending_queue.storage: a file_storage extension with fsync: true; or, where nothing may be kept here, "
                "wait_for_result: true",
            )


@rule("storage-fsync", Severity.ERROR, "a queue on disk that is not synced", loses=True)
def storage_fsync(audited: Audited) -> Iterator[Hit]:
    """``fsync`` is off where nothing is said."""
    for exporter in audited.exporters():
        queue = queue_of(exporter)
        storage = storage_of(audited, queue) if queue is not None else None
        if storage is None or storage.type != "filestorage":
            continue
        fsync = storage.settings.at("fsync")
        if fsync.boolean(False) is False:
            yield Hit(
                fsync,
                f"{storage.id} keeps the queue of {exporter.id} and does not sync it: after a power cut acknowledged "
                "records are missing, or the file is damaged",
                "fsync: true",
            )


@rule("storage-recreate", Severity.ERROR, "a damaged queue is replaced by an empty one", loses=True)
def storage_recreate(audited: Audited) -> Iterator[Hit]:
    """``recreate`` renames a file that cannot be opened, and goes on."""
    for exporter in audited.exporters():
        queue = queue_of(exporter)
        storage = storage_of(audited, queue) if queue is not None else None
        if storage is not None and storage.settings.at("recreate").boolean(False) is True:
            yield Hit(
                storage.settings.at("recreate"),
                f"{storage.id} starts with an empty queue where the file of {exporter.id} is damaged, and says so in a "
                "log line only",
                "recreate: false; then the Collector does not start, and somebody can look at the file",
            )


@rule("storage-not-active", Severity.ERROR, "a queue names a storage that is not started")
def storage_not_active(audited: Audited) -> Iterator[Hit]:
    """``otelcol validate`` does not see it; the start fails."""
    for exporter in audited.exporters():
        queue = queue_of(exporter)
        name = queue.at("storage").text() if queue is not None else ""
        if queue is None or isinstance(name, Unknown) or not name:
            continue
        if name not in audited.configuration.section("extensions"):
            problem, repair = "is not defined", f"define {name} under extensions, and name it in service.extensions"
        elif name not in audited.configuration.active_extensions:
            problem, repair = "is not in service.extensions", f"add {name} to service.extensions"
        else:
            continue
        yield Hit(queue.at("storage"), f"{name}, which {exporter.id} names, {problem}: the start fails", repair)


_VOLATILE = re.compile(r"/(tmp|dev/shm|run|var/run|var/tmp)(/|$)")


@rule("volatile-directory", Severity.ERROR, "records are kept in a directory that does not last")
def volatile_directory(audited: Audited) -> Iterator[Hit]:
    """Temporary directories are emptied at a start of the machine, or kept in memory."""
    views = [exporter.settings.at("path") for exporter in audited.exporters("file")]
    for exporter in audited.exporters():
        queue = queue_of(exporter)
        storage = storage_of(audited, queue) if queue is not None else None
        if storage is not None and storage.type == "filestorage":
            views.append(storage.settings.at("directory"))
    seen = set()
    for view in views:
        path = view.text()
        if isinstance(path, str) and _VOLATILE.match(path) and view.name not in seen:
            seen.add(view.name)
            yield Hit(
                view,
                f"{path} is emptied when the machine starts, or by a cleaner, or is kept in memory",
                "a directory on a disk that lasts, such as /var/lib/otelcol-audit, one for each Collector",
            )


@rule("shared-directory", Severity.ERROR, "two writers on one file or directory")
def shared_directory(audited: Audited) -> Iterator[Hit]:
    """Seen within one configuration: two file exporters with one path, or two storages with one directory."""
    sections = audited.configuration.section
    files = [each.settings.at("path") for each in sections("exporters").values() if each.type == "file"]
    stores = [each.settings.at("directory") for each in sections("extensions").values() if each.type == "filestorage"]
    for views in (files, stores):
        first: dict[str, str] = {}
        for view in views:
            path = view.text()
            if not isinstance(path, str) or not path:
                continue
            if path in first:
                yield Hit(
                    view,
                    f"{first[path]} writes to {path} too: one rotates or locks away what the other writes",
                    "a path of its own for each; and for each replica a directory of its own",
                )
            first.setdefault(path, view.path[1])


@rule("wait-for-result-with-storage", Severity.ERROR, "wait_for_result together with storage")
def wait_for_result_with_storage(audited: Audited) -> Iterator[Hit]:
    """The Collector refuses the combination."""
    for exporter in audited.exporters():
        queue = queue_of(exporter)
        if queue is not None and persistent(queue) and queue.at("wait_for_result").boolean(False) is True:
            yield Hit(
                queue.at("wait_for_result"),
                f"the queue of {exporter.id} has both, and the Collector does not start with it",
                "storage, to answer when it is on disk; or wait_for_result, to answer when the destination has",
            )


@rule("block-on-overflow", Severity.WARNING, "a full queue holds its clients")
def block_on_overflow(audited: Audited) -> Iterator[Hit]:
    """Where nobody pushes, blocking is how a receiver is told to fetch no more."""
    if not audited.pushed_to(audited.pipelines):
        return
    for exporter in audited.exporters():
        queue = queue_of(exporter)
        if queue is not None and queue.at("block_on_overflow").boolean(False) is True:
            yield Hit(
                queue.at("block_on_overflow"),
                f"where the queue of {exporter.id} is full, a client waits until its own deadline, and sends again "
                "what may have been taken",
                "block_on_overflow: false: a full queue answers 503 or UNAVAILABLE at once, and the client keeps its "
                "records",
            )


@rule("queue-in-requests", Severity.NOTE, "a queue on disk without a bound in bytes")
def queue_in_requests(audited: Audited) -> Iterator[Hit]:
    """1,000 requests where nothing is said: from kilobytes to many gigabytes."""
    for exporter in audited.exporters():
        queue = answers_early(exporter)
        if queue is None or not queue.given or not persistent(queue):
            continue
        sizer = queue.at("sizer").text("requests")
        if isinstance(sizer, str) and sizer != "bytes":
            yield Hit(
                queue.at("sizer"),
                f"the queue of {exporter.id} is counted in {sizer}: how much disk it takes, and how long an outage it "
                "bridges, depends on the size of the records",
                "sizer: bytes, and queue_size in bytes",
            )


@rule("queue-batch-max-size", Severity.ERROR, "a batch with an upper bound", loses=True)
def queue_batch_max_size(audited: Audited) -> Iterator[Hit]:
    """An over-size record takes what is queued behind it along, before 0.162."""
    for exporter in audited.exporters():
        queue = answers_early(exporter)
        limit = queue.at("batch", "max_size") if queue is not None else None
        size = limit.number(0) if limit is not None else 0
        if limit is not None and not isinstance(size, Unknown) and size > 0:
            yield Hit(
                limit,
                f"a record that is larger than max_size cannot be split: {exporter.id} drops it, and before Collector "
                "0.162 also what is queued behind it",
                "leave max_size out, and bound requests where they come in (max_recv_msg_size_mib, "
                "max_request_body_size)",
            )
