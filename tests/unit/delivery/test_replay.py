"""Dead letters that are sent again: each once, and none is lost, whatever comes in between."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from otel_audit.batch import RecordBatch
from otel_audit.delivery.backoff import Backoff
from otel_audit.delivery.destination import Destination
from otel_audit.delivery.replay import (
    DELIVERED,
    IN_DOUBT,
    OPEN,
    Letter,
    Replay,
    Replayed,
    ReplayRunsError,
    count_open,
    read_letters,
)
from otel_audit.delivery.selection import RecordFilter
from otel_audit.delivery.shipper import Shipper, drain
from otel_audit.errors import BlockedExportError, RejectedExportError, RetryableExportError
from otel_audit.journal.files import Files
from otel_audit.journal.layout import Layout
from otel_audit.journal.ledger import Policy, trim
from otel_audit.journal.locks import FileLock
from otel_audit.journal.streams import list_streams
from support.delivery import Sink, append, destination, make_journal


def refused_by(root: Path, count: int = 3, name: str = "sink") -> tuple[Layout, list[str]]:
    """A journal in which a destination refused so many records, and took all others; ids of the refused."""
    journal = make_journal(root, required=[name])
    good = append(journal, 2)
    bad = append(journal, count)
    journal.close()
    journal = make_journal(root)
    shipper = Shipper(journal, destination(Sink(refuses=lambda record: record.record_id in bad), name))
    assert drain(shipper, timeout_s=20)
    shipper.close()
    assert len(good) == 2
    return journal.layout, bad


def replay(layout: Layout, sink: Any, *, timeout_s: float = 20.0, name: str = "sink", **options: Any) -> Replayed:
    """Send the letters of ``sink`` to a sink."""
    again = options.pop("again", False)
    target = destination(sink, name, **options)
    return Replay(layout, "sink", target, again=again, sleep=lambda _: None).run(timeout_s=timeout_s)


def states(layout: Layout) -> list[str]:
    """States of the letters, in order."""
    return [letter.state for letter in read_letters(layout, "sink")]


def test_a_letter_is_delivered_with_its_resource_and_its_bytes(tmp_path: Path) -> None:
    """Exactly as it was journaled, also when its stream is long gone."""
    layout, bad = refused_by(tmp_path / "j")
    for stream in list_streams(layout):
        trim(stream, Policy(), own=False)
    assert list(list_streams(layout)) == []
    before = layout.dead_letters("sink").read_bytes()
    sink = Sink()
    assert replay(layout, sink) == Replayed(delivered=3)
    assert sink.ids == bad
    assert [batch.resource["service.name"] for batch in sink.batches] == ["test"]
    assert all(record.canonical in before for record in sink.accepted)
    assert layout.dead_letters("sink").read_bytes() == before, "a letter is never changed or removed"
    assert states(layout) == [DELIVERED] * 3
    assert count_open(layout, "sink") == 0


def test_a_second_replay_sends_nothing(tmp_path: Path) -> None:
    """What was delivered is not sent twice by accident, only on purpose."""
    layout, bad = refused_by(tmp_path / "j")
    replay(layout, Sink())
    sink = Sink()
    assert replay(layout, sink) == Replayed(skipped=3)
    assert sink.requests == []
    assert replay(layout, sink, again=True) == Replayed(delivered=3)
    assert sink.ids == bad


def test_delivered_to_another_destination_is_delivered(tmp_path: Path) -> None:
    """The letter has a home; its own destination does not get it afterwards unless somebody insists."""
    layout, bad = refused_by(tmp_path / "j")
    other = Sink()
    assert replay(layout, other, name="other") == Replayed(delivered=3)
    assert other.ids == bad
    assert {step.to for letter in read_letters(layout, "sink") for step in letter.steps} == {"other"}
    assert replay(layout, Sink()) == Replayed(skipped=3)


def test_what_is_refused_again_stays_open_with_the_new_reason(tmp_path: Path) -> None:
    """The others are delivered; a later replay tries only what is left."""
    layout, bad = refused_by(tmp_path / "j")
    sink = Sink(refuses=lambda record: record.record_id == bad[1])
    assert replay(layout, sink) == Replayed(delivered=2, refused=1)
    assert states(layout) == [DELIVERED, OPEN, DELIVERED]
    assert read_letters(layout, "sink")[1].steps[-1].reason == "one of them is bad"
    assert read_letters(layout, "sink")[1].steps[-1].status == 400
    assert count_open(layout, "sink") == 1
    again = Sink()
    assert replay(layout, again) == Replayed(delivered=1, skipped=2)
    assert again.ids == [bad[1]]


def test_everything_refused_again_stays_open(tmp_path: Path) -> None:
    """No evidence is asked for: nothing is thrown away by believing a refusal."""
    layout, _ = refused_by(tmp_path / "j")
    assert replay(layout, Sink(refuses=lambda _: True)) == Replayed(refused=3)
    assert states(layout) == [OPEN] * 3


def test_it_tries_again_while_there_is_time(tmp_path: Path) -> None:
    """A destination that asks for patience gets it."""
    layout, bad = refused_by(tmp_path / "j")
    sink = Sink(RetryableExportError("503"), RetryableExportError("503", accepted=1))
    assert replay(layout, sink) == Replayed(delivered=3)
    assert sink.ids == bad


def test_time_that_is_up_leaves_letters_open(tmp_path: Path) -> None:
    """Nobody acknowledged them, and that is known: the next replay sends them."""
    layout, bad = refused_by(tmp_path / "j")
    slow = Backoff(first_s=10.0, max_s=10.0, uniform=lambda _, high: high)
    down = Sink(*[RetryableExportError("connection refused")] * 3)
    result = replay(layout, down, timeout_s=5.0, retry=slow)
    assert result == Replayed(left=3, error="connection refused")
    assert len(down.requests) == 1
    assert states(layout) == [OPEN] * 3
    assert replay(layout, Sink()) == Replayed(delivered=3)
    assert bad


def test_a_blocked_destination_is_not_tried_again(tmp_path: Path) -> None:
    """Somebody has to repair something first; what that is, is told."""
    layout, _ = refused_by(tmp_path / "j")
    result = replay(layout, Sink(*[BlockedExportError("401", repair="a new token")] * 9))
    assert (result.left, result.error, result.repair) == (3, "401", "a new token")
    assert states(layout) == [OPEN] * 3


def test_an_exporter_that_fails_as_it_should_not_loses_nothing(tmp_path: Path) -> None:
    """Whatever it raises is a failure."""

    class Broken(Sink):
        def export(self, batch: RecordBatch, timeout_s: float) -> None:
            raise ZeroDivisionError

    layout, _ = refused_by(tmp_path / "j")
    result = replay(layout, Broken())
    assert result.left == 3
    assert "ZeroDivisionError" in result.error


def test_an_interrupted_replay_leaves_letters_in_doubt(tmp_path: Path) -> None:
    """The destination may have them: they are sent again only on purpose, and never forgotten."""

    class Interrupted(Sink):
        def export(self, batch: RecordBatch, timeout_s: float) -> None:
            super().export(batch, timeout_s)
            raise KeyboardInterrupt

    layout, bad = refused_by(tmp_path / "j")
    with pytest.raises(KeyboardInterrupt):
        replay(layout, Interrupted())
    assert states(layout) == [IN_DOUBT] * 3
    assert count_open(layout, "sink") == 3
    sink = Sink()
    assert replay(layout, sink) == Replayed(in_doubt=3)
    assert sink.requests == []
    assert replay(layout, sink, again=True) == Replayed(delivered=3)
    assert sink.ids == bad


_KILLED = """
import os, signal, sys
from pathlib import Path
from otel_audit.delivery.destination import Destination
from otel_audit.delivery.replay import Replay
from otel_audit.journal.layout import Layout

class Kills:
    single_writer = False
    def export(self, batch, timeout_s):
        with open(sys.argv[2], "ab") as file:
            file.writelines(record.record_id.encode() + b"\\n" for record in batch.records)
        if sys.argv[3] == "after" or len(batch.records) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
    def close(self): ...

layout = Layout(Path(sys.argv[1]))
Replay(layout, "sink", Destination("sink", Kills)).run(timeout_s=20)
"""


def test_a_replay_that_is_killed_loses_no_letter(tmp_path: Path) -> None:
    """A real process, killed when the destination had just taken them."""
    layout, bad = refused_by(tmp_path / "j")
    arrived = tmp_path / "arrived"
    command = [sys.executable, "-c", _KILLED, str(layout.root), str(arrived), "after"]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    assert arrived.read_text().split() == bad
    assert states(layout) == [IN_DOUBT] * 3
    assert replay(layout, Sink()) == Replayed(in_doubt=3), "its lock died with it"


def test_nothing_is_sent_that_could_not_be_written_down(tmp_path: Path) -> None:
    """On a full disk the request does not leave: else nobody would know of it."""

    class Full(Files):
        def write(self, fd: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "no space left")

    layout, _ = refused_by(tmp_path / "j")
    sink = Sink()
    with pytest.raises(OSError, match="no space left"):
        replay(Layout(layout.root, files=Full()), sink)
    assert sink.requests == []
    assert states(layout) == [OPEN] * 3


def test_two_replays_of_one_destination_do_not_run_at_once(tmp_path: Path) -> None:
    """The second says so and sends nothing."""
    layout, _ = refused_by(tmp_path / "j")
    lock = FileLock(layout.files, layout.replay_lock("sink"), layout.mode)
    assert lock.acquire()
    sink = Sink()
    with pytest.raises(ReplayRunsError, match="another process replays the dead letters of sink"):
        replay(layout, sink)
    assert sink.requests == []
    lock.release()
    assert replay(layout, sink) == Replayed(delivered=3)


def test_the_filter_of_the_destination_holds(tmp_path: Path) -> None:
    """A letter does not reach a destination that is not to have such records."""
    layout, _ = refused_by(tmp_path / "j")
    sink = Sink()
    assert replay(layout, sink, filter=RecordFilter(tenants=frozenset({"acme"}))) == Replayed(filtered=3)
    assert sink.requests == []
    assert states(layout) == [OPEN] * 3


def test_only_chosen_letters_are_sent(tmp_path: Path) -> None:
    """The others are not counted at all."""
    layout, bad = refused_by(tmp_path / "j")
    sink = Sink()

    def wanted(letter: Letter) -> bool:
        return letter.record.record_id == bad[2]

    assert Replay(layout, "sink", destination(sink)).run(wanted, timeout_s=20) == Replayed(delivered=1)
    assert sink.ids == [bad[2]]


def test_many_letters_of_many_streams(tmp_path: Path) -> None:
    """Each stream in its order, in requests of a bounded size; half of them refused again."""
    root = tmp_path / "j"
    ids = []
    for _ in range(3):
        layout, bad = refused_by(root, 250)
        ids += bad
    again = set(ids[::2])
    sink = Sink(refuses=lambda record: record.record_id in again)
    assert replay(layout, sink) == Replayed(delivered=375, refused=375)
    assert sorted(sink.ids) == sorted(set(ids) - again)
    assert max(len(request) for request in sink.requests) <= 200
    by_stream: dict[str, list[int]] = {}
    for batch in sink.batches:
        by_stream.setdefault(batch.stream_id, []).extend(record.sequence for record in batch.records[:1])
    assert len(by_stream) == 3


def test_a_letter_that_was_buried_twice_is_one(tmp_path: Path) -> None:
    """A crash between the letter and the cursor writes it again; it is sent once, and then none is open."""
    layout, bad = refused_by(tmp_path / "j")
    path = layout.dead_letters("sink")
    path.write_bytes(path.read_bytes() * 2)
    sink = Sink()
    assert replay(layout, sink) == Replayed(delivered=3)
    assert sink.ids == bad
    assert count_open(layout, "sink") == 0


def test_a_letter_of_an_earlier_version_takes_the_resource_of_its_stream(tmp_path: Path) -> None:
    """It had no resource of its own; where the stream is gone too, there is none."""
    layout, _ = refused_by(tmp_path / "j")
    path = layout.dead_letters("sink")
    path.write_bytes(path.read_bytes().replace(b'"resource":{"service.name":"test"}', b'"resource":null'))
    sink = Sink()
    replay(layout, sink)
    assert dict(sink.batches[0].resource) == {"service.name": "test"}
    for stream in list_streams(layout):
        trim(stream, Policy(), own=False)
    replay(layout, sink, again=True)
    assert dict(sink.batches[-1].resource) == {}


def test_no_letters_need_no_exporter(tmp_path: Path) -> None:
    """Nothing is connected to where there is nothing to send."""
    layout = make_journal(tmp_path / "j").layout

    def make() -> Sink:
        raise RejectedExportError("must not be made")

    assert Replay(layout, "sink", Destination("sink", make)).run(timeout_s=1) == Replayed()


def test_a_limited_destination_is_served_no_faster(tmp_path: Path) -> None:
    """Its own limit holds for a replay too; waiting for it is no failure."""
    layout, bad = refused_by(tmp_path / "j")
    sink = Sink()
    waits: list[float] = []
    target = destination(sink, records_per_s=2.0)
    assert Replay(layout, "sink", target, sleep=lambda s: (waits.append(s), time.sleep(0.3))[0]).run(
        timeout_s=30
    ) == Replayed(delivered=3)
    assert sink.ids == bad
    assert waits
    assert max(len(request) for request in sink.requests) <= 2
