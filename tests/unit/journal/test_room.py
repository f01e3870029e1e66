"""The room of a journal when many processes write to it at once."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_audit.errors import JournalError, JournalFullError
from otel_audit.journal.room import RESERVATION_BYTES, Room
from otel_audit.journal.streams import list_streams, usage_bytes
from otel_audit.testing.files import FaultyFiles
from support.journal import audit_all, make_entry, make_journal, make_layout, make_provider, needs

MAX = 4 << 20
BODY = 3000

pytestmark = pytest.mark.timeout(120)


def start(run: Callable[[], object]) -> int:
    """A forked child that runs this and ends; its process id."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(90)  # one that hangs is killed
        with contextlib.suppress(BaseException):
            run()
            os._exit(0)
        os._exit(1)
    return pid


@pytest.mark.parametrize("processes", [1, 8])
def test_many_processes_together_take_no_more_than_there_is(tmp_path: Path, processes: int):
    """All write as fast as they can until they are refused: what is over the limit is less than a record of each."""
    needs(hasattr(os, "fork"), "fork", "there is no fork")
    make_layout(tmp_path)
    begin, beginning = os.pipe()

    def write() -> None:
        os.close(beginning)
        journal = make_journal(tmp_path, bytes_max=MAX)
        os.read(begin, 1)  # the end of the file: all begin at once
        refused = 0
        while refused < 20:
            try:
                journal.append(make_entry(body="x" * BODY))
                refused = 0
            except JournalFullError:
                refused += 1

    pids = [start(write) for _ in range(processes)]
    os.close(begin)
    os.close(beginning)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    assert codes == [0] * processes
    layout = make_layout(tmp_path)
    size = usage_bytes(layout.root, reserved=False)
    apart = processes * 4096  # descriptions of streams
    assert size <= MAX + processes * (BODY + 1000) + apart
    assert size >= MAX * 0.7, "and nearly all of it is used"
    assert len(audit_all(layout.root)) > MAX * 0.7 / (BODY + 1000)


def test_what_a_killed_process_had_reserved_is_for_others(tmp_path: Path):
    """Its lock file keeps its size until the stream is trimmed; delivered or not does not matter."""
    needs(hasattr(os, "fork"), "fork", "there is no fork")

    def die() -> None:
        make_journal(tmp_path, bytes_max=1 << 30, required=["collector"]).append(make_entry("theirs"))
        os.kill(os.getpid(), signal.SIGKILL)

    os.waitpid(start(die), 0)
    journal = make_journal(tmp_path, bytes_max=1 << 30, required=["collector"])
    root = journal.layout.root
    assert usage_bytes(root) - usage_bytes(root, reserved=False) == RESERVATION_BYTES
    journal.housekeep()
    assert usage_bytes(root) == usage_bytes(root, reserved=False)
    assert len(list_streams(journal.layout)) == 1, "it waits for its destination"


def test_what_is_left_over_is_given_back_at_the_end(tmp_path: Path):
    """An orderly end leaves no reservation; ``status`` never shows one as bytes of the journal."""
    provider = make_provider(tmp_path)
    provider.get_audit_logger().emit("user.login", actor="u", outcome="success")
    root = provider.journal.layout.root
    assert usage_bytes(root) > usage_bytes(root, reserved=False)
    provider.shutdown()
    assert usage_bytes(root) == usage_bytes(root, reserved=False)


def test_whoever_measures_counts_what_others_have_reserved(tmp_path: Path):
    """Two that reserve at the same moment: the later one gets what is left, and one after it nothing."""
    layout = make_layout(tmp_path)
    locks = [layout.streams / name for name in ("a", "b", "c")]
    for lock in locks:
        lock.touch()
    limit = usage_bytes(layout.root) + 10_000
    rooms = [Room(layout, limit) for _ in locks]
    first = rooms[0].reserve(locks[0])
    assert rooms[1].reserve(locks[1]) == min(4096, 10_000 - first)
    for _ in range(5):
        with contextlib.suppress(JournalFullError):
            rooms[1].reserve(locks[1])
    assert usage_bytes(layout.root) <= limit
    rooms[0].give_back(locks[0])
    assert rooms[2].reserve(locks[2]) > 0
    assert usage_bytes(layout.root) <= limit


def test_a_full_journal_gets_no_new_streams(tmp_path: Path):
    """Processes that are started again and again while it is full do not make it any larger."""
    layout = make_layout(tmp_path)
    layout.dead_letters("collector").write_bytes(bytes(100_000))
    for _ in range(3):
        journal = make_journal(tmp_path, bytes_max=100_000)
        with pytest.raises(JournalFullError):
            journal.append(make_entry())
        journal.close()
    assert usage_bytes(layout.root) == 100_000
    assert list(layout.streams.iterdir()) == []


def test_a_reservation_that_cannot_be_made_is_an_error_that_says_so(tmp_path: Path):
    """Nothing is written then, and the next record tries again."""
    files = FaultyFiles()
    journal = make_journal(tmp_path, files, bytes_max=64 << 10)
    journal.append(make_entry("r-2"))
    files.fail("truncate")
    with pytest.raises(JournalError, match="no room could be reserved") as caught:
        for number in range(100):
            journal.append(make_entry(f"s-{number}", body="x" * 1000))
    assert caught.value.journaled is False
    journal.append(make_entry("r-3"))
    journal.close()
