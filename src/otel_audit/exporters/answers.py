"""What a receiver's answer, or its silence, means: try again, somebody has to repair something, or refused.

The tables are for HTTP and for gRPC; what else a call of gRPC says is read in ``grpc_answers``.  Everything that is not
known to be a success, to pass by itself, or to be about the records, is *blocked*: the records are kept and a person is
told what to look at.
"""

from __future__ import annotations

import email.utils
import http
import json
import re
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ..errors import BlockedExportError, ExportError, RejectedExportError, RetryableExportError
from ..formats.otlp_answer import PartialSuccess, Status, parse_status

RETRY_STATUSES: Final = frozenset({202, 408, 425, 429, 502, 503, 504})
"""The receiver asks for patience.  202: it has the records but does not answer for them yet."""

REJECTED_STATUSES: Final = frozenset({400, 409, 413, 422})
"""The receiver speaks of these very records."""

RETRY_CODES: Final = frozenset(
    {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}
)
"""The same, as gRPC codes; ``RESOURCE_EXHAUSTED`` too where its ``RetryInfo`` says so."""

REJECTED_CODES: Final = frozenset({"INVALID_ARGUMENT", "ALREADY_EXISTS"})
"""The receiver speaks of these very records; so does a ``RESOURCE_EXHAUSTED`` that finds the request too large."""

RETRY_AFTER_MAX_S: Final = 600.0
"""The longest time that a receiver can ask to be left alone."""

TEXT_MAX: Final = 300
"""How much of what a receiver says is shown, in characters."""

_REPAIRS: Final = {
    401: "check the credentials that this destination is given",
    403: "the credentials are known but not allowed to write here; check their permissions",
    404: "check the path of the URL",
    405: "check the path of the URL and the method",
    407: "a proxy wants credentials; check HTTP_PROXY, HTTPS_PROXY and NO_PROXY",
    415: "the receiver does not take this format or compression; check that the URL is that of the right receiver",
    431: "the receiver finds the headers too large; check the headers that this destination is given",
    500: "the receiver failed and does not say that it will pass; see its log (a Collector means a permanent error)",
}
_PAGES: Final = ("text/html", "application/xhtml+xml")
_PAGE_BEGINS: Final = (b"<!doctype html", b"<html")
_REQUEST_IDS: Final = (
    "x-request-id", "request-id", "x-correlation-id", "x-amzn-requestid", "x-amz-request-id", "x-ms-request-id",
    "x-goog-request-id", "cf-ray",
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """A receiver's answer.

    Attributes:
        status: the HTTP status.
        headers: with names in lower case.
        body: at most as much as was asked for.
        whole: whether that is all of the body.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    whole: bool = True

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; empty where none is given."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


def class_of(status: int | str) -> type[ExportError]:
    """The error for a status of HTTP, or a code of gRPC, that is not a success."""
    if status in RETRY_STATUSES or status in RETRY_CODES:
        return RetryableExportError
    if status in REJECTED_STATUSES or status in REJECTED_CODES:
        return RejectedExportError
    return BlockedExportError


def error_of_answer(answer: Answer, who: str, *, accepted: int = 0, path_hint: str = "") -> ExportError:
    """The error for an answer that is not a success.

    Args:
        answer: what came.
        who: what the message calls the receiver.
        accepted: how many records from the start of the batch it had taken before.
        path_hint: what the right path is, as far as the exporter can know.
    """
    status = answer.status
    said = _status_of(answer)
    text = clean(said.message) if said is not None else text_of(answer)
    details: dict[str, object] = {"message": text} if text else {}
    if status == 409:
        details["reason"] = "conflict"
    waiting = retry_after_s(answer.headers.get("retry-after"))
    if waiting is None and said is not None:
        waiting = bounded_s(said.retry_after_s)
    return class_of(status)(
        f"{who} answered {status}{_phrase(status)}" + (f": {text}" if text else ""),
        accepted=accepted,
        status=status,
        retry_after_s=waiting,
        repair=_repair(answer, path_hint),
        request_id=request_id_of(answer.headers) or (clean(said.request_id) if said is not None else "") or None,
        details=details,
    )


def is_conflict_with_itself(answer: Answer, sha256: str) -> bool:
    """Whether a 409 says that the receiver has this very record: by the hash of what it stored.

    Args:
        answer: the answer to a request with one record.
        sha256: the record's.
    """
    if answer.status != 409 or not answer.whole or not answer.content_type.endswith(("/json", "+json")):
        return False
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and said.get("integrity_hash") == sha256


def not_understood(answer: Answer, who: str, why: str) -> BlockedExportError:
    """The error for a success status with a body that the right receiver would not send."""
    return BlockedExportError(
        f"{who} answered {answer.status}, but {why}",
        status=answer.status,
        repair="something that is not the receiver answers there: check host, port and path, and proxies on the way",
        request_id=request_id_of(answer.headers),
        details={"content_type": clean(answer.headers.get("content-type", ""))},
    )


def is_page(answer: Answer) -> bool:
    """Whether a success is a whole HTML page, as one for signing in is; the type alone says nothing: many send "OK"."""
    return answer.content_type in ("", *_PAGES) and answer.body[:1024].lstrip().lower().startswith(_PAGE_BEGINS)


def rejected_in_part(
    partial: PartialSuccess, who: str, count: int, status: int | str, request_id: str | None
) -> RejectedExportError:
    """The error for a ``partial_success`` that refuses records; which ones, it does not say.

    Args:
        partial: what the receiver said.
        who: what the message calls it.
        count: how many records it was sent.
        status: its status.
        request_id: its id of the request.
    """
    text = clean(partial.message)
    return RejectedExportError(
        f"{who} rejected {partial.rejected} of {count} records" + (f": {text}" if text else ""),
        status=status,
        request_id=request_id,
        details={"reason": "partial_success", "rejected": partial.rejected, "message": text},
    )


def _phrase(status: int) -> str:
    try:
        return f" {http.HTTPStatus(status).phrase}"
    except ValueError:
        return ""


def _repair(answer: Answer, path_hint: str) -> str | None:
    if 300 <= answer.status < 400:
        location = clean(answer.headers.get("location", "").partition("?")[0])
        return f"redirects are not followed; if {location or 'the new place'} is right, put it into the URL"
    if answer.status == 400 and b"HTTPS server" in answer.body:
        return "the receiver speaks TLS there: begin the URL with https://"
    repair = _REPAIRS.get(answer.status)
    return f"{repair}; {path_hint}" if answer.status in (404, 405) and path_hint else repair


# -- what the receiver says in words -------------------------------------------------------------------------------


def clean(text: str) -> str:
    """One line of printable characters, at most :data:`TEXT_MAX` of them."""
    text = " ".join(text[: 4 * TEXT_MAX].split())
    text = "".join(char if char.isprintable() else "\ufffd" for char in text)
    return text if len(text) <= TEXT_MAX else f"{text[: TEXT_MAX - 1]}…"


def text_of(answer: Answer) -> str:
    """What an error body says, for people: never what it repeats of the request."""
    kind = answer.content_type
    if not answer.body:
        return ""
    if kind == "application/x-protobuf":
        said = _status_of(answer)
        return clean(said.message) if said is not None else ""
    if kind.endswith(("/json", "+json")):
        try:
            return clean(_said(json.loads(answer.body)))
        except (ValueError, RecursionError):
            return ""
    if "html" in kind:
        title = re.search(rb"<title>([^<]*)</title>", answer.body, re.IGNORECASE)
        return clean("an HTML page" + (f", {title[1].decode('utf-8', 'replace')!r}" if title else ""))
    if kind in ("", "text/plain"):
        return clean(answer.body.decode("utf-8", "replace"))
    return ""


def _status_of(answer: Answer) -> Status | None:
    """The ``google.rpc.Status`` in an error's body; ``None`` where it is none."""
    if answer.content_type != "application/x-protobuf" or not answer.whole:
        return None
    try:
        return parse_status(answer.body)
    except ValueError:
        return None


def _said(body: Any, depth: int = 0) -> str:
    """The message in a JSON error body.  Only members that hold messages; others may repeat the records."""
    if isinstance(body, str):
        return body
    if depth < 4 and isinstance(body, list):
        return "; ".join(filter(None, (_said(item, depth + 1) for item in body[:5])))
    if depth < 4 and isinstance(body, dict):
        for key in ("message", "detail", "error_description", "error", "title", "reason", "errors", "msg"):
            if said := _said(body.get(key), depth + 1):
                place = body.get("loc")
                where = ".".join(map(str, place)) if isinstance(place, list) else ""
                return f"{where}: {said}" if where else said
    return ""


def retry_after_s(value: str | None) -> float | None:
    """``Retry-After`` in seconds from now, between 0 and :data:`RETRY_AFTER_MAX_S`; ``None`` where it says nothing."""
    if value is None:
        return None
    text = value.strip()
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]+)?", text):
        seconds = float(text)
    else:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    return bounded_s(seconds)


def bounded_s(seconds: float | None) -> float | None:
    """What a receiver asks for, between 0 and :data:`RETRY_AFTER_MAX_S`; ``None`` where it asks for nothing."""
    return None if seconds is None else min(max(seconds, 0.0), RETRY_AFTER_MAX_S)


def request_id_of(headers: Mapping[str, str]) -> str | None:
    """The id that the receiver gave to the request."""
    for name in _REQUEST_IDS:
        if value := clean(headers.get(name, "")):
            return value
    return None


# -- no answer -----------------------------------------------------------------------------------------------------


def error_of_failure(error: Exception, who: str, timeout_s: float) -> ExportError:
    """The error for a request that got no answer.

    Args:
        error: what the HTTP library raised.
        who: what the message calls the receiver.
        timeout_s: how long the request was allowed to take.
    """
    import httpx  # noqa: PLC0415 - heavy

    for cause in _causes(error):
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return _tls_error(cause, who)
    if isinstance(error, httpx.TimeoutException):
        return RetryableExportError(f"{who} did not answer within {timeout_s:.3g} s ({type(error).__name__})")
    if isinstance(error, httpx.NetworkError):
        cause = list(_causes(error))[-1]
        return RetryableExportError(f"{who}: {_network_text(cause)}", repair=_network_repair(cause))
    if isinstance(error, httpx.RemoteProtocolError):
        return _protocol_error(error, who)
    if isinstance(error, httpx.ProxyError):
        return _proxy_error(error, who)
    # The text of other errors may show a header, and so a credential.
    return BlockedExportError(
        f"{who}: the request could not be made: {type(error).__name__}",
        repair="check the URL, the headers and the proxy settings (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY)",
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen and len(seen) < 16:
        seen.append(current)
        yield current
        current = current.__cause__ or current.__context__


def _tls_error(error: ssl.SSLError, who: str) -> BlockedExportError:
    reason = clean(error.reason or str(error) or type(error).__name__)
    repair = "check certificate, client_certificate and client_key, and that the receiver speaks TLS on that port"
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = clean(error.verify_message or reason)
        repair = "set certificate to the file of the authority that signed the receiver's, or repair the receiver's"
    elif "WRONG_VERSION" in reason or "RECORD_LAYER" in reason or "HTTP_REQUEST" in reason:
        repair = "the receiver does not speak TLS on that port: begin the URL with http://, or use its TLS port"
    elif "ALERT" in reason.upper():
        repair = "the receiver refuses our side of TLS: check client_certificate and client_key"
    return BlockedExportError(f"{who}: TLS failed: {reason}", status="TLS", repair=repair)


def _network_text(cause: BaseException) -> str:
    return clean(getattr(cause, "strerror", None) or str(cause) or type(cause).__name__)


def _network_repair(cause: BaseException) -> str | None:
    if isinstance(cause, socket.gaierror):
        return "if this stays: check the name of the host"
    if isinstance(cause, ConnectionRefusedError):
        return "if this stays: check that the receiver runs and listens on that port"
    return None


def _protocol_error(error: Exception, who: str) -> ExportError:
    text = clean(str(error))
    if "disconnected" in text or "closed connection" in text:
        return RetryableExportError(f"{who}: {text}")
    return BlockedExportError(
        f"{who} does not speak HTTP/1.1 there: {text}",
        status="protocol",
        repair="check the port: 4318 is OTLP over HTTP, 4317 is gRPC; a TLS port wants https://",
    )


def _proxy_error(error: Exception, who: str) -> ExportError:
    status = re.match(r"\s*([0-9]{3})\b", str(error))
    kind = class_of(int(status[1])) if status else BlockedExportError
    if kind is RejectedExportError:  # the proxy knows nothing of records
        kind = BlockedExportError
    text = f"{who}: the proxy on the way refused" + (f" ({status[1]})" if status else "")
    return kind(text, status=int(status[1]) if status else "proxy", repair="check HTTP_PROXY, HTTPS_PROXY and NO_PROXY")
