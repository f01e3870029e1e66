"""``otel-audit status``: what it shows, and what needs attention; journals are made by providers in this process."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import msgspec
import pytest

from otel_audit.errors import JournalFullError
from otel_audit.health import DestinationStatus, write_process_state
from otel_audit.journal.layout import Layout
from support.cli import clean_environment, emit, provide, require, run, run_json, stream_of


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clean_environment(monkeypatch, tmp_path)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """Where the journal of a test is."""
    return tmp_path / "journal"


def test_status_of_a_journal_that_is_well(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """Living and dead streams, their process, service, records and what is pending; exit code 0."""
    emit(journal, "a.b", "c.d")
    require(journal, "collector")
    with provide(journal) as living:
        living.get_audit_logger().emit("e.f", actor="u-1", outcome="success")
        status = run_json(capsys, "status", "--journal", journal)
        assert run("status", "--journal", journal) == 0
    shown = capsys.readouterr().out
    streams = {stream["owner"]: stream for stream in status["streams"]}
    assert set(streams) == {"living", "dead"}
    assert {stream["pid"] for stream in status["streams"]} == {os.getpid()}
    assert {stream["service"] for stream in status["streams"]} == {"shop"}
    assert (streams["dead"]["records"], streams["living"]["records"]) == (4, 2)  # logging started and stopped count
    (pending,) = streams["dead"]["destinations"]
    assert (pending["destination"], pending["required"], pending["acknowledged"]) == ("collector", True, 0)
    assert pending["pending"] == 4
    assert 0 <= pending["oldest_pending_age_s"] < 60
    assert status["attention"] == []
    assert status["bytes"] > streams["dead"]["bytes"] > 0
    assert "Nothing needs attention" in shown
    for word in ("living", "dead", "shop", "collector", streams["dead"]["stream_id"][:8]):
        assert word in shown


def test_status_of_another_container(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """A writer that holds its lock lives, also where its process id means nothing here."""
    with provide(journal) as living:
        living.get_audit_logger().emit("a.b", actor="u-1", outcome="success")
        path = stream_of(journal) / "stream.json"
        elsewhere = {"pid": 2**22 + 7, "pid_namespace": "pid:[1]"}
        path.write_text(json.dumps({**json.loads(path.read_text()), **elsewhere}))
        (stream,) = run_json(capsys, "status", "--journal", journal)["streams"]
        assert (stream["owner"], stream["pid"]) == ("living", 2**22 + 7)


def test_status_hints_at_what_nobody_delivers(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """Where records of the dead wait and no process lives, it says which command delivers them."""
    emit(journal, "a.b")
    assert run_json(capsys, "status", "--journal", journal)["hints"] == []
    require(journal, "collector")
    (hint,) = run_json(capsys, "status", "--journal", journal)["hints"]
    assert hint.endswith(f": otel-audit ship --once --journal {journal} --destination collector=SPEC")


def needs_attention(capsys: pytest.CaptureFixture[str], journal: Path) -> list[str]:
    """What needs attention; the exit code says that something does, the output for people shows it."""
    attention = run_json(capsys, "status", "--journal", journal, code=1)["attention"]
    assert run("status", "--journal", journal) == 1
    shown = capsys.readouterr().out
    assert all(line in shown for line in attention)
    return list(attention)


def test_dead_letters_need_attention(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """Dead letters are counted by destination and make the exit code 1."""
    emit(journal, "a.b")
    (journal / "dead-letters" / "collector.jsonl").write_text('{"reason":"no"}\n{"reason":"no"}\n')
    (line,) = needs_attention(capsys, journal)
    assert "destination collector: 2 dead letters" in line


def test_commands_in_what_needs_attention_are_for_this_journal(
    capsys: pytest.CaptureFixture[str], journal: Path
) -> None:
    """They can be pasted: the options that named the journal are repeated."""
    emit(journal, "a.b")
    (journal / "dead-letters" / "d.jsonl").write_text("{}\n")
    line, *_ = needs_attention(capsys, journal)
    assert line.endswith(f"otel-audit dlq list d --journal {journal}")


def test_a_journal_without_room_needs_attention(
    capsys: pytest.CaptureFixture[str], journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that were refused; max_bytes that is reached; a file system without a free byte, whoever lives."""
    with provide(journal, max_bytes=1024 * 1024, full_timeout=0, destinations={"gone": "sidecar"}) as living:
        logger = living.get_audit_logger()
        with pytest.raises(JournalFullError):
            for _ in range(200):
                logger.emit("a.b", actor="u-1", outcome="success", attributes={"much": "x" * 10_000})
        living.journal.housekeep()
        full, refused = needs_attention(capsys, journal)
        assert f"process {os.getpid()}: 1 records were refused" in refused
        assert re.match(r"the journal is full to (9\d|1\d\d)% of max_bytes", full)
    attention = run_json(capsys, "status", "--journal", journal, code=1)["attention"]
    assert [line.split(" to ")[0] for line in attention] == ["the journal is full"]  # no process lives
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((4096, 4096, 9, 9, 0, 9, 0, 0, 0, 255)))
    attention = run_json(capsys, "status", "--journal", journal, code=1)["attention"]
    assert any("file system has 0 B and no inode free" in line for line in attention)


def test_damage_needs_attention(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """What a reader found damaged is shown with its place."""
    emit(journal, "a.b")
    report = [{"kind": "hole", "segment": "1.jsonl", "start": 7, "stop": 9, "sequence": 2, "count": 3}]
    (stream_of(journal) / "recovery.json").write_text(json.dumps(report))
    (line,) = needs_attention(capsys, journal)
    assert "hole in 1.jsonl, bytes 7 to 9, 3 records missing from number 2" in line


def test_a_stream_that_cannot_be_read_needs_attention(capsys: pytest.CaptureFixture[str], journal: Path) -> None:
    """A stream of a newer format is named, and the others are shown."""
    emit(journal, "a.b")
    (stream_of(journal) / "stream.json").write_text('{"format": 99}')
    emit(journal, "c.d")
    (line,) = needs_attention(capsys, journal)
    assert "format 99 is not known" in line
    assert len(run_json(capsys, "status", "--journal", journal, code=1)["streams"]) == 2


@pytest.mark.parametrize("living", [True, False])
def test_what_a_living_process_says_needs_attention(
    capsys: pytest.CaptureFixture[str], journal: Path, living: bool
) -> None:
    """A failing destination and an unreachable handler count in a living process, and no more when it is dead."""
    provider = provide(journal)
    provider.journal.on_housekeeping = lambda: None  # else it writes what is true over what the test says
    provider.get_audit_logger().emit("a.b", actor="u-1", outcome="success")
    fine = {"required": True, "delivered": 0, "pending": 1, "dead_lettered": 0, "damaged": 0, "last_success_ns": 0}
    said = msgspec.structs.replace(
        provider.status(),
        destinations=[
            DestinationStatus(
                name="collector", state="blocked", error="401", repair="a new token", failures=3, **fine
            ),
            DestinationStatus(name="archive", state="idle", error="", repair="", failures=0, **fine),
        ],
        unreachable_handlers=["audit: its level is ERROR"],
        counters={"records.invalid": 2},
    )  # fmt: skip
    if living:
        write_process_state(Layout(journal), stream_of(journal), said)
        lines = needs_attention(capsys, journal)
        assert len(lines) == 2
        assert "destination collector is blocked" in lines[0]
        assert "401; a new token" in lines[0]
        assert "audit: its level is ERROR" in lines[1]
    provider.shutdown(1)
    write_process_state(Layout(journal), stream_of(journal), said)
    assert run_json(capsys, "status", "--journal", journal)["attention"] == []
    assert run("status", "--journal", journal) == 0
    assert "records.invalid" in capsys.readouterr().out
