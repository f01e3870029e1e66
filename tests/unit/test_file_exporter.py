"""The file exporter: what it acknowledged is in the file, whole, after every kind of failure."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otel_audit import semconv as sc
from otel_audit.batch import RecordBatch, StoredRecord
from otel_audit.canonical import canonicalize
from otel_audit.errors import BlockedExportError, ConfigurationError, ExportError, RetryableExportError
from otel_audit.exporters.file import FileExporter, TornLine
from otel_audit.journal.files import Files


def batch_of(*ids: str, body: Any = "Grüße") -> RecordBatch:
    """A batch of small records."""
    records = []
    for sequence, record_id in enumerate(ids, 1):
        canonical = canonicalize("user.login", 10**18, 10**18, body, {sc.RECORD_ID: record_id}, "", "")
        records.append(StoredRecord(sequence, f"{sequence:064x}", canonical))
    return RecordBatch("stream-1", {"service.name": "billing"}, records)


def ids_in(path: Path) -> list[str]:
    """The ids of the whole lines of a file; every line must be whole or the beginning of one."""
    found = []
    data = path.read_bytes()
    assert data.endswith(b"\n")
    for line in data.splitlines():
        try:
            found.append(json.loads(line)["record_id"])
        except ValueError:
            assert line.startswith(b"{")
            assert line.count(b'"record_id"') <= 1  # no two lines in one
    return found


def rotated(path: Path) -> list[Path]:
    """The rotated files, oldest first."""
    return sorted(other for other in path.parent.iterdir() if other != path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is to be."""
    return tmp_path / "audit.jsonl"


def test_batches_are_appended(path: Path) -> None:
    """One line per record, in order; a second exporter goes on where the first one stopped."""
    FileExporter(path).export(batch_of("r-1", "r-2"), 5.0)
    FileExporter(path).export(batch_of("r-3"), 5.0)
    assert ids_in(path) == ["r-1", "r-2", "r-3"]
    line = json.loads(path.read_bytes().splitlines()[0])
    assert (line["body"], line["stream_id"], line["sequence"]) == ("Grüße", "stream-1", 1)


@pytest.mark.parametrize(("mode", "expected"), [("0600", 0o600), ("640", 0o640), ("0o666", 0o666)])
def test_permissions_are_what_is_asked_for(path: Path, mode: str, expected: int) -> None:
    """Whatever the umask is; for rotated files and the new one as well."""
    before = os.umask(0o077)
    try:
        exporter = FileExporter(path, mode=mode, rotate_size=1)
        exporter.export(batch_of("r-1"), 5.0)
        exporter.export(batch_of("r-2"), 5.0)
    finally:
        os.umask(before)
    assert [stat.S_IMODE(file.stat().st_mode) for file in (path, *rotated(path))] == [expected, expected]


# -- rotation -----------------------------------------------------------------------------------------------------


def test_rotation_by_size(path: Path) -> None:
    """Before a file would grow beyond the size; a larger batch gets a file of its own; nothing is lost or deleted."""
    exporter = FileExporter(path, rotate_size="2KiB")
    for n in range(20):
        exporter.export(batch_of(f"r-{n}"), 5.0)
    exporter.export(batch_of("large", body="x" * 5000), 5.0)
    exporter.export(batch_of("last"), 5.0)
    files = [*rotated(path), path]
    assert [r for file in files for r in ids_in(file)] == [*(f"r-{n}" for n in range(20)), "large", "last"]
    assert all(file.stat().st_size <= 2048 for file in files if ids_in(file) != ["large"])
    assert len(files) > 5


def test_rotation_by_time(path: Path) -> None:
    """At the boundaries of UTC, by when the file was last written, so that a restart does not matter."""
    day = 86_400
    now = [20_000 * day + 5.0]

    def export(record_id: str) -> None:
        FileExporter(path, rotate_every="1d", now=lambda: now[0]).export(batch_of(record_id), 5.0)
        os.utime(path, (now[0], now[0]))

    export("monday-1")
    now[0] += day - 10
    export("monday-2")
    now[0] += 10
    export("tuesday")
    now[0] -= 20  # the clock is set back over midnight: nothing is rotated
    export("tuesday-2")
    assert ids_in(path) == ["tuesday", "tuesday-2"]
    (monday,) = rotated(path)
    assert ids_in(monday) == ["monday-1", "monday-2"]
    assert monday.name == time.strftime("audit.%Y%m%dT%H%M%SZ-0001.jsonl", time.gmtime(20_001 * day + 5))


def test_no_file_is_ever_overwritten(path: Path) -> None:
    """Many rotations within a second, and a file that happens to have the next name."""
    clock = 1_700_000_000.0
    taken = path.with_name("audit.20231114T221320Z-0002.jsonl")
    taken.write_text("precious")
    exporter = FileExporter(path, rotate_size=1, now=lambda: clock)
    for n in range(5):
        exporter.export(batch_of(f"r-{n}"), 5.0)
    assert taken.read_text() == "precious"
    names = [file.name for file in rotated(path)]
    assert names == [f"audit.20231114T221320Z-{n:04d}.jsonl" for n in range(1, 6)]
    assert [ids_in(file) for file in rotated(path) if file != taken] == [[f"r-{n}"] for n in range(4)]


def test_old_files_are_deleted_only_when_asked_for(path: Path) -> None:
    """The oldest ones, by number within a second too, and only those that we named."""
    other = path.with_name("audit.notes.jsonl")
    other.write_text("mine")
    clock = [1_700_000_000.0]
    exporter = FileExporter(path, rotate_size=1, keep=3, now=lambda: clock[0])
    for n in range(30):
        clock[0] += n % 2
        exporter.export(batch_of(f"r-{n}"), 5.0)
    kept = [ids_in(file)[0] for file in rotated(path) if file != other]
    assert kept == ["r-26", "r-27", "r-28"]
    assert ids_in(path) == ["r-29"]
    assert other.read_text() == "mine"


# -- crashes ------------------------------------------------------------------------------------------------------


def test_a_torn_line_is_ended_and_reported(path: Path) -> None:
    """Wherever the last batch was cut off, the next one begins on a line of its own."""
    FileExporter(path).export(batch_of("r-1"), 5.0)
    whole = path.stat().st_size
    FileExporter(path).export(batch_of("r-2", "r-3"), 5.0)
    data = path.read_bytes()
    middle = data.index(b"\n", whole) + 1
    for end in range(whole, len(data)):
        path.write_bytes(data[:end])
        exporter = FileExporter(path)
        exporter.export(batch_of("r-2", "r-3"), 5.0)
        assert ids_in(path)[0] == "r-1"
        assert ids_in(path)[-2:] == ["r-2", "r-3"]
        begin = whole if end < middle else middle
        assert exporter.torn_lines == (() if end in (whole, middle) else (TornLine(path, begin, end - begin),))


def test_a_long_torn_line_is_measured(path: Path) -> None:
    """Also where it is all that the file holds, and longer than what is read at a time."""
    path.write_bytes(b"{" + b"x" * 200_000)
    exporter = FileExporter(path)
    exporter.export(batch_of("r-1"), 5.0)
    assert exporter.torn_lines == (TornLine(path, 0, 200_001),)
    assert ids_in(path) == ["r-1"]


def test_a_torn_line_is_ended_before_its_file_is_rotated(path: Path) -> None:
    """Every rotated file ends with a line feed."""
    path.write_bytes(b'{"timestamp":')
    exporter = FileExporter(path, rotate_size=1)
    exporter.export(batch_of("r-1"), 5.0)
    (old,) = rotated(path)
    assert old.read_bytes() == b'{"timestamp":\n'
    assert exporter.torn_lines == (TornLine(path, 0, 13),)


KILLED = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from test_file_exporter import FileExporter, batch_of
exporter = FileExporter(Path({path!r}), rotate_size=300_000)
number = {start}
while True:
    ids = [f"r-{{number}}-{{n}}" for n in range(40)]
    exporter.export(batch_of(*ids, body="x" * 500), 5.0)
    print(number, flush=True)
    number += 1
"""


def test_a_kill_loses_nothing_that_was_acknowledged(path: Path) -> None:
    """``SIGKILL`` at any moment, again and again, also during rotation: every acknowledged batch is there, whole."""
    chance = random.Random(7)
    acknowledged: list[int] = []
    start = 0
    for _ in range(12):
        script = KILLED.format(tests=str(Path(__file__).parent), path=str(path), start=start)
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for _ in range(chance.randrange(1, 12)):
                acknowledged.append(int(child.stdout.readline()))
            time.sleep(chance.random() * 0.01)
            child.send_signal(signal.SIGKILL)
            acknowledged += [int(line) for line in child.stdout if line.endswith("\n")]
        start = acknowledged[-1] + 1
    FileExporter(path).export(batch_of("end"), 5.0)
    files = [file for file in (*rotated(path), path) if file.stat().st_size]
    found = [record_id for file in files for record_id in ids_in(file)]
    assert len(files) > 3
    assert found[-1] == "end"
    assert {f"r-{number}-{n}" for number in acknowledged for n in range(40)} <= set(found)


# -- failures of the operating system -----------------------------------------------------------------------------


class Faulty(Files):
    """System calls of which some fail.  ``faults``: name → what to do instead, once for each entry."""

    def __init__(self, **faults: list[Callable[..., Any]]) -> None:
        self.faults = faults
        self.calls: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        real = super().__getattribute__(name)
        if name in ("faults", "calls") or name.startswith("_"):
            return real
        self.calls.append(name)
        waiting = self.faults.get(name)
        return waiting.pop(0) if waiting else real


def fails(code: int) -> Callable[..., Any]:
    """A system call that fails."""

    def call(*_: Any) -> Any:
        raise OSError(code, os.strerror(code))

    return call


def writes(count: int) -> Callable[[int, bytes], int]:
    """A write that takes only so many bytes."""
    return lambda fd, data: os.write(fd, data[:count])


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        ("write", errno.ENOSPC, BlockedExportError), ("write", errno.EDQUOT, BlockedExportError),
        ("write", errno.EFBIG, BlockedExportError), ("write", errno.EIO, RetryableExportError),
        ("fdatasync", errno.EIO, RetryableExportError), ("fdatasync", errno.ENOSPC, BlockedExportError),
        ("sync_directory", errno.EIO, RetryableExportError), ("open", errno.EROFS, BlockedExportError),
        ("open", errno.EACCES, BlockedExportError), ("open", errno.EMFILE, RetryableExportError),
        ("lock", errno.ENOLCK, BlockedExportError), ("fstat", errno.ESTALE, RetryableExportError),
        ("pread", errno.EIO, RetryableExportError),
    ],
)  # fmt: skip
def test_a_failure_leaves_nothing_half_done(path: Path, name: str, code: int, expected: type[ExportError]) -> None:
    """The class says whether to try again, the message what to repair; the next export delivers, once."""
    FileExporter(path).export(batch_of("r-1"), 5.0)
    files = Faulty(**{name: [fails(code)]})
    exporter = FileExporter(path, files=files)
    with pytest.raises(expected) as caught:
        exporter.export(batch_of("r-2", "r-3"), 5.0)
    assert type(caught.value) is expected
    assert caught.value.status == errno.errorcode[code]
    assert bool(caught.value.repair) is (expected is BlockedExportError)
    assert ids_in(path) == ["r-1"]
    exporter.export(batch_of("r-2", "r-3"), 5.0)
    assert ids_in(path) == ["r-1", "r-2", "r-3"]
    assert exporter.torn_lines == ()


def test_a_short_write_is_completed(path: Path) -> None:
    """The rest follows before anything is acknowledged."""
    FileExporter(path, files=Faulty(write=[writes(10), writes(1)])).export(batch_of("r-1", "r-2"), 5.0)
    assert ids_in(path) == ["r-1", "r-2"]


def test_a_short_write_that_cannot_be_completed_is_taken_back(path: Path) -> None:
    """The disk fills up in the middle of a line."""
    exporter = FileExporter(path, files=Faulty(write=[writes(700), fails(errno.ENOSPC)]))
    with pytest.raises(BlockedExportError, match="No space left") as caught:
        exporter.export(batch_of("r-1", "r-2"), 5.0)
    assert "make room" in str(caught.value.repair)
    assert path.read_bytes() == b""


def test_what_cannot_be_taken_back_is_ended_and_reported(path: Path) -> None:
    """Both the write and its undoing fail."""
    files = Faulty(write=[writes(100), fails(errno.EIO)], ftruncate=[fails(errno.EIO)])
    exporter = FileExporter(path, files=files)
    with pytest.raises(RetryableExportError):
        exporter.export(batch_of("r-1"), 5.0)
    exporter.export(batch_of("r-1"), 5.0)
    assert ids_in(path) == ["r-1"]
    assert exporter.torn_lines == (TornLine(path, 0, 100),)


def test_a_write_of_nothing_does_not_hang(path: Path) -> None:
    """A file system that takes no byte and reports no error."""
    with pytest.raises(RetryableExportError):
        FileExporter(path, files=Faulty(write=[lambda fd, data: 0] * 3)).export(batch_of("r-1"), 5.0)


@pytest.mark.parametrize("name", ["open", "rename"])
def test_a_failed_rotation_leaves_everything_as_it_was(path: Path, name: str) -> None:
    """No empty files pile up, and nothing is lost."""
    FileExporter(path).export(batch_of("r-1"), 5.0)
    real = [] if name == "rename" else [os.open]
    exporter = FileExporter(path, rotate_size=1, files=Faulty(**{name: [*real, fails(errno.EIO)]}))
    with pytest.raises(RetryableExportError):
        exporter.export(batch_of("r-2"), 5.0)
    assert rotated(path) == []
    exporter.export(batch_of("r-2"), 5.0)
    assert [ids_in(file) for file in (*rotated(path), path)] == [["r-1"], ["r-2"]]


def test_the_disk_has_it_before_it_counts(path: Path) -> None:
    """Every batch is synced, the directory with the first one and after a rotation."""
    files = Faulty()
    exporter = FileExporter(path, rotate_size=1500, files=files)
    for n in range(6):
        files.calls.clear()
        exporter.export(batch_of(f"r-{n}"), 5.0)
        assert files.calls.index("write") < files.calls.index("fdatasync")
        assert ("sync_directory" in files.calls) is (n == 0 or "rename" in files.calls)
    assert rotated(path)


# -- others at the same file --------------------------------------------------------------------------------------


def test_a_file_that_others_move_or_delete(path: Path) -> None:
    """Nothing is ever written to a file that no longer has the name."""
    exporter = FileExporter(path)
    exporter.export(batch_of("r-1"), 5.0)
    moved = path.with_name("moved")
    path.rename(moved)
    exporter.export(batch_of("r-2"), 5.0)
    assert (ids_in(moved), ids_in(path)) == (["r-1"], ["r-2"])
    path.unlink()
    exporter.export(batch_of("r-3"), 5.0)
    assert ids_in(path) == ["r-3"]


def test_a_file_that_is_moved_between_opening_and_locking(path: Path) -> None:
    """The moment in which another process may rotate it."""
    moved = path.with_name("moved")
    files = Faulty()

    def lock(fd: int) -> bool:
        path.rename(moved)
        return Files.lock(files, fd)

    files.faults = {"lock": [lock]}
    exporter = FileExporter(path, files=files)
    exporter.export(batch_of("r-1"), 5.0)
    assert (moved.read_bytes(), ids_in(path)) == (b"", ["r-1"])


def test_what_is_no_file_is_blocked(tmp_path: Path) -> None:
    """A directory, a pipe, a missing directory, a file in place of a directory; each says what to repair."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").touch()
    for wrong in (tmp_path, tmp_path / "pipe", tmp_path / "none" / "x.jsonl", tmp_path / "file" / "x.jsonl"):
        with pytest.raises(BlockedExportError) as caught:
            FileExporter(wrong).export(batch_of("r-1"), 5.0)
        assert caught.value.repair
    with pytest.raises(BlockedExportError):
        FileExporter("/dev/null").export(batch_of("r-1"), 5.0)


def test_a_link_is_followed(path: Path) -> None:
    """The file may stand elsewhere."""
    real = path.with_name("elsewhere")
    real.touch()
    path.symlink_to(real)
    FileExporter(path).export(batch_of("r-1"), 5.0)
    assert ids_in(real) == ["r-1"]


def test_a_relative_path_is_settled_early(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later change of the working directory does not move the file."""
    monkeypatch.chdir(path.parent)
    exporter = FileExporter("audit.jsonl")
    monkeypatch.chdir("/")
    exporter.export(batch_of("r-1"), 5.0)
    assert ids_in(path) == ["r-1"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "rw"}, "mode: expected octal"),
        ({"mode": "0400"}, "mode: expected read and write"),
        ({"mode": "0700"}, "mode: expected read and write"),
        ({"rotate_size": 0}, "rotate_size: expected at least 1"),
        ({"rotate_every": "10ms"}, "rotate_every: expected at least 1"),
        ({"keep": 0, "rotate_size": 1}, "keep: expected at least 1"),
        ({"keep": 3}, "keep: needs rotate_size or rotate_every"),
    ],
)
def test_a_wrong_argument(options: dict[str, Any], message: str) -> None:
    """Each is found when the exporter is made."""
    with pytest.raises(ConfigurationError, match=message):
        FileExporter("x.jsonl", **options)
