"""Group commit: one sync for many, and nobody is told that a record is on the disk unless it is."""

from __future__ import annotations

import ctypes
import errno
import itertools
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_audit.errors import JournalSyncError
from otel_audit.journal.commit import GroupCommit
from otel_audit.journal.journal import Journal
from otel_audit.testing.files import Call, FaultyFiles
from support.journal import audit_all, make_entry, make_journal, make_provider

LINES = "*.jsonl"
SYNC_S = 0.002


def in_threads(count: int, run: Callable[[int], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a thread hangs"


class Disk:
    """What a commit syncs: a counter of what was written, and of what is on the disk."""

    def __init__(self, sync_s: float = 0.0) -> None:
        self.written = 0
        self.synced = 0
        self.syncs = 0
        self.sync_s = sync_s
        self.fails = False

    def write(self) -> int:
        self.written += 1
        return self.written

    def sync(self) -> int:
        covered = self.written
        self.syncs += 1
        time.sleep(self.sync_s)
        if self.fails:
            raise OSError(errno.EIO, "broken")
        self.synced = max(self.synced, covered)
        return covered


def test_one_caller_syncs_once_for_each_record():
    """Alone, nobody is waited for, and what is on the disk already is not synced again."""
    disk = Disk()
    commit = GroupCommit(disk.sync)
    for number in range(1, 6):
        commit.wait(disk.write())
        assert disk.syncs == number
        assert commit.covered == number
    commit.wait(3)
    assert disk.syncs == 5


def test_many_callers_share_their_syncs(tmp_path: Path):
    """Sixteen threads need far fewer syncs than records."""
    disk = Disk(SYNC_S)
    commit = GroupCommit(disk.sync)
    lock = threading.Lock()

    def run(_: int) -> None:
        for _ in range(20):
            with lock:
                sequence = disk.write()
            commit.wait(sequence)
            assert disk.synced >= sequence

    join(in_threads(16, run))
    assert disk.synced == 320
    assert disk.syncs < 320 / 4


def test_every_wait_is_covered_by_a_sync_that_began_after_its_write(tmp_path: Path):
    """The log of system calls shows it for each of 16 threads' records, over several segments."""
    files = FaultyFiles(sync_s=SYNC_S)
    journal = make_journal(tmp_path, files, segment_bytes_max=20_000)
    order = itertools.count()
    done: list[tuple[int, int, int]] = []

    def run(thread: int) -> None:
        for n in range(15):
            entry = make_entry(f"r-{thread}-{n}")
            journal.append(entry)
            written = len(files.calls)  # whatever syncs from here on began after the write
            journal.commit(entry.sequence)
            done.append((entry.sequence, written, len(files.calls)))
            next(order)

    join(in_threads(16, run))
    assert len(done) == 240
    for sequence, written, returned in done:
        write = write_of(files, sequence)
        syncs = [call for call in files.calls[:returned] if call.operation == "fdatasync" and call.path == write.path]
        assert any(write.ended < sync.begun and sync.ended and sync.error is None for sync in syncs), sequence
        assert written <= returned
    journal.close()


def write_of(files: FaultyFiles, sequence: int) -> Call:
    """The write of a record: each is one call, in the order of the numbers."""
    writes = [call for call in files.calls if call.operation == "write" and str(call.path).endswith(".jsonl")]
    return writes[sequence - 1]


def test_a_failed_sync_fails_all_tickets_that_waited_for_it():
    """Nobody of that generation is told that all is well; the next generation starts afresh."""
    disk = Disk(0.05)
    commit = GroupCommit(disk.sync)
    disk.fails = True
    began = threading.Event()
    failures: list[BaseException] = []

    def first() -> int:
        began.set()
        return Disk.sync(disk)

    commit._sync = first
    lead = disk.write()

    def run(number: int) -> None:
        if number:
            began.wait(5)
        try:
            commit.wait(disk.write() if number else lead)
        except (OSError, JournalSyncError) as error:
            failures.append(error)

    join(in_threads(9, run))
    assert len(failures) == 9
    assert len({id(error) for error in failures}) == 9, "each caller has an error of its own"
    assert all(isinstance(error, (OSError, JournalSyncError)) for error in failures)
    assert [error.journaled for error in failures if isinstance(error, JournalSyncError)].count(False) == 0
    assert disk.syncs < 9, "they failed together"
    disk.fails = False
    commit.wait(disk.write())
    assert commit.covered == disk.written


def test_a_sync_that_covers_nothing_raises_instead_of_turning_in_circles():
    """A record of another stream is never on this one's disk."""
    commit = GroupCommit(lambda: 3)
    with pytest.raises(JournalSyncError) as caught:
        commit.wait(500)
    assert caught.value.journaled is None


def test_a_sync_in_the_background_releases_those_who_wait():
    """They do not sync once more for what is on the disk by then."""
    disk = Disk(0.1)
    commit = GroupCommit(disk.sync)
    sequence = disk.write()
    background = threading.Thread(target=commit.sync_now)
    background.start()
    while not commit._busy:
        time.sleep(0.001)
    commit.wait(sequence)
    background.join()
    assert disk.syncs == 1


@pytest.mark.parametrize("victim", ["leader", "waiting"])
def test_an_interrupted_thread_never_hangs_the_others(victim: str):
    """A KeyboardInterrupt in the thread that syncs, or in one that waits, delays the others and no more."""
    disk = Disk(0.01)
    commit = GroupCommit(disk.sync)
    lock = threading.Lock()
    stop = threading.Event()
    finished: list[int] = []
    interrupted: list[int] = []

    def run(number: int) -> None:
        try:
            while not stop.is_set():
                with lock:
                    sequence = disk.write()
                commit.wait(sequence)
                assert disk.synced >= sequence
            finished.append(number)
        except KeyboardInterrupt:
            interrupted.append(number)

    threads = in_threads(8, run)
    for _ in range(3):
        time.sleep(0.03)
        targets = [thread for thread in threads if thread.is_alive()]
        target = targets[0]
        if victim == "leader":
            while not commit._busy:
                time.sleep(0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(target.ident or 0), ctypes.py_object(KeyboardInterrupt)
        )
        target.join(10)
        assert not target.is_alive()
    stop.set()
    join(threads)
    assert len(interrupted) == 3
    assert len(finished) == 5
    assert disk.synced == disk.written or commit._queue == type(commit._queue)()
    assert not commit._queue, "nobody's ticket is left behind"


def test_the_leader_itself_is_interrupted_within_the_sync():
    """Its sync counts for nobody; somebody else leads."""
    disk = Disk(0.01)
    interrupts = iter([KeyboardInterrupt])

    def sync() -> int:
        covered = disk.sync()
        for interrupt in interrupts:
            raise interrupt
        return covered

    commit = GroupCommit(sync)
    outcome: list[object] = []
    barrier = threading.Barrier(6)

    def run(_: int) -> None:
        sequence = disk.write()
        barrier.wait()
        try:
            commit.wait(sequence)
            outcome.append(sequence)
        except KeyboardInterrupt as error:
            outcome.append(error)

    join(in_threads(6, run))
    assert sum(isinstance(item, KeyboardInterrupt) for item in outcome) == 1
    assert len(outcome) == 6


def test_a_wait_from_within_a_sync_of_its_own_thread_does_not_hang():
    """A signal handler that wants its record on the disk, while its thread syncs, syncs itself."""
    disk = Disk()
    nested: list[int] = []

    def sync() -> int:
        if not nested:
            nested.append(disk.write())
            commit.wait(nested[0])
        return disk.sync()

    commit = GroupCommit(sync)
    commit.wait(disk.write())
    assert disk.synced == 2
    assert commit.covered == 2


def test_a_signal_handler_that_emits_to_the_disk_while_its_thread_syncs(tmp_path: Path):
    """With real signals, 1,000 a second, against the real journal: no hang, and every record is there."""
    files = FaultyFiles(sync_s=SYNC_S, log=False)
    provider = make_provider(tmp_path, files)
    log = provider.get_audit_logger()
    receipts = []

    def emit() -> None:
        receipts.append(log.emit("user.login", actor="u", outcome="success", durability="disk"))

    depth = 0

    def handler(*_: object) -> None:
        nonlocal depth
        if depth == 0:  # a handler may be interrupted by the next signal; one level is enough
            depth += 1
            try:
                emit()
            finally:
                depth -= 1

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for _ in range(150):
            emit()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    provider.shutdown()
    assert len(receipts) > 200
    assert {receipt.durability for receipt in receipts} <= {"disk", "deferred"}
    assert sorted(audit_all(tmp_path / "journal")) == sorted(receipt.record_id for receipt in receipts)


def test_the_first_of_a_new_stream_waits_for_its_own_sync(tmp_path: Path):
    """What an earlier stream of this process had on the disk says nothing about this one."""
    files = FaultyFiles()
    journal: Journal = make_journal(tmp_path, files)
    for n in range(5):
        journal.append(make_entry(f"r-{n}"))
    journal.commit(6)
    old = journal.writer
    assert old is not None
    for path in old.directory.glob(LINES):
        path.unlink()
    journal.append(make_entry("more"))
    with pytest.raises(JournalSyncError):
        journal.commit(7, old.stream_id)
    entry = make_entry("new")
    stream_id = journal.append(entry)
    assert stream_id != old.stream_id
    with pytest.raises(JournalSyncError):
        journal.commit(6, old.stream_id)
    del files.calls[:]
    journal.commit(entry.sequence, stream_id)
    assert files.calls_of("fdatasync", path=LINES)
    journal.close()
