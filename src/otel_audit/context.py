"""Ambient facts: what holds for every record emitted within a block, and the current OpenTelemetry span.

Carried by :mod:`contextvars`, so they follow asyncio tasks and ``asyncio.to_thread``, but not a plain
``threading.Thread`` or a queue (``AuditContextFilter`` carries them across a ``QueueHandler``).
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from . import semconv as sc
from .forks import in_child
from .record import Actor, Source, Target, flatten

FORK_PATIENCE_S: Final = 1.0
"""How long a fork waits at most for an import by a thread of ours."""

_OF_ONE_EVENT: Final = ("action", "outcome", "severity", "body", "event_name", "timestamp", "record_id")

_F = TypeVar("_F", bound=Callable[..., Any])

_EMPTY: Mapping[str, Any] = {}
_current: ContextVar[Mapping[str, Any]] = ContextVar("otel_audit_context", default=_EMPTY)
_entered: ContextVar[tuple[tuple[audit_context, Mapping[str, Any]], ...]] = ContextVar("otel_audit_entered", default=())
"""The blocks that are open, each with the facts that held outside it.

One variable for all blocks: a context keeps every variable that was ever set in it for as long as it lives.
"""

_GROUPS = {
    sc.ACTOR_ID: (sc.ACTOR_TYPE,),
    sc.TARGET_ID: (sc.TARGET_TYPE, sc.TARGET_NAME),
    sc.SOURCE_ID: (sc.SOURCE_TYPE,),
}
"""An id that is given anew takes the rest of its group away: the old target's type is not the new target's."""


class audit_context:  # noqa: N801 - a context manager and decorator, named like a function
    """Facts for every record emitted inside: a context manager and a decorator, for functions and coroutines.

    What a record says itself wins; an inner context wins over an outer one.  Re-entrant and reusable.

    Args:
        actor, target, source, tenant, session, request_id, user_agent, reason: as in ``emit``.
        attributes: free attributes.

    Raises:
        InvalidRecordError: a fact breaks its rule; raised here, not at the first ``emit``.
    """

    if not TYPE_CHECKING:  # for a type checker, __init__ says it

        def __new__(cls, **facts: Any) -> audit_context:
            """Say what is wrong with a fact that there is none of."""
            known = cls.__init__.__kwdefaults__
            for name in facts.keys() - known.keys():
                why = (
                    "belongs to one event: give it in the call" if name in _OF_ONE_EVENT else "is no fact of a context"
                )
                raise TypeError(
                    f"audit_context(): {name!r} {why}; there are: {', '.join(known)} "
                    "(free attributes go into attributes={…})"
                )
            return super().__new__(cls)

    def __init__(
        self,
        *,
        actor: Actor | str | None = None,
        target: Target | str | None = None,
        source: Source | str | None = None,
        tenant: str | None = None,
        session: str | None = None,
        request_id: str | None = None,
        user_agent: str | None = None,
        reason: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        self._facts = flatten(
            actor=actor, target=target, source=source, tenant=tenant, session=session, request_id=request_id,
            user_agent=user_agent, reason=reason, attributes=attributes,
        )  # fmt: skip

    def __enter__(self) -> audit_context:
        before = _current.get()
        _entered.set((*_entered.get(), (self, before)))
        _current.set(with_context(self._facts, before))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Go back to the facts that held outside.

        In another context than the one that was entered (a generator that is finished by another task), there is
        nothing to go back to, and nothing happens.
        """
        entered = _entered.get()
        for index in range(len(entered) - 1, -1, -1):
            if entered[index][0] is self:
                _entered.set(entered[:index])
                _current.set(entered[index][1])
                return

    async def __aenter__(self) -> audit_context:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: _F) -> _F:
        """Decorate a function or coroutine function: the facts hold while it runs."""
        if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
            raise TypeError(
                "audit_context cannot decorate a generator: its body runs in its caller's context; "
                "use 'with audit_context(...)' inside it"
            )
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def in_context(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

        else:

            @functools.wraps(function)
            def in_context(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return function(*args, **kwargs)

        return cast("_F", in_context)


def current() -> Mapping[str, Any]:
    """The facts that hold now, as flat attributes.  Do not change it."""
    return _current.get()


def with_context(attributes: dict[str, Any], facts: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The attributes, with what the context says where they say nothing.

    Args:
        attributes: flat attributes; returned as it is where there is no context.
        facts: instead of the current context's.
    """
    if facts is None:
        facts = _current.get()
    if not facts:
        return attributes
    merged = dict(facts)
    for key, group in _GROUPS.items():
        if key in attributes and key in merged:
            for other in group:
                merged.pop(other, None)
    merged.update(attributes)
    return merged


def current_trace() -> tuple[str, str]:
    """Trace and span id of the current OpenTelemetry span in lower-case hex; ``("", "")`` where there is none.

    A process that never imported ``opentelemetry.trace`` has no span, so it is not imported here.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return "", ""
    if not trace.context_api.get_current():  # an empty context has no span: half the time of asking for it
        return "", ""
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return "", ""
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"


_own_threads: set[int] = set()
"""Identifiers of our threads: for a first look, because a forked child gives those of its parent to other threads."""


class _Thread(threading.local):
    """Whether this thread is one of ours."""

    ours = False


_thread = _Thread()


def enter_own_thread() -> None:
    """Called by each thread of ours when it starts: what it logs (httpx logs its requests) is never captured."""
    _thread.ours = True
    _own_threads.add(threading.get_ident())


def leave_own_thread() -> None:
    """Called by each thread of ours when it ends; identifiers are used again."""
    _thread.ours = False
    _own_threads.discard(threading.get_ident())


def in_own_thread() -> bool:
    """Whether the caller runs on a thread of ours."""
    return _thread.ours


def _before_fork() -> None:
    """Let our threads finish what they are importing, for a bounded time.

    A module that is half imported while another thread forks can never be imported in the child: its lock is held by a
    thread that is not there.  So whoever forks soon after the first record would hang in an import of its own.
    """
    deadline = time.monotonic() + FORK_PATIENCE_S
    while _own_threads and _is_importing() and time.monotonic() < deadline:
        time.sleep(0.001)


def _is_importing() -> bool:
    """Whether another thread of ours is within an import."""
    others = _own_threads - {threading.get_ident()}
    locks = getattr(sys.modules.get("_frozen_importlib"), "_module_locks", {})
    return any(getattr(reference(), "owner", None) in others for reference in list(locks.values()))


def _after_fork_in_child() -> None:
    """Only the forking thread lives on in a child; the identifiers of the others are soon those of the user's."""
    _own_threads.intersection_update({threading.get_ident()})


in_child(_after_fork_in_child)
if sys.platform != "win32":
    os.register_at_fork(before=_before_fork)
