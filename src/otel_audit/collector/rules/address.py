"""Addresses: who may send, who may listen in, and what a queue forgets about who it was."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from ..configuration import Component
from ..node import View
from .base import Audited, Hit, Severity, answers_early, persistent, rule


def is_loopback(endpoint: str) -> bool:
    """Whether only this machine reaches it: ``127.0.0.1:4317``, ``localhost:4317``, ``[::1]:4317``, a socket."""
    address = re.sub(r"^\w+://", "", endpoint.strip())
    if address.startswith(("/", "@")) or endpoint.startswith("unix:"):
        return True
    address = address.partition("/")[0]
    if address.startswith("["):
        host = address[1:].partition("]")[0]
    else:
        host = address.rpartition(":")[0] if ":" in address else address
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listeners(audited: Audited) -> Iterator[tuple[Component, View]]:
    """The protocols of the OTLP receivers of audit records that other machines reach."""
    for receiver in audited.receivers("otlp", "otelarrow"):
        for protocol in receiver.settings.at("protocols").children().values():
            endpoint = protocol.at("endpoint").text("localhost")
            if isinstance(endpoint, str) and not is_loopback(endpoint):
                yield receiver, protocol


@rule("plain-text-listener", Severity.ERROR, "a listener without TLS that other machines reach")
def plain_text_listener(audited: Audited) -> Iterator[Hit]:
    """Loopback addresses and sockets need none."""
    for receiver, protocol in _listeners(audited):
        if not protocol.at("tls").children() and isinstance(protocol.at("tls").value, (dict, type(None))):
            yield Hit(
                protocol.at("endpoint"),
                f"{receiver.id} takes audit records from other machines unencrypted: they can be read and changed on "
                "the way",
                "tls with cert_file, key_file and client_ca_file; or a loopback address",
            )


@rule("anybody-may-send", Severity.WARNING, "a listener that does not ask who it is")
def anybody_may_send(audited: Audited) -> Iterator[Hit]:
    """Neither client certificates nor an authenticator."""
    for receiver, protocol in _listeners(audited):
        tls = protocol.at("tls")
        asks = (tls.at("client_ca_file"), tls.at("client_ca_pem"), protocol.at("auth"))
        if tls.children() and not any(view.given for view in asks):
            yield Hit(
                tls,
                f"{receiver.id} takes audit records from anybody who reaches it",
                "tls.client_ca_file: only clients with a certificate of that authority; or an authenticator",
            )


@rule("unverified-peer", Severity.ERROR, "records go to whoever answers")
def unverified_peer(audited: Audited) -> Iterator[Hit]:
    """No TLS to another machine, or TLS that verifies nothing."""
    for receiver in audited.receivers("kafka"):
        yield from _plain_kafka(receiver)
    for exporter in audited.exporters():
        settings = exporter.settings
        tls = settings.at("tls")
        if tls.at("insecure_skip_verify").boolean(False) is True:
            yield Hit(
                tls.at("insecure_skip_verify"),
                f"{exporter.id} does not look at the certificate of the next hop: anybody in between may take the "
                "records and acknowledge them",
                "insecure_skip_verify: false, and tls.ca_file",
            )
        if exporter.type == "kafka":
            yield from _plain_kafka(exporter)
        if exporter.type not in ("otlp", "otlpgrpc", "otlphttp"):
            continue
        for key in ("endpoint", "logs_endpoint"):
            endpoint = settings.at(key).text()
            if not isinstance(endpoint, str) or not endpoint or is_loopback(endpoint):
                continue
            insecure = tls.at("insecure").boolean(False) is True and not endpoint.startswith("https://")
            if endpoint.startswith("http://") or (insecure and exporter.type != "otlphttp"):
                yield Hit(
                    settings.at(key),
                    f"{exporter.id} sends audit records to another machine unencrypted, and to whoever answers there",
                    "https and tls.ca_file, with cert_file and key_file for mutual TLS",
                )


def _plain_kafka(client: Component) -> Iterator[Hit]:
    """A client of brokers on other machines that speaks no TLS, which is the default."""
    tls = client.settings.at("tls")
    away = [broker for broker in client.settings.at("brokers").items() if not _is_near(broker)]
    if away and (not tls.given or tls.at("insecure").boolean(False) is True):
        yield Hit(
            tls.at("insecure"),
            f"{client.id} speaks to brokers on other machines unencrypted, and to whoever answers there",
            "tls.insecure: false with ca_file, and cert_file and key_file for mutual TLS",
        )


def _is_near(broker: View) -> bool:
    address = broker.text()
    return not isinstance(address, str) or is_loopback(address)


@rule("context-lost", Severity.ERROR, "the queue forgets who sent it")
def context_lost(audited: Audited) -> Iterator[Hit]:
    """What comes from the request's context is not in a queue on disk."""
    for exporter in audited.exporters():
        queue = answers_early(exporter)
        if queue is None or not persistent(queue):
            continue
        for view in _from_context(audited, exporter):
            yield Hit(
                view,
                f"{exporter.id} takes this from the client's request, which its queue on disk does not keep: after a "
                "restart, and in the queue, it is empty",
                "stamp it on the resource before the queue (the resource processor with from_context, action: insert)",
            )


def _from_context(audited: Audited, exporter: Component) -> Iterator[View]:
    name = exporter.settings.at("auth", "authenticator").text()
    authenticator = audited.configuration.section("extensions").get(name) if isinstance(name, str) else None
    if authenticator is not None and authenticator.type == "headerssetter":
        for header in authenticator.settings.at("headers").mappings():
            if header.at("from_context").given:
                yield header.at("from_context")
    for path in (("include_metadata_keys",), ("sending_queue", "batch", "partition", "metadata_keys")):
        view = exporter.settings.at(*path)
        if view.items():
            yield view
