"""What an exporter is given: stored records, and the stream that they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from . import semconv as sc
from .canonical import Tagged, decode, untag


class StoredRecord(msgspec.Struct, eq=False):
    """One line of the journal, whole and verified.

    The garbage collector counts them on purpose: what an HTTP client leaves of a request of 4 MiB is garbage in
    circles, and would otherwise stay for many requests.

    Attributes:
        sequence: its number in the stream.
        sha256: SHA-256 of ``canonical``, lower-case hex: the record's integrity hash.
        canonical: the canonical form (``jcs/1``), exactly the bytes that were hashed.
    """

    sequence: int
    sha256: str
    canonical: bytes
    _tagged: dict[str, Any] | None = None
    _attributes: dict[str, Any] | None = None

    @property
    def tagged(self) -> dict[str, Any]:
        """The parsed canonical form: values are still tagged (``{"stringValue": …}``)."""
        if self._tagged is None:
            self._tagged = decode(self.canonical)
        return self._tagged

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes as plain Python values, those of the chain among them."""
        if self._attributes is None:
            self._attributes = {key: untag(value) for key, value in self.tagged.get("attributes", {}).items()}
        return self._attributes

    def __repr__(self) -> str:
        return f"<StoredRecord {self.sequence}>"

    @property
    def body(self) -> Any:
        """The body as a plain Python value; ``None`` where there is none."""
        return untag(self.tagged.get("body"))

    @property
    def event_name(self) -> str:
        """The event name."""
        return str(self.tagged.get("event_name", ""))

    @property
    def record_id(self) -> str:
        """``audit.record.id``; the idempotency key."""
        tagged: Tagged = self.tagged["attributes"][sc.RECORD_ID]
        return str(untag(tagged))

    @property
    def timestamp_ns(self) -> int:
        """When it happened, nanoseconds since 1970."""
        return int(self.tagged.get("timestamp", 0))

    @property
    def observed_ns(self) -> int:
        """When it was emitted, nanoseconds since 1970."""
        return int(self.tagged.get("observed_timestamp", 0))

    @property
    def trace_id(self) -> str:
        """Lower-case hex; empty where there is none."""
        return str(self.tagged.get("trace_id", ""))

    @property
    def span_id(self) -> str:
        """Lower-case hex; empty where there is none."""
        return str(self.tagged.get("span_id", ""))

    @property
    def is_control(self) -> bool:
        """Whether the journal wrote it itself (logging started, logging stopped)."""
        return sc.CONTROL in self.tagged.get("attributes", {})


@dataclass(frozen=True)
class RecordBatch:
    """Records of one stream, in its order.

    Attributes:
        stream_id: the stream that they come from.
        resource: the resource of the process that wrote them, not of the one that ships them.
        records: at least one.
    """

    stream_id: str
    resource: Mapping[str, Any]
    records: Sequence[StoredRecord] = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """Sum of the canonical forms, in bytes."""
        return sum(len(record.canonical) for record in self.records)

    def part(self, start: int, stop: int) -> RecordBatch:
        """The records from ``start`` up to, not including, ``stop``."""
        return RecordBatch(self.stream_id, self.resource, self.records[start:stop])
