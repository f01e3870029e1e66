"""OpenTelemetry's own pipeline from ``logging`` to OTLP, and ours, so that a test can hold them side by side."""

from __future__ import annotations

import logging
import uuid
import warnings
from pathlib import Path
from typing import Any

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, SimpleLogRecordProcessor

from otel_audit import AuditHandler, AuditProvider
from otel_audit.delivery.backoff import Backoff
from otel_audit.settings import load_settings
from otel_audit.testing import ReceivedRecord, ScriptedReceiver

SOON = Backoff(first_s=0.05, max_s=0.05)

logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)


class Pipeline:
    """Something that ``logging`` goes into and that sends OTLP.  Every record has a number of its own."""

    def __init__(self, handler: logging.Handler) -> None:
        self._run = uuid.uuid4().hex
        self._logger = logging.Logger(f"test-{self._run}")
        self._logger.addHandler(handler)
        self._next = 0

    def log(self, count: int = 1, message: str = "user.login", *args: Any, **extra: Any) -> None:
        """Log so many records."""
        for _ in range(count):
            known = {"run": self._run, "number": self._next, "actor": "u-42", "outcome": "success"}
            self._next += 1
            self._logger.info(message, *args, extra={**known, **extra})

    @property
    def logged(self) -> int:
        """How many records were logged."""
        return self._next

    def arrived(self, receiver: ScriptedReceiver) -> dict[int, ReceivedRecord]:
        """What the receiver took of this pipeline, by number."""
        records = [record for record in receiver.records if record.attributes.get("run") == self._run]
        return {int(record.attributes["number"]): record for record in records}

    def missing(self, receiver: ScriptedReceiver) -> list[int]:
        """Numbers of records that were logged and that the receiver does not have."""
        return sorted(set(range(self._next)) - set(self.arrived(receiver)))


class Stock(Pipeline):
    """``LoggingHandler``, ``BatchLogRecordProcessor`` and ``OTLPLogExporter``, as they are installed.

    Args:
        endpoint: where to.
        queue, batch: sizes in records.
        timeout_s: of the exporter: how long it goes on trying.
        simple: ``SimpleLogRecordProcessor`` instead, which exports in the thread that logs.
        max_request_size: of the exporter, in bytes.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        queue: int = 2048,
        batch: int = 512,
        timeout_s: float = 0.5,
        simple: bool = False,
        **options: Any,
    ) -> None:
        self.exporter = OTLPLogExporter(endpoint, timeout=timeout_s, **options)
        self.processor = (
            SimpleLogRecordProcessor(self.exporter)
            if simple
            else BatchLogRecordProcessor(
                self.exporter, schedule_delay_millis=60_000, max_queue_size=queue, max_export_batch_size=batch
            )
        )
        self.provider = LoggerProvider(shutdown_on_exit=False)
        self.provider.add_log_record_processor(self.processor)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            handler = LoggingHandler(logger_provider=self.provider)
        super().__init__(handler)

    def flush(self) -> bool:
        """What it says of itself."""
        return self.provider.force_flush()

    def close(self) -> None:
        """End it, whatever is in its queue."""
        if isinstance(self.processor, BatchLogRecordProcessor):
            self.processor._batch_processor.shutdown(timeout_millis=100)
        else:
            self.processor.shutdown()


class Ours(Pipeline):
    """``AuditHandler`` into a journal, delivered by OTLP.

    Args:
        root: the journal.
        endpoint: where to.
        options: as for ``configure``.
    """

    def __init__(self, root: Path, endpoint: str, **options: Any) -> None:
        destination = {"type": "otlp", "endpoint": endpoint, "delay": 0.01, "timeout": 2}
        settings = load_settings({"journal": root, "destinations": {"collector": destination}, **options}, {})
        for each in settings.destinations:
            object.__setattr__(each, "retry", SOON)
            object.__setattr__(each, "blocked", SOON)
        self.provider = AuditProvider(settings)
        super().__init__(AuditHandler(self.provider))

    def close(self) -> None:
        """End it."""
        self.provider.shutdown(0.0)
