"""Our measurements, read by the real SDK as any application would."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_audit import metrics
from otel_audit import semconv as sc
from otel_audit.errors import BlockedExportError, ConfigurationError, InvalidRecordError, JournalClosedError
from support.delivery import Sink, until
from support.provider import SOON, login, make_provider

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


class Read:
    """One collection: name → attributes → value."""

    def __init__(self, reader: InMemoryMetricReader) -> None:
        data = reader.get_metrics_data()
        self.all: dict[str, Any] = {}
        self.values: dict[str, dict[tuple[tuple[str, Any], ...], Any]] = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self.all[metric.name] = metric
                    self.values[metric.name] = {
                        tuple(sorted((point.attributes or {}).items())): getattr(point, "value", point)
                        for point in metric.data.data_points
                    }

    def of(self, name: str, destination: str = "", **more: str) -> Any:
        """The value with these attributes."""
        attributes = {**({sc.DESTINATION: destination} if destination else {}), **more}
        return self.values[name][tuple(sorted(attributes.items()))]


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemoryMetricReader]:
    """The SDK with a reader, and instruments of ours that nobody used before."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    monkeypatch.setattr("opentelemetry.metrics.get_meter", provider.get_meter)
    monkeypatch.setattr(metrics, "_meter", metrics._Meter())
    yield reader
    provider.shutdown()


def test_what_was_emitted_exported_and_is_left(tmp_path: Path, reader: InMemoryMetricReader) -> None:
    """The draft's names; the journal's own records count as emitted and as exported."""
    up, down = Sink(), Sink(*[BlockedExportError("401")] * 1_000_000)
    provider = make_provider(tmp_path / "j", retry=SOON, destinations={"up": up, "down": down})
    for _ in range(5):
        login(provider.get_audit_logger())
    until(lambda: len(up.accepted) == 6 and provider.shippers[0].delivered == 6)
    until(lambda: provider.shippers[1].state.state == "blocked")
    read = Read(reader)
    assert read.of(sc.METRIC_EMITTED) == 6
    assert read.of(sc.METRIC_EXPORTED, "up") == 6
    assert read.of(sc.METRIC_EXPORTED, "down") == 0
    assert read.of(sc.METRIC_QUEUE_DEPTH, "up") == 0
    assert read.of(sc.METRIC_QUEUE_DEPTH, "down") == 6
    assert read.of(sc.METRIC_BLOCKED, "up") == 0
    assert read.of(sc.METRIC_BLOCKED, "down") == 1
    assert type(read.of(sc.METRIC_BLOCKED, "up")) is int
    assert 0 < read.of(sc.METRIC_OLDEST_AGE, "down") < 600
    assert read.of(sc.METRIC_OLDEST_AGE, "up") == 0
    assert 0 < read.of(sc.METRIC_JOURNAL_SIZE) < read.of(sc.METRIC_JOURNAL_LIMIT) == provider.settings.max_bytes
    assert read.all[sc.METRIC_EMITTED].unit == "{record}"
    assert read.all[sc.METRIC_EMITTED].data.is_monotonic
    provider.shutdown(0.0)


def test_what_is_not_in_the_journal_is_dropped(tmp_path: Path, reader: InMemoryMetricReader) -> None:
    """The caller was told each time; more than nothing is an alarm."""
    provider = make_provider(tmp_path / "j")
    logger = provider.get_audit_logger()
    login(logger)
    with pytest.raises(InvalidRecordError):
        logger.emit("Not A Name", actor="u", outcome="success")
    with pytest.raises(ConfigurationError):
        login(logger, durability="delivered")
    read = Read(reader)
    assert read.of(sc.METRIC_DROPPED, **{sc.ERROR_TYPE: "invalid_record"}) == 1
    assert read.of(sc.METRIC_DROPPED, **{sc.ERROR_TYPE: "journal"}) == 1
    provider.shutdown(0.0)
    with pytest.raises(JournalClosedError):
        login(logger)


def test_dead_letters_and_filtered_records_are_shown(tmp_path: Path, reader: InMemoryMetricReader) -> None:
    """Each by destination."""
    provider = make_provider(
        tmp_path / "j",
        destinations={
            "picky": Sink(refuses=lambda record: record.attributes.get("n") == 1),
            "some": {"type": Sink(), "filter": {"outcomes": ["failure"]}, "required": False},
        },
    )
    for number in range(3):
        login(provider.get_audit_logger(), attributes={"n": number})
    assert provider.flush(20)
    until(lambda: provider.shippers[1].filtered == 3)
    read = Read(reader)
    assert read.of(sc.METRIC_DEAD_LETTERS, "picky") == 1
    assert read.of(sc.METRIC_DEAD_LETTERS, "some") == 0
    assert read.of(sc.METRIC_FILTERED, "some") == 3
    assert read.of(sc.METRIC_EXPORTED, "some") == 1
    provider.shutdown(1.0)


def test_requests_and_syncs_are_timed(tmp_path: Path, reader: InMemoryMetricReader) -> None:
    """One value for each request, with what went wrong; syncs by their number and their sum."""
    sink = Sink(BlockedExportError("401"))
    provider = make_provider(tmp_path / "j", retry=SOON, destinations={"one": sink})
    login(provider.get_audit_logger(), durability="disk")
    assert provider.flush(20)
    read = Read(reader)
    good = read.of(sc.METRIC_EXPORT_DURATION, "one")
    bad = read.of(sc.METRIC_EXPORT_DURATION, "one", **{sc.ERROR_TYPE: "BlockedExportError"})
    assert good.count + bad.count == len(sink.requests)
    assert bad.count == 1
    assert 0 <= good.sum < 60
    assert good.explicit_bounds[0] == 0.005
    assert read.of(sc.METRIC_SYNCS) >= 1
    assert 0 < read.of(sc.METRIC_SYNC_TIME) < 60
    provider.shutdown(1.0)


def test_counts_survive_a_second_configuration(tmp_path: Path, reader: InMemoryMetricReader) -> None:
    """A counter never falls; what the first provider counted stays, and its gauges end."""
    for number in (1, 2):
        provider = make_provider(tmp_path / f"j{number}", destinations={f"d{number}": Sink()})
        login(provider.get_audit_logger())
        assert provider.flush(20)
        provider.shutdown(5.0)
    provider = make_provider(tmp_path / "j3")
    login(provider.get_audit_logger())
    read = Read(reader)
    assert read.of(sc.METRIC_EMITTED) == 8  # started and stopped too
    assert read.of(sc.METRIC_EXPORTED, "d1") == read.of(sc.METRIC_EXPORTED, "d2") == 3  # started and stopped too
    assert sc.METRIC_QUEUE_DEPTH not in read.values
    provider.shutdown(0.0)


def test_a_journal_that_cannot_be_measured_breaks_no_collection(
    tmp_path: Path, reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once; the application's own metrics go on."""
    provider = make_provider(tmp_path / "j")
    login(provider.get_audit_logger())

    def fails(_: Path, **__: Any) -> int:
        raise OSError(5, "input/output error")

    monkeypatch.setattr("otel_audit.observation.usage_bytes", fails)
    assert sc.METRIC_EMITTED not in Read(reader).values
    assert Read(reader).values == {}
    assert len([each for each in caplog.records if "cannot be measured" in each.message]) == 1
    provider.shutdown(0.0)


def test_no_instrument_touches_the_way_of_a_record(tmp_path: Path, reader: InMemoryMetricReader) -> None:
    """All but one are observable, and that one is about requests."""
    provider = make_provider(tmp_path / "j", retry=SOON, destinations={})
    calls: list[float] = []
    duration = metrics._meter.duration
    metrics._meter.duration = type("Counting", (), {"record": lambda _, value, __: calls.append(value)})()
    for _ in range(100):
        login(provider.get_audit_logger())
    metrics._meter.duration = duration
    assert calls == []
    provider.shutdown(0.0)


def test_the_api_is_not_loaded_by_us_and_found_later(tmp_path: Path) -> None:
    """Whoever does not collect pays nothing; an SDK that is set up after us gets everything."""
    program = """
        import json, sys, time
        import otel_audit
        provider = otel_audit.configure(journal=sys.argv[1], destinations={}, allow_volatile=True, service_name="x")
        audit = otel_audit.get_audit_logger()
        audit.emit("user.login", actor="u", outcome="success")
        loaded = "opentelemetry.metrics" in sys.modules
        from opentelemetry import metrics
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        reader = InMemoryMetricReader()
        metrics.set_meter_provider(MeterProvider([reader]))
        audit.emit("user.login", actor="u", outcome="success")
        found, deadline = None, time.monotonic() + 60
        while found is None and time.monotonic() < deadline:
            data = reader.get_metrics_data()
            for resource in data.resource_metrics if data else ():
                for scope in resource.scope_metrics:
                    for metric in scope.metrics:
                        if metric.name == "audit.records.emitted":
                            found = [scope.scope.name, metric.data.data_points[0].value]
            time.sleep(0.1)
        print(json.dumps([loaded, found]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "j")],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    assert json.loads(done.stdout) == [False, ["otel_audit", 3]]


def test_the_page_has_every_metric() -> None:
    """docs/metrics.md has each with its kind, its unit and what it says, and no other."""
    rows = [f"| `{each.name}` | {each.kind} | `{each.unit}` | {each.doc} |" for each in metrics.INSTRUMENTS]
    rows.append(f"| `{sc.METRIC_EXPORT_DURATION}` | histogram | `s` | {metrics.EXPORT_DURATION_DOC} |")
    page = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(("| `audit.", "| `otel"))]
    shown = {line.rpartition(" | ")[0] + " |" for line in page}
    assert shown == set(rows), "\n".join(rows)


def test_a_record_that_found_room_in_the_end_is_not_dropped(tmp_path: Path, reader: InMemoryMetricReader) -> None:
    """A coroutine tries once without waiting; only what fails in the end counts."""

    async def main() -> None:
        provider = make_provider(tmp_path / "j", max_bytes="1MiB", full_timeout=30)
        logger = provider.get_audit_logger()
        await logger.aemit("user.login", actor="u", outcome="success")
        filler = tmp_path / "j" / "filler"
        filler.write_bytes(b"x" * (1 << 20))
        provider.journal._allowance = 0
        task = asyncio.create_task(logger.aemit("user.login", actor="u", outcome="success"))
        await asyncio.sleep(0.1)
        filler.unlink()
        await task
        read = Read(reader)
        assert read.of(sc.METRIC_EMITTED) == 3
        assert read.of(sc.METRIC_DROPPED, **{sc.ERROR_TYPE: "journal"}) == 0
        provider.shutdown(0.0)

    asyncio.run(main())
