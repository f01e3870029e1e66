"""``otel-audit collector check`` against real Collectors: silent on ours, and it says what a naive one loses."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from support.cli import clean_environment, run_json
from support.collector import AGENT, FORWARD, Collector, require_collector
from support.corpus import case_of, runnable


@pytest.fixture(autouse=True)
def _prepared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    require_collector()
    clean_environment(monkeypatch, tmp_path)


def ends(collector: Collector) -> list[object]:
    """The two files that a Collector writes."""
    collector.data_directory.mkdir(exist_ok=True)
    return ["--audit", collector.data_directory / "audit.jsonl", "--app", collector.data_directory / "app.jsonl"]


def wrong(document: Any) -> list[tuple[str, str]]:
    """What is not right: kind and role."""
    return [(each["kind"], each["role"]) for each in document["arrivals"] if not each["right"]]


def test_our_agent_is_right(capsys: pytest.CaptureFixture[str]) -> None:
    """Over HTTP and gRPC every kind arrives where it belongs; what is sent to the audit port is all audit."""
    with Collector(AGENT) as collector:
        check = ("collector", "check", *ends(collector), "--endpoint")
        assert run_json(capsys, *check, collector.http_endpoint)["right"]
        assert run_json(capsys, *check, collector.grpc_endpoint, "--protocol", "grpc")["right"]
        assert run_json(capsys, *check, collector.audit_endpoint, "--audit-only")["right"]
        document = run_json(capsys, *check, collector.audit_endpoint, "--timeout", 3, code=1)
        assert wrong(document) == [("application", "audit"), ("application", "app")]


@pytest.mark.parametrize(
    ("rule", "kinds"),
    [
        ("audit-not-default", {("without-id", "audit"), ("without-id", "app")}),
        ("wrong-context", {(kind, role) for kind in ("audit", "nameless", "without-id") for role in ("audit", "app")}),
        ("no-default-route", {(kind, "audit") for kind in ("audit", "nameless", "without-id")}),
    ],
)
def test_a_naive_chain_is_found_out(capsys: pytest.CaptureFixture[str], rule: str, kinds: set[tuple[str, str]]) -> None:
    """Configurations that the linter finds fault with: the check names the kinds that do not arrive, or go astray."""
    with Collector(runnable(case_of(rule).body)) as collector:
        check = ("collector", "check", *ends(collector), "--endpoint", collector.http_endpoint, "--timeout", 4)
        document = run_json(capsys, *check, code=1)
    assert document["refused"] is None
    assert set(wrong(document)) == kinds


def test_it_listens_as_the_last_hop(capsys: pytest.CaptureFixture[str]) -> None:
    """A forwarding agent whose gateway is the check itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with Collector(FORWARD, {"OTELCOL_GATEWAY_ENDPOINT": f"http://127.0.0.1:{port}"}) as collector:
        check = ("collector", "check", "--audit", f"listen:127.0.0.1:{port}", "--endpoint", collector.audit_endpoint)
        document = run_json(capsys, *check, "--audit-only")
    assert [(each["kind"], each["arrived"]) for each in document["arrivals"]] == [
        ("audit", 10), ("nameless", 10), ("without-id", 10),
    ]  # fmt: skip
