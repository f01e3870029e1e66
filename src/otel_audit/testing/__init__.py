"""For tests of applications that audit, and for our own: a provider in memory, receivers that answer by script, faults.

Loaded on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from .files import FaultyFiles
    from .grpc_receiver import GrpcReply, ScriptedGrpcReceiver
    from .memory import RecordingProvider
    from .receiver import Reply, ScriptedReceiver
    from .script import ReceivedRecord, ReceivedRequest

__all__ = [
    "FaultyFiles",
    "GrpcReply",
    "ReceivedRecord",
    "ReceivedRequest",
    "RecordingProvider",
    "Reply",
    "ScriptedGrpcReceiver",
    "ScriptedReceiver",
]

_HOMES: Final = {
    "FaultyFiles": "files",
    "RecordingProvider": "memory",
    **dict.fromkeys(("GrpcReply", "ScriptedGrpcReceiver"), "grpc_receiver"),
    **dict.fromkeys(("Reply", "ScriptedReceiver"), "receiver"),
    **dict.fromkeys(("ReceivedRecord", "ReceivedRequest"), "script"),
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{home}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
