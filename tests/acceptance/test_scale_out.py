"""Scale-out, end to end: a gateway, a real Kafka, a consumer that is killed, and the ClickHouse engine."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import otlp
from support.certificates import Authority
from support.clickhouse import ClickHouse
from support.collector import SCALE_OUT, Collector, require_collector
from support.kafka import Kafka
from support.load import Senders, until
from support.objects import ObjectStore
from support.otlp import APP_IDS, AUDIT_IDS, TEST_ID, audit_records, mixed_request, post

SOON = {
    "OTELCOL_RETRY_INITIAL_INTERVAL": "50ms",
    "OTELCOL_RETRY_MAX_INTERVAL": "100ms",
}
TOPIC = {"max_message_bytes": "33554432", "message_timestamp_type": "LogAppendTime"}


@dataclass(frozen=True)
class Run:
    """What a run left: the ids that the gateway acknowledged, what the consumer stored, and the files."""

    acknowledged: set[str]
    stored: Counter[str]
    files: Path


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    require_collector()
    with Kafka() as kafka:
        kafka.create_topic("app", 1, **TOPIC)
        yield kafka


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module", params=[5_000, pytest.param(200_000, marks=pytest.mark.slow)])
def run(
    request: pytest.FixtureRequest, kafka: Kafka, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Run:
    """Records through gateway, Kafka and a consumer that is killed twice, once more while it starts."""
    count: int = request.param
    topic = f"audit-{count}"
    files = tmp_path_factory.mktemp("files")
    kafka.create_topic(topic, 6, **TOPIC)
    environment = _environment(kafka, topic)
    ids = [f"r-{number:07}" for number in range(count)]
    with (
        Collector(SCALE_OUT / "gateway.yaml", {**environment, "OTELCOL_TLS_DIR": str(authority.directory)}) as gateway,
        Collector(SCALE_OUT / "files.yaml", {**environment, "OTELCOL_DATA_DIR": str(files)}) as consumer,
    ):
        context = authority.context(authority.issue("sender"))
        with Senders(gateway.audit_endpoint, ids, context=context, per_request=count // 200) as senders:
            for kill in range(2):
                senders.wait_for(count * (kill + 1) // 4)
                consumer.kill()
                consumer.kill_while_starting(random.uniform(0, 0.3))
                consumer.start()
        until(lambda: kafka.lag(topic, "audit-files") == 0, "the consumer has read everything", 240)
        consumer.kill()
        stored = Counter(str(record["attributes"][TEST_ID]) for record in consumer.records(directory=files))
    return Run(senders.acknowledged, stored, files)


def test_nothing_is_missing_although_the_consumer_was_killed(run: Run) -> None:
    """Everything that the gateway acknowledged is in the consumer's files, and nothing else."""
    missing = run.acknowledged - run.stored.keys()
    print(f"{len(run.acknowledged)} acknowledged, {run.stored.total() - len(run.stored)} copies")
    assert missing == set()
    assert len(run.acknowledged) == len(run.stored)


def test_the_table_removes_what_came_twice(run: Run) -> None:
    """Of files that are loaded twice the view has each record once at once, and the table once it has merged."""
    with ClickHouse() as engine:
        engine.load(run.files / "audit*.jsonl")
        assert engine.count("audit.events") == len(run.stored)
        engine.run("SET insert_deduplicate = 0")
        engine.load(run.files / "audit*.jsonl")
        assert engine.count("audit.records") > len(run.stored)
        assert engine.count("audit.events") == len(run.stored)
        engine.run("OPTIMIZE TABLE audit.records FINAL")
        assert engine.count("audit.records") == len(run.stored)
        assert engine.count("audit.conflicts") == 0
        ids = {row[0] for row in engine.run("SELECT record_id FROM audit.events")}
    assert ids == run.stored.keys()


def test_the_gateway_parts_records_into_topics(kafka: Kafka, authority: Authority) -> None:
    """Of a mixed request the audit records reach the audit topic's consumer, and the others do not."""
    kafka.create_topic("audit-mixed", 1, **TOPIC)
    environment = _environment(kafka, "audit-mixed")
    app = {**environment, "OTELCOL_KAFKA_TOPIC": "app", "OTELCOL_KAFKA_GROUP": "app-files"}
    with (
        Collector(SCALE_OUT / "gateway.yaml", {**environment, "OTELCOL_TLS_DIR": str(authority.directory)}) as gateway,
        Collector(SCALE_OUT / "files.yaml", environment) as audit_consumer,
        Collector(SCALE_OUT / "files.yaml", app) as app_consumer,
    ):
        context = authority.context(authority.issue("sender"))
        assert post(f"{gateway.http_endpoint}/v1/logs", mixed_request(), context=context) == 200
        for consumer, ids in ((audit_consumer, AUDIT_IDS), (app_consumer, APP_IDS)):
            until(lambda consumer=consumer, ids=ids: _ids(consumer) >= ids, "the records arrive")
            assert _ids(consumer) == ids


def test_a_large_request_fits_into_one_message(kafka: Kafka, authority: Authority) -> None:
    """The largest request that the receivers take is acknowledged and arrives; with the default sizes it is refused."""
    kafka.create_topic("audit-large", 1, **TOPIC)
    environment = _environment(kafka, "audit-large")
    record = audit_records(["large"])[0]
    record.body.string_value = random.Random(0).randbytes(9 * 2**20).hex()
    shipped = (SCALE_OUT / "gateway.yaml").read_text(encoding="utf-8")
    default = shipped.replace("max_message_bytes: 31457280", "max_message_bytes: 1000000")
    tls = {"OTELCOL_TLS_DIR": str(authority.directory)}
    context = authority.context(authority.issue("sender"))
    with Collector(default, {**environment, **tls}) as gateway:
        assert post(gateway.audit_endpoint, otlp.request([record]), context=context) == 500
    with (
        Collector(SCALE_OUT / "gateway.yaml", {**environment, **tls}) as gateway,
        Collector(SCALE_OUT / "files.yaml", environment) as consumer,
    ):
        assert post(gateway.audit_endpoint, otlp.request([record]), context=context) == 200
        until(lambda: _ids(consumer) == {"large"}, "the large record arrives")


def test_without_kafka_the_gateway_refuses(kafka: Kafka, authority: Authority) -> None:
    """A gateway that cannot reach Kafka answers 503, which senders repeat, and acknowledges nothing."""
    environment = {"OTELCOL_KAFKA_BROKERS": "127.0.0.1:9", "OTELCOL_TLS_DIR": str(authority.directory)}
    context = authority.context(authority.issue("sender"))
    with Collector(SCALE_OUT / "gateway.yaml", environment) as gateway:
        assert post(gateway.audit_endpoint, otlp.request(audit_records(["r-1"])), context=context) == 503


def _environment(kafka: Kafka, topic: str) -> dict[str, str]:
    """What gateways and consumers are told; a killed consumer's partitions are soon given to its successor."""
    return {
        "OTELCOL_KAFKA_BROKERS": kafka.brokers,
        "OTELCOL_KAFKA_TOPIC": topic,
        "OTELCOL_KAFKA_SESSION_TIMEOUT": "3s",
    }


def _ids(collector: Collector) -> set[str]:
    return {str(record["attributes"][TEST_ID]) for record in collector.records()}


def test_the_archive_consumer_loses_nothing_either(kafka: Kafka, authority: Authority, tmp_path: Path) -> None:
    """S3 is away and the consumer is killed; at last every record is in an object, and the objects can be loaded."""
    kafka.create_topic("audit-archived", 3, **TOPIC)
    environment = _environment(kafka, "audit-archived")
    ids = [f"r-{number}" for number in range(600)]
    context = authority.context(authority.issue("sender"))
    with (
        ObjectStore() as store,
        Collector(SCALE_OUT / "gateway.yaml", {**environment, "OTELCOL_TLS_DIR": str(authority.directory)}) as gateway,
        Collector(SCALE_OUT / "archive.yaml", {**environment, **store.environment(), **SOON}) as consumer,
    ):
        store.status = 503
        with Senders(gateway.audit_endpoint, ids, context=context, per_request=20) as senders:
            until(lambda: store.requests, "the consumer tries")
            consumer.kill()
            store.status = 200
            consumer.start()
        until(lambda: store.marks().keys() >= senders.acknowledged, "everything is in the archive")
        until(lambda: kafka.lag("audit-archived", "audit-archive") == 0, "the offsets are committed")
        assert store.marks().keys() == set(ids) == senders.acknowledged
        for number, content in enumerate(store.objects().values()):
            (tmp_path / f"{number}.json").write_bytes(content)
    with ClickHouse() as engine:
        engine.load(tmp_path / "*.json")
        assert {row[0] for row in engine.run("SELECT record_id FROM audit.events")} == set(ids)
