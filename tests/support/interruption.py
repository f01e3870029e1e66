"""Ctrl-C before a certain line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def interrupt(call: Callable[[], object], line: int, counts: Callable[[FrameType], bool]) -> KeyboardInterrupt | None:
    """Make a call, and interrupt it before the n-th of certain lines.

    Args:
        call: what to call.
        line: which line, from 1.
        counts: whether a frame's lines are among them; asked before each.

    Returns:
        The exception, as it came out of the call; ``None`` where there are not so many lines.
    """
    left = line

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if event == "line" and counts(frame):
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
        return trace

    try:
        sys.settrace(trace)
        call()
    except KeyboardInterrupt as error:
        return error
    finally:
        sys.settrace(None)
    return None
