"""Where OpenTelemetry's pipeline for logs loses records, and ours does not: one test for each way.

Each shows first that the stock pipeline loses records at a receiver, and that its ``force_flush`` says ``True`` all the
same, and then that ours loses none at the same receiver.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_audit import semconv as sc
from otel_audit.delivery.deadletters import read_dead_letters
from otel_audit.errors import JournalClosedError
from otel_audit.exporters.otlp_http import OtlpHttpExporter
from otel_audit.testing import ReceivedRequest, Reply, ScriptedReceiver
from support.delivery import until
from support.stock import Ours, Stock

FLUSH_S = 60.0


@pytest.fixture
def receiver() -> Iterator[ScriptedReceiver]:
    """Takes everything, unless a test scripts it otherwise."""
    with ScriptedReceiver() as made:
        yield made


@pytest.fixture
def broken() -> threading.Event:
    """While it is set, :func:`breaking` breaks."""
    return threading.Event()


@pytest.fixture
def breaking(broken: threading.Event) -> Iterator[Callable[[Reply], ScriptedReceiver]]:
    """Makes a receiver that answers in a certain way while it is broken, and takes everything when it is not."""
    made: list[ScriptedReceiver] = []

    def make(reply: Reply) -> ScriptedReceiver:
        made.append(ScriptedReceiver(default=lambda _: reply if broken.is_set() else Reply()))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def stock() -> Iterator[Callable[..., Stock]]:
    """Makes stock pipelines, and ends them."""
    made: list[Stock] = []

    def make(*arguments: Any, **options: Any) -> Stock:
        made.append(Stock(*arguments, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def ours(tmp_path: Path) -> Iterator[Callable[..., Ours]]:
    """Makes pipelines of ours over one journal, and ends them."""
    made: list[Ours] = []

    def make(endpoint: str, **options: Any) -> Ours:
        made.append(Ours(tmp_path / "journal", endpoint, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()


Make = Callable[..., Any]


def test_1_a_full_queue(receiver: ScriptedReceiver, stock: Make, ours: Make) -> None:
    """More is logged than the queue holds: the oldest are evicted; the journal has room."""
    theirs = stock(receiver.endpoint, queue=10, batch=10)
    receiver.script(Reply(delay_s=0.2))  # the exporter is busy while the application goes on
    theirs.log(35)
    assert theirs.flush() is True
    assert len(theirs.missing(receiver)) >= 15

    mine = ours(receiver.endpoint)
    receiver.script(Reply(delay_s=0.2))
    mine.log(35)
    assert mine.provider.flush(FLUSH_S)
    assert mine.missing(receiver) == []


def test_2_an_export_that_fails(receiver: ScriptedReceiver, stock: Make, ours: Make) -> None:
    """One request gets no acknowledgement: its batch was taken from the queue before, and is gone."""
    theirs = stock(receiver.endpoint)
    receiver.script(500)
    theirs.log(20)
    assert theirs.flush() is True
    theirs.log(1)
    assert theirs.flush() is True
    assert theirs.missing(receiver) == list(range(20))

    mine = ours(receiver.endpoint)
    receiver.script(500)
    mine.log(20)
    assert mine.provider.flush(FLUSH_S)
    assert mine.missing(receiver) == []


def test_3_a_receiver_that_is_down_for_longer_than_is_tried(
    breaking: Make, broken: threading.Event, stock: Make, ours: Make
) -> None:
    """Retries stop within a budget of seconds; ours has none."""
    receiver = breaking(Reply(503))
    broken.set()
    theirs = stock(receiver.endpoint, timeout_s=0.3)
    theirs.log(20)
    assert theirs.flush() is True
    broken.clear()
    assert theirs.flush() is True
    assert len(theirs.missing(receiver)) == 20

    mine = ours(receiver.endpoint)
    broken.set()
    mine.log(20)
    assert not mine.provider.flush(0.6)
    broken.clear()
    assert mine.provider.flush(FLUSH_S)
    assert mine.missing(receiver) == []


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 500])
def test_4_an_answer_that_is_no_success(
    breaking: Make, broken: threading.Event, stock: Make, ours: Make, tmp_path: Path, status: int
) -> None:
    """A wrong credential, address or size, until somebody repairs it: lost after one request, or kept."""
    receiver = breaking(Reply.error(status, "no"))
    broken.set()
    theirs = stock(receiver.endpoint)
    theirs.log(20)
    assert theirs.flush() is True
    broken.clear()
    assert theirs.flush() is True
    assert len(theirs.missing(receiver)) == 20

    mine = ours(receiver.endpoint)
    broken.set()
    mine.log(20)
    assert not mine.provider.flush(0.3)
    until(lambda: mine.provider.status().destinations[0].state == "blocked")
    broken.clear()
    assert mine.provider.flush(FLUSH_S)
    assert mine.missing(receiver) == []
    assert list(read_dead_letters(mine.provider.journal.layout, "collector")) == []


@pytest.mark.parametrize("status", [301, 304, 307])
def test_5_a_redirection(breaking: Make, broken: threading.Event, stock: Make, ours: Make, status: int) -> None:
    """3xx is no acknowledgement."""
    receiver = breaking(Reply(status))
    broken.set()
    theirs = stock(receiver.endpoint)
    theirs.log(20)
    assert theirs.flush() is True
    broken.clear()
    assert theirs.flush() is True
    assert len(theirs.missing(receiver)) == 20

    mine = ours(receiver.endpoint)
    broken.set()
    mine.log(20)
    assert not mine.provider.flush(0.3)
    broken.clear()
    assert mine.provider.flush(FLUSH_S)
    assert mine.missing(receiver) == []


def test_6_part_of_a_batch_is_rejected(stock: Make, ours: Make) -> None:
    """Status 200 with a count of rejected records: never read; ours finds them and keeps them with the reason."""

    def rejects_odd(request: ReceivedRequest) -> Reply:
        bad = sum(record.attributes.get("number", 0) % 2 for record in request.records)
        return Reply.partial(bad, "odd numbers are not accepted") if bad else Reply()

    with ScriptedReceiver(default=rejects_odd) as receiver:
        theirs = stock(receiver.endpoint)
        theirs.log(20)
        assert theirs.flush() is True
        assert set(range(1, 20, 2)) <= set(theirs.missing(receiver))

        mine = ours(receiver.endpoint)
        mine.log(20)
        result = mine.provider.flush(FLUSH_S)
        assert result
        assert result.dead_lettered == 10
        assert mine.missing(receiver) == list(range(1, 20, 2))
        letters = list(read_dead_letters(mine.provider.journal.layout, "collector"))
        assert len(letters) == 10
        assert all("odd numbers are not accepted" in letter.reason for letter in letters)
        assert all(b'"number":{"intValue":"' in bytes(letter.record) for letter in letters)


def test_7_one_value_that_cannot_be_encoded(receiver: ScriptedReceiver, stock: Make, ours: Make) -> None:
    """Half of a surrogate pair in one message: the whole batch fails; ours writes it by a rule and marks it."""
    theirs = stock(receiver.endpoint)
    theirs.log(10)
    theirs.log(1, "caf\ud83d")
    theirs.log(10)
    assert theirs.flush() is True
    assert len(theirs.missing(receiver)) == 21

    mine = ours(receiver.endpoint)
    mine.log(10)
    mine.log(1, "caf\ud83d")
    mine.log(10)
    assert mine.provider.flush(FLUSH_S)
    assert mine.missing(receiver) == []
    converted = mine.arrived(receiver)[10]
    assert str(converted.body).startswith("caf")
    assert sc.CONVERTED in converted.attributes


def test_8_a_request_that_is_too_large(stock: Make, ours: Make) -> None:
    """A batch over the limit is dropped whole; ours is split until the receiver takes it."""

    def takes_small(request: ReceivedRequest) -> Reply:
        return Reply.error(413, "too large") if len(request.body) > 20_000 else Reply()

    with ScriptedReceiver(default=takes_small) as receiver:
        theirs = stock(receiver.endpoint, max_request_size=20_000)
        theirs.log(100, payload="x" * 1000)
        assert theirs.flush() is True
        assert len(theirs.missing(receiver)) == 100

        mine = ours(receiver.endpoint)
        mine.log(100, payload="x" * 1000)
        assert mine.provider.flush(FLUSH_S)
        assert mine.missing(receiver) == []


def test_9_attributes_beyond_the_limits(receiver: ScriptedReceiver, stock: Make, ours: Make) -> None:
    """More than 128 attributes, an integer beyond 64 bits, an object: gone, or the whole batch with them."""

    class Thing:
        def __repr__(self) -> str:
            return "the thing"

    many = {f"a{number:03}": number for number in range(200)}
    special = {"large": 2**70, "thing": Thing(), "decimal": 10**30}
    theirs = stock(receiver.endpoint)
    theirs.log(1, **many)
    assert theirs.flush() is True
    theirs.log(1, **special)
    assert theirs.flush() is True
    found = theirs.arrived(receiver)
    assert 0 not in found or len(set(many) & set(found[0].attributes)) < 200
    assert 1 not in found or not {"large", "thing", "decimal"} <= set(found[1].attributes)

    mine = ours(receiver.endpoint)
    mine.log(1, **many)
    mine.log(1, **special)
    assert mine.provider.flush(FLUSH_S)
    found = mine.arrived(receiver)
    assert {name: found[0].attributes[name] for name in many} == many
    attributes = found[1].attributes
    assert (attributes["large"], attributes["decimal"]) == (str(2**70), str(10**30))
    assert "thing" in attributes
    assert len(attributes[sc.CONVERTED]) == 3


def test_10_a_shutdown_that_runs_out_of_time(stock: Make, ours: Make) -> None:
    """What is in the queue then is abandoned, uncounted; the journal is counted, and delivered by the next process."""
    reply = Reply(delay_s=0.05)
    with ScriptedReceiver(default=lambda _: reply) as receiver:
        theirs = stock(receiver.endpoint, batch=1)
        theirs.log(50)
        theirs.close()
        assert len(theirs.missing(receiver)) > 20

        mine = ours(receiver.endpoint)
        reply = Reply(503)
        mine.log(50)
        result = mine.provider.shutdown(0.1)
        assert not result
        assert result.pending == 52  # with the two records of the journal itself
        reply = Reply()
        assert ours(receiver.endpoint).provider.flush(FLUSH_S)
        assert mine.missing(receiver) == []


PROGRAM = """
import os, signal, sys
from pathlib import Path
from support.delivery import until
from support.stock import Ours, Stock
kind, endpoint, root = sys.argv[1:4]
pipeline = Stock(endpoint) if kind == "stock" else Ours(Path(root), endpoint)
pipeline._run = kind
"""


def run(what: str, kind: str, receiver: ScriptedReceiver, root: Path) -> int:
    """Run a program that logs through one of the pipelines; how it ended."""
    command = [sys.executable, "-c", PROGRAM + what, kind, receiver.endpoint, str(root)]
    paths = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run(command, env=environment, check=False, timeout=120).returncode


def numbers_of(kind: str, receiver: ScriptedReceiver) -> set[int]:
    """Numbers of what arrived from a program."""
    return {int(each.attributes["number"]) for each in receiver.records if each.attributes.get("run") == kind}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_11_a_process_that_is_killed(
    receiver: ScriptedReceiver, ours: Make, tmp_path: Path, number: signal.Signals
) -> None:
    """The queue is memory; the journal is not."""
    what = f"pipeline.log(200)\nos.kill(os.getpid(), {int(number)})"
    assert run(what, "stock", receiver, tmp_path / "journal") == -number
    assert numbers_of("stock", receiver) == set()

    assert run(what, "ours", receiver, tmp_path / "journal") == -number
    assert ours(receiver.endpoint).provider.flush(FLUSH_S)
    assert numbers_of("ours", receiver) == set(range(200))


def test_12_a_forked_child(receiver: ScriptedReceiver, ours: Make, tmp_path: Path) -> None:
    """As ``multiprocessing`` ends its children, without ``atexit``: what they logged is gone, or is in a journal."""
    what = """
if os.fork() == 0:
    pipeline.log(50)
    os._exit(0)
os.wait()
pipeline.log(1, number=1000)
pipeline.provider.force_flush() if kind == "stock" else pipeline.provider.flush(60)
"""
    assert run(what, "stock", receiver, tmp_path / "journal") == 0
    assert numbers_of("stock", receiver) == {1000}

    assert run(what, "ours", receiver, tmp_path / "journal") == 0
    assert ours(receiver.endpoint).provider.flush(FLUSH_S)
    assert numbers_of("ours", receiver) == {1000, *range(50)}


def test_13_a_record_after_the_shutdown(receiver: ScriptedReceiver, stock: Make, ours: Make) -> None:
    """It is ignored without a word; or the caller gets an exception that says that it was not journaled."""
    theirs = stock(receiver.endpoint)
    theirs.log(1)
    theirs.provider.shutdown()
    theirs.log(1)
    assert theirs.missing(receiver) == [1]

    mine = ours(receiver.endpoint)
    mine.log(1)
    mine.provider.shutdown(FLUSH_S)
    with pytest.raises(JournalClosedError) as caught:
        mine.log(1)
    assert caught.value.journaled is False
    assert mine.missing(receiver) == [1]


def test_14_records_of_an_application_that_is_called_while_exporting(
    receiver: ScriptedReceiver, stock: Make, ours: Make
) -> None:
    """A hook that says each time that a credential was read: suppressed from some depth on; ours journals them all.

    By ``emit``, that is: what is logged on a thread of ours through ``logging`` is not captured (an HTTP client logs
    its requests there, and one event would become thousands), and it is counted.
    """
    theirs = stock(receiver.endpoint, simple=True)
    hooked(theirs.exporter, lambda: theirs.log(1) if theirs.logged < 30 else None)
    while theirs.logged < 30:
        theirs.log(1)
    assert theirs.flush() is True
    assert len(theirs.missing(receiver)) >= 5

    ids: list[str] = []

    def say() -> None:
        if len(ids) < 30:
            ids.append(mine.provider.get_audit_logger().emit("token.read", actor="u-42", outcome="success").record_id)
            mine.log(1)

    exporter = hooked(OtlpHttpExporter(receiver.endpoint), say)
    mine = ours(receiver.endpoint, destinations={"collector": {"type": exporter, "delay": 0.01}})
    mine.log(1)
    until(lambda: len(ids) == 30)
    assert mine.provider.flush(FLUSH_S)
    assert set(ids) <= set(receiver.record_ids)
    assert mine.provider.status().counters["records.own_thread"] == 30


def hooked(exporter: Any, hook: Callable[[], object]) -> Any:
    """The exporter, which calls the application back before each export."""
    export = exporter.export

    def call_back(*arguments: Any, **options: Any) -> Any:
        hook()
        return export(*arguments, **options)

    exporter.export = call_back
    return exporter


def test_15_arguments_that_do_not_fit_the_message(receiver: ScriptedReceiver, stock: Make, ours: Make) -> None:
    """The stock handler raises into the application, and the record is gone; ours keeps template and arguments."""
    theirs = stock(receiver.endpoint)
    with pytest.raises(TypeError):
        theirs.log(1, "user %s logged in %s", "anna")
    assert theirs.flush() is True
    assert theirs.missing(receiver) == [0]

    mine = ours(receiver.endpoint)
    mine.log(1, "user %s logged in %s", "anna")
    assert mine.provider.flush(FLUSH_S)
    assert mine.missing(receiver) == []
    record = mine.arrived(receiver)[0]
    assert "anna" in str(record.body) + str(record.attributes)


def test_16_a_flush_that_says_the_truth(breaking: Make, broken: threading.Event, stock: Make, ours: Make) -> None:
    """Nothing was delivered, and it says ``True``; ours is false, and says how much is pending and why."""
    receiver = breaking(Reply(503))
    broken.set()
    theirs = stock(receiver.endpoint)
    theirs.log(5)
    assert theirs.flush() is True
    assert theirs.arrived(receiver) == {}

    mine = ours(receiver.endpoint)
    mine.log(5)
    result = mine.provider.flush(0.3)
    assert not result
    assert (result.delivered, result.pending) == (0, 6)
    assert "503" in result.destinations[0].error
    broken.clear()
    assert mine.provider.flush(FLUSH_S).delivered == 6
