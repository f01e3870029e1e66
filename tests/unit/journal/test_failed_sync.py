"""A sync that fails: the kernel reports it once and may drop what it could not write; the writer must act at once."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_audit.errors import JournalError, JournalSyncError
from otel_audit.journal.layout import Layout
from otel_audit.journal.segment import list_segments, segment_path
from otel_audit.journal.stream import StreamWriter
from otel_audit.journal.streams import list_streams
from otel_audit.testing.files import Call, FaultyFiles
from support.journal import (
    audit,
    ids_of,
    make_entry,
    make_journal,
    make_layout,
    make_provider,
    make_writer,
    needs,
    read_all,
    shell,
)

LINES = "*.jsonl"
BLOCK = 4096
"""Of the file system, and of each request to the loop device: it calls a request good that was served in part."""


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
def layout(tmp_path: Path, files: FaultyFiles) -> Layout:
    return make_layout(tmp_path, files)


def append(writer: StreamWriter, first: int, last: int) -> None:
    for number in range(first, last + 1):
        writer.append(make_entry(f"r-{number}"))


def names(writer: StreamWriter) -> list[int]:
    return [segment.first for segment in list_segments(writer.directory)]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("spoil", [False, True], ids=["pages kept", "pages dropped"])
def test_unsynced_records_are_moved_to_a_new_segment_and_synced(
    layout: Layout, files: FaultyFiles, code: int, spoil: bool
):
    """After a failed sync the records stand in a new, synced segment; the old one is trusted up to its last sync."""
    writer = make_writer(layout)
    append(writer, 2, 5)
    assert writer.sync() == 5
    synced = os.path.getsize(segment_path(writer.directory, 1))
    append(writer, 6, 9)
    files.fail("fdatasync", code, path=LINES)
    del files.calls[:]
    assert writer.sync() == 9
    append(writer, 10, 11)
    writer.close()
    assert names(writer) == [1, 6]
    write = files.calls_of("write")[0]
    sync = next(call for call in files.calls_of("fdatasync") if call.fd == write.fd)
    rename = files.calls_of("rename", path="*.rescue")[0]
    assert write.ended < sync.begun < sync.ended < rename.begun
    if spoil:
        old = segment_path(writer.directory, 1)
        size = old.stat().st_size
        with old.open("r+b") as file:
            file.truncate(synced)
            file.truncate(size)  # zeros where the kernel dropped what it could not write
    records, damage = read_all(writer.directory)
    assert [record.sequence for record in records] == list(range(1, 12))
    assert damage == []
    assert "4 records were moved" in "\n".join(writer.notes)


def test_a_segment_of_which_nothing_was_synced_is_replaced(layout: Layout, files: FaultyFiles):
    """There is no moment at which the records stand in no segment that a reader looks at."""
    writer = make_writer(layout)
    append(writer, 2, 5)

    def look(_: Call) -> None:
        seen.append(len(read_all(writer.directory, final=False)[0]))

    seen: list[int] = []
    files.fail("fdatasync", errno.EIO, path=LINES)
    for operation in ("open", "write", "fdatasync", "rename", "fsync", "close"):
        files.run(operation, look, times=None, when=lambda call: "streams" in str(call.path) and not seen_by_us(call))
    writer.sync()
    files.heal()
    assert len(seen) > 4
    assert set(seen) == {5}
    append(writer, 6, 7)
    writer.close()
    assert names(writer) == [1]
    assert audit(writer.directory).sequences == list(range(1, 8))


def seen_by_us(call: Call) -> bool:
    """The reader of the test itself opens and closes segments for reading."""
    return call.operation in ("open", "close") and str(call.path).endswith(".jsonl")


def test_if_the_second_try_fails_too_it_is_said_until_it_is_mended(layout: Layout, files: FaultyFiles):
    """Sync and append raise, the records stay readable, and in the end all of them are on the disk."""
    writer = make_writer(layout)
    append(writer, 2, 3)
    writer.sync()
    append(writer, 4, 5)
    files.fail("fdatasync", errno.EIO, times=None)
    for _ in range(3):
        with pytest.raises(JournalSyncError) as caught:
            writer.sync()
        assert caught.value.journaled is None
        refused = make_entry("refused")
        with pytest.raises(JournalSyncError) as caught:
            writer.append(refused)
        assert caught.value.journaled is False
        assert refused.journaled is False
        assert [r.sequence for r in read_all(writer.directory, final=False)[0]] == [1, 2, 3, 4, 5]
    files.heal()
    append(writer, 6, 7)
    assert writer.sync() == 7
    writer.close()
    assert names(writer) == [1, 4]
    records, damage = read_all(writer.directory)
    assert ids_of(records) == [f"r-{n}" for n in range(2, 8)]
    assert damage == []
    assert not list(writer.directory.glob(".*")), "no half-made copy is left"


@pytest.mark.parametrize("synced_before", [False, True])
@pytest.mark.parametrize("operation", ["open", "write", "fdatasync", "rename", "fsync", "fchmod", "pread", "close"])
@pytest.mark.parametrize("fault", ["fails", "is interrupted"])
def test_whatever_goes_wrong_while_records_are_moved_nothing_is_lost(
    layout: Layout, files: FaultyFiles, operation: str, synced_before: bool, fault: str
):
    """The move can fail or be interrupted in each of its calls, and is made again by the next call."""
    writer = make_writer(layout)
    append(writer, 2, 3)
    if synced_before:
        writer.sync()
    append(writer, 4, 5)
    begun = False

    def arm(_: Call) -> None:
        nonlocal begun
        begun = True

    files.run("fdatasync", arm, before=True, path=LINES)
    files.fail("fdatasync", errno.EIO, path=LINES)
    when = {
        "when": lambda call: begun and call.error is None and (operation != "fdatasync" or ".rescue" in str(call.path))
    }
    struck = files.fail(operation, errno.ENOSPC, **when) if fault == "fails" else files.interrupt(operation, **when)
    try:
        writer.sync()
    except (JournalSyncError, KeyboardInterrupt) as error:
        expected = JournalSyncError if fault == "fails" else KeyboardInterrupt
        assert isinstance(error, expected)
    assert struck.hits == 1
    assert [r.sequence for r in read_all(writer.directory, final=False)[0]] == [1, 2, 3, 4, 5]
    append(writer, 6, 6)
    assert writer.sync() == 6
    writer.close()
    records, damage = read_all(writer.directory)
    assert ids_of(records) == [f"r-{n}" for n in range(2, 7)]
    assert damage == []


def test_a_segment_that_cannot_be_synced_is_not_left_as_if_it_were(layout: Layout, files: FaultyFiles):
    """When the sync before a new segment fails, the unsynced records are moved as well."""
    writer = make_writer(layout, segment_bytes=4000)
    files.fail("fdatasync", errno.EIO, path=LINES)
    append(writer, 2, 30)
    writer.close()
    assert audit(writer.directory).record_ids == [f"r-{n}" for n in range(2, 31)]
    assert "records were moved" in "\n".join(writer.notes)


def test_an_error_that_another_thread_was_given_is_not_taken_for_success(layout: Layout, files: FaultyFiles):
    """The kernel reports a failed sync to one caller; a second sync of the same segment must not hide it."""
    writer = make_writer(layout, segment_bytes=4000)
    append(writer, 2, 5)
    reported = threading.Event()
    rolled = threading.Event()

    def fail_slowly(_: Call) -> None:
        reported.set()
        rolled.wait(0.3)  # the appending thread comes here meanwhile
        raise OSError(errno.EIO, "once")

    files.run("fdatasync", fail_slowly, before=True, path=LINES)

    def roll() -> None:
        reported.wait(5)
        append(writer, 6, 40)
        rolled.set()

    thread = threading.Thread(target=roll)
    thread.start()
    assert writer.sync() >= 5
    thread.join()
    assert "a sync failed" in "\n".join(writer.notes)
    writer.close()
    first = list_segments(writer.directory)[0]
    assert first.first == 1
    moved = files.calls_of("rename", path="*.rescue")
    assert len(moved) == 1
    assert audit(writer.directory).record_ids == [f"r-{n}" for n in range(2, 41)]


def test_records_that_cannot_be_read_back_are_in_doubt(layout: Layout, files: FaultyFiles, tmp_path: Path):
    """Where even the page cache has lost something, nobody is told that it is on the disk, and the hole is seen."""
    journal = make_journal(tmp_path, files)
    for number in range(2, 5):
        journal.append(make_entry(f"r-{number}"))
    writer = journal.writer
    assert writer is not None
    path = segment_path(writer.directory, 1)

    def spoil(_: Call) -> None:
        data = bytearray(path.read_bytes())
        data[data.index(b"r-3")] ^= 1
        path.write_bytes(data)

    files.run("fdatasync", spoil, before=True, path=LINES)
    files.fail("fdatasync", errno.EIO, path=LINES)
    for sequence in (2, 3, 4):
        with pytest.raises(JournalSyncError) as caught:
            journal.commit(sequence)
        assert caught.value.journaled is None
    journal.append(make_entry("r-5"))
    journal.commit(5)
    assert "1 of the records 1 to 4 could not be read back" in "\n".join(writer.notes)
    journal.close()
    records, damage = read_all(writer.directory)
    assert ids_of(records) == ["r-2", "r-4", "r-5"]
    assert [(report.kind, report.sequence, report.count) for report in damage] == [("hole", 3, 1)]


def test_emit_says_that_a_record_is_written_but_perhaps_not_on_the_disk(tmp_path: Path, files: FaultyFiles):
    """``durability="disk"`` never says ``journaled=False`` of what was written; the next emit raises too."""
    provider = make_provider(tmp_path, files)
    log = provider.get_audit_logger()
    log.emit("user.login", actor="u", outcome="success", record_id="r-1", durability="disk")
    files.fail("fdatasync", errno.EIO, times=None)
    with pytest.raises(JournalSyncError) as caught:
        log.emit("user.login", actor="u", outcome="success", record_id="r-2", durability="disk")
    assert caught.value.journaled is not False
    with pytest.raises(JournalSyncError) as caught:
        log.emit("user.login", actor="u", outcome="success", record_id="r-3")
    assert caught.value.journaled is False
    files.heal()
    log.emit("user.login", actor="u", outcome="success", record_id="r-4", durability="disk")
    provider.shutdown()
    (stream,) = list_streams(provider.journal.layout)
    records, damage = read_all(stream.path)
    assert ids_of(records) == ["r-1", "r-2", "r-4"]
    assert damage == []


# -- a real disk that is full -----------------------------------------------------------------------------------


class ThinDisk:
    """A disk that promises more than it has: ext4 on a loop device over a sparse file on a small tmpfs.

    The file system's own structures have their room; only writing to fresh blocks can fail, as on a thin volume.

    Attributes:
        point: where it is mounted.
    """

    def __init__(self, directory: Path) -> None:
        self.point = directory / "disk"
        self._below = directory / "below"
        self._image = self._below / "image"
        self._ballast = self._below / "ballast"
        self._device = ""

    def make(self) -> None:
        self.point.mkdir()
        self._below.mkdir()
        shell("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", self._below)
        with self._image.open("wb") as file:
            file.truncate(64 << 20)
        shell("mkfs.ext4", "-q", "-F", "-b", BLOCK, "-E", "nodiscard", self._image)
        used = 0
        for first, last in re.findall(r"^  Free blocks: (\d+)-(\d+)$", shell("dumpe2fs", self._image), re.MULTILINE):
            if int(first) > used:
                shell("fallocate", "-o", used * BLOCK, "-l", (int(first) - used) * BLOCK, self._image)
            used = int(last) + 1
        self._device = shell("losetup", "--find", "--show", self._image)
        queue = Path("/sys/block", Path(self._device).name, "queue")
        (queue / "max_sectors_kb").write_text(str(BLOCK // 1024))
        shell("mount", self._device, self.point)

    def fill(self) -> None:
        """From now on there is no room for fresh blocks."""
        fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT)
        try:
            for size in (1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while os.write(fd, bytes(size)):
                        pass
        finally:
            os.close(fd)

    def relieve(self) -> None:
        """There is room again."""
        self._ballast.unlink()

    def forget_caches(self) -> None:
        """Leave nothing in memory that is not on the medium."""
        shell("umount", self.point)
        self._ballast.unlink(missing_ok=True)
        shell("mount", self._device, self.point)

    def remove(self) -> None:
        """Undo it, whatever a failed test has left open."""
        commands = [
            ["umount", "--lazy", self.point],
            ["losetup", "--detach", self._device],
            ["umount", "--lazy", self._below],
        ]
        for command in commands:
            if command[-1] and (command[0] != "umount" or os.path.ismount(command[-1])):
                subprocess.run(command, check=False, timeout=60)
        assert not os.path.ismount(self.point)
        assert not os.path.ismount(self._below)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[ThinDisk]:
    needs(os.geteuid() == 0, "loopdev", "a loop device needs root")
    disk = ThinDisk(tmp_path)
    try:
        try:
            disk.make()
        except (AssertionError, OSError) as error:
            needs(None, "loopdev", f"there is no usable loop device here: {error}")
        yield disk
    finally:
        disk.remove()


def test_the_thin_disk_loses_what_it_called_written(disk: ThinDisk):
    """The recipe is a real one: a plain program that goes on after a failed sync reads garbage where it wrote."""
    path = disk.point / "plain"
    with path.open("wb", buffering=0) as file:
        file.write(b"a" * 65536)
        os.fdatasync(file.fileno())
        disk.fill()
        file.write(b"b" * 65536)
        with pytest.raises(OSError, match=r"No space left|Input/output") as caught:
            os.fdatasync(file.fileno())
        assert caught.value.errno in (errno.ENOSPC, errno.EIO)
        disk.relieve()
        os.fdatasync(file.fileno())
    disk.forget_caches()
    data = path.read_bytes()
    assert data[:65536] == b"a" * 65536
    assert data[65536:] != b"b" * 65536


def test_on_a_real_disk_that_refuses_to_sync_nothing_is_lost(disk: ThinDisk):
    """What was written before, during and after the failure is on the medium when the disk has recovered."""
    journal = make_journal(disk.point, segment_bytes_max=1 << 18)
    written: list[str] = []
    acknowledged: list[str] = []
    refusals: list[bool | None] = []

    def emit(number: int) -> None:
        entry = make_entry(f"r-{number}", body="x" * 4000)
        try:
            journal.append(entry)
            written.append(f"r-{number}")
            if number % 10 == 0:
                journal.commit(entry.sequence)
                acknowledged[:] = written
        except JournalError as error:
            refusals.append(error.journaled)

    for number in range(200):
        emit(number)
    assert refusals == []
    disk.fill()
    for number in range(200, 300):
        emit(number)
    assert None in refusals, "a record was written and its sync failed"
    assert False in refusals, "then nothing more was taken"
    disk.relieve()
    for number in range(300, 400):
        emit(number)
    assert written[-1] == "r-399"
    journal.close()
    disk.forget_caches()
    (stream,) = list_streams(journal.layout)
    records, damage = read_all(stream.path)
    assert ids_of(records) == written
    assert set(acknowledged) <= set(written)
    assert damage == []


def test_what_was_acknowledged_survives_a_disk_that_never_recovers(disk: ThinDisk):
    """What ``disk`` promised before the failure stands on the medium, whatever becomes of the rest."""
    journal = make_journal(disk.point, segment_bytes_max=1 << 18)
    acknowledged: list[str] = []
    written: list[str] = []
    for number in range(400):
        if number == 200:
            disk.fill()
        entry = make_entry(f"r-{number}", body="x" * 4000)
        with contextlib.suppress(JournalError):
            journal.append(entry)
            written.append(f"r-{number}")
            if number % 10 == 0:
                journal.commit(entry.sequence)
                acknowledged[:] = written
    assert "r-0" in acknowledged
    assert len(acknowledged) < len(written) or len(written) < 400
    with contextlib.suppress(JournalError):
        journal.close()
    disk.forget_caches()
    (stream,) = list_streams(journal.layout)
    found = ids_of(read_all(stream.path)[0])
    assert found[: len(acknowledged)] == acknowledged
    assert set(found) <= set(written)
