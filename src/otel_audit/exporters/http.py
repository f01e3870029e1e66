"""Direct HTTP: records as JSON to an audit API or a SIEM, one per request or a batch per request."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Final

import msgspec

from ..batch import RecordBatch, StoredRecord
from ..errors import ConfigurationError, DamageError, ExportError, RejectedExportError, RetryableExportError
from ..formats import PAUSE_EVERY
from ..formats.jsonl import as_plain
from ..formats.template import compile_template
from ..options import REQUIRED, Option, read_options
from ..protocols import ExportResult
from .answers import Answer, error_of_answer
from .courtesy import let_others_run
from .credentials import Credentials
from .http_client import BODY_MAX, HTTP_OPTIONS, HttpClient, check_header_name

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
        Option("auth", "any", None, "credentials: {type: bearer|header|basic, and one of env, file, call}"),
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

    def _start(self, options: Mapping[str, Any], environ: Mapping[str, str], where: str) -> None:
        self._credentials = Credentials(options["auth"], environ, f"{where}.auth")
        self._client = HttpClient(options["url"], options, where, has_credentials=bool(self._credentials))
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
        template = options["template"]
        self._function: Callable[..., Any] | None = template if callable(template) else None
        self._fill = None if template is None or callable(template) else compile_template(template, f"{where}.template")

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        """Deliver the whole batch, in one request or, with body ``record``, in one for each record.

        Raises:
            RetryableExportError, BlockedExportError, RejectedExportError: it was not taken; ``accepted`` says how many
                records from the start were.
        """
        ends = time.monotonic() + timeout_s
        if self._body != "record":
            return ExportResult(self._deliver(batch, ends - time.monotonic()))
        response_ids: dict[str, str] = {}
        index = 0
        try:
            for index in range(len(batch.records)):
                left = ends - time.monotonic()
                if left <= 0:
                    raise RetryableExportError(f"{self._client.shown_url} did not take all within {timeout_s:.3g} s")
                response_ids |= self._deliver(batch.part(index, index + 1), left)
        except ExportError as error:
            error.accepted = index
            raise
        return ExportResult(response_ids)

    def close(self) -> None:
        """Let go of the connection.  May be called twice."""
        self._client.close()

    def __repr__(self) -> str:
        return f"<HttpExporter {self._method} {self._client.shown_url}>"

    def _deliver(self, batch: RecordBatch, timeout_s: float) -> dict[str, str]:
        """One request; the receiver's ids by record id."""
        deadline = self._client.deadline(timeout_s)
        ids, content = self._written(batch)
        headers = {**self._headers, **self._credentials.headers()}
        if self._key_header:
            headers[self._key_header] = _idempotency_key(ids, self._body)
        body_max = _IDS_BODY_MAX if self._id_path else BODY_MAX
        answer = self._client.send(self._method, content, headers, deadline, body_max)
        if answer.status not in self._success:
            raise error_of_answer(answer, self._client.shown_url)
        return _response_ids(answer, self._id_path, ids)

    def _written(self, batch: RecordBatch) -> tuple[list[str], bytes]:
        """The record ids, and the body of the request."""
        ids: list[str] = []
        shapes: list[bytes] = []
        for done, record in enumerate(batch.records, 1):
            record_id, shape = self._shaped(record, batch)
            ids.append(record_id)
            shapes.append(shape)
            if done % PAUSE_EVERY == 0:
                let_others_run()
        if self._body == "record":
            return ids, shapes[0]
        if self._body == "ndjson":
            return ids, b"\n".join([*shapes, b""])
        array = b"[" + b",".join(shapes) + b"]"
        return ids, array if self._body == "array" else b"{" + _encode(self._list_name) + b":" + array + b"}"

    def _shaped(self, record: StoredRecord, batch: RecordBatch) -> tuple[str, bytes]:
        """The record id, and the record as JSON."""
        try:
            plain = as_plain(record, batch)
            if self._function is not None:
                shape = self._function(record, batch)
            else:
                shape = self._fill(plain) if self._fill is not None else plain
            return str(plain["record_id"]), _encode(shape)
        except Exception as error:
            raise RejectedExportError(
                f"record {record.sequence} of stream {batch.stream_id} cannot be written: {type(error).__name__}",
                details={"reason": "damaged" if isinstance(error, DamageError) else "template"},
            ) from error


def _idempotency_key(ids: Sequence[str], body: str) -> str:
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
