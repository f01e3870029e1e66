"""Every protocol of OTLP against a real Collector: plain, compressed, with TLS on both sides, too large, refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otel_audit import semconv as sc
from otel_audit.delivery.backoff import Backoff
from otel_audit.delivery.shipper import Shipper, drain
from otel_audit.destinations import make_destination
from support.certificates import Authority
from support.collector import Collector, require_collector
from support.delivery import append, make_journal
from support.ports import free_ports

PROTOCOLS = ("grpc", "http/protobuf", "http/json")
COUNT = 2000
TLS = """
        tls:
          cert_file: ${env:OTELCOL_TLS_DIR}/tls.crt
          key_file: ${env:OTELCOL_TLS_DIR}/tls.key
"""
MUTUAL = TLS + "          client_ca_file: ${env:OTELCOL_TLS_DIR}/ca.crt\n"

CONFIG = """
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: ${env:OTELCOL_GRPC_ENDPOINT}
        # <tls>
      http:
        endpoint: ${env:OTELCOL_HTTP_ENDPOINT}
        # <tls>
exporters:
  file/audit:
    path: ${env:OTELCOL_DATA_DIR}/audit.jsonl
    create_directory: true
    rotation: {}
extensions:
  health_check:
    endpoint: ${env:OTELCOL_HEALTH_ENDPOINT}
service:
  extensions: [health_check]
  pipelines:
    logs:
      receivers: [otlp]
      exporters: [file/audit]
  telemetry:
    metrics:
      level: none
"""
"""The least that stores what it acknowledges; gRPC takes 4 MiB, as by default."""


@pytest.fixture(scope="module", autouse=True)
def _collector_binary() -> None:
    require_collector()


def _options(collector: Collector, protocol: str, **options: Any) -> dict[str, Any]:
    endpoint = collector.grpc_endpoint if protocol == "grpc" else collector.http_endpoint
    return {"type": "otlp", "protocol": protocol, "endpoint": endpoint, **options}


def _deliver(directory: Path, options: dict[str, Any], emit: Callable[[Any], list[str]]) -> tuple[list[str], Shipper]:
    """Emit, deliver everything, and give back what was emitted."""
    journal = make_journal(directory / "journal", required=("collector",))
    to = make_destination("collector", options, {})
    object.__setattr__(to, "retry", Backoff(first_s=0.2, max_s=1.0))
    object.__setattr__(to, "blocked", Backoff(first_s=0.2, max_s=1.0))
    shipper = Shipper(journal, to)
    try:
        ids = emit(journal)
        assert drain(shipper, timeout_s=120), shipper.state
    finally:
        shipper.close()
        journal.close()
    return ids, shipper


def _stored(collector: Collector) -> list[str]:
    records = collector.records()
    return [record["attributes"][sc.RECORD_ID] for record in records if sc.CONTROL not in record["attributes"]]


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_same_ids_arrive(tmp_path: Path, protocol: str, compression: str) -> None:
    """What is stored is what was emitted, each once and in order, with every kind of value as it was."""
    fields = {
        "text": "Grüße\n\u2028",
        "big": 2**63 - 1,
        "ratio": 0.1,
        "yes": True,
        "raw": b"\x00\xff",
        "list": [1, {"a": "b"}],
    }
    with Collector(CONFIG) as collector:
        options = _options(collector, protocol, compression=compression)
        ids, shipper = _deliver(tmp_path, options, lambda journal: append(journal, COUNT, **fields))
        assert _stored(collector) == ids
        attributes = collector.records()[-1]["attributes"]
        assert {name: attributes[name] for name in fields} == fields
    assert shipper.dead_lettered == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_on_both_sides(tmp_path: Path, protocol: str) -> None:
    """With the receiver's authority and our certificate everything arrives; without ours, nothing does."""
    authority = Authority(tmp_path / "tls")
    ours = authority.issue("client")
    env = {"OTELCOL_TLS_DIR": str(authority.directory)}
    with Collector(CONFIG.replace("        # <tls>\n", MUTUAL.lstrip("\n")), env) as collector:
        options = _options(collector, protocol, certificate=str(authority.ca))
        certificate = {"client_certificate": str(ours.cert), "client_key": str(ours.key)}
        with pytest.raises(AssertionError, match="state="):
            _give_up(tmp_path / "without", options)
        assert _stored(collector) == []
        ids, _ = _deliver(tmp_path, {**options, **certificate}, lambda journal: append(journal, 50))
        assert _stored(collector) == ids


def _give_up(directory: Path, options: dict[str, Any]) -> None:
    journal = make_journal(directory / "journal", required=("collector",))
    shipper = Shipper(journal, make_destination("collector", options, {}))
    try:
        append(journal, 5)
        assert drain(shipper, timeout_s=5, give_up=lambda: shipper.state.failures > 0), shipper.state
    finally:
        shipper.close()
        journal.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_tls_with_an_authority_of_our_own(tmp_path: Path, protocol: str) -> None:
    """The receiver's certificate is checked by the file; another authority is blocked."""
    authority, other = Authority(tmp_path / "tls"), Authority(tmp_path / "other")
    env = {"OTELCOL_TLS_DIR": str(authority.directory)}
    with Collector(CONFIG.replace("        # <tls>\n", TLS.lstrip("\n")), env) as collector:
        with pytest.raises(AssertionError, match="TLS failed"):
            _give_up(tmp_path / "other-authority", _options(collector, protocol, certificate=str(other.ca)))
        options = _options(collector, protocol, certificate=str(authority.ca))
        ids, _ = _deliver(tmp_path, options, lambda journal: append(journal, 50))
        assert _stored(collector) == ids


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_more_than_a_request_may_hold(tmp_path: Path, protocol: str) -> None:
    """Twelve megabytes in one batch: sent in parts of 4 MiB, nothing refused, nothing twice."""
    with Collector(CONFIG) as collector:
        options = _options(collector, protocol, batch_bytes="64MiB", timeout=60)
        ids, shipper = _deliver(tmp_path, options, lambda journal: append(journal, 120, text="x" * 100_000))
        assert _stored(collector) == ids
    assert shipper.dead_lettered == 0


def test_a_receiver_that_takes_less_is_met_by_splitting(tmp_path: Path) -> None:
    """Where we were told that more fits: its refusal splits the batch, and everything arrives."""
    with Collector(CONFIG) as collector:
        options = _options(collector, "grpc", batch_bytes="64MiB", request_bytes="64MiB", timeout=60)
        ids, shipper = _deliver(tmp_path, options, lambda journal: append(journal, 120, text="x" * 100_000))
        assert _stored(collector) == ids
    assert shipper.dead_lettered == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_full_queue_is_said_and_nothing_is_lost(tmp_path: Path, protocol: str) -> None:
    """A Collector whose queue is full answers 503 or UNAVAILABLE; when its backend comes, everything arrives."""
    port = free_ports(1)[0]
    with Collector(_agent(port)) as agent:
        journal = make_journal(tmp_path / "journal", required=("collector",))
        options = _options(agent, protocol, batch_records=20, timeout=5)
        to = make_destination("collector", options, {})
        object.__setattr__(to, "retry", Backoff(first_s=0.1, max_s=0.3))
        shipper = Shipper(journal, to)
        try:
            ids = append(journal, 400)
            assert not drain(shipper, timeout_s=30, give_up=lambda: shipper.state.failures > 0)
            assert shipper.state.state == "retrying"
            assert ("UNAVAILABLE" if protocol == "grpc" else "503") in shipper.state.error
            with Collector(_backend(port)) as backend:
                assert drain(shipper, timeout_s=120), shipper.state
                _until(lambda: set(ids) <= set(_stored(backend)))
        finally:
            shipper.close()
            journal.close()


def _agent(port: int) -> str:
    """Its queue holds two requests for the backend on this port."""
    config = CONFIG.replace("        # <tls>\n", "").replace(
        "exporters:\n  file/audit:",
        f"""exporters:
  otlp_grpc:
    endpoint: 127.0.0.1:{port}
    tls: {{insecure: true}}
    retry_on_failure: {{max_elapsed_time: 0s, initial_interval: 100ms, max_interval: 300ms}}
    sending_queue: {{sizer: requests, queue_size: 2, num_consumers: 1, block_on_overflow: false}}
  file/unused:""",
    )
    return config.replace("exporters: [file/audit]", "exporters: [otlp_grpc]")


def _backend(port: int) -> str:
    return CONFIG.replace("        # <tls>\n", "").replace("${env:OTELCOL_GRPC_ENDPOINT}", f"127.0.0.1:{port}")


def _until(condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.05)
