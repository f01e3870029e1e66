"""What ``emit`` waits for, what it raises, and what ``status`` shows."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_audit import AuditProvider
from otel_audit import semconv as sc
from otel_audit.errors import (
    ConfigurationError,
    DeliveryTimeoutError,
    JournalClosedError,
    JournalError,
    JournalSyncError,
    RetryableExportError,
    UnsafeJournalError,
)
from otel_audit.journal.files import Files
from otel_audit.logger import AuditLogger
from support.delivery import Sink
from support.provider import login, make_provider, stored


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


@pytest.fixture
def logger(provider: AuditProvider) -> AuditLogger:
    """A logger of it."""
    return provider.get_audit_logger("billing")


# -- durability ------------------------------------------------------------------------------------------------


class Watching(Files):
    """Notes which files are synced."""

    def __init__(self) -> None:
        self.synced: list[str] = []
        self.error: OSError | None = None

    def fdatasync(self, fd: int) -> None:
        if self.error is not None:
            raise self.error
        self.synced.append(Path(f"/proc/self/fd/{fd}").resolve().name)
        super().fdatasync(fd)


def test_disk_returns_after_a_sync(root: Path) -> None:
    """The receipt says so, and the segment was synced in between."""
    files = Watching()
    with make_provider(root, files=files) as provider:
        login(provider.get_audit_logger())
        files.synced.clear()
        receipt = login(provider.get_audit_logger(), durability="disk")
        assert receipt.durability == "disk"
        assert any(name.endswith(".jsonl") for name in files.synced)


def test_the_durability_can_be_configured(root: Path) -> None:
    """For every call that does not say another."""
    with make_provider(root, durability="disk") as provider:
        logger = provider.get_audit_logger()
        assert login(logger).durability == "disk"
        assert login(logger, durability="process").durability == "process"


def test_a_sync_that_fails_is_told(root: Path) -> None:
    """Written, but not known to be on the disk: neither yes nor no."""
    files = Watching()
    provider = make_provider(root, files=files)
    login(provider.get_audit_logger())
    files.error = OSError(errno.EIO, "input/output error")
    with pytest.raises(JournalSyncError) as caught:
        login(provider.get_audit_logger(), durability="disk")
    assert caught.value.journaled is None
    files.error = None
    provider.shutdown(1.0)
    assert len(stored(root)) == 2


def test_delivered_returns_when_every_required_destination_has_it(root: Path) -> None:
    """Not only one of them; the optional one is not waited for."""
    one, two = Sink(), Sink()
    down = Sink(*[RetryableExportError("down")] * 10_000)
    destinations = {"one": one, "two": two, "extra": {"type": down, "required": False}}
    provider = make_provider(root, destinations=destinations)
    receipt = login(provider.get_audit_logger(), durability="delivered", timeout_s=20)
    assert receipt.durability == "delivered"
    assert receipt.record_id in one.ids
    assert receipt.record_id in two.ids
    provider.shutdown(0.0)


def test_delivered_in_time_or_an_error_that_names_who_is_missing(root: Path) -> None:
    """The record is journaled, the error has its receipt, and it is delivered later."""
    up, down = Sink(), Sink(*[RetryableExportError("down")] * 100_000)
    provider = make_provider(root, destinations={"up": up, "down": down})
    with pytest.raises(DeliveryTimeoutError, match=r"not delivered in time to down \(down\); the record") as caught:
        login(provider.get_audit_logger(), durability="delivered", timeout_s=0.3)
    error = caught.value
    assert error.missing == ("down",)
    assert error.journaled is True
    assert error.receipt is not None
    assert error.receipt.durability == "process"
    assert [record.record_id for record in stored(root)] == [error.receipt.record_id]
    down.script.clear()
    assert provider.flush(20)
    assert down.ids == [error.receipt.record_id]
    provider.shutdown(1.0)


@pytest.mark.parametrize("destinations", [{}, {"extra": {"type": Sink(), "required": False}}])
def test_delivered_needs_a_required_destination(root: Path, destinations: dict[str, Any]) -> None:
    """There is nobody whose acknowledgement could be waited for; nothing is journaled."""
    with make_provider(root, destinations=destinations) as provider:
        with pytest.raises(ConfigurationError, match="at least one required destination") as caught:
            login(provider.get_audit_logger(), durability="delivered")
        assert caught.value.journaled is False  # type: ignore[attr-defined]
        assert stored(root) == []
    with pytest.raises(ConfigurationError, match="at least one required destination"):
        make_provider(root, destinations=destinations, durability="delivered")


def test_an_unknown_durability_is_an_error(root: Path, logger: AuditLogger) -> None:
    """Nothing is journaled."""
    with pytest.raises(ConfigurationError, match="process, disk, delivered"):
        login(logger, durability="forever")
    assert stored(root) == []


def test_disk_on_a_volatile_file_system_is_an_error(logger: AuditLogger, provider: AuditProvider) -> None:
    """A sync that succeeds at once and means nothing is not sold as one."""
    journal = provider.journal
    journal._allow_volatile = False
    object.__setattr__(journal.file_system, "volatile", True)
    with pytest.raises(UnsafeJournalError, match="volatile"):
        login(logger, durability="disk")


# -- errors ------------------------------------------------------------------------------------------------------


def test_a_write_that_fails_is_told(root: Path) -> None:
    """The operating system's error is the cause, and the record is not there."""

    class Faulty(Files):
        broken = False

        def write(self, fd: int, data: bytes) -> int:
            if self.broken:
                raise OSError(errno.EIO, "input/output error")
            return super().write(fd, data)

    files = Faulty()
    provider = make_provider(root, files=files)
    login(provider.get_audit_logger())
    files.broken = True
    with pytest.raises(JournalError) as caught:
        login(provider.get_audit_logger())
    assert caught.value.journaled is False
    assert isinstance(caught.value.__cause__, OSError)
    files.broken = False
    login(provider.get_audit_logger())
    provider.shutdown(1.0)
    assert [record.sequence for record in stored(root)] == [2, 3]


def test_an_interruption_says_whether_the_record_is_there(root: Path) -> None:
    """Ctrl-C right behind the write: the line is in the journal, and the exception has its receipt."""

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
        login(provider.get_audit_logger())
        files.due = True
        with pytest.raises(KeyboardInterrupt) as caught:
            login(provider.get_audit_logger())
        assert caught.value.journaled is True  # type: ignore[attr-defined]
        receipt = caught.value.receipt  # type: ignore[attr-defined]
        assert receipt.sequence == 3
        assert receipt.integrity_hash == stored(root)[1].sha256


def test_emit_after_shutdown_raises(root: Path) -> None:
    """Nothing is dropped in silence."""
    provider = make_provider(root)
    logger = provider.get_audit_logger()
    login(logger)
    provider.shutdown(1.0)
    with pytest.raises(JournalClosedError) as caught:
        login(logger)
    assert caught.value.journaled is False
    assert len(stored(root)) == 1


def test_emit_after_shutdown_without_a_record_before_raises(root: Path) -> None:
    """A provider that was never used is shut down too."""
    provider = make_provider(root)
    provider.shutdown(1.0)
    with pytest.raises(JournalClosedError):
        login(provider.get_audit_logger())


def test_leaving_the_block_shuts_down(root: Path) -> None:
    """The stream ends in order: its last record says so."""
    with make_provider(root) as provider:
        login(provider.get_audit_logger())
    with pytest.raises(JournalClosedError):
        login(provider.get_audit_logger())
    assert stored(root, control=True)[-1].attributes[sc.SEQUENCE_END] is True


# -- status ------------------------------------------------------------------------------------------------------


def test_the_status_shows_what_there_is(root: Path) -> None:
    """Journal, stream, destinations and counters; it can be written as JSON."""
    import msgspec

    provider = make_provider(root, destinations={"one": Sink()})
    assert provider.status().stream_id is None
    login(provider.get_audit_logger(), durability="delivered", timeout_s=20)
    provider.count("records.filled", 3)
    status = provider.status()
    assert status.journal == str(root)
    assert status.records == 2
    assert status.stream_id == stored(root)[0].attributes[sc.SEQUENCE_STREAM_ID]
    assert status.counters == {"records.filled": 3}
    assert not status.shut_down
    [one] = status.destinations
    assert (one.name, one.required, one.delivered, one.pending) == ("one", True, 2, 0)
    assert json.loads(msgspec.json.encode(status))["destinations"][0]["name"] == "one"
    provider.shutdown(1.0)
    assert provider.status().shut_down


def test_handlers_out_of_reach_are_shown(provider: AuditProvider) -> None:
    """Whoever knows the captures says which."""
    provider.unreachable_handlers = lambda: ["audit: disabled"]
    assert provider.status().unreachable_handlers == ["audit: disabled"]


def test_the_state_is_left_for_other_processes(root: Path, provider: AuditProvider, logger: AuditLogger) -> None:
    """Housekeeping writes it beside the stream; ``journal_status`` of another process finds it there."""
    from otel_audit.health import journal_status

    login(logger)
    provider.count("records.filled")
    provider.journal.housekeep()
    [stream] = journal_status(provider.journal.layout).streams
    assert stream.process is not None
    assert stream.process.counters == {"records.filled": 1}
    assert stream.owner == "living"
    assert stream.records == 2
