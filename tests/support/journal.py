"""For tests of the journal: making streams, and reading them without the package's own reader."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import traceback
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from otel_audit import semconv as sc
from otel_audit.batch import StoredRecord
from otel_audit.journal.creation import begin_stream
from otel_audit.journal.damage import DamageReport
from otel_audit.journal.files import OS_FILES, Files
from otel_audit.journal.journal import Journal
from otel_audit.journal.layout import Layout
from otel_audit.journal.metadata import describe_stream
from otel_audit.journal.reader import StreamReader
from otel_audit.journal.stream import Entry, StreamWriter
from otel_audit.journal.streams import StreamDirectory, list_streams
from otel_audit.preparation import prepare
from otel_audit.provider import AuditProvider, ProviderSettings
from otel_audit.record import AuditRecord

SEGMENT_BYTES = 1 << 24


def make_layout(path: Path, files: Files = OS_FILES, **arguments: Any) -> Layout:
    """The layout of a journal whose directories are there."""
    layout = Layout(path / "journal", files=files, **arguments)
    layout.make()
    return layout


def make_entry(record_id: str | None = None, body: Any = None, **attributes: Any) -> Entry:
    """A record that is ready for the journal."""
    record = AuditRecord(
        "user.login",
        actor="u-42",
        outcome="success",
        body=body,
        record_id=record_id or str(uuid.uuid4()),
        attributes=attributes,
    )
    return Entry(*prepare(record, 1_700_000_000_000_000_000))


def make_writer(
    layout: Layout, *, segment_bytes: int = SEGMENT_BYTES, required: Iterable[str] = (), optional: Iterable[str] = ()
) -> StreamWriter:
    """A stream of this process, with its first record in it."""

    def describe(stream_id: str) -> Any:
        return describe_stream(stream_id, {"service.name": "test"}, list(required), list(optional))

    return begin_stream(layout, describe, segment_bytes_max=segment_bytes)


def make_journal(path: Path, files: Files = OS_FILES, **arguments: Any) -> Journal:
    """A journal of this process, without a provider."""
    settings: dict[str, Any] = {
        "resource": lambda: {"service.name": "test"},
        "required": [],
        "segment_bytes_max": SEGMENT_BYTES,
        "bytes_max": 1 << 30,
        "full_timeout_s": 0.0,
        "allow_volatile": True,
    }
    return Journal(Layout(path / "journal", files=files), **{**settings, **arguments})


def make_provider(path: Path, files: Files = OS_FILES, **settings: Any) -> AuditProvider:
    """A provider without destinations."""
    directory = path / "journal"
    defaults: dict[str, Any] = {"service_name": "test", "allow_volatile": True}
    return AuditProvider(
        ProviderSettings(journal=directory, **{**defaults, **settings}), layout=Layout(directory, files=files)
    )


def only_stream(layout: Layout) -> StreamDirectory:
    """The one stream of a journal."""
    (stream,) = list_streams(layout)
    return stream


def read_all(
    directory: Path, *, after: int = 0, final: bool = True, records_max: int = 10_000
) -> tuple[list[StoredRecord], list[DamageReport]]:
    """Everything that the reader finds in a stream."""
    reader = StreamReader(directory, after=after)
    found: list[StoredRecord] = []
    while records := reader.read(records_max=records_max, bytes_max=1 << 30, final=final):
        found += records
    return found, reader.damage


def ids_of(records: Iterable[StoredRecord]) -> list[str]:
    """Record ids, without those of control records."""
    return [record.record_id for record in records if not record.is_control]


class Audited(NamedTuple):
    """What an auditor finds in a stream, who has only ``sha256sum`` and a JSON parser."""

    sequences: list[int]
    record_ids: list[str]


def audit(directory: Path) -> Audited:
    """Read a whole, undamaged stream as an auditor would; fails where a hash, a number or the chain is wrong."""
    sequences: list[int] = []
    record_ids: list[str] = []
    previous = None
    for path in sorted(directory.glob("*.jsonl")):
        assert int(path.stem) == len(sequences) + 1, "a segment is named by its first record"
        for line in path.read_bytes().splitlines(keepends=True):
            digest = hashlib.sha256(line[86:-2]).hexdigest()
            parsed = json.loads(line)
            assert parsed["sha256"] == digest
            attributes = {key: next(iter(value.values())) for key, value in parsed["record"]["attributes"].items()}
            assert attributes.get(sc.SEQUENCE_PREVIOUS_HASH) == previous, "the chain is whole"
            assert attributes[sc.SEQUENCE_STREAM_ID] == directory.name
            previous = digest
            sequences.append(int(attributes[sc.SEQUENCE_NUMBER]))
            if sc.CONTROL not in attributes:
                record_ids.append(attributes[sc.RECORD_ID])
    assert sequences == list(range(1, len(sequences) + 1)), "numbered from 1, without gaps"
    return Audited(sequences, record_ids)


def audit_all(root: Path) -> list[str]:
    """Audit every stream of a journal; all record ids."""
    return [
        record_id
        for directory in sorted((root / "streams").iterdir())
        if not directory.name.startswith(".")
        for record_id in audit(directory).record_ids
    ]


def needs(condition: object, requirement: str, reason: str) -> None:
    """Skip a test where the machine cannot do what it needs; where ``OTEL_AUDIT_REQUIRE`` names it, fail."""
    if condition:
        return
    if requirement in os.environ.get("OTEL_AUDIT_REQUIRE", "").replace(",", " ").split():
        pytest.fail(f"OTEL_AUDIT_REQUIRE names {requirement}, but {reason}")
    pytest.skip(reason)


def shell(*command: object) -> str:
    """Run a command; its output.  Fails with what it said."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout.strip()


def in_child(run: Callable[[], object], fork: Callable[[], int] = os.fork) -> int:
    """Run something in a forked child; its exit code."""
    pid = fork()
    if pid == 0:
        code = 1
        try:
            signal.alarm(20)  # a child that hangs is killed
            run()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
