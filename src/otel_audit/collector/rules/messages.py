"""Sizes that have to fit each other: what one hop accepts, the next has to be able to take."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from ..configuration import Component
from ..node import UNKNOWN, Unknown
from .base import Audited, Hit, Severity, hop_rule, queue_of, rule

MIB: Final = 1024 * 1024
GRPC_DEFAULT: Final = 4 * MIB
HTTP_DEFAULT: Final = 20 * MIB
KAFKA_DEFAULT: Final = 1_000_000


def accepted_bytes(receiver: Component) -> dict[str, float]:
    """The largest request that each protocol of an OTLP receiver takes, where it is known."""
    found = {}
    for name, protocol in receiver.settings.at("protocols").children().items():
        if name == "grpc":
            mib = protocol.at("max_recv_msg_size_mib").number(0)
            size: float | Unknown = UNKNOWN if isinstance(mib, Unknown) else (mib * MIB or GRPC_DEFAULT)
        else:
            limit = protocol.at("max_request_body_size").number(0)
            size = limit if isinstance(limit, Unknown) else (limit or HTTP_DEFAULT)
        if not isinstance(size, Unknown):
            found[name] = size
    return found


def largest_request(audited: Audited) -> float:
    """The largest request that comes in by any receiver of audit records; 0 where none is known."""
    return max((size for each in audited.receivers("otlp") for size in accepted_bytes(each).values()), default=0)


def _size(count: float) -> str:
    return f"{count / MIB:.3g} MiB" if count >= MIB else f"{count:,.0f} bytes"


@rule("grpc-receive-limit", Severity.WARNING, "gRPC takes less than the sender sends")
def grpc_receive_limit(audited: Audited) -> Iterator[Hit]:
    """4 MiB where nothing is said; a larger request is refused for good."""
    for receiver in audited.receivers("otlp"):
        grpc = receiver.settings.at("protocols", "grpc")
        limit = grpc.at("max_recv_msg_size_mib")
        if grpc.given and grpc.value is not UNKNOWN and limit.number(0) == 0:
            yield Hit(
                limit,
                f"{receiver.id} takes 4 MiB over gRPC (and 20 MiB over HTTP): a larger request is refused with "
                "RESOURCE_EXHAUSTED, which senders take for final",
                "max_recv_msg_size_mib: 20",
            )


@rule("queue-too-small", Severity.ERROR, "a request that never fits into the queue")
def queue_too_small(audited: Audited) -> Iterator[Hit]:
    """The queue's bytes against the largest request that is let in."""
    largest = largest_request(audited)
    for exporter in audited.exporters():
        queue = queue_of(exporter)
        if queue is None or queue.at("sizer").text("requests") != "bytes":
            continue
        size = queue.at("queue_size").number(1000)
        if not isinstance(size, Unknown) and size < largest:
            yield Hit(
                queue.at("queue_size"),
                f"the receivers let in {_size(largest)}, the queue of {exporter.id} holds {_size(size)}: a request "
                "in between is refused as long as somebody sends it",
                f"queue_size: at least {largest:.0f}; better what an outage of the next hop needs",
            )


@rule("kafka-message-size", Severity.WARNING, "a request that Kafka does not take", loses=True)
def kafka_message_size(audited: Audited) -> Iterator[Hit]:
    """A message over ``max_message_bytes`` is a permanent error: dropped."""
    largest = largest_request(audited)
    for exporter in audited.exporters("kafka"):
        setting = exporter.settings.at("producer", "max_message_bytes")
        limit = setting.number(KAFKA_DEFAULT)
        if isinstance(limit, Unknown) or limit >= largest or _bounded(exporter, limit):
            continue
        yield Hit(
            setting,
            f"the receivers let in {_size(largest)}, {exporter.id} sends at most {_size(limit)} in a message, and "
            "drops what is larger",
            "receivers that let in less (max_recv_msg_size_mib, max_request_body_size); or a larger max_message_bytes "
            "here, max.message.bytes on the topic and message.max.bytes on the brokers",
        )


def _bounded(exporter: Component, limit: float) -> bool:
    """Whether a batch of the queue is cut to the limit, in bytes."""
    batch = exporter.settings.at("sending_queue", "batch")
    size = batch.at("max_size").number(0)
    sizer = batch.at("sizer").text() or exporter.settings.at("sending_queue", "sizer").text("requests")
    return sizer == "bytes" and not isinstance(size, Unknown) and 0 < size <= limit


@hop_rule("next-hop-limit", Severity.ERROR, "the next hop takes less than this one", loses=True)
def next_hop_limit(sender: Audited, receiver: Audited) -> Iterator[Hit]:
    """What the sender lets in it sends on in one piece; a refusal for its size is permanent, and drops it."""
    largest = largest_request(sender)
    for exporter in sender.exporters("otlp", "otlpgrpc", "otlphttp"):
        if _bounded(exporter, largest):
            continue
        found = _taken_by(exporter, receiver)
        if found is not None and found[1] < largest:
            yield Hit(
                exporter.settings,
                f"the receivers here let in {_size(largest)}, and {exporter.id} sends that on to {found[0].id} of the "
                f"next hop, which takes {_size(found[1])}: it is refused for its size, and dropped",
                "the same limit, or a larger one, at every hop after the first (max_recv_msg_size_mib, "
                "max_request_body_size)",
            )


def _taken_by(exporter: Component, hop: Audited) -> tuple[Component, float] | None:
    """The receiver that an exporter means, by protocol and, where it is known, by port; and what it takes."""
    protocol = "http" if exporter.type == "otlphttp" else "grpc"
    endpoints = [exporter.settings.at(key).text() for key in ("endpoint", "logs_endpoint")]
    ports = {port for port in map(_port, endpoints) if port}
    fitting = [
        (receiver, sizes[protocol], _port(receiver.settings.at("protocols", protocol, "endpoint").text()))
        for receiver in hop.receivers("otlp")
        if protocol in (sizes := accepted_bytes(receiver))
    ]
    chosen = [each for each in fitting if each[2] in ports] or fitting
    return min(((each[0], each[1]) for each in chosen), key=lambda pair: pair[1], default=None)


def _port(endpoint: str | Unknown) -> str:
    match = re.search(r":(\d+)(/|$)", endpoint) if isinstance(endpoint, str) else None
    return match[1] if match else ""
