"""Giving way: not after each record, at once where somebody waits for the disk, and never for long without."""

from __future__ import annotations

import pytest

from otel_audit.journal import courtesy
from otel_audit.journal.courtesy import HOLD_S, SOON_S, Courtesy


class Clock:
    """A clock that stands still, and counts how often somebody slept."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept = 0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds == 0
        self.slept += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(courtesy, "time", clock)
    return clock


def test_it_gives_way_once_in_a_while(clock: Clock) -> None:
    """However often it is asked, it gives way once in ``HOLD_S`` where nobody waits for the disk."""
    polite = Courtesy()
    polite.let_others_run()
    polite.let_others_run()
    assert clock.slept == 1
    clock.now += HOLD_S * 1.01
    polite.let_others_run()
    polite.let_others_run()
    assert clock.slept == 2


def test_it_gives_way_at_once_where_somebody_waits_for_the_disk(clock: Clock) -> None:
    """Each time that it is asked, from the first wait for a disk until some time after the last."""
    polite = Courtesy()
    polite.let_others_run()
    polite.expect_waiting()
    polite.let_others_run()
    polite.let_others_run()
    assert clock.slept == 3
    clock.now += SOON_S * 1.01
    polite.let_others_run()
    polite.let_others_run()
    assert clock.slept == 4
