"""What the caller of ``emit`` gets back."""

from __future__ import annotations

import msgspec


class AuditReceipt(msgspec.Struct, frozen=True):
    """What ``emit`` gives back: where the record is, and how safe it is.

    Attributes:
        record_id: ``audit.record.id``; stable over retries, the key by which every receiver removes doubles.
        stream_id: the journal stream (one per process) that holds it.
        sequence: its number in that stream, from 1, without gaps.  0 where ``deferred``.
        integrity_hash: SHA-256 of its canonical form, 64 lower-case hex digits.  Empty where ``deferred``.
        durability: what was reached when ``emit`` returned: ``"process"`` (survives the death of the process),
            ``"disk"`` (survives power loss), ``"delivered"`` (every required destination acknowledged it), or
            ``"deferred"``: it was emitted from within another ``emit`` of the same thread (by a signal handler or a
            finaliser), and that outer call writes it before it returns.
        sink_timestamp_ns: when the journal took it, nanoseconds since 1970.
    """

    record_id: str
    stream_id: str
    sequence: int
    integrity_hash: str
    durability: str
    sink_timestamp_ns: int

    @property
    def deferred(self) -> bool:
        """Whether the record waits for an outer ``emit`` of the same thread to write it."""
        return self.durability == "deferred"
