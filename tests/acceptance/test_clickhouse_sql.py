"""The shipped ClickHouse schema, views and queries on the real engine, over what a real Collector wrote."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_audit import semconv as sc
from support.clickhouse import ClickHouse, statements
from support.collector import AGENT, Collector
from support.otlp import attribute, audit_records, post, record_id, request

DAY_NS = 24 * 3600 * 10**9


@pytest.fixture
def engine() -> Iterator[ClickHouse]:
    with ClickHouse() as engine:
        yield engine


def load(engine: ClickHouse, *batches: list[LogRecord]) -> None:
    """Send each batch through a Collector that writes files, and load the files."""
    with Collector(AGENT) as collector:
        for records in batches:
            assert post(collector.audit_endpoint, request(records, {"service.name": "shop"})) == 200
        collector.stop()
        engine.load(collector.data_directory / "audit*.jsonl")


def test_every_kind_of_value_arrives(engine: ClickHouse) -> None:
    """Names, times, numbers, odd texts, lists, trace and resource are in the view as they were sent."""
    (record,) = audit_records(["r-1"], **{sc.TENANT: "acme", sc.ACTOR_ID: "u-42", sc.OUTCOME: "success"})
    record.body.string_value = 'said "hello"\n\\ and {"resourceLogs":[]}'
    record.attributes.extend(
        [attribute("n", int_value=-7), attribute("d", double_value=1.5), attribute("b", bool_value=True)]
    )
    record.attributes.add(key="list").value.array_value.values.add().int_value = 1
    record.attributes.add(key="unset")
    record.trace_id = bytes(range(16))
    load(engine, [record])
    columns = "record_id, tenant, actor_id, outcome, event_name, body, service_name, trace_id, control, retention_class"
    (row,) = engine.run(f"SELECT {columns}, toUnixTimestamp64Nano(timestamp), attributes FROM audit.events")
    *plain, nanoseconds, attributes = row
    assert plain == [
        *("r-1", "acme", "u-42", "success", "user.login", record.body.string_value, "shop"),
        *(bytes(range(16)).hex(), 0, "standard"),
    ]
    assert nanoseconds == record.time_unix_nano
    expected = {"n": "-7", "d": "1.5", "b": "true", "list": '{"values":[{"intValue":"1"}]}', "unset": ""}
    assert {key: attributes[key] for key in expected} == expected


def test_a_record_is_removed_only_by_its_own_copy(engine: ClickHouse) -> None:
    """A copy is removed; another record under the same id, and records without an id, stay and are shown."""
    first, other = audit_records(["same"]), audit_records(["same"])
    other[0].body.string_value = "forged"
    nameless = [LogRecord(event_name="user.login", time_unix_nano=time.time_ns() + number) for number in range(3)]
    load(engine, first, first, other, nameless)
    assert engine.count("audit.events") == 2 + 3
    assert engine.run("SELECT record_id, contents FROM audit.conflicts") == [["same", 2]]
    engine.run("OPTIMIZE TABLE audit.records FINAL")
    assert engine.count("audit.records") == 2 + 3


def test_a_gap_in_a_stream_is_shown(engine: ClickHouse) -> None:
    """A stream of which numbers are missing is listed with how many; one that is whole is not."""
    streams = {"whole": range(1, 6), "holed": [1, 2, 5], "headless": [3, 4]}
    records = []
    for stream, numbers in streams.items():
        for number in numbers:
            (record,) = audit_records([f"{stream}-{number}"], **{sc.SEQUENCE_STREAM_ID: stream})
            record.attributes.append(attribute(sc.SEQUENCE_NUMBER, int_value=number))
            records.append(record)
    load(engine, records)
    rows = engine.run("SELECT stream_id, first, last, present, missing FROM audit.gaps ORDER BY stream_id")
    assert rows == [["headless", 3, 4, 2, 0], ["holed", 1, 5, 3, 2]]


def test_records_are_kept_as_long_as_their_class_says(engine: ClickHouse) -> None:
    """After a merge the records whose class is over are gone, and no others; an unknown class is kept longest."""
    ages = {
        "short": (80, 130),
        "standard": (390, 440),
        "": (390, 440),
        "long": (3600, 3700),
        "no-such-class": (3600, 3700),
    }
    records = []
    for name, days in ages.items():
        for age in days:
            (record,) = audit_records([f"{name}-{age}"], **({"retention.class": name} if name else {}))
            record.time_unix_nano = time.time_ns() - age * DAY_NS
            records.append(record)
    load(engine, records)
    engine.run("ALTER TABLE audit.records MATERIALIZE TTL SETTINGS mutations_sync = 2")
    engine.run("OPTIMIZE TABLE audit.records FINAL")
    timeless = LogRecord(attributes=[record_id("timeless")])
    future = LogRecord(attributes=[record_id("future")], time_unix_nano=(2**63 - 1))
    load(engine, [timeless, future])
    engine.run("OPTIMIZE TABLE audit.records FINAL")
    left = {row[0] for row in engine.run("SELECT record_id FROM audit.events")}
    assert left == {f"{name}-{young}" for name, (young, _) in ages.items()} | {"timeless", "future"}


def test_the_shipped_queries_answer(engine: ClickHouse) -> None:
    """Each question of queries.sql finds the record that it is about and no other tenant's."""
    fields = {sc.ACTOR_ID: "u-42", sc.OUTCOME: "failure", sc.TARGET_TYPE: "document", sc.TARGET_ID: "7"}
    ours = audit_records(["ours"], **fields, **{sc.TENANT: "acme"})
    load(engine, ours, audit_records(["theirs"], **fields, **{sc.TENANT: "other"}))
    parameters = {
        "tenant": "acme",
        "actor": "u-42",
        "since": "2020-01-01 00:00:00",
        "target": "7",
        "target_type": "document",
    }
    counts = [len(engine.run(query, **parameters, record="ours")) for query in statements("queries.sql")]
    assert counts == [1, 1, 1, 1, 1, 0, 0]


def test_a_question_about_one_tenant_reads_only_its_rows(engine: ClickHouse) -> None:
    """The primary key leaves out the granules of other tenants."""
    load(engine, audit_records(["a"], **{sc.TENANT: "acme"}))
    plan = "\n".join(
        row[0] for row in engine.run("EXPLAIN indexes = 1 SELECT * FROM audit.events WHERE tenant = 'other'")
    )
    assert re.search(r"PrimaryKey.*?Granules: 0/1", plan, re.DOTALL), plan


def test_the_schema_has_the_columns_that_the_exporter_inserts(engine: ClickHouse) -> None:
    """Names and types are those of the Collector's own table, so that its INSERT fits."""
    text = {"Timestamp": "DateTime64(9)", "TraceFlags": "UInt8", "SeverityNumber": "UInt8"}
    low = ("SeverityText", "ServiceName", "ResourceSchemaUrl", "ScopeSchemaUrl", "ScopeVersion", "EventName")
    pairs = ("ResourceAttributes", "ScopeAttributes", "LogAttributes")
    expected = {
        **text,
        **dict.fromkeys(("TraceId", "SpanId", "Body", "ScopeName"), "String"),
        **dict.fromkeys(low, "LowCardinality(String)"),
        **dict.fromkeys(pairs, "Map(LowCardinality(String), String)"),
    }
    found = engine.run("SELECT name, type FROM system.columns WHERE table = 'records' AND default_kind = ''")
    assert dict(found) == expected


def test_a_torn_line_hides_no_record(engine: ClickHouse) -> None:
    """A fragment before a request, which a kill leaves in a file, is cut off; the request behind it is loaded."""
    with Collector(AGENT) as collector:
        for name in ("first", "second"):
            nameless = LogRecord(attributes=[record_id(f"{name}-2")])
            assert post(collector.audit_endpoint, request([*audit_records([name]), nameless])) == 200
        collector.kill()
        file = collector.data_directory / "audit.jsonl"
        first, second = file.read_text(encoding="utf-8").splitlines()
        file.write_text(f"{first[:60]}{first}\n{second}{second[:200]}", encoding="utf-8")
        engine.load(file)
    rows = engine.run("SELECT record_id FROM audit.events ORDER BY record_id")
    assert rows == [["first"], ["first-2"], ["second"], ["second-2"]]
