"""A forked child emits into a stream of its own and ships it; nothing is lost, and nothing is sent for the other."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_audit import AuditProvider
from otel_audit import semconv as sc
from otel_audit.batch import RecordBatch
from otel_audit.journal.layout import Layout
from otel_audit.journal.streams import list_streams
from otel_audit.journal.threads import OwnThread
from support.delivery import until
from support.provider import login, make_provider, stored


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal"


Make = Callable[..., AuditProvider]


@pytest.fixture
def make(root: Path) -> Iterator[Make]:
    """Makes providers with destinations, and ends them."""
    made: list[AuditProvider] = []

    def make(destinations: dict[str, Any], **options: Any) -> AuditProvider:
        made.append(make_provider(root, destinations=destinations, **options))
        return made[-1]

    yield make
    for provider in made:
        provider.shutdown(0.0)


class Appends:
    """An exporter that appends ids to a file with one write, whichever process it is in."""

    single_writer = False

    def __init__(self, path: Path) -> None:
        self.path = path

    def export(self, batch: RecordBatch, timeout_s: float) -> None:
        """Write a line for each record: which process, which record."""
        lines = [f"{os.getpid()} {record.record_id}\n" for record in batch.records if not record.is_control]
        with self.path.open("a") as file:
            file.write("".join(lines))

    def close(self) -> None:
        """Nothing is open."""


def in_child(work: Callable[[], object]) -> int:
    """Run it in a forked child; its pid.  The child ends with ``os._exit``."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, result = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(result) == 0
    return child


def test_a_forked_child_has_a_stream_of_its_own_and_ships_it(root: Path, tmp_path: Path, make: Make) -> None:
    """Its records arrive through its own shipper; those of the parent through the parent's, each once."""
    arrived = tmp_path / "arrived"
    provider = make({"one": Appends(arrived)})
    logger = provider.get_audit_logger()
    mine = login(logger)
    assert provider.flush(20)

    def work() -> None:
        receipt = login(logger, durability="delivered", timeout_s=20)
        assert receipt.stream_id != mine.stream_id
        assert receipt.sequence == 2
        assert provider.status().counters == {}
        assert provider.journal.writer is not None
        (tmp_path / "id").write_text(receipt.record_id)

    child = in_child(work)
    again = login(logger)
    assert again.stream_id == mine.stream_id
    assert again.sequence == 3
    assert provider.flush(20)
    lines = [line.split() for line in arrived.read_text().splitlines()]
    assert [record_id for pid, record_id in lines if int(pid) == os.getpid()] == [mine.record_id, again.record_id]
    assert [record_id for pid, record_id in lines if int(pid) == child] == [(tmp_path / "id").read_text()]


def test_a_child_that_dies_at_once_loses_nothing(root: Path, tmp_path: Path, make: Make) -> None:
    """It emits and is gone before its shipper has begun: the parent delivers its stream."""
    arrived = tmp_path / "arrived"
    provider = make({"one": Appends(arrived)})
    login(provider.get_audit_logger())
    children = [in_child(lambda: login(provider.get_audit_logger())) for _ in range(5)]
    assert len(set(children)) == 5
    assert provider.flush(20)
    assert len({line.split()[1] for line in arrived.read_text().splitlines()}) == 6


def test_a_fork_while_other_threads_emit(root: Path, make: Make) -> None:
    """Whatever lock another thread holds at that moment, the child emits, and so does the parent."""
    provider = make({})
    logger = provider.get_audit_logger()
    done = threading.Event()
    counts = [0, 0]

    def work(number: int) -> None:
        while not done.is_set():
            login(logger)
            counts[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        in_child(lambda: login(logger, record_id="the-same"))
    done.set()
    for thread in threads:
        thread.join()
    records = stored(root)
    assert len(records) == sum(counts) + 20
    assert len({record.attributes[sc.SEQUENCE_STREAM_ID] for record in records}) == 21


def test_a_child_does_not_know_its_parents_receipts(root: Path, make: Make) -> None:
    """The parent's record is in the parent's stream: a child can sync only a record of its own."""
    provider = make({})
    mine = login(provider.get_audit_logger(), record_id="r-1")

    def work() -> None:
        receipt = login(provider.get_audit_logger(), record_id="r-1", durability="disk")
        assert receipt.durability == "disk"
        assert receipt.stream_id != mine.stream_id

    in_child(work)


def test_a_child_has_a_resource_of_its_own(root: Path, make: Make) -> None:
    """Another process and another instance of the same service."""
    provider = make({}, service_name="billing")
    login(provider.get_audit_logger())
    child = in_child(lambda: login(provider.get_audit_logger()))
    resources = [stream.metadata.resource for stream in list_streams(Layout(root))]
    assert {resource["process.pid"] for resource in resources} == {os.getpid(), child}
    assert len({resource["service.instance.id"] for resource in resources}) == 2
    assert {resource["service.name"] for resource in resources} == {"billing"}


def test_children_of_multiprocessing_lose_nothing(root: Path, tmp_path: Path, make: Make) -> None:
    """A pool that is forked: every record arrives."""
    arrived = tmp_path / "arrived"
    provider = make({"one": Appends(arrived)})
    logger = provider.get_audit_logger()
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_emit_ten, args=(logger,)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    deadline = time.monotonic() + 20
    while not provider.flush(5) and time.monotonic() < deadline:
        pass
    assert len({line.split()[1] for line in arrived.read_text().splitlines()}) == 30


def _emit_ten(logger: Any) -> None:
    for _ in range(10):
        login(logger)


def test_a_fork_waits_for_what_our_threads_are_importing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child could never import a module that another thread of its parent had half imported."""
    (tmp_path / "slow_to_import.py").write_text("import time\nbegun = True\ntime.sleep(0.3)\ndone = True\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    thread = OwnThread(lambda: importlib.import_module("slow_to_import"))
    thread.start()
    until(lambda: hasattr(sys.modules.get("slow_to_import"), "begun"))

    def work() -> None:
        signal.alarm(20)
        assert importlib.import_module("slow_to_import").done

    in_child(work)
    assert thread.join(20)
    del sys.modules["slow_to_import"]
