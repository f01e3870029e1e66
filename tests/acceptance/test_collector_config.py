"""The shipped Collector configurations, run with a real Collector."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
import yaml
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest as Request
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from support.collector import AGENT, CONFIGURATIONS, FORWARD, Collector, require_collector, validate
from support.otlp import APP_IDS, AUDIT_IDS, attribute, mixed_request, post, request

SHIPPED = sorted(
    path for folder in ("agent", "gateway", "scale-out") for path in (CONFIGURATIONS / folder).glob("*.yaml")
)
# The variables that have no default, for configurations that are only looked at.
NO_DEFAULT = {
    "OTELCOL_GATEWAY_ENDPOINT": "https://gateway.invalid:4318",
    "OTELCOL_SEARCH_ENDPOINT": "https://search.invalid:4318",
    "OTELCOL_S3_BUCKET": "audit",
    "OTELCOL_TENANT_S3_BUCKET": "audit-acme",
}

pytestmark = pytest.mark.usefixtures("collector_binary")


@pytest.fixture(scope="module")
def collector_binary() -> Path:
    return require_collector()


@pytest.mark.parametrize("config", SHIPPED, ids=lambda path: str(path.relative_to(CONFIGURATIONS)))
def test_a_shipped_configuration_is_valid(config: Path) -> None:
    """The Collector accepts every configuration file as it is shipped."""
    checked = validate(config, NO_DEFAULT)
    assert checked.returncode == 0, checked.stderr


def test_a_misspelt_key_is_refused(tmp_path: Path) -> None:
    """The check that accepts the shipped files refuses each copy in which one key is misspelt.

    A key that several files share at the same place is misspelt in the last of them only; every file has its turn.
    """
    shipped = {config: yaml.safe_load(config.read_text(encoding="utf-8")) for config in SHIPPED}
    last = {path: config for config in SHIPPED for path in _key_paths(shipped[config])}

    def accepts(number: int, config: Path, path: tuple[Any, ...]) -> bool:
        *parents, key = path
        broken = copy.deepcopy(shipped[config])
        parent = broken
        for step in parents:
            parent = parent[step]
        parent[f"{key}_misspelt"] = parent.pop(key)
        file = tmp_path / f"{number}.yaml"
        file.write_text(yaml.safe_dump(broken), encoding="utf-8")
        return validate(file, NO_DEFAULT).returncode == 0

    places = [
        (config, path) for path, config in last.items() if path[:-1] != ("service", "pipelines")
    ]  # these are names
    places += [(config, ("receivers",)) for config in SHIPPED]
    assert len(places) > 150
    with ThreadPoolExecutor(4) as pool:
        found = pool.map(accepts, range(len(places)), *zip(*places, strict=True))
        accepted = [place for place, accepts_it in zip(places, found, strict=True) if accepts_it]
    assert not accepted


def test_the_shared_parts_are_in_every_configuration() -> None:
    """No configuration differs from the parts that it shares with others."""
    assembled = subprocess.run(
        [sys.executable, CONFIGURATIONS / "assemble.py", "--check"], capture_output=True, text=True, timeout=30
    )
    assert assembled.returncode == 0, assembled.stdout


def test_the_comparison_of_parts_sees_a_difference(tmp_path: Path) -> None:
    """A copy of the configurations in which a part was changed is found, and mended by the same program."""
    there = tmp_path / "collector-config"
    shutil.copytree(CONFIGURATIONS, there)
    part = there / "parts" / "disk-queue.yaml"
    part.write_text(part.read_text().replace("sizer: bytes", "sizer: items"))
    program = [sys.executable, there / "assemble.py"]
    assert subprocess.run([*program, "--check"], capture_output=True, timeout=30).returncode == 1
    assert subprocess.run(program, capture_output=True, timeout=30).returncode == 0
    assert subprocess.run([*program, "--check"], capture_output=True, timeout=30).returncode == 0
    assert "sizer: items" in (there / "gateway" / "config.yaml").read_text()
    assert "sizer: items" in (there / "agent" / "forward.yaml").read_text()


@pytest.mark.parametrize("variable", ["OTELCOL_S3_BUCKET", "OTELCOL_SEARCH_ENDPOINT", "OTELCOL_TENANT_S3_BUCKET"])
def test_a_gateway_without_a_destination_does_not_start(variable: str) -> None:
    """A gateway that was not told one of its destinations is refused instead of queueing for nobody."""
    config = CONFIGURATIONS / "gateway" / "tenants.yaml"
    assert validate(config, {**NO_DEFAULT, variable: ""}).returncode != 0


def test_forwarding_without_a_gateway_does_not_start() -> None:
    """A forwarding agent that was not told its gateway is refused instead of queueing for nobody."""
    checked = validate(FORWARD)
    assert checked.returncode != 0
    assert "at least one endpoint must be specified" in checked.stderr


def test_the_otlp_receiver_parts_audit_records_from_application_logs(mixed: Request) -> None:
    """Of a mixed request to /v1/logs each record is stored once, in the file for its kind."""
    with Collector(AGENT) as collector:
        assert post(f"{collector.http_endpoint}/v1/logs", mixed) == 200
        assert _ids(collector, "audit") == sorted(AUDIT_IDS)
        assert _ids(collector, "app") == sorted(APP_IDS)


def test_grpc_parts_them_alike(mixed: Request) -> None:
    """A mixed request over gRPC is parted as one over HTTP is."""
    with Collector(AGENT) as collector, grpc.insecure_channel(collector.grpc_target) as channel:
        LogsServiceStub(channel).Export(mixed, timeout=10)  # type: ignore[no-untyped-call]
        assert _ids(collector, "audit") == sorted(AUDIT_IDS)
        assert _ids(collector, "app") == sorted(APP_IDS)


def test_the_audit_receiver_keeps_everything_as_audit(mixed: Request) -> None:
    """What is sent to /v1/audit is stored as audit, even where it looks like an application log."""
    with Collector(AGENT) as collector:
        assert post(collector.audit_endpoint, mixed) == 200
        assert _ids(collector, "audit") == sorted(AUDIT_IDS | APP_IDS)
        assert _ids(collector, "app") == []


def test_the_audit_port_takes_nothing_else(mixed: Request) -> None:
    """The ordinary path does not exist on the audit port, nor the audit path on the ordinary port."""
    with Collector(AGENT) as collector:
        assert post(collector.audit_endpoint.replace("/v1/audit", "/v1/logs"), mixed) == 404
        assert post(f"{collector.http_endpoint}/v1/audit", mixed) == 404


def test_a_stored_record_is_the_record_that_was_sent() -> None:
    """Every kind of OTLP value, the name, the times and the trace come out of the file as they went in."""
    attributes = [
        attribute("audit.record.id", string_value='é \U0001f600 {"resourceLogs":[]}\n'),
        attribute("int", int_value=-(2**63)),
        attribute("double", double_value=1e300),
        attribute("whole", double_value=1.0),
        attribute("bool", bool_value=False),
        attribute("bytes", bytes_value=b"\x00\xff"),
        attribute("empty", string_value=""),
        KeyValue(key="unset", value=AnyValue()),
    ]
    array = AnyValue()
    array.array_value.values.extend([AnyValue(int_value=1), AnyValue(string_value="two"), AnyValue()])
    attributes.append(KeyValue(key="array", value=array))
    body = AnyValue()
    body.kvlist_value.values.add(key="nested").value.kvlist_value.values.add(key="zero").value.int_value = 0
    record = LogRecord(
        event_name="user.login",
        time_unix_nano=1_700_000_000_123_456_789,
        observed_time_unix_nano=2**63 - 1,
        severity_number=9,  # type: ignore[arg-type]
        severity_text="INFO",
        attributes=attributes,
        body=body,
        trace_id=bytes(range(16)),
        span_id=bytes(range(8)),
    )
    with Collector(AGENT) as collector:
        assert post(collector.audit_endpoint, request([record], {"service.name": "billing"})) == 200
        (stored,) = collector.records()
    assert stored == {
        "event_name": "user.login",
        "attributes": {
            "audit.record.id": 'é \U0001f600 {"resourceLogs":[]}\n',
            "int": -(2**63),
            "double": 1e300,
            "whole": 1.0,
            "bool": False,
            "bytes": b"\x00\xff",
            "empty": "",
            "unset": None,
            "array": [1, "two", None],
        },
        "body": {"nested": {"zero": 0}},
        "resource": {"service.name": "billing"},
        "scope": "tests",
        "timestamp": 1_700_000_000_123_456_789,
        "observed_timestamp": 2**63 - 1,
        "severity_number": 9,
        "severity_text": "INFO",
        "trace_id": bytes(range(16)).hex(),
        "span_id": bytes(range(8)).hex(),
    }


CYCLES = 5


def test_acknowledged_records_survive_a_killed_collector() -> None:
    """What the agent has acknowledged is in its file although it is killed right after each answer."""
    assert _stored_after_kills(AGENT) == [f"record-{cycle}" for cycle in range(CYCLES)]


def test_without_rotation_a_killed_collector_loses_what_it_acknowledged() -> None:
    """The kill test sees loss: the same configuration with a buffered file loses acknowledged records."""
    buffered = yaml.safe_load(AGENT.read_text(encoding="utf-8"))
    del buffered["exporters"]["file/audit"]["rotation"]
    buffered["exporters"]["file/audit"]["append"] = True
    assert len(_stored_after_kills(yaml.safe_dump(buffered))) < CYCLES


def test_rotated_audit_files_are_kept() -> None:
    """More rotations than the file exporter's own limit of 100 old files lose no audit record."""
    sent = [f"record-{number}" for number in range(110)]
    with Collector(AGENT, {"OTELCOL_AUDIT_FILE_MEGABYTES": "1"}) as collector:
        for name in sent:
            record = LogRecord(attributes=[attribute("test.id", string_value=name)])
            record.body.string_value = "x" * 600_000
            assert post(collector.audit_endpoint, request([record])) == 200
            time.sleep(0.005)  # files rotated in the same millisecond replace one another
        assert len(list(collector.data_directory.glob("audit-*.jsonl"))) == len(sent) - 1
        assert _ids(collector, "audit") == sorted(sent)


@pytest.mark.parametrize("end", [Collector.kill, Collector.stop], ids=["killed", "stopped"])
def test_forwarded_records_wait_on_disk(end: Callable[[Collector], None], mixed: Request) -> None:
    """Audit records acknowledged while the gateway is away reach it, although the agent ended meanwhile."""
    with Collector(AGENT) as gateway:
        gateway.stop()
        variables = {"OTELCOL_GATEWAY_ENDPOINT": gateway.http_endpoint, "OTELCOL_RETRY_MAX_INTERVAL": "100ms"}
        with Collector(FORWARD, variables) as agent:
            assert post(f"{agent.http_endpoint}/v1/logs", mixed) == 200
            end(agent)
            gateway.start()
            agent.start()
            deadline = time.monotonic() + 30
            while set(_ids(gateway, "audit")) != AUDIT_IDS and time.monotonic() < deadline:
                time.sleep(0.05)
            assert set(_ids(gateway, "audit")) == AUDIT_IDS


def test_a_full_queue_refuses() -> None:
    """A forwarding agent whose queue is full answers 503, so that the application keeps its records."""
    variables = {"OTELCOL_GATEWAY_ENDPOINT": "http://127.0.0.1:9", "OTELCOL_QUEUE_BYTES": "20000"}
    record = LogRecord(event_name="user.login")
    record.body.string_value = "x" * 5_000
    with Collector(FORWARD, variables) as agent:
        answers = [post(agent.audit_endpoint, request([record])) for _ in range(6)]
    assert answers == [200, 200, 200, 503, 503, 503]


def test_a_fragment_hides_no_record(tmp_path: Path) -> None:
    """The reader of stored records finds the one that follows a torn write on the same line."""
    whole = '{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"eventName":"%s"}]}]}]}'
    lines = [
        whole % "first",
        (whole % "torn")[:50] + whole % "second",
        whole % "third" + whole % "fourth",
        "",
    ]
    collector = Collector(AGENT)
    collector.directory = tmp_path
    collector.data_directory.mkdir()
    (collector.data_directory / "audit.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert [record["event_name"] for record in collector.records()] == ["first", "second", "third", "fourth"]


@pytest.fixture
def mixed() -> Request:
    return mixed_request()


def _stored_after_kills(config: Path | str) -> list[str]:
    """What is stored after CYCLES times: send a record, see it acknowledged, kill the Collector."""
    with Collector(config) as collector:
        for cycle in range(CYCLES):
            if collector.pid is None:
                collector.start()
            record = LogRecord(attributes=[attribute("test.id", string_value=f"record-{cycle}")])
            assert post(collector.audit_endpoint, request([record])) == 200
            collector.kill()
        return _ids(collector, "audit")


def _ids(collector: Collector, name: str) -> list[str]:
    return sorted(record["attributes"]["test.id"] for record in collector.records(name))


def _key_paths(node: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every key in nested mappings and lists."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            yield from _key_paths(value, (*path, key))
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _key_paths(value, (*path, index))
