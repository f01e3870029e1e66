"""Records to bytes, pure: OTLP (``otlp``), JSON lines (``jsonl``), a user's own shape (``template``)."""

from typing import Final

PAUSE_EVERY: Final = 8
"""After how many records a ``pause`` is called, where one is given.

Encoding a large batch keeps the interpreter for tens of milliseconds; a thread that wants it between a write and
its sync would have to wait as long.
"""
