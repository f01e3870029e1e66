"""Threads of ours, and waking them without the locks of the threading module."""

from __future__ import annotations

import _thread
import threading
import time

import pytest

from otel_audit.context import in_own_thread
from otel_audit.journal.threads import OwnThread, Wake, owned_lock


def until(condition: object) -> None:
    while not condition():  # type: ignore[operator]
        time.sleep(0.002)


def test_a_wake_before_the_wait_is_not_lost_and_several_are_one():
    """Setting is remembered until somebody waits; waiting clears it."""
    wake = Wake()
    assert not wake.wait(0)
    wake.set()
    wake.set()
    assert wake.wait(0)
    assert not wake.wait(0)
    assert not wake.wait(-1)


def test_a_wake_wakes():
    """A waiting thread goes on when it is set."""
    wake = Wake()
    woken: list[bool] = []
    thread = threading.Thread(target=lambda: woken.append(wake.wait(60)))
    thread.start()
    wake.set()
    thread.join()
    assert woken == [True]


def test_an_owned_lock_knows_its_holder():
    """Whether this very thread holds it, not whether somebody does."""
    lock, owned = owned_lock()
    assert not owned()
    with lock:
        assert owned()
        seen: list[bool] = []
        thread = threading.Thread(target=lambda: seen.append(owned()))
        thread.start()
        thread.join()
        assert seen == [False]
    assert not owned()


def test_a_thread_of_ours_runs_once_at_a_time_and_can_be_started_again():
    """It knows that it is ours while it runs, and no longer."""
    go = Wake()
    ours: list[bool] = []

    def run() -> None:
        ours.append(in_own_thread())
        go.wait(60)

    thread = OwnThread(run)
    for _ in range(3):
        thread.start()
    until(lambda: ours)
    assert thread.alive
    assert not thread.join(0.01)
    go.set()
    assert thread.join(60)
    assert not thread.alive
    go.set()
    thread.start()
    assert thread.join(60)
    assert ours == [True, True]
    assert not in_own_thread()


def test_a_thread_does_not_wait_for_itself():
    """A callback that shuts down from within the thread must not hang."""
    joined: list[bool] = []
    thread = OwnThread(lambda: joined.append(thread.join(60)))
    thread.start()
    until(lambda: joined)
    assert joined == [True]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_start_that_fails_can_be_repeated(monkeypatch: pytest.MonkeyPatch, error: type[BaseException]):
    """At interpreter exit no thread can be started, which is no error; an interruption is passed on."""
    real = _thread.start_new_thread

    def refuse(*_: object) -> int:
        raise error

    ran: list[int] = []
    thread = OwnThread(lambda: ran.append(1))
    monkeypatch.setattr(_thread, "start_new_thread", refuse)
    if error is RuntimeError:
        thread.start()
    else:
        with pytest.raises(KeyboardInterrupt):
            thread.start()
    assert not thread.alive
    monkeypatch.setattr(_thread, "start_new_thread", real)
    thread.start()
    until(lambda: ran)


def test_an_interrupted_start_that_started_after_all_runs_once(monkeypatch: pytest.MonkeyPatch):
    """Of two threads that were started, one ends at once."""
    real = _thread.start_new_thread
    go = Wake()
    ran: list[int] = []
    first: list[object] = []

    def started_and_interrupted(function: object, arguments: object) -> int:
        first.append((function, arguments))
        raise KeyboardInterrupt

    def run() -> None:
        ran.append(1)
        go.wait(60)

    thread = OwnThread(run)
    monkeypatch.setattr(_thread, "start_new_thread", started_and_interrupted)
    with pytest.raises(KeyboardInterrupt):
        thread.start()
    monkeypatch.setattr(_thread, "start_new_thread", real)
    thread.start()
    ((body, arguments),) = first
    late = threading.Thread(target=body, args=arguments)
    late.start()
    late.join(60)
    until(lambda: ran)
    assert ran == [1]
    assert thread.alive
    go.set()
    assert thread.join(60)
