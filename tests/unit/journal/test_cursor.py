"""Cursors, and the small files that are replaced and appended to."""

from __future__ import annotations

import errno
import sys
import threading
from pathlib import Path

import pytest

from otel_audit.journal.cursor import SLOT_BYTES, Cursor, CursorFile
from otel_audit.journal.files import RESERVE_BYTES
from otel_audit.testing.files import Call, FaultyFiles


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
def cursor(tmp_path: Path, files: FaultyFiles) -> CursorFile:
    return CursorFile(files, tmp_path / "collector", 0o600)


def test_a_cursor_is_what_was_stored(cursor: CursorFile):
    """And nothing where nothing was stored."""
    assert cursor.load() is None
    assert not cursor.damaged
    stored = Cursor(acknowledged=7, delivered=5, dead_lettered=1, damaged=1)
    cursor.store(Cursor(acknowledged=1))
    cursor.store(stored)
    assert cursor.load() == stored


@pytest.mark.parametrize(
    "data", [b"{", b"[]", b'{"acknowledged":7}', b"\x01" * 1024, b'{"crc32":"0","turn":1,"cursor":7}']
)
def test_a_damaged_cursor_is_none_and_says_so(cursor: CursorFile, data: bytes):
    """Damage costs duplicates: reading begins again at the first record."""
    cursor.path.write_bytes(data)
    assert cursor.load() is None
    assert cursor.damaged
    cursor.store(Cursor(acknowledged=1))
    assert CursorFile(FaultyFiles(), cursor.path, 0o600).load() == Cursor(acknowledged=1)


@pytest.mark.parametrize("data", [b"", bytes(1024), b" " * 511])
def test_a_file_in_which_nothing_was_stored_is_no_damage(cursor: CursorFile, data: bytes):
    """It is made with its stream; a power loss may leave it empty or zeroed."""
    cursor.path.write_bytes(data)
    assert cursor.load() is None
    assert not cursor.damaged


@pytest.mark.parametrize("turns", [1, 2, 3, 4])
def test_a_cursor_cut_short_at_any_byte_is_one_of_the_last_two(cursor: CursorFile, turns: int):
    """Whatever is left of the file: what it says was stored, or it says that it is damaged; it never runs ahead."""
    for turn in range(1, turns + 1):
        cursor.store(Cursor(acknowledged=turn))
    whole = cursor.path.read_bytes()
    for length in range(len(whole)):
        cursor.path.write_bytes(whole[:length])
        found = cursor.load()
        assert found in (None, Cursor(acknowledged=turns), Cursor(acknowledged=turns - 1))
        assert found is not None or cursor.damaged or not whole[:length].strip()


def test_no_flipped_bit_makes_a_cursor_run_ahead(cursor: CursorFile):
    """One bit of a number would skip records for ever; the checksum tells, and the other slot counts."""
    cursor.store(Cursor(acknowledged=4711, delivered=4711))
    cursor.store(Cursor(acknowledged=4712, delivered=4712))
    whole = cursor.path.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            hurt = bytearray(whole)
            hurt[place] ^= 1 << bit
            cursor.path.write_bytes(hurt)
            found = cursor.load()
            assert found is not None
            assert found.acknowledged in (4711, 4712)


def test_a_cursor_is_written_over_the_older_one_and_synced(cursor: CursorFile, files: FaultyFiles):
    """In place: no file is made, renamed or made longer, so no room is needed; the younger one stays as it is."""
    cursor.store(Cursor(acknowledged=1))
    cursor.store(Cursor(acknowledged=2))
    before = cursor.path.read_bytes()
    inode = cursor.path.stat().st_ino
    del files.calls[:]
    cursor.store(Cursor(acknowledged=3))
    (write,) = files.calls_of("pwrite")
    (sync,) = files.calls_of("fdatasync")
    assert write.ended < sync.begun
    assert [call.operation for call in files.calls] == ["open", "fstat", "pwrite", "fdatasync", "close"]
    after = cursor.path.read_bytes()
    changed = {place // SLOT_BYTES for place in range(len(before)) if before[place] != after[place]}
    assert changed == {0}
    assert (len(after), cursor.path.stat().st_ino) == (len(before), inode)


@pytest.mark.parametrize("operation", ["open", "fstat", "pwrite", "fdatasync", "close"])
@pytest.mark.parametrize("fault", ["fails", "interrupted before", "interrupted after"])
def test_a_store_that_fails_leaves_the_old_or_the_new_cursor_and_no_litter(
    cursor: CursorFile, files: FaultyFiles, operation: str, fault: str
):
    """Whichever step goes wrong, the file is whole, for a new reader too."""
    old, new = Cursor(acknowledged=1), Cursor(acknowledged=2)
    cursor.store(old)
    if fault == "fails":
        files.fail(operation, errno.ENOSPC)
    else:
        files.interrupt(operation, before=fault.endswith("before"))
    with pytest.raises((OSError, KeyboardInterrupt)):
        cursor.store(new)
    assert CursorFile(files, cursor.path, 0o600).load() in (old, new)
    assert [path.name for path in cursor.path.parent.iterdir()] == ["collector"]
    cursor.store(new)
    assert CursorFile(files, cursor.path, 0o600).load() == new


@pytest.mark.parametrize("keep", [0, 1, 40, 100])
def test_a_short_write_of_a_cursor_goes_on_or_leaves_the_old_one(cursor: CursorFile, files: FaultyFiles, keep: int):
    """A torn slot is not believed."""
    cursor.store(Cursor(acknowledged=1))

    def tear(call: Call) -> None:
        with cursor.path.open("r+b") as file:
            file.seek(SLOT_BYTES)
            file.write(b'{"crc32":"00000000","turn":9,"cursor":{"acknowledged":99}}'[:keep])
        raise OSError(errno.EIO, "torn")

    files.run("pwrite", tear, before=True)
    with pytest.raises(OSError, match="torn"):
        cursor.store(Cursor(acknowledged=2))
    assert CursorFile(files, cursor.path, 0o600).load() == Cursor(acknowledged=1)
    cursor.store(Cursor(acknowledged=2))
    assert CursorFile(files, cursor.path, 0o600).load() == Cursor(acknowledged=2)


def test_two_threads_may_replace_the_same_file(tmp_path: Path, files: FaultyFiles):
    """Each writes under a name of its own; the last one stands."""
    path = tmp_path / "recovery.json"
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            for _ in range(50):
                files.replace(path, bytes([number]) * 500, 0o600)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    data = path.read_bytes()
    assert len(data) == 500
    assert len(set(data)) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_new_file_is_durable_in_its_directory(tmp_path: Path, files: FaultyFiles):
    """The directory is synced when a file is replaced or made, and not for each further line."""
    files.append_durably(tmp_path / "ledger", b"one\n", 0o600)
    files.append_durably(tmp_path / "ledger", b"two\n", 0o600)
    assert (tmp_path / "ledger").read_bytes() == b"one\ntwo\n"
    assert len(files.calls_of("fsync", path=str(tmp_path))) == 1
    syncs = files.calls_of("fdatasync", path=str(tmp_path / "ledger"))
    writes = files.calls_of("write", path=str(tmp_path / "ledger"))
    assert [write.ended < sync.begun for write, sync in zip(writes, syncs, strict=True)] == [True, True]
    files.replace(tmp_path / "other", b"x", 0o600)
    assert len(files.calls_of("fsync", path=str(tmp_path))) == 2


def test_lines_have_room_behind_the_end_of_their_file(tmp_path: Path, files: FaultyFiles):
    """Reserved where the system can do that, so that the ledger grows on a full disk; and nothing of it is seen."""
    path = tmp_path / "ledger"
    for number in range(300):
        files.append_durably(path, b"x" * 400 + b"\n", 0o600)
        info = path.stat()
        assert info.st_size == 401 * (number + 1)
        if sys.platform == "linux":
            assert info.st_blocks * 512 - info.st_size >= RESERVE_BYTES // 2 - 4096
    assert len(files.calls_of("reserve")) <= 8


def test_a_file_system_that_cannot_reserve_costs_nothing_else(tmp_path: Path, files: FaultyFiles):
    """Then the line is written as it would be anyway."""
    files.fail("reserve", errno.EOPNOTSUPP, times=None)
    files.append_durably(tmp_path / "ledger", b"one\n", 0o600)
    assert (tmp_path / "ledger").read_bytes() == b"one\n"


def test_a_half_line_of_a_dead_process_does_not_swallow_the_next(tmp_path: Path, files: FaultyFiles):
    """Who finds an unfinished line begins a new one."""
    (tmp_path / "ledger").write_bytes(b"one\nhal")
    files.append_durably(tmp_path / "ledger", b"two\n", 0o600)
    assert (tmp_path / "ledger").read_bytes() == b"one\nhal\ntwo\n"


def test_lines_of_many_processes_stay_whole(tmp_path: Path, files: FaultyFiles):
    """Each line is one write at the file's end."""

    def run(number: int) -> None:
        for _ in range(50):
            files.append_durably(tmp_path / "ledger", b"%d" % number * 50 + b"\n", 0o600)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = (tmp_path / "ledger").read_bytes().splitlines()
    assert len(lines) == 200
    assert set(lines) == {b"%d" % number * 50 for number in range(4)}
