"""What the tests of shippers share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_audit.delivery.shipper import Shipper
from otel_audit.journal.journal import Journal
from support.delivery import Ships, destination, make_journal


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """The journal of this process, without records."""
    made = make_journal(tmp_path / "journal")
    yield made
    made.close()


@pytest.fixture
def ships(journal: Journal) -> Iterator[Ships]:
    """Makes shippers of the journal, and ends them."""
    made: list[Shipper] = []

    def make(
        exporter: Any, name: str = "sink", *, adopt: bool = True, for_living: bool = False, **options: Any
    ) -> Shipper:
        shipper = Shipper(journal, destination(exporter, name, **options), adopt=adopt, for_living=for_living)
        made.append(shipper)
        return shipper

    yield make
    for shipper in made:
        shipper.stop(5.0)
        shipper.close()
