"""Presets: direct HTTP as particular services want it.  Each is data, and a function that gives a record its shape.

A service whose answers need more than a status has an exporter of its own, which does only that part otherwise.
"""

from .preset import Mode, Preset

__all__ = ["Mode", "Preset"]
