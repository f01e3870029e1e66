"""``configure()``: the provider of the process, and what a second call does."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import otel_audit
from otel_audit import default
from otel_audit.errors import ConfigurationError, JournalClosedError, NotConfiguredError, UnsafeJournalError
from otel_audit.journal.layout import Layout
from otel_audit.journal.reader import StreamReader
from otel_audit.journal.streams import list_streams
from support.delivery import Sink


@pytest.fixture(autouse=True)
def unconfigured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test begins and ends without a process-wide provider, and without the handlers of other tests."""
    monkeypatch.setattr(default, "_of_captures", ())
    before = default._provider
    default._provider = None
    yield
    otel_audit.shutdown(0.0)
    default._provider = before


def records_in(journal: Path) -> list[str]:
    """Event names and bodies of what was emitted, of all streams."""
    found: list[str] = []
    for stream in list_streams(Layout(journal)):
        reader = StreamReader(stream.path)
        while records := reader.read(records_max=1000, bytes_max=1 << 20, final=True):
            found += [str(record.body) for record in records if not record.is_control]
    return found


def emit(logger: otel_audit.AuditLogger, body: str) -> None:
    """Emit a record that can be found again."""
    logger.emit("user.login", actor="u", outcome="success", body=body)


def test_nothing_is_configured_before_configure() -> None:
    """Loggers can be made; emitting through them, flushing and asking say what to do."""
    logger = otel_audit.get_audit_logger("a")
    with pytest.raises(NotConfiguredError, match="configure") as caught:
        emit(logger, "x")
    assert caught.value.journaled is False  # type: ignore[attr-defined]
    with pytest.raises(NotConfiguredError):
        otel_audit.flush()
    with pytest.raises(NotConfiguredError):
        otel_audit.status()
    assert otel_audit.shutdown() is None


def test_loggers_made_earlier_go_on_with_a_second_configuration(tmp_path: Path) -> None:
    """The old provider is shut down, in order, and the new one gets what comes."""
    logger = otel_audit.get_audit_logger("a")
    first = otel_audit.configure(journal=tmp_path / "one", destinations={})
    emit(logger, "1")
    second = otel_audit.configure(journal=tmp_path / "two", destinations={})
    emit(logger, "2")
    emit(first.get_audit_logger(), "3")
    assert first.status().shut_down
    assert records_in(tmp_path / "one") == ["1"]
    assert records_in(tmp_path / "two") == ["2", "3"]
    assert default.get_provider() is second


@pytest.mark.parametrize(
    "wrong",
    [
        {"durabilty": "disk"},
        {"level": "LOUD", "loggers": ["wrong-level"]},
        {"loggers": [7]},
        {"journal": "/proc/audit"},
    ],
)
def test_a_wrong_second_configuration_changes_nothing(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """The old one stays, open and in its place."""
    first = otel_audit.configure(journal=tmp_path / "one", destinations={})
    with pytest.raises(ConfigurationError):
        otel_audit.configure(**{"journal": tmp_path / "two", "destinations": {}, **wrong})
    assert default.get_provider() is first
    emit(otel_audit.get_audit_logger(), "1")
    assert records_in(tmp_path / "one") == ["1"]


def test_a_wrong_first_configuration_leaves_nothing_configured(tmp_path: Path) -> None:
    """Not half of one."""
    with pytest.raises(ConfigurationError):
        otel_audit.configure(journal=tmp_path / "one", destinations={}, loggers=["wrong-level"], level="LOUD")
    with pytest.raises(NotConfiguredError):
        otel_audit.flush()


def test_a_directory_that_cannot_be_used_says_so() -> None:
    """With the path, and what to give instead."""
    with pytest.raises(UnsafeJournalError, match="/proc/audit"):
        otel_audit.configure(journal="/proc/audit", destinations={})


def test_a_directory_of_others_is_no_journal(tmp_path: Path) -> None:
    """Nothing is strewn into it; what a new file system has in it does not count."""
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UnsafeJournalError, match=r"is no journal, and there is something in it \(notes.txt\)"):
        otel_audit.configure(journal=tmp_path, destinations={})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    disk = tmp_path / "disk"
    (disk / "lost+found").mkdir(parents=True)
    (disk / ".keep").touch()
    otel_audit.configure(journal=disk, destinations={})
    (disk / "notes.txt").write_text("mine")
    otel_audit.configure(journal=disk, destinations={})  # it is a journal by now


@pytest.mark.parametrize(("mode", "said"), [(0o777, True), (0o1777, False), (0o755, False)])
def test_a_directory_that_everybody_may_write_to_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, said: bool
) -> None:
    """Anybody could remove what is in it; a sticky one protects what is ours."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    otel_audit.configure(journal=tmp_path / "open", destinations={})
    assert ("chmod o-w" in caplog.text) is said


def test_a_journal_of_unknown_service_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All services without a name share it; where a name or a journal is given, nothing is said."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    otel_audit.configure(service_name="billing", destinations={})
    otel_audit.configure(journal=tmp_path / "j", destinations={})
    assert "unknown_service" not in caplog.text
    otel_audit.configure(destinations={})
    assert "this is the journal of unknown_service" in caplog.text


def test_one_logger_may_be_given_as_a_string(tmp_path: Path) -> None:
    """Rather than a logger for each of its letters."""
    otel_audit.configure(journal=tmp_path / "one", destinations={}, loggers="settings-test")
    import logging

    assert len(logging.getLogger("settings-test").handlers) == 1
    assert not logging.getLogger("s").handlers
    logging.getLogger("settings-test").handlers.clear()


def test_after_shutdown_one_can_configure_again(tmp_path: Path) -> None:
    """``emit`` after ``shutdown`` raises until then."""
    logger = otel_audit.get_audit_logger()
    otel_audit.configure(journal=tmp_path / "one", destinations={})
    otel_audit.shutdown(1.0)
    with pytest.raises(JournalClosedError) as caught:
        emit(logger, "x")
    assert caught.value.journaled is False
    otel_audit.configure(journal=tmp_path / "one", destinations={})
    emit(logger, "y")
    assert records_in(tmp_path / "one") == ["y"]


def test_nothing_is_lost_while_the_configuration_is_replaced(tmp_path: Path) -> None:
    """Threads that emit meanwhile get a receipt for every record, and it is in one of the journals."""
    otel_audit.configure(journal=tmp_path / "0", destinations={})
    logger = otel_audit.get_audit_logger()
    emitted: list[list[str]] = [[], []]
    errors: list[BaseException] = []
    done = threading.Event()

    def work(number: int) -> None:
        try:
            while not done.is_set():
                body = f"{number}-{len(emitted[number])}"
                emit(logger, body)
                emitted[number].append(body)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for number in range(1, 6):
        otel_audit.configure(journal=tmp_path / str(number), destinations={})
    done.set()
    for thread in threads:
        thread.join()
    otel_audit.shutdown(1.0)
    assert errors == []
    found = [body for number in range(6) for body in records_in(tmp_path / str(number))]
    assert sorted(found) == sorted(emitted[0] + emitted[1])


def test_what_the_first_had_not_delivered_is_delivered_by_the_second(tmp_path: Path) -> None:
    """Same journal, another exporter: everything arrives."""
    from otel_audit.errors import BlockedExportError

    down = Sink(*[BlockedExportError("no")] * 99)
    otel_audit.configure(journal=tmp_path / "one", destinations={"d": down}, exit_timeout=0.1)
    emit(otel_audit.get_audit_logger(), "1")
    up = Sink()
    otel_audit.configure(journal=tmp_path / "one", destinations={"d": up})
    emit(otel_audit.get_audit_logger(), "2")
    assert otel_audit.flush(20)
    assert sorted(str(record.body) for record in up.accepted if not record.is_control) == ["1", "2"]


def test_the_sdk_switch_does_not_switch_auditing_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``OTEL_SDK_DISABLED=true`` is for telemetry."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    otel_audit.configure(journal=tmp_path / "one", destinations={})
    emit(otel_audit.get_audit_logger(), "1")
    assert records_in(tmp_path / "one") == ["1"]


def test_the_process_environment_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything can be configured without a line of code."""
    monkeypatch.setenv("OTEL_AUDIT_JOURNAL", str(tmp_path / "journal"))
    monkeypatch.setenv("OTEL_AUDIT_DESTINATIONS", "none")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "orders")
    provider = otel_audit.configure()
    emit(otel_audit.get_audit_logger(), "1")
    assert records_in(tmp_path / "journal") == ["1"]
    [stream] = list_streams(provider.journal.layout)
    assert stream.metadata.resource["service.name"] == "orders"
    assert stream.metadata.pid == os.getpid()
