"""What is wrong with a configuration: one function a rule, in files by subject.  No I/O."""

from . import address, comment, destination, kafka, messages, processor, queue, retry, route, structure
from .base import RULES, Audited, Hit, Rule, Severity

__all__ = [
    "RULES",
    "Audited",
    "Hit",
    "Rule",
    "Severity",
    "address",
    "comment",
    "destination",
    "kafka",
    "messages",
    "processor",
    "queue",
    "retry",
    "route",
    "structure",
]
