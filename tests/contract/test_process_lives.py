"""However a process lives and dies: what it was told is journaled arrives.  One short program for each way.

The ways to end one process stand in ``test_process_ends.py``, servers of other people in ``test_servers.py``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from otel_audit.journal.layout import Layout
from otel_audit.journal.streams import list_streams
from support.delivery import until
from support.journal import needs
from support.program import Place
from support.provider import stored


@dataclass(frozen=True)
class Case:
    """A program and what is to come of it.

    Attributes:
        name: of the case.
        source: what it does; ``configure`` and ``emit`` are there.
        records: how many of its ``emit`` have returned in the end; at least so many where ``more`` is true.
        code: its exit code.
        streams: how many streams are in the journal when it has ended, where nothing was delivered.
    """

    name: str
    source: str
    records: int
    more: bool = False
    code: int = 0
    streams: int | None = None


CASES = [
    Case(
        "a fork in mid-emit while other threads emit",
        """
        configure(Down(), exit_timeout=0)
        done = threading.Event()
        def work():
            while not done.is_set(): emit("parent")
        threads = [threading.Thread(target=work) for n in range(3)]
        for thread in threads: thread.start()
        for n in range(20):
            if os.fork() == 0:
                signal.alarm(60)
                for m in range(5): emit("child")
                os._exit(0)
            assert os.wait()[1] == 0
        done.set()
        for thread in threads: thread.join()
        """,
        records=103,
        more=True,
        streams=21,
    ),
    Case(
        "a fork by a library in C",
        """
        import ctypes
        configure(Down(), exit_timeout=0)
        for n in range(10): emit("parent")
        ended = []
        while ended.count(0) < 5 and len(ended) < 12:
            if ctypes.PyDLL(None).fork() == 0:
                signal.alarm(8)
                for m in range(10): emit("child")
                os._exit(0)
            ended.append(os.wait()[1])
        # CPython is not told of the fork, and a child can hang; what its emit has returned for is there
        assert ended.count(0) == 5 and set(ended) <= {0, signal.SIGALRM}, ended
        """,
        records=60,
        more=True,
    ),
    Case(
        "sys.exit in threads",
        """
        configure()
        def work():
            emit()
            sys.exit(3)
        threads = [threading.Thread(target=work) for n in range(10)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        emit()
        """,
        records=11,
    ),
    Case(
        "threads that go on when the main thread has ended",
        """
        configure()
        def work():
            threading.main_thread().join()
            for n in range(20): emit()
        for n in range(3): threading.Thread(target=work).start()
        """,
        records=60,
    ),
    Case(
        "concurrent.futures: threads at interpreter exit",
        """
        from concurrent.futures import ThreadPoolExecutor
        configure()
        pool = ThreadPoolExecutor(4)
        for n in range(50): pool.submit(emit)
        """,
        records=50,
    ),
    Case(
        "coroutines that are cancelled",
        """
        import asyncio, uuid
        configure()
        async def main():
            for n in range(200):
                ids = str(uuid.uuid4())
                task = asyncio.create_task(audit.aemit(
                    "user.login", actor="u", outcome="success", record_id=ids, body="",
                    durability=("disk", "delivered")[n % 2]))
                await asyncio.sleep(0 if n % 4 else 0.005)
                task.cancel()
                try: await task
                except asyncio.CancelledError: pass
                await asyncio.to_thread(lambda: emit(record_id=ids))
        asyncio.run(main())
        otel_audit.flush(60)
        assert otel_audit.status().records == 201, otel_audit.status()
        """,
        records=200,
    ),
    Case(
        "uvloop",
        """
        import asyncio, uvloop
        configure()
        async def one(n):
            with otel_audit.audit_context(tenant=f"t-{n}"):
                receipt = await audit.aemit("user.login", actor="u", outcome="success", durability="delivered")
            os.write(_fd, receipt.record_id.encode() + b"\\n")
        async def main():
            assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
            await asyncio.gather(*(one(n) for n in range(100)))
        loop = uvloop.new_event_loop()
        loop.run_until_complete(main())
        loop.close()
        """,
        records=100,
    ),
    Case(
        "a signal handler that logs in mid-emit",
        """
        configure(loggers=["audit"])
        log = logging.getLogger("audit")
        count = 0
        def handle(*_):
            global count
            count += 1
            log.info("signal.came", extra={"actor": "u", "outcome": "success"})
            if count < 300: signal.setitimer(signal.ITIMER_REAL, 0.0003)  # the next one when this one is done
        signal.signal(signal.SIGALRM, handle)
        emit()
        handle()
        while count < 300: emit()
        assert otel_audit.flush(60)
        delivered, emitted = otel_audit.status().destinations[0].delivered, os.fstat(_fd).st_size // 37
        assert delivered == emitted + count + 1, (delivered, emitted, count, otel_audit.status())
        """,
        records=1,
        more=True,
    ),
    Case(
        "logging from __repr__",
        """
        configure(loggers=["audit"])
        log = logging.getLogger("audit")
        class Talks:
            def __repr__(self):
                emit("from within")
                log.info("repr.asked", extra={"actor": "u", "outcome": "success"})
                return "Talks"
            __str__ = __repr__
        for n in range(20):
            emit(Talks())
            log.info("user.login %r", Talks(), extra={"actor": "u", "outcome": "success"})
        """,
        records=60,
        more=True,
    ),
    Case(
        "a daemoniser that closes all descriptors",
        """
        configure(Down(), exit_timeout=0)
        emit("before")
        if os.fork(): os._exit(0)
        os.setsid()
        if os.fork(): os._exit(0)
        os.closerange(0, 4096)
        for n in range(3): os.open(os.devnull, os.O_RDWR)
        _fd = os.open(returned, os.O_WRONLY | os.O_APPEND)
        for n in range(50): emit("daemon")
        os._exit(0)
        """,
        records=51,
        streams=2,
    ),
    Case(
        "all descriptors closed under a stream, and their numbers used again",
        """
        configure(Down(), exit_timeout=0)
        emit("before")
        os.closerange(3, 4096)
        _fd = os.open(returned, os.O_WRONLY | os.O_APPEND)
        others = [os.open("customers", os.O_RDWR | os.O_CREAT) for n in range(20)]
        for n in range(50): emit("after")
        otel_audit.default.get_provider().journal.sync()
        """,
        records=51,
    ),
    Case(
        "records of other atexit handlers, in threads that they start",
        """
        configure()
        def late():
            emit("late")
            try:
                thread = threading.Thread(target=emit)
                thread.start()
                thread.join()
            except RuntimeError: emit("no thread any more")
        atexit.register(late)
        """,
        records=2,
    ),
    Case(
        "an interpreter that ends while garbage with finalisers is left",
        """
        configure()
        class Ends:
            def __init__(self): self.me = self
            def __del__(self): emit("finalised")
        keep = [Ends() for n in range(5)]
        emit()
        """,
        records=1,
        more=True,
    ),
    Case(
        "a child that replaces itself by another program",
        """
        configure(Down(), exit_timeout=0)
        emit("parent")
        if os.fork() == 0:
            for n in range(10): emit("child")
            os.execv("/bin/true", ["true"])
        os.wait()
        """,
        records=11,
        streams=2,
    ),
]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A journal and its destination."""
    return Place(tmp_path)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_nothing_is_lost_by(place: Place, case: Case) -> None:
    """Every record whose ``emit`` returned arrives, from the process itself or from the next one; chains are whole."""
    place.run(case.source, case.code)
    until(lambda: len(place.returned) >= case.records, 60)  # a daemon goes on when its parent has ended
    streams = list_streams(Layout(place.journal))
    until(lambda: all(stream.owner_state() == "dead" for stream in streams), 60)
    stored(place.journal)  # fails where a chain is broken
    if case.streams is not None:
        assert len(list_streams(Layout(place.journal))) == case.streams
    place.deliver_the_rest()
    assert len(place.returned) == case.records or case.more
    assert len(set(place.returned)) == len(place.returned)
    assert place.missing() == set()
    assert list_streams(Layout(place.journal)) == []


SUBINTERPRETER = """
try: import _interpreters as interpreters
except ImportError: import _xxsubinterpreters as interpreters
run = getattr(interpreters, "exec", None) or interpreters.run_string
def make(shared):
    if sys.version_info >= (3, 13): return interpreters.create("legacy" if shared else "isolated")
    return interpreters.create(isolated=not shared)
"""


def test_a_subinterpreter_that_shares_the_lock_is_like_a_process_of_its_own(place: Place) -> None:
    """It has a configuration, a stream and shippers of its own, beside those of the main interpreter."""
    needs(sys.version_info[:2] != (3, 12), "subinterpreters", "on Python 3.12 msgspec loads into one interpreter only")
    place.run(
        SUBINTERPRETER
        + """
configure()
emit()
inner = f'''
import os
import otel_audit
otel_audit.configure(journal={root!r}, destinations={{"one": {{"type": "file", "path": {arrived!r}}}}})
for n in range(20):
    receipt = otel_audit.get_audit_logger().emit("user.login", actor="u", outcome="success")
    os.write({_fd}, receipt.record_id.encode() + b"\\\\n")
otel_audit.shutdown(60)
'''
failed = run(make(shared=True), inner)
assert not failed, failed
emit()
"""
    )
    place.deliver_the_rest()
    assert len(place.returned) == 22
    assert place.missing() == set()


def test_a_subinterpreter_with_a_lock_of_its_own_says_that_it_cannot(place: Place) -> None:
    """A library that this one is built on does not load there: the import fails, and nothing is recorded in silence."""
    needs(sys.version_info >= (3, 12), "owngil", "interpreters with a lock of their own came with Python 3.12")
    place.run(
        SUBINTERPRETER
        + """
try:
    failed = run(make(shared=False), "import otel_audit; otel_audit.AuditHandler")
    said = failed.formatted
except Exception as error:
    said = str(error)
assert "does not support loading in subinterpreters" in said, said
"""
    )


METHODS = ["fork", "spawn", "forkserver"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("how", ["multiprocessing", "concurrent.futures"])
def test_pools_of_processes_lose_nothing(place: Place, method: str, how: str) -> None:
    """Workers that are forked go on with what was configured; others configure for themselves.  All of it arrives."""
    program = place.path / "program.py"
    program.write_text(
        f"""
import concurrent.futures, multiprocessing, os, signal
import otel_audit
from otel_audit.default import current

def configure(root, arrived):
    otel_audit.configure(journal=root, destinations={{"one": {{"type": "file", "path": arrived}}}})

def work(n, root, arrived, returned):
    if "{method}" != "fork" and current() is None:
        configure(root, arrived)
    receipt = otel_audit.get_audit_logger().emit("user.login", actor=f"w{{n}}", outcome="success")
    with open(returned, "a") as file:
        file.write(receipt.record_id + "\\n")
    return os.getpid()

def main(root, arrived, returned):
    configure(root, arrived)
    context = multiprocessing.get_context("{method}")
    tasks = [(n, root, arrived, returned) for n in range(40)]
    if "{how}" == "multiprocessing":
        with context.Pool(3, maxtasksperchild=5) as pool:
            pids = set(pool.starmap(work, tasks, chunksize=1))
    else:
        with concurrent.futures.ProcessPoolExecutor(3, mp_context=context) as pool:
            pids = set(pool.map(work, *zip(*tasks)))
    assert os.getpid() not in pids
"""
    )
    place.run(
        """
        sys.path.insert(0, os.getcwd())
        import program
        program.main(root, arrived, returned)
        """
    )
    place.deliver_the_rest()
    assert len(place.returned) == 40
    assert place.missing() == set()


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise ZeroDivisionError", 1),
        ("signal.raise_signal(signal.SIGINT)", -2),
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(0)); signal.raise_signal(signal.SIGTERM)", 0),
        ("threading.Thread(target=emit).start()", 0),
        ("import asyncio; asyncio.run(audit.aemit('a.b', actor='u', outcome='success'))", 0),
        ("import asyncio; asyncio.run(otel_audit.ashutdown(0.3))", 0),
        ("otel_audit.shutdown(0.3)", 0),
    ],
)
def test_every_orderly_end_is_bounded(place: Place, ends: str, code: int) -> None:
    """A destination that never answers holds no process back; what is left is said, and shipped at the next start."""
    errors = place.run(f"configure(Hangs(), exit_timeout=0.3)\nfor n in range(10): emit()\n{ends}", code)
    if "shutdown" not in ends:
        assert "records are still to be delivered; they are in" in errors
    else:
        assert stored(place.journal)
    place.deliver_the_rest()
    assert place.missing() == set()
    assert len(place.returned) >= 10
