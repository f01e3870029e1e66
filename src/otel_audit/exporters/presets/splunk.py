"""Splunk's HTTP Event Collector, with indexer acknowledgement: delivered is what an indexer has, not what was received.

The collector answers with an ``ackId``; whether that is indexed has to be asked for.  So a batch is first *pending*:
the shipper exports it again after a moment, and then only its acknowledgement is asked for.  Where none comes in time,
or this process ends before, the batch is sent again.

A collector that is restarted forgets what it had, and counts its ``ackId`` from the start again on every channel.  So
each stream has a channel of its own: a number is never answered for another stream's records.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec

from ... import semconv as sc
from ...batch import RecordBatch
from ...errors import (
    BlockedExportError,
    ConfigurationError,
    ExportError,
    PendingExportError,
    RejectedExportError,
    RetryableExportError,
)
from ...formats.jsonl import parse_rfc3339
from ...formats.template import Facts
from ...options import Option
from ...protocols import ExportResult
from ..answers import Answer, clean, error_of_answer, not_understood
from ..http import HttpExporter, Written
from .preset import Mode, Preset

_OF_EVENTS: Final = frozenset({6, 12, 13, 15})
"""Codes of answers with 400 that are about an event: its format, that there is none or a blank one, its fields."""

_REPAIRS: Final = {
    7: "the token may not write to that index: check the option index, and the token's allowed indexes",
    10: "a proxy takes the header X-Splunk-Request-Channel away: let it through",
    11: "a proxy changes the header X-Splunk-Request-Channel: let it through",
    14: "enable indexer acknowledgement for the token, or set acknowledge to false",
}


def _shape(plain: Facts, options: Mapping[str, Any]) -> dict[str, Any]:
    seconds, ns = divmod(parse_rfc3339(plain["timestamp"]), 1_000_000_000)
    found = {
        "time": msgspec.Raw(f"{seconds}.{ns:09d}".encode()),
        "host": plain["resource"].get(sc.HOST_NAME),
        "source": plain["resource"].get(sc.SERVICE_NAME),
        "sourcetype": options["sourcetype"],
        "index": options["index"],
        "event": plain,
        "fields": {"record_id": plain["record_id"], "event_name": plain["event_name"]},
    }
    return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class _Pending:
    """Records that were received, and of which it is not known whether they are indexed."""

    sequences: tuple[int, ...]
    ack_ids: frozenset[int]
    until_s: float


class SplunkExporter(HttpExporter):
    """Sends events, and asks later whether they are indexed."""

    def _prepare(self, environ: Mapping[str, str], where: str) -> None:
        self._acknowledge: bool = self._own["acknowledge"]
        self._pending: dict[tuple[str, int], _Pending] = {}
        self._ack_ids: list[int] = []
        self._channels = uuid.uuid4()
        parts = urlsplit(self._client.url)
        before, collector, _ = parts.path.partition("/services/collector")
        if self._acknowledge and not collector:
            raise ConfigurationError(
                f"{where}.url: expected …/services/collector/event, beside which acknowledgements are asked for; "
                "or set acknowledge to false"
            )
        self._ack_url = parts._replace(path=f"{before}/services/collector/ack", query="").geturl()

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        """Deliver the whole batch; return when an indexer has it.

        Raises:
            PendingExportError: it was received, and is not indexed yet.
            ExportError: as the exporter for direct HTTP does.
        """
        self._channel = self._headers["X-Splunk-Request-Channel"] = str(uuid.uuid5(self._channels, batch.stream_id))
        if not self._acknowledge:
            return super().export(batch, timeout_s)
        ends = time.monotonic() + timeout_s
        done = self._indexed(batch, ends)
        if done == len(batch.records):
            return None
        rest = batch.part(done, len(batch.records))
        self._ack_ids = []
        try:
            super().export(rest, max(ends - time.monotonic(), 0.0))
        except ExportError as error:
            self._remember(rest.part(0, error.accepted))  # received, which is not yet accepted
            error.accepted = done
            raise
        self._remember(rest)
        raise self._pending_error(len(rest.records), done)

    def _indexed(self, batch: RecordBatch, deadline: float) -> int:
        """How many records from the start of the batch are indexed; pending while that is not known."""
        now = time.monotonic()
        self._pending = {key: each for key, each in self._pending.items() if each.until_s > now}
        key = batch.stream_id, batch.records[0].sequence
        pending = self._pending.get(key)
        if pending is None:
            return 0
        count = min(len(pending.sequences), len(batch.records))  # a limit on our side may let fewer through at a time
        if tuple([record.sequence for record in batch.records[:count]]) != pending.sequences[:count]:
            return 0
        left = pending.ack_ids - self._asked_for(pending.ack_ids, deadline)
        if left:
            self._pending[key] = replace(pending, ack_ids=left)  # an acknowledgement is given once
            raise self._pending_error(count, 0)
        del self._pending[key]
        if rest := pending.sequences[count:]:
            self._pending[batch.stream_id, rest[0]] = replace(pending, sequences=rest, ack_ids=frozenset())
        return count

    def _asked_for(self, ack_ids: frozenset[int], deadline: float) -> set[int]:
        """Which of these are acknowledged."""
        if not ack_ids:
            return set()
        content = msgspec.json.encode({"acks": sorted(ack_ids)})
        url = f"{self._ack_url}?{urlencode({'channel': self._channel})}"
        answer = self._asked(content, (), self._client.deadline(deadline - time.monotonic()), url=url)
        if answer.status != 200:
            raise self._error(answer, ())
        acks = _parsed(answer).get("acks")
        if not isinstance(acks, dict):
            raise not_understood(answer, self._client.shown_url, "there are no acks in its body")
        return {ack_id for ack_id in ack_ids if acks.get(str(ack_id)) is True}

    def _remember(self, batch: RecordBatch) -> None:
        if batch.records and self._ack_ids:
            sequences = tuple([record.sequence for record in batch.records])
            until_s = time.monotonic() + self._own["acknowledge_timeout"]
            self._pending[batch.stream_id, sequences[0]] = _Pending(sequences, frozenset(self._ack_ids), until_s)

    def _pending_error(self, count: int, accepted: int) -> PendingExportError:
        return PendingExportError(
            f"{self._client.shown_url} received {count} records and has not indexed all of them yet",
            accepted=accepted,
            retry_after_s=self._own["acknowledge_every"],
        )

    def _judged(self, answer: Answer, records: Sequence[Written], deadline: float) -> dict[str, str]:
        if answer.status != 200:
            raise self._error(answer, records)
        said = _parsed(answer)
        if said.get("code") != 0:
            raise not_understood(answer, self._client.shown_url, "its body is not that of an event collector")
        if self._acknowledge:
            ack_id = said.get("ackId")
            if not isinstance(ack_id, int):
                raise BlockedExportError(
                    f"{self._client.shown_url} answered without an ackId", status=200, repair=_REPAIRS[14]
                )
            if self._ack_ids and ack_id <= self._ack_ids[-1]:
                self._begin_anew()
            self._ack_ids.append(ack_id)
        return {}

    def _begin_anew(self) -> None:
        """The collector counts from the start again, so it was restarted: an older number may now be of other records.

        Raises:
            RetryableExportError: always; all that is not known to be indexed is sent again, on other channels.
        """
        self._channels = uuid.uuid4()
        self._pending.clear()
        self._ack_ids.clear()
        raise RetryableExportError(
            f"{self._client.shown_url} gave an ackId twice, so it was restarted meanwhile; records are sent again",
            repair="if this stays: acknowledgements do not come from one indexer (sticky sessions), or are not real; "
            "see that they are, or set acknowledge to false",
        )

    def _error(self, answer: Answer, records: Sequence[Written]) -> ExportError:
        """The error for an answer that is not a success, by the collector's own code."""
        said = _parsed(answer)
        code = said.get("code")
        error = error_of_answer(answer, self._client.shown_url)
        if answer.status != 400 or not isinstance(code, int):
            return error
        text = f"{self._client.shown_url} answered 400, code {code}: {clean(str(said.get('text', '')))}"
        if code not in _OF_EVENTS:
            return BlockedExportError(text, status=400, repair=_REPAIRS.get(code), details={"code": code})
        number = said.get("invalid-event-number")
        refused: dict[int, RejectedExportError] = {}
        if isinstance(number, int) and 0 <= number < len(records):
            alone = RejectedExportError(text, status=400, details={"code": code})
            refused[records[number].sequence] = alone
        return RejectedExportError(text, status=400, refused=refused, details={"code": code})


def _parsed(answer: Answer) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(answer.body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


SPLUNK: Final = Preset(
    name="splunk-hec",
    service="Splunk HTTP Event Collector",
    modes={
        "batch": Mode(
            "/services/collector/event", "ndjson", content_type="application/json",
            request_records=1000, request_bytes=800_000,
        )
    },
    shape=_shape,
    options=(
        Option("index", "str", None, "index to write to; the token's own where it is not given"),
        Option("sourcetype", "str", "otel:audit", "source type of the events"),
        Option("acknowledge", "bool", True, "wait for indexer acknowledgement, which the token has to have enabled"),
        Option("acknowledge_every", "duration", 1.0, "how often acknowledgements are asked for", minimum=0.01),
        Option("acknowledge_timeout", "duration", 300.0, "without one after this, records are sent again", minimum=1),
    ),
    auth={"type": "bearer", "scheme": "Splunk"},
    env="SPLUNK_HEC_TOKEN",
    auth_required=True,
    exporter=SplunkExporter,
)  # fmt: skip
