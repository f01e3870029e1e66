"""Sending dead letters again, each once.

What always holds: a letter is never changed or removed.  What became of it stands in a file beside the letters,
``dead-letters/<destination>.replays``, one JSON line for each step, on the disk before the next step is taken:
``sending`` before the request leaves; then ``delivered``, ``refused`` (with the reason) or ``failed`` (nobody answered,
or somebody has to repair something).

So a crash loses nothing.  Where it strikes between ``sending`` and the answer, nobody knows whether the destination has
the record: the letter is *in doubt*, and like one that was delivered it is sent again only if that is asked for.
One replay runs at a time for each destination's letters.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from itertools import groupby
from typing import Any, Final, NamedTuple

import msgspec

from ..batch import RecordBatch, StoredRecord
from ..errors import AuditError, BlockedExportError, ExportError, RetryableExportError
from ..journal.layout import Layout
from ..journal.locks import FileLock
from ..journal.streams import StreamDirectory
from ..protocols import AuditRecordExporter
from .deadletters import DeadLetter, keep_response_ids, read_dead_letters
from .destination import Destination
from .pace import make_exporter
from .shipment import send
from .splitting import Splitting

OPEN: Final = "open"
IN_DOUBT: Final = "in doubt"
DELIVERED: Final = "delivered"
SENDING: Final = "sending"
REFUSED: Final = "refused"
DAMAGED: Final = "damaged"
FAILED: Final = "failed"

LETTERS_MAX: Final = 200
"""How many letters are under way at once, so that a crash leaves no more than these in doubt."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What was tried with a letter.

    Attributes:
        at_ns: when, nanoseconds since 1970.
        to: the destination that it was sent to.
        what: ``"sending"``, ``"delivered"``, ``"refused"`` or ``"failed"``.
        reason, status: what the destination said.
    """

    at_ns: int
    stream_id: str
    sequence: int
    to: str
    what: str
    reason: str = ""
    status: int | str | None = None


class Letter(NamedTuple):
    """A dead letter, and what became of it.

    Attributes:
        steps: what was tried with it, in order.
    """

    letter: DeadLetter
    steps: tuple[Step, ...] = ()

    @property
    def state(self) -> str:
        """``"open"``: nobody has it; ``"delivered"``: a replay brought it somewhere; ``"in doubt"``: perhaps.

        ``"damaged"``: it is not the record that was journaled, by its hash; it is never sent.
        """
        if any(step.what == DELIVERED for step in self.steps):
            return DELIVERED
        if not self.is_whole:
            return DAMAGED
        return IN_DOUBT if self.steps and self.steps[-1].what == SENDING else OPEN

    @property
    def is_whole(self) -> bool:
        """Whether it is the record that was journaled, by its hash."""
        return sha256(self.letter.record).hexdigest() == self.letter.sha256

    @property
    def record(self) -> StoredRecord:
        """The record, as it was hashed."""
        return StoredRecord(self.letter.sequence, self.letter.sha256, bytes(self.letter.record))


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a replay, in letters.

    Attributes:
        delivered: the destination took them.
        refused: it refuses them still; they stay open.
        left: not sent, or not answered; they stay open.
        filtered: the destination's filter passes them over; not sent.
        skipped: were delivered by an earlier replay; not sent.
        in_doubt: were perhaps delivered by one that was interrupted; not sent.
        damaged: are not what was journaled, by their hash; not sent.
        error, repair: why some are left, and what a person has to do about it.
    """

    delivered: int = 0
    refused: int = 0
    left: int = 0
    filtered: int = 0
    skipped: int = 0
    in_doubt: int = 0
    damaged: int = 0
    error: str = ""
    repair: str = ""


class ReplayRunsError(AuditError):
    """Another process replays the letters of this destination now."""

    retryable = True


def read_letters(layout: Layout, destination: str) -> list[Letter]:
    """The dead letters of a destination and what became of each, in the order in which they were refused.

    One that was buried twice, because a crash came between the letter and the cursor, is one letter.

    Raises:
        OSError: they cannot be read.
    """
    steps: dict[tuple[str, int], list[Step]] = {}
    for step in _read_steps(layout, destination):
        steps.setdefault((step.stream_id, step.sequence), []).append(step)
    letters = {(letter.stream_id, letter.sequence): letter for letter in read_dead_letters(layout, destination)}
    return [Letter(letter, tuple(steps.get(key, ()))) for key, letter in letters.items()]


def _read_steps(layout: Layout, destination: str) -> Iterator[Step]:
    """What was tried; a line that a crash left unfinished is passed over: nothing was sent before it was whole."""
    try:
        data = layout.replays(destination).read_bytes()
    except FileNotFoundError:
        return
    for line in data.splitlines():
        try:
            step = msgspec.json.decode(line, type=Step)
        except msgspec.MsgspecError:
            continue
        yield step


def count_unreadable(layout: Layout, destination: str) -> int:
    """How many dead letters cannot be read; the half that a crash left of one that follows whole is none.

    Raises:
        OSError: the file cannot be read.
    """
    try:
        lines = layout.dead_letters(destination).read_bytes().splitlines()
    except FileNotFoundError:
        return 0
    whole = {(letter.stream_id, letter.sequence) for letter in read_dead_letters(layout, destination)}
    return sum(_place(line) is None and _place_in(line) not in whole for line in lines)


def count_open(layout: Layout, destination: str) -> int:
    """How many dead letters of a destination nobody has yet; what cannot be read counts too.

    Raises:
        OSError: they cannot be read.
    """
    settled = {(step.stream_id, step.sequence) for step in _read_steps(layout, destination) if step.what == DELIVERED}
    try:
        with layout.dead_letters(destination).open("rb") as file:
            return sum(not settled or (_place(line) or _place_in(line)) not in settled for line in file)
    except FileNotFoundError:
        return 0


class _Place(msgspec.Struct, frozen=True):
    stream_id: str
    sequence: int


def _place(line: bytes) -> tuple[str, int] | None:
    """Which record a letter is about; ``None`` where it cannot be read."""
    try:
        place = msgspec.json.decode(line, type=_Place)
    except msgspec.MsgspecError:
        return None
    return place.stream_id, place.sequence


_PLACE: Final = re.compile(rb'"stream_id":"([^"\\]*)","sequence":(\d{1,18}),')


def _place_in(line: bytes) -> tuple[str, int] | None:
    """The same in a line that is not whole, as far as it says so."""
    found = _PLACE.search(line)
    return (found[1].decode(errors="replace"), int(found[2])) if found else None


class Replay:
    """Sends letters of one destination to it, or to another.

    Args:
        layout: the journal.
        source: the destination that refused them.
        target: where they go.
        again: also those that were delivered, or perhaps, by an earlier replay.
        sleep: for tests.
    """

    def __init__(
        self,
        layout: Layout,
        source: str,
        target: Destination,
        *,
        again: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._layout = layout
        self._source = source
        self._target = target
        self._again = again
        self._sleep = sleep
        self._counts = dict.fromkeys(("delivered", "refused", "left", "filtered", "skipped", "in_doubt", "damaged"), 0)

    def run(self, wanted: Callable[[Letter], bool] = lambda _: True, *, timeout_s: float) -> Replayed:
        """Send what is to be sent, until it is done, the destination is blocked, or time is up.

        Args:
            wanted: chooses among the letters.
            timeout_s: how long to go on trying, in seconds; a request that is under way is waited for.

        Raises:
            ReplayRunsError: another process is at it.
            OSError: a letter or what became of it could not be read or written; nothing is sent after that.
            ConfigurationError: the exporter cannot be made; nothing was sent.
        """
        lock = FileLock(self._layout.files, self._layout.replay_lock(self._source), self._layout.mode)
        if not lock.acquire():
            raise ReplayRunsError(
                f"another process replays the dead letters of {self._source} now; wait until it has ended"
            )
        try:
            return self._run(list(self._chosen(wanted)), time.monotonic() + timeout_s)
        finally:
            lock.release()

    def _chosen(self, wanted: Callable[[Letter], bool]) -> Iterator[Letter]:
        chosen = self._target.filter
        for letter in read_letters(self._layout, self._source):
            if not wanted(letter):
                continue
            if not letter.is_whole and (letter.state != DELIVERED or self._again):
                self._counts["damaged"] += 1
            elif chosen is not None and not chosen.wants(letter.record):
                self._counts["filtered"] += 1
            elif letter.state == DELIVERED and not self._again:
                self._counts["skipped"] += 1
            elif letter.state == IN_DOUBT and not self._again:
                self._counts["in_doubt"] += 1
            else:
                yield letter

    def _run(self, letters: list[Letter], deadline: float) -> Replayed:
        failure: ExportError | None = None
        exporter: AuditRecordExporter | None = None
        try:
            for chunk in _chunks(letters):
                if failure is not None:
                    self._counts["left"] += len(chunk)
                    continue
                exporter = exporter or make_exporter(self._target)
                failure = self._send(exporter, chunk, deadline)
        finally:
            if exporter is not None:
                exporter.close()
        error, repair = ("", "") if failure is None else (str(failure), failure.repair or "")
        return msgspec.convert({**self._counts, "error": error, "repair": repair}, Replayed)

    def _send(self, exporter: AuditRecordExporter, chunk: Sequence[Letter], deadline: float) -> ExportError | None:
        """Send letters of one stream; why some of them are left, where that is so."""
        first = chunk[0].letter
        resource = _resource(self._layout, first)
        left = [letter.record for letter in chunk]
        self._note(first.stream_id, left, SENDING)
        failures = 0
        while True:
            splitting = Splitting(lambda part: send(exporter, part, self._target.timeout_s), evidence=True)
            failure: ExportError | None = None
            try:
                splitting.run(RecordBatch(first.stream_id, resource, left))
            except ExportError as error:
                failure = error
            left = self._settle(first.stream_id, left, splitting)
            if not left:
                return None
            failures += 1
            wait_s = self._target.retry.wait_s(failures, failure.retry_after_s if failure is not None else None)
            if isinstance(failure, BlockedExportError) or time.monotonic() + wait_s >= deadline:
                failure = failure or RetryableExportError("time was up")
                self._note(first.stream_id, left, FAILED, failure)
                self._counts["left"] += len(left)
                return failure
            self._sleep(wait_s)

    def _settle(self, stream_id: str, records: list[StoredRecord], splitting: Splitting) -> list[StoredRecord]:
        """Write down what became of records; those of which nothing is known as yet."""
        taken = [record for record in records if record.sequence in splitting.accepted]
        keep_response_ids(self._layout, self._target.name, stream_id, splitting.response_ids)
        self._note(stream_id, taken, DELIVERED)
        for record, error in splitting.refused:
            self._note(stream_id, [record], REFUSED, error)
        self._counts["delivered"] += len(taken)
        self._counts["refused"] += len(splitting.refused)
        known = splitting.accepted | {record.sequence for record, _ in splitting.refused}
        return [record for record in records if record.sequence not in known]

    def _note(
        self, stream_id: str, records: Sequence[StoredRecord], what: str, error: ExportError | None = None
    ) -> None:
        """Write down a step of each record; on return that is on the disk."""
        reason, status = (str(error), error.status) if error is not None else ("", None)
        lines = b"".join(
            msgspec.json.encode(
                Step(
                    at_ns=time.time_ns(),
                    stream_id=stream_id,
                    sequence=record.sequence,
                    to=self._target.name,
                    what=what,
                    reason=reason,
                    status=status,
                )
            )
            + b"\n"
            for record in records
        )
        if lines:
            self._layout.files.append_durably(self._layout.replays(self._source), lines, self._layout.mode)


def _chunks(letters: list[Letter]) -> Iterator[list[Letter]]:
    """Letters of one stream each, in its order."""
    ordered = sorted(letters, key=lambda letter: (letter.letter.stream_id, letter.letter.sequence))
    for _, group in groupby(ordered, key=lambda letter: letter.letter.stream_id):
        of_stream = list(group)
        for start in range(0, len(of_stream), LETTERS_MAX):
            yield of_stream[start : start + LETTERS_MAX]


def _resource(layout: Layout, letter: DeadLetter) -> dict[str, Any]:
    """The resource of the record's process; empty where the letter has none and its stream is gone."""
    if letter.resource is not None:
        return letter.resource
    try:
        return dict(StreamDirectory(layout, layout.streams / letter.stream_id).metadata.resource)
    except AuditError:
        return {}
