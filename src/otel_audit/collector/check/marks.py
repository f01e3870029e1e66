"""The records that a check sends, each with a mark that is found again in whatever form it arrives.  No I/O.

A mark is a word in the record's body: its bytes are the same in OTLP's JSON and protobuf, in a file and in a request.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ... import semconv as sc

AUDIT: Final = "audit"
APP: Final = "app"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of record.

    Attributes:
        name: as it stands in marks and in reports.
        named: whether it has an event name.
        identified: whether it has a record id.
    """

    name: str
    named: bool
    identified: bool

    @property
    def belongs_to(self) -> str:
        """Where records of this kind have to arrive."""
        return AUDIT if self.named or self.identified else APP


KINDS: Final = (
    Kind("audit", named=True, identified=True),
    Kind("nameless", named=False, identified=True),
    Kind("without-id", named=True, identified=False),
    Kind("application", named=False, identified=False),
)
"""What an application can send, from a whole audit record to an ordinary log line."""

_PREFIX: Final = "otel-audit-check"


def mark(run: str, kind: Kind, number: int) -> str:
    """The word in the body of a record."""
    return f"{_PREFIX}-{run}-{kind.name}-{number}."


def pattern(run: str) -> re.Pattern[bytes]:
    """Finds the marks of a run: kind and number."""
    return re.compile(rf"{_PREFIX}-{re.escape(run)}-([a-z-]+)-([0-9]+)\.".encode())


MARK_BYTES_MAX: Final = 200
"""No mark is longer."""


def request_of(run: str, kinds: Iterable[Kind], count: int, now_ns: int) -> bytes:
    """An ``ExportLogsServiceRequest`` that mixes so many records of each kind.

    Args:
        run: the name of the check.
        kinds: what to send.
        count: of each kind.
        now_ns: the time that the records say.
    """
    from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as service  # noqa: PLC0415 - heavy

    request = service.ExportLogsServiceRequest()
    group = request.resource_logs.add()
    group.resource.attributes.add(key=sc.SERVICE_NAME).value.string_value = "otel-audit-check"
    scope = group.scope_logs.add()
    scope.scope.name = "otel-audit"
    for number in range(count):
        for kind in kinds:
            word = mark(run, kind, number)
            record = scope.log_records.add(time_unix_nano=now_ns, observed_time_unix_nano=now_ns)
            record.body.string_value = word
            if kind.named:
                record.event_name = "collector.check"
            for key, value in _attributes(kind, f"{run}-{kind.name}-{number}").items():
                record.attributes.add(key=key).value.string_value = value
    return request.SerializeToString()


def _attributes(kind: Kind, record_id: str) -> Mapping[str, str]:
    if kind.belongs_to == APP:
        return {}
    attributes = {
        sc.ACTOR_ID: "otel-audit",
        sc.ACTOR_TYPE: "system",
        sc.ACTION: "check",
        sc.OUTCOME: "success",
    }
    return {sc.RECORD_ID: record_id, **attributes} if kind.identified else attributes


# -- what arrived -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Arrival:
    """What became of a kind of record at one sink.

    Attributes:
        kind: of record.
        sink: where was looked.
        role: what belongs there: ``audit`` or ``app``.
        expected: how many have to be there.
        arrived: how many different ones are.
        duplicates: how often one of them came again; that is no fault.
    """

    kind: str
    sink: str
    role: str
    expected: int
    arrived: int
    duplicates: int

    @property
    def right(self) -> bool:
        """Whether all that belong there arrived, and nothing else."""
        return self.arrived == self.expected


def judge(
    seen: Iterable[tuple[str, str, Counter[tuple[str, int]]]], kinds: Iterable[Kind], count: int
) -> Iterator[Arrival]:
    """What arrived where.

    Args:
        seen: of each sink its name, its role, and how often each mark is there.
        kinds: what was sent.
        count: of each kind.
    """
    kinds = list(kinds)
    for sink, role, marks in seen:
        for kind in kinds:
            found = {number: times for (name, number), times in marks.items() if name == kind.name}
            expected = count if kind.belongs_to == role else 0
            yield Arrival(kind.name, sink, role, expected, len(found), sum(found.values()) - len(found))
