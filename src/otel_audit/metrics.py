"""Our own measurements by OpenTelemetry's metrics API: the draft's names, and ours (``docs/metrics.md``).

Only the API: without an SDK the instruments do nothing.  All but one are observable: whoever collects reads counts that
are kept anyway, and no record becomes slower by it.  The one histogram gets a value for each request to a destination,
on the shipper's thread.

The API is not loaded by us.  Nobody collects before somebody else has loaded it; then the instruments are made, at the
latest when the journal keeps house the next time (some seconds).
"""

from __future__ import annotations

import dataclasses
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple

from . import semconv as sc
from ._version import __version__
from .batch import RecordBatch
from .delivery.destination import Destination
from .observation import Observation, Observatory
from .own_log import own_log
from .protocols import AuditRecordExporter, ExportResult

_API: Final = "opentelemetry.metrics"
_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

_log = own_log("metrics")

Attributes = tuple[tuple[str, str], ...]
Values = Iterable[tuple[Attributes, float]]


class Instrument(NamedTuple):
    """One observable instrument.

    Attributes:
        kind: ``"counter"`` or ``"gauge"``.
        unit: as UCUM has it.
        doc: what it says.
        read: its values in an observation, with their attributes.
        combine: what becomes of the values of several providers.
    """

    name: str
    kind: str
    unit: str
    doc: str
    read: Callable[[Observation], Values]
    combine: Callable[[Iterable[float]], float] = sum


def _by_destination(values: dict[str, int]) -> Values:
    return [(((sc.DESTINATION, name),), count) for name, count in values.items()]


def _dropped(found: Observation) -> Values:
    reasons = {"invalid_record": "records.invalid", "journal": "records.not_journaled"}
    return [(((sc.ERROR_TYPE, reason),), found.counters.get(name, 0)) for reason, name in reasons.items()]


def _oldest(found: Observation) -> Values:
    return [
        (((sc.DESTINATION, each.name),), age_s(each.oldest_pending_ns, found.taken_ns)) for each in found.destinations
    ]


def age_s(emitted_ns: int, now_ns: int) -> float:
    """How old something is, in seconds; 0 where it is not known when it was emitted."""
    return max(now_ns - emitted_ns, 0) / 1e9 if emitted_ns else 0.0


INSTRUMENTS: Final = (
    Instrument(
        sc.METRIC_EMITTED, "counter", "{record}", "records that this process journaled, the journal's own among them",
        lambda found: [((), found.emitted)],
    ),
    Instrument(
        sc.METRIC_EXPORTED, "counter", "{record}", "records that this process brought to a destination",
        lambda found: _by_destination(found.exported),
    ),
    Instrument(
        sc.METRIC_DROPPED, "counter", "{record}",
        "records that were emitted and are not in the journal; the caller was told. More than 0 is an alarm",
        _dropped,
    ),
    Instrument(
        sc.METRIC_QUEUE_DEPTH, "gauge", "{record}", "records in the journal that a destination has not yet",
        lambda found: _by_destination({each.name: each.pending for each in found.destinations}),
    ),
    Instrument(
        sc.METRIC_OLDEST_AGE, "gauge", "s", "how long ago the oldest record that a destination has not was emitted",
        _oldest, max,
    ),
    Instrument(
        sc.METRIC_FILTERED, "counter", "{record}", "records that the filter of a destination passed over",
        lambda found: _by_destination(found.filtered),
    ),
    Instrument(
        sc.METRIC_DEAD_LETTERS, "gauge", "{record}", "records that a destination refuses and nobody has",
        lambda found: _by_destination(found.dead_letters), max,
    ),
    Instrument(
        sc.METRIC_BLOCKED, "gauge", "1", "1 where somebody has to repair something before a destination takes records",
        lambda found: _by_destination({each.name: int(each.state == "blocked") for each in found.destinations}), max,
    ),
    Instrument(
        sc.METRIC_JOURNAL_SIZE, "gauge", "By", "size of the journal, dead letters included",
        lambda found: [((), found.journal_bytes)], max,
    ),
    Instrument(
        sc.METRIC_JOURNAL_LIMIT, "gauge", "By", "size at which the journal takes nothing any more",
        lambda found: [((), found.journal_bytes_max)], max,
    ),
    Instrument(
        sc.METRIC_SYNCS, "counter", "{sync}", "how often the journal was synced", lambda found: [((), found.syncs)]
    ),
    Instrument(
        sc.METRIC_SYNC_TIME, "counter", "s", "how long the syncs of the journal took in all",
        lambda found: [((), found.sync_s)],
    ),
)  # fmt: skip
"""Every observable instrument."""

EXPORT_DURATION_DOC: Final = "how long one request to a destination took, with error.type where it failed"


class _Meter:
    """The instruments of the process, and whose values they show."""

    def __init__(self) -> None:
        self.sources: weakref.WeakSet[Observatory] = weakref.WeakSet()
        self.past: dict[tuple[str, Attributes], float] = {}
        self.duration: Any = None
        self.made = False
        self.said = False

    def make(self) -> None:
        """Make the instruments, if somebody has loaded the API and they are not made yet."""
        if self.made or _API not in sys.modules:
            return
        self.made = True
        from opentelemetry import metrics  # noqa: PLC0415 - only where it is loaded already

        meter = metrics.get_meter("otel_audit", __version__)
        for each in INSTRUMENTS:
            make = meter.create_observable_counter if each.kind == "counter" else meter.create_observable_gauge
            make(each.name, [self._callback(each)], each.unit, each.doc)
        self.duration = meter.create_histogram(
            sc.METRIC_EXPORT_DURATION, "s", EXPORT_DURATION_DOC, explicit_bucket_boundaries_advisory=_BUCKETS_S
        )

    def _callback(self, instrument: Instrument) -> Callable[[Any], Iterator[Any]]:
        def observe(_: Any) -> Iterator[Any]:
            from opentelemetry.metrics import Observation as Value  # noqa: PLC0415

            for attributes, value in self.values(instrument).items():
                yield Value(value, dict(attributes))

        return observe

    def values(self, instrument: Instrument) -> dict[Attributes, float]:
        """What an instrument shows now: over all providers, those that were shut down included where it counts."""
        found: dict[Attributes, list[float]] = {}
        for (name, attributes), value in self.past.copy().items():
            if name == instrument.name:
                found[attributes] = [value]
        for source in list(self.sources):
            try:
                seen = source.look()
            except OSError as error:
                if not self.said:
                    self.said = True
                    _log.warning("the journal cannot be measured now: %s", error)
                continue
            for attributes, value in instrument.read(seen):
                found.setdefault(attributes, []).append(value)
        return {attributes: instrument.combine(values) for attributes, values in found.items()}

    def settle(self, source: Observatory) -> None:
        """A provider was shut down: keep what it counted, and look at it no more."""
        self.sources.discard(source)
        try:
            seen = source.look_now()
        except OSError:
            return
        for instrument in INSTRUMENTS:
            if instrument.kind == "counter":
                for attributes, value in instrument.read(seen):
                    key = instrument.name, attributes
                    self.past[key] = self.past.get(key, 0) + value


_meter: Final = _Meter()


def watch(source: Observatory) -> None:
    """Show a provider's values from now on."""
    _meter.sources.add(source)
    _meter.make()


def look_around() -> None:
    """Make the instruments, if somebody has loaded the metrics API meanwhile."""
    _meter.make()


def settle(source: Observatory) -> None:
    """A provider was shut down: its counts stay, its gauges end."""
    _meter.settle(source)


def after_fork_in_child() -> None:
    """What the parent counted is not the child's."""
    _meter.past.clear()


class _Timed:
    """An exporter whose requests are timed."""

    def __init__(self, exporter: AuditRecordExporter, name: str) -> None:
        self.single_writer = exporter.single_writer
        self._exporter = exporter
        self._name = name

    def export(self, batch: RecordBatch, timeout_s: float) -> ExportResult | None:
        attributes = {sc.DESTINATION: self._name}
        begun = time.perf_counter()
        try:
            return self._exporter.export(batch, timeout_s)
        except Exception as error:
            attributes[sc.ERROR_TYPE] = type(error).__name__
            raise
        finally:
            if _meter.duration is not None:
                _meter.duration.record(time.perf_counter() - begun, attributes)

    def close(self) -> None:
        self._exporter.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._exporter, name)


def timed(destination: Destination) -> Destination:
    """The destination, with its requests timed."""
    make = destination.make_exporter
    return dataclasses.replace(destination, make_exporter=lambda: _Timed(make(), destination.name))
