"""The mark of a process: true where it was made, false in every child, however that was forked."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

import pytest

from otel_audit.journal import forks
from otel_audit.journal.forks import Mark, mark_process


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
