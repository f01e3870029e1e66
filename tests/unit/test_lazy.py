"""Attributes that are worked out once."""

from __future__ import annotations

import threading

from otel_audit.batch import StoredRecord
from otel_audit.canonical import canonicalize
from otel_audit.lazy import lazy
from support.journal import in_child


class Thing:
    """Counts how often it has worked."""

    worked = 0

    @lazy
    def value(self) -> list[int]:
        """What it has worked out."""
        self.worked += 1
        return [self.worked]


def test_it_is_worked_out_once() -> None:
    """And is an ordinary attribute from then on."""
    thing = Thing()
    assert thing.value is thing.value
    assert (thing.worked, thing.__dict__["value"]) == (1, [1])
    assert Thing.value.__doc__ == "What it has worked out."


def test_a_child_is_not_held_up_by_what_another_thread_was_working_out() -> None:
    """The thread is gone in the child, and so would be whoever lets go of its lock."""
    within, go_on = threading.Event(), threading.Event()

    class Slow(Thing):
        @lazy
        def value(self) -> list[int]:
            within.set()
            assert go_on.wait(60)
            return [0]

    thread = threading.Thread(target=lambda: Slow().value)
    thread.start()
    assert within.wait(60)

    def child() -> None:
        go_on.set()
        assert Slow().value == [0]
        record = StoredRecord(1, "0" * 64, canonicalize("user.login", 1, 1, None, {"a": 1}, "", ""))
        assert record.attributes == {"a": 1}

    try:
        assert in_child(child) == 0
    finally:
        go_on.set()
        thread.join()
