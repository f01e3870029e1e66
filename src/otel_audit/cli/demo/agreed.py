"""What the processes of the demonstration have agreed on."""

from __future__ import annotations

from typing import Final

DESTINATION: Final = "collector"
"""Name of the one destination."""
RETENTION: Final = "1h"
"""Delivered segments stay, so that the chain can be read when all is over."""
UNWANTED: Final = "invoice.import"
"""An event that the embedded receiver refuses: it ends in the dead letters."""
IDS: Final = "delivered.ids"
"""File of the embedded receiver: the id of each record, before the request is answered."""
UNAVAILABLE: Final = "unavailable"
"""While there is a file of this name, the embedded receiver answers 503."""
HOST: Final = "127.0.0.1"
"""Everything listens here, and nowhere else."""
