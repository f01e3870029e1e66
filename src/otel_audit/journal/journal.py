"""The journal of this process: its stream, made on first use; its durability; its room."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final

from ..errors import (
    AuditError,
    JournalClosedError,
    JournalError,
    JournalFullError,
    JournalSyncError,
    UnsafeJournalError,
)
from ..forks import PROCESS, notice_fork
from ..own_log import own_log
from .commit import GroupCommit
from .complaint import Complaint
from .control import stopped
from .courtesy import expect_waiting
from .creation import begin_stream, remove_unfinished
from .files import FULL, with_repair
from .layout import FileSystem, Layout, check_platform, file_system
from .ledger import Policy, trim
from .locks import locks_work
from .metadata import describe_stream
from .room import Room
from .stream import CLOSED, DEFERRED_MAX, Entry, StreamWriter
from .streams import list_streams
from .threads import OwnThread, Wake, owned_lock

HOUSEKEEPING_S: Final = 5.0
"""How often delivered segments are looked for."""
HOUSEKEEPING_SHARE: Final = 20.0
"""How many times as long as it took it rests afterwards, at least."""
SYNC_INTERVAL_S: Final = 0.2
"""At most so long is a record with durability ``process`` unsynced."""
_FULL_POLL_S: Final = 0.05

_log = own_log("journal")


class Journal:
    """Appends records to this process's stream.

    Args:
        layout: the directory.
        resource: makes the resource attributes of this process; called again in a forked child.
        required: destinations that must have a record before it may be removed.
        optional: destinations that are to have it too, but that nobody waits for.
        segment_bytes_max: size at which a segment is left.
        bytes_max: room for the whole journal, dead letters included; exceeded by one record for each process at most,
            and by what is not records (descriptions of streams, dead letters, the ledger).
        full_timeout_s: how long an ``append`` waits for room.
        allow_volatile, allow_network: file systems that are refused otherwise.
        retention_s: how long a segment stays after every required destination has it; see ``ledger.Policy``.

    Raises:
        UnsafeJournalError: the directory cannot be used.

    Attributes:
        syncs, sync_s: how often it was synced in this process, and how long that took in all, in seconds.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        resource: Callable[[], dict[str, Any]],
        required: Sequence[str],
        optional: Sequence[str] = (),
        segment_bytes_max: int,
        bytes_max: int,
        full_timeout_s: float,
        allow_volatile: bool = False,
        allow_network: bool = False,
        retention_s: float | None = None,
    ) -> None:
        check_platform()
        self.layout = layout
        self.files = layout.files
        self.file_system: FileSystem = file_system(layout.root)
        self._allow_volatile = allow_volatile
        if self.file_system.network and not allow_network:
            raise UnsafeJournalError(
                f"journal: {layout.root} is on a network file system ({self.file_system.type}), where locks and syncs "
                "cannot be relied on. Use a local directory, or allow_network=True"
            )
        layout.make()
        if not locks_work(layout.files, layout.ledger):
            raise UnsafeJournalError(
                f"journal: the file system of {layout.root} ({self.file_system.type}) has no file locks (flock): two "
                "processes could take the same stream for theirs. Use a directory on a local file system"
            )
        self._resource = resource
        self._required = required
        self._optional = optional
        self._segment_bytes_max = segment_bytes_max
        self.bytes_max = bytes_max
        self._full_timeout_s = full_timeout_s
        self._retention_s = retention_s
        self.on_written: Callable[[], None] = lambda: None
        """Called once after each quiet time, when there is something new to ship.  Must be safe in signal handlers."""
        self.on_housekeeping: Callable[[], None] = lambda: None
        """Called every few seconds on the journal's thread."""
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._writer: StreamWriter | None = None
        self._commit: GroupCommit | None = None
        self._create_lock, self._creating = owned_lock()
        self._early: deque[Entry] = deque()
        self._hurry = False
        self._housekept_s = float("-inf")
        self._housekeeping_s = HOUSEKEEPING_S
        self._untrimmed: set[str] = set()
        self._complaint = Complaint(_log)
        self._room = Room(self.layout, self.bytes_max)
        self._allowance = 0
        self._emitted_before = 0
        self.syncs = 0
        self.sync_s = 0.0
        self._closed = False
        self._thread = OwnThread(self._run)
        self._wake = Wake()
        self._pause = Wake()
        self._due = False

    # -- what others may know ---------------------------------------------------------------------

    @property
    def writer(self) -> StreamWriter | None:
        """The stream that this process writes; ``None`` before the first record."""
        return self._writer

    @property
    def ready(self) -> bool:
        """Whether this process has its stream already."""
        writer = self._writer
        return writer is not None and not writer.closed and writer.pid == os.getpid()

    @property
    def emitted(self) -> int:
        """How many records this process wrote, the journal's own among them."""
        return self._emitted_before + (self._writer.sequence if self._writer is not None else 0)

    def require_disk(self) -> None:
        """Raise UnsafeJournalError where ``disk`` means nothing: a volatile file system, unless that is allowed."""
        if self.file_system.volatile and not self._allow_volatile:
            raise UnsafeJournalError(
                f"durability='disk': {self.layout.root} is on a volatile file system ({self.file_system.type}), which "
                "a power loss empties. Use a directory on a disk, or allow_volatile=True"
            )

    # -- appending ----------------------------------------------------------------------------------

    def append(self, entry: Entry, *, wait_s: float | None = None) -> str:
        """Write one record; the id of the stream that has it.  On return it survives the death of the process.

        Args:
            entry: the record.
            wait_s: how long to wait for room, in seconds; ``None``: as configured.

        Raises:
            JournalClosedError, JournalFullError, JournalError: see ``entry.journaled``.
        """
        deadline: float | None = None
        while True:
            try:
                writer = self._writer
                if writer is None or not PROCESS[0]:
                    writer = self._begin(entry)
                    if writer is None:
                        return ""
                if writer.state.bytes_written > self._allowance:
                    self._check_room(writer)
                writer.append(entry)
            except JournalClosedError:
                lost = self._writer
                if lost is None or not lost.lost:
                    raise
                if self._begin(entry) is None:
                    return ""
                continue
            except JournalFullError:
                now = time.monotonic()
                deadline = deadline or now + (self._full_timeout_s if wait_s is None else wait_s)
                if now >= deadline or entry.journaled is not False:
                    raise
                self._make_room()
                time.sleep(min(_FULL_POLL_S, deadline - now))
                continue
            if not self._due:
                self._notice()
            return writer.stream_id

    def _make_room(self) -> None:
        """Have what is delivered removed now."""
        self._hurry = True
        self._wake_at_once()
        self.start()

    def _wake_at_once(self) -> None:
        """Wake the background thread, also where it gathers records for the next sync."""
        self._pause.set()
        self._wake.set()

    def _check_room(self, writer: StreamWriter) -> None:
        """What was reserved is used up: reserve more."""
        try:
            self._allowance = writer.bytes_written + self._room.reserve(writer.directory / "lock")
        except OSError as error:
            raise JournalError(f"journal: no room could be reserved: {error.strerror}", journaled=False) from error

    def _notice(self) -> None:
        """Something new was written after a quiet time."""
        try:
            self._due = True
            self._wake.set()
            self.start()
            self.on_written()
        except BaseException:
            self._due = False  # the next one notices it
            raise

    # -- a stream's life --------------------------------------------------------------------------------

    def _begin(self, entry: Entry) -> StreamWriter | None:
        """The writer of this process, made if need be; ``None`` where a call of this very thread is at it below us."""
        if not PROCESS[0]:
            notice_fork()
        if self._pid != os.getpid():  # nobody who registered knows of this journal
            self.abandon()
        if self._creating():
            if len(self._early) >= DEFERRED_MAX:
                raise JournalFullError(
                    f"{DEFERRED_MAX} records were emitted while the stream was made", journaled=False
                )
            entry.deferred = True
            self._early.append(entry)
            return None
        with self._create_lock:
            return self._make_writer()

    def _make_writer(self) -> StreamWriter:
        """A writer that can be used, under the lock for it."""
        old = self._writer
        if old is not None and not old.lost:
            return old
        if self._closed:
            raise JournalClosedError(CLOSED, journaled=False)
        writer = self._create()
        try:
            commit = GroupCommit(lambda: self._timed(writer.sync))
            if old is not None:
                unsaved = old.unsaved()
                self._emitted_before += old.sequence - len(unsaved)
                writer.take_over(unsaved)
                writer.notes.extendleft(reversed(old.notes))
                old.abandon()
            self._allowance = self._room.admitted
            self._commit = commit
            self._writer = writer
        except BaseException:
            writer.abandon()
            raise
        self._hand_over_early(writer)
        return writer

    def _hand_over_early(self, writer: StreamWriter) -> None:
        """Give the writer what was emitted, by this very thread, while it was made."""
        while self._early:
            writer.take_over([self._early[0]])
            self._early.popleft()

    def _create(self) -> StreamWriter:
        """A new stream, with its first record.

        Raises:
            JournalFullError, JournalError: it could not be made.
        """
        self.layout.make()
        try:
            return begin_stream(
                self.layout,
                lambda stream_id: describe_stream(stream_id, self._resource(), self._required, self._optional),
                segment_bytes_max=self._segment_bytes_max,
                admit=self._room.admit,
            )
        except OSError as error:
            kind = JournalFullError if error.errno in FULL else JournalError
            text = f"journal: cannot begin a stream in {self.layout.root}: {error.strerror}; nothing was written"
            raise kind(with_repair(text, error), journaled=False) from error

    def _timed(self, sync: Callable[[], int]) -> int:
        begun = time.perf_counter()
        try:
            return sync()
        finally:
            self.sync_s += time.perf_counter() - begun
            self.syncs += 1

    def commit(self, sequence: int, stream_id: str | None = None) -> None:
        """Return when this process's record with this number is on the disk.

        Args:
            sequence: the record's number.
            stream_id: the stream that has it; ``None``: the present one.

        Raises:
            JournalSyncError: it is not known to be.
        """
        commit, writer = self._commit, self._writer
        if commit is None or writer is None or stream_id not in (None, writer.stream_id):
            raise JournalSyncError("journal: written, but its stream is gone: not known to be on disk", journaled=None)
        expect_waiting()
        commit.wait(sequence)
        if writer.in_doubt(sequence):
            raise JournalSyncError("journal: written, but perhaps lost in a failed sync", journaled=None)

    def sync(self) -> None:
        """Put everything that was written so far on the disk.

        Raises:
            JournalSyncError: it is not known to be there.
        """
        if self._commit is not None:
            self._commit.sync_now()

    def close(self) -> None:
        """End the stream in order.  ``append`` raises from now on.  Twice is harmless.

        Raises:
            JournalError: the last record or the last sync failed.
        """
        if self._creating():  # a signal handler, while its thread makes the stream: that goes on
            self._closed = True
            return
        try:
            with self._create_lock:
                writer = self._writer
                if writer is not None and writer.lost and not self._closed:
                    writer = self._make_writer()
                self._closed = True
            self._wake_at_once()
            if writer is not None:
                writer.close(stopped(writer.metadata))
        finally:
            self._closed = True
            if self._writer is not None and self._writer.closed and not self._writer.lost:
                self._room.give_back(self._writer.directory / "lock")
            self._report_notes()
            if self._writer is None or self._writer.closed:  # else the call of this thread below us has to go on first
                self._thread.join(5.0)

    def abandon(self) -> None:
        """In a forked child: let go of the parent's stream without touching it; the next ``append`` begins another."""
        writer = self._writer
        closed = self._closed
        self._reset()
        self._closed = closed
        if writer is not None:
            writer.abandon()

    # -- in the background ---------------------------------------------------------------------------

    def start(self) -> None:
        """Start the background thread, if it does not run: syncing, and removing what is delivered."""
        self._thread.start()

    def housekeep_soon(self) -> None:
        """There may be something to remove."""
        self._housekept_s = float("-inf")
        self._wake.set()

    def _run(self) -> None:
        """Sync what was written, at most every :data:`SYNC_INTERVAL_S`; remove what is not needed any more."""
        while not self._closed:
            self._wake.wait(HOUSEKEEPING_S)
            if not self._hurry and not self._closed:
                self._pause.wait(SYNC_INTERVAL_S)
            if self._closed:  # whoever closes syncs
                break
            self._due = False
            try:
                self._background_sync()
                if self._hurry or time.monotonic() - self._housekept_s >= self._housekeeping_s:
                    self.housekeep()
            except Exception:  # noqa: BLE001 - the thread must go on: without it nothing is synced
                _log.exception("the journal's housekeeping failed unexpectedly; it is tried again")

    def housekeep(self) -> None:
        """Remove what every required destination has, of this process's stream and of dead ones.  Does not raise."""
        policy = Policy(self._retention_s, hurry=self._hurry)
        self._hurry = False
        begun = self._housekept_s = time.monotonic()
        writer = self._writer
        for stream in list_streams(self.layout):
            own = writer is not None and not writer.closed and writer.stream_id == stream.stream_id
            try:
                trim(stream, policy, own=own)
            except (OSError, AuditError) as error:
                if stream.stream_id not in self._untrimmed:
                    self._untrimmed.add(stream.stream_id)
                    _log.warning("stream %s could not be trimmed: %s", stream.stream_id, error)
        try:
            remove_unfinished(self.layout)
            self.on_housekeeping()
        except OSError as error:
            self._complaint.say(f"housekeeping in the journal {self.layout.root}", error)
        # Thousands of streams that cannot be delivered must not keep a processor busy.
        self._housekeeping_s = max(HOUSEKEEPING_S, HOUSEKEEPING_SHARE * (time.monotonic() - begun))

    def _background_sync(self) -> None:
        writer, commit = self._writer, self._commit
        if writer is None or commit is None:
            return
        if self._early:
            with self._create_lock:
                self._hand_over_early(writer)
        try:
            if writer.unsynced:
                commit.sync_now()
        except JournalError as error:
            if not writer.lost:
                _log.error("%s; emit raises until it can be mended", error)
        try:
            if writer.lost and not self._closed:
                with self._create_lock:
                    writer = self._make_writer()
                writer.sync()
        except (JournalError, UnsafeJournalError) as error:
            _log.error("%s", error)
        self._report_notes()

    def _report_notes(self) -> None:
        """Say what went wrong in the stream and was mended."""
        writer = self._writer
        while writer is not None and writer.notes:
            _log.warning("stream %s: %s", writer.stream_id, writer.notes.popleft())
