"""Which streams go to a destination, and in what turn."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from otel_audit.delivery import shipper as shipper_module
from otel_audit.delivery.shipper import Shipper, drain
from otel_audit.errors import RetryableExportError
from otel_audit.journal.cursor import Cursor
from otel_audit.journal.files import Files
from otel_audit.journal.journal import Journal
from otel_audit.journal.streams import list_streams
from support.delivery import LONG, Ships, Sink, append, dead_stream, destination, make_journal, own_stream, until


def test_what_this_process_writes_is_shipped(journal: Journal, ships: Ships) -> None:
    """In order, and the cursor follows; what comes later is shipped later."""
    sink = Sink()
    shipper = ships(sink)
    shipper.step()
    first = append(journal, 3)
    shipper.step()
    second = append(journal, 2)
    shipper.step()
    assert sink.ids == first + second
    assert shipper.cursor(own_stream(journal)) == Cursor(acknowledged=6, delivered=6)
    assert shipper.delivered == 6


def test_dead_streams_are_adopted(journal: Journal, ships: Ships) -> None:
    """What killed processes left is delivered, each stream whole and in order."""
    ids = [dead_stream(journal.layout.root, 3) for _ in range(3)]
    sink = Sink()
    assert drain(ships(sink), timeout_s=10)
    assert sorted(sink.ids) == sorted(record_id for own in ids for record_id in own)
    for own in ids:
        assert [record_id for record_id in sink.ids if record_id in own] == own


def test_streams_that_die_later_are_adopted_too(
    journal: Journal, ships: Ships, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a long-lived master, what its recycled workers leave must not wait for its end."""
    monkeypatch.setattr("otel_audit.delivery.fleet.SCAN_INTERVAL_S", 0.05)
    monkeypatch.setattr(shipper_module, "SCAN_INTERVAL_S", 0.05)
    sink = Sink()
    shipper = ships(sink)
    shipper.start()
    until(lambda: shipper.state.state == "idle" and shipper.running)
    ids = dead_stream(journal.layout.root, 2)
    until(lambda: sink.ids == ids)


def test_more_streams_than_may_be_open_are_adopted_one_after_the_other(
    journal: Journal, ships: Ships, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of short processes must not use up the descriptors of the application."""
    monkeypatch.setattr("otel_audit.delivery.fleet.SHIPMENTS_MAX", 3)
    ids = [record_id for _ in range(8) for record_id in dead_stream(journal.layout.root, 1)]
    sink = Sink(RetryableExportError("down"))
    shipper = ships(sink)
    before = len(os.listdir("/proc/self/fd"))
    shipper.step()
    assert len(os.listdir("/proc/self/fd")) <= before + 3
    assert drain(shipper, timeout_s=10)
    assert sorted(sink.ids) == sorted(ids)


def test_without_adoption_others_streams_are_left_alone(journal: Journal, ships: Ships) -> None:
    """``adopt=False``: somebody else delivers them."""
    dead_stream(journal.layout.root, 2)
    append(journal, 1)
    sink = Sink()
    assert drain(ships(sink, adopt=False), timeout_s=10)
    assert len(sink.ids) == 1


def test_a_living_foreign_stream_is_left_alone(journal: Journal, ships: Ships) -> None:
    """Its owner ships it; a sidecar is asked to ship for the living."""
    other = make_journal(journal.layout.root)
    ids = append(other, 3)
    sink = Sink()
    drain(ships(sink), timeout_s=10)
    assert sink.ids == []
    sidecar = ships(sink, "sidecar", for_living=True)
    drain(sidecar, timeout_s=10)
    assert sink.ids == ids
    ids += append(other, 1)
    drain(sidecar, timeout_s=10)
    assert sink.ids == ids
    other.abandon()


def test_two_shippers_never_ship_the_same_stream(journal: Journal, ships: Ships) -> None:
    """Two of one destination share the streams: each record arrives once."""
    ids = [record_id for _ in range(20) for record_id in dead_stream(journal.layout.root, 5)]
    sinks = Sink(), Sink()
    shippers = [ships(sink) for sink in sinks]
    threads = [threading.Thread(target=drain, args=(shipper,), kwargs={"timeout_s": 20}) for shipper in shippers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    arrived = sinks[0].ids + sinks[1].ids
    assert sorted(arrived) == sorted(ids)


def test_a_destination_with_a_single_writer_is_written_by_one(journal: Journal, ships: Ships) -> None:
    """The one that has it ships for every process, living or dead; the other waits for its turn."""
    other = make_journal(journal.layout.root)
    living = append(other, 2)
    dead = dead_stream(journal.layout.root, 2)
    own = append(journal, 2)
    first, second = Sink(single_writer=True), Sink(single_writer=True)
    one, two = ships(first), ships(second)
    drain(one, timeout_s=10)
    drain(two, timeout_s=10)
    assert sorted(first.ids) == sorted(living + dead + own)
    assert second.ids == []
    one.stop(1)
    one.close()
    more = append(journal, 1)
    drain(two, timeout_s=10)
    assert second.ids == more
    other.abandon()


@pytest.mark.parametrize("required", [(), ("other",)])
def test_a_new_destination_can_begin_now(journal: Journal, ships: Ships, required: tuple[str, ...]) -> None:
    """``start: now``: what dead processes left, who did not know the destination, is not for it."""
    dead_stream(journal.layout.root, 3, required=required)
    own = append(journal, 2)
    sink = Sink()
    drain(ships(sink, from_now=True), timeout_s=10)
    assert sink.ids == own


@pytest.mark.parametrize("known_as", ["required", "optional"])
def test_beginning_now_skips_nothing_that_was_meant_for_it(journal: Journal, ships: Ships, known_as: str) -> None:
    """A process that had the destination and died before it shipped anything: its records arrive."""
    options: dict[str, Any] = {"required": (), known_as: ("sink",)}
    ids = dead_stream(journal.layout.root, 3, **options)
    sink = Sink()
    drain(ships(sink, from_now=True), timeout_s=10)
    assert sink.ids == ids


def test_a_living_stream_does_not_wait_behind_a_backlog(journal: Journal, ships: Ships) -> None:
    """Many dead streams are waiting: what this process writes is delivered before the second of them."""
    for _ in range(6):
        dead_stream(journal.layout.root, 3)
    append(journal, 1)
    own = own_stream(journal)
    sink = Sink()
    streams: list[str] = []

    def emit_again() -> None:
        if streams.count("adopted") < 4:
            append(journal, 1)

    def export(batch: Any) -> None:
        streams.append("own" if batch.stream_id == own else "adopted")
        emit_again()

    sink.script = [export] * 100
    shipper = ships(sink)
    shipper.step()
    assert streams[:8] == ["own", "adopted"] * 4


def test_a_large_backlog_is_shipped_in_turns(journal: Journal, ships: Ships) -> None:
    """One batch of a dead stream, then the living one again."""
    dead_stream(journal.layout.root, 20)
    append(journal, 1)
    sink = Sink()
    shipper = ships(sink, records_max=4)
    while shipper.step():
        append(journal, 1)
    own = own_stream(journal)
    turns = ["own" if batch.stream_id == own else "adopted" for batch in sink.batches]
    assert turns.count("adopted") == 6
    assert "adopted adopted" not in " ".join(turns)


def test_a_stream_of_a_newer_version_is_left_alone(
    journal: Journal, ships: Ships, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and the others go on; nothing of it is touched."""
    dead_stream(journal.layout.root, 1)
    [stream] = list_streams(journal.layout)
    path = stream.path / "stream.json"
    path.write_bytes(path.read_bytes().replace(b'"format": 1', b'"format": 99'))
    ids = append(journal, 1)
    sink = Sink()
    shipper = ships(sink)
    for _ in range(3):
        shipper.hurry()
        shipper.step()
    assert sink.ids == ids
    assert caplog.text.count("cannot be shipped now") == 1
    assert shipper.streams()[1] == []


def test_a_stream_whose_description_is_damaged_is_not_forgotten(journal: Journal, ships: Ships) -> None:
    """It cannot be shipped, and it is among those that cannot be read."""
    dead_stream(journal.layout.root, 1)
    [stream] = list_streams(journal.layout)
    (stream.path / "stream.json").write_bytes(b"{")
    sink = Sink()
    shipper = ships(sink)
    shipper.step()
    assert sink.requests == []
    assert [unreadable.stream_id for unreadable in shipper.streams()[1]] == [stream.stream_id]


def test_a_stream_that_cannot_be_read_now_does_not_stop_the_others(
    journal: Journal, ships: Ships, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It rests, is said, and is tried again."""
    dead = dead_stream(journal.layout.root, 2)
    [stream] = list_streams(journal.layout)
    [segment] = stream.path.glob("*.jsonl")
    real = journal.layout.files.open
    broken = [True]

    def unreadable(path: Any, *arguments: Any) -> int:
        if broken[0] and Path(path) == segment:
            raise PermissionError(13, "no", str(path))
        return real(path, *arguments)

    monkeypatch.setattr(type(journal.layout.files), "open", staticmethod(unreadable))
    own = append(journal, 2)
    sink = Sink()
    shipper = ships(sink)
    shipper.step()
    assert sink.ids == own
    assert shipper.state.state == "blocked"
    assert "cannot be read" in shipper.state.error
    broken[0] = False
    shipper.step()
    assert sink.ids == own + dead
    assert shipper.state.failures == 0


def test_an_optional_destination_that_is_down_slows_no_other(tmp_path: Path) -> None:
    """Each has its own thread and cursor: one fails, the other has everything, and segments are removed."""
    journal = make_journal(tmp_path / "journal", required=["sink"], optional=["extra"], segment_bytes_max=4096)
    good, bad = Sink(), Sink(*[RetryableExportError("down")] * 99)
    one = Shipper(journal, destination(good))
    two = Shipper(journal, destination(bad, "extra", required=False, retry=LONG))
    ids = append(journal, 40)
    two.step()
    assert drain(one, timeout_s=10)
    assert good.ids == ids
    journal.housekeep()
    [stream] = list_streams(journal.layout)
    assert len(list(stream.path.glob("*.jsonl"))) == 1
    assert len(journal.layout.ledger.read_bytes().splitlines()) >= 3
    one.close()
    two.close()
    journal.close()


def test_what_is_delivered_is_removed(tmp_path: Path) -> None:
    """A stream that ended and of which the required destination has everything is gone, and the ledger names it."""
    journal = make_journal(tmp_path / "journal")
    dead_stream(journal.layout.root, 3)
    shipper = Shipper(journal, destination(Sink()))
    drain(shipper, timeout_s=10)
    journal.housekeep()
    assert list_streams(journal.layout) == []
    assert journal.layout.ledger.exists()
    shipper.hurry()
    shipper.step()
    assert shipper.totals() == {"": Cursor(delivered=4)}
    shipper.close()
    journal.close()


def test_a_cursor_counts_when_it_is_on_the_disk(tmp_path: Path) -> None:
    """Whoever looks while it is being written does not see a record arrive and vanish again."""
    syncing, go_on = threading.Event(), threading.Event()

    class SlowDisk(Files):
        def fdatasync(self, fd: int) -> None:
            if "cursors" in os.readlink(f"/proc/self/fd/{fd}"):
                syncing.set()
                go_on.wait(30)
            super().fdatasync(fd)

    journal = make_journal(tmp_path / "journal", files=SlowDisk())
    append(journal, 1)
    shipper = Shipper(journal, destination(Sink()))
    stream_id = own_stream(journal)

    class Late(dict[str, Any]):
        """Somebody looks just before the stream is opened."""

        misses = 0

        def get(self, key: str, default: Any = None) -> Any:
            if threading.current_thread() is threading.main_thread() and self.misses:
                self.misses -= 1
                return None
            return super().get(key, default)

    opened = shipper._fleet._open = Late()
    shipper.start()
    assert syncing.wait(30)
    stored = next(iter(list_streams(journal.layout))).cursor_file("sink").load()
    assert stored is not None
    assert stored.acknowledged == 2, "it is visible already"
    opened.misses = 1
    assert not shipper.has(stream_id, 2)
    assert not shipper.has(stream_id, 2)
    go_on.set()
    assert shipper.wait_for(stream_id, 2, timeout_s=30)
    shipper.stop(10)
    journal.close()
