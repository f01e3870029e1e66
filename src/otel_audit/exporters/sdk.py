"""Through any exporter of OpenTelemetry's own SDK: for destinations that have one, and none here.

What its acknowledgement is worth: an SDK exporter answers ``SUCCESS`` or ``FAILURE``, and no more.

- ``SUCCESS`` is whatever that exporter takes for one.  The SDK's OTLP exporters do so for a 3xx answer, and where a
  receiver says that it refused part of the batch (``partial_success``): such records count as delivered, and are not.
  The console's means written to a stream, the one in memory means in memory.  For OTLP use the destination ``"otlp"``.
- ``FAILURE`` comes without a reason, so it may be the network, a wrong credential, or one record that can never be
  delivered.  Nothing is lost: the destination is *blocked*, keeps everything, and is tried again.  But nothing tells
  the bad record from the good ones, so none can be set aside as a dead letter: everything behind it waits.

The record is handed over as it is stored: the chain, the id and all other attributes, as many as there are.  (OTLP
exporters of older versions of the SDK leave out an attribute with a ``None`` in it, and log an error.)  Severity, trace
and event name are lifted into their own fields.  How long an export may take is the SDK exporter's own setting.
"""

from __future__ import annotations

import contextlib
import inspect
import threading
from pathlib import Path
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace as otel_trace
from opentelemetry._logs import LogRecord as ApiLogRecord
from opentelemetry._logs import SeverityNumber
from opentelemetry.sdk import _logs as sdk_logs
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from .. import semconv as sc
from .._version import __version__
from ..batch import RecordBatch, StoredRecord
from ..errors import BlockedExportError, ConfigurationError, RetryableExportError, describe
from ..formats.otlp import SCOPE_NAME
from ..protocols import ExportResult

# Before 1.39 what an exporter is given was a ``LogData``, and the record in it one of the SDK.
_READABLE: Final[Any] = getattr(sdk_logs, "ReadableLogRecord", None)
_LOG_DATA: Final[Any] = getattr(sdk_logs, "LogData", None)
_RECORD: Final[Any] = ApiLogRecord if _READABLE is not None else getattr(sdk_logs, "LogRecord", None)
_TAKES: Final = frozenset(inspect.signature(_RECORD.__init__).parameters)
_SUPPRESS: Final = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")


_NETWORK: Final = frozenset({"ConnectionError", "TimeoutError", "Timeout", "TransportError"})
"""Names of errors of the network: Python's own, and those of the HTTP libraries that exporters are built on."""


class SdkExporter:
    """Delivers through an exporter of OpenTelemetry's SDK, a ``LogRecordExporter`` (``LogExporter`` before 1.39).

    ::

        configure(destinations={"console": SdkExporter(ConsoleLogRecordExporter())})

    Its ``SUCCESS`` moves the cursor, whatever it is worth; the text above says what to expect of it.

    Args:
        exporter: the SDK's exporter; it is shut down with this one.

    Raises:
        ConfigurationError: that is no exporter.
    """

    single_writer: Final = False

    def __init__(self, exporter: Any) -> None:
        if isinstance(exporter, type) or not all(
            callable(getattr(exporter, name, None)) for name in ("export", "shutdown")
        ):
            raise ConfigurationError(
                f"SdkExporter: give it an exporter object of the OpenTelemetry SDK, like ConsoleLogRecordExporter(), "
                f"with the methods export(batch) and shutdown(); not {describe(exporter)}"
            )
        self._exporter = exporter
        self._name = type(exporter).__name__
        self._lock = threading.Lock()
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<SdkExporter through {self._name}>"

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        """Hand the whole batch to the SDK's exporter; return where it says ``SUCCESS``.

        Args:
            batch: the records.
            timeout_s: cannot be told to it; it has a time-out of its own.

        Raises:
            RetryableExportError: it raised an error of the network.
            BlockedExportError: it said ``FAILURE`` or nothing, or raised something else.
        """
        records = readable(batch)
        token = otel_context.attach(otel_context.set_value(_SUPPRESS, True))
        try:
            said = self._exporter.export(records)
        except Exception as error:
            if _NETWORK.intersection(kind.__name__ for kind in type(error).__mro__):
                raise RetryableExportError(f"{self._name} raised {_where(error)}") from error
            raise BlockedExportError(
                f"{self._name} raised {_where(error)}",
                repair=f"call {self._name}.export yourself with one log record, and see what it needs",
            ) from error
        finally:
            otel_context.detach(token)
        if getattr(said, "name", None) == "SUCCESS":
            return None
        what = getattr(said, "name", None) or f"no result but {describe(said)}"
        raise BlockedExportError(
            f"{self._name} said {what} for {len(batch.records)} records, and no reason",
            repair=f"look for its reason in what {self._name} itself has logged (loggers 'opentelemetry.…')",
        )

    def close(self) -> None:
        """Shut the SDK's exporter down, once.  Does not raise."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
        with contextlib.suppress(Exception):  # foreign code; there is nothing more to deliver through it
            self._exporter.shutdown()


def _where(error: Exception) -> str:
    """Type of the error and the line that raised it; its text may show what nobody should see."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    at = f" ({Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})" if trace is not None else ""
    return type(error).__name__ + at


class _Attributes(dict[str, Any]):
    """All attributes: none was dropped, which the SDK's own kind of mapping says too."""

    dropped = 0


def readable(batch: RecordBatch) -> list[Any]:
    """The records as an exporter of the installed SDK takes them: ``ReadableLogRecord`` or ``LogData``."""
    resource = Resource(dict(batch.resource))
    scope = InstrumentationScope(SCOPE_NAME, __version__)
    made: list[Any] = []
    for stored in batch.records:
        record = _record(stored, resource)
        if _READABLE is not None:
            made.append(_READABLE(record, resource, scope))
        else:
            made.append(_LOG_DATA(record, scope))
    return made


def _record(stored: StoredRecord, resource: Resource) -> Any:
    attributes = _Attributes(stored.attributes)
    number = attributes.get(sc.SEVERITY_NUMBER)
    text = attributes.get(sc.SEVERITY_TEXT)
    given: dict[str, Any] = {
        "timestamp": stored.timestamp_ns,
        "observed_timestamp": stored.observed_ns,
        "severity_number": SeverityNumber(number)
        if isinstance(number, int) and 0 < number <= 24
        else SeverityNumber.UNSPECIFIED,
        "severity_text": text if isinstance(text, str) else None,
        "body": stored.body,
        "event_name": stored.event_name,
        "context": otel_context.Context(),
        "resource": resource,
    }
    if "event_name" not in _TAKES:
        attributes["event.name"] = stored.event_name
    record = _RECORD(**{name: value for name, value in given.items() if name in _TAKES})
    # Set behind the constructors: they cut attributes by limits, and ask the current span for a trace.
    record.attributes = attributes
    record.trace_id = int(stored.trace_id or "0", 16)
    record.span_id = int(stored.span_id or "0", 16)
    record.trace_flags = otel_trace.TraceFlags.get_default()
    return record
