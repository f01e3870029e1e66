"""Removing what was delivered: not read again where nothing is wrong with it, and the ledger says the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from otel_audit.delivery.shipment import Shipment, open_shipment
from otel_audit.journal import ledger
from otel_audit.journal.cursor import Cursor
from otel_audit.journal.damage import RECOVERY_NAME
from otel_audit.journal.layout import Layout
from otel_audit.journal.ledger import LedgerLine, Policy, trim
from otel_audit.journal.line import make_line
from otel_audit.journal.removed import read_ledger
from otel_audit.journal.retirement import retire_destination
from otel_audit.journal.segment import list_segments, segment_path
from otel_audit.journal.streams import StreamDirectory
from support.delivery import Sink, destination
from support.journal import make_entry, make_layout, make_writer

Change = Callable[[StreamDirectory], None]


@pytest.fixture
def stream(tmp_path: Path) -> StreamDirectory:
    """A dead stream of four segments, of which nothing is delivered."""
    layout = make_layout(tmp_path)
    writer = make_writer(layout, segment_bytes=5000, required=("a", "b"), optional=("late",))
    while len(list_segments(writer.directory)) < 4:
        writer.append(make_entry())
    writer.append(make_entry())
    writer.close()
    return StreamDirectory(layout, writer.directory)


def deliver(stream: StreamDirectory, *names: str) -> None:
    for name in names:
        shipment = open_shipment(stream, destination(None, name))
        assert isinstance(shipment, Shipment)
        while not shipment.finished:
            shipment.ship(Sink(), final=True, end=None)
        shipment.close()


def remove(
    stream: StreamDirectory, monkeypatch: pytest.MonkeyPatch, *, whole: bool
) -> tuple[list[LedgerLine], list[int]]:
    """Trim a copy of the journal: what the ledger says, and which segments (the first is 0) were read for that."""
    root = stream.layout.root.with_name(f"copy-{whole}")
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(stream.layout.root, root)
    layout = Layout(root)
    copy = StreamDirectory(layout, layout.streams / stream.stream_id)
    numbers = {segment.first: number for number, segment in enumerate(list_segments(copy.path))}
    read: list[int] = []
    read_whole = ledger._read_whole
    with monkeypatch.context() as patched:
        patched.setattr(
            ledger, "_read_whole", lambda *given: (read.append(numbers[given[1].first]), read_whole(*given))[1]
        )
        if whole:
            patched.setattr(ledger, "_look_at", lambda *_: None)
        trim(copy, Policy(retention_s=0.0), own=False)
    assert not copy.path.exists()
    return [msgspec.structs.replace(line, removed_ns=0) for line in read_ledger(layout.ledger)], read


def lines_of(stream: StreamDirectory, number: int) -> tuple[Path, list[bytes]]:
    path = list_segments(stream.path)[number].path
    return path, path.read_bytes().splitlines(keepends=True)


def edit(number: int, change: Callable[[list[bytes]], object]) -> Change:
    """Change the lines of a segment in place."""

    def apply(stream: StreamDirectory) -> None:
        path, lines = lines_of(stream, number)
        change(lines)
        path.write_bytes(b"".join(lines))

    return apply


def set_line(at: int, change: Callable[[bytes], bytes]) -> Callable[[list[bytes]], object]:
    return lambda lines: lines.__setitem__(at, change(lines[at]))


def forge(line: bytes) -> bytes:
    """Another record in its place, with the right hash."""
    return make_line(line[86:-2].replace(b"user.login", b"user.logon"))[0]


def flip(line: bytes) -> bytes:
    return line[:200] + bytes([line[200] ^ 1]) + line[201:]


def rename_foreign(line: bytes) -> bytes:
    at = line.index(b"audit.sequence.stream_id")
    return make_line(line[86:at] + line[at:-2].replace(b"-", b"+", 3))[0]


def move(stream: StreamDirectory) -> None:
    """What the writer does after a failed sync: the last lines of a segment begin the next one."""
    lines = lines_of(stream, 1)[1]
    following = list_segments(stream.path)[2]
    moved = b"".join(lines[-2:]) + following.path.read_bytes()
    following.path.unlink()
    segment_path(stream.path, following.first - 2).write_bytes(moved)


DAMAGE: dict[str, tuple[Change, list[int]]] = {
    "nothing": (lambda _: None, []),
    "a bit": (edit(1, set_line(3, flip)), [1]),
    "a bit of the first line": (edit(1, set_line(0, flip)), [1]),
    "a bit of the last line": (edit(1, set_line(-1, flip)), [1]),
    "a bit of the last line of all": (edit(3, set_line(-1, flip)), [3]),
    "a newline": (edit(1, set_line(3, lambda line: line[:-1] + b"\x0b")), [1]),
    "a hole": (edit(1, lambda lines: lines.__delitem__(slice(2, 5))), [1]),
    "a hole at the end": (edit(1, lambda lines: lines.pop()), [1]),
    "a hole of a whole segment": (edit(1, lambda lines: lines.clear()), [1]),
    "noise": (edit(1, lambda lines: lines.insert(3, b"noise")), [1]),
    "noise at the end": (edit(1, lambda lines: lines.append(b"noise\n")), [1]),
    "a line twice": (edit(2, lambda lines: lines.insert(3, lines[3])), [2]),
    "a foreign line": (edit(2, lambda lines: lines.insert(3, rename_foreign(lines[3]))), [2]),
    "a foreign line in the place of one": (edit(2, set_line(3, rename_foreign)), [2]),
    "a foreign first line": (edit(2, set_line(0, rename_foreign)), [2]),
    "the second line for the first": (edit(2, lambda lines: lines.__setitem__(0, lines[1])), [2]),
    "no last newline": (edit(1, set_line(-1, lambda line: line[:-1])), [1]),
    "a foreign last line": (edit(3, set_line(-1, rename_foreign)), [3]),
    "the chain": (edit(1, set_line(3, forge)), [1]),
    "a torn tail": (edit(3, lambda lines: lines.append(lines[-1][:50])), [3]),
    "a lost tail": (edit(3, lambda lines: lines.append(flip(lines[-1]))), [3]),
    "moved lines": (move, [1]),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_the_ledger_says_what_reading_the_whole_segment_would_say(
    stream: StreamDirectory, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Only what the delivery found damaged, or what looks other than it should, is read once more."""
    damage, expected = DAMAGE[name]
    damage(stream)
    deliver(stream, "a", "b")
    lines, read = remove(stream, monkeypatch, whole=False)
    everything, read_all = remove(stream, monkeypatch, whole=True)
    assert lines == everything
    assert (read, read_all) == (expected, [0, 1, 2, 3])
    assert any(line.damage for line in lines) == (name not in ("nothing", "moved lines", "noise at the end"))


HIDDEN = {"a bit", "the chain", "noise", "a foreign line in the place of one", "moved lines"}
"""Since the delivery: seen by reading only, and every required destination has the records whole."""


@pytest.mark.parametrize("name", sorted(DAMAGE.keys() - HIDDEN))
def test_damage_since_the_delivery_is_seen_where_it_shows(
    stream: StreamDirectory, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """At a segment's ends, in its newlines, and where a power loss left zeros."""
    damage, expected = DAMAGE[name]
    deliver(stream, "a", "b")
    damage(stream)
    lines, read = remove(stream, monkeypatch, whole=False)
    assert (lines, read) == (remove(stream, monkeypatch, whole=True)[0], expected)


def test_zeros_in_a_long_line_are_seen(stream: StreamDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power loss leaves a page of them, and a long record has no newline there."""
    deliver(stream, "a", "b")
    edit(1, set_line(3, lambda line: line[:200] + bytes(50) + line[250:]))(stream)
    lines, read = remove(stream, monkeypatch, whole=False)
    assert (lines, read) == (remove(stream, monkeypatch, whole=True)[0], [1])


def test_lines_are_counted_across_chunks(stream: StreamDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is cut where; where an end does not fit into one, the segment is read."""
    deliver(stream, "a", "b")
    for size, expected in ((1500, []), (1499, []), (300, [0, 1, 2, 3])):
        monkeypatch.setattr(ledger, "CHUNK_BYTES", size)
        lines, read = remove(stream, monkeypatch, whole=False)
        assert (lines, read) == (remove(stream, monkeypatch, whole=True)[0], expected)


def test_who_is_not_waited_for_changes_only_what_is_unseen_and_why(
    stream: StreamDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two required destinations one is retired, then the other; what nobody has is read."""
    retire_destination(stream.layout, "b", [stream.stream_id])
    deliver(stream, "a")
    lines, read = remove(stream, monkeypatch, whole=False)
    assert (lines, read) == (remove(stream, monkeypatch, whole=True)[0], [])
    assert {line.why for line in lines} == {"delivered"}
    assert all(line.unseen == {"b": line.count, "late": line.count} for line in lines)
    retire_destination(stream.layout, "a", [stream.stream_id])
    lines, read = remove(stream, monkeypatch, whole=False)
    assert (lines, read) == (remove(stream, monkeypatch, whole=True)[0], [0, 1, 2, 3])
    assert {line.why for line in lines} == {"retired"}


def no_report(stream: StreamDirectory) -> None:
    (stream.path / RECOVERY_NAME).unlink()


def half_a_report(stream: StreamDirectory) -> None:
    (stream.path / RECOVERY_NAME).write_bytes(b'[{"kind":')


def a_directory(stream: StreamDirectory) -> None:
    no_report(stream)
    (stream.path / RECOVERY_NAME).mkdir()


def cursors_of_nobody(stream: StreamDirectory) -> None:
    """They say how far, and not that anything was read."""
    no_report(stream)
    for name in ("a", "b"):
        cursor = stream.cursor_file(name).load() or Cursor()
        stream.cursor_file(name).store(Cursor(acknowledged=cursor.acknowledged))


@pytest.mark.parametrize("spoil", [no_report, half_a_report, a_directory, cursors_of_nobody])
def test_what_is_not_known_to_be_whole_is_read(
    stream: StreamDirectory, monkeypatch: pytest.MonkeyPatch, spoil: Change
) -> None:
    """Reports that a full disk did not take or that cannot be read, and cursors that do not account for records."""
    edit(1, set_line(3, flip))(stream)
    deliver(stream, "a", "b")
    spoil(stream)
    root = stream.layout.root
    if spoil is a_directory:
        monkeypatch.setattr(ledger, "remove_stream_directory", lambda _, path: shutil.rmtree(path))
    lines, read = remove(stream, monkeypatch, whole=False)
    assert read == [0, 1, 2, 3]
    assert [report.kind for report in lines[1].damage] == ["hole"]
    assert os.path.isdir(root)


def test_a_dead_streams_last_segment_is_not_read_while_it_is_delivered(
    stream: StreamDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last line says how far it goes."""
    deliver(stream, "a", "b")
    cursor = stream.cursor_file("b").load() or Cursor()
    stream.cursor_file("b").store(Cursor(acknowledged=cursor.acknowledged - 1, delivered=cursor.acknowledged - 1))
    monkeypatch.setattr(ledger, "StreamReader", None)
    trim(stream, Policy(), own=False)
    assert len(list_segments(stream.path)) == 1
    stream.cursor_file("b").store(cursor)
    trim(stream, Policy(), own=False)
    assert not stream.path.exists()
