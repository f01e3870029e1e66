"""Which pipelines the linter takes to carry audit records."""

from __future__ import annotations

import pytest

from otel_audit.collector.flow import excludes_audit, excludes_every_audit_record, selects_audit
from otel_audit.collector.lint import Linted, Source, lint
from otel_audit.errors import ConfigurationError

NOT_AUDIT = """log.event_name == "" and log.attributes["audit.record.id"] == nil"""


def look(pipelines: str, *, connectors: str = "", receivers: str = "", audit: tuple[str, ...] = ()) -> Linted:
    """Lint a configuration with these pipelines, in short form, and otlp, file and debug to build them from."""
    text = (
        f"receivers:\n  otlp: {{}}\n  otlp/audit: {{}}\n{receivers}\n"
        f"exporters:\n  debug: {{}}\n  file: {{}}\n  file/audit: {{}}\n"
        f"connectors:\n  forward: {{}}\n  count: {{}}\n  failover: {{}}\n{connectors}\n"
        f"service:\n  pipelines:\n{pipelines}"
    )
    (linted,) = lint([[Source("config.yaml", text)]], {}, audit=audit)
    return linted


def pipe(name: str, receivers: str, exporters: str) -> str:
    """One pipeline."""
    return f"    {name}: {{receivers: [{receivers}], exporters: [{exporters}]}}\n"


def test_names_say_it() -> None:
    """A pipeline, receiver or exporter with audit in its name; others are left alone."""
    by_name = pipe("logs/audit", "otlp", "debug") + pipe("logs/app", "otlp", "debug")
    assert set(look(by_name).audit_pipelines) == {"logs/audit"}
    by_receiver = pipe("logs/a", "otlp/audit", "debug") + pipe("logs/b", "otlp", "debug")
    assert set(look(by_receiver).audit_pipelines) == {"logs/a"}
    by_exporter = pipe("logs/a", "otlp", "debug") + pipe("logs/b", "otlp", "file/audit")
    assert set(look(by_exporter).audit_pipelines) == {"logs/b"}


@pytest.mark.parametrize(
    "receiver",
    [
        "otlp/x: {protocols: {http: {logs_url_path: /v1/audit}}}",
        "kafka: {logs: {topics: [company.audit.v1]}}",
        "kafka: {topic: audit}",
    ],
)
def test_paths_and_topics_say_it(receiver: str) -> None:
    """A receiver whose path or topic has audit in it."""
    name = receiver.partition(":")[0]
    linted = look(pipe("logs/a", name, "debug") + pipe("logs/b", "otlp", "debug"), receivers=f"  {receiver}")
    assert set(linted.audit_pipelines) == {"logs/a"}


def test_where_nothing_says_it_all_logs_are_taken_for_audit() -> None:
    """Rather a finding too many; traces and metrics never carry audit records."""
    linted = look(pipe("logs", "otlp", "debug") + pipe("logs/2", "otlp", "file") + pipe("traces", "otlp", "debug"))
    assert set(linted.audit_pipelines) == {"logs", "logs/2"}
    assert linted.assumed


def test_the_user_says_it() -> None:
    """--audit goes before names; a pipeline that is not there, or carries no logs, is a mistake."""
    pipelines = pipe("logs/audit", "otlp", "debug") + pipe("logs/b", "otlp", "debug") + pipe("traces", "otlp", "debug")
    assert set(look(pipelines, audit=("logs/b",)).audit_pipelines) == {"logs/b"}
    for name in ("logs/adit", "traces"):
        with pytest.raises(ConfigurationError, match="--audit: there is no logs pipeline"):
            look(pipelines, audit=(name,))


@pytest.mark.parametrize("connector", ["forward", "failover"])
def test_connectors_are_followed_in_both_directions(connector: str) -> None:
    """What feeds an audit pipeline carries audit records, and so does everything that it feeds."""
    pipelines = (
        pipe("logs/in", "otlp", connector)
        + pipe("logs/audit", connector, "debug")
        + pipe("logs/copy", connector, "file")
        + pipe("logs/else", "otlp", "debug")
    )
    assert set(look(pipelines).audit_pipelines) == {"logs/in", "logs/audit", "logs/copy"}


def test_counts_are_no_audit_records() -> None:
    """A pipeline is not followed through a connector that turns records into numbers."""
    pipelines = pipe("logs/audit", "otlp", "count, debug") + pipe("metrics", "count", "debug")
    assert set(look(pipelines).audit_pipelines) == {"logs/audit"}


ROUTED = pipe("logs/in", "otlp/audit", "routing") + "".join(
    pipe(f"logs/{name}", "routing", "debug") for name in ("one", "two", "rest")
)


@pytest.mark.parametrize(
    ("table", "default", "carry"),
    [
        # the default route, and rows that say nothing about audit records
        ([("log.attributes[\"tenant\"] == \"acme\"", "one")], "rest", {"one", "rest"}),
        # application logs are excluded
        ([(NOT_AUDIT, "one")], "rest", {"rest"}),
        ([(NOT_AUDIT, "one"), ("resource.attributes[\"tenant\"] == \"acme\"", "two")], "rest", {"two", "rest"}),
        # audit records are selected: then they go by those rows alone
        ([("log.attributes[\"audit.record.id\"] != nil", "one")], "rest", {"one"}),
        ([("resource.attributes[\"kind\"] == \"audit\"", "one"), ("true", "two")], "rest", {"one"}),
        ([("IsMatch(log.event_name, \"^audit\")", "two")], "rest", {"two"}),
        # no default
        ([(NOT_AUDIT, "one"), ("true", "two")], "", {"two"}),
    ],
)  # fmt: skip
def test_routing_is_followed_by_its_conditions(table: list[tuple[str, str]], default: str, carry: set[str]) -> None:
    """By the default route and each row that does not exclude audit records; where rows select them, by those alone."""
    rows = "".join(f"      - {{context: log, condition: '{text}', pipelines: [logs/{to}]}}\n" for text, to in table)
    defaults = f"    default_pipelines: [logs/{default}]\n" if default else ""
    linted = look(ROUTED, connectors=f"  routing:\n{defaults}    table:\n{rows}")
    assert set(linted.audit_pipelines) == {"logs/in", *(f"logs/{name}" for name in carry)}


def test_conditions() -> None:
    """Excluding wins over selecting, and words elsewhere in a condition say nothing."""
    assert excludes_audit(NOT_AUDIT)
    assert not selects_audit(NOT_AUDIT)
    assert selects_audit('attributes["audit.actor.id"] != nil')
    assert not selects_audit('resource.attributes["service.name"] == "billing"')
    assert not excludes_audit('resource.attributes["service.name"] == "billing"')


def test_what_excludes_every_audit_record() -> None:
    """Both halves, and no ``or``."""
    assert excludes_every_audit_record(NOT_AUDIT)
    assert excludes_every_audit_record(f"{NOT_AUDIT} and severity_number < 9")
    assert not excludes_every_audit_record(NOT_AUDIT.replace(" and ", " or "))
    assert not excludes_every_audit_record(f"{NOT_AUDIT} or severity_number < 9")
    for half in NOT_AUDIT.split(" and "):
        assert excludes_audit(half)
        assert not excludes_every_audit_record(half)


def test_a_second_routing_connector_is_followed_too() -> None:
    """In → routing → tenants → routing/2: as far as it goes."""
    pipelines = (
        pipe("logs/in", "otlp/audit", "routing")
        + pipe("logs/mid", "routing", "routing/2")
        + pipe("logs/end", "routing/2", "file")
    )
    connectors = "  routing: {default_pipelines: [logs/mid]}\n  routing/2: {default_pipelines: [logs/end]}"
    assert set(look(pipelines, connectors=connectors).audit_pipelines) == {"logs/in", "logs/mid", "logs/end"}


@pytest.mark.parametrize(
    "condition",
    [
        f"not ({NOT_AUDIT})",
        f"({NOT_AUDIT}) == false",
        f"({NOT_AUDIT}) != true",
        'resource.attributes["audit.record.id"] == nil',
        'instrumentation_scope.attributes["audit.record.id"] == nil',
    ],
)
def test_a_condition_that_looks_as_if_it_excluded_audit_records(condition: str) -> None:
    """Turned round, or asked of where no audit attribute stands: it is true of audit records."""
    assert not excludes_audit(condition)
    assert not excludes_every_audit_record(condition)
    connectors = (
        "  routing:\n    default_pipelines: [logs/audit]\n    table:\n"
        f"      - {{context: log, condition: '{condition}', pipelines: [logs/app]}}\n"
    )
    pipelines = pipe("logs/in", "otlp/audit", "routing") + pipe("logs/audit", "routing", "file/audit")
    linted = look(pipelines + pipe("logs/app", "routing", "debug"), connectors=connectors)
    assert "nowhere" in {finding.rule for finding in linted.findings if "logs/app" in finding.path}


def test_a_pipeline_that_only_counts_keeps_nothing() -> None:
    """What comes out of such a connector is no record any more."""
    counts = look(pipe("logs/audit", "otlp", "count") + pipe("metrics", "count", "debug"))
    assert "nowhere" in {finding.rule for finding in counts.findings}
    keeps = look(pipe("logs/audit", "otlp", "count, file/audit") + pipe("metrics", "count", "debug"))
    assert "nowhere" not in {finding.rule for finding in keeps.findings}


@pytest.mark.parametrize(
    ("statements", "is_found"),
    [
        ("""['set(log.body, "x") where log.attributes["audit.record.id"] == nil']""", False),
        ("""['set(log.body, "x") where not (log.attributes["audit.record.id"] == nil)']""", True),
        ("""['set(log.body, "x") where log.attributes["audit.record.id"] == nil or true']""", True),
        (
            """[{context: log, conditions: ['attributes["audit.record.id"] == nil'],
                statements: ['set(body, "x")']}]""",
            False,
        ),
        (
            """[{context: log, conditions: ['attributes["audit.record.id"] == nil', 'true'],
                statements: ['set(body, "x")']}]""",
            True,
        ),
    ],
)
def test_a_guard_that_lets_audit_records_through(statements: str, is_found: bool) -> None:
    """One true condition is enough for a statement to be applied."""
    text = (
        f"receivers: {{otlp: {{}}}}\nprocessors: {{transform: {{log_statements: {statements}}}}}\n"
        "exporters: {file: {}}\nservice:\n  pipelines:\n"
        "    logs/audit: {receivers: [otlp], processors: [transform], exporters: [file]}\n"
    )
    (linted,) = lint([[Source("config.yaml", text)]], {})
    assert ("alters-records" in {finding.rule for finding in linted.findings}) == is_found
