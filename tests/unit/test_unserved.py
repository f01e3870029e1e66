"""A destination that records are kept for and that nobody serves is said, with the age, before the journal is full."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_audit import unserved
from otel_audit.delivery.destination import DestinationState
from otel_audit.journal.cursor import Cursor
from otel_audit.journal.layout import Layout
from otel_audit.journal.streams import list_streams
from otel_audit.sidecars import Sidecar
from otel_audit.unserved import LOOK_EVERY_S, SAY_EVERY_S, Watch, find_unserved
from support.cli import run_json
from support.delivery import until
from support.provider import login, make_provider

DOWN = {"type": "http", "url": "http://127.0.0.1:9/", "timeout": 0.2}


class LongAgo:
    """A clock that is two hours slow."""

    def time_ns(self) -> int:
        """Nanoseconds since 1970."""
        return time.time_ns() - 7200 * 10**9


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A journal in which a dead stream waits for ``gone`` since two hours ago."""
    with make_provider(tmp_path / "journal", destinations={"gone": DOWN}, clock=LongAgo()) as provider:
        login(provider.get_audit_logger())
        provider.shutdown(0)
    [stream] = list_streams(Layout(tmp_path / "journal"))
    until(lambda: not stream.ship_lock("gone").held_by_anybody())  # its last export is over
    stream.cursor_file("gone").store(Cursor(acknowledged=1, delivered=1))  # what the journal itself records is of today
    return tmp_path / "journal"


@pytest.fixture
def other(root: Path) -> Iterator[Any]:
    """Makes living processes that use the journal."""
    made: list[Any] = []

    def make(**destinations: Any) -> Any:
        made.append(make_provider(root, destinations=destinations, adopt=False))
        login(made[-1].get_audit_logger())
        made[-1].journal.housekeep()
        return made[-1]

    yield make
    for each in made:
        each.shutdown(0)


def test_what_nobody_serves_is_found_with_its_age(root: Path, other: Any) -> None:
    """How many records, since when, and what to do; not before it is that old."""
    other(another="file:/dev/null")
    [found] = find_unserved(Layout(root))
    assert (found.destination, found.streams, found.records) == ("gone", 1, 2)
    assert 7100 < found.oldest_age_s < 7500
    assert "the oldest for 2.0 h, and nobody serves it" in str(found)
    assert "otel-audit destination retire gone" in str(found)
    assert find_unserved(Layout(root), after_s=7500) == []


def test_what_somebody_serves_is_not(root: Path, other: Any) -> None:
    """That is this process, another one that names it, or a sidecar that holds the lock of a stream."""
    assert find_unserved(Layout(root), ["gone"]) == []
    [stream] = list_streams(Layout(root))
    lock = stream.ship_lock("gone")
    assert lock.acquire()
    assert find_unserved(Layout(root)) == []
    lock.release()
    assert len(find_unserved(Layout(root))) == 1
    other(gone=DOWN)
    assert find_unserved(Layout(root)) == []


def test_a_living_process_that_waits_for_a_sidecar_does_not_serve(root: Path, other: Any) -> None:
    """Its own records are kept for nobody, too."""
    other(gone="sidecar")
    [found] = find_unserved(Layout(root))
    assert found.streams == 2


@pytest.mark.parametrize("for_living", [True, False])
def test_a_sidecar_serves_living_processes_only_where_it_was_told_so(
    root: Path, other: Any, for_living: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without ``--for-living`` it serves dead processes, and what the living leave to it waits for nobody."""
    other(gone="sidecar")
    sidecar = Sidecar(Layout(root), for_living=for_living)
    sidecar.write({"gone": DestinationState()})
    found = find_unserved(Layout(root), after_s=0)
    assert [(each.destination, each.streams) for each in found] == ([] if for_living else [("gone", 1)])
    status = run_json(capsys, "status", "--journal", root, code=0 if for_living else 1)
    assert ["start it with --for-living" in line for line in status["attention"]] == ([] if for_living else [True])
    assert all("start it with --for-living" in str(each) for each in found)
    sidecar.end()


def test_many_streams_are_not_all_read(root: Path, other: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where very many wait, each counts as one record: housekeeping must not read the whole journal."""
    monkeypatch.setattr(unserved, "COUNTED_MAX", 0)
    other(another="file:/dev/null")
    [found] = find_unserved(Layout(root))
    assert (found.streams, found.records) == (1, 1)


def test_a_process_says_it_once_an_hour(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the log of whoever uses the journal, for as long as it is so."""
    watch = Watch(Layout(root), ["another"])
    began = time.monotonic()
    for passed in (0.0, LOOK_EVERY_S + 1, 2 * LOOK_EVERY_S + 2, SAY_EVERY_S + LOOK_EVERY_S + 2):
        with caplog.at_level(logging.WARNING, "otel_audit"):
            watch.look(began + passed)
    assert [record.getMessage()[:30] for record in caplog.records] == ["destination gone: 2 records in"] * 2
    caplog.clear()
    Watch(Layout(root), ["gone"]).look(began + LOOK_EVERY_S + 1)
    assert not caplog.records


def test_it_needs_attention(root: Path, other: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """``otel-audit status`` has a line for it, and exit code 1."""
    other(another={"type": "file", "path": str(root.parent / "out")})
    attention = run_json(capsys, "status", "--journal", root, code=1)["attention"]
    assert [line[:17] for line in attention] == ["destination gone:"]
