"""Rules about the comments that switch rules off; ``suppression.py`` finds what breaks them."""

from __future__ import annotations

from typing import Final

from .base import Severity, bare_rule

WITHOUT_REASON: Final = bare_rule(
    "suppression-without-reason", Severity.ERROR, "a rule is switched off and nobody says why"
)
UNUSED: Final = bare_rule("suppression-unused", Severity.WARNING, "a comment switches off what is not found")
UNKNOWN_RULE: Final = bare_rule("suppression-unknown-rule", Severity.ERROR, "a comment names a rule that is not there")
