"""Every rule is loud on a configuration that breaks it, silent on the repaired one, and silent on ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otel_audit.collector.files import read_beside, read_source
from otel_audit.collector.lint import Source, lint
from otel_audit.collector.rules import RULES
from support.corpus import BAD, read_case

ROOT = Path(__file__).parents[3]
SHIPPED = sorted(
    path
    for path in (ROOT / "collector-config").rglob("*.yaml")
    if re.search(r"^receivers:", text := path.read_text(encoding="utf-8"), re.MULTILINE)
    and re.search(r"^service:", text, re.MULTILINE)
)
# About two configurations that follow one another: tested below.
ABOUT_HOPS = {"next-hop-limit"}


def found(text: str) -> list[tuple[str, str]]:
    """Rule and path of what the linter finds in a configuration, without any environment."""
    (linted,) = lint([[Source("bad.yaml", text)]], {})
    return [(finding.rule, finding.path) for finding in linted.findings if not finding.ignored]


def test_the_corpus_has_every_rule() -> None:
    """For each rule there is a configuration that breaks it, and for each configuration a rule."""
    assert {path.stem for path in BAD} == set(RULES) - ABOUT_HOPS


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_configuration_is_found(path: Path) -> None:
    """Its rule finds it, in the place that its first line names, and no other rule finds anything."""
    case = read_case(path)
    assert case.rule in {rule for rule, _ in case.finds}
    assert sorted(found(case.body)) == sorted(case.finds)


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_repaired_configuration_is_not(path: Path) -> None:
    """After each of the repairs that the file names, the rule is silent, and nothing new is found."""
    case = read_case(path)
    rest = [(rule, at) for rule, at in case.finds if rule != case.rule]
    assert case.repairs
    for number, repair in enumerate(case.repairs):
        assert found(case.repaired(number)) == rest, repair


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(ROOT)))
def test_our_configurations_are_clean(path: Path) -> None:
    """Nothing is found in a configuration that this repository ships, and it is known where its audit records go."""
    (linted,) = lint([[read_source(str(path))]], {}, read_file=read_beside)
    assert [f"{each.place}: {each.rule}: {each.reason}" for each in linted.findings if not each.ignored] == []
    assert linted.audit_pipelines
    assert not linted.assumed


def test_there_are_configurations_of_ours() -> None:
    """The test above has something to look at."""
    assert len(SHIPPED) >= 2


HOP = """\
receivers:
  otlp/audit:
    protocols:
      http: {{endpoint: 127.0.0.1:4318, max_request_body_size: {limit}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 512}}
exporters:
  otlp_http/next:
    endpoint: https://gateway.example:4318
    sending_queue: {{enabled: false}}
service:
  pipelines:
    logs/audit: {{receivers: [otlp/audit], processors: [memory_limiter], exporters: [otlp_http/next]}}
"""


@pytest.mark.parametrize(("first", "second", "rules"), [(20, 10, ["next-hop-limit"]), (10, 20, []), (10, 10, [])])
def test_the_next_hop_takes_what_this_one_lets_in(first: int, second: int, rules: list[str]) -> None:
    """Sizes are compared along a chain where --chain says that it is one, and not otherwise."""
    hops = [[Source(f"{limit}.yaml", HOP.format(limit=limit * 1024 * 1024))] for limit in (first, second)]
    assert [finding.rule for linted in lint(hops, {}, chain=True) for finding in linted.findings] == rules
    assert [finding.rule for linted in lint(hops, {}) for finding in linted.findings] == []


QUEUES = """\
receivers:
  otlp/audit: {{}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 512}}
exporters:
  {exporter}
connectors:
  failover: {{priority_levels: [[logs/next]]{connector}}}
extensions:
  file_storage: {{directory: /var/lib/queue, fsync: true}}
service:
  extensions: [file_storage]
  pipelines:
    logs/audit: {{receivers: [otlp/audit], processors: [memory_limiter], exporters: [failover]}}
    logs/next: {{receivers: [failover], exporters: [{name}]}}
"""


@pytest.mark.parametrize(
    ("exporter", "connector", "rules"),
    [
        # exporters that others hold have a queue each
        ("loadbalancing: {resolver: {static: {hostnames: [a]}}}", "", ["memory-queue", "retry-gives-up"]),
        ("loadbalancing: {protocol: {otlp: {sending_queue: {enabled: false}}}}", "", []),
        ("loadbalancing: {sending_queue: {}, protocol: {otlp: {sending_queue: {enabled: false}}}}", "",
         ["memory-queue", "retry-gives-up"]),
        # a connector's queue is one, too
        ("nop: {}", ", sending_queue: {}", ["memory-queue", "nowhere"]),
        ("nop: {}", ", sending_queue: {storage: file_storage}", ["nowhere"]),
        ("nop: {}", "", ["nowhere"]),
        # queues that are off, or answer when the destination has
        ("otlp_http: {endpoint: https://a}", "", ["memory-queue", "retry-gives-up"]),
        ("otlp_http: {endpoint: https://a, sending_queue: {enabled: false}}", "", []),
        ("otlp_http: {endpoint: https://a, sending_queue: {wait_for_result: true}}", "", []),
        ("otlphttp: {endpoint: https://a, sending_queue: {wait_for_result: true}}", "", []),
        # off where nothing is said
        ("awss3: {s3uploader: {s3_bucket: a, unique_key_func_name: uuidv7}}", "", []),
        ("awss3: {sending_queue: {}, s3uploader: {s3_bucket: a, unique_key_func_name: uuidv7}}", "",
         ["memory-queue", "retry-gives-up"]),
    ],
)  # fmt: skip
def test_every_queue_is_seen(exporter: str, connector: str, rules: list[str]) -> None:
    """Those that are on by default, those inside other exporters, and those of connectors."""
    text = QUEUES.format(exporter=exporter, connector=connector, name=exporter.partition(":")[0])
    assert sorted({rule for rule, _ in found(text)}) == rules
