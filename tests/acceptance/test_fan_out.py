"""Fan-out, dead letters and the doctor with a real Collector."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from otel_audit import semconv as sc
from otel_audit.delivery.shipper import Shipper, drain
from otel_audit.settings import build_provider
from support.cli import clean_environment, run_json
from support.collector import Collector, require_collector
from support.delivery import Sink, append, destination, make_journal

TENANTS = ("acme", "globex", "initech")
COUNT = 900


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


def test_each_destination_gets_what_is_for_it(tmp_path: Path) -> None:
    """A tenant's Collector has that tenant's records and no other, a file everything; a dead one slows neither."""
    require_collector()
    file = tmp_path / "everything.jsonl"
    with Collector() as collector:
        otlp = {"type": "otlp", "endpoint": f"{collector.http_endpoint}/v1/logs", "allow_filtered": True}
        destinations: dict[str, Any] = {
            "acme": {**otlp, "filter": {"tenants": ["acme"]}},
            "everything": {"type": "file", "path": file},
            "dead": {"type": "http", "url": "http://127.0.0.1:9/", "required": False},
        }
        provider = build_provider(journal=tmp_path / "journal", service_name="shop", destinations=destinations)
        logger = provider.get_audit_logger()
        ids: dict[str, list[str]] = {tenant: [] for tenant in TENANTS}
        for number in range(COUNT):
            tenant = TENANTS[number % len(TENANTS)]
            receipt = logger.emit("order.create", actor="u-1", outcome="success", tenant=tenant)
            ids[tenant].append(receipt.record_id)
        result = provider.flush(120)
        assert result, result
        states = {each.name: each for each in result.destinations}
        assert (states["acme"].delivered, states["acme"].filtered) == (COUNT // 3 + 1, COUNT * 2 // 3)
        assert (states["everything"].delivered, states["everything"].filtered) == (COUNT + 1, 0)
        assert states["dead"].pending == COUNT + 1
        provider.shutdown(30)
        arrived = [record["attributes"] for record in collector.records()]
    assert [each[sc.RECORD_ID] for each in arrived if sc.CONTROL not in each] == ids["acme"]
    assert len([each for each in arrived if sc.CONTROL in each]) == 2
    in_file = [json.loads(line) for line in file.read_text().splitlines()]
    assert {line["record_id"] for line in in_file} >= {each for some in ids.values() for each in some}


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_doctor_finds_a_real_collector_well(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, protocol: str
) -> None:
    """Reached, and the test event is in its file, marked."""
    require_collector()
    with Collector() as collector:
        endpoint = collector.grpc_endpoint if protocol == "grpc" else f"{collector.http_endpoint}/v1/logs"
        config = tmp_path / "audit.toml"
        lines = ["[destinations.collector]", 'type = "otlp"', f'protocol = "{protocol}"', f'endpoint = "{endpoint}"']
        config.write_text("\n".join(lines))
        found = run_json(capsys, "doctor", "--journal", tmp_path / "journal", "--config", config, "--timeout", 30)
        assert found["healthy"]
        assert {each["level"] for each in found["findings"] if each["check"] == "destination collector"} == {"ok"}
        events = [record for record in collector.records() if sc.TEST in record["attributes"]]
    assert [event["event_name"] for event in events] == [sc.EVENT_TEST]
    assert events[0]["resource"][sc.TEST] is True


def test_dead_letters_reach_a_real_collector(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """What one destination refused is replayed into the Collector, byte for byte, once."""
    require_collector()
    journal = make_journal(tmp_path / "journal", required=["archive"])
    append(journal, 3)
    bad = append(journal, 20)
    shipper = Shipper(journal, destination(Sink(refuses=lambda record: record.record_id in bad), "archive"))
    assert drain(shipper, timeout_s=30)
    shipper.close()
    journal.close()
    with Collector() as collector:
        config = tmp_path / "audit.toml"
        config.write_text(f'[destinations.c]\ntype = "otlp"\nendpoint = "{collector.http_endpoint}/v1/logs"\n')
        arguments = ("dlq", "replay", "archive", "--to", "c", "--config", config, "--journal", tmp_path / "journal")
        assert run_json(capsys, *arguments)["delivered"] == len(bad)
        assert run_json(capsys, *arguments)["skipped"] == len(bad)
        arrived = [record["attributes"][sc.RECORD_ID] for record in collector.records()]
    assert arrived == bad
