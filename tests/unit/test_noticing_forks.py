"""A forked child notices that it is one, however it was forked, and forgets what is its parent's."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from otel_audit import forks
from otel_audit.batch import RecordBatch
from otel_audit.context import in_own_thread
from otel_audit.forks import Mark, mark_process
from otel_audit.journal.threads import OwnThread
from otel_audit.record import new_record_id
from support.journal import in_child
from support.provider import LOGIN, login, make_provider


def _in_child(fork: Callable[[], int], mark: Mark) -> bytes:
    read, write = os.pipe()
    pid = fork()
    if pid == 0:
        os.write(write, b"same" if mark[0] else b"child")
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(write)
    with open(read, "rb") as pipe:
        return pipe.read()


@pytest.mark.parametrize("platform", ["linux", "darwin"])
@pytest.mark.parametrize("fork", [os.fork, lambda: ctypes.CDLL(None).fork()], ids=["os.fork", "libc.fork"])
def test_a_mark_is_gone_in_a_child(fork: Callable[[], int], platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever forks, and whether the system can wipe memory or not, a child sees that it is one."""
    if platform == "linux" and sys.platform != "linux":
        pytest.skip("only Linux can wipe memory on a fork")
    monkeypatch.setattr(forks.sys, "platform", platform)
    mark = mark_process()
    assert mark[0]
    assert _in_child(fork, mark) == b"child"
    assert mark[0]


def _fork_behind_pythons_back() -> int:
    """As a library in C does.  It keeps the interpreter's lock meanwhile, or no child could run Python."""
    pid: int = ctypes.PyDLL(None).fork()
    return pid


def _in_silent_child(run: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> int:
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", _fork_behind_pythons_back)
        return in_child(run)


def test_record_ids_are_not_given_out_twice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They are made ahead; a child of whatever kind makes its own."""
    new_record_id()
    ids = tmp_path / "ids"
    assert _in_silent_child(lambda: ids.write_text(" ".join(new_record_id() for _ in range(100))), monkeypatch) == 0
    assert not {new_record_id() for _ in range(100)} & set(ids.read_text().split())


class Appends:
    """An exporter that appends ids to a file, whichever process it is in."""

    single_writer = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def export(self, batch: RecordBatch, timeout_s: float) -> None:
        """A line for each record."""
        with self.path.open("a") as file:
            file.write("".join(f"{record.record_id}\n" for record in batch.records if not record.is_control))

    def close(self) -> None:
        """Nothing is open."""


def test_a_child_of_a_c_library_delivers_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It has a stream, shippers and counters of its own, whatever it calls first."""
    path = tmp_path / "out.jsonl"
    with make_provider(tmp_path / "journal", destinations={"one": Appends(path)}) as provider:
        logger = provider.get_audit_logger()
        mine = login(logger, record_id="parents")
        assert provider.flush(20)

        def work() -> None:
            assert provider.status().stream_id is None
            receipt = login(logger, record_id="childs", durability="delivered", timeout_s=20)
            assert receipt.stream_id != mine.stream_id
            assert provider.shutdown(20)

        def asynchronous() -> None:
            receipt = asyncio.run(logger.aemit("user.login", **LOGIN, record_id="parents", durability="disk"))
            assert receipt.stream_id != mine.stream_id
            assert provider.shutdown(20)

        assert _in_silent_child(work, monkeypatch) == 0
        assert _in_silent_child(asynchronous, monkeypatch) == 0
        assert login(logger, record_id="parents") == mine
        assert provider.flush(20)
    assert sorted(path.read_text().split()) == ["childs", "parents", "parents"]


def test_a_thread_of_a_child_is_not_taken_for_one_of_ours(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Identifiers of its parent's threads are used again in a child: what they log is captured there."""
    begun, go_on = threading.Event(), threading.Event()

    def ours() -> None:
        begun.set()
        go_on.wait(60)

    thread = OwnThread(ours)
    thread.start()
    assert begun.wait(20)
    path = tmp_path / "found"

    def work() -> None:
        found: list[tuple[bool, bool]] = []

        def theirs() -> None:
            found.append((threading.get_ident() == thread._ident, in_own_thread()))

        for _ in range(3):
            other = threading.Thread(target=theirs)
            other.start()
            other.join()
        assert not any(own for _, own in found)
        path.write_text(str(found))

    assert _in_silent_child(work, monkeypatch) == 0
    go_on.set()
    assert thread.join(20)
    assert path.exists()


def test_a_signal_in_the_middle_of_noticing_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes in between goes on with what is forgotten so far; nobody waits for itself."""
    calls: list[str] = []

    def forget() -> None:
        calls.append("forget")
        forks.notice_fork()

    monkeypatch.setattr(forks, "_forget", [forget])

    def work() -> None:
        forks.notice_fork()
        assert calls == ["forget"]
        forks.notice_fork()
        assert calls == ["forget"]

    assert _in_silent_child(work, monkeypatch) == 0
    assert calls == []
