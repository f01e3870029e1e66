"""A disk that is full: nothing is lost, and what is delivered goes from it without a byte of room."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_audit.errors import JournalFullError, RetryableExportError
from otel_audit.journal.removed import read_ledger
from otel_audit.journal.segment import list_segments
from otel_audit.journal.streams import list_streams
from otel_audit.protocols import ExportResult
from otel_audit.testing.files import Call, FaultyFiles
from support.delivery import Sink
from support.journal import needs, shell
from support.provider import login, make_provider

BODY = "x" * 4000

pytestmark = pytest.mark.timeout(180)


class SmallDisk:
    """A file system of a megabyte or some, and something that takes all of its room."""

    def __init__(self, point: Path) -> None:
        self.point = point
        self._stop = threading.Event()
        self._taker: threading.Thread | None = None

    def fill(self) -> None:
        """Take every byte that is left."""
        with (self.point / "ballast").open("ab", buffering=0) as file:
            for size in (65536, 4096, 1):
                with contextlib.suppress(OSError):
                    while file.write(bytes(size)):
                        pass

    def keep_full(self) -> None:
        """Like a program that goes on writing: whatever becomes free is gone at once."""

        def take() -> None:
            while not self._stop.is_set():
                self.fill()
                time.sleep(0.001)

        self._taker = threading.Thread(target=take)
        self._taker.start()

    def relieve(self) -> None:
        """There is room again."""
        self._stop.set()
        if self._taker is not None:
            self._taker.join()
        (self.point / "ballast").unlink()


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    """A real one, of either kind."""
    requirement = "tmpfs" if request.param == "tmpfs" else "loopdev"
    needs(os.geteuid() == 0, requirement, "mounting a file system needs root")
    point = tmp_path / "small"
    point.mkdir()
    if request.param == "tmpfs":
        shell("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", point)
    else:
        image = tmp_path / "image"
        with image.open("wb") as file:
            file.truncate(8 << 20)
        try:
            shell("mkfs.ext4", "-q", "-F", "-b", 4096, image)
            shell("mount", "-o", "loop", image, point)
        except (AssertionError, OSError) as error:
            needs(None, requirement, f"there is no usable loop device here: {error}")
    try:
        yield SmallDisk(point)
    finally:
        shell("umount", "--lazy", point)


def until(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.01)


class Outage(Sink):
    """A destination that is down until somebody says that it is up."""

    def __init__(self) -> None:
        super().__init__()
        self.up = False

        def refuse() -> None:
            if not self.up:
                raise RetryableExportError("down")

        self.before_each = refuse


def test_a_full_disk_is_relieved_of_what_is_delivered(disk: SmallDisk):
    """The destination comes back, and although something eats whatever becomes free, all is delivered and removed."""
    root = disk.point / "journal"
    left = make_provider(root, destinations={"sink": Outage()}, segment_bytes="16KiB")
    emitted = {login(left.get_audit_logger(), body=BODY).record_id for _ in range(12)}
    left.shutdown(timeout_s=0)
    sink = Outage()
    provider = make_provider(root, destinations={"sink": sink}, segment_bytes="16KiB", full_timeout="0s")
    logger = provider.get_audit_logger()
    with pytest.raises(JournalFullError) as caught:
        while True:
            emitted.add(login(logger, body=BODY).record_id)
    assert caught.value.journaled is False
    assert len(emitted) > 50
    disk.keep_full()
    with pytest.raises(JournalFullError):
        login(logger, body=BODY)
    writer = provider.journal.writer
    assert writer is not None
    sink.up = True
    until(lambda: len(sink.accepted) >= len(emitted))

    def is_removed() -> bool:
        provider.journal._make_room()  # as each refused emit does
        return [len(list_segments(stream.path)) for stream in list_streams(provider.journal.layout)] == [1]

    until(is_removed)
    assert {record.record_id for record in sink.accepted if not record.is_control} == emitted
    assert len({line.stream_id for line in read_ledger(provider.journal.layout.ledger)}) == 2
    disk.relieve()
    receipt = login(logger, body=BODY)
    provider.shutdown(timeout_s=30)
    assert receipt.record_id in {record.record_id for record in sink.accepted}
    assert sum(line.count for line in read_ledger(provider.journal.layout.ledger)) <= len(sink.accepted)


def test_with_room_for_nothing_new_all_is_delivered_and_removed(tmp_path: Path):
    """What makes a file, a file longer, or another name for one is refused; but for the ledger, which has its room."""
    files = FaultyFiles()
    sink = Outage()
    provider = make_provider(tmp_path, destinations={"sink": sink}, segment_bytes="4096", files=files)
    logger = provider.get_audit_logger()
    for _ in range(20):
        login(logger, body=BODY[:1000])

    def needs_room(call: Call) -> bool:
        return call.operation != "write" or call.path != provider.journal.layout.ledger

    def makes_a_file(call: Call) -> bool:
        return call.path is not None and not call.path.exists()

    first = provider.journal.writer
    assert first is not None
    assert len(list_segments(first.directory)) > 3
    files.fail("open", errno.ENOSPC, times=None, when=makes_a_file)
    for operation in ("write", "mkdir", "rename", "reserve"):
        files.fail(operation, errno.ENOSPC, times=None, when=needs_room)
    sink.up = True
    until(lambda: len(sink.accepted) == 21)
    provider.journal._hurry = True
    provider.journal.housekeep()
    assert len(list_segments(first.directory)) == 1
    with pytest.raises(JournalFullError):
        logger.emit("user.login", actor="u", outcome="success")
    files.heal()
    login(logger)
    provider.shutdown(timeout_s=30)
    assert len(sink.accepted) == 23


def test_a_full_disk_is_said_once_with_what_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """However often housekeeping is tried; and the error of emit has the repair, too."""
    files = FaultyFiles()
    provider = make_provider(tmp_path, destinations={}, files=files)
    login(provider.get_audit_logger())
    for operation in ("write", "rename"):
        files.fail(operation, errno.ENOSPC, times=None)
    for _ in range(20):
        provider.count("records.kept")  # so that there is something to write down
        provider.journal.housekeep()
    [said] = [each.getMessage() for each in caplog.records if "housekeeping" in each.getMessage()]
    assert "No space left on device. Make room on the journal's file system" in said
    with pytest.raises(JournalFullError, match=r"nothing was written\. Make room on the journal's file system"):
        login(provider.get_audit_logger())
    files.heal()
    provider.shutdown(timeout_s=0)


def test_what_a_delivery_does_not_need_does_not_stop_it(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Ids that a destination gives are nice to have; on a full disk they are done without, and that is said."""
    files = FaultyFiles()
    files.fail("open", errno.ENOSPC, times=None, path="*/acknowledgements/*")
    sink = Sink(lambda batch: ExportResult(response_ids={batch.records[0].record_id: "their-1"}))
    provider = make_provider(tmp_path, destinations={"sink": sink}, files=files)
    login(provider.get_audit_logger())
    assert provider.flush(10)
    provider.shutdown(timeout_s=10)
    assert "1 ids that destination sink gave: not kept, the disk is full" in caplog.text
