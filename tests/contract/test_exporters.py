"""What every exporter promises, run over all of them."""

from __future__ import annotations

import fcntl
import inspect
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from otel_audit import exporters
from otel_audit import semconv as sc
from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.canonical import canonicalize
from otel_audit.errors import (
    BlockedExportError,
    ConfigurationError,
    RejectedExportError,
    RetryableExportError,
)
from otel_audit.exporters import EXPORTERS, exporter_class
from otel_audit.exporters.file import FileExporter
from otel_audit.exporters.http import HttpExporter
from otel_audit.exporters.otlp_grpc import OtlpGrpcExporter
from otel_audit.exporters.otlp_http import OtlpHttpExporter
from otel_audit.options import REQUIRED, read_options
from otel_audit.protocols import AuditRecordExporter
from otel_audit.testing import GrpcReply, Reply, ScriptedGrpcReceiver, ScriptedReceiver

SECRET = "s3cret-value"

KINDS = ("file", "http", "otlp", "otlp-grpc", "otlp-json")
"""Types of destinations; of OTLP, with each protocol."""

CLASSES = (FileExporter, HttpExporter, OtlpGrpcExporter, OtlpHttpExporter)


def batch_of(*ids: str, start: int = 1) -> RecordBatch:
    """A batch of small records."""
    records = []
    for sequence, record_id in enumerate(ids, start):
        attributes = {sc.RECORD_ID: record_id, sc.ACTOR_ID: "u-1", sc.SEQUENCE_NUMBER: sequence}
        canonical = canonicalize("user.login", 10**18, 10**18, "Grüße", attributes, "", "")
        records.append(StoredRecord(sequence, f"{sequence:064x}", canonical))
    return RecordBatch("stream-1", {"service.name": "billing"}, records)


class World:
    """A destination that can be made to fail, and an exporter to it."""

    def __init__(self, kind: str, directory: Path, stack: ExitStack) -> None:
        self.kind = kind
        self.path = directory / "there" / "audit.jsonl"
        self.path.parent.mkdir()
        self._stack = stack
        made = ScriptedGrpcReceiver if kind == "otlp-grpc" else ScriptedReceiver
        self.receiver: Any = stack.enter_context(made())
        otlp = {"endpoint": self.receiver.endpoint, "headers": {"X-Api-Key": SECRET}}
        options: dict[str, Any] = {
            "otlp": otlp,
            "otlp-json": {**otlp, "protocol": "http/json"},
            "otlp-grpc": {**otlp, "protocol": "grpc"},
            "http": {
                "url": self.receiver.endpoint + "/api?token=" + SECRET,
                "body": "array",
                "auth": {"type": "bearer", "env": "TOKEN"},
            },
            "file": {"path": str(self.path)},
        }[kind]
        cls = exporter_class(kind.partition("-")[0])
        self.exporter: Any = cls.from_options(options, {"TOKEN": SECRET}, where="destinations.x")
        stack.callback(self.exporter.close)

    def delivered(self) -> list[str]:
        """The ids of the records that the destination has."""
        if self.kind.startswith("otlp"):
            ids: list[str] = self.receiver.record_ids
            return ids
        if self.kind == "http":
            return [line["record_id"] for request in self.receiver.accepted_requests for line in request.json]
        lines = self.path.read_bytes().splitlines() if self.path.exists() else []
        return [json.loads(line)["record_id"] for line in lines]

    def fail_for_a_while(self) -> None:
        """The next export finds a destination that is away for now."""
        if self.kind == "file":
            other = self._stack.enter_context(self.path.open("ab"))
            fcntl.flock(other, fcntl.LOCK_EX)
            self._heal = lambda: fcntl.flock(other, fcntl.LOCK_UN)
        else:
            self.receiver.script(GrpcReply(reset=True) if self.kind == "otlp-grpc" else Reply(reset="before"))
            self._heal = lambda: None

    def fail_until_repaired(self) -> None:
        """The next export finds a destination that somebody has to repair."""
        if self.kind == "file":
            away = self.path.parent.with_name("away")
            self.path.parent.rename(away)
            self._heal = lambda: away.rename(self.path.parent)
        else:
            self.receiver.script(GrpcReply("UNAUTHENTICATED") if self.kind == "otlp-grpc" else Reply(401))
            self._heal = lambda: None

    def heal(self) -> None:
        """The destination is well again."""
        self._heal()


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """One world per kind of exporter."""
    with ExitStack() as stack:
        yield World(request.param, tmp_path, stack)


def test_it_returns_when_all_is_delivered(world: World) -> None:
    """At the moment of return the destination has every record, in order, batch after batch."""
    for start in (1, 4, 7):
        ids = [f"r-{n}" for n in range(start, start + 3)]
        world.exporter.export(batch_of(*ids, start=start), 5.0)
        assert world.delivered()[-3:] == ids
    assert world.delivered() == [f"r-{n}" for n in range(1, 10)]


def test_it_raises_retryable_when_the_destination_is_away(world: World) -> None:
    """And delivers the same batch when it is back."""
    world.fail_for_a_while()
    with pytest.raises(RetryableExportError):
        world.exporter.export(batch_of("r-1", "r-2"), 5.0)
    world.heal()
    world.exporter.export(batch_of("r-1", "r-2"), 5.0)
    assert world.delivered()[-2:] == ["r-1", "r-2"]


def test_it_raises_blocked_with_what_to_repair(world: World) -> None:
    """And delivers the same batch after the repair."""
    world.fail_until_repaired()
    with pytest.raises(BlockedExportError) as caught:
        world.exporter.export(batch_of("r-1"), 5.0)
    assert caught.value.repair
    assert not caught.value.retryable
    world.heal()
    world.exporter.export(batch_of("r-1"), 5.0)
    assert world.delivered()[-1:] == ["r-1"]


def test_it_rejects_a_record_that_cannot_be_written(world: World) -> None:
    """A damaged record is about the record: the shipper can split, and the others get through."""
    good = batch_of("r-1", "r-2")
    records = [good.records[0], StoredRecord(9, "0" * 64, b'{"attributes":{"a":5}}'), good.records[1]]
    with pytest.raises(RejectedExportError, match="9") as caught:
        world.exporter.export(RecordBatch("stream-1", {}, records), 5.0)
    assert caught.value.details["reason"] == "damaged"
    assert world.delivered() == []
    world.exporter.export(good, 5.0)
    assert world.delivered() == ["r-1", "r-2"]


def test_it_can_be_closed_twice(world: World) -> None:
    """Before the first export, after one, and again."""
    world.exporter.close()
    world.exporter.export(batch_of("r-1"), 5.0)
    world.exporter.close()
    world.exporter.close()


def test_its_repr_hides_credentials(world: World) -> None:
    """So do its errors."""
    world.exporter.export(batch_of("r-1"), 5.0)
    world.fail_until_repaired()
    with pytest.raises(BlockedExportError) as caught:
        world.exporter.export(batch_of("r-2"), 5.0)
    error = caught.value
    assert SECRET not in f"{world.exporter!r} {error!r} {error} {error.repair} {error.details}"


def test_it_starts_no_thread_and_does_not_sleep_or_log(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Waiting, retrying and telling are the shipper's."""
    caller = threading.current_thread()
    started: list[str] = []
    real_start, real_sleep = threading.Thread.start, time.sleep

    def start(thread: threading.Thread) -> None:
        if threading.current_thread() is caller:
            started.append(thread.name)
        real_start(thread)

    def sleep(seconds: float) -> None:
        assert seconds == 0 or threading.current_thread() is not caller
        real_sleep(seconds)

    monkeypatch.setattr(threading.Thread, "start", start)
    monkeypatch.setattr(time, "sleep", sleep)
    with caplog.at_level(logging.DEBUG):
        world.exporter.export(batch_of(*(f"r-{n}" for n in range(40))), 5.0)
        world.fail_for_a_while()
        with pytest.raises(RetryableExportError):
            world.exporter.export(batch_of("r-41"), 5.0)
    assert started == []
    assert [record.name for record in caplog.records if record.name.startswith("otel_audit")] == []


# A process with a gRPC server cannot fork: tests/unit/test_otlp_grpc.py has that case, with a server elsewhere.
@pytest.mark.parametrize("world", [kind for kind in KINDS if kind != "otlp-grpc"], indirect=True)
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_exports_by_itself(world: World) -> None:
    """On a connection of its own; the parent's goes on working."""
    world.exporter.export(batch_of("parent-1"), 5.0)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            world.exporter.export(batch_of("child"), 5.0)
            world.exporter.close()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    world.exporter.export(batch_of("parent-2"), 5.0)
    assert world.delivered() == ["parent-1", "child", "parent-2"]


def test_it_is_an_exporter(world: World) -> None:
    """It has what the protocol asks for."""
    assert isinstance(world.exporter, AuditRecordExporter)
    assert world.exporter.single_writer is (world.kind == "file")


@pytest.mark.parametrize("cls", CLASSES)
def test_its_options_are_its_arguments(cls: Any) -> None:
    """The table and the constructor have the same names and the same defaults."""
    arguments = dict(inspect.signature(cls.__init__).parameters)
    for name in ("self", "where", "environ", "files", "now"):
        arguments.pop(name, None)
    table = {option.name: option for option in cls.OPTIONS}
    assert list(arguments) == list(table)
    for name, argument in arguments.items():
        option = table[name]
        assert option.doc
        if argument.default is inspect.Parameter.empty:
            assert option.default is REQUIRED
        else:
            stated = read_options([option], "x", {name: argument.default})[name]
            assert stated == option.default, name


@pytest.mark.parametrize("kind", sorted(EXPORTERS))
def test_a_wrong_option_is_found_early(kind: str) -> None:
    """By name, with the place and the nearest right one."""
    right = {"otlp": "endpoint", "http": "url", "file": "path"}[kind]
    with pytest.raises(ConfigurationError, match=rf"^destinations\.x: there is no option '{right}x'.*'{right}'"):
        exporter_class(kind).from_options({f"{right}x": "y"}, {}, where="destinations.x")


def test_an_unknown_type_is_answered_with_the_nearest() -> None:
    """Or with all that there are."""
    with pytest.raises(ConfigurationError, match="no destination type 'oltp'; did you mean 'otlp'"):
        exporter_class("oltp")
    with pytest.raises(ConfigurationError, match="there are: otlp, http, file"):
        exporter_class("kafka")


def test_configuring_loads_no_heavy_library() -> None:
    """Finding the classes and validating every option costs neither httpx nor protobuf."""
    script = """
import sys
from otel_audit.exporters import EXPORTERS, exporter_class
from otel_audit.exporters.file import FileExporter
from otel_audit.exporters.http import HttpExporter
from otel_audit.exporters.otlp_grpc import OtlpGrpcExporter
from otel_audit.exporters.otlp_http import OtlpHttpExporter
made = [exporter_class("otlp").from_options({"compression": "gzip"}, {}),
        exporter_class("otlp").from_options({"protocol": "grpc", "headers": {"x": "y"}}, {}),
        exporter_class("http").from_options({"url": "https://h/", "template": {"a": "{{body}}"}}, {}),
        exporter_class("file").from_options({"path": "x.jsonl", "rotate_size": "1MiB"}, {})]
assert {type(exporter).__name__ for exporter in made} == {'FileExporter', 'HttpExporter', 'OtlpGrpcExporter',
                                                          'OtlpHttpExporter'}
assert set(EXPORTERS) >= {'file', 'http', 'otlp'}
for exporter in made: exporter.close()
heavy = ("httpx", "httpcore", "google.protobuf", "opentelemetry", "grpc", "requests")
found = [name for name in sys.modules if name.startswith(heavy)]
assert not found, found
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_the_classes_are_found_by_name() -> None:
    """From Python, without knowing in which file they are."""
    for cls in CLASSES:
        assert getattr(exporters, cls.__name__) is cls
    with pytest.raises(AttributeError, match="KafkaExporter"):
        _ = exporters.KafkaExporter
