"""What a gRPC call that failed says: the receiver's code with its details, or why there was no answer.

gRPC gives a code to everything, also to what never reached the receiver; then only its text tells a network that is
down from a port where nobody will ever speak gRPC.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from ..errors import BlockedExportError, ExportError, RejectedExportError, RetryableExportError
from ..formats.otlp_answer import Status, parse_status
from .answers import bounded_s, class_of, clean, request_id_of

_REPAIRS: Final = {
    "UNAUTHENTICATED": "check the credentials that this destination is given (headers, client_certificate)",
    "PERMISSION_DENIED": "the credentials are known but not allowed to write here; check their permissions",
    "UNIMPLEMENTED": "the receiver has no OTLP logs service, or not this compression: check host, port and compression",
    "NOT_FOUND": "check host and port: the receiver there knows nothing of what it was asked",
    "INTERNAL": "the receiver failed and does not say that it will pass; see its log (a Collector means a permanent "
    "error)",
    "UNKNOWN": "the receiver failed and does not say that it will pass; see its log",
    "FAILED_PRECONDITION": "something has to be put right at the receiver first; see its log",
    "RESOURCE_EXHAUSTED": "a quota or the memory of the receiver is used up, and it does not say that this will pass",
}
_STATUS_TRAILER: Final = "grpc-status-details-bin"
_UNREACHED: Final = "failed to connect to all addresses"
_BROKEN: Final = ("Stream removed", "Socket closed", "recvmsg", "Connection reset", "GOAWAY", "Broken pipe")
_TOO_LARGE: Final = re.compile(r"message (?:after decompression )?larger than max", re.IGNORECASE)
_HANDSHAKE: Final = re.compile(r"handshake|verification check|certificate", re.IGNORECASE)
_PROTOCOL: Final = re.compile(r"parsing HTTP/2|http1\.x|SETTINGS frame", re.IGNORECASE)


def error_of_call(
    error: Exception, who: str, timeout_s: float, size: int, cover: Callable[[str], str] = str
) -> ExportError:
    """The error for a call that failed.

    Args:
        error: what gRPC raised.
        who: what the message calls the receiver.
        timeout_s: how long the call was allowed to take.
        size: of the request, in bytes.
        cover: takes out of a text what must not be shown.
    """
    import grpc  # noqa: PLC0415 - heavy

    if not isinstance(error, grpc.RpcError) or not isinstance(error, grpc.Call):
        if isinstance(error, ValueError) and "closed channel" in str(error):
            return RetryableExportError(f"{who}: the connection was closed meanwhile")
        # The text of other errors may show a header, and so a credential.
        return BlockedExportError(
            f"{who}: the request could not be made: {type(error).__name__}", repair="check the endpoint and the headers"
        )
    code: str = error.code().name
    headers = headers_of(error, cover)
    said = _status(headers.get(_STATUS_TRAILER))
    text = clean(cover(error.details() or ""))
    local = None if said is not None else _local_error(code, text, who, timeout_s)
    if local is not None:
        return local
    return _answered(code, text, said, who, size, headers, cover)


def _answered(
    code: str,
    text: str,
    said: Status | None,
    who: str,
    size: int,
    headers: Mapping[str, Any],
    cover: Callable[[str], str],
) -> ExportError:
    """The error for what the receiver said."""
    waiting = bounded_s(said.retry_after_s) if said is not None else None
    kind = class_of(code)
    details: dict[str, object] = {"message": text} if text else {}
    if said is not None and said.reason:
        details["error"] = clean(cover(said.reason))
    repair = _REPAIRS.get(code)
    if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE.search(text):
        kind = RejectedExportError
        details |= {"reason": "too_large", "size_bytes": size}
        repair = "the receiver takes only smaller requests: set request_bytes to what it takes, or let it take more"
    elif code == "RESOURCE_EXHAUSTED" and waiting is not None:
        kind, repair = RetryableExportError, None
    elif code == "ALREADY_EXISTS":
        details["reason"] = "conflict"
        if said is not None and said.integrity_hash:
            details["integrity_hash"] = clean(cover(said.integrity_hash))
    return kind(
        f"{who} answered {code}" + (f": {text}" if text else ""),
        status=code,
        retry_after_s=waiting,
        repair=repair,
        request_id=request_id_of(headers) or (clean(cover(said.request_id)) if said is not None else "") or None,
        details=details,
    )


def _local_error(code: str, text: str, who: str, timeout_s: float) -> ExportError | None:
    """The error for what did not come from the receiver; ``None`` where it did."""
    if code == "UNAVAILABLE" and text.startswith((_UNREACHED, "errors resolving", "DNS resolution failed")):
        return _unreached(text, who)
    if code == "UNAVAILABLE" and text.startswith(_BROKEN):
        return RetryableExportError(f"{who}: the connection broke: {text}", status=code)
    if code == "DEADLINE_EXCEEDED" and "deadline exceeded" in text.lower():
        return RetryableExportError(f"{who} did not answer within {timeout_s:.3g} s", status=code)
    if code == "RESOURCE_EXHAUSTED" and ("CLIENT:" in text or "metadata size exceeds" in text):
        return BlockedExportError(
            f"{who} answered more than an OTLP receiver would: {text}",
            status=code,
            repair="something that is not the receiver answers there: check host and port, and proxies on the way",
        )
    return None


def _unreached(text: str, who: str) -> ExportError:
    reason = text.rpartition("last error: ")[2] or text
    if _PROTOCOL.search(reason):
        return BlockedExportError(
            f"{who} does not speak gRPC there: {reason}",
            status="protocol",
            repair="check the port: 4317 is gRPC, 4318 is OTLP over HTTP; a TLS port wants https://",
        )
    if _HANDSHAKE.search(reason):
        if "WRONG_VERSION" in reason or "HTTP_REQUEST" in reason:
            repair = "the receiver does not speak TLS there: begin the endpoint with http://, or use its TLS port"
        elif "CERTIFICATE_VERIFY" in reason or "verification check" in reason.lower():
            repair = "set certificate to the file of the authority that signed the receiver's, or repair the receiver's"
        else:
            repair = "check the files in certificate, client_certificate and client_key"
        return BlockedExportError(f"{who}: TLS failed: {reason}", status="TLS", repair=repair)
    if "resolving" in text or "DNS" in text:
        hint = "if this stays: check the name of the host"
    elif "refused" in reason:
        hint = "if this stays: check that the receiver runs and listens on that port"
    else:
        hint = "if this stays: the receiver may speak TLS there (https://), or want client_certificate and client_key"
    return RetryableExportError(f"{who}: {reason}", status="UNAVAILABLE", repair=hint)


def headers_of(call: Any, cover: Callable[[str], str] = str) -> dict[str, Any]:
    """What came before and after the message, by name; what is not text stays bytes."""
    pairs = [*(call.initial_metadata() or ()), *(call.trailing_metadata() or ())]
    return {str(key).lower(): cover(value) if isinstance(value, str) else value for key, value in pairs}


def _status(trailer: Any) -> Status | None:
    if not isinstance(trailer, bytes) or len(trailer) > 16_384:
        return None
    try:
        return parse_status(trailer)
    except ValueError:
        return None
