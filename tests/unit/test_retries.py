"""A caller that retries with an id of its own: one record, one receipt."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import otel_audit
from otel_audit import AuditProvider, AuditRecord, audit_context, default, retries
from otel_audit import semconv as sc
from otel_audit.errors import InvalidRecordError, JournalError
from otel_audit.journal.files import Files
from support.delivery import Sink
from support.interruption import interrupt
from support.provider import LOGIN, login, make_provider, stored


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal"


@pytest.fixture
def provider(root: Path) -> Iterator[AuditProvider]:
    """A provider that journals only."""
    made = make_provider(root)
    yield made
    made.shutdown(0.0)


def test_the_second_emit_gives_the_first_receipt(root: Path, provider: AuditProvider) -> None:
    """The record is in the journal once; its id is the caller's."""
    logger = provider.get_audit_logger("a")
    first = login(logger, record_id="r-1", attributes={"n": 1})
    assert login(logger, record_id="r-1", attributes={"n": 1}) == first
    assert first.record_id == "r-1"
    assert [record.record_id for record in stored(root)] == ["r-1"]


def test_the_same_record_twice_is_recorded_once(root: Path, provider: AuditProvider) -> None:
    """A record object has its id from the beginning, so emitting it again is a retry."""
    record = AuditRecord("user.login", **LOGIN)
    logger = provider.get_audit_logger()
    assert logger.emit(record) == logger.emit(record)
    assert len(stored(root)) == 1


@pytest.mark.parametrize(
    "change", [{"body": "other"}, {"attributes": {"n": 2}}, {"outcome": "failure"}, {"tenant": "acme"}]
)
def test_another_record_under_the_same_id_is_refused(
    root: Path, provider: AuditProvider, change: dict[str, Any]
) -> None:
    """An id that was used for something else is a mistake of the caller, not a retry."""
    logger = provider.get_audit_logger()
    login(logger, record_id="r-1", attributes={"n": 1})
    with pytest.raises(InvalidRecordError, match="used before for a different record") as caught:
        login(logger, **{"record_id": "r-1", "attributes": {"n": 1}, **change})
    assert caught.value.journaled is False
    assert len(stored(root)) == 1
    assert login(logger, record_id="r-1", attributes={"n": 1}).sequence == 2


def test_times_and_trace_may_differ(root: Path, provider: AuditProvider) -> None:
    """The second try is later, and under another span; a time that was clamped at the first is not at the second."""
    logger = provider.get_audit_logger()
    first = login(logger, record_id="r-1", trace_id="1" * 32, span_id="1" * 16)
    assert login(logger, record_id="r-1", trace_id="2" * 32, span_id="2" * 16) == first
    ahead = time.time_ns() + 2 * 10**9
    clamped = login(logger, record_id="r-2", timestamp=ahead)
    assert login(logger, record_id="r-2", timestamp=ahead - 4 * 10**9) == clamped


def test_what_processors_add_may_differ(root: Path) -> None:
    """The caller did not say it, so it does not make another record."""

    class Counts:
        n = 0

        def on_emit(self, record: AuditRecord) -> Mapping[str, Any]:
            self.n += 1
            return {"try": self.n}

    with make_provider(root, processors=[Counts()]) as provider:
        logger = provider.get_audit_logger()
        assert login(logger, record_id="r-1") == login(logger, record_id="r-1")


def test_what_the_context_adds_must_not_differ(root: Path, provider: AuditProvider) -> None:
    """Another tenant is another record."""
    logger = provider.get_audit_logger()
    with audit_context(tenant="acme"):
        login(logger, record_id="r-1")
    with audit_context(tenant="umbrella"), pytest.raises(InvalidRecordError):
        login(logger, record_id="r-1")


def test_threads_that_retry_at_once_get_one_receipt(root: Path, provider: AuditProvider) -> None:
    """Whoever is first writes; the others wait for its receipt."""
    logger = provider.get_audit_logger()
    receipts: list[Any] = []
    together = threading.Barrier(8)

    def work() -> None:
        for number in range(20):
            together.wait(20)
            receipts.append(login(logger, record_id=f"r-{number}"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receipts) == 160
    assert len(set(receipts)) == 20
    assert len(stored(root)) == 20


def test_a_failed_emit_frees_the_id(root: Path) -> None:
    """Nothing was journaled, so the retry writes."""

    class Faulty(Files):
        broken = False

        def write(self, fd: int, data: bytes) -> int:
            if self.broken:
                raise OSError(errno.EIO, "input/output error")
            return super().write(fd, data)

    files = Faulty()
    with make_provider(root, files=files) as provider:
        logger = provider.get_audit_logger()
        login(logger)
        files.broken = True
        with pytest.raises(JournalError):
            login(logger, record_id="r-1")
        files.broken = False
        assert login(logger, record_id="r-1").sequence == 3
        assert [record.record_id for record in stored(root)][1:] == ["r-1"]


def test_a_retry_after_an_interruption_finds_the_record(root: Path) -> None:
    """The line was written before the interruption: the retry gets its receipt."""

    class Interrupting(Files):
        due = False

        def write(self, fd: int, data: bytes) -> int:
            done = super().write(fd, data)
            if self.due:
                self.due = False
                raise KeyboardInterrupt
            return done

    files = Interrupting()
    with make_provider(root, files=files) as provider:
        logger = provider.get_audit_logger()
        login(logger)
        files.due = True
        with pytest.raises(KeyboardInterrupt):
            login(logger, record_id="r-1")
        assert login(logger, record_id="r-1").sequence == 3
        assert len(stored(root)) == 2


def _emit_interrupted(logger: Any, record_id: str, line: int) -> bool:
    """Emit, and be interrupted before the n-th line of what deals with chosen ids; whether there are so many."""

    def counts(frame: FrameType) -> bool:
        name = Path(frame.f_code.co_filename).name
        return name == "retries.py" or (name == "provider.py" and frame.f_code.co_name == "emit_record")

    return interrupt(lambda: login(logger, record_id=record_id), line, counts) is not None


def test_an_interruption_leaves_no_id_that_nobody_settles(
    root: Path, provider: AuditProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it strikes, the retry finds the id free or the record written: it neither waits nor writes twice."""
    monkeypatch.setattr(retries, "_PATIENCE_S", 0.0)  # an id that nobody settles shows as a second record
    logger = provider.get_audit_logger()
    login(logger)
    lines = 0
    while _emit_interrupted(logger, f"r-{lines}", lines + 1):
        receipt = login(logger, record_id=f"r-{lines}")
        assert login(logger, record_id=f"r-{lines}") == receipt
        lines += 1
    assert lines > 20
    assert [record.record_id for record in stored(root)][1:] == [f"r-{number}" for number in range(lines + 1)]


def test_a_second_configure_remembers_what_was_emitted_through_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry afterwards gets the first receipt, and the durability that it asks for, from the journal that has it."""
    monkeypatch.setattr(default, "_provider", None)
    arrived = tmp_path / "arrived.jsonl"
    logger = otel_audit.get_audit_logger()
    options: dict[str, Any] = {"destinations": {"one": f"file:{arrived}"}, "allow_volatile": True}
    otel_audit.configure(journal=tmp_path / "first", **options)
    first = login(logger, record_id="r-1")
    second = otel_audit.configure(journal=tmp_path / "second", **options)
    try:
        assert login(logger, record_id="r-1") == first
        assert login(logger, record_id="r-1", durability="disk").durability == "disk"
        assert login(logger, record_id="r-1", durability="delivered", timeout_s=20).durability == "delivered"
        again = asyncio.run(logger.aemit("user.login", **LOGIN, record_id="r-1", durability="disk"))
        assert (again.durability, again.stream_id) == ("disk", first.stream_id)
        with pytest.raises(InvalidRecordError, match="used before for a different record"):
            login(logger, record_id="r-1", actor="u-43")
        assert stored(tmp_path / "second") == []
    finally:
        second.shutdown(20)
    assert arrived.read_text().count('"record_id":"r-1"') == 1


def test_a_retry_can_ask_for_more(root: Path) -> None:
    """The first try was journaled; the second waits until it is delivered."""
    sink = Sink()
    with make_provider(root, destinations={"one": sink}) as provider:
        logger = provider.get_audit_logger()
        assert login(logger, record_id="r-1").durability == "process"
        assert login(logger, record_id="r-1", durability="disk").durability == "disk"
        assert login(logger, record_id="r-1", durability="delivered", timeout_s=20).durability == "delivered"
        assert sink.ids == ["r-1"]


def test_the_memory_has_a_bound(root: Path, provider: AuditProvider, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest ids are forgotten first."""
    monkeypatch.setattr(retries, "REMEMBERED_MAX", 3)
    logger = provider.get_audit_logger()
    for number in range(5):
        login(logger, record_id=f"r-{number}")
    assert len(provider._chosen.claims) == 3
    login(logger, record_id="r-4")
    assert len(stored(root)) == 5
    login(logger, record_id="r-0")
    assert len(stored(root)) == 6


def test_an_id_in_the_attributes_is_chosen_too(root: Path, provider: AuditProvider) -> None:
    """Whoever writes the attribute by its name means the same."""
    logger = provider.get_audit_logger()
    first = login(logger, attributes={sc.RECORD_ID: "r-1"})
    assert login(logger, attributes={sc.RECORD_ID: "r-1"}) == first
