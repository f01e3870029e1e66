"""Noticing that this process is a forked child, however it was forked, without a system call at every record.

Python tells of its own forks; a library that forks by itself (``fork`` of the C library) tells nobody, and the child
would go on in its parent's stream, give out its parent's record ids and wait for its parent's threads.  Asking for the
process id costs as much as a fifth of the rest of ``append``.  Linux can instead be asked to wipe a page of memory in
every child: one look at that page says the same.

Everything that belongs to one process hangs on this: it registers with :func:`in_child`, and whoever is about to use it
looks at ``PROCESS[0]`` first and calls :func:`notice_fork` where that is false.
"""

from __future__ import annotations

import mmap
import os
import sys
import threading
from collections.abc import Callable
from typing import Final, Protocol

_WIPE_ON_FORK: Final = 18
"""``MADV_WIPEONFORK`` of Linux 4.14; the module ``mmap`` does not name it."""


class Mark(Protocol):
    """Something of which the first item is true in the process that set it, and in no child of that."""

    def __getitem__(self, place: int, /) -> int:
        """True or false."""

    def __setitem__(self, place: int, value: int, /) -> None:
        """Mark this process."""


class _ProcessId:
    """A mark for systems that cannot wipe memory."""

    def __init__(self) -> None:
        self._pid = os.getpid()

    def __getitem__(self, _: int, /) -> int:
        return self._pid == os.getpid()

    def __setitem__(self, _: int, __: int, /) -> None:
        self._pid = os.getpid()


def mark_process() -> Mark:
    """A mark of this process."""
    if sys.platform != "linux":
        return _ProcessId()
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(_WIPE_ON_FORK)
    except OSError:  # an older kernel, or something that only looks like Linux
        page.close()
        return _ProcessId()
    page[0] = 1
    return page


PROCESS: Final = mark_process()
"""Its first item is false in a forked child until :func:`notice_fork` has run there."""

_forget: Final[list[Callable[[], None]]] = []
_noticing: Final[dict[int, threading.RLock]] = {}


def in_child(forget: Callable[[], None]) -> None:
    """Have something called in every forked child, before what it is about is used there.

    Args:
        forget: lets go of what is the parent's.  It takes no lock, because another thread of the parent may have held
            it, and may be called twice in one child: where a signal handler struck within the first call.
    """
    _forget.append(forget)


def notice_fork() -> None:
    """In a forked child, the first time: let everything that registered forget what is its parent's."""
    lock = _noticing.setdefault(os.getpid(), threading.RLock())  # one that no thread of the parent can hold
    if lock._is_owned():  # type: ignore[attr-defined]  # noqa: SLF001 - a signal handler within the call below
        return
    with lock:
        if PROCESS[0]:
            return
        for forget in _forget:
            forget()
        for pid in [pid for pid in _noticing if pid != os.getpid()]:
            _noticing.pop(pid, None)
        PROCESS[0] = 1


def notice_here() -> None:
    """Notice a fork, before anything of this process is used."""
    if not PROCESS[0]:
        notice_fork()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=notice_fork)
