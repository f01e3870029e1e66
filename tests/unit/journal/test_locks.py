"""Who owns a stream: locks, forks, inherited descriptors, other kernels and containers."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import msgspec
import pytest

from otel_audit.journal import locks
from otel_audit.journal.files import OS_FILES
from otel_audit.journal.layout import Layout
from otel_audit.journal.locks import FileLock, owner_lives
from otel_audit.journal.metadata import NAME
from otel_audit.journal.streams import DEAD, LIVING, StreamDirectory, list_streams
from otel_audit.testing.files import FaultyFiles
from support.journal import audit, in_child, make_entry, make_layout, make_provider, make_writer, needs


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return make_layout(tmp_path)


def state(layout: Layout, directory: Path) -> str:
    return StreamDirectory(layout, directory).owner_state()


# -- the lock itself --------------------------------------------------------------------------------------------


def test_a_lock_is_held_by_one(tmp_path: Path):
    """The second does not get it, and gets it when the first lets go."""
    first, second = (FileLock(OS_FILES, tmp_path / "lock", 0o600) for _ in range(2))
    assert first.acquire()
    assert first.acquire(), "whoever holds it has it"
    assert not second.acquire()
    assert (first.held, second.held) == (True, False)
    first.release()
    assert second.acquire()
    second.release()


def test_a_lock_on_a_file_that_was_replaced_meanwhile_counts_for_nothing(tmp_path: Path):
    """Between opening and locking the file may go; then the lock is not had."""
    files = FaultyFiles()
    path = tmp_path / "lock"
    files.run("open", lambda _: path.unlink(), path=str(path), nth=2)
    lock = FileLock(files, path, 0o600)
    path.touch()
    files.run("open", lambda _: None, path=str(path))
    assert lock.acquire()
    lock.release()
    other = FileLock(files, path, 0o600)
    assert not other.acquire()
    assert not other.held
    assert other.acquire(), "the next try makes a file again"
    other.release()


def test_looking_at_a_lock_does_not_make_it(layout: Layout):
    """Whoever looks whether a stream lives must not put a file into a directory that is being removed."""
    writer = make_writer(layout)
    writer.close()
    (writer.directory / "lock").unlink()
    assert state(layout, writer.directory) == DEAD
    assert not (writer.directory / "lock").exists()
    with pytest.raises(FileNotFoundError):
        StreamDirectory(layout, writer.directory).owner_lock().acquire()


def test_a_reader_without_the_right_to_write_can_see_who_lives():
    """A sidecar of another user, who may only read, can tell the living from the dead."""
    needs(os.geteuid() == 0, "root", "changing to another user needs root")
    base = Path(tempfile.mkdtemp())  # where others may enter
    base.chmod(0o755)
    layout = make_layout(base, mode=0o644)
    writer = make_writer(layout)

    def look() -> None:
        os.setgid(65534)
        os.setuid(65534)
        assert state(layout, writer.directory) == LIVING
        with pytest.raises(PermissionError):
            (writer.directory / "x").touch()

    try:
        assert in_child(look) == 0
        writer.close()
    finally:
        shutil.rmtree(base)


# -- forks -------------------------------------------------------------------------------------------------------


def test_a_forked_child_gets_a_stream_of_its_own(tmp_path: Path):
    """The child's records go to another stream; the parent's chain is not touched and its lock is still held."""
    provider = make_provider(tmp_path)
    log = provider.get_audit_logger()
    log.emit("user.login", actor="parent", outcome="success")
    assert provider.journal.writer is not None
    parents = provider.journal.writer.directory

    def child() -> None:
        receipt = log.emit("user.login", actor="child", outcome="success", durability="disk")
        assert receipt.sequence == 2
        assert receipt.stream_id != parents.name
        provider.shutdown()

    assert in_child(child) == 0
    assert state(provider.journal.layout, parents) == LIVING
    log.emit("user.login", actor="parent", outcome="success")
    provider.shutdown()
    assert len(audit(parents).record_ids) == 2
    (childs,) = [s for s in list_streams(provider.journal.layout) if s.path != parents]
    assert len(audit(childs.path).record_ids) == 1
    pids = {stream.metadata.pid for stream in list_streams(provider.journal.layout)}
    assert len(pids) == 2
    ids = {s.metadata.resource.get("service.instance.id") for s in list_streams(provider.journal.layout)}
    assert len(ids) == 2


def test_a_child_that_emits_nothing_leaves_no_trace(tmp_path: Path):
    """A stream is made on first use, in a child too."""
    provider = make_provider(tmp_path)
    provider.get_audit_logger().emit("user.login", actor="parent", outcome="success")
    assert in_child(lambda: None) == 0
    assert in_child(provider.shutdown) == 0
    assert len(list_streams(provider.journal.layout)) == 1
    assert state(provider.journal.layout, list_streams(provider.journal.layout)[0].path) == LIVING
    provider.shutdown()


def test_forking_while_other_threads_emit(tmp_path: Path):
    """Whatever lock another thread holds then, the child neither hangs nor writes into the parent's stream."""
    provider = make_provider(tmp_path, FaultyFiles(sync_s=0.001, log=False), segment_bytes=20_000)
    log = provider.get_audit_logger()
    stop = threading.Event()
    emitted: list[str] = []

    def run() -> None:
        while not stop.is_set():
            receipt = log.emit("user.login", actor="parent", outcome="success", durability="disk")
            emitted.append(receipt.record_id)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()

    def child() -> None:
        for durability in ("process", "disk"):
            log.emit("user.login", actor="child", outcome="success", durability=durability)
        provider.shutdown()

    try:
        time.sleep(0.05)
        codes = [in_child(child) for _ in range(25)]
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert codes == [0] * 25
    provider.shutdown()
    streams = list_streams(provider.journal.layout)
    assert len(streams) == 26
    lengths = {stream.path.name: audit(stream.path) for stream in streams}
    assert provider.journal.writer is not None
    parents = lengths.pop(provider.journal.writer.stream_id)
    assert sorted(parents.record_ids) == sorted(emitted)
    assert {len(child.sequences) for child in lengths.values()} == {4}


def test_a_child_that_lets_go_of_a_lock_does_not_take_it_from_its_parent(tmp_path: Path):
    """Both share one open file, so unlocking in the child would unlock for the parent."""
    lock = FileLock(OS_FILES, tmp_path / "lock", 0o600)
    assert lock.acquire()
    for let_go in (lock.forget, lock.release):
        assert in_child(let_go) == 0
        assert not FileLock(OS_FILES, tmp_path / "lock", 0o600).acquire()
    lock.release()


def test_a_child_made_without_pythons_hooks_does_not_write_into_the_parents_stream(tmp_path: Path):
    """A fork by a C library tells nobody, and is noticed at the next record."""
    provider = make_provider(tmp_path)
    log = provider.get_audit_logger()
    log.emit("user.login", actor="parent", outcome="success")
    fork = ctypes.PyDLL(None).fork
    assert in_child(lambda: log.emit("user.login", actor="child", outcome="success"), fork) == 0
    log.emit("user.login", actor="parent", outcome="success")
    assert provider.journal.writer is not None
    parents = provider.journal.writer.directory
    assert state(provider.journal.layout, parents) == LIVING
    provider.shutdown()
    assert sorted(len(audit(s.path).record_ids) for s in list_streams(provider.journal.layout)) == [1, 2]


def test_a_closed_descriptor_number_is_not_closed_for_somebody_else(layout: Layout, tmp_path: Path):
    """A child that lets go of the parent's stream closes a number only if it still names the stream's file."""
    writer = make_writer(layout)
    for fd in (writer._state.segment.fd, writer._state.owner_lock._fd):
        os.close(fd)
    mine = [os.open(tmp_path / "mine", os.O_RDWR | os.O_CREAT) for _ in range(2)]
    writer.abandon()
    for fd in mine:
        os.fstat(fd)
        os.close(fd)


# -- inherited descriptors ---------------------------------------------------------------------------------------


OWNER = """
import os, sys, time
from pathlib import Path
from support.journal import make_layout, make_writer, make_entry
layout = make_layout(Path(sys.argv[1]))
writer = make_writer(layout)
writer.append(make_entry("r-2"))
os.set_inheritable(writer._state.owner_lock._fd, True)
if sys.argv[2] == "spawn":
    os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
print(writer.directory, flush=True)
time.sleep(60)
"""


def start_owner(tmp_path: Path, what: str) -> tuple[subprocess.Popen[str], Path]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, tmp_path, what],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert owner.stdout is not None
    return owner, Path(owner.stdout.readline().strip())


def test_a_stream_is_dead_although_a_child_inherited_its_lock(tmp_path: Path, layout: Layout):
    """After the owner's SIGKILL the lock is still taken by a program that it had started; the process is not there."""
    owner, directory = start_owner(tmp_path, "spawn")
    try:
        assert state(layout, directory) == LIVING
        os.kill(owner.pid, signal.SIGKILL)
        owner.wait(10)
        assert not StreamDirectory(layout, directory).owner_lock().acquire(), "somebody has inherited the lock"
        assert state(layout, directory) == DEAD
    finally:
        os.killpg(owner.pid, signal.SIGKILL)
        owner.stdout.close() if owner.stdout else None


def test_a_killed_owners_lock_is_free(tmp_path: Path, layout: Layout):
    """Without an heir, the kernel gives the lock back."""
    owner, directory = start_owner(tmp_path, "alone")
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait(10)
    lock = StreamDirectory(layout, directory).owner_lock()
    assert lock.acquire()
    lock.release()
    assert state(layout, directory) == DEAD
    owner.stdout.close() if owner.stdout else None


def test_an_orderly_end_frees_the_lock_also_where_it_was_inherited(layout: Layout):
    """The owner itself unlocks; a child that still has the descriptor does not hold the stream."""
    writer = make_writer(layout)
    heir = os.dup(writer._state.owner_lock._fd)
    writer.close()
    assert StreamDirectory(layout, writer.directory).owner_lock().acquire()
    os.close(heir)


def test_a_taken_lock_is_believed_where_the_process_id_proves_nothing(layout: Layout, monkeypatch: pytest.MonkeyPatch):
    """A living owner in another container or on another kernel has a process id that does not exist here."""
    writer = make_writer(layout)
    path = writer.directory / NAME
    said = msgspec.json.decode(path.read_bytes())
    for changed, expected in [
        ({"pid": 2**22 - 1}, DEAD),
        ({"pid": 2**22 - 1, "pid_namespace": "pid:[1]"}, LIVING),
        ({"pid": 2**22 - 1, "boot_id": "another"}, LIVING),
        ({}, LIVING),
    ]:
        path.write_bytes(msgspec.json.encode({**said, **changed}))
        assert state(layout, writer.directory) == expected, changed
    writer.close()
    assert state(layout, writer.directory) == DEAD


def test_whether_an_owner_lives(monkeypatch: pytest.MonkeyPatch):
    """The process, on the same kernel and in the same space of ids; one of another user lives too."""
    here, space = locks.boot_id(), locks.pid_namespace()
    assert owner_lives(os.getpid(), here, space)
    assert owner_lives(os.getpid(), here)
    assert not owner_lives(2**22 - 1, here, space)
    assert owner_lives(2**22 - 1, "another boot", space)
    assert owner_lives(2**22 - 1, here, "another space")

    def not_ours(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", not_ours)
    assert owner_lives(1, here, space)


# -- making a stream ---------------------------------------------------------------------------------------------


def test_an_adopter_never_finds_a_new_stream_without_its_lock(tmp_path: Path):
    """Streams are made while another process looks for dead ones as fast as it can: it takes none of them."""
    layout = make_layout(tmp_path)
    adopter = subprocess.Popen(
        [sys.executable, "-c", ADOPTER, tmp_path],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert adopter.stdout is not None
    assert adopter.stdin is not None
    adopter.stdout.readline()
    writers = [make_writer(Layout(layout.root, files=FaultyFiles(sync_s=0.0, log=False))) for _ in range(150)]
    adopter.stdin.close()
    looks, taken = adopter.stdout.read().split()
    adopter.wait(10)
    adopter.stdout.close()
    assert int(looks) > 100
    assert int(taken) == 0
    for writer in writers:
        writer.append(make_entry())
        writer.abandon()


ADOPTER = """
import select, sys
from pathlib import Path
from support.journal import make_layout
from otel_audit.journal.streams import DEAD, list_streams
layout = make_layout(Path(sys.argv[1]))
print("ready", flush=True)
looks = taken = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    for stream in list_streams(layout)[-3:]:
        looks += 1
        taken += stream.owner_state() == DEAD
print(looks, taken)
"""


def test_everything_of_a_stream_is_on_the_disk_before_its_first_record(tmp_path: Path):
    """Metadata, then the directory under its final name, then segment and record; it is locked before it is seen."""
    files = FaultyFiles()
    layout = make_layout(tmp_path, files)
    del files.calls[:]
    writer = make_writer(layout)
    (lock,) = files.calls_of("lock")
    (shown,) = files.calls_of("rename", path="*/.new-*-*-*-*-*")[-1:]
    metadata_sync = files.calls_of("fdatasync", path=f"*/.new-*/.{NAME}.*")[0]
    first_write = files.calls_of("write", path="*.jsonl")[0]
    synced = [call for call in files.calls_of("fsync", path=str(layout.streams)) if call.begun > shown.ended]
    assert lock.ended < metadata_sync.begun < metadata_sync.ended < shown.begun
    assert synced
    assert synced[0].ended < first_write.begun
    writer.close()
