"""What the scripted receivers share: the script, what came, and what of it counts as taken."""

from __future__ import annotations

import json
import threading
import time
from base64 import b64decode
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from .. import semconv as sc


@dataclass(frozen=True)
class ReceivedRecord:
    """A record of an OTLP request, with plain values."""

    event_name: str
    attributes: Mapping[str, Any]
    body: Any
    resource: Mapping[str, Any]
    timestamp_ns: int
    observed_ns: int
    trace_id: str
    span_id: str
    severity_number: int
    severity_text: str

    @property
    def record_id(self) -> str:
        """``audit.record.id``; empty where there is none."""
        return str(self.attributes.get(sc.RECORD_ID, ""))


@dataclass(frozen=True)
class ReceivedRequest:
    """A request; the body is unpacked, ``records`` are those of OTLP.

    Over gRPC, ``path`` is the method that was called and ``headers`` are the metadata.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    records: tuple[ReceivedRecord, ...] = ()

    @property
    def json(self) -> Any:
        """The body, where it is JSON."""
        return json.loads(self.body)


Accept: TypeAlias = bool | Callable[[ReceivedRecord], bool] | None
"""Which records of a request count as taken: all, none, those of which a function is true; ``None``: by the answer."""


class ScriptedReply(Protocol):
    """A reply, of whichever protocol."""

    @property
    def accept(self) -> Accept:
        """What the script says of what counts as taken."""

    @property
    def accepts(self) -> bool:
        """Whether the answer by itself says that everything is taken."""


R = TypeVar("R", bound=ScriptedReply)


class Script(Generic[R]):
    """What to answer, and what came.

    Args:
        script: what to answer to the first requests, one after the other: replies, or functions of the request.
        default: what to answer when the script is used up.
    """

    def __init__(
        self, script: Iterable[R | Callable[[ReceivedRequest], R]], default: R | Callable[[ReceivedRequest], R]
    ) -> None:
        self._script: deque[R | Callable[[ReceivedRequest], R]] = deque(script)
        self._default = default
        self._changed = threading.Condition()
        self._requests: list[ReceivedRequest] = []
        self._accepted: list[ReceivedRequest] = []
        self._records: list[ReceivedRecord] = []
        self.closing = threading.Event()

    def script(self, *replies: R | Callable[[ReceivedRequest], R]) -> None:
        """Add to the script."""
        with self._changed:
            self._script.extend(replies)

    def clear(self) -> None:
        """Forget the rest of the script and everything that came."""
        with self._changed:
            for forgotten in (self._script, self._requests, self._accepted, self._records):
                forgotten.clear()

    @property
    def requests(self) -> list[ReceivedRequest]:
        """Every request so far, whatever was answered."""
        with self._changed:
            return list(self._requests)

    @property
    def accepted_requests(self) -> list[ReceivedRequest]:
        """Those of :attr:`requests` that were taken."""
        with self._changed:
            return list(self._accepted)

    @property
    def records(self) -> list[ReceivedRecord]:
        """Every record that was taken, in order of arrival, doubles included."""
        with self._changed:
            return list(self._records)

    @property
    def record_ids(self) -> list[str]:
        """The ids of :attr:`records`."""
        return [record.record_id for record in self.records]

    def wait_for(self, *, records: int = 0, requests: int = 0, timeout_s: float = 10.0) -> None:
        """Wait until so many different records were taken and so many requests have come.

        Raises:
            TimeoutError: they did not in time.
        """
        ends = time.monotonic() + timeout_s
        with self._changed:
            while len({record.record_id for record in self._records}) < records or len(self._requests) < requests:
                left = ends - time.monotonic()
                if left <= 0:
                    wanted = f"{records} records, {requests} requests"
                    got = f"{len(self._records)} records, {len(self._requests)} requests"
                    raise TimeoutError(f"waited {timeout_s:.3g} s for {wanted}; got {got}")
                self._changed.wait(left)

    def reply_to(self, request: ReceivedRequest) -> R:
        """Note a request and choose the reply to it; called by the server's threads."""
        with self._changed:
            chosen = self._script.popleft() if self._script else self._default
            reply = chosen(request) if callable(chosen) else chosen
            self._requests.append(request)
            accept = reply.accepts if reply.accept is None else reply.accept
            if callable(accept):
                taken = [record for record in request.records if accept(record)]
            else:
                taken = list(request.records) if accept else []
            if taken or (accept is True):
                self._accepted.append(request)
                self._records.extend(taken)
            self._changed.notify_all()
            return reply


def parse_otlp(body: bytes) -> tuple[ReceivedRecord, ...]:
    """The records of an ``ExportLogsServiceRequest`` in protobuf, in their order.

    Raises:
        ValueError: it is not one.
    """
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - heavy
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service  # noqa: PLC0415 - heavy

    try:
        request = service.ExportLogsServiceRequest.FromString(body)
    except DecodeError as error:
        raise ValueError("not an ExportLogsServiceRequest") from error
    return tuple(
        ReceivedRecord(
            event_name=getattr(log, "event_name", ""),  # opentelemetry-proto has it since 1.36
            attributes=_mapping(log.attributes),
            body=_value(log.body),
            resource=_mapping(group.resource.attributes),
            timestamp_ns=log.time_unix_nano,
            observed_ns=log.observed_time_unix_nano,
            trace_id=log.trace_id.hex(),
            span_id=log.span_id.hex(),
            severity_number=int(log.severity_number),
            severity_text=log.severity_text,
        )
        for group in request.resource_logs
        for scope in group.scope_logs
        for log in scope.log_records
    )


def _mapping(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    """An ``AnyValue`` as a plain one."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return _mapping(value.kvlist_value.values)
    return getattr(value, kind)


def parse_otlp_json(body: bytes) -> tuple[ReceivedRecord, ...]:
    """The records of an ``ExportLogsServiceRequest`` in OTLP/JSON, in their order.

    Raises:
        ValueError: it is not one.
    """
    try:
        return tuple(
            ReceivedRecord(
                event_name=log.get("eventName", ""),
                attributes=_json_mapping(log.get("attributes", ())),
                body=_json_value(log.get("body", {})),
                resource=_json_mapping(group.get("resource", {}).get("attributes", ())),
                timestamp_ns=int(log.get("timeUnixNano", 0)),
                observed_ns=int(log.get("observedTimeUnixNano", 0)),
                trace_id=bytes.fromhex(log.get("traceId", "")).hex(),
                span_id=bytes.fromhex(log.get("spanId", "")).hex(),
                severity_number=log.get("severityNumber", 0),
                severity_text=log.get("severityText", ""),
            )
            for group in json.loads(body)["resourceLogs"]
            for scope in group.get("scopeLogs", ())
            for log in scope.get("logRecords", ())
        )
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError("not an ExportLogsServiceRequest in OTLP/JSON") from error


def _json_mapping(pairs: Any) -> dict[str, Any]:
    return {pair["key"]: _json_value(pair.get("value", {})) for pair in pairs}


def _json_value(tagged: Mapping[str, Any]) -> Any:
    """An ``AnyValue`` of OTLP/JSON as a plain one."""
    if not tagged:
        return None
    ((kind, value),) = tagged.items()
    if kind == "intValue":
        return int(value)
    if kind == "doubleValue":
        return float(value)
    if kind == "bytesValue":
        return b64decode(value, validate=True)
    if kind == "arrayValue":
        return [_json_value(item) for item in value.get("values", ())]
    if kind == "kvlistValue":
        return _json_mapping(value.get("values", ()))
    return value
