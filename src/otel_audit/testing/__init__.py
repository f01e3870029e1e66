"""For tests of applications that audit, and for our own: a provider in memory, receivers that answer by script, faults.

Loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .files import FaultyFiles
    from .memory import RecordingProvider
    from .receiver import ReceivedRecord, ReceivedRequest, Reply, ScriptedReceiver

__all__ = ["FaultyFiles", "ReceivedRecord", "ReceivedRequest", "RecordingProvider", "Reply", "ScriptedReceiver"]

_HOMES: Final = {
    "FaultyFiles": "files",
    "RecordingProvider": "memory",
    **dict.fromkeys(("ReceivedRecord", "ReceivedRequest", "Reply", "ScriptedReceiver"), "receiver"),
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
