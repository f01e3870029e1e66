"""Kafka, as a destination and as a source."""

from __future__ import annotations

from collections.abc import Iterator

from ..node import UNKNOWN
from .base import Audited, Hit, Severity, rule


@rule("kafka-acks", Severity.ERROR, "Kafka acknowledges before its replicas have it", loses=True)
def kafka_acks(audited: Audited) -> Iterator[Hit]:
    """1, the leader alone, where nothing is said."""
    for exporter in audited.exporters("kafka"):
        acks = exporter.settings.at("producer", "required_acks")
        value = acks.value if acks.given else 1
        if value is not UNKNOWN and value not in (-1, "-1", "all"):
            who = "no broker" if str(value) == "0" else "the partition's leader alone"
            yield Hit(
                acks,
                f"{exporter.id} takes the word of {who}: what the leader has and nobody else is gone when it fails",
                "producer.required_acks: all, and min.insync.replicas=2 on the topic",
            )


@rule("kafka-auto-topic", Severity.WARNING, "a topic that nobody has thought of")
def kafka_auto_topic(audited: Audited) -> Iterator[Hit]:
    """On where nothing is said."""
    for exporter in audited.exporters("kafka"):
        setting = exporter.settings.at("producer", "allow_auto_topic_creation")
        if setting.boolean(True) is True:
            yield Hit(
                setting,
                f"a topic that {exporter.id} does not find is made with the brokers' defaults: commonly one replica, "
                "and seven days until its messages are deleted",
                "producer.allow_auto_topic_creation: false, and a topic that was made on purpose",
            )


@rule("kafka-marking", Severity.ERROR, "a message counts as read before it is stored", loses=True)
def kafka_marking(audited: Audited) -> Iterator[Hit]:
    """``message_marking.after`` is off where nothing is said."""
    for receiver in audited.receivers("kafka"):
        marking = receiver.settings.at("message_marking")
        if marking.at("after").boolean(False) is False:
            yield Hit(
                marking.at("after"),
                f"{receiver.id} marks a message when it has got it: where the Collector is killed before it is stored, "
                "nobody reads it again",
                "message_marking: {after: true, on_error: false, on_permanent_error: false}",
            )
        for key in ("on_error", "on_permanent_error"):
            if marking.at("after").boolean(False) is True and marking.at(key).boolean(False) is True:
                yield Hit(
                    marking.at(key),
                    f"{receiver.id} marks messages that could not be stored as read",
                    f"{key}: false; and an error_backoff, so that it is tried again",
                )


@rule("kafka-initial-offset", Severity.ERROR, "a new consumer group begins at the end", loses=True)
def kafka_initial_offset(audited: Audited) -> Iterator[Hit]:
    """``latest`` where nothing is said."""
    for receiver in audited.receivers("kafka"):
        offset = receiver.settings.at("initial_offset")
        if offset.text("latest") == "latest":
            yield Hit(
                offset,
                f"where {receiver.id} has no committed offset (a new group, one whose offsets expired, a new "
                "partition) it passes over what is in the topic",
                "initial_offset: earliest",
            )
