"""``durability="delivered"`` and a destination that refuses: a dead letter is not a delivery."""

from __future__ import annotations

from pathlib import Path

import pytest

from otel_audit.batch import RecordBatch
from otel_audit.delivery.destination import Destination
from otel_audit.errors import DeliveryRefusedError, RejectedExportError
from otel_audit.provider import AuditProvider
from otel_audit.provider_settings import ProviderSettings


class Picky:
    """Refuses records of one name, takes all others."""

    single_writer = False

    def export(self, batch: RecordBatch, timeout_s: float) -> None:
        if any(record.event_name == "bad.record" for record in batch.records):
            raise RejectedExportError("not this one", status=422)

    def close(self) -> None:
        pass


def test_a_dead_letter_is_not_a_delivery(tmp_path: Path) -> None:
    """The caller is told that the destination refuses the record, that it is journaled, and which one refuses it."""
    destination = Destination("picky", Picky, delay_s=0.0)
    with AuditProvider(ProviderSettings(journal=tmp_path / "journal", destinations=(destination,))) as provider:
        logger = provider.get_audit_logger()
        assert logger.emit("user.login", actor="u", outcome="success", durability="delivered", timeout_s=30)
        bad = logger.emit("bad.record", actor="u", outcome="success")
        good = logger.emit("user.logout", actor="u", outcome="success", durability="delivered", timeout_s=30)
        assert good.durability == "delivered"
        with pytest.raises(DeliveryRefusedError) as caught:
            provider.reach(bad, "delivered", 30)
        assert caught.value.refused == ("picky",)
        assert caught.value.journaled is True
        assert caught.value.receipt == bad
