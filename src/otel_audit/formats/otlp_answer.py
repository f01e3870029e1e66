"""What an OTLP receiver answers, read from its bytes: protobuf and JSON, pure.

Both protobuf and OTLP/JSON let a reader pass over what it does not know, so a ``Status`` or an error page's JSON under
a success would read as an empty, accepting answer.  It is not taken for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

_OF_ERRORS: Final = frozenset(
    {"code", "message", "error", "errors", "detail", "details", "errorMessage", "errorType", "fault"}
)
"""Members of what gateways and functions answer when something failed, also under a 200."""


@dataclass(frozen=True)
class PartialSuccess:
    """What a receiver said of a request that it took in part.

    Attributes:
        rejected: how many records it refused; 0 with a message is a warning.
        message: why, for people.
    """

    rejected: int
    message: str


@dataclass(frozen=True)
class Status:
    """A ``google.rpc.Status``: the body of an error answer over HTTP, a trailer over gRPC.

    Attributes:
        code: the gRPC code.
        message: why, for people.
        retry_after_s: what its ``RetryInfo`` asks for, in seconds, as it stands there; ``None`` where there is none.
        request_id: the id in its ``RequestInfo``; empty where there is none.
        reason: the word in its ``ErrorInfo``; empty where there is none.
        integrity_hash: the hash of the record that it speaks of, as its ``ErrorInfo`` has it; empty where it has none.
    """

    code: int
    message: str
    retry_after_s: float | None = None
    request_id: str = ""
    reason: str = ""
    integrity_hash: str = ""


def parse_logs_response(body: bytes) -> PartialSuccess | None:
    """What an ``ExportLogsServiceResponse`` says; ``None`` where all was taken.

    Raises:
        ValueError: it is not one, or it is rather a ``Status``.
    """
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - heavy
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2  # noqa: PLC0415 - heavy

    try:
        response = logs_service_pb2.ExportLogsServiceResponse.FromString(body)
    except DecodeError as error:
        raise ValueError("not an ExportLogsServiceResponse") from error
    if response.HasField("partial_success"):
        partial = response.partial_success
        return PartialSuccess(partial.rejected_log_records, partial.error_message)
    if body and _is_status(body):
        raise ValueError("a Status, not an ExportLogsServiceResponse")
    return None


def _is_status(body: bytes) -> bool:
    try:
        status = parse_status(body)
    except ValueError:
        return False
    return status.code != 0 or bool(status.message)


def parse_logs_response_json(body: bytes) -> PartialSuccess | None:
    """What an ``ExportLogsServiceResponse`` in OTLP/JSON says; ``None`` where all was taken.

    Raises:
        ValueError: it is not one, or it is rather an error's.
    """
    try:
        response = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ValueError("not JSON") from error
    if not isinstance(response, dict) or response.keys() & _OF_ERRORS:
        raise ValueError("not an ExportLogsServiceResponse")
    partial = _either(response, "partialSuccess", "partial_success")
    if partial is None:
        return None
    if not isinstance(partial, dict):
        raise ValueError("partialSuccess is not an object")
    rejected = _either(partial, "rejectedLogRecords", "rejected_log_records")
    message = _either(partial, "errorMessage", "error_message")
    if isinstance(rejected, bool) or not isinstance(rejected, (int, str, type(None))):
        raise ValueError("rejectedLogRecords is not a number")
    return PartialSuccess(int(rejected or 0), message if isinstance(message, str) else "")


def _either(members: Mapping[str, Any], name: str, other: str) -> Any:
    """A member by its name or by protobuf's, which a reader has to take too."""
    value = members.get(name)
    return members.get(other) if value is None else value


def parse_status(body: bytes) -> Status:
    """A ``google.rpc.Status`` with those of its details that we can use.

    Raises:
        ValueError: it is not one.
    """
    from google.protobuf.message import DecodeError  # noqa: PLC0415 - heavy
    from google.rpc import error_details_pb2, status_pb2  # noqa: PLC0415 - heavy

    retry_after_s: float | None = None
    request_id = reason = integrity_hash = ""
    try:
        status = status_pb2.Status.FromString(body)
        for detail in status.details:
            kind = detail.type_url.rpartition("/")[2]
            if kind == "google.rpc.RetryInfo":
                delay = error_details_pb2.RetryInfo.FromString(detail.value).retry_delay
                retry_after_s = delay.seconds + delay.nanos / 1e9
            elif kind == "google.rpc.RequestInfo":
                request_id = error_details_pb2.RequestInfo.FromString(detail.value).request_id
            elif kind == "google.rpc.ErrorInfo":
                info = error_details_pb2.ErrorInfo.FromString(detail.value)
                reason, integrity_hash = info.reason, info.metadata.get("integrity_hash", "")
    except DecodeError as error:
        raise ValueError("not a google.rpc.Status") from error
    return Status(status.code, status.message, retry_after_s, request_id, reason, integrity_hash)
