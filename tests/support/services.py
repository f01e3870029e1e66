"""Receivers that check what they are sent as their service documents it, and answer as it does.

Each is a real HTTP server.  What is wrong with a request is noted in ``wrong`` and answered with 418; a test ends with
``wrong == []``.  ``script`` of its receiver puts other answers before.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from otel_audit.testing import ReceivedRequest, Reply, ScriptedReceiver

JSON = {"Content-Type": "application/json"}
SECRET = "s3cr3t-T0ken/with+odd=chars"
SIGNING = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()


def reply(status: int, body: Any = None, **headers: str) -> Reply:
    """An answer in JSON; an underscore in a header's name stands for a hyphen."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, {**JSON, **named}, b"" if body is None else json.dumps(body).encode())


class Service:
    """A receiver with the checks of one service.

    Attributes:
        stored: what it holds, by its own key, in order of arrival.
        requests_taken: how many requests it took records of.
        refuses: record ids that it refuses.
        wrong: what was wrong with requests.
    """

    PATH: ClassVar[str] = ""
    CONTENT_TYPE: ClassVar[str] = "application/json"
    AUTHORIZATION: ClassVar[tuple[str, str]] = ("authorization", f"Bearer {SECRET}")
    OPTIONS: ClassVar[dict[str, Any]] = {}
    RECORDS_MAX: ClassVar[int] = 1

    def __init__(self) -> None:
        self.stored: dict[str, Any] = {}
        self.requests_taken = 0
        self.refuses: set[str] = set()
        self.wrong: list[str] = []
        self.receiver = ScriptedReceiver(default=self._checked)

    def close(self) -> None:
        self.receiver.close()

    def _checked(self, request: ReceivedRequest) -> Reply:
        try:
            return self.answer(request)
        except Exception as error:
            self.wrong.append(f"{request.method} {request.path}: {type(error).__name__}: {error}")
            return Reply(418, {}, b"")

    def answer(self, request: ReceivedRequest) -> Reply:
        """The answer to a request; raises where it is not as the service wants it."""
        self.check_head(request)
        events = self.events(request)
        assert 1 <= len(events) <= self.RECORDS_MAX, f"{len(events)} events"
        ids = [self.record_id(event) for event in events]
        if refused := self.refuses.intersection(ids):
            return self.refusal(ids, refused)
        self.requests_taken += 1
        self.stored.update(zip(ids, events, strict=True))
        return self.success(ids)

    def check_head(self, request: ReceivedRequest) -> None:
        """Method, path, media type, credentials."""
        name, value = self.AUTHORIZATION
        assert request.method == "POST"
        assert request.path == self.PATH, request.path
        assert request.headers["content-type"] == self.CONTENT_TYPE, request.headers["content-type"]
        assert request.headers.get(name) == value, f"{name} is not as it should be"

    def events(self, request: ReceivedRequest) -> list[Any]:
        """The events in a request, each checked."""
        events = [request.json]
        for event in events:
            self.check(event)
        return events

    def check(self, event: Any) -> None:
        """See that an event is as the service documents it."""

    def record_id(self, event: Any) -> str:
        """The record id within an event."""
        return str(event["metadata"]["otel_audit"]["record_id"])

    def success(self, ids: list[str]) -> Reply:
        """The answer to what was stored."""
        return reply(201, {"id": f"their-{ids[0]}"})

    def refusal(self, ids: list[str], refused: set[str]) -> Reply:
        """The answer to a request with a bad event in it."""
        return reply(422, {"detail": "an event is not valid"})


def exact(value: Any, **kinds: Any) -> None:
    """The members of an object are these, of these types."""
    assert isinstance(value, dict), type(value)
    assert set(value) == set(kinds), set(value) ^ set(kinds)
    for name, kind in kinds.items():
        assert isinstance(value[name], kind), f"{name} is {type(value[name]).__name__}"


OPTIONAL = (str, type(None))
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


class LogVault(Service):
    PATH = "/v1/events"

    def check(self, event: Any) -> None:
        exact(
            event, action=str, user_id=OPTIONAL, resource=str, metadata=dict, level=str, message=OPTIONAL, timestamp=str
        )
        self.check_event(event)
        assert event["level"] in ("debug", "info", "warning", "error", "critical")

    def check_event(self, event: Any) -> None:
        assert re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)+", event["action"])
        assert TIME.fullmatch(event["timestamp"])
        assert len(json.dumps(event)) <= 1024 * 1024


class LogVaultOld(LogVault):
    AUTHORIZATION = ("x-api-key", SECRET)
    OPTIONS: ClassVar[dict[str, Any]] = {"nonce": True}

    def __init__(self) -> None:
        super().__init__()
        self.nonces: set[str] = set()

    def check_head(self, request: ReceivedRequest) -> None:
        super().check_head(request)
        nonce = request.headers["x-nonce"]
        assert re.fullmatch(r"[A-Za-z0-9_-]{43}", nonce)
        assert nonce not in self.nonces, "replayed"
        self.nonces.add(nonce)

    def check(self, event: Any) -> None:
        exact(event, action=str, user_id=OPTIONAL, resource=str, metadata=dict, timestamp=str)
        self.check_event(event)


class AuditLogFramework(Service):
    """The real server: events in a list, error bodies as FastAPI has them."""

    PATH = "/api/v1/audit/events/batch"
    AUTHORIZATION = ("x-api-key", SECRET)
    OPTIONS: ClassVar[dict[str, Any]] = {"tenant": "acme"}
    RECORDS_MAX = 1000
    LIST = "events"
    ID = "audit_id"

    def check_head(self, request: ReceivedRequest) -> None:
        super().check_head(request)
        assert request.headers["x-tenant-id"] == "acme"

    def events(self, request: ReceivedRequest) -> list[Any]:
        events = [request.json]
        if self.PATH.endswith("/batch"):
            exact(request.json, **{self.LIST: list})
            events = request.json[self.LIST]
        for event in events:
            self.check(event)
        return list(events)

    def check(self, event: Any) -> None:
        exact(
            event, event_type=str, action=str, status=str, tenant_id=str, service_name=str, user_id=OPTIONAL,
            session_id=OPTIONAL, ip_address=OPTIONAL, user_agent=OPTIONAL, resource_type=OPTIONAL,
            resource_id=OPTIONAL, metadata=dict, correlation_id=OPTIONAL, retention_period_days=int,
        )  # fmt: skip
        assert event["status"] in ("success", "error", "warning", "info")
        assert event["tenant_id"] == "acme"
        for name, most in (("event_type", 100), ("action", 100), ("tenant_id", 255), ("service_name", 100)):
            assert 1 <= len(event[name]) <= most
        assert 1 <= event["retention_period_days"] <= 2555

    def success(self, ids: list[str]) -> Reply:
        bodies = [{self.ID: f"their-{each}"} for each in ids]
        return reply(201, bodies if self.PATH.endswith("/batch") else bodies[0])

    def refusal(self, ids: list[str], refused: set[str]) -> Reply:
        wrong = [{"type": "string_too_long", "loc": ["body", "events", 0, "action"], "msg": "too long", "input": "x"}]
        return reply(422, {"detail": wrong})


class AuditLogFrameworkSingle(AuditLogFramework):
    PATH = "/api/v1/audit/events"
    OPTIONS: ClassVar[dict[str, Any]] = {"tenant": "acme", "mode": "single"}
    RECORDS_MAX = 1


class AuditLogFrameworkSdk(AuditLogFramework):
    LIST = "audit_logs"
    ID = "id"

    def check(self, event: Any) -> None:
        exact(
            event, event_type=str, resource_type=str, action=str, severity=str, description=str, resource_id=OPTIONAL,
            metadata=dict, ip_address=OPTIONAL, user_agent=OPTIONAL, session_id=OPTIONAL, correlation_id=OPTIONAL,
            timestamp=str,
        )  # fmt: skip
        assert event["event_type"] == "user_action"
        assert event["severity"] in ("critical", "error", "warning", "info", "debug")
        assert TIME.fullmatch(event["timestamp"])


class AuditLogFrameworkSdkSingle(AuditLogFrameworkSdk):
    PATH = "/api/v1/audit/events"
    OPTIONS: ClassVar[dict[str, Any]] = {"tenant": "acme", "mode": "single"}
    RECORDS_MAX = 1


class Events(Service):
    PATH = "/events"
    OPTIONS: ClassVar[dict[str, Any]] = {"mode": "single"}

    def check(self, event: Any) -> None:
        exact(
            event, id=str, event_type=str, timestamp=str, user_id=OPTIONAL, session_id=OPTIONAL, severity=str,
            source=str, details=dict, metadata=dict,
        )  # fmt: skip
        assert event["severity"] in ("low", "medium", "high", "critical")
        assert TIME.fullmatch(event["timestamp"])

    def record_id(self, event: Any) -> str:
        return str(event["id"])


class EventsBatch(Events):
    PATH = "/events/batch"
    OPTIONS: ClassVar[dict[str, Any]] = {}
    RECORDS_MAX = 50

    def events(self, request: ReceivedRequest) -> list[Any]:
        exact(request.json, events=list)
        for event in request.json["events"]:
            self.check(event)
        return list(request.json["events"])

    def success(self, ids: list[str]) -> Reply:
        return reply(200, {"events": [{"id": each} for each in ids]})


class Splunk(Service):
    """An event collector whose token has indexer acknowledgement; indexing takes some polls.

    Attributes:
        polls: after so many questions an acknowledgement is given; ``None``: never.
        restarts_at: before it takes this record, it is restarted.
    """

    PATH = "/services/collector/event"
    AUTHORIZATION = ("authorization", f"Splunk {SECRET}")
    OPTIONS: ClassVar[dict[str, Any]] = {"acknowledge_every": 0.01}
    RECORDS_MAX = 1000

    def __init__(self) -> None:
        super().__init__()
        self.polls: int | None = 1
        self.channels: set[str] = set()
        self.received: dict[tuple[str, int], tuple[dict[str, Any], int]] = {}
        self.channel = self.restarts_at = ""
        self.acks = 0
        self.enabled = True

    def answer(self, request: ReceivedRequest) -> Reply:
        if request.path.startswith("/services/collector/ack?channel="):
            return self.acknowledge(request)
        return super().answer(request)

    def check_head(self, request: ReceivedRequest) -> None:
        super().check_head(request)
        channel = request.headers["x-splunk-request-channel"]
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", channel)
        self.channels.add(channel)
        self.channel = channel

    def restart(self) -> None:
        """Forget what is not indexed, and count from the start again."""
        self.received.clear()
        self.acks = 0

    def acknowledge(self, request: ReceivedRequest) -> Reply:
        assert request.headers["authorization"] == f"Splunk {SECRET}"
        channel = request.path.partition("=")[2]
        assert channel in self.channels
        exact(request.json, acks=list)
        given: dict[str, bool] = {}
        for ack_id in request.json["acks"]:
            key = channel, ack_id
            events, polls = self.received.get(key, ({}, 0))
            done = self.polls is not None and key in self.received and polls >= self.polls
            given[str(ack_id)] = done
            if done:  # said once, then forgotten
                self.stored.update(events)
                del self.received[key]
            elif key in self.received:
                self.received[key] = (events, polls + 1)
        return reply(200, {"acks": given})

    def events(self, request: ReceivedRequest) -> list[Any]:
        decoder = json.JSONDecoder()
        text, position, found = request.body.decode(), 0, []
        while position < len(text):
            event, position = decoder.raw_decode(text, position)
            while position < len(text) and text[position].isspace():
                position += 1
            self.check(event)
            found.append(event)
        return found

    def check(self, event: Any) -> None:
        assert {"time", "event"} <= set(event) <= {"time", "host", "source", "sourcetype", "index", "event", "fields"}
        assert isinstance(event["time"], (int, float))
        assert event["event"]
        assert all(isinstance(value, (str, list)) for value in event["fields"].values()), "fields must be flat"

    def record_id(self, event: Any) -> str:
        return str(event["fields"]["record_id"])

    def success(self, ids: list[str]) -> Reply:
        if not self.enabled:
            return reply(200, {"text": "Success", "code": 0})
        if self.restarts_at in ids:
            self.restart()
        self.acks += 1
        self.received[self.channel, self.acks] = ({each: self.stored.pop(each) for each in ids}, 0)
        return reply(200, {"text": "Success", "code": 0, "ackId": self.acks})

    def refusal(self, ids: list[str], refused: set[str]) -> Reply:
        number = min(ids.index(each) for each in refused)
        return reply(400, {"text": "Invalid data format", "code": 6, "invalid-event-number": number})


class Bulk(Service):
    """``_bulk`` and ``_mget``, as Elasticsearch and OpenSearch answer them."""

    PATH = "/_bulk"
    CONTENT_TYPE = "application/x-ndjson"
    AUTHORIZATION = ("authorization", f"ApiKey {SECRET}")
    OPTIONS: ClassVar[dict[str, Any]] = {"index": "audit"}
    RECORDS_MAX = 2000

    def __init__(self) -> None:
        super().__init__()
        self.busy: set[str] = set()

    def answer(self, request: ReceivedRequest) -> Reply:
        if request.path == "/audit/_mget":
            assert request.headers["content-type"] == "application/json"
            found = [self._document(doc["_id"]) for doc in request.json["docs"]]
            return reply(200, {"docs": found})
        self.check_head(request)
        assert request.body.endswith(b"\n")
        lines = [json.loads(line) for line in request.body.splitlines()]
        assert len(lines) % 2 == 0
        items = [self._item(action, source) for action, source in zip(lines[::2], lines[1::2], strict=True)]
        self.requests_taken += any(item["create"]["status"] == 201 for item in items)
        return reply(200, {"took": 1, "errors": any("error" in item["create"] for item in items), "items": items})

    def _document(self, name: str) -> dict[str, Any]:
        if name not in self.stored:
            return {"_index": "audit", "_id": name, "found": False}
        return {"_index": "audit", "_id": name, "found": True, "_source": {"sha256": self.stored[name]["sha256"]}}

    def _item(self, action: Any, source: Any) -> dict[str, Any]:
        exact(action, create=dict)
        exact(action["create"], _index=str, _id=str)
        assert action["create"]["_index"] == "audit"
        assert {"@timestamp", "record_id", "sha256"} <= set(source)
        name = action["create"]["_id"]
        item: dict[str, Any] = {"_index": "audit", "_id": name}
        if name in self.refuses:
            reason = f"failed to parse field [n] in document with id '{name}'. Preview of field's value: 'private'"
            return {"create": {**item, "status": 400, "error": {"type": "mapper_parsing_exception", "reason": reason}}}
        if name in self.busy:
            error = {"type": "es_rejected_execution_exception", "reason": "rejected execution of primary operation"}
            return {"create": {**item, "status": 429, "error": error}}
        if name in self.stored:
            error = {"type": "version_conflict_engine_exception", "reason": "document already exists"}
            return {"create": {**item, "status": 409, "error": error}}
        self.stored[name] = source
        return {"create": {**item, "_version": 1, "result": "created", "status": 201}}


class Loki(Service):
    """Keeps one entry for the same labels, time and line."""

    PATH = "/loki/api/v1/push"
    OPTIONS: ClassVar[dict[str, Any]] = {"tenant": "acme", "labels": {"env": "prod"}}
    RECORDS_MAX = 2000

    def events(self, request: ReceivedRequest) -> list[Any]:
        assert request.headers["x-scope-orgid"] == "acme"
        exact(request.json, streams=list)
        found = []
        for stream in request.json["streams"]:
            exact(stream, stream=dict, values=list)
            assert stream["stream"] == {
                "job": "otel-audit",
                "service_name": stream["stream"]["service_name"],
                "env": "prod",
            }
            for time_ns, line, metadata in stream["values"]:
                assert re.fullmatch(r"\d{1,19}", time_ns)
                assert all(isinstance(value, str) for value in metadata.values())
                found.append({**json.loads(line), "metadata": metadata})
        return found

    def record_id(self, event: Any) -> str:
        assert event["metadata"]["record_id"] == event["record_id"]
        return str(event["record_id"])

    def success(self, ids: list[str]) -> Reply:
        return Reply(204, {"Content-Type": ""})

    def refusal(self, ids: list[str], refused: set[str]) -> Reply:
        return Reply(400, {"Content-Type": "text/plain"}, b"entry for stream has timestamp too old")


class Datadog(Service):
    PATH = "/api/v2/logs"
    AUTHORIZATION = ("dd-api-key", SECRET)
    OPTIONS: ClassVar[dict[str, Any]] = {"tags": "env:prod"}
    RECORDS_MAX = 1000

    def events(self, request: ReceivedRequest) -> list[Any]:
        assert len(request.body) <= 5_000_000
        for log in request.json:
            assert len(json.dumps(log)) <= 1_000_000
            assert isinstance(log["message"], str)
            assert log["message"]
            assert (log["ddsource"], log["ddtags"], log["service"]) in {
                ("otel-audit", "env:prod", "billing"), ("otel-audit", "env:prod", "test"),
            }  # fmt: skip
            age_s = time.time() - log.get("timestamp", time.time() * 1000) / 1000
            assert age_s < 18 * 3600, "too old: it would be dropped"
        return list(request.json)

    def record_id(self, event: Any) -> str:
        return str(event["event"]["record_id"])

    def success(self, ids: list[str]) -> Reply:
        return reply(202, {})

    def refusal(self, ids: list[str], refused: set[str]) -> Reply:
        return reply(400, {"errors": [{"status": "400", "title": "Bad Request", "detail": "invalid payload"}]})


class CloudEvents(Service):
    PATH = "/"
    CONTENT_TYPE = "application/cloudevents+json"

    def check(self, event: Any) -> None:
        """The rules of CloudEvents 1.0: required attributes, their types, names of extensions."""
        assert event["specversion"] == "1.0"
        for name in ("id", "source", "type"):
            assert isinstance(event[name], str)
            assert event[name]
        assert not re.search(r"\s", event["source"]), "a URI-reference"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", event["time"])
        assert event["datacontenttype"] == "application/json"
        for name, value in event.items():
            assert re.fullmatch(r"[a-z0-9]{1,20}", name)
            assert name == "data" or (isinstance(value, str) and value)
        if "traceparent" in event:
            assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", event["traceparent"])

    def record_id(self, event: Any) -> str:
        assert event["id"] == event["data"]["record_id"]
        return str(event["id"])

    def success(self, ids: list[str]) -> Reply:
        return Reply(202, {"Content-Type": ""})


class CloudEventsBatch(CloudEvents):
    CONTENT_TYPE = "application/cloudevents-batch+json"
    OPTIONS: ClassVar[dict[str, Any]] = {"mode": "batch"}
    RECORDS_MAX = 100_000

    def events(self, request: ReceivedRequest) -> list[Any]:
        assert isinstance(request.json, list)
        for event in request.json:
            self.check(event)
        return list(request.json)


class Webhook(Service):
    """Verifies signatures by the reference library of Standard Webhooks."""

    PATH = "/"
    OPTIONS: ClassVar[dict[str, Any]] = {"secret": {"env": "SIGNING"}}

    def events(self, request: ReceivedRequest) -> list[Any]:
        from standardwebhooks import Webhook as Verifier

        event = Verifier(SIGNING).verify(request.body, dict(request.headers))
        exact(event, type=str, timestamp=str, data=dict)
        assert request.headers["webhook-id"] == event["data"]["record_id"]
        return [event]

    def record_id(self, event: Any) -> str:
        return str(event["data"]["record_id"])

    def success(self, ids: list[str]) -> Reply:
        return Reply(200, {"Content-Type": ""})


SERVICES: dict[str, tuple[str, Callable[[], Service]]] = {
    "logvault": ("logvault", LogVault),
    "logvault-0.1": ("logvault-0.1", LogVaultOld),
    "audit-log-framework": ("audit-log-framework", AuditLogFramework),
    "audit-log-framework, single": ("audit-log-framework", AuditLogFrameworkSingle),
    "audit-log-framework-sdk": ("audit-log-framework-sdk", AuditLogFrameworkSdk),
    "audit-log-framework-sdk, single": ("audit-log-framework-sdk", AuditLogFrameworkSdkSingle),
    "events": ("events", EventsBatch),
    "events, single": ("events", Events),
    "splunk-hec": ("splunk-hec", Splunk),
    "elasticsearch": ("elasticsearch", Bulk),
    "opensearch": ("opensearch", Bulk),
    "loki": ("loki", Loki),
    "datadog": ("datadog", Datadog),
    "cloudevents": ("cloudevents", CloudEvents),
    "cloudevents, batch": ("cloudevents", CloudEventsBatch),
    "webhook": ("webhook", Webhook),
}
"""Every preset in every mode → its type, and a receiver for it."""


def running(name: str) -> Iterator[Service]:
    """A receiver by its name in :data:`SERVICES`."""
    service = SERVICES[name][1]()
    yield service
    service.close()
