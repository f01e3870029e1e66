"""A file layer that fails on purpose: for tests of what a journal does when the operating system refuses.

Example::

    files = FaultyFiles()
    provider = AuditProvider(settings, layout=Layout(settings.journal, files=files))
    files.fail("fdatasync", errno.EIO, nth=3)
    files.write_short(10, path="*.jsonl")
    files.interrupt("write", nth=7)
"""

from __future__ import annotations

import errno
import functools
import itertools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final, TypeVar

from ..journal.files import Files

_T = TypeVar("_T")

_BY_PATH: Final = frozenset({"open", "stat", "listdir", "rename", "unlink", "rmdir", "chown", "mkdir", "truncate"})
_SYNCS: Final = ("fsync", "fdatasync")


@dataclass(eq=False)
class Call:
    """One system call.

    Attributes:
        operation: the name of the method of :class:`~otel_audit.journal.files.Files`.
        path: the file, as far as it is known.
        fd: the descriptor, -1 where there is none; what ``open`` returned.
        size: how many bytes were to be written.
        begun, ended: places in one order of all beginnings and ends, of all threads; ``ended`` is 0 while it lasts.
        error: what it raised.
    """

    operation: str
    path: Path | None
    fd: int
    size: int
    begun: int
    ended: int = 0
    error: BaseException | None = None


@dataclass(eq=False)
class Fault:
    """What shall happen in which calls.  Made by the methods of :class:`FaultyFiles`.

    Attributes:
        hits: how many calls it has struck.
    """

    operation: str
    nth: int
    times: int | None
    path: str | None
    when: Callable[[Call], bool] | None
    before: Callable[[Call], None] | None = None
    after: Callable[[Call], None] | None = None
    keep: int | None = None
    hits: int = 0
    _seen: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def strikes(self, call: Call) -> bool:
        """Whether this call is one of those that are meant; counts it."""
        if call.operation != self.operation:
            return False
        if self.path is not None and not (call.path is not None and fnmatch(str(call.path), self.path)):
            return False
        if self.when is not None and not self.when(call):
            return False
        number = next(self._seen)
        if number < self.nth or (self.times is not None and number >= self.nth + self.times):
            return False
        self.hits += 1
        return True


class FaultyFiles(Files):
    """The real system calls, logged, with faults put in.  Several faults may strike the same call.

    In every method, ``nth`` is the first call that is struck, of those that match, and ``times`` how many are from then
    on (``None``: all).  A call matches by its ``operation``, by its ``path`` (a pattern as in a shell, over the whole
    path; also for calls on a descriptor), and by ``when``, a function of the :class:`Call`.

    Args:
        sync_s: let ``fsync`` and ``fdatasync`` take exactly so long, in seconds, and touch no device.
        log: keep every call in ``calls``.

    Attributes:
        calls: every call, in the order in which they began.
        faults: those that are in force.
    """

    def __init__(self, *, sync_s: float | None = None, log: bool = True) -> None:
        self.calls: list[Call] = []
        self.faults: list[Fault] = []
        self._log = log
        self._order = itertools.count(1)
        self._paths: dict[int, Path] = {}
        for name in ("open", "pread", "fstat", "ftruncate", "close", "stat", "listdir", "rename", "unlink", "rmdir"):
            setattr(self, name, self._faulty(name, getattr(Files, name)))
        for name in ("chown", "dup", "fchmod", "pwrite", "reserve", "truncate"):
            setattr(self, name, self._faulty(name, getattr(Files, name)))
        for name in _SYNCS:
            real = getattr(Files, name) if sync_s is None else lambda _: time.sleep(sync_s)
            setattr(self, name, self._faulty(name, real))
        self.write = self._write

    # -- putting faults in ----------------------------------------------------------------------------

    def fail(
        self,
        operation: str,
        error: int = errno.EIO,
        *,
        nth: int = 1,
        times: int | None = 1,
        path: str | None = None,
        when: Callable[[Call], bool] | None = None,
    ) -> Fault:
        """Let calls raise :class:`OSError` with this ``errno``, instead of being made."""

        def refuse(call: Call) -> None:
            raise OSError(error, os.strerror(error), str(call.path) if call.path is not None else None)

        return self._put(Fault(operation, nth, times, path, when, before=refuse))

    def write_short(
        self,
        keep: int,
        *,
        error: int | None = errno.ENOSPC,
        nth: int = 1,
        times: int | None = 1,
        path: str | None = None,
        when: Callable[[Call], bool] | None = None,
    ) -> Fault:
        """Let ``write`` write only so many bytes, and the next one to that file raise ``error`` (``None``: go on)."""
        struck: set[Path | None] = set()

        def remember(call: Call) -> None:
            struck.add(call.path)

        def again(call: Call) -> bool:
            if call.path not in struck:
                return False
            struck.discard(call.path)
            return True

        if error is not None:
            self.fail("write", error, times=None, when=again)
        return self._put(Fault("write", nth, times, path, when, after=remember, keep=keep))

    def interrupt(
        self,
        operation: str,
        exception: type[BaseException] = KeyboardInterrupt,
        *,
        before: bool = False,
        nth: int = 1,
        times: int | None = 1,
        path: str | None = None,
        when: Callable[[Call], bool] | None = None,
    ) -> Fault:
        """Let calls raise this exception after they were made, or instead (``before``)."""

        def strike(_: Call) -> None:
            raise exception

        moment: dict[str, Any] = {"before" if before else "after": strike}
        return self._put(Fault(operation, nth, times, path, when, **moment))

    def slow(
        self,
        operation: str,
        seconds: float,
        *,
        nth: int = 1,
        times: int | None = None,
        path: str | None = None,
        when: Callable[[Call], bool] | None = None,
    ) -> Fault:
        """Let calls take so much longer."""
        return self._put(Fault(operation, nth, times, path, when, before=lambda _: time.sleep(seconds)))

    def run(
        self,
        operation: str,
        function: Callable[[Call], None],
        *,
        before: bool = False,
        nth: int = 1,
        times: int | None = 1,
        path: str | None = None,
        when: Callable[[Call], bool] | None = None,
    ) -> Fault:
        """Run something after calls, or before them; what it raises, the call raises."""
        moment: dict[str, Any] = {"before" if before else "after": function}
        return self._put(Fault(operation, nth, times, path, when, **moment))

    def heal(self) -> None:
        """Take all faults out."""
        self.faults = []

    def calls_of(self, *operations: str, path: str = "*") -> list[Call]:
        """The calls that were made of these operations, on paths that match; all operations where none is named."""
        return [
            call
            for call in self.calls
            if (not operations or call.operation in operations) and fnmatch(str(call.path), path)
        ]

    def _put(self, fault: Fault) -> Fault:
        self.faults = [*self.faults, fault]
        return fault

    # -- the calls --------------------------------------------------------------------------------------

    def mkdir(self, path: Path, mode: int) -> bool:
        """As the real one."""
        return self._call("mkdir", super().mkdir, path, mode)

    def lock(self, fd: int, *, shared: bool = False) -> bool:
        """As the real one."""
        return self._call("lock", functools.partial(super().lock, shared=shared), fd)

    def unlock(self, fd: int) -> None:
        """As the real one."""
        self._call("unlock", super().unlock, fd)

    def _faulty(self, operation: str, real: Callable[..., _T]) -> Callable[..., _T]:
        return lambda *arguments: self._call(operation, real, *arguments)

    def _write(self, fd: int, data: bytes) -> int:
        return self._call("write", Files.write, fd, data)

    def _call(self, operation: str, real: Callable[..., _T], *arguments: Any) -> _T:
        call = self._begin(operation, arguments)
        try:
            struck = [fault for fault in self.faults if fault.strikes(call)]
            for fault in struck:
                if fault.before is not None:
                    fault.before(call)
                if fault.keep is not None:
                    arguments = (arguments[0], arguments[1][: fault.keep])
            result = real(*arguments)
            self._follow(call, arguments, result)
            for fault in struck:
                if fault.after is not None:
                    fault.after(call)
            return result
        except BaseException as error:
            call.error = error
            raise
        finally:
            call.ended = next(self._order)

    def _begin(self, operation: str, arguments: tuple[Any, ...]) -> Call:
        by_path = operation in _BY_PATH
        path = Path(arguments[0]) if by_path else self._paths.get(arguments[0])
        size = len(arguments[1]) if operation in ("write", "pwrite") else 0
        call = Call(operation, path, -1 if by_path else arguments[0], size, next(self._order))
        if self._log:
            self.calls.append(call)
        return call

    def _follow(self, call: Call, arguments: tuple[Any, ...], result: Any) -> None:
        """Keep in mind which descriptor names which file."""
        if call.operation == "open":
            call.fd = result
            self._paths[result] = Path(arguments[0])
        elif call.operation == "dup" and call.path is not None:
            self._paths[result] = call.path
        elif call.operation == "rename":
            old, new = Path(arguments[0]), Path(arguments[1])
            for fd, path in list(self._paths.items()):
                if path == old or old in path.parents:
                    self._paths[fd] = new / path.relative_to(old)
        elif call.operation == "close":
            self._paths.pop(arguments[0], None)
