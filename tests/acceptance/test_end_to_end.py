"""From an ordinary application to a real Collector's file: the set of ids that arrives is the set that was logged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from otel_audit import semconv as sc
from otel_audit.canonical import canonicalize
from otel_audit.journal.layout import Layout
from otel_audit.journal.ledger import LedgerLine
from support import application
from support.collector import Collector, StoredRecord, require_collector

APPLICATION = Path(application.__file__)
COUNT = 10_000


def _endpoint(collector: Collector, receiver: str) -> str:
    if receiver == "grpc":
        return collector.grpc_endpoint
    return collector.audit_endpoint if receiver == "/v1/audit" else f"{collector.http_endpoint}/v1/logs"


def _wait_until_logged(tmp_path: Path, count: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    ids = tmp_path / "ids"
    while not ids.exists() or ids.stat().st_size < count * len(f"{uuid.UUID(int=0)}\n"):
        assert process.poll() is None, "the application ended before the Collector was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _start(
    tmp_path: Path, endpoint: str, count: int, pause_s: float = 0.0, protocol: str = "http/protobuf"
) -> subprocess.Popen[str]:
    command = [sys.executable, str(APPLICATION), str(tmp_path / "journal"), endpoint, str(count), str(tmp_path / "ids")]
    environ = {**os.environ, "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    command.append(str(pause_s))
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str], timeout_s: float = 120) -> dict[str, Any]:
    try:
        output, errors = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    result: dict[str, Any] = json.loads(output)
    return result


def _logged(tmp_path: Path) -> set[str]:
    return set((tmp_path / "ids").read_text().split())


def _arrived(collector: Collector) -> tuple[Counter[str], Counter[str]]:
    """Ids of the application's records and of the journal's own, with how often each arrived."""
    ours: Counter[str] = Counter()
    control: Counter[str] = Counter()
    for record in collector.records():
        attributes = record["attributes"]
        (control if sc.CONTROL in attributes else ours)[attributes[sc.RECORD_ID]] += 1
    return ours, control


@pytest.mark.parametrize("receiver", ["/v1/logs", "/v1/audit"])
def test_everything_that_was_logged_arrives(tmp_path: Path, receiver: str) -> None:
    """10,000 records through both captures arrive in the Collector's file, each once, under the right resource."""
    require_collector()
    with Collector() as collector:
        result = _finish(_start(tmp_path, _endpoint(collector, receiver), COUNT))
        ours, control = _arrived(collector)
        records = collector.records()
    assert result == {"pending": 0, "dead": 0, "damaged": 0}
    assert set(ours) == _logged(tmp_path)
    assert len(ours) == COUNT
    assert set(ours.values()) == {1}
    assert len(control) == 2  # logging started, logging stopped
    assert {record["resource"]["service.name"] for record in records} == {"shop"}
    names = Counter(record["event_name"] for record in records)
    assert names["order.create"] == names["order.cancel"] == COUNT // 2


def _canonical(record: StoredRecord) -> bytes:
    return canonicalize(
        record["event_name"],
        record["timestamp"],
        record["observed_timestamp"],
        record["body"],
        record["attributes"],
        record["trace_id"],
        record["span_id"],
    )


def test_the_order_and_the_chain_arrive(tmp_path: Path) -> None:
    """In the Collector's file each record, written down anew, has the hash that its successor names."""
    require_collector()
    with Collector() as collector:
        _finish(_start(tmp_path, f"{collector.http_endpoint}/v1/logs", 500))
        records = collector.records()
    numbers = [record["attributes"][sc.SEQUENCE_NUMBER] for record in records]
    assert numbers == list(range(1, len(records) + 1))
    hashes = [sha256(_canonical(record)).hexdigest() for record in records]
    assert [record["attributes"].get(sc.SEQUENCE_PREVIOUS_HASH) for record in records] == [None, *hashes[:-1]]
    ledger = (tmp_path / "journal" / "ledger.jsonl").read_bytes().splitlines()
    last = msgspec.json.decode(ledger[-1], type=LedgerLine)
    assert (last.last, last.count, last.last_hash) == (len(records), len(records), hashes[-1])


@pytest.mark.parametrize("receiver", ["/v1/logs", "/v1/audit", "grpc"])
def test_nothing_is_lost_while_the_collector_is_killed(tmp_path: Path, receiver: str) -> None:
    """The Collector is killed and restarted three times under load; each of 10,000 ids arrives at least once."""
    require_collector()
    with Collector() as collector:
        protocol = "grpc" if receiver == "grpc" else "http/protobuf"
        process = _start(tmp_path, _endpoint(collector, receiver), COUNT, pause_s=0.001, protocol=protocol)
        for kill in range(1, 4):
            _wait_until_logged(tmp_path, COUNT * kill // 5, process)
            collector.kill()
            time.sleep(0.5)
            collector.start()
        result = _finish(process, 300)
        ours, _ = _arrived(collector)
    assert result == {"pending": 0, "dead": 0, "damaged": 0}
    assert set(ours) == _logged(tmp_path)
    assert len(ours) == COUNT
    assert not list(Layout(tmp_path / "journal").streams.iterdir())
