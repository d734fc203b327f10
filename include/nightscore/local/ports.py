"""Ports of this machine's loopback address: which are free, and which a checkout takes."""

import hashlib
import socket

from nightscore.errors import ConfigurationError

HOST = "127.0.0.1"
FIRST_PORT, LAST_PORT = 20_000, 30_000  # below the range from which systems hand out ports of their own choice


class PortTakenError(ConfigurationError):
    """A port that was asked for belongs to another program."""

    def __init__(self, port: int) -> None:
        super().__init__(f"Port {port} on {HOST} is used by another program. Choose another, or let it be chosen.")
        self.port = port


def is_free(port: int) -> bool:
    """Return whether a server could listen on the port now."""
    with socket.socket() as probe:
        # As the servers do: else a port is "taken" for a minute after its last connection closed.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def free_ports(seed: str, count: int) -> list[int]:
    """Return free ports, the same for the same seed as long as nobody takes them.

    Raises:
        PortTakenError: the whole range is taken.
    """
    span = LAST_PORT - FIRST_PORT
    first = int(hashlib.sha256(seed.encode()).hexdigest(), 16) % span
    found: list[int] = []
    for step in range(span):
        port = FIRST_PORT + (first + step) % span
        if is_free(port):
            found.append(port)
            if len(found) == count:
                return found
    raise PortTakenError(FIRST_PORT + first)
