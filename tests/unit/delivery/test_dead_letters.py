"""The files beside the journal: what a destination refuses, and the ids that it gave."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import msgspec
import pytest

from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.delivery import deadletters
from otel_audit.delivery.deadletters import Buried, bury, keep_response_ids, read_dead_letters
from otel_audit.errors import RejectedExportError
from otel_audit.journal.files import Files
from otel_audit.journal.layout import Layout

CANONICAL = '{"attributes":{"a":{"stringValue":"ü\\n\\u2028"}},"event_name":"user.login"}'.encode()


def layout_in(root: Path, files: Files | None = None) -> Layout:
    """An empty journal."""
    layout = Layout(root / "journal", **({"files": files} if files else {}))
    layout.make()
    return layout


def batch() -> RecordBatch:
    """Two records."""
    return RecordBatch("stream-1", {}, [StoredRecord(n, f"hash-{n}", CANONICAL) for n in (7, 8)])


def test_a_dead_letter_has_the_record_byte_for_byte_and_the_reason(tmp_path: Path) -> None:
    """Everything that is needed to repair and send it again, and to prove that it is the same record."""
    layout = layout_in(tmp_path)
    error = RejectedExportError("field x is missing", status=422)
    bury(layout, "archive", batch(), [(batch().records[1], error)])
    [letter] = read_dead_letters(layout, "archive")
    assert bytes(letter.record) == CANONICAL
    assert (letter.stream_id, letter.sequence, letter.sha256) == ("stream-1", 8, "hash-8")
    assert (letter.destination, letter.reason, letter.status) == ("archive", "field x is missing", 422)
    assert letter.refused_ns > 0
    assert layout.dead_letters("archive").stat().st_mode & 0o777 == 0o600


def test_dead_letters_are_appended(tmp_path: Path) -> None:
    """A second refusal leaves the first where it is; other destinations have files of their own."""
    layout = layout_in(tmp_path)
    for record in batch().records:
        bury(layout, "archive", batch(), [(record, RejectedExportError("no"))])
    assert [letter.sequence for letter in read_dead_letters(layout, "archive")] == [7, 8]
    assert list(read_dead_letters(layout, "collector")) == []


def test_nothing_refused_makes_no_file(tmp_path: Path) -> None:
    """A file of dead letters says that there are some."""
    layout = layout_in(tmp_path)
    bury(layout, "archive", batch(), [])
    keep_response_ids(layout, "archive", "stream-1", {})
    assert not layout.dead_letters("archive").exists()
    assert not layout.acknowledgements("archive").exists()


def test_what_a_crash_left_unfinished_does_not_swallow_the_next(tmp_path: Path) -> None:
    """Half a line at the end is ended first; it is passed over, and everything else is read."""
    layout = layout_in(tmp_path)
    bury(layout, "archive", batch(), [(batch().records[0], RejectedExportError("no"))])
    whole = layout.dead_letters("archive").read_bytes()
    layout.dead_letters("archive").write_bytes(whole + whole[: len(whole) // 2])
    bury(layout, "archive", batch(), [(batch().records[1], RejectedExportError("no"))])
    assert [letter.sequence for letter in read_dead_letters(layout, "archive")] == [7, 8]


def test_a_dead_letter_is_on_the_disk_when_the_call_returns(tmp_path: Path) -> None:
    """The file is synced, and its directory because the file is new."""
    synced: list[str] = []

    class Watching(Files):
        def fdatasync(self, fd: int) -> None:
            synced.append(Path(f"/proc/self/fd/{fd}").resolve().name)
            super().fdatasync(fd)

        def fsync(self, fd: int) -> None:
            synced.append(Path(f"/proc/self/fd/{fd}").resolve().name)
            super().fsync(fd)

    layout = layout_in(tmp_path, Watching())
    synced.clear()
    bury(layout, "archive", batch(), [(batch().records[0], RejectedExportError("no"))])
    assert synced == ["archive.jsonl", "dead-letters"]


def test_a_dead_letter_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """The caller must know, because it may not move the cursor."""

    class Full(Files):
        def write(self, fd: int, data: bytes) -> int:
            raise OSError(errno.ENOSPC, "full")

    with pytest.raises(OSError, match="full"):
        bury(layout_in(tmp_path, Full()), "archive", batch(), [(batch().records[0], RejectedExportError("no"))])


def test_ids_that_the_destination_gave_are_kept(tmp_path: Path) -> None:
    """One JSON line for each: by our id one finds the record in the destination."""
    layout = layout_in(tmp_path)
    keep_response_ids(layout, "archive", "stream-1", {"r-1": "their-1", "r-2": "their-2"})
    lines = [json.loads(line) for line in layout.acknowledgements("archive").read_text().splitlines()]
    assert lines == [
        {"record_id": "r-1", "response_id": "their-1", "stream_id": "stream-1"},
        {"record_id": "r-2", "response_id": "their-2", "stream_id": "stream-1"},
    ]


def test_the_record_in_a_dead_letter_is_json_like_the_rest(tmp_path: Path) -> None:
    """Any JSON reader reads the whole line; no second decoding of the record is needed."""
    layout = layout_in(tmp_path)
    bury(layout, "archive", batch(), [(batch().records[0], RejectedExportError("no"))])
    line = json.loads(layout.dead_letters("archive").read_bytes())
    assert line["record"] == msgspec.json.decode(CANONICAL)


def test_looking_for_a_letter_reads_only_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for ``delivered`` asks each time; the file may be long."""
    layout = layout_in(tmp_path)
    buried = Buried(layout, "archive")
    assert not buried.has("stream-1", 7)
    bury(layout, "archive", batch(), [(batch().records[0], RejectedExportError("no"))])
    assert buried.has("stream-1", 7)
    parsed: list[bytes] = []
    monkeypatch.setattr(deadletters, "_letters_in", lambda data: parsed.append(data) or iter(()))
    assert buried.has("stream-1", 7)
    assert parsed == []
    monkeypatch.undo()
    path = layout.dead_letters("archive")
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: len(whole) // 2])  # a writer is in mid-line, or died there
    assert not buried.has("stream-1", 8)
    bury(layout, "archive", batch(), [(batch().records[1], RejectedExportError("no"))])
    assert buried.has("stream-1", 8)
    assert not buried.has("stream-2", 7)
    assert buried.has("stream-1", 7)
