"""The loggers by which this package says what it has to say; ``otel_audit`` and its children, and no other.

``dictConfig`` and ``fileConfig`` disable every logger that was there before and that they do not name, unless they are
told otherwise.  A library that is made to keep quiet about what it loses is of no use: ours is enabled again before
each message.  A level or handlers on ``otel_audit`` silence it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

ROOT: Final = "otel_audit"
"""The logger above all others of this package."""

if TYPE_CHECKING:
    _Adapter = logging.LoggerAdapter[logging.Logger]
else:
    _Adapter = logging.LoggerAdapter


class OwnLog(_Adapter):
    """A standard logger that stays enabled."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the standard library's name
        """As a logger's, which ``disabled`` does not turn off."""
        self.logger.disabled = False
        return self.logger.isEnabledFor(level)


def own_log(part: str = "") -> OwnLog:
    """The logger of a part of this package, ``otel_audit.<part>``; of the whole without one."""
    return OwnLog(logging.getLogger(f"{ROOT}.{part}" if part else ROOT), {})
