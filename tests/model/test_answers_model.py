"""Random scripts of answers, over HTTP and gRPC: what was emitted is delivered, dead or pending; never two, never none.

The receiver knows what it took.  Our books (cursor and dead letters) must never claim more than that.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_audit import semconv as sc
from otel_audit.delivery.deadletters import read_dead_letters
from otel_audit.delivery.shipper import Shipper
from otel_audit.exporters import OtlpGrpcExporter, OtlpHttpExporter
from otel_audit.testing import GrpcReply, ReceivedRecord, Reply, ScriptedGrpcReceiver, ScriptedReceiver
from support.delivery import append, destination, make_journal, own_stream

HTML = {"Content-Type": "text/html"}
JSON = {"Content-Type": "application/json"}
STATUS = b"\x08\x0e\x12\x04full"
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # syncs are not what is looked at
_turn = [itertools.count()]


def is_bad(record: ReceivedRecord) -> bool:
    """What a receiver in good order refuses."""
    return bool(record.attributes.get("bad"))


def is_in_turn(_: ReceivedRecord) -> bool:
    """Another one each time: nobody can say what such a receiver refuses, or why."""
    return next(_turn[0]) % 3 == 0


HTTP_ANSWERS: dict[str, Any] = {
    **{str(status): status for status in (200, 202, 204, 301, 400, 401, 404, 409, 413, 422, 429, 500, 502, 503)},
    "503, soon": Reply.error(503, "full", Retry_After="0"),
    "503, but taken": Reply(503, accept=True),
    "400, but taken": Reply(400, accept=True),
    "reset, but taken": Reply(reset="body", accept=True),
    "rejects one": Reply.partial(1),
    "rejects one, takes all": Reply.partial(1, accept=True),
    "rejects too many": Reply.partial(10**9),
    "rejects less than none": Reply.partial(-1),
    "rejects the bad": Reply.refusing(is_bad),
    "rejects by turns": Reply.refusing(is_in_turn),
    "a warning": Reply.partial(0, "slow"),
    "a page": Reply(200, HTML, b"<html>", accept=False),
    "a status": Reply(200, body=STATUS, accept=False),
    "garbage": Reply(200, body=b"\x0a\xff\xff", accept=False),
    "another type": Reply(200, JSON, b"{}", accept=False),
    "a bomb": Reply(200, {"Content-Encoding": "gzip"}, b"\x1f\x8b\x08nonsense", accept=False),
    "reset": Reply(reset="before"),
    "reset in the headers": Reply(reset="headers"),
    "reset in the body": Reply(reset="body", body=b"\x0a"),
    "not HTTP": Reply(raw=b"SSH-2.0\r\n\r\n"),
    "silence": Reply(hang=True),
}

GRPC_CODES = (
    "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip

GRPC_ANSWERS: dict[str, Any] = {
    **{code: code for code in ("OK", *GRPC_CODES)},
    "UNAVAILABLE, soon": GrpcReply.error("UNAVAILABLE", "full", retry_after_s=0),
    "RESOURCE_EXHAUSTED, soon": GrpcReply.error("RESOURCE_EXHAUSTED", "full", retry_after_s=0),
    "RESOURCE_EXHAUSTED, too large": GrpcReply("RESOURCE_EXHAUSTED", "received message larger than max (9 vs. 1)"),
    "UNAVAILABLE, but taken": GrpcReply("UNAVAILABLE", accept=True),
    "INVALID_ARGUMENT, but taken": GrpcReply("INVALID_ARGUMENT", accept=True),
    "reset, but taken": GrpcReply(reset=True, accept=True),
    "rejects one": GrpcReply.partial(1),
    "rejects one, takes all": GrpcReply.partial(1, accept=True),
    "rejects too many": GrpcReply.partial(10**9),
    "rejects less than none": GrpcReply.partial(-1),
    "rejects the bad": GrpcReply.refusing(is_bad),
    "rejects by turns": GrpcReply.refusing(is_in_turn),
    "a warning": GrpcReply.partial(0, "slow"),
    "a status": GrpcReply(body=STATUS, accept=False),
    "garbage": GrpcReply(body=b"\x0a\xff\xff", accept=False),
    "a flood": GrpcReply(body=b"\x12\x00" * 50_000, accept=False),
    "reset": GrpcReply(reset=True),
    "silence": GrpcReply(hang=True),
}


@dataclasses.dataclass
class World:
    """A receiver, kept over all examples, and an exporter to it."""

    receiver: Any
    exporter: Any
    answers: dict[str, Any]
    well: Any
    broken: Any


@pytest.fixture(scope="module")
def over_http() -> Iterator[World]:
    """OTLP/HTTP."""
    with ScriptedReceiver() as receiver:
        exporter = OtlpHttpExporter(receiver.endpoint, timeout=0.3)
        yield World(receiver, exporter, HTTP_ANSWERS, Reply.refusing(is_bad), Reply(401))
        exporter.close()


@pytest.fixture(scope="module")
def over_grpc() -> Iterator[World]:
    """OTLP/gRPC."""
    with ScriptedGrpcReceiver() as receiver:
        exporter = OtlpGrpcExporter(receiver.endpoint, timeout=0.3)
        yield World(receiver, exporter, GRPC_ANSWERS, GrpcReply.refusing(is_bad), GrpcReply("UNAUTHENTICATED"))
        exporter.close()


Rounds = list[tuple[list[bool], list[str]]]


def rounds_of(answers: dict[str, Any]) -> st.SearchStrategy[Rounds]:
    """Rounds: which records are emitted (true: a bad one), and what is answered then."""
    # Silence costs its time; it comes up rarely.
    names = st.sampled_from([name for name in answers if name != "silence"] * 4 + ["silence"])
    return st.lists(st.tuples(st.lists(st.booleans(), max_size=9), st.lists(names, max_size=8)), min_size=1, max_size=4)


def _examples(count: int) -> settings:
    return settings(max_examples=count, deadline=None, suppress_health_check=list(HealthCheck))


class Test:
    """Whatever a receiver answers, our books are right."""

    @_examples(30)
    @given(rounds=rounds_of(HTTP_ANSWERS), ends_well=st.booleans())
    def test_over_http(self, over_http: World, rounds: Rounds, ends_well: bool) -> None:
        """Over HTTP."""
        _run(over_http, rounds, ends_well)

    @_examples(30)
    @given(rounds=rounds_of(GRPC_ANSWERS), ends_well=st.booleans())
    def test_over_grpc(self, over_grpc: World, rounds: Rounds, ends_well: bool) -> None:
        """Over gRPC."""
        _run(over_grpc, rounds, ends_well)


@pytest.mark.slow
class TestLong:
    """The same, with two hundred scripts each."""

    @_examples(200)
    @given(rounds=rounds_of(HTTP_ANSWERS), ends_well=st.booleans())
    def test_over_http(self, over_http: World, rounds: Rounds, ends_well: bool) -> None:
        """Over HTTP."""
        _run(over_http, rounds, ends_well)

    @_examples(200)
    @given(rounds=rounds_of(GRPC_ANSWERS), ends_well=st.booleans())
    def test_over_grpc(self, over_grpc: World, rounds: Rounds, ends_well: bool) -> None:
        """Over gRPC."""
        _run(over_grpc, rounds, ends_well)


def test_the_check_finds_wrong_books(over_http: World) -> None:
    """A receiver that acknowledges what it does not take is the same, to the books, as an exporter that lies."""
    liar = dataclasses.replace(over_http, answers={"lie": Reply(200, accept=False)})
    with pytest.raises(AssertionError, match="but not taken"):
        _run(liar, [([False], ["lie"])], ends_well=True)


def _run(world: World, rounds: Rounds, ends_well: bool) -> None:
    receiver = world.receiver
    receiver.clear()
    _turn[0] = itertools.count()
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        journal = make_journal(Path(directory) / "journal")
        shipper = Shipper(journal, destination(world.exporter, "sink"))
        try:
            for emitted, names in rounds:
                for bad in emitted:
                    append(journal, 1, bad=bad)
                receiver.script(*(world.answers[name] for name in names))
                receiver.script(*([world.well] if ends_well else [world.broken]) * 3)
                for _ in range(len(names) + 1):
                    shipper.step()
            if ends_well:
                receiver.script(*[world.well] * 5000)
                append(journal, 1, bad=False)  # evidence that the destination works
                _until(shipper, lambda: _books(journal, shipper)[2] == set())
            delivered, dead, pending = _books(journal, shipper)
        finally:
            shipper.close()
            journal.close()
    everything = set(range(1, _last(delivered | dead | pending) + 1))
    assert delivered | dead | pending == everything
    assert delivered.isdisjoint(dead | pending)
    assert dead.isdisjoint(pending)
    taken = {record.attributes[sc.SEQUENCE_NUMBER] for record in receiver.records}
    assert delivered <= taken, "counted as delivered, but not taken"
    if ends_well:
        assert pending == set()
    _check_order([[r.attributes[sc.SEQUENCE_NUMBER] for r in request.records] for request in receiver.requests])


def _last(numbers: set[int]) -> int:
    return max(numbers, default=0)


def _books(journal: Any, shipper: Shipper) -> tuple[set[int], set[int], set[int]]:
    """Delivered, dead-lettered and pending, as our own books have them."""
    if journal.writer is None:
        return set(), set(), set()
    cursor = shipper.cursor(own_stream(journal))
    acknowledged = cursor.acknowledged if cursor is not None else 0
    letters = [letter.sequence for letter in read_dead_letters(journal.layout, "sink")]
    assert len(letters) == len(set(letters)), "a record was buried twice"
    if cursor is not None:
        assert cursor.delivered + cursor.dead_lettered == acknowledged
        assert cursor.dead_lettered == len(letters)
    settled = set(range(1, acknowledged + 1))
    pending = set(range(acknowledged + 1, journal.writer.sequence + 1))
    return settled - set(letters), set(letters), pending


def _until(shipper: Shipper, condition: Callable[[], bool]) -> None:
    ends = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < ends, shipper.state
        shipper.step()


def _check_order(requests: list[list[int]]) -> None:
    """Records are offered in their order; only a single one may be tried ahead, to see whether anything is accepted."""
    sent: set[int] = set()
    for numbers in requests:
        assert numbers == sorted(numbers)
        new = [number for number in numbers if number not in sent]
        is_ahead = any(number not in sent for number in range(1, new[0])) if new else False
        assert not is_ahead or len(numbers) == 1, requests
        sent.update(numbers)
