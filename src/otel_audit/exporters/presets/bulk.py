"""Elasticsearch and OpenSearch by ``_bulk``: each record is created under its own id, and each gets its own answer.

A record that is sent again finds its id taken (409), so it is stored once.  That its id is taken by *this* record is
looked up; where another one has it, the record is refused rather than believed to be there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec

from ...errors import BlockedExportError, ExportError, RejectedExportError, RetryableExportError
from ...formats.template import Facts
from ...options import REQUIRED, Option
from ..answers import Answer, class_of, clean, error_of_answer, not_understood
from ..http import HttpExporter, Lines, Written
from .preset import Mode, Preset

_BODY_MAX: Final = 16 * 1024 * 1024
_ID_BYTES_MAX: Final = 512
_RANK: Final = (BlockedExportError, RetryableExportError, RejectedExportError)


def _shape(plain: Facts, options: Mapping[str, Any]) -> Lines:
    body = plain["body"]
    if body is not None and not isinstance(body, str):  # else its type in the index would be that of the first record
        body = msgspec.json.encode(body).decode()
    action = {"create": {"_index": options["index"], "_id": _document_id(str(plain["record_id"]))}}
    return Lines([action, {"@timestamp": plain["timestamp"], **plain, "body": body}])


def _document_id(record_id: str) -> str:
    raw = record_id.encode()
    return record_id if len(raw) <= _ID_BYTES_MAX else f"sha256:{hashlib.sha256(raw).hexdigest()}"


class BulkExporter(HttpExporter):
    """Reads the answer of each record."""

    def _prepare(self, environ: Mapping[str, str], where: str) -> None:
        self._answer_max = _BODY_MAX
        parts = urlsplit(self._client.url)
        base = parts.path.rpartition("/_bulk")[0]
        path = f"{base}/{quote(self._own['index'], safe='')}/_mget"
        self._get_url = parts._replace(path=path, query="").geturl()

    def _judged(self, answer: Answer, records: Sequence[Written], deadline: float) -> dict[str, str]:
        who = self._client.shown_url
        if answer.status != 200:
            raise error_of_answer(answer, who)
        items = _items(answer, records)
        if items is None:
            raise not_understood(answer, who, "its body is not the bulk answer to what was sent")
        conflicts = [record for record, item in zip(records, items, strict=True) if item.status == 409]
        foreign = self._foreign(conflicts, deadline) if conflicts else frozenset()
        taken: list[int] = []
        failed: dict[int, ExportError] = {}
        for record, item in zip(records, items, strict=True):
            created = item.status in (200, 201) and item.error is None
            if created or (item.status == 409 and record.sequence not in foreign):
                taken.append(record.sequence)
            else:
                failed[record.sequence] = _error_of(item, who)
        if failed:
            raise _summed_up(failed, taken, who)
        return {}

    def _foreign(self, conflicts: Sequence[Written], deadline: float) -> frozenset[int]:
        """Which of these have an id that belongs to a record with another hash.

        Where looking up is not allowed, all are believed to be ours.

        Raises:
            RetryableExportError, BlockedExportError: they cannot be looked up now, or the answer is not to be read.
        """
        who = self._client.shown_url
        docs = [{"_id": _document_id(record.record_id), "_source": ["sha256"]} for record in conflicts]
        content = msgspec.json.encode({"docs": docs})
        answer = self._asked(content, (), deadline, url=self._get_url, content_type="application/json")
        if answer.status != 200:
            error = error_of_answer(answer, who)
            if answer.status >= 500 or isinstance(error, RetryableExportError):
                raise error
            return frozenset()
        try:
            found = msgspec.json.decode(answer.body, type=_Found).docs if answer.whole else None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            found = None
        if found is None:
            raise not_understood(answer, who, "its body is not the answer to what was looked up")
        hashes = {doc.id: doc.source.get("sha256") for doc in found if doc.found}
        return frozenset(
            record.sequence
            for record in conflicts
            if hashes.get(_document_id(record.record_id), record.sha256) != record.sha256
        )


class _Error(msgspec.Struct):
    type: str = ""
    reason: str | None = None


class _Item(msgspec.Struct):
    status: int
    id: str | None = msgspec.field(default=None, name="_id")
    error: _Error | str | None = None


class _Answer(msgspec.Struct):
    items: list[dict[str, _Item]]


class _Document(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    found: bool = False
    source: dict[str, Any] = msgspec.field(default_factory=dict, name="_source")


class _Found(msgspec.Struct):
    docs: list[_Document]


def _items(answer: Answer, records: Sequence[Written]) -> list[_Item] | None:
    """The answer of each record; ``None`` where there is not exactly one for each, in their order."""
    try:
        found = [item["create"] for item in msgspec.json.decode(answer.body, type=_Answer).items]
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError):
        return None
    ids = [_document_id(record.record_id) for record in records]
    return found if answer.whole and [item.id for item in found] == ids else None


def _error_of(item: _Item, who: str) -> ExportError:
    """The error for one record.  Of its reason, what may be a value of the record is left out."""
    error = item.error if isinstance(item.error, _Error) else _Error(reason=item.error)
    reason = (error.reason or "").partition("Preview of field's value")[0]
    kind = RejectedExportError if item.status == 409 else class_of(item.status)
    said = clean(f"{error.type}: {reason}".strip(": ") or "no reason")
    details = {"reason": "conflict" if item.status == 409 else clean(error.type)}
    if item.status == 409:
        said = "another record has this one's id"
    return kind(f"{who} answered {item.status} for a record: {said}", status=item.status, details=details)


def _summed_up(failed: Mapping[int, ExportError], taken: Sequence[int], who: str) -> ExportError:
    """One error for the whole answer: blocked before retry before refused, with what is decided of each record."""
    errors = list(failed.values())
    worst = min(errors, key=lambda error: [isinstance(error, kind) for kind in _RANK].index(True))
    return type(worst)(
        f"{who} did not take {len(failed)} of {len(failed) + len(taken)} records: {worst}",
        taken=taken,
        refused={sequence: error for sequence, error in failed.items() if isinstance(error, RejectedExportError)},
        status=worst.status,
        repair=_REPAIRS.get(worst.status) if isinstance(worst.status, int) else None,
        details=worst.details,
    )


_REPAIRS: Final = {
    403: "let these credentials create documents there, and see that no full disk made the index read-only",
    404: "create the index, or allow it to be created automatically",
}


def _preset(name: str, service: str) -> Preset:
    return Preset(
        name=name,
        service=service,
        modes={
            "batch": Mode(
                "/_bulk", "ndjson", content_type="application/x-ndjson", request_records=2000, request_bytes=5_000_000
            )
        },
        shape=_shape,
        options=(Option("index", "str", REQUIRED, "index or data stream to create documents in"),),
        auth={"type": "bearer", "scheme": "ApiKey"},
        success=("200",),
        exporter=BulkExporter,
    )


ELASTICSEARCH: Final = _preset("elasticsearch", "Elasticsearch")
OPENSEARCH: Final = _preset("opensearch", "OpenSearch")
