"""Ambient facts: where they hold, what wins, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from otel_audit import Actor, InvalidRecordError, Source, Target, audit_context, context
from otel_audit import semconv as sc
from otel_audit.context import current, with_context


def facts() -> dict[str, object]:
    """What holds now."""
    return dict(current())


def test_facts_hold_within_the_block() -> None:
    """And not behind it, also where the block is left by an exception."""
    with audit_context(actor=Actor("u-42", type="service"), tenant="acme", attributes={"ticket": 7}):
        assert facts() == {sc.ACTOR_ID: "u-42", sc.ACTOR_TYPE: "service", sc.TENANT: "acme", "ticket": 7}
    assert facts() == {}
    with pytest.raises(ZeroDivisionError), audit_context(tenant="acme"):
        raise ZeroDivisionError
    assert facts() == {}


def test_an_inner_block_wins_and_adds() -> None:
    """What it does not say goes on to hold."""
    with audit_context(tenant="acme", session="s-1"):
        with audit_context(session="s-2", reason="ticket"):
            assert facts() == {sc.TENANT: "acme", sc.SESSION_ID: "s-2", sc.REASON: "ticket"}
        assert facts() == {sc.TENANT: "acme", sc.SESSION_ID: "s-1"}


def test_what_the_record_says_wins() -> None:
    """And the context is not changed by that."""
    with audit_context(tenant="acme", session="s-1"):
        assert with_context({sc.TENANT: "umbrella"}) == {sc.TENANT: "umbrella", sc.SESSION_ID: "s-1"}
        assert facts()[sc.TENANT] == "acme"


def test_a_new_target_does_not_keep_the_old_ones_type() -> None:
    """An id that is given anew takes the rest of its group away."""
    outer = audit_context(target=Target("admin", type="role", name="Administrators"), source=Source("192.0.2.7"))
    with outer:
        assert with_context({sc.TARGET_ID: "document:7"}) == {
            sc.TARGET_ID: "document:7",
            sc.SOURCE_ID: "192.0.2.7",
            sc.SOURCE_TYPE: "ipv4",
        }
        with audit_context(target=Target("x", type="file"), actor="u", source="host-7"):
            assert facts() == {
                sc.TARGET_ID: "x",
                sc.TARGET_TYPE: "file",
                sc.ACTOR_ID: "u",
                sc.ACTOR_TYPE: "user",
                sc.SOURCE_ID: "host-7",
                sc.SOURCE_TYPE: "hostname",
            }


def test_one_context_can_be_entered_again() -> None:
    """In itself, and after itself."""
    again = audit_context(tenant="acme")
    for _ in range(2):
        with again, audit_context(session="s"), again:
            assert facts() == {sc.TENANT: "acme", sc.SESSION_ID: "s"}
        assert facts() == {}


def test_functions_and_coroutines_can_be_decorated() -> None:
    """The facts hold while they run; names and results are kept."""

    @audit_context(tenant="acme")
    def plain(number: int) -> tuple[int, dict[str, object]]:
        """Say what holds."""
        return number, facts()

    @audit_context(tenant="acme")
    async def coroutine() -> dict[str, object]:
        await asyncio.sleep(0)
        return facts()

    assert plain(7) == (7, {sc.TENANT: "acme"})
    assert plain.__name__ == "plain"
    assert asyncio.run(coroutine()) == {sc.TENANT: "acme"}
    assert facts() == {}


def test_generators_cannot_be_decorated() -> None:
    """Their body runs in the context of whoever asks for the next item; that is said when they are decorated."""

    def generator() -> Iterator[int]:
        yield 1

    async def asynchronous() -> AsyncIterator[int]:
        yield 1

    for function in (generator, asynchronous):
        with pytest.raises(TypeError, match="generator"):
            audit_context(tenant="acme")(function)


def test_tasks_inherit_and_do_not_disturb_each_other() -> None:
    """Each request has its own facts, whatever the order in which they run."""

    async def request(tenant: str) -> list[object]:
        seen = []
        async with audit_context(tenant=tenant):
            for _ in range(3):
                await asyncio.sleep(0)
                seen.append(facts()[sc.TENANT])
        return seen

    async def main() -> list[list[object]]:
        with audit_context(session="shared"):
            results = await asyncio.gather(*[request(f"t-{n}") for n in range(5)])
            assert facts() == {sc.SESSION_ID: "shared"}
            assert await asyncio.to_thread(facts) == {sc.SESSION_ID: "shared"}
        return results

    assert asyncio.run(main()) == [[f"t-{n}"] * 3 for n in range(5)]


def test_a_plain_thread_begins_with_nothing() -> None:
    """Context variables do not follow ``threading.Thread``."""
    seen: list[object] = []
    with audit_context(tenant="acme"):
        thread = threading.Thread(target=lambda: seen.append(facts()))
        thread.start()
        thread.join()
    assert seen == [{}]


def test_a_block_that_is_left_in_another_context_does_no_harm() -> None:
    """A generator that is finished elsewhere: no error, and the facts of the place where it is finished stay."""

    def generator() -> Iterator[dict[str, object]]:
        with audit_context(tenant="acme"):
            yield facts()

    running = generator()
    assert contextvars.copy_context().run(next, running) == {sc.TENANT: "acme"}
    with audit_context(session="s"):
        assert list(running) == []
        assert facts() == {sc.SESSION_ID: "s"}


def test_many_blocks_leave_nothing_in_the_context() -> None:
    """A context keeps each variable that was ever set in it: there are two, however many blocks there were."""

    def work() -> int:
        for number in range(100):
            with audit_context(tenant=f"t-{number}"):
                pass
        return len(contextvars.copy_context())

    before = len(contextvars.copy_context())
    assert contextvars.copy_context().run(work) <= before + 2


def test_a_wrong_fact_is_refused_at_once() -> None:
    """Where it is written, not at the first emit within."""
    with pytest.raises(InvalidRecordError, match="tenant"):
        audit_context(tenant=7)  # type: ignore[arg-type]
    with pytest.raises(InvalidRecordError, match="reserved"):
        audit_context(attributes={sc.SEQUENCE_NUMBER: 7})


def test_without_a_context_attributes_are_given_back_as_they_are() -> None:
    """That is the common case, and costs nothing."""
    attributes = {"a": 1}
    assert with_context(attributes) is attributes


def test_a_forked_child_does_not_take_new_threads_for_ours() -> None:
    """Identifiers of threads are used again: a child forgets those of its parent's threads."""
    ready, done = threading.Event(), threading.Event()

    def own() -> None:
        context.enter_own_thread()
        ready.set()
        done.wait(20)
        context.leave_own_thread()

    thread = threading.Thread(target=own)
    thread.start()
    ready.wait(20)
    inherited = len(context._own_threads)
    child = os.fork()
    if child == 0:
        os._exit(0 if context._own_threads == set() else 1)
    _, status = os.waitpid(child, 0)
    done.set()
    thread.join()
    assert inherited >= 1
    assert os.waitstatus_to_exitcode(status) == 0
    assert not context.in_own_thread()
