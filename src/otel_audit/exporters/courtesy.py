"""Letting other threads run while a large batch is written, without waiting for anything."""

from __future__ import annotations

from ..journal.courtesy import let_others_run

__all__ = ["let_others_run"]
