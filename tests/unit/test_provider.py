"""From a call to a receipt: what is journaled, what the caller is told, and what is refused."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider

from otel_audit import Actor, AuditProvider, AuditRecord, Outcome, Source, Target, audit_context
from otel_audit import semconv as sc
from otel_audit.errors import (
    ConfigurationError,
    InvalidRecordError,
)
from otel_audit.logger import AuditLogger
from support.provider import LOGIN, login, make_provider, stored


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal"


@pytest.fixture
def provider(root: Path) -> Iterator[AuditProvider]:
    """A provider that journals only."""
    made = make_provider(root)
    yield made
    made.shutdown(0.0)


@pytest.fixture
def logger(provider: AuditProvider) -> AuditLogger:
    """A logger of it."""
    return provider.get_audit_logger("billing")


# -- the record and its receipt --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "name"),
    [
        ({sc.OUTCOME: "failure"}, sc.OUTCOME),
        ({sc.ACTOR_ID: "evil"}, sc.ACTOR_ID),
        ({sc.TENANT: "other"}, sc.TENANT),
        ({sc.RECORD_ID: "r-2"}, sc.RECORD_ID),
        ({sc.TARGET_NAME: "x"}, sc.TARGET_NAME),
    ],
)
def test_a_field_and_its_attribute_are_one(
    root: Path, logger: AuditLogger, attributes: dict[str, Any], name: str
) -> None:
    """Two values for one attribute: neither is dropped in silence, the caller is told which it is."""
    fields = {**LOGIN, "tenant": "acme", "record_id": "r-1", "target": Target("t", name="n"), "attributes": attributes}
    with pytest.raises(InvalidRecordError, match="given twice") as caught:
        logger.emit("user.login", **fields)
    assert caught.value.field == name
    assert stored(root) == []


def test_the_same_value_by_both_names_is_no_error(root: Path, logger: AuditLogger) -> None:
    """Nor is a type that was only assumed beside one that is given."""
    for outcome in ("denied", "failure"):
        given = {sc.ACTOR_ID: "u-42", sc.ACTOR_TYPE: "service", sc.OUTCOME: outcome}
        login(logger, outcome="denied", attributes=given)
    for record in stored(root):
        found = record.attributes
        assert (found[sc.ACTOR_TYPE], found[sc.OUTCOME], found[sc.ORIGINAL_OUTCOME]) == ("service", "failure", "denied")


def test_every_field_is_journaled(root: Path, logger: AuditLogger) -> None:
    """Under its name of the draft, with its type."""
    when = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone.utc)
    logger.emit(
        "permission.grant",
        actor=Actor("u-42", type="service"),
        target=Target("admin", type="role", name="Administrators"),
        source=Source("192.0.2.7"),
        outcome=Outcome.SUCCESS,
        tenant="acme",
        session="s-9",
        request_id="r-1",
        user_agent="curl/8",
        reason="ticket 7",
        severity="NOTICE",
        body={"roles": ["admin"]},
        attributes={"ticket": 7},
        timestamp=when,
        record_id="r-0001",
        trace_id="1" * 32,
        span_id="2" * 16,
    )
    [record] = stored(root)
    assert record.event_name == "permission.grant"
    assert record.timestamp_ns == 1767323045678901000
    assert record.body == {"roles": ["admin"]}
    assert (record.trace_id, record.span_id) == ("1" * 32, "2" * 16)
    chain = {key: value for key, value in record.attributes.items() if key.startswith(sc.SEQUENCE_PREFIX)}
    assert {key: value for key, value in record.attributes.items() if key not in chain} == {
        sc.ACTOR_ID: "u-42",
        sc.ACTOR_TYPE: "service",
        sc.ACTION: "GRANT",
        sc.OUTCOME: "success",
        sc.TARGET_ID: "admin",
        sc.TARGET_TYPE: "role",
        sc.TARGET_NAME: "Administrators",
        sc.SOURCE_ID: "192.0.2.7",
        sc.SOURCE_TYPE: "ipv4",
        sc.TENANT: "acme",
        sc.SESSION_ID: "s-9",
        sc.REQUEST_ID: "r-1",
        sc.USER_AGENT: "curl/8",
        sc.REASON: "ticket 7",
        sc.SEVERITY_NUMBER: 10,
        sc.SEVERITY_TEXT: "NOTICE",
        sc.RECORD_ID: "r-0001",
        sc.LOGGER_NAME: "billing",
        "ticket": 7,
    }


def test_the_receipt_says_where_the_record_is(root: Path, logger: AuditLogger) -> None:
    """Stream, number and hash are those of the line in the journal; numbers follow each other."""
    before = time.time_ns()
    receipts = [login(logger), login(logger)]
    records = stored(root)
    for receipt, record in zip(receipts, records, strict=True):
        assert uuid.UUID(receipt.record_id).version == 4
        assert receipt.record_id == record.record_id
        assert receipt.sequence == record.sequence
        assert receipt.integrity_hash == record.sha256
        assert receipt.stream_id == record.attributes[sc.SEQUENCE_STREAM_ID]
        assert receipt.durability == "process"
        assert not receipt.deferred
        assert before <= receipt.sink_timestamp_ns == record.observed_ns <= time.time_ns()
    assert [receipt.sequence for receipt in receipts] == [2, 3]


def test_a_whole_record_can_be_emitted(root: Path, logger: AuditLogger) -> None:
    """As it is, with its id; it is not changed by that."""
    record = AuditRecord("user.login", **LOGIN, attributes={"n": 1})
    before = dict(record.attributes)
    with audit_context(tenant="acme"):
        receipt = logger.emit(record)
    assert receipt.record_id == record.record_id
    assert record.attributes == before
    [found] = stored(root)
    assert found.attributes[sc.TENANT] == "acme"
    assert found.attributes[sc.LOGGER_NAME] == "billing"


def test_a_logger_without_a_name_adds_none(root: Path, provider: AuditProvider) -> None:
    """The name is for whoever wants it."""
    login(provider.get_audit_logger())
    assert sc.LOGGER_NAME not in stored(root)[0].attributes


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"outcome": "success"}, "actor"),
        ({"actor": "u"}, "outcome"),
        ({**LOGIN, "actor": ""}, "actor.id"),
        ({**LOGIN, "outcome": "maybe"}, "outcome"),
        ({**LOGIN, "attributes": {"audit.sequence.number": 7}}, "audit.sequence.number"),
        ({**LOGIN, "timestamp": datetime(2026, 1, 1)}, "timestamp"),
        ({**LOGIN, "timestamp": time.time_ns() + 86_400 * 10**9}, "timestamp"),
        ({**LOGIN, "trace_id": "xyz"}, "trace_id"),
        ({**LOGIN, "tenant": 7}, "tenant"),
    ],
)
def test_what_breaks_a_rule_is_refused(
    root: Path, provider: AuditProvider, logger: AuditLogger, fields: dict[str, Any], names: str
) -> None:
    """The error names the field; nothing is journaled, and it is counted."""
    with pytest.raises(InvalidRecordError) as caught:
        logger.emit("user.login", **fields)
    assert names in caught.value.field
    assert caught.value.journaled is False
    assert stored(root) == []
    assert provider.status().counters == {"records.invalid": 1}


def test_a_wrong_event_name_is_refused(logger: AuditLogger) -> None:
    """It must be dotted and lower case."""
    with pytest.raises(InvalidRecordError, match="event_name"):
        logger.emit("Login", **LOGIN)


def test_a_misspelt_field_is_named(root: Path, logger: AuditLogger) -> None:
    """Not swallowed as an attribute: it says which is the nearest, and where free attributes go."""
    with pytest.raises(TypeError, match=r"'actr'; did you mean 'actor'\?.*attributes=") as caught:
        logger.emit("user.login", actr="u", outcome="success")  # type: ignore[call-arg]
    assert caught.value.journaled is False  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="a record or fields, not both"):
        logger.emit(AuditRecord("user.login", **LOGIN), actor="u")
    assert stored(root) == []


def test_a_time_shortly_in_the_future_is_clamped(root: Path, logger: AuditLogger) -> None:
    """A clock that stepped back is no reason to lose a record: the original is kept."""
    ahead = time.time_ns() + 2 * 10**9
    login(logger, timestamp=ahead)
    [record] = stored(root)
    assert record.timestamp_ns == record.observed_ns
    assert record.attributes[sc.ORIGINAL_TIMESTAMP] == str(ahead)


def test_a_time_in_the_past_stays(root: Path, logger: AuditLogger) -> None:
    """When it happened and when it was emitted are two times."""
    past = datetime.now(timezone.utc) - timedelta(days=400)
    login(logger, timestamp=past)
    [record] = stored(root)
    assert record.timestamp_ns < record.observed_ns - 300 * 86_400 * 10**9


def test_the_clock_can_be_replaced(root: Path) -> None:
    """Every time is the clock's, and the future is measured by it."""

    class Fixed:
        def time_ns(self) -> int:
            return 1_000_000_000

    with make_provider(root, clock=Fixed()) as provider:
        logger = provider.get_audit_logger()
        assert login(logger).sink_timestamp_ns == 1_000_000_000
        with pytest.raises(InvalidRecordError, match="timestamp"):
            login(logger, timestamp=7_000_000_000)
        assert stored(root)[0].timestamp_ns == 1_000_000_000


# -- what is added ---------------------------------------------------------------------------------------------


def test_the_trace_of_the_current_span_is_taken(root: Path, logger: AuditLogger) -> None:
    """From OpenTelemetry's own span; what the call says wins, and without a span there is none."""
    tracer = TracerProvider().get_tracer("test")
    with tracer.start_as_current_span("request") as span:
        login(logger)
        login(logger, trace_id="1" * 32, span_id="2" * 16)
        logger.emit(AuditRecord("user.login", **LOGIN))
    login(logger)
    ids = span.get_span_context()
    current = (f"{ids.trace_id:032x}", f"{ids.span_id:016x}")
    assert [(record.trace_id, record.span_id) for record in stored(root)] == [
        current,
        ("1" * 32, "2" * 16),
        current,
        ("", ""),
    ]


class Adds:
    """A processor that adds what it is told to."""

    def __init__(self, attributes: Mapping[str, Any] | None) -> None:
        self.attributes = attributes

    def on_emit(self, record: AuditRecord) -> Mapping[str, Any] | None:
        """Add."""
        return self.attributes


def test_processors_add_attributes(root: Path) -> None:
    """One after the other; each sees what those before it added."""
    seen: list[bool] = []

    class Looks:
        def on_emit(self, record: AuditRecord) -> None:
            seen.append("cloud.region" in record.attributes)

    processors = [Adds({"cloud.region": "eu"}), Looks(), Adds(None), Adds({"cell": 7})]
    with make_provider(root, processors=processors) as provider:
        login(provider.get_audit_logger(), attributes={"n": 1})
        attributes = stored(root)[0].attributes
    assert (attributes["cloud.region"], attributes["cell"], attributes["n"]) == ("eu", 7, 1)
    assert seen == [True]


@pytest.mark.parametrize("name", [sc.ACTOR_ID, "n", sc.SEQUENCE_NUMBER, "audit.integrity.value"])
def test_processors_only_add(root: Path, name: str) -> None:
    """One that replaces what the caller said, or what the journal writes, is refused, and nothing is journaled."""
    with make_provider(root, processors=[Adds({name: "changed"})]) as provider:
        with pytest.raises(InvalidRecordError, match="may only add"):
            login(provider.get_audit_logger(), attributes={"n": 1})
        assert stored(root) == []


def test_a_processor_that_fails_fails_the_emit(root: Path) -> None:
    """Its own exception, with the word that nothing was journaled."""

    class Fails:
        def on_emit(self, record: AuditRecord) -> None:
            raise ZeroDivisionError

    with make_provider(root, processors=[Fails()]) as provider:
        with pytest.raises(ZeroDivisionError) as caught:
            login(provider.get_audit_logger())
        assert caught.value.journaled is False  # type: ignore[attr-defined]
        assert stored(root) == []


def test_the_resource_is_that_of_the_process(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From OpenTelemetry's variables; what is given by keyword wins; process and host are added."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=prod,team=a,service.name=from-list")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from-variable")
    with make_provider(root, resource_attributes={"team": "b", "zones": ["x", "y"]}) as provider:
        login(provider.get_audit_logger())
        writer = provider.journal.writer
        assert writer is not None
        resource = writer.metadata.resource
    assert resource["service.name"] == "from-variable"
    assert resource["deployment.environment.name"] == "prod"
    assert resource["team"] == "b"
    assert resource["zones"] == ["x", "y"]
    assert resource["telemetry.sdk.language"] == "python"
    assert uuid.UUID(resource["service.instance.id"])
    assert resource["process.pid"] > 0
    assert resource["host.name"]
    with make_provider(root / "2", service_name="from-keyword") as provider:
        login(provider.get_audit_logger())
        assert provider.journal.writer is not None
        assert provider.journal.writer.metadata.resource["service.name"] == "from-keyword"


@pytest.mark.parametrize("value", [object(), {"a": 1}, ["a", 1], 2**63, None])
def test_a_resource_attribute_that_cannot_be_is_an_error(root: Path, value: object) -> None:
    """The SDK would drop it with a warning."""
    with pytest.raises(ConfigurationError, match=r"resource_attributes\['x'\]"):
        make_provider(root, resource_attributes={"x": value})
