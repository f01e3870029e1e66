"""How long is waited, and when somebody's hurry ends the waiting."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from otel_audit.delivery.backoff import BLOCKED, RETRY, Backoff
from otel_audit.delivery.patience import Patience


@given(st.integers(1, 10_000), st.sampled_from([RETRY, BLOCKED]))
def test_a_wait_is_never_longer_than_the_cap(failures: int, backoff: Backoff) -> None:
    """However often it failed, the next try comes within the cap, and never before now."""
    assert 0.0 <= backoff.wait_s(failures) <= backoff.max_s


@given(st.integers(1, 60))
def test_the_bound_doubles_up_to_the_cap(failures: int) -> None:
    """The drawn time lies between nothing and a bound that doubles with each failure."""
    bounds: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        bounds.append((low, high))
        return high

    backoff = Backoff(first_s=1.0, max_s=60.0, uniform=uniform)
    bound = min(2.0 ** (failures - 1), 60.0)
    assert backoff.wait_s(failures) == bound
    assert bounds == [(0.0, bound)]


@given(st.integers(1, 100), st.floats(0.0, 60.0))
def test_what_the_receiver_asks_for_is_waited_at_least(failures: int, asked_s: float) -> None:
    """Retry-After is a lower bound, with a little jitter above it so that not all come back at once."""
    wait_s = RETRY.wait_s(failures, asked_s)
    assert asked_s <= wait_s <= asked_s + 0.1 * RETRY.max_s


@given(st.floats(60.0, 1e9))
def test_what_the_receiver_asks_for_has_a_cap(asked_s: float) -> None:
    """A receiver cannot ask to be left alone for ever."""
    assert 60.0 <= RETRY.wait_s(1, asked_s) <= 66.0


def test_a_receiver_cannot_ask_for_the_past() -> None:
    """A negative Retry-After is no reason to hurry."""
    assert RETRY.wait_s(3, -100.0) >= 0.0


class Clock:
    """Seconds that pass when they are told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


ALWAYS_TEN = Backoff(first_s=10.0, max_s=10.0, uniform=lambda _, high: high)


def test_nothing_is_tried_before_the_time_is_over() -> None:
    """After a failure it waits exactly as long as the back-off says; success ends the waiting and the count."""
    clock = Clock()
    patience = Patience(clock)
    assert not patience.waiting
    patience.failed(ALWAYS_TEN)
    clock.now += 9.9
    assert patience.waiting
    clock.now += 0.1
    assert not patience.waiting
    patience.failed(ALWAYS_TEN)
    assert patience.failures == 2
    assert patience.failing_s == 10.0
    assert patience.waited_s == 0.0
    patience.succeeded()
    assert (patience.waiting, patience.failures, patience.failing_s) == (False, 0, 0.0)


def test_somebody_in_a_hurry_ends_the_waiting() -> None:
    """A flush tries at once, and the failures go on being counted."""
    patience = Patience(Clock())
    patience.failed(ALWAYS_TEN)
    patience.hurry()
    assert not patience.waiting
    assert patience.failures == 1


def test_nobody_is_in_more_of_a_hurry_than_the_receiver_allows() -> None:
    """Where the receiver asked for patience, a flush waits too."""
    patience = Patience(Clock())
    patience.failed(ALWAYS_TEN, asked_s=5.0)
    patience.hurry()
    assert patience.waiting
