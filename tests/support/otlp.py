"""OTLP requests as tests write them, and sending one."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest as Request
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_audit import semconv as sc

TEST_ID = "test.id"
"""The attribute that marks each record of a test."""


def attribute(key: str, **value: Any) -> KeyValue:
    """An attribute; the value as ``AnyValue`` has it: ``string_value="x"``."""
    return KeyValue(key=key, value=AnyValue(**value))


def record_id(value: str) -> KeyValue:
    """The attribute that makes a record an audit record."""
    return attribute(sc.RECORD_ID, string_value=value)


def audit_records(ids: Iterable[str], **attributes: str) -> list[LogRecord]:
    """Small audit records with these ids, as record id and as mark of the test."""
    return [
        LogRecord(
            event_name="user.login",
            time_unix_nano=time.time_ns(),
            attributes=[
                record_id(each),
                attribute(TEST_ID, string_value=each),
                *(attribute(key, string_value=value) for key, value in attributes.items()),
            ],
        )
        for each in ids
    ]


def request(records: Iterable[LogRecord], resource: Mapping[str, str] | None = None) -> Request:
    """One request with these records, under one resource."""
    scope_logs = ScopeLogs(log_records=records)
    scope_logs.scope.name = "tests"
    attributes = [attribute(key, string_value=value) for key, value in (resource or {}).items()]
    group = ResourceLogs(resource=Resource(attributes=attributes), scope_logs=[scope_logs])
    return Request(resource_logs=[group])


def mixed_request() -> Request:
    """One request with records of every kind, each marked with its name; ``AUDIT_IDS`` and ``APP_IDS`` part them."""
    records = {
        "audit": LogRecord(event_name="user.login", attributes=[record_id("r-1")]),
        "app": LogRecord(body=AnyValue(string_value="an ordinary line")),
        "name-only": LogRecord(event_name="user.login"),
        "id-only": LogRecord(attributes=[record_id("r-2")]),
        "empty-id": LogRecord(attributes=[record_id("")]),
        "app-looks-like-audit": LogRecord(attributes=[attribute("event_name", string_value="user.login")]),
    }
    elsewhere = {"app-id-on-resource": LogRecord()}
    for name, record in [*records.items(), *elsewhere.items()]:
        record.attributes.append(attribute(TEST_ID, string_value=name))
    mixed = request(records.values())
    mixed.MergeFrom(request(elsewhere.values(), {sc.RECORD_ID: "r-3"}))
    return mixed


AUDIT_IDS = {"audit", "name-only", "id-only", "empty-id"}
APP_IDS = {"app", "app-looks-like-audit", "app-id-on-resource"}


def post(
    url: str,
    content: Request,
    *,
    context: ssl.SSLContext | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 30,
) -> int:
    """POST the request as OTLP/HTTP in protobuf; the status of the answer."""
    target = urlsplit(url)
    assert target.hostname
    connection = (
        http.client.HTTPSConnection(target.hostname, target.port, timeout=timeout_s, context=context)
        if target.scheme == "https"
        else http.client.HTTPConnection(target.hostname, target.port, timeout=timeout_s)
    )
    try:
        all_headers = {"Content-Type": "application/x-protobuf", **(headers or {})}
        connection.request("POST", target.path, content.SerializeToString(), all_headers)
        return connection.getresponse().status
    finally:
        connection.close()
