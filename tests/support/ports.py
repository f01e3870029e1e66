"""Ports for servers that tests start, on the loopback interface."""

from __future__ import annotations

import contextlib
import random
import socket

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, below the range from which systems take ports for outgoing connections.

    From that range a port could be taken by someone's connection while a server is down between starts.
    """
    with contextlib.ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            port = random.SystemRandom().randrange(15000, 32000)
            candidate = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                candidate.bind((HOST, port))
                ports.append(port)
        return ports
