"""Calls that may block, made for coroutines on a thread, and finished even if the coroutine is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class OffLoop:
    """One thread for the calls of all coroutines.

    One is enough for what is called here: a sync covers everything that was written before it.

    Args:
        on_abandoned: given the error of a call that failed after its coroutine was cancelled; nobody else sees it.
    """

    def __init__(self, on_abandoned: Callable[[Exception], None]) -> None:
        self._on_abandoned = on_abandoned
        self._executor: ThreadPoolExecutor | None = None

    async def run(self, call: Callable[[], T]) -> T:
        """What the call returns or raises.  Cancelling does not end the call."""
        if self._executor is None:
            self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="otel-audit-async")
        abandoned = False

        def run() -> T:
            try:
                return call()
            except Exception as error:
                if abandoned:
                    self._on_abandoned(error)
                raise

        future = asyncio.get_running_loop().run_in_executor(self._executor, run)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            abandoned = True
            raise

    def close(self) -> None:
        """Take no more calls; those that were taken are finished."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)

    def abandon(self) -> None:
        """In a forked child: forget the parent's thread."""
        self._executor = None
