"""The straight way of a plain log record to canonical bytes: the same bytes as the careful way, whatever comes."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from otel_audit.capture.shapes import Shapes
from otel_audit.capture.stdlib import AuditHandler
from otel_audit.preparation import prepare
from otel_audit.provider import AuditProvider
from otel_audit.provider_settings import ProviderSettings
from otel_audit.record import AuditRecord


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def provider_in(root: Path) -> AuditProvider:
    return AuditProvider(ProviderSettings(journal=root, service_name="shop"))


def test_both_ways_write_the_same_bytes() -> None:
    """Head and tail are those that ``prepare`` makes of the record that the careful way reads."""
    shapes = Shapes((), ("own",))
    given = {"actor": "u-1", "outcome": "success", "source": "192.0.2.7", "ticket": 7, "note": 'say "é"'}
    for _ in range(3):
        read = shapes.read(given, "user.login", ("a\\b",), "audit.log", {})
    written = shapes.write(
        given, "user.login", ("a\\b",), 20, 10, "b7ad6b7169203331", "0af7651916cd43dd8448eb211c80319c"
    )
    assert read is not None
    assert written is not None
    head, tail, record_id = written
    attributes = {**read[2], "audit.record.id": record_id}
    record = AuditRecord.from_attributes(
        "user.login",
        attributes,
        timestamp_ns=10,
        trace_id="0af7651916cd43dd8448eb211c80319c",
        span_id="b7ad6b7169203331",
    )
    assert (head, tail) == prepare(record, 20)


_ODD = [
    "\ud800",
    float("nan"),
    2**70,
    -(2**63) - 1,
    'quote" \\ \n',
    "\x00",
    "é😀",
    True,
    1.5,
    -0.0,
    b"x",
    None,
    [1],
    {"a": 1},
]


class _Liar:
    """Says that it is another type."""

    def __init__(self, kind: type) -> None:
        self._kind = kind

    @property
    def __class__(self) -> type:  # type: ignore[override]
        return self._kind

    def __lt__(self, other: object) -> bool:
        return True

    __le__ = __ge__ = __gt__ = __lt__

    def __format__(self, spec: str) -> str:
        return '"},"audit.outcome":{"stringValue":"success'


@pytest.mark.parametrize("first", ["plain", 7, True, 1.5])
@pytest.mark.parametrize("second", [*_ODD, _Liar(str), _Liar(int)], ids=repr)
@pytest.mark.parametrize("name", ["note", "tenant", "target", "source"])
def test_a_shape_that_is_known_takes_any_value(root: Path, first: object, second: object, name: str) -> None:
    """What the straight way cannot write is read with care: converted, and never another field of the record."""
    provider = provider_in(root)
    handler = AuditHandler(provider)
    logger = logging.Logger("odd", 1)
    logger.addHandler(handler)
    given = {"actor": "u-1", "outcome": "failure", name: first}
    for _ in range(4):
        logger.info("user.login", extra=given)
    logger.info("user.login", extra={**given, name: second})
    provider.shutdown(0)
    lines = [json.loads(line) for path in sorted(root.rglob("0*.jsonl")) for line in path.read_bytes().splitlines()]
    records = [line["record"]["attributes"] for line in lines]
    outcomes = [record["audit.outcome"]["stringValue"] for record in records if "otel_audit.control" not in record]
    assert outcomes[:4] == ["failure"] * 4
    assert outcomes[4:] in (["failure"], ["unknown"])  # unknown: of a value that lies, only the text is kept
