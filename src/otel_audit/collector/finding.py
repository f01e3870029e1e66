"""What the linter reports."""

from __future__ import annotations

from dataclasses import dataclass

from .node import Place
from .rules import Severity


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        rule: the rule that is broken.
        severity: how bad it is.
        place: file and line.
        path: ``exporters.otlp_grpc/gateway.sending_queue.storage``; empty where it is about the file.
        reason: what happens because of it.
        repair: what to write instead.
        loses: whether records that were acknowledged are lost.
        ignored: the reason that a comment gives for leaving it; empty where none does.
    """

    rule: str
    severity: Severity
    place: Place
    path: str
    reason: str
    repair: str
    loses: bool = False
    ignored: str = ""
