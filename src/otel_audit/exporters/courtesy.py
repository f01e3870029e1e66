"""Letting other threads run while a large batch is written, without waiting for anything."""

from __future__ import annotations

import functools
import time
from typing import Final

let_others_run: Final = functools.partial(time.sleep, 0)
"""Gives the interpreter to a thread that wants it."""
