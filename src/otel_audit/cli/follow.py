"""The records of all streams of a journal as one: merged by observed time, and followed while they grow."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from ..batch import RecordBatch, StoredRecord
from ..errors import AuditError
from ..health import last_sequence
from ..journal.layout import Layout
from ..journal.reader import StreamReader
from ..journal.streams import StreamDirectory, list_streams

_RECORDS = 200
_BYTES = 256 * 1024


class Found(NamedTuple):
    """A record, and where it comes from.  Sorts by time; within a stream the chain's order counts.

    Attributes:
        order_ns: its observed time, or the time of the record before it in the stream where a clock stepped back.
        batch: it alone, with its stream and resource.
    """

    order_ns: int
    stream_id: str
    sequence: int
    batch: RecordBatch

    @property
    def record(self) -> StoredRecord:
        """The record."""
        return self.batch.records[0]


class _Source:
    """One stream, read from some record on."""

    def __init__(self, stream: StreamDirectory, after: int) -> None:
        self._stream = stream
        self._resource = stream.metadata.resource
        self._reader = StreamReader(stream.path, after=after, files=stream.layout.files)
        self._order_ns = 0
        self._told = 0

    def read(self) -> Iterator[Found]:
        """What is there now, from where the last call ended."""
        while records := self._reader.read(records_max=_RECORDS, bytes_max=_BYTES, final=False):
            for record in records:
                self._order_ns = max(self._order_ns, record.observed_ns)
                batch = RecordBatch(self._stream.stream_id, self._resource, [record])
                yield Found(self._order_ns, self._stream.stream_id, record.sequence, batch)

    def notes(self) -> Iterator[str]:
        """What was damaged or missing, each once."""
        for report in islice(self._reader.damage, self._told, None):
            self._told += 1
            missing = f"{report.count} records from number {report.sequence} are not there"
            what = missing if report.count else report.kind
            yield f"stream {self._stream.stream_id}: {what} ({report.segment}, bytes {report.start} to {report.stop})"


class Follower:
    """Reads all streams of a journal.

    Args:
        layout: the journal.
        note: is told what cannot be read.
    """

    def __init__(self, layout: Layout, note: Callable[[str], None]) -> None:
        self._layout = layout
        self._note = note
        self._sources: dict[str, _Source] = {}
        self._unreadable: set[str] = set()

    def everything(self, last: int | None = None) -> Iterator[Found]:
        """What is in the journal now, in the order of time.

        Args:
            last: only that many records of each stream, its last ones; ``None``: all.
        """
        self._look(last)
        yield from heapq.merge(*(source.read() for source in self._sources.values()))
        self._tell()

    def last(self, count: int, wanted: Callable[[Found], bool] | None) -> list[Found]:
        """The last records in the journal now.

        Args:
            count: how many.
            wanted: those that count; ``None``: all do, and only the ends of the streams are read.
        """
        found = self.everything(count if wanted is None else None)
        return list(deque(found if wanted is None else filter(wanted, found), maxlen=count))

    def new(self) -> list[Found]:
        """What came since the last call, new streams included; in the order of time among themselves."""
        self._look(None)
        found = sorted(record for source in self._sources.values() for record in source.read())
        self._tell()
        return found

    def _look(self, last: int | None) -> None:
        streams = {stream.stream_id: stream for stream in list_streams(self._layout)}
        for gone in [name for name in self._sources if name not in streams]:
            del self._sources[gone]
        for name, stream in streams.items():
            if name in self._sources or name in self._unreadable:
                continue
            try:
                after = 0 if last is None else max(last_sequence(stream) - last, 0)
                self._sources[name] = _Source(stream, after)
            except AuditError as error:
                if stream.path.exists():
                    self._unreadable.add(name)
                    self._note(str(error))

    def _tell(self) -> None:
        for source in self._sources.values():
            for note in source.notes():
                self._note(note)
