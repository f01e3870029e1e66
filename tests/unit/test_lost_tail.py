"""Damage at the end of a dead stream is counted, unless it is only what a killed write leaves."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_audit.batch import RecordBatch
from otel_audit.delivery.destination import Destination
from otel_audit.provider import AuditProvider
from otel_audit.provider_settings import ProviderSettings
from support.delivery import dead_stream


class Sink:
    """Takes everything."""

    single_writer = False

    def export(self, batch: RecordBatch, timeout_s: float) -> None:
        """Take it."""

    def close(self) -> None:
        """Nothing to let go of."""


def _flip(data: bytes) -> bytes:
    return data[:-20] + bytes([data[-20] ^ 1]) + data[-19:]


def _zero(data: bytes) -> bytes:
    return data[:-300] + bytes(300)


def _tear(data: bytes) -> bytes:
    return data[:-300]


@pytest.mark.parametrize(("damage", "lost"), [(_flip, 1), (_zero, 1), (_tear, 0)])
def test_damage_at_the_end_is_counted(tmp_path: Path, damage: object, lost: int) -> None:
    """A flipped bit or zeros in the last line are a loss, and flush says so; half a line is not one."""
    root = tmp_path / "journal"
    dead_stream(root, 5)
    (segment,) = root.glob("streams/*/0*.jsonl")
    segment.write_bytes(damage(segment.read_bytes()))  # type: ignore[operator]
    destination = Destination("sink", Sink, delay_s=0.0)
    with AuditProvider(ProviderSettings(journal=root, destinations=(destination,))) as provider:
        result = provider.flush(30)
    assert result.damaged == lost
    assert bool(result) is (lost == 0)
