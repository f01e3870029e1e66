"""The same for coroutines: the event loop is never blocked, and cancelling unrecords nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

import otel_audit
from otel_audit import AuditRecord, audit_context
from otel_audit import semconv as sc
from otel_audit.errors import (
    ConfigurationError,
    DeliveryTimeoutError,
    InvalidRecordError,
    JournalClosedError,
    JournalFullError,
    RetryableExportError,
)
from otel_audit.journal.files import Files
from otel_audit.logger import AuditLogger
from support.delivery import Sink, until
from support.provider import LOGIN, make_provider, stored


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the journal is."""
    return tmp_path / "journal"


def alogin(logger: AuditLogger, **fields: Any) -> Coroutine[Any, Any, Any]:
    """Emit a record with everything that is mandatory."""
    return logger.aemit("user.login", **{**LOGIN, **fields})


class Slow(Files):
    """Notes on which threads it syncs, and can be held up there."""

    def __init__(self) -> None:
        self.threads: set[int] = set()
        self.go_on = threading.Event()
        self.go_on.set()
        self.waiting = threading.Event()

    def _wait(self) -> None:
        self.threads.add(threading.get_ident())
        self.waiting.set()
        assert self.go_on.wait(30)

    def fdatasync(self, fd: int) -> None:
        self._wait()
        super().fdatasync(fd)

    def fsync(self, fd: int) -> None:
        self._wait()
        super().fsync(fd)


def test_each_durability_can_be_awaited(root: Path) -> None:
    """Receipts are those of ``emit``."""

    async def main() -> None:
        sink = Sink()
        async with make_provider(root, destinations={"one": sink}) as provider:
            logger = provider.get_audit_logger("a")
            for level in ("process", "disk", "delivered"):
                receipt = await alogin(logger, durability=level, timeout_s=20)
                assert receipt.durability == level
            assert receipt.record_id in sink.ids
            async with audit_context(tenant="acme"):
                await logger.aemit(AuditRecord("user.login", **LOGIN))
            assert await provider.aflush(20)
        with pytest.raises(JournalClosedError):
            await alogin(logger)

    asyncio.run(main())
    records = stored(root, control=True)
    assert records == [] or records[-1].attributes[sc.SEQUENCE_END]


def test_no_sync_runs_on_the_event_loops_thread(root: Path) -> None:
    """Making the stream, leaving a segment and ``disk``: all of them elsewhere."""
    files = Slow()

    async def main() -> None:
        provider = make_provider(root, files=files, segment_bytes=4096)
        files.threads.clear()
        logger = provider.get_audit_logger()
        for number in range(60):
            await alogin(logger, durability="disk" if number % 10 == 0 else "process")
        assert files.threads
        assert threading.get_ident() not in files.threads
        await provider.ashutdown(5)

    asyncio.run(main())
    assert len(list(root.glob("streams/*/*.jsonl"))) > 3
    assert len(stored(root)) == 60


def test_a_slow_disk_does_not_stop_the_loop(root: Path) -> None:
    """While a sync hangs, other coroutines run and emit."""
    files = Slow()

    async def main() -> None:
        provider = make_provider(root, files=files)
        logger = provider.get_audit_logger()
        await alogin(logger)
        files.go_on.clear()
        slow = asyncio.create_task(alogin(logger, durability="disk"))
        await asyncio.to_thread(files.waiting.wait, 20)
        for _ in range(3):
            assert (await alogin(logger)).durability == "process"
        assert not slow.done()
        files.go_on.set()
        assert (await slow).durability == "disk"
        await provider.ashutdown(5)

    asyncio.run(main())


def test_a_destination_that_is_down_does_not_stop_the_loop(root: Path) -> None:
    """Many coroutines wait for an acknowledgement at once, without a thread each; all get their error in time."""

    async def main() -> None:
        provider = make_provider(root, destinations={"down": Sink(*[RetryableExportError("down")] * 100_000)})
        logger = provider.get_audit_logger()
        await alogin(logger)
        waiting = [asyncio.create_task(alogin(logger, durability="delivered", timeout_s=0.5)) for _ in range(100)]
        await asyncio.sleep(0.1)
        pools = [
            thread.name for thread in threading.enumerate() if thread.name.startswith(("asyncio", "otel-audit-async"))
        ]
        assert len(pools) <= 1
        assert (await alogin(logger)).durability == "process"
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(result) for result in results} == {DeliveryTimeoutError}
        assert all(result.journaled and result.receipt.sequence for result in results)
        await provider.ashutdown(0)

    asyncio.run(main())
    assert len(stored(root)) == 102


def test_delivered_is_told_as_soon_as_it_is(root: Path) -> None:
    """A coroutine that waits is woken by the shipper."""

    async def main() -> None:
        answer = threading.Event()
        sink = Sink()
        sink.before_each = lambda: answer.wait(20) and None
        provider = make_provider(root, destinations={"one": sink})
        waiting = asyncio.create_task(alogin(provider.get_audit_logger(), durability="delivered", timeout_s=20))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        answer.set()
        assert (await waiting).durability == "delivered"
        await provider.ashutdown(5)

    asyncio.run(main())


def test_a_full_journal_does_not_stop_the_loop(root: Path) -> None:
    """It is waited for room on another thread; then it is an error that says that nothing was journaled."""

    async def main() -> None:
        provider = make_provider(root, max_bytes="1MiB", full_timeout=0.3)
        logger = provider.get_audit_logger()
        await alogin(logger)
        (root / "filler").write_bytes(b"x" * (1 << 20))
        provider.journal._allowance = 0
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.01)

        task = asyncio.create_task(others())
        results = await asyncio.gather(*[alogin(logger) for _ in range(5)], return_exceptions=True)
        assert turns > 5
        task.cancel()
        assert {type(result) for result in results} == {JournalFullError}
        assert {result.journaled for result in results} == {False}  # type: ignore[union-attr]
        (root / "filler").unlink()
        assert (await alogin(logger)).sequence == 3
        await provider.ashutdown(1)

    asyncio.run(main())


def test_room_that_appears_in_time_is_used(root: Path) -> None:
    """The record is journaled, and nobody notices but for the time it took."""

    async def main() -> None:
        provider = make_provider(root, max_bytes="1MiB", full_timeout=20)
        logger = provider.get_audit_logger()
        await alogin(logger)
        (root / "filler").write_bytes(b"x" * (1 << 20))
        provider.journal._allowance = 0
        waiting = asyncio.create_task(alogin(logger))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        (root / "filler").unlink()
        assert (await waiting).sequence == 3
        await provider.ashutdown(1)

    asyncio.run(main())


@pytest.mark.parametrize("level", ["process", "disk"])
def test_cancelling_does_not_unrecord(root: Path, level: str) -> None:
    """While the stream is made and synced, the task is cancelled: the record is there all the same."""
    files = Slow()

    async def main() -> None:
        provider = make_provider(root, files=files)
        files.go_on.clear()
        task = asyncio.create_task(alogin(provider.get_audit_logger(), durability=level, body="kept"))
        await asyncio.to_thread(files.waiting.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        files.go_on.set()
        until(lambda: [record.body for record in stored(root)] == ["kept"])
        await provider.ashutdown(5)

    asyncio.run(main())


def test_cancelling_what_waits_for_its_turn_does_not_unrecord(root: Path) -> None:
    """Several coroutines emit while the stream is made; all are cancelled, and all records are there."""
    files = Slow()

    async def main() -> None:
        provider = make_provider(root, files=files)
        files.go_on.clear()
        tasks = [asyncio.create_task(alogin(provider.get_audit_logger())) for _ in range(5)]
        await asyncio.to_thread(files.waiting.wait, 20)
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(result) for result in results} == {asyncio.CancelledError}
        files.go_on.set()
        until(lambda: len(stored(root)) == 5)
        await provider.ashutdown(5)

    asyncio.run(main())


def test_cancelling_the_wait_for_delivery_does_not_stop_delivery(root: Path) -> None:
    """A request that was given up is audited, and its record arrives."""

    async def main() -> None:
        sink = Sink(*[RetryableExportError("down")] * 100_000)
        provider = make_provider(root, destinations={"one": sink})
        task = asyncio.create_task(alogin(provider.get_audit_logger(), durability="delivered", timeout_s=60))
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        sink.script.clear()
        assert await provider.aflush(20)
        assert len(sink.ids) == 1
        await provider.ashutdown(5)

    asyncio.run(main())


def test_a_cancelled_emit_that_fails_is_not_silent(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for its error any more, so it is said in the log and counted."""

    async def main() -> None:
        provider = make_provider(root, max_bytes="1MiB", full_timeout=0.3)
        logger = provider.get_audit_logger()
        await alogin(logger)
        (root / "filler").write_bytes(b"x" * (1 << 20))
        provider.journal._allowance = 0
        task = asyncio.create_task(alogin(logger))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        until(lambda: provider.counters.read() == {"records.failed": 1, "records.not_journaled": 1})
        (root / "filler").unlink()
        await provider.ashutdown(1)

    with caplog.at_level(logging.ERROR, "otel_audit"):
        asyncio.run(main())
    assert "an emit that was cancelled failed; journaled: False" in caplog.text


def test_errors_are_those_of_emit(root: Path) -> None:
    """With ``.journaled``."""

    async def main() -> None:
        async with make_provider(root) as provider:
            logger = provider.get_audit_logger()
            with pytest.raises(InvalidRecordError):
                await logger.aemit("user.login", outcome="success")
            for level in ("forever", "delivered"):
                with pytest.raises(ConfigurationError) as caught:
                    await alogin(logger, durability=level)
                assert caught.value.journaled is False  # type: ignore[attr-defined]
            with pytest.raises(TypeError, match="did you mean 'actor'"):
                await logger.aemit("user.login", actr="u")  # type: ignore[call-arg]

    asyncio.run(main())


def test_a_chosen_id_is_recorded_once(root: Path) -> None:
    """Concurrent retries with one id get one receipt."""

    async def main() -> None:
        async with make_provider(root) as provider:
            logger = provider.get_audit_logger()
            receipts = await asyncio.gather(*[alogin(logger, record_id="r-1") for _ in range(20)])
            assert len(set(receipts)) == 1

    asyncio.run(main())
    assert len(stored(root)) == 1


def test_module_level_functions_can_be_awaited(root: Path) -> None:
    """``aflush`` and ``ashutdown`` of the process-wide provider."""
    from otel_audit import default

    async def main() -> None:
        otel_audit.configure(journal=root, destinations={}, allow_volatile=True)
        await alogin(otel_audit.get_audit_logger())
        assert await otel_audit.aflush(5)
        await otel_audit.ashutdown(5)
        with pytest.raises(JournalClosedError):
            await alogin(otel_audit.get_audit_logger())

    before = default._provider
    try:
        asyncio.run(main())
    finally:
        default._provider = before


def test_a_coroutine_goes_on_with_the_next_configuration(tmp_path: Path) -> None:
    """What was emitted through a provider that was replaced meanwhile goes to its successor, at every durability."""

    async def main() -> None:
        old = make_provider(tmp_path / "old", destinations={"one": Sink()})
        new = make_provider(tmp_path / "new", destinations={"one": Sink()})
        logger = old.get_audit_logger()
        old.successor = new
        await old.ashutdown(5)
        for level in ("process", "disk", "delivered"):
            assert (await alogin(logger, durability=level, timeout_s=20)).durability == level
        assert len(stored(tmp_path / "new")) == 3
        await new.ashutdown(5)

    asyncio.run(main())
