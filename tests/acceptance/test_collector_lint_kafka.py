"""What the linter says of Kafka, shown with a real one: the bad configuration loses, the repaired one does not."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator

import pytest
import yaml
from kafka import KafkaConsumer, KafkaProducer
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest as Request
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs

from otel_audit.testing.receiver import Reply, ScriptedReceiver
from support.collector import Collector, require_collector
from support.corpus import case_of, runnable
from support.kafka import Kafka
from support.load import until
from support.otlp import post

NAMES = [f"record-{number}" for number in range(5)]

bad_and_repaired = pytest.mark.parametrize("repaired", [False, True], ids=["bad", "repaired"])


@pytest.fixture(scope="module")
def kafka() -> Iterator[Kafka]:
    require_collector()
    with Kafka() as kafka:
        yield kafka


def configuration(rule: str, *, repaired: bool) -> str:
    case = case_of(rule)
    return case.repaired() if repaired else case.body


def request(name: str, size: int = 0) -> Request:
    """A request with a record whose severity text is its name."""
    record = LogRecord(event_name="user.login", severity_text=name)
    record.body.string_value = "x" * size
    return Request(resource_logs=[ResourceLogs(scope_logs=[ScopeLogs(log_records=[record])])])


def produce(kafka: Kafka, topic: str, names: Iterable[str]) -> None:
    """Write records to a topic, as a gateway would."""
    with contextlib.closing(KafkaProducer(bootstrap_servers=kafka.brokers)) as producer:
        for name in names:
            producer.send(topic, request(name).SerializeToString()).get(30)


def names_of(message: bytes) -> set[str]:
    """The names of the records in a message."""
    parsed = Request.FromString(message)
    return {
        record.severity_text
        for resource in parsed.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    }


def in_topic(kafka: Kafka, topic: str) -> set[str]:
    """The names of the records in a topic."""
    with contextlib.closing(
        KafkaConsumer(topic, bootstrap_servers=kafka.brokers, auto_offset_reset="earliest", consumer_timeout_ms=2000)
    ) as consumer:
        return {name for message in consumer for name in names_of(message.value)}


@bad_and_repaired
def test_a_message_that_is_too_large_is_dropped(kafka: Kafka, repaired: bool) -> None:
    """A request larger than max_message_bytes is acknowledged, and not in the topic."""
    topic = f"size-{repaired}"
    kafka.create_topic(topic, 1, max_message_bytes="25165824")
    text = runnable(configuration("kafka-message-size", repaired=repaired), brokers=kafka.brokers, topic=topic)
    with Collector(text) as collector:
        for name, size in (("small", 10), ("large", 2_000_000), ("last", 10)):
            assert post(collector.audit_endpoint, request(name, size)) == 200
        if repaired:
            until(lambda: kafka.messages(topic) == 3, "all are in the topic")
        else:
            until(lambda: "Dropping data" in collector.log(), "one is dropped")
            until(lambda: kafka.messages(topic) == 2, "the others are in the topic")
    assert {"small", "large", "last"} - in_topic(kafka, topic) == (set() if repaired else {"large"})


@bad_and_repaired
def test_what_was_read_and_not_stored(kafka: Kafka, repaired: bool) -> None:
    """Marked before it is stored, a message is not read again after a kill; marked after, it is."""
    topic = f"marking-{repaired}"
    kafka.create_topic(topic, 1)
    produce(kafka, topic, NAMES)
    answer = Reply(503)
    with ScriptedReceiver(default=lambda _: answer) as peer:
        text = runnable(configuration("kafka-marking", repaired=repaired), brokers=kafka.brokers, topic=topic)
        config = yaml.safe_load(text)
        # A destination that can be away, and answers for nothing that it has not.
        config["exporters"] = {
            "otlp_http": {
                "endpoint": peer.url,
                "sending_queue": {"enabled": False},
                "retry_on_failure": {"max_elapsed_time": "0s", "initial_interval": "50ms", "max_interval": "100ms"},
            }
        }
        config["service"]["pipelines"]["logs/audit"]["exporters"] = ["otlp_http"]
        with Collector(yaml.safe_dump(config)) as consumer:
            peer.wait_for(requests=5, timeout_s=60)
            if repaired:
                time.sleep(3)  # three times the interval of commits
            else:
                until(lambda: kafka.lag(topic, topic) < len(NAMES), "a message is committed")
            consumer.kill()
            assert not peer.records
            committed = len(NAMES) - kafka.lag(topic, topic)
            answer = Reply(200)
            consumer.start()
            produce(kafka, topic, ["last"])
            until(lambda: "last" in {each.severity_text for each in peer.records}, "the last arrives", 60)
    lost = {*NAMES, "last"} - {each.severity_text for each in peer.records}
    assert lost == set(NAMES[:committed])
    assert bool(lost) != repaired


@bad_and_repaired
def test_a_group_that_starts_later(kafka: Kafka, repaired: bool) -> None:
    """Where nothing is committed, latest passes over what is in the topic; earliest does not."""
    topic = f"offset-{repaired}"
    kafka.create_topic(topic, 1)
    produce(kafka, topic, NAMES)
    text = runnable(configuration("kafka-initial-offset", repaired=repaired), brokers=kafka.brokers, topic=topic)
    with Collector(text) as consumer:
        sent = 0

        def one_more_arrives() -> bool:
            nonlocal sent
            sent += 1
            produce(kafka, topic, [f"later-{sent}"])
            return any(each["severity_text"].startswith("later") for each in consumer.records())

        until(one_more_arrives, "the group reads", 60)
        stored = {each["severity_text"] for each in consumer.records()}
    assert set(NAMES) - stored == (set() if repaired else set(NAMES))
