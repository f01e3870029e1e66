"""The writer: appending, errors of the operating system, descriptors that are not ours any more, segments, the end."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import threading
from pathlib import Path

import pytest

from otel_audit import semconv as sc
from otel_audit.errors import JournalClosedError, JournalError, JournalFullError, JournalSyncError
from otel_audit.journal import state as state_module
from otel_audit.journal.control import stopped
from otel_audit.journal.files import HIGH_NUMBERS
from otel_audit.journal.layout import Layout
from otel_audit.journal.locks import FileLock
from otel_audit.journal.segment import list_segments, segment_path
from otel_audit.journal.stream import DEFERRED_MAX, StreamWriter
from otel_audit.journal.streams import DEAD, LIVING, StreamDirectory
from otel_audit.testing.files import FaultyFiles
from support.journal import audit, ids_of, make_entry, make_layout, make_writer, needs, read_all, shell

LINES = "*.jsonl"


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
def layout(tmp_path: Path, files: FaultyFiles) -> Layout:
    return make_layout(tmp_path, files)


def written(writer: StreamWriter) -> list[str]:
    """What an auditor finds."""
    return audit(writer.directory).record_ids


def notes(writer: StreamWriter) -> str:
    return "\n".join(writer.notes)


# -- appending --------------------------------------------------------------------------------------------------


def test_a_line_is_one_write(layout: Layout, files: FaultyFiles):
    """However long the record, the kernel gets its line in one piece, so that nobody's line stands within another's."""
    writer = make_writer(layout)
    del files.calls[:]
    writer.append(make_entry("r-1", body="x" * 200_000))
    (call,) = files.calls_of("write")
    assert call.size == os.path.getsize(segment_path(writer.directory, 1)) - call_start(writer)
    writer.close()


def call_start(writer: StreamWriter) -> int:
    return segment_path(writer.directory, 1).read_bytes().index(b"\n") + 1


def test_records_are_numbered_and_chained_from_many_threads(layout: Layout):
    """Sixteen threads make one chain without gaps; each entry knows its number and hash."""
    writer = make_writer(layout, segment_bytes=50_000)
    entries = [[make_entry(f"r-{thread}-{n}") for n in range(100)] for thread in range(16)]

    def run(mine: list) -> None:
        for entry in mine:
            writer.append(entry)

    threads = [threading.Thread(target=run, args=(mine,)) for mine in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    found = {record.record_id: record for record in read_all(writer.directory)[0]}
    assert sorted(written(writer)) == sorted(f"r-{thread}-{n}" for thread in range(16) for n in range(100))
    for thread, mine in enumerate(entries):
        assert [entry.sequence for entry in mine] == sorted(entry.sequence for entry in mine)
        for n, entry in enumerate(mine):
            assert found[f"r-{thread}-{n}"].sequence == entry.sequence
            assert found[f"r-{thread}-{n}"].sha256 == entry.sha256


def test_the_first_record_holds_the_hash_of_the_metadata_and_the_last_says_end(layout: Layout):
    """The chain begins with who writes, and an orderly end can be told from a sudden one."""
    writer = make_writer(layout)
    writer.append(make_entry("r-2"))
    writer.close(stopped(writer.metadata))
    records, _ = read_all(writer.directory)
    first, middle, last = (record.attributes for record in records)
    assert first[sc.STREAM_METADATA_HASH] == shell("sha256sum", writer.directory / "stream.json").split()[0]
    assert [sc.SEQUENCE_END in attributes for attributes in (first, middle, last)] == [False, False, True]
    assert last[sc.SEQUENCE_END] is True
    assert [record.event_name for record in records] == [sc.EVENT_STARTED, "user.login", sc.EVENT_STOPPED]
    assert [record.is_control for record in records] == [True, False, True]
    assert sc.SEQUENCE_PREVIOUS_HASH not in first


def test_files_belong_to_their_owner_only_and_are_not_inherited(layout: Layout):
    """Nobody else can read a journal, and a program that this process starts gets none of its descriptors."""
    old = os.umask(0)
    try:
        writer = make_writer(layout, segment_bytes=1000)
        for n in range(5):
            writer.append(make_entry(f"r-{n}"))
        writer.sync()
    finally:
        os.umask(old)
    for path in [layout.root, *layout.root.rglob("*")]:
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600), path
    ours = {}
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            name = os.readlink(f"/proc/self/fd/{fd}")
            if name.startswith(str(layout.root)):
                ours[int(fd)] = Path(name).name
    assert sorted(ours.values()) == sorted([list_segments(writer.directory)[-1].path.name, "lock"])
    assert not any(os.get_inheritable(fd) for fd in ours)
    writer.close()


# -- errors of the operating system ----------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_a_refused_write_raises_and_leaves_nothing(layout: Layout, files: FaultyFiles, code: int):
    """The error says that nothing was written, and the next record takes the number."""
    writer = make_writer(layout)
    files.fail("write", code, path=LINES)
    entry = make_entry("refused")
    with pytest.raises(JournalError) as caught:
        writer.append(entry)
    assert isinstance(caught.value, JournalFullError) == (code != errno.EIO)
    assert caught.value.journaled is False
    assert entry.journaled is False
    assert caught.value.__cause__.errno == code
    writer.append(make_entry("next"))
    writer.close()
    assert written(writer) == ["next"]


@pytest.mark.parametrize("keep", [1, 60, 85, 86, 300, -2, -1])
def test_a_short_write_is_cut_back_by_its_writer(layout: Layout, files: FaultyFiles, keep: int):
    """A part of a line never stays before the next line."""
    writer = make_writer(layout)
    size = os.path.getsize(segment_path(writer.directory, 1))
    entry = make_entry("torn")
    line, _ = writer._state.line_of(entry, 2, writer._state.previous_hash)
    files.write_short(keep % len(line), path=LINES)
    with pytest.raises(JournalFullError) as caught:
        writer.append(entry)
    assert caught.value.journaled is False
    assert os.path.getsize(segment_path(writer.directory, 1)) == size
    writer.append(make_entry("next"))
    writer.close()
    assert written(writer) == ["next"]
    assert read_all(writer.directory)[1] == []


def test_a_short_write_that_can_go_on_goes_on(layout: Layout, files: FaultyFiles):
    """A kernel that takes a line in pieces gets it in pieces."""
    writer = make_writer(layout)
    files.write_short(100, error=None, path=LINES, times=3)
    writer.append(make_entry("r-1"))
    writer.close()
    assert written(writer) == ["r-1"]


def test_what_cannot_be_cut_back_now_is_cut_back_by_the_next_call(layout: Layout, files: FaultyFiles):
    """While it is not known what a write left, the error says so; then the stream is put right."""
    writer = make_writer(layout)
    files.write_short(50, path=LINES)
    refusal = files.fail("ftruncate", errno.EIO, times=2)
    entry = make_entry("unknown")
    with pytest.raises(JournalError) as caught:
        writer.append(entry)
    assert caught.value.journaled is None
    with pytest.raises(JournalError) as caught:
        writer.append(make_entry("too early"))
    assert caught.value.journaled is False
    assert refusal.hits == 2
    writer.append(make_entry("next"))
    assert entry.journaled is False
    writer.close()
    assert written(writer) == ["next"]


def test_a_line_that_was_written_although_the_kernel_said_no_is_taken_over(layout: Layout, files: FaultyFiles):
    """The file decides, not the error: the caller is told that the record is there."""
    writer = make_writer(layout)
    files.run("write", refuse, path=LINES)
    entry = make_entry("there")
    with pytest.raises(JournalError) as caught:
        writer.append(entry)
    assert caught.value.journaled is True
    assert entry.sequence == 2
    writer.append(make_entry("next"))
    writer.close()
    assert written(writer) == ["there", "next"]


def refuse(_: object) -> None:
    raise OSError(errno.EIO, "said no")


@pytest.mark.parametrize("journaled", [True, None])
def test_an_interrupted_write_is_settled_at_once_or_by_the_next_call(
    layout: Layout, files: FaultyFiles, journaled: bool | None
):
    """A Ctrl-C right behind ``write(2)`` leaves the record in the journal exactly once, and the entry knows."""
    writer = make_writer(layout)
    files.interrupt("write", path=LINES)
    if journaled is None:
        files.interrupt("fstat", before=True, path=LINES)
    entry = make_entry("interrupted")
    with pytest.raises(KeyboardInterrupt):
        writer.append(entry)
    assert entry.journaled is journaled
    writer.append(make_entry("next"))
    assert entry.journaled is True
    writer.close()
    assert written(writer) == ["interrupted", "next"]


def test_bytes_that_somebody_else_appended_do_not_confuse_the_writer(layout: Layout, files: FaultyFiles):
    """Noise in the segment is stepped over by writer and readers; nothing of ours is lost or cut."""
    writer = make_writer(layout)
    writer.append(make_entry("r-2"))

    def intrude(_: object = None) -> None:
        with segment_path(writer.directory, 1).open("ab") as file:
            file.write(b"noise\n")

    intrude()
    writer.append(make_entry("r-3"))
    writer.sync()
    files.run("write", intrude, before=True, path=LINES)
    files.interrupt("write", path=LINES)
    entry = make_entry("r-4")
    with pytest.raises(KeyboardInterrupt):
        writer.append(entry)
    assert entry.journaled is True
    writer.append(make_entry("r-5"))
    writer.close()
    records, damage = read_all(writer.directory)
    assert ids_of(records) == ["r-2", "r-3", "r-4", "r-5"]
    assert [report.kind for report in damage] == ["noise", "noise"]


def test_a_full_tmpfs_takes_whole_lines_or_none(tmp_path: Path):
    """On a real full file system the short write is cut back, and with room the journal goes on."""
    needs(os.geteuid() == 0, "tmpfs", "mounting a tmpfs needs root")
    point = tmp_path / "small"
    point.mkdir()
    shell("mount", "-t", "tmpfs", "-o", "size=192k", "tmpfs", point)
    try:
        layout = make_layout(point)
        writer = make_writer(layout)
        kept = []
        with pytest.raises(JournalFullError) as caught:
            for n in range(1000):
                writer.append(make_entry(f"r-{n}", body="x" * 1000))
                kept.append(f"r-{n}")
        assert caught.value.journaled is False
        assert kept
        assert written(writer) == kept
        size = os.path.getsize(segment_path(writer.directory, 1))
        assert size % os.sysconf("SC_PAGE_SIZE") != 0
        shell("mount", "-o", "remount,size=512k", point)
        writer.append(make_entry("with room"))
        writer.close()
        assert written(writer) == [*kept, "with room"]
    finally:
        shell("umount", point)


# -- descriptors that are not ours any more ---------------------------------------------------------------------


def close_all_of(writer: StreamWriter, other: Path, *, number: int = 2) -> list[int]:
    """Do as a daemoniser does: close every descriptor of the writer, and open other files under their numbers."""
    numbers = [writer._state.segment.fd, writer._state.owner_lock._fd][:number]
    theirs = os.open(other, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    for fd in numbers:
        os.dup2(theirs, fd)
    os.close(theirs)
    return numbers


def test_what_went_to_another_file_under_our_number_is_written_again(layout: Layout, tmp_path: Path):
    """A record that a reused descriptor sent into somebody's file is in the journal after the next sync."""
    writer = make_writer(layout)
    writer.append(make_entry("before"))
    other = tmp_path / "customer.txt"
    numbers = close_all_of(writer, other)
    writer.append(make_entry("elsewhere-1"))
    writer.append(make_entry("elsewhere-2"))
    assert b"elsewhere-2" in other.read_bytes()
    writer.sync()
    writer.append(make_entry("after"))
    assert "opened again" in notes(writer)
    assert written(writer) == ["before", "elsewhere-1", "elsewhere-2", "after"]
    assert StreamDirectory(layout, writer.directory).owner_state() == LIVING
    assert all(os.path.samestat(os.fstat(fd), other.stat()) for fd in numbers), "they are not ours to close"
    writer.close()
    assert all(os.path.samestat(os.fstat(fd), other.stat()) for fd in numbers)
    for fd in numbers:
        os.close(fd)


def test_a_closed_descriptor_is_opened_again_within_the_same_call(layout: Layout):
    """A daemoniser that only closes costs no record and raises nothing."""
    writer = make_writer(layout)
    os.close(writer._state.segment.fd)
    os.close(writer._state.owner_lock._fd)
    writer.append(make_entry("r-2"))
    writer.append(make_entry("r-3"))
    writer.close()
    assert written(writer) == ["r-2", "r-3"]


def test_the_number_of_a_closed_descriptor_is_given_to_nobody_by_chance(layout: Layout, tmp_path: Path):
    """Whoever opens files after a daemoniser has closed all gets low numbers: no record ever goes into one of them."""
    writer = make_writer(layout, segment_bytes=5000)
    others = [tmp_path / f"other-{number}" for number in range(60)]
    for number in range(30):
        segment = writer._state.segment
        assert segment.fd >= min(HIGH_NUMBERS)
        os.close(segment.fd)
        opened = [os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) for path in others]
        writer.append(make_entry(f"r-{number}"))
        for fd in opened:
            os.close(fd)
    writer.close()
    assert len(list_segments(writer.directory)) > 3, "a new segment, a reopened one and a new stream are alike"
    assert [path.stat().st_size for path in others] == [0] * len(others)
    assert written(writer) == [f"r-{number}" for number in range(30)]


@pytest.mark.parametrize("refused", [1, 2])
def test_a_process_that_may_not_have_a_high_number_writes_all_the_same(
    tmp_path: Path, files: FaultyFiles, refused: int
):
    """A lower limit of descriptors, or all numbers in use, costs the protection, not the record."""
    files.fail("dup", errno.EINVAL, times=refused)
    writer = make_writer(make_layout(tmp_path, files))
    assert (writer._state.segment.fd >= min(HIGH_NUMBERS)) == (refused == 1)
    writer.append(make_entry("r-2"))
    writer.close()
    assert written(writer) == ["r-2"]


def test_the_descriptor_is_looked_at_after_so_many_bytes(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """However much is written between two syncs, what can be written again stays bounded, and nothing is lost."""
    monkeypatch.setattr("otel_audit.journal.stream.RECENT_BYTES_MAX", 5000)
    assert state_module.RECENT_BYTES_MAX >= 64 * 1024
    writer = make_writer(layout)
    other = tmp_path / "customer.txt"
    numbers = close_all_of(writer, other, number=1)
    for n in range(40):
        writer.append(make_entry(f"r-{n}"))
        assert writer._state.recent_bytes <= 5000 + 2000
    assert written(writer)[:30] == [f"r-{n}" for n in range(30)]
    writer.close()
    assert written(writer) == [f"r-{n}" for n in range(40)]
    os.close(numbers[0])


def test_a_sync_that_went_to_another_file_does_not_count(layout: Layout, files: FaultyFiles, tmp_path: Path):
    """If the descriptor is taken away while the kernel syncs, the sync is made again on the right file."""
    writer = make_writer(layout)
    writer.append(make_entry("r-2"))
    taken: list[int] = []
    files.run(
        "fdatasync", lambda _: taken.extend(close_all_of(writer, tmp_path / "other", number=1)), before=True, path=LINES
    )
    del files.calls[:]
    assert writer.sync() == 2
    first, second = files.calls_of("fdatasync", path=LINES)
    assert os.path.samestat(os.fstat(taken[0]), (tmp_path / "other").stat())
    assert first.fd == taken[0] != second.fd
    os.close(taken[0])
    writer.close()


def test_a_lock_file_that_was_removed_is_made_again(layout: Layout):
    """A cleaner of old files must not make a living stream look dead."""
    writer = make_writer(layout)
    (writer.directory / "lock").unlink()
    assert StreamDirectory(layout, writer.directory).owner_state() == DEAD
    writer.append(make_entry("r-2"))
    writer.sync()
    assert StreamDirectory(layout, writer.directory).owner_state() == LIVING
    writer.close()


def test_a_stream_whose_lock_somebody_else_has_taken_is_over(layout: Layout, tmp_path: Path):
    """If an adopter was quicker, we do not write into what it takes for a dead stream."""
    writer = make_writer(layout)
    writer.sync()
    numbers = close_all_of(writer, tmp_path / "other")
    adopter = FileLock(layout.files, writer.directory / "lock", 0o600)
    assert adopter.acquire()
    writer.append(make_entry("r-2"))
    with pytest.raises(JournalSyncError):
        writer.sync()
    assert writer.lost
    with pytest.raises(JournalClosedError):
        writer.append(make_entry("r-3"))
    assert [entry.journaled for entry in writer.unsaved()] == [False]
    assert b"r-2" in writer.unsaved()[0].head
    adopter.release()
    for fd in numbers:
        os.close(fd)


@pytest.mark.parametrize("how", ["segment removed", "directory removed", "segment truncated"])
def test_a_stream_that_somebody_removed_or_cut_is_over(layout: Layout, how: str):
    """The writer notices at the next sync, says so, and keeps what it wrote since the last one for the next stream."""
    writer = make_writer(layout)
    writer.append(make_entry("old"))
    writer.sync()
    path = segment_path(writer.directory, 1)
    writer.append(make_entry("new"))
    if how == "segment removed":
        path.unlink()
    elif how == "directory removed":
        shell("rm", "-r", writer.directory)
    else:
        os.truncate(path, 10)
    with pytest.raises(JournalSyncError) as caught:
        writer.sync()
    assert caught.value.journaled is None
    assert writer.lost
    assert writer.closed
    assert len(writer.unsaved()) == 1
    assert b'"new"' in writer.unsaved()[0].head
    assert "by somebody else" in notes(writer)
    writer.abandon()


# -- segments -----------------------------------------------------------------------------------------------------


def test_a_segment_is_synced_before_the_next_one_begins(layout: Layout, files: FaultyFiles):
    """Power loss can only tear the last segment."""
    writer = make_writer(layout, segment_bytes=2000)
    for n in range(40):
        writer.append(make_entry(f"r-{n}"))
    segments = list_segments(writer.directory)
    assert len(segments) > 5
    for before, after in itertools.pairwise(segments):
        last_write = files.calls_of("write", path=str(before.path))[-1]
        sync = files.calls_of("fdatasync", path=str(before.path))[-1]
        (made,) = files.calls_of("open", path=str(after.path))
        assert last_write.ended < sync.begun < sync.ended < made.begun
        assert before.path.stat().st_size >= 2000
    directory_syncs = files.calls_of("fsync", path=str(writer.directory))
    for segment in segments:
        (made,) = files.calls_of("open", path=str(segment.path))
        first = files.calls_of("write", path=str(segment.path))[0]
        assert any(made.ended < sync.begun < sync.ended < first.begun for sync in directory_syncs)
    writer.close()
    assert len(written(writer)) == 40


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOSPC])
def test_a_segment_that_cannot_be_left_is_used_for_longer(layout: Layout, files: FaultyFiles, code: int):
    """A process that has run out of descriptors still writes through the one that is open."""
    writer = make_writer(layout, segment_bytes=2000)
    refusal = files.fail("open", code, path=LINES, times=3)
    for n in range(40):
        writer.append(make_entry(f"r-{n}"))
    assert refusal.hits == 3
    assert "used for longer" in notes(writer)
    writer.close()
    assert written(writer) == [f"r-{n}" for n in range(40)]
    assert len(list_segments(writer.directory)) > 3


def test_an_interrupted_change_of_segments_is_finished_by_the_next_call(layout: Layout, files: FaultyFiles):
    """Wherever between two segments a Ctrl-C strikes, no record is lost and no number is used twice."""
    points = [("open", LINES), ("fchmod", "*"), ("fsync", "*"), ("fdatasync", LINES), ("fstat", LINES), ("close", "*")]
    for operation, path in points:
        for before in (False, True):
            writer = make_writer(layout, segment_bytes=2000)
            accepted = []
            strike = files.interrupt(operation, path=path, before=before, nth=2)
            for n in range(30):
                entry = make_entry(f"r-{n}")
                try:
                    writer.append(entry)
                except KeyboardInterrupt:
                    if entry.journaled is False:
                        continue
                assert entry.journaled is True
                accepted.append(f"r-{n}")
            files.heal()
            assert strike.hits == 1, (operation, before)
            writer.close()
            assert written(writer) == accepted
            assert len(accepted) >= 29


# -- re-entrance --------------------------------------------------------------------------------------------------


def test_a_record_emitted_within_an_append_is_written_before_it_returns(layout: Layout, files: FaultyFiles):
    """A signal handler that logs while its own thread writes neither hangs nor breaks the chain."""
    writer = make_writer(layout)
    inner = [make_entry(f"inner-{n}") for n in range(3)]

    def handler(_: object) -> None:
        for entry in inner:
            writer.append(entry)
            assert entry.deferred
            assert entry.journaled is None

    files.run("write", handler, path=LINES)
    outer = make_entry("outer")
    writer.append(outer)
    assert [entry.sequence for entry in [outer, *inner]] == [2, 3, 4, 5]
    writer.close()
    assert written(writer) == ["outer", "inner-0", "inner-1", "inner-2"]


@pytest.mark.parametrize("operation", ["write", "fdatasync", "open", "fstat"])
def test_records_emitted_within_any_of_our_calls_are_written(layout: Layout, files: FaultyFiles, operation: str):
    """The handler may strike in a sync, a change of segments or a check just as well."""
    writer = make_writer(layout, segment_bytes=3000)
    count = 0

    def handler(_: object) -> None:
        nonlocal count
        count += 1
        writer.append(make_entry(f"inner-{count}"))

    files.run(operation, handler, path=LINES, times=5)
    for n in range(30):
        writer.append(make_entry(f"outer-{n}"))
        writer.sync()
    files.heal()
    writer.close()
    assert count == 5
    assert sorted(written(writer)) == sorted([f"outer-{n}" for n in range(30)] + [f"inner-{n}" for n in range(1, 6)])


def test_what_was_deferred_is_written_although_the_outer_call_failed(layout: Layout, files: FaultyFiles):
    """An outer record that the kernel refuses takes nobody with it."""
    writer = make_writer(layout)
    inner = make_entry("inner")

    def handler(_: object) -> None:
        writer.append(inner)
        raise KeyboardInterrupt

    files.run("write", handler, before=True, path=LINES)
    with pytest.raises(KeyboardInterrupt):
        writer.append(make_entry("outer"))
    assert inner.journaled is True
    writer.close()
    assert written(writer) == ["inner"]


def test_deferred_records_wait_while_nothing_can_be_written(layout: Layout, files: FaultyFiles):
    """They are not dropped, the next sync finds them, and so does the next record."""
    writer = make_writer(layout)
    inner = make_entry("inner")
    files.run("write", lambda _: writer.append(inner), path=LINES)
    files.fail("write", errno.ENOSPC, nth=2, path=LINES)
    writer.append(make_entry("outer"))
    assert inner.journaled is None
    assert writer.unsynced
    assert "1 deferred" in notes(writer)
    writer.sync()
    assert inner.sequence == 3
    writer.close()
    assert written(writer) == ["outer", "inner"]


def test_the_deferred_list_is_bounded(layout: Layout, files: FaultyFiles):
    """A handler that never stops emitting gets an error that says that nothing was written."""
    writer = make_writer(layout)

    def handler(_: object) -> None:
        for _ in range(DEFERRED_MAX):
            writer.append(make_entry())
        entry = make_entry("too many")
        with pytest.raises(JournalFullError) as caught:
            writer.append(entry)
        assert caught.value.journaled is False
        assert entry.journaled is False

    strike = files.run("write", handler, path=LINES)
    writer.append(make_entry("outer"))
    assert strike.hits == 1
    writer.close()
    assert len(written(writer)) == DEFERRED_MAX + 1


def test_a_sync_from_within_a_write_does_nothing(layout: Layout, files: FaultyFiles):
    """It cannot wait for its own thread; it says how much is on the disk."""
    writer = make_writer(layout)
    writer.sync()
    seen: list[int] = []
    files.run("write", lambda _: seen.append(writer.sync()), path=LINES)
    writer.append(make_entry("r-2"))
    assert seen == [1]
    writer.close()


# -- the end ------------------------------------------------------------------------------------------------------


def test_after_the_end_nothing_can_be_appended(layout: Layout):
    """The last record is the last, whoever else is emitting, and closing twice is harmless."""
    writer = make_writer(layout)
    stop = threading.Event()
    refused: list[JournalClosedError] = []

    def emit() -> None:
        while not stop.is_set():
            try:
                writer.append(make_entry())
            except JournalClosedError as error:
                refused.append(error)
                return

    threads = [threading.Thread(target=emit) for _ in range(4)]
    for thread in threads:
        thread.start()
    writer.close(stopped(writer.metadata))
    for thread in threads:
        thread.join(10)
    stop.set()
    writer.close(stopped(writer.metadata))
    assert [error.journaled for error in refused] == [False] * 4
    ends = [sc.SEQUENCE_END in record.attributes for record in read_all(writer.directory)[0]]
    assert ends == [False] * (len(ends) - 1) + [True]
    assert writer.closed
    assert StreamDirectory(layout, writer.directory).owner_state() == DEAD


def test_closing_from_within_an_append_ends_the_stream_when_that_returns(layout: Layout, files: FaultyFiles):
    """A SIGTERM handler that shuts down while its thread writes does not hang."""
    writer = make_writer(layout)

    def handler(_: object) -> None:
        writer.append(make_entry("inner"))
        writer.close(stopped(writer.metadata))
        assert not writer.closed

    files.run("write", handler, path=LINES)
    writer.append(make_entry("outer"))
    assert writer.closed
    records, damage = read_all(writer.directory)
    assert ids_of(records) == ["outer", "inner"]
    assert sc.SEQUENCE_END in records[-1].attributes
    assert damage == []
    assert StreamDirectory(layout, writer.directory).owner_state() == DEAD


def test_closing_on_a_full_disk_raises_and_closes_all_the_same(layout: Layout, files: FaultyFiles):
    """The last record is missing then, what was written is synced, and the lock is free."""
    writer = make_writer(layout)
    writer.append(make_entry("r-2"))
    files.fail("write", errno.ENOSPC, path=LINES, times=None)
    with pytest.raises(JournalFullError):
        writer.close(stopped(writer.metadata))
    assert files.calls_of("fdatasync", path=LINES)
    assert StreamDirectory(layout, writer.directory).owner_state() == DEAD
    assert written(writer) == ["r-2"]
    with pytest.raises(JournalClosedError):
        writer.append(make_entry("r-3"))


def test_the_metadata_says_who_writes(layout: Layout):
    """Whoever ships an orphan later knows its resource, its owner and who must have it."""
    writer = make_writer(layout, required=["b", "a"], optional=["c"])
    said = json.loads((writer.directory / "stream.json").read_bytes())
    assert said["pid"] == os.getpid()
    assert said["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert said["pid_namespace"] == os.readlink("/proc/self/ns/pid")
    assert (said["required"], said["optional"]) == (["a", "b"], ["c"])
    assert said["format"] == 1
    assert said["resource"] == {"service.name": "test"}
    assert said["stream_id"] == writer.directory.name
    writer.close()


def test_a_sync_that_meets_the_end_of_the_stream_neither_fails_nor_opens_it_again(
    layout: Layout, files: FaultyFiles, monkeypatch: pytest.MonkeyPatch
):
    """The background thread may be about to sync at the moment at which the stream is closed: all is synced by then."""
    writer = make_writer(layout)
    writer.append(make_entry())
    real = writer._sync_lock

    class ClosedMeanwhile:
        """The lock, but that somebody closes the stream before it is taken."""

        def __enter__(self) -> None:
            writer._sync_lock = real
            writer.close(make_entry())
            real.acquire()

        def __exit__(self, *_: object) -> None:
            real.release()

    writer._sync_lock = ClosedMeanwhile()
    opened = len([call for call in files.calls if call.operation == "open"])
    assert writer.sync() == writer.sequence == 3
    assert writer.closed
    assert not writer.notes
    assert len([call for call in files.calls if call.operation == "open"]) == opened


def test_a_segment_that_an_interrupted_call_made_is_closed(layout: Layout):
    """Between the making of a segment and the moment at which the writer uses it, a Ctrl-C may strike."""
    writer = make_writer(layout, segment_bytes=1)
    open_now = Path("/proc/self/fd")
    needs(open_now.exists(), "proc", "the system does not say which descriptors are open")

    class Interrupted(list):
        def append(self, _: object) -> None:
            raise KeyboardInterrupt

    def open_here() -> int:
        links = []
        for each in open_now.iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed by another thread meanwhile
                links.append(os.readlink(each))
        return sum(link.startswith(str(layout.root)) for link in links)

    writer._left_behind = Interrupted()
    before = open_here()
    with pytest.raises(KeyboardInterrupt):
        writer.append(make_entry())
    writer._left_behind = list(writer._left_behind)
    writer.append(make_entry("r-2"))
    assert open_here() == before
    assert written(writer) == ["r-2"]
