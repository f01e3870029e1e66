"""Re-entrance and interruption: signal handlers, finalisers and Ctrl-C at any moment of an emit."""

from __future__ import annotations

import collections
import contextlib
import functools
import gc
import json
import logging
import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from otel_audit import semconv as sc
from otel_audit.capture.stdlib import AuditHandler
from otel_audit.journal.files import Files
from otel_audit.provider import AuditLogger, AuditProvider
from otel_audit.receipt import AuditReceipt
from otel_audit.testing.files import FaultyFiles
from support.journal import audit, audit_all, make_provider


class NoSync(Files):
    """The real system calls, but for those that wait for a device."""

    fsync = staticmethod(lambda _: None)
    fdatasync = staticmethod(lambda _: None)


FEW, MANY = 3_000, 100_000

pytestmark = pytest.mark.timeout(120, method="thread")  # the other method needs the timer that is used here


@contextlib.contextmanager
def alarm(handler: Callable[..., None]) -> Iterator[None]:
    """Handle SIGALRM, and leave no timer behind."""
    before = signal.signal(signal.SIGALRM, handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Collect no garbage: what a handler raises while a callback of the collector runs is swallowed."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@dataclass
class Story:
    """What emits said, by the name that the test gave to each record."""

    returned: list[str] = field(default_factory=list)
    said: dict[str, object] = field(default_factory=dict)
    armed: bool = False
    by_lane: bool = False

    def interrupt(self, *_: object) -> None:
        """Handler of the signal; one that comes late, by way of another thread, is nothing."""
        if self.armed:
            raise KeyboardInterrupt

    def emit(self, log: AuditLogger, label: str, delay_s: float, **arguments: object) -> None:
        """Emit while a Ctrl-C is on its way."""
        facts: dict[str, object] = {"actor": "u-42", "outcome": "success", **arguments}
        if self.by_lane:
            facts["request_id"] = label
        else:
            facts["attributes"] = {"label": label}
        self.call(functools.partial(log.emit, "user.login", **facts), label, delay_s)

    def call(self, emit: Callable[[], object], name: str, delay_s: float) -> None:
        """Call what emits one record, while a Ctrl-C is on its way."""
        try:
            self.armed = True
            signal.setitimer(signal.ITIMER_REAL, delay_s)
            emit()
            self.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            self.returned.append(name)
        except KeyboardInterrupt as error:
            self.armed = False
            self.said[name] = getattr(error, "journaled", "nothing")

    def warm_up(self, log: AuditLogger) -> None:
        """What is done once per shape of record takes far longer than an emit: have it behind us."""
        for n in range(50):
            self.emit(log, f"warm-{n}", 0.0)

    def check(self, root: Path) -> collections.Counter[object]:
        """Compare with what is in the journal; how often what was said."""
        audit_all(root)
        there = collections.Counter(names_in(root))
        assert set(there.values()) <= {1}, "no record is there twice"
        for name in self.returned:
            assert there[name] == 1, f"{name}: emit returned"
        for name, said in self.said.items():
            if isinstance(said, bool):
                assert there[name] == int(said), f"{name}: journaled={said}"
        assert set(there) <= {*self.returned, *self.said}
        return collections.Counter(self.said.values())


def names_in(root: Path) -> list[str]:
    """The names of all records in a journal."""
    found = []
    for path in sorted(root.glob("streams/*/*.jsonl")):
        for line in path.read_bytes().splitlines():
            attributes = json.loads(line)["record"]["attributes"]
            if sc.CONTROL not in attributes:
                found.append((attributes.get("label") or attributes[sc.REQUEST_ID])["stringValue"])
    return found


@pytest.fixture
def closing() -> Iterator[list[AuditProvider]]:
    """Providers that are shut down in the end."""
    providers: list[AuditProvider] = []
    yield providers
    for provider in providers:
        provider.shutdown()


how_many = pytest.mark.parametrize(
    "count", [FEW, pytest.param(MANY, marks=[pytest.mark.slow, pytest.mark.timeout(1800, method="thread")])]
)


@how_many
@pytest.mark.parametrize(
    ("durability", "segment_bytes", "by_lane"),
    [
        ("process", 1 << 24, False),
        ("process", 15_000, False),
        ("process", 1 << 24, True),
        ("disk", 1 << 24, False),
        ("disk", 15_000, False),
        ("disk", 1 << 24, True),
    ],
)
def test_ctrl_c_at_any_moment_of_an_emit(
    tmp_path: Path, count: int, durability: str, segment_bytes: int, by_lane: bool
):
    """No hang, no gap, no fork of the chain; what returned is there, and what ``.journaled`` says is true."""
    provider = make_provider(tmp_path, NoSync(), segment_bytes=segment_bytes)
    log = provider.get_audit_logger()
    story = Story(by_lane=by_lane)
    story.warm_up(log)
    dice = random.Random(segment_bytes + len(durability))
    tries = 0
    before = len(os.listdir("/proc/self/fd"))
    with alarm(story.interrupt):
        while len(story.said) < count:
            tries += 1
            # now and then long enough for a change of segments, which takes longer than an emit
            delay_s = dice.uniform(1e-6, 90e-6 if dice.random() < 0.8 else 2e-3)
            story.emit(log, f"n-{tries}", delay_s, durability=durability)
    left_open = len(os.listdir("/proc/self/fd")) - before
    provider.shutdown()
    said = story.check(tmp_path / "journal")
    print(f"{left_open} left open, {tries} emits, what was said by {count} interrupted ones:", dict(said))
    assert said[True] > 0
    assert said[False] > 0
    assert said[None] <= count // 20, "that it is not known stays rare"
    assert left_open <= 2, "a background thread may be looking at something just then"
    (directory,) = (tmp_path / "journal" / "streams").iterdir()
    assert len(audit(directory).sequences) == len(names_in(tmp_path / "journal")) + 2


def log_with(handler: logging.Handler) -> logging.Logger:
    """A logger with one handler, known to nobody else."""
    log = logging.Logger("audit", logging.INFO)
    log.addHandler(handler)
    return log


def as_lane(log: logging.Logger, label: str) -> None:
    """A plain record, whose values are written straight to canonical bytes."""
    log.info("user.login", extra={"actor": "u-42", "outcome": "success", "label": label})


def with_care(log: logging.Logger, label: str) -> None:
    """A record that has to be looked at more closely."""
    log.info("user.%s", "login", extra={"actor": "u-42", "outcome": "success", "label": label})


@how_many
@pytest.mark.parametrize("way", [as_lane, with_care])
@pytest.mark.parametrize("segment_bytes", [1 << 24, 15_000])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it may strike the collector of garbage
def test_ctrl_c_at_any_moment_of_a_log_call(
    tmp_path: Path, count: int, way: Callable[[logging.Logger, str], None], segment_bytes: int
):
    """The same through ``logging`` and the handler: where the exception says something of the record, it is true.

    One that strikes ``logging`` itself, before the handler is called, says nothing.
    """
    provider = make_provider(tmp_path, NoSync(), segment_bytes=segment_bytes)
    log = log_with(AuditHandler(provider))
    story = Story()
    for number in range(50):
        way(log, f"warm-{number}")
        story.returned.append(f"warm-{number}")
    dice = random.Random(segment_bytes)
    tries = 0
    with alarm(story.interrupt):
        while len(story.said) < count:
            tries += 1
            delay_s = dice.uniform(1e-6, 120e-6 if dice.random() < 0.8 else 2e-3)
            story.call(functools.partial(way, log, f"n-{tries}"), f"n-{tries}", delay_s)
    provider.shutdown()
    said = story.check(tmp_path / "journal")
    print(f"{tries} log calls, what was said by {count} interrupted ones:", dict(said))
    assert said[True] > 0
    assert said[False] > 0
    assert said[None] <= count // 20, "that it is not known stays rare"
    (directory,) = (tmp_path / "journal" / "streams").iterdir()
    assert len(audit(directory).sequences) == len(names_in(tmp_path / "journal")) + 2


def test_ctrl_c_while_the_stream_is_made(tmp_path: Path):
    """The first emit can be interrupted at any moment; the next one makes a stream and goes on."""
    story = Story()
    dice = random.Random(7)
    for number in range(150):
        provider = make_provider(tmp_path, NoSync())
        log = provider.get_audit_logger()
        with alarm(story.interrupt):
            story.emit(log, f"first-{number}", dice.uniform(1e-6, 1.5e-3))
            story.emit(log, f"second-{number}", 0.0)
        assert story.returned[-1] == f"second-{number}"
        provider.shutdown()
    said = story.check(tmp_path / "journal")
    assert said.total() > 0
    assert said[False] + said["nothing"] > 0


def test_ctrl_c_in_one_thread_does_not_disturb_the_others(tmp_path: Path):
    """While the main thread is interrupted again and again, others get their records to the disk."""
    provider = make_provider(tmp_path, NoSync(), segment_bytes=20_000)
    log = provider.get_audit_logger()
    story = Story()
    others: list[str] = []
    stop = threading.Event()

    def run(thread: int) -> None:
        n = 0
        while not stop.is_set():
            name = f"other-{thread}-{n}"
            log.emit("user.login", actor="u", outcome="success", attributes={"label": name}, durability="disk")
            others.append(name)
            n += 1

    threads = [threading.Thread(target=run, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    story.warm_up(log)
    dice = random.Random(11)
    with alarm(story.interrupt):
        for number in range(600):
            story.emit(log, f"main-{number}", dice.uniform(1e-6, 1e-3), durability="disk")
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    provider.shutdown()
    assert len(others) > 0
    story.returned += others
    said = story.check(tmp_path / "journal")
    assert said.total() > 0


@pytest.mark.parametrize("capture", ["emit", "logging"])
def test_a_signal_handler_that_emits_ten_thousand_times_a_second(
    tmp_path: Path, closing: list[AuditProvider], capture: str
):
    """Handler and main thread share one chain; every receipt is true, deferred records are written too.

    On a slow machine the next signal comes before the handler is through with the last one; it may strike itself, but
    not without an end.
    """
    provider = make_provider(tmp_path, NoSync(), segment_bytes=100_000)
    closing.append(provider)
    audit_log = provider.get_audit_logger()
    log = log_with(AuditHandler(provider))
    counts = {"main": 0, "handler": 0}
    emitted: list[str] = []
    receipts: dict[str, list[AuditReceipt]] = {"main": [], "handler": []}
    depth = 0

    def emit(who: str) -> None:
        label = f"{who}-{counts[who]}"
        counts[who] += 1
        if capture == "logging":
            as_lane(log, label)
        else:
            facts = {"attributes": {"label": label}}
            receipts[who].append(audit_log.emit("user.login", actor="u", outcome="success", **facts))
        emitted.append(label)

    def handler(*_: object) -> None:
        nonlocal depth
        if depth < 3 and counts["handler"] < 5000:
            depth += 1
            try:
                emit("handler")
            finally:
                depth -= 1

    for _ in range(50):
        emit("main")
    with alarm(handler):
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
        while counts["handler"] < 3000 or counts["main"] < 3000:
            emit("main")
    provider.journal.sync()
    (directory,) = (tmp_path / "journal" / "streams").iterdir()
    audited = audit(directory)
    assert sorted(names_in(tmp_path / "journal")) == sorted(emitted)
    if capture == "logging":
        return
    everything = receipts["main"] + receipts["handler"]
    assert collections.Counter(audited.record_ids) == collections.Counter(r.record_id for r in everything)
    assert any(receipt.deferred for receipt in receipts["handler"]), "some struck within an emit"
    assert any(not receipt.deferred for receipt in receipts["handler"]), "some did not"
    assert not any(receipt.deferred for receipt in receipts["main"])
    place = {record_id: number for number, record_id in enumerate(audited.record_ids, start=2)}
    for receipt in everything:
        assert receipt.deferred or receipt.sequence == place[receipt.record_id]


@pytest.mark.parametrize("capture", ["emit", "logging"])
def test_a_finaliser_that_emits_during_an_emit(tmp_path: Path, closing: list[AuditProvider], capture: str):
    """The collector of garbage may run a ``__del__`` that audits at any moment; nothing hangs, nothing is lost."""
    files = FaultyFiles(sync_s=0.0, log=False)
    provider = make_provider(tmp_path, files, segment_bytes=50_000)
    closing.append(provider)
    log = provider.get_audit_logger()
    plain = log_with(AuditHandler(provider))
    receipts: list[AuditReceipt] = []
    labels: list[str] = []

    def emit(event_name: str) -> None:
        labels.append(f"n-{len(labels)}")
        label = labels[-1]
        if capture == "logging":
            plain.info(event_name, extra={"actor": "u", "outcome": "success", "label": label})
        else:
            receipts.append(log.emit(event_name, actor="u", outcome="success", attributes={"label": label}))

    class Session:
        def __init__(self) -> None:
            self.me = self  # only the collector finds it

        def __del__(self) -> None:
            emit("session.end")

    thresholds = gc.get_threshold()
    gc.set_threshold(3, 2, 2)

    struck: list[bool] = []

    def collect(_: object) -> None:
        Session()
        struck.append(gc.collect() > 0)  # within a collection there is no other

    files.run("write", collect, path="*.jsonl", nth=100, times=20)
    try:
        for _ in range(1000):
            Session()
            emit("user.login")
    finally:
        gc.set_threshold(*thresholds)
    gc.collect()
    assert len(labels) == 2020
    provider.journal.sync()
    (directory,) = (tmp_path / "journal" / "streams").iterdir()
    record_ids = audit(directory).record_ids
    assert sorted(names_in(tmp_path / "journal")) == sorted(labels)
    if capture == "emit":
        assert len(struck) == 20
        assert sum(receipt.deferred for receipt in receipts) >= sum(struck) > 0
        assert sorted(record_ids) == sorted(receipt.record_id for receipt in receipts)


def test_a_finaliser_that_emits_while_the_stream_is_made(tmp_path: Path, closing: list[AuditProvider]):
    """What is emitted while the first emit makes the stream waits for it, and comes behind the first record."""
    provider = make_provider(tmp_path)
    closing.append(provider)
    log = provider.get_audit_logger()
    inner: list[AuditReceipt] = []
    resource = provider.journal._resource

    def nested() -> dict[str, object]:
        if not inner:
            inner.append(log.emit("session.end", actor="u", outcome="success"))
        return resource()

    provider.journal._resource = nested
    outer = log.emit("user.login", actor="u", outcome="success")
    assert inner[0].deferred
    assert outer.sequence == 2
    (directory,) = (tmp_path / "journal" / "streams").iterdir()
    assert audit(directory).record_ids == [outer.record_id, inner[0].record_id]


def test_shutting_down_in_a_signal_handler(tmp_path: Path):
    """The usual SIGTERM handler: it may strike within an emit, and the stream is ended in order all the same."""
    providers = []  # none is collected meanwhile: what a handler raises within that is swallowed by the interpreter
    for number in range(25):
        path = tmp_path / str(number)
        provider = make_provider(path, NoSync())
        providers.append(provider)
        log = provider.get_audit_logger()
        receipts = [log.emit("user.login", actor="u", outcome="success")]

        def terminate(*_: object, provider: AuditProvider = provider) -> None:
            provider.shutdown(timeout_s=0.1)
            raise SystemExit

        with no_collection(), alarm(terminate), contextlib.suppress(SystemExit):
            signal.setitimer(signal.ITIMER_REAL, 0.003 + number * 1e-5)
            while True:
                receipts.append(log.emit("user.login", actor="u", outcome="success"))
        (directory,) = (path / "journal" / "streams").iterdir()
        audited = audit(directory)
        assert {receipt.record_id for receipt in receipts} <= set(audited.record_ids)
        last = max(directory.glob("*.jsonl")).read_bytes().splitlines()[-1]
        assert sc.SEQUENCE_END.encode() in last
