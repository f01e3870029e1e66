"""Cursors, and the small files that are replaced and appended to."""

from __future__ import annotations

import errno
import threading
from pathlib import Path

import pytest

from otel_audit.journal.cursor import Cursor, CursorFile
from otel_audit.testing.files import FaultyFiles


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


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"acknowledged":"7"}', b'{"acknowledged":7', b"\x00" * 40])
def test_a_damaged_cursor_is_none_and_says_so(cursor: CursorFile, data: bytes):
    """Damage costs duplicates: reading begins again at the first record."""
    cursor.path.write_bytes(data)
    assert cursor.load() is None
    assert cursor.damaged


def test_a_cursor_is_on_the_disk_before_it_is_seen(cursor: CursorFile, files: FaultyFiles):
    """The new file is written and synced under another name, then renamed over the old one."""
    cursor.store(Cursor(acknowledged=1))
    del files.calls[:]
    cursor.store(Cursor(acknowledged=2))
    (write,) = files.calls_of("write")
    (sync,) = files.calls_of("fdatasync")
    (rename,) = files.calls_of("rename")
    assert write.ended < sync.begun < sync.ended < rename.begun
    assert write.path != cursor.path


@pytest.mark.parametrize("operation", ["open", "fchmod", "write", "fdatasync", "rename", "close"])
@pytest.mark.parametrize("fault", ["fails", "interrupted before", "interrupted after"])
def test_a_store_that_fails_leaves_the_old_or_the_new_cursor_and_no_litter(
    cursor: CursorFile, files: FaultyFiles, operation: str, fault: str
):
    """Whichever step goes wrong, the file is whole."""
    old, new = Cursor(acknowledged=1), Cursor(acknowledged=2)
    cursor.store(old)
    if fault == "fails":
        files.fail(operation, errno.ENOSPC)
    else:
        files.interrupt(operation, before=fault.endswith("before"))
    with pytest.raises((OSError, KeyboardInterrupt)):
        cursor.store(new)
    assert cursor.load() in (old, new)
    assert [path.name for path in cursor.path.parent.iterdir()] == ["collector"]
    cursor.store(new)
    assert cursor.load() == new


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
