"""The journal of a process: its stream, its room, its background thread."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from otel_audit import semconv as sc
from otel_audit.errors import (
    DamageError,
    JournalClosedError,
    JournalError,
    JournalFullError,
    JournalSyncError,
    UnsafeJournalError,
)
from otel_audit.journal import journal as journal_module
from otel_audit.journal.creation import HIDDEN, remove_unfinished
from otel_audit.journal.cursor import Cursor
from otel_audit.journal.journal import Journal
from otel_audit.journal.metadata import NAME, UnknownFormatError
from otel_audit.journal.segment import list_segments
from otel_audit.journal.streams import StreamDirectory, list_streams, usage_bytes
from otel_audit.testing.files import FaultyFiles
from support.journal import (
    audit,
    audit_all,
    ids_of,
    in_child,
    make_entry,
    make_journal,
    make_layout,
    make_provider,
    make_writer,
    needs,
    only_stream,
    read_all,
    shell,
)

LINES = "*.jsonl"


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
def journal(tmp_path: Path, files: FaultyFiles) -> Iterator[Journal]:
    journal = make_journal(tmp_path, files)
    yield journal
    files.heal()
    journal.close()


def until(condition: Callable[[], object]) -> None:
    """Wait for another thread; the test's own time limit ends it."""
    while not condition():
        time.sleep(0.005)


def append(journal: Journal, *names: str, **arguments: Any) -> None:
    for name in names:
        journal.append(make_entry(name, **arguments))


# -- a stream's life --------------------------------------------------------------------------------------------


def test_a_stream_is_made_on_first_use(journal: Journal):
    """A process that never emits leaves no stream."""
    assert journal.writer is None
    assert not journal.ready
    assert list_streams(journal.layout) == []
    journal.sync()
    entry = make_entry("r-2")
    stream_id = journal.append(entry)
    assert journal.ready
    assert only_stream(journal.layout).stream_id == stream_id
    assert entry.sequence == 2


def test_an_orderly_end(tmp_path: Path):
    """After close the stream has its last record, is on the disk, and nothing more is taken."""
    files = FaultyFiles()
    journal = make_journal(tmp_path, files)
    append(journal, "r-2")
    journal.close()
    journal.close()
    with pytest.raises(JournalClosedError) as caught:
        append(journal, "r-3")
    assert caught.value.journaled is False
    stream = only_stream(journal.layout)
    records, _ = read_all(stream.path)
    assert sc.SEQUENCE_END in records[-1].attributes
    last_write = files.calls_of("write", path=LINES)[-1]
    assert files.calls_of("fdatasync", path=LINES)[-1].begun > last_write.ended
    assert not journal._thread.alive


def test_a_journal_that_was_closed_before_its_first_record_takes_none(journal: Journal):
    """There is nothing to end, and nothing begins."""
    journal.close()
    with pytest.raises(JournalClosedError):
        append(journal, "r-2")
    assert list_streams(journal.layout) == []


def test_closing_while_others_emit_leaves_nothing_behind_the_end(tmp_path: Path):
    """Whatever ``append`` accepted is in a stream that ended in order."""
    for _ in range(10):
        path = tmp_path / str(_)
        journal = make_journal(path, FaultyFiles(sync_s=0.0, log=False))
        accepted: list[str] = []

        def emit(number: int, journal: Journal = journal, accepted: list[str] = accepted) -> None:
            n = 0
            while True:
                try:
                    append(journal, f"r-{number}-{n}")
                except JournalClosedError:
                    return
                accepted.append(f"r-{number}-{n}")
                n += 1

        threads = [threading.Thread(target=emit, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        until(lambda accepted=accepted: len(accepted) > 20)
        journal.close()
        for thread in threads:
            thread.join()
        stream = only_stream(journal.layout)
        assert sorted(audit(stream.path).record_ids) == sorted(accepted)
        assert sc.SEQUENCE_END in read_all(stream.path)[0][-1].attributes


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE, errno.EIO])
@pytest.mark.parametrize("operation", ["mkdir", "open", "lock", "write", "fdatasync", "rename", "fsync"])
def test_a_stream_that_cannot_be_made_raises_and_can_be_made_later(
    tmp_path: Path, files: FaultyFiles, operation: str, code: int
):
    """Whichever step fails, nothing was written, and nothing that looks like a stream with records is left."""
    journal = make_journal(tmp_path, files)
    files.fail(operation, code, when=lambda call: "streams/" in str(call.path))
    with pytest.raises(JournalError) as caught:
        append(journal, "refused")
    assert caught.value.journaled is False
    assert isinstance(caught.value, JournalFullError) == (code == errno.ENOSPC)
    append(journal, "r-2")
    journal.close()
    assert not list(journal.layout.streams.glob(f"{HIDDEN}*"))
    assert [ids_of(read_all(stream.path)[0]) for stream in list_streams(journal.layout)].count(["r-2"]) == 1
    assert not any("refused" in path.read_text() for path in tmp_path.rglob(LINES))


def test_a_journal_whose_directory_is_taken_away_says_so(tmp_path: Path, files: FaultyFiles):
    """An error of the configuration, at the first record if not before."""
    journal = make_journal(tmp_path, files)
    shutil.rmtree(tmp_path / "journal")
    (tmp_path / "journal").touch()
    with pytest.raises(UnsafeJournalError):
        append(journal, "r-2")


@pytest.mark.parametrize("what", ["stream", "segment", "journal"])
def test_after_a_removal_by_somebody_else_a_new_stream_begins(
    journal: Journal, what: str, caplog: pytest.LogCaptureFixture
):
    """What was written since the last sync, and all that follows, goes there; the loss is said aloud."""
    append(journal, "old")
    journal.sync()
    append(journal, "fresh-1", "fresh-2")
    old = journal.writer
    assert old is not None
    target = {"stream": old.directory, "journal": journal.layout.root, "segment": list_segments(old.directory)[0].path}
    shell("rm", "-r", target[what])
    with pytest.raises(JournalSyncError):
        journal.sync()
    entry = make_entry("new")
    stream_id = journal.append(entry)
    assert stream_id != old.stream_id
    assert entry.journaled is True
    journal.close()
    assert sorted(audit(journal.layout.streams / stream_id).record_ids) == ["fresh-1", "fresh-2", "new"]
    assert "by somebody else; a new stream begins, with 2 records of this one" in caplog.text


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize("what", ["stream", "segment", "lock", "journal"])
def test_what_is_moved_away_or_replaced_is_noticed(journal: Journal, what: str, copied: bool):
    """Nobody would ever read what is written into a file that has been moved away; nor believe a lock that was."""
    append(journal, "old")
    journal.sync()
    append(journal, "fresh")
    old = journal.writer
    assert old is not None
    target = {
        "stream": old.directory,
        "journal": journal.layout.root,
        "segment": list_segments(old.directory)[0].path,
        "lock": old.directory / "lock",
    }[what]
    away = journal.layout.root.with_name("away")
    shell("mv", target, away)
    if copied:
        shell("cp", "-a", away, target)
    append(journal, "new-1")
    with contextlib.suppress(JournalSyncError):
        journal.sync()
    append(journal, "new-2")
    journal.sync()
    assert {"fresh", "new-1", "new-2"} <= set(audit_all(journal.layout.root))
    present = journal.writer
    assert present is not None
    assert StreamDirectory(journal.layout, present.directory).owner_state() == "living"


def test_a_removal_is_found_in_the_background_too(journal: Journal):
    """Without another emit, the last records of a removed stream are in a new one after the next sync."""
    append(journal, "old")
    journal.sync()
    writer = journal.writer
    assert writer is not None
    append(journal, "fresh")
    shell("rm", "-r", writer.directory)
    until(lambda: journal.writer is not writer)
    until(lambda: list_streams(journal.layout) and audit_all(journal.layout.root) == ["fresh"])


def test_a_record_during_which_the_removal_is_found_is_written_once(journal: Journal, monkeypatch: pytest.MonkeyPatch):
    """The check comes after the write: the record goes into the new stream, and its receipt names that one."""
    monkeypatch.setattr("otel_audit.journal.stream.RECENT_BYTES_MAX", 0)
    append(journal, "old")
    writer = journal.writer
    assert writer is not None
    shell("rm", "-r", writer.directory)
    entry = make_entry("new")
    stream_id = journal.append(entry)
    journal.close()
    assert stream_id != writer.stream_id
    assert entry.sequence == 2
    assert audit(journal.layout.streams / stream_id).record_ids == ["new"]


# -- room ---------------------------------------------------------------------------------------------------------


def fill(journal: Journal) -> list[str]:
    """Append until the journal is full; what it took."""
    taken: list[str] = []
    with pytest.raises(JournalFullError) as caught:
        while True:
            append(journal, f"r-{len(taken)}", body="x" * 2000)
            taken.append(f"r-{len(taken)}")
    assert caught.value.journaled is False
    assert caught.value.retryable
    return taken


def test_max_bytes_is_for_the_whole_journal_dead_letters_included(tmp_path: Path):
    """What others have written and what could not be delivered takes room as well."""
    journal = make_journal(tmp_path, bytes_max=300_000)
    letters = journal.layout.dead_letters("collector")
    letters.write_bytes(bytes(100_000))
    other = make_writer(make_layout(tmp_path))
    other.append(make_entry(body="x" * 100_000))
    taken = fill(journal)
    size = usage_bytes(journal.layout.root)
    assert 290_000 < size < 310_000
    assert 10 < len(taken) < 50
    letters.unlink()
    append(journal, "with room again")
    other.close()
    journal.close()


def test_usage_is_what_the_files_hold(tmp_path: Path):
    """Every file counts, wherever it is; what vanishes meanwhile does not matter."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "one").write_bytes(bytes(10))
    (tmp_path / "a" / "two").write_bytes(bytes(20))
    (tmp_path / "a" / "b" / "three").write_bytes(bytes(30))
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "b")
    link = len(str(tmp_path / "a" / "b"))
    assert usage_bytes(tmp_path) == 60 + link
    assert usage_bytes(tmp_path / "gone") == 0
    assert usage_bytes(tmp_path / "one") == 0


def test_a_full_journal_blocks_until_there_is_room(tmp_path: Path):
    """Within the time allowed, the record is taken as soon as something is removed."""
    journal = make_journal(tmp_path, bytes_max=200_000, full_timeout_s=60.0)
    letters = journal.layout.dead_letters("collector")
    letters.write_bytes(bytes(200_000))
    entry = make_entry("patient")
    thread = threading.Thread(target=journal.append, args=(entry,))
    thread.start()
    until(lambda: journal._thread.alive)
    assert entry.sequence == 0
    assert journal.writer is None, "a full journal gets no new streams either"
    letters.unlink()
    thread.join()
    assert entry.sequence == 2
    journal.close()


def test_a_caller_that_may_not_block_does_not(tmp_path: Path):
    """``wait_s=0``, for event loops, raises although the configuration allows a minute."""
    journal = make_journal(tmp_path, bytes_max=1, full_timeout_s=60.0)
    entry = make_entry("r-2")
    with pytest.raises(JournalFullError) as caught:
        journal.append(entry, wait_s=0.0)
    assert caught.value.journaled is False
    assert entry.journaled is False
    journal.close()


def test_the_time_for_which_a_full_journal_blocks_is_bounded(tmp_path: Path, files: FaultyFiles):
    """When nothing is removed, it is tried again for as long as configured, and then refused."""
    journal = make_journal(tmp_path, files, full_timeout_s=0.12)
    append(journal, "r-2")
    refusal = files.fail("write", errno.ENOSPC, path=LINES, times=None)
    entry = make_entry("r-3")
    with pytest.raises(JournalFullError) as caught:
        journal.append(entry)
    assert caught.value.journaled is False
    assert refusal.hits >= 2
    files.heal()
    journal.close()
    assert audit_all(journal.layout.root) == ["r-2"]


def test_a_full_disk_blocks_and_goes_on_like_a_full_journal(tmp_path: Path, files: FaultyFiles):
    """The file system's own ENOSPC is waited out in the same way."""
    journal = make_journal(tmp_path, files, full_timeout_s=60.0)
    append(journal, "r-2")
    refusal = files.fail("write", errno.ENOSPC, path=LINES, times=3)
    append(journal, "r-3")
    assert refusal.hits == 3
    journal.close()
    assert audit_all(journal.layout.root) == ["r-2", "r-3"]


def test_delivered_segments_make_room(tmp_path: Path):
    """When the journal is full, what every required destination has is removed at once, and the record is taken."""
    journal = make_journal(
        tmp_path,
        bytes_max=200_000,
        full_timeout_s=60.0,
        segment_bytes_max=20_000,
        required=["collector"],
        retention_s=9e9,
    )
    for n in range(60):
        append(journal, f"r-{n}", body="x" * 2000)
    writer = journal.writer
    assert writer is not None
    StreamDirectory(journal.layout, writer.directory).cursor_file("collector").store(Cursor(acknowledged=50))
    for n in range(60, 100):
        append(journal, f"r-{n}", body="x" * 2000)
    assert 30 < list_segments(writer.directory)[0].first <= 51
    assert journal.layout.ledger.exists()
    journal.close()


# -- the background thread ---------------------------------------------------------------------------------------


def test_records_are_synced_in_the_background(journal: Journal, files: FaultyFiles):
    """Without anybody asking, a record with durability ``process`` is on the disk soon."""
    append(journal, "r-2")
    writer = journal.writer
    assert writer is not None
    until(lambda: not writer.unsynced)
    last_write = files.calls_of("write", path=LINES)[-1]
    assert files.calls_of("fdatasync", path=LINES)[-1].begun > last_write.ended


def test_one_sync_covers_many_records(journal: Journal, files: FaultyFiles, monkeypatch: pytest.MonkeyPatch):
    """However many are written, the background syncs at most so often."""
    monkeypatch.setattr(journal_module, "SYNC_INTERVAL_S", 0.05)
    begun = time.monotonic()
    for n in range(400):
        append(journal, f"r-{n}")
    elapsed = time.monotonic() - begun
    assert len(files.calls_of("fdatasync", path=LINES)) <= elapsed / 0.05 + 1


def test_it_tells_once_after_each_quiet_time(journal: Journal):
    """Whoever ships is woken by the first record, not by each."""
    told: list[int] = []
    journal.on_written = lambda: told.append(1)
    append(journal, "a", "b", "c")
    assert len(told) == 1
    until(lambda: not journal._due)
    append(journal, "d", "e")
    assert len(told) == 2


def test_an_interrupted_telling_is_made_up_for(journal: Journal):
    """Were the background never told, nothing would be synced and nothing shipped."""
    told: list[int] = []

    def interrupt() -> None:
        told.append(1)
        if len(told) == 1:
            raise KeyboardInterrupt

    journal.on_written = interrupt
    entry = make_entry("r-2")
    with pytest.raises(KeyboardInterrupt):
        journal.append(entry)
    assert entry.journaled is True
    append(journal, "r-3")
    assert len(told) == 2


def test_the_background_survives_whatever_happens_in_it(
    journal: Journal, files: FaultyFiles, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """An unexpected error is logged, and the next round syncs."""
    monkeypatch.setattr(journal_module, "SYNC_INTERVAL_S", 0.001)
    monkeypatch.setattr(journal_module, "HOUSEKEEPING_S", 0.001)

    def surprise() -> None:
        raise RuntimeError("surprise")

    journal.on_housekeeping = surprise
    journal._housekeeping_s = 0.0
    append(journal, "r-2")
    until(lambda: "surprise" in caplog.text)
    append(journal, "r-3")
    writer = journal.writer
    assert writer is not None
    until(lambda: not writer.unsynced)


def test_a_background_sync_that_fails_is_logged(journal: Journal, files: FaultyFiles, caplog: pytest.LogCaptureFixture):
    """Nobody waits for it, so it has to be said; and what went wrong and was mended is said too."""
    append(journal, "r-2")
    writer = journal.writer
    assert writer is not None
    until(lambda: not writer.unsynced)
    files.fail("fdatasync", errno.EIO, times=None)
    append(journal, "r-3")
    until(lambda: "emit raises until it can be mended" in caplog.text)
    files.heal()
    append(journal, "r-4")
    until(lambda: "records were moved to a new segment" in caplog.text)
    assert {record.levelno for record in caplog.records} >= {logging.WARNING, logging.ERROR}


# -- housekeeping --------------------------------------------------------------------------------------------------


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_what_an_interrupted_creation_left_is_removed(journal: Journal):
    """Hidden directories that nobody builds any more go; those that somebody builds, or that are young, stay."""
    streams = journal.layout.streams
    hidden = {name: streams / f"{HIDDEN}{name}" for name in ("empty", "half", "young", "locked")}
    for path in hidden.values():
        path.mkdir()
    (hidden["half"] / "cursors").mkdir()
    (hidden["half"] / "lock").touch()
    (hidden["half"] / f".{NAME}.0123.new").touch()
    shell("touch", hidden["locked"] / "lock")
    builder = StreamDirectory(journal.layout, hidden["locked"]).owner_lock()
    assert builder.acquire()
    for name in ("empty", "half", "locked"):
        age(hidden[name], 61)
    journal.housekeep()
    assert sorted(path.name for path in streams.iterdir()) == [f"{HIDDEN}locked", f"{HIDDEN}young"]
    builder.release()
    age(hidden["locked"], 61)
    assert remove_unfinished(journal.layout) == 1


def test_hidden_directories_are_no_streams(journal: Journal):
    """A stream that is being made is nobody's to ship or to trim."""
    (journal.layout.streams / f"{HIDDEN}x").mkdir()
    assert list_streams(journal.layout) == []


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (b'{"format": 2, "anything": true}', UnknownFormatError, "format 2 is not known"),
        (b'{"format": "x"}', UnknownFormatError, "format 'x' is not known"),
        (b"{", DamageError, "is damaged"),
        (b"[]", DamageError, "is damaged"),
        (b'{"format": 1}', DamageError, "is damaged"),
        (None, DamageError, "cannot read stream.json"),
    ],
)
def test_a_stream_of_an_unknown_format_is_left_alone_and_reported_once(
    tmp_path: Path, content: bytes | None, kind: type[DamageError], said: str, caplog: pytest.LogCaptureFixture
):
    """During a rolling deploy a newer version's streams are not ours to touch; a damaged description is not either."""
    journal = make_journal(tmp_path, retention_s=0.0)
    writer = make_writer(journal.layout)
    writer.append(make_entry("theirs"))
    writer.close()
    path = writer.directory / NAME
    path.unlink() if content is None else path.write_bytes(content)
    before = {path: path.read_bytes() for path in writer.directory.rglob("*") if path.is_file()}
    stream = only_stream(journal.layout)
    with pytest.raises(kind, match=said):
        _ = stream.metadata
    for _ in range(3):
        journal.housekeep()
    assert {path: path.read_bytes() for path in writer.directory.rglob("*") if path.is_file()} == before
    assert caplog.text.count(said) == 1


def test_metadata_of_a_later_version_with_the_same_format_can_be_read(tmp_path: Path):
    """New members are passed over; the format number says when that is not right."""
    layout = make_layout(tmp_path)
    writer = make_writer(layout, required=["a"])
    writer.close()
    path = writer.directory / NAME
    said = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**said, "invented_later": [1]}))
    assert only_stream(layout).metadata.required == ["a"]


def many_streams(tmp_path: Path, count: int, files: FaultyFiles) -> Journal:
    """What so many short-lived processes leave: streams of dead owners that nobody has shipped."""
    journal = make_journal(tmp_path, files, required=["collector"])
    writer = make_writer(journal.layout, required=["collector"])
    writer.append(make_entry("r-2"))
    writer.close()
    model = writer.directory
    for _ in range(count - 1):
        directory = model.with_name(f"{_:08d}-0000-4000-8000-000000000000")
        directory.mkdir()
        (directory / "cursors").mkdir()
        for path in model.iterdir():
            if path.is_file():
                os.link(path, directory / path.name)
    return journal


def test_many_short_lived_streams_cost_few_system_calls_each(tmp_path: Path, files: FaultyFiles):
    """Listing asks nothing of a stream; housekeeping asks little of those that cannot be removed."""
    journal = many_streams(tmp_path, 200, files)
    del files.calls[:]
    assert len(list_streams(journal.layout)) == 200
    assert files.calls == []
    journal.housekeep()
    assert len(files.calls) < 200 * 25
    assert len(list_streams(journal.layout)) == 200
    journal.close()


@pytest.mark.slow
def test_ten_thousand_short_lived_streams(tmp_path: Path):
    """The journal stays usable: it is listed, a new stream begins, and housekeeping rests longer than it works."""
    journal = many_streams(tmp_path, 10_000, FaultyFiles(log=False))
    for name, run in [
        ("list_s", lambda: list_streams(journal.layout)),
        ("usage_s", lambda: usage_bytes(journal.layout.root)),
        ("first_emit_s", lambda: append(journal, "r-2")),
        ("housekeep_s", journal.housekeep),
    ]:
        begun = time.monotonic()
        run()
        print(name, round(time.monotonic() - begun, 4))
    assert len(list_streams(journal.layout)) == 10_001
    assert journal._housekeeping_s >= journal_module.HOUSEKEEPING_S
    journal.close()


def test_housekeeping_that_takes_long_is_done_less_often(journal: Journal, files: FaultyFiles):
    """Thousands of streams that cannot be delivered keep no processor busy."""
    append(journal, "r-2")
    files.slow("stat", 0.05, path="*/streams/*")
    writer = make_writer(journal.layout, required=[])
    writer.close()
    (journal.layout.streams / f"{HIDDEN}x").mkdir()
    files.slow("stat", 0.3, path=f"*/{HIDDEN}x")
    journal.housekeep()
    assert journal._housekeeping_s >= 0.3 * journal_module.HOUSEKEEPING_SHARE


# -- the whole way from emit --------------------------------------------------------------------------------------


def test_an_emit_names_its_stream_and_place(tmp_path: Path):
    """The receipt is what stands in the journal."""
    provider = make_provider(tmp_path)
    log = provider.get_audit_logger()
    receipts = [log.emit("user.login", actor="u", outcome="success") for _ in range(5)]
    provider.shutdown()
    stream = only_stream(provider.journal.layout)
    found = {record.sequence: record for record in read_all(stream.path)[0]}
    for receipt in receipts:
        assert receipt.stream_id == stream.stream_id
        assert found[receipt.sequence].record_id == receipt.record_id
        assert found[receipt.sequence].sha256 == receipt.integrity_hash


def test_a_daemon_that_closes_every_descriptor_loses_nothing(tmp_path: Path):
    """As daemonisers do: all numbers are closed behind the journal's back, and name other files from then on."""
    provider = make_provider(tmp_path)
    log = provider.get_audit_logger()

    def daemon() -> None:
        for number in range(9):
            if number == 3:
                os.closerange(3, 1024)
                for other in range(20):
                    os.open(tmp_path / f"other-{other}", os.O_RDWR | os.O_CREAT | os.O_APPEND)
            log.emit("user.login", actor="u", outcome="success", record_id=f"r-{number}")
        provider.shutdown()

    assert in_child(daemon) == 0
    assert sum(path.stat().st_size for path in tmp_path.glob("other-*")) > 0, "some went there first"
    stream = only_stream(provider.journal.layout)
    assert audit(stream.path).record_ids == [f"r-{number}" for number in range(9)]
    assert sc.SEQUENCE_END in read_all(stream.path)[0][-1].attributes


def test_a_killed_process_has_lost_nothing_that_it_was_told_is_there(tmp_path: Path):
    """After ``kill -9`` every record whose emit returned is read, and the chain is whole."""
    needs(hasattr(os, "fork"), "fork", "there is no fork")
    provider = make_provider(tmp_path, segment_bytes=50_000)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        log = provider.get_audit_logger()
        while True:
            receipt = log.emit("user.login", actor="u", outcome="success")
            os.write(write_end, receipt.record_id.encode() + b"\n")
    os.close(write_end)
    with os.fdopen(read_end, "rb") as told:
        head = [told.readline() for _ in range(300)]
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        returned = [line.strip().decode() for line in [*head, *told.readlines()]]
    records, damage = read_all(only_stream(provider.journal.layout).path)
    assert ids_of(records)[: len(returned)] == returned
    assert len(ids_of(records)) - len(returned) <= 1
    assert [report.kind for report in damage] in ([], ["torn-tail"])
