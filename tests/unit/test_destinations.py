"""Destinations as people write them: strings, mappings, objects; every mistake is named with its place."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from otel_audit.delivery.selection import RecordFilter
from otel_audit.destinations import DESTINATION_OPTIONS
from otel_audit.errors import ConfigurationError
from otel_audit.provider import ProviderSettings
from otel_audit.settings import load_settings, make_destination
from support.delivery import Sink

NOWHERE: dict[str, Any] = {"journal": "/j", "destinations": {}}


def load(options: Mapping[str, Any] = NOWHERE, **environ: str) -> ProviderSettings:
    """Settings from keywords and an environment that has nothing else."""
    return load_settings(options, {"HOME": "/home/u", **environ})


def test_without_destinations_it_is_the_collector() -> None:
    """OTLP to where the environment says."""
    [collector] = load({"journal": "/j"}, OTEL_EXPORTER_OTLP_ENDPOINT="http://collector:4318").destinations
    assert (collector.name, collector.required) == ("collector", True)
    assert repr(collector.make_exporter()) == "<OtlpHttpExporter http://collector:4318/v1/logs>"


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ("otlp", "<OtlpHttpExporter http://localhost:4318/v1/logs>"),
        ("file:/var/log/audit.jsonl", "<FileExporter /var/log/audit.jsonl>"),
        ("https://audit.example.com/v1", "<HttpExporter POST https://audit.example.com/v1>"),
        ({"type": "otlp", "endpoint": "http://c:4318"}, "<OtlpHttpExporter http://c:4318/v1/logs>"),
    ],
)
def test_destinations_are_strings_or_mappings(spec: Any, shown: str) -> None:
    """A word, a path, an address, or a mapping with a type."""
    exporter = make_destination("d", spec, {}).make_exporter()
    assert repr(exporter) == shown
    exporter.close()


@pytest.mark.parametrize("spec", ["sidecar", {"type": "sidecar"}])
def test_a_destination_may_be_served_by_a_sidecar(spec: Any) -> None:
    """It is named, so that records are kept for it; where it goes is not this process's to know."""
    made = make_destination("d", spec, {})
    assert (made.elsewhere, made.required) == (True, True)
    with pytest.raises(ConfigurationError, match="is served by a sidecar, not here"):
        made.make_exporter()
    with pytest.raises(ConfigurationError, match="no option 'endpoint': where it goes is said to `otel-audit ship"):
        make_destination("d", {"type": "sidecar", "endpoint": "http://c:4318"}, {})
    assert not make_destination("d", {"type": "sidecar", "required": False}, {}).required


def test_a_destination_has_an_exporter_of_its_own_in_each_process() -> None:
    """It is made when it is used, not when it is configured."""
    made = make_destination("d", "otlp", {})
    assert made.make_exporter() is not made.make_exporter()


def test_relative_paths_are_of_the_directory_in_which_it_was_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that changes its directory later goes on with the same file, and with the same secret."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "token").write_text("right-token")
    (tmp_path / "elsewhere" / "token").write_text("wrong-token")
    monkeypatch.chdir(tmp_path)
    plain = make_destination("d", "file:audit.jsonl", {})
    auth = {"type": "bearer", "file": "token"}
    http = make_destination("h", {"type": "http", "url": "https://audit.example.com", "auth": auth}, {})
    monkeypatch.chdir("elsewhere")
    assert repr(plain.make_exporter()) == f"<FileExporter {tmp_path / 'audit.jsonl'}>"
    exporter: Any = http.make_exporter()
    assert exporter._credentials.headers(0.0) == {"Authorization": "Bearer right-token"}


def test_an_exporter_object_is_a_destination() -> None:
    """As it is, or in a mapping beside the options that every destination has."""
    sink = Sink()
    plain = make_destination("d", sink, {})
    assert plain.make_exporter() is sink
    assert plain.required
    optional = make_destination("d", {"type": sink, "required": False, "delay": "1s"}, {})
    assert optional.make_exporter() is sink
    assert (optional.required, optional.delay_s) == (False, 1.0)


def test_the_options_that_every_destination_has() -> None:
    """Each is taken over."""
    spec = {
        "type": "otlp", "required": "no", "start": "now", "delay": "50ms", "batch_records": "100",
        "batch_bytes": "1MiB", "timeout": 3, "records_per_s": "50", "requests_per_s": 0.5,
        "filter": {"events": ["a.*"]}, "allow_filtered": "yes",
    }  # fmt: skip
    assert set(spec) == {option.name for option in DESTINATION_OPTIONS}
    made = make_destination("d", spec, {})
    assert (made.required, made.from_now, made.delay_s) == (False, True, 0.05)
    assert (made.records_max, made.bytes_max, made.timeout_s) == (100, 1024 * 1024, 3.0)
    assert (made.records_per_s, made.requests_per_s) == (50.0, 0.5)
    assert made.filter == RecordFilter(events=("a.*",))


def test_destinations_in_the_environment() -> None:
    """``name=spec`` separated by commas; ``none`` journals only."""
    settings = load({"journal": "/j"}, OTEL_AUDIT_DESTINATIONS="collector=otlp, local=file:/tmp/a.jsonl")
    assert [each.name for each in settings.destinations] == ["collector", "local"]
    assert load({"journal": "/j"}, OTEL_AUDIT_DESTINATIONS="none").destinations == ()
    assert load({"journal": "/j", "destinations": {}}).destinations == ()


SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("destinations", "says"),
    [
        ("otlp", ["configure().destinations", "NAME=SPEC"]),
        ("a=otlp,a=otlp", ["'a' is there twice"]),
        (["otlp"], ["configure().destinations", "mapping"]),
        ({"a b": "otlp"}, ["'a b'"]),
        ({"d": "oltp"}, ["destinations.d", "'oltp'", "'otlp'"]),
        ({"d": "file:"}, ["destinations.d", "the path is missing", "file:PATH"]),
        ({"a": "file:/j/a", "b": {"type": "file", "path": "/j/../j/a"}}, ["destinations.b", "'a' writes to the same"]),
        ({"d": {"type": "otlp", "filter": {"event": ["a.*"]}}}, ["destinations.d.filter", "'events'"]),
        ({"d": {"type": "http", "url": "https://h", "auth": {"token": "t"}}}, ["'env', 'file' or 'call'"]),
        ({"d": "otlp:host"}, ["destinations.d", "'endpoint'"]),
        ({"d": {"endpoint": "http://x"}}, ["destinations.d", "type"]),
        ({"d": {"type": "oltp"}}, ["destinations.d.type", "'oltp'", "'otlp'"]),
        ({"d": {"type": "otlp", "requird": False}}, ["destinations.d", "'requird'", "'required'"]),
        ({"d": {"type": "otlp", "endpiont": "http://x"}}, ["destinations.d", "'endpiont'", "'endpoint'"]),
        ({"d": {"type": "otlp", "required": "perhaps"}}, ["destinations.d.required", "true or false"]),
        ({"d": {"type": "otlp", "start": "later"}}, ["destinations.d.start", "earliest, now"]),
        ({"d": {"type": "otlp", "batch_records": 0}}, ["destinations.d.batch_records", "at least 1"]),
        ({"d": {"type": "otlp", "timeout": 0}}, ["destinations.d.timeout"]),
        ({"d": {"type": "otlp", "endpoint": "collector:4318"}}, ["destinations.d.endpoint", "http://"]),
        ({"d": 7}, ["destinations.d", "int"]),
        ({"d": Sink}, ["destinations.d", "exporter object"]),
        ({"d": {"type": Sink(), "requird": False}}, ["destinations.d", "'requird'", "'required'"]),
    ],
)
def test_a_mistake_in_a_destination_is_named_with_its_name(destinations: Any, says: list[str]) -> None:
    """Which destination, which option, and the nearest right one; known at once, not at the first export."""
    with pytest.raises(ConfigurationError) as caught:
        load({"journal": "/j", "destinations": destinations})
    for text in says:
        assert text in str(caught.value)


def test_an_exporter_without_single_writer_is_a_mistake() -> None:
    """It is named now, rather than failing at the first export."""

    class Incomplete:
        def export(self, batch: object, timeout_s: float) -> None:
            """Do nothing."""

        def close(self) -> None:
            """Do nothing."""

    with pytest.raises(ConfigurationError, match="single_writer"):
        make_destination("d", Incomplete(), {})


@pytest.mark.parametrize(
    "spec",
    [
        f"htps://user:{SECRET}@host/",
        f"https://user:{SECRET}@host/",
        f"https://host:x/?token={SECRET}",
        {"type": "otlp", "endpoint": f"https://user:{SECRET}@host"},
        {"type": "otlp", "headers": {"authorization": SECRET, "x": 7}},
        {"type": "otlp", "headers": f"authorization={SECRET},broken"},
        {"type": "http", "url": "https://host", "auth": {"type": "bearer", "tokn": SECRET}},
    ],
)
def test_credentials_are_never_shown(spec: Any) -> None:
    """Neither in the error nor in what led to it, wherever they stand."""
    with pytest.raises(ConfigurationError) as caught:
        load({"journal": "/j", "destinations": {"d": spec}})
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in str(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize("text", [f"https://user:{SECRET}@host", f"a=htps://user:{SECRET}@host", f"a={SECRET}@@"])
def test_credentials_in_the_environment_are_never_shown(text: str) -> None:
    """A variable that was written wrongly is named, not shown."""
    with pytest.raises(ConfigurationError, match="OTEL_AUDIT_DESTINATIONS") as caught:
        load({"journal": "/j"}, OTEL_AUDIT_DESTINATIONS=text)
    assert SECRET not in str(caught.value)
