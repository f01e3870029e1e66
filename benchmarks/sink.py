"""A destination that a question can shut and open, and that counts what was acknowledged."""

from __future__ import annotations

import time
from typing import Final

from otel_audit.batch import RecordBatch
from otel_audit.delivery.backoff import Backoff
from otel_audit.delivery.destination import Destination
from otel_audit.errors import RetryableExportError
from otel_audit.protocols import ExportResult
from otel_audit.settings import make_destination

_SOON: Final = Backoff(first_s=0.2, max_s=0.2)
_PATIENCE_S: Final = 600.0


class Sink:
    """An OTLP/HTTP exporter with a gate before it; while the gate is shut, the destination is down.

    Args:
        url: base URL of the receiver.
    """

    single_writer = False

    def __init__(self, url: str) -> None:
        self.open = True
        self.attempts = 0
        self.acknowledged = 0
        self._behind = make_destination("sink", {"type": "otlp", "endpoint": url}, {}).make_exporter()

    def destination(self) -> Destination:
        """It, tried again five times a second."""
        return Destination("sink", lambda: self, retry=_SOON, blocked=_SOON)

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        """Deliver, or be down."""
        self.attempts += 1
        if not self.open:
            raise RetryableExportError("the gate is shut")
        result = self._behind.export(batch, timeout_s)
        self.acknowledged += len(batch.records)
        return result

    def close(self) -> None:
        """Let go of the connection."""
        self._behind.close()

    def wait_for(self, acknowledged: int) -> None:
        """Wait until so many records are acknowledged.

        Raises:
            RuntimeError: they are not, in ten minutes.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while self.acknowledged < acknowledged:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.acknowledged} of {acknowledged} records were acknowledged")
            time.sleep(0.0005)
