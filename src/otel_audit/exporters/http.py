"""Direct HTTP: records as JSON to an audit API or a SIEM, one per request or a batch per request."""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import msgspec

from ..batch import RecordBatch, StoredRecord
from ..errors import ConfigurationError, DamageError, ExportError, RejectedExportError, RetryableExportError
from ..formats import PAUSE_EVERY
from ..formats.jsonl import as_plain
from ..formats.template import Facts, compile_template
from ..options import REQUIRED, Option, read_options
from ..protocols import ExportResult
from .answers import Answer, error_of_answer, is_conflict_with_itself, is_page, not_understood
from .courtesy import let_others_run
from .credentials import Credentials
from .endpoint import Endpoint
from .http_client import BODY_MAX, HTTP_OPTIONS, HttpClient, check_header_name
from .secret import secrets_in

_IDS_BODY_MAX: Final = 8 * 1024 * 1024
_HEADER_SAFE: Final = re.compile(r"[\x21-\x7e]{1,255}")
_STATUSES: Final = re.compile(r"\s*([1-5][0-9]{2})\s*(?:-\s*([1-5][0-9]{2})\s*)?")
_encode = msgspec.json.Encoder().encode


class HttpExporter:
    """Sends records as JSON.  The arguments are explained in :attr:`OPTIONS`.

    Raises:
        ConfigurationError: an argument is wrong.
    """

    OPTIONS: ClassVar[tuple[Option, ...]] = (
        Option("url", "url", REQUIRED, "where to send to"),
        Option("method", "enum", "POST", "the HTTP method", choices=("POST", "PUT", "PATCH")),
        Option(
            "body", "enum", "record",
            "one record per request, or a batch as JSON array, as JSON lines, or as an object with a list",
            choices=("record", "array", "ndjson", "object"),
        ),
        Option("list_name", "str", "records", "name of the list, for body 'object'"),
        Option(
            "template", "any", None,
            "shape of a record: JSON with {{placeholders}}, or (from Python) a function of record and batch; "
            "without one, the members of a plain JSON line",
        ),
        Option(
            "request_records", "int", None, "most records in one request, where it holds a batch",
            minimum=1,
        ),
        Option("request_bytes", "size", None, "largest body of such a request, before it is compressed", minimum=1),
        Option("auth", "any", None, "credentials: {type: bearer|header|basic|oauth2|login, one of env, file, call}"),
        Option(
            "idempotency_header", "str", "Idempotency-Key",
            "carries the record id, or a hash over the batch's; empty: none",
        ),
        Option(
            "success", "any", ("200", "201", "204"),
            "statuses and ranges of them that acknowledge: from 200 to 299, and 409",
        ),
        Option(
            "response_id", "str", "",
            "where the answer has the receiver's id of a record: 'id'; of each record of a batch: 'items.*.id'",
        ),
        Option("content_type", "str", None, "instead of application/json or application/x-ndjson"),
        *HTTP_OPTIONS,
    )  # fmt: skip

    single_writer = False

    def __init__(
        self,
        url: str,
        *,
        method: str = "POST",
        body: str = "record",
        list_name: str = "records",
        template: Any = None,
        request_records: int | None = None,
        request_bytes: int | str | None = None,
        auth: Mapping[str, Any] | None = None,
        idempotency_header: str = "Idempotency-Key",
        success: Sequence[str | int] = ("200", "201", "204"),
        response_id: str = "",
        content_type: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | str | None = None,
        compression: str = "none",
        certificate: Any = None,
        client_certificate: Any = None,
        client_key: Any = None,
        verify_tls: bool = True,
        environ: Mapping[str, str] | None = None,
        where: str = "HttpExporter",
    ) -> None:
        options = {
            "url": url,
            "method": method,
            "body": body,
            "list_name": list_name,
            "template": template,
            "request_records": request_records,
            "request_bytes": request_bytes,
            "auth": auth,
            "idempotency_header": idempotency_header,
            "success": success,
            "response_id": response_id,
            "content_type": content_type,
            "headers": headers,
            "timeout": timeout,
            "compression": compression,
            "certificate": certificate,
            "client_certificate": client_certificate,
            "client_key": client_key,
            "verify_tls": verify_tls,
        }
        self._start(read_options(self.OPTIONS, where, options), os.environ if environ is None else environ, where)

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], environ: Mapping[str, str], *, where: str = "http"
    ) -> HttpExporter:
        """The exporter that these options describe; the environment holds credentials only.

        Raises:
            ConfigurationError: an option is unknown or wrong, or a credential is not there.
        """
        self = cls.__new__(cls)
        self._start(read_options(cls.OPTIONS, where, options), environ, where)
        return self

    @classmethod
    def made(
        cls,
        options: Mapping[str, Any],
        environ: Mapping[str, str],
        where: str,
        *,
        name: str = "http",
        shape: Callable[[Facts], Any] | None = None,
        own: Mapping[str, Any] | None = None,
    ) -> HttpExporter:
        """The exporter with these options, all of them parsed; what presets are made by.

        Args:
            options: a value for each of :data:`HttpExporter.OPTIONS`.
            environ: the environment; it holds credentials only.
            where: what error messages call the options.
            name: what the exporter is called where it is shown.
            shape: instead of a template.
            own: the preset's own options.

        Raises:
            ConfigurationError: an option is wrong, or a credential is not there.
        """
        self = cls.__new__(cls)
        self._start(options, environ, where)
        self._name = name
        self._fill = shape or self._fill
        self._own = dict(own or {})
        self._prepare(environ, where)
        return self

    def _start(self, options: Mapping[str, Any], environ: Mapping[str, str], where: str) -> None:
        self._name = "http"
        self._own: dict[str, Any] = {}
        self._credentials = Credentials(options["auth"], environ, f"{where}.auth", options)
        self._client = HttpClient(options["url"], options, where, has_credentials=bool(self._credentials))
        self._answer_max = _IDS_BODY_MAX if options["response_id"] else BODY_MAX
        self._method: str = options["method"]
        self._body: str = options["body"]
        self._list_name: str = options["list_name"]
        self._success = _statuses(options["success"], f"{where}.success")
        self._id_path = tuple(filter(None, options["response_id"].split(".")))
        lines = "application/x-ndjson" if self._body == "ndjson" else "application/json"
        self._headers = {"Content-Type": options["content_type"] or lines}
        self._key_header: str = options["idempotency_header"]
        if self._key_header:
            check_header_name(self._key_header, f"{where}.idempotency_header")
        self.records_per_request: int | None = 1 if self._body == "record" else options["request_records"]
        self._bytes_max: float = options["request_bytes"] or math.inf
        template = options["template"]
        self._function: Callable[..., Any] | None = template if callable(template) else None
        self._fill = None if template is None or callable(template) else compile_template(template, f"{where}.template")

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        """Deliver the whole batch, in one request or, where it is more than one can hold, in several.

        Raises:
            RetryableExportError, BlockedExportError, RejectedExportError: it was not taken; ``accepted`` says how many
                records from the start were, ``taken`` and ``refused`` which of the others were and were not.
        """
        ends = time.monotonic() + timeout_s
        response_ids: dict[str, str] = {}
        done = 0
        try:
            for records in self._requests(batch):
                left = ends - time.monotonic()
                if left <= 0:
                    raise RetryableExportError(f"{self._client.shown_url} did not take all within {timeout_s:.3g} s")
                response_ids |= self._deliver_by_name(records, left)
                done += len(records)
        except ExportError as error:
            error.accepted += done
            error.response_ids = {**response_ids, **error.response_ids}
            raise
        return ExportResult(response_ids)

    def _deliver_by_name(self, records: Sequence[Written], timeout_s: float) -> dict[str, str]:
        """One request; what is refused alone is refused by name, so nobody has to look for it."""
        try:
            return self._deliver(records, timeout_s)
        except RejectedExportError as error:
            if len(records) == 1:
                error.refused.setdefault(records[0].sequence, error)
            raise

    def close(self) -> None:
        """Let go of the connection.  May be called twice."""
        self._client.close()
        self._credentials.close()

    @property
    def endpoint(self) -> Endpoint:
        """Where it sends to."""
        return self._client.endpoint

    def __repr__(self) -> str:
        shown = f"{self._method} " if self._name == "http" else f"{self._name} "
        return f"<HttpExporter {shown}{self._client.shown_url}>"

    # -- what a preset may do otherwise ------------------------------------------------------------------------------

    def _prepare(self, environ: Mapping[str, str], where: str) -> None:
        """Read the preset's own options; raises ConfigurationError."""

    def _deliver(self, records: Sequence[Written], timeout_s: float) -> dict[str, str]:
        """One request; the receiver's ids by record id."""
        deadline = self._client.deadline(timeout_s)
        return self._judged(self._asked(self._framed(records), records, deadline), records, deadline)

    def _framed(self, records: Sequence[Written]) -> bytes:
        """The body of a request."""
        if self._body == "record":
            return records[0].content
        if self._body == "ndjson":
            return b"\n".join([*(record.content for record in records), b""])
        array = b"[" + b",".join(record.content for record in records) + b"]"
        return array if self._body == "array" else b"{" + _encode(self._list_name) + b":" + array + b"}"

    def _more_headers(self, records: Sequence[Written], content: bytes) -> Mapping[str, str]:
        """Headers that depend on what is sent."""
        if not self._key_header:
            return {}
        return {self._key_header: idempotency_key([record.record_id for record in records], self._body)}

    def _judged(self, answer: Answer, records: Sequence[Written], deadline: float) -> dict[str, str]:
        """The receiver's ids where it took everything; raises ExportError where it did not."""
        if answer.status not in self._success:
            if len(records) == 1 and is_conflict_with_itself(answer, records[0].sha256):
                return {}
            raise error_of_answer(answer, self._client.shown_url)
        if is_page(answer):
            raise not_understood(answer, self._client.shown_url, "with an HTML page")
        return _response_ids(answer, self._id_path, [record.record_id for record in records])

    # -- one request ---------------------------------------------------------------------------------------------------

    def _asked(
        self,
        content: bytes,
        records: Sequence[Written],
        deadline: float,
        *,
        url: str | None = None,
        content_type: str | None = None,
    ) -> Answer:
        """The answer to a request; credentials that are not accepted any more are renewed once."""
        more = dict(self._more_headers(records, content)) if records else {}
        if content_type is not None:
            more["Content-Type"] = content_type
        renewed = False
        while True:
            credentials = self._credentials.headers(deadline)
            answer = self._client.send(
                self._method,
                content,
                {**self._headers, **more, **credentials},
                deadline,
                self._answer_max,
                secrets=secrets_in(credentials),
                url=url,
            )
            if answer.status != 401 or renewed or not (renewed := self._credentials.renew()):
                return answer

    def _requests(self, batch: RecordBatch) -> Iterator[list[Written]]:
        """The records, written, in parts that one request can hold."""
        part: list[Written] = []
        size = 0
        for done, record in enumerate(batch.records, 1):
            if part and len(part) == self.records_per_request:
                yield part
                part, size = [], 0
            written = self._written(record, batch)
            if part and size + len(written.content) > self._bytes_max:
                yield part
                part, size = [], 0
            part.append(written)
            size += len(written.content) + 1
            if done % PAUSE_EVERY == 0:
                let_others_run()
        yield part

    def _written(self, record: StoredRecord, batch: RecordBatch) -> Written:
        """The record as JSON."""
        try:
            plain = as_plain(record, batch)
            if self._function is not None:
                shape = self._function(record, batch)
            else:
                shape = self._fill(plain) if self._fill is not None else plain
            lines = shape if isinstance(shape, Lines) else [shape]
            content = b"\n".join([_encode(line) for line in lines])
            return Written(record.sequence, str(plain["record_id"]), record.sha256, content)
        except Exception as error:
            raise _unwritable(record, batch, error) from error


@dataclass(frozen=True)
class Written:
    """A record as it is sent."""

    sequence: int
    record_id: str
    sha256: str
    content: bytes = field(repr=False)


class Lines(list[Any]):
    """What a shape returns that is more than one line of ``ndjson``."""


def _unwritable(record: StoredRecord, batch: RecordBatch, error: Exception) -> RejectedExportError:
    """The error for a record that cannot be written: it is refused by name, the others are not touched."""
    text = f"record {record.sequence} of stream {batch.stream_id} cannot be written: {type(error).__name__}"
    details = {"reason": "damaged" if isinstance(error, DamageError) else "template"}
    alone = RejectedExportError(text, details=details)
    return RejectedExportError(text, refused={record.sequence: alone}, details=details)


def idempotency_key(ids: Sequence[str], body: str) -> str:
    """The record id where it can stand in a header, else, and for a batch, a hash of what identifies it."""
    if body == "record" and _HEADER_SAFE.fullmatch(ids[0]):
        return ids[0]
    return hashlib.sha256(_encode(ids)).hexdigest()


def _response_ids(answer: Answer, path: Sequence[str], ids: Sequence[str]) -> dict[str, str]:
    """The receiver's ids by record id; none where the answer does not have exactly one for each record."""
    if not path or not answer.whole:
        return {}
    try:
        found: list[Any] = [msgspec.json.decode(answer.body)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    for step in path:
        if step == "*":
            found = [item for value in found if isinstance(value, list) for item in value]
        else:
            found = [value.get(step) for value in found if isinstance(value, dict)]
    if len(found) != len(ids) or not all(isinstance(value, (str, int)) for value in found):
        return {}
    return {record_id: str(value) for record_id, value in zip(ids, found, strict=True)}


def _statuses(success: Any, where: str) -> frozenset[int]:
    """The statuses that are named singly or as ranges."""
    items = success.split(",") if isinstance(success, str) else success
    if isinstance(items, int):
        items = [items]
    found: set[int] = set()
    for item in items if isinstance(items, (list, tuple)) else [items]:
        match = _STATUSES.fullmatch(str(item))
        if match is None:
            raise ConfigurationError(f"{where}: expected statuses and ranges like '200-204', got {item!r}")
        found.update(range(int(match[1]), int(match[2] or match[1]) + 1))
    if not found or not found <= {*range(200, 300), 409}:
        raise ConfigurationError(f"{where}: only statuses from 200 to 299, and 409, can acknowledge; got {success!r}")
    return frozenset(found)
