"""A TCP proxy for the Storage Read API, whose HTTP/2 it does not understand: it counts bytes, stalls and cuts."""

import contextlib
import socket
import threading
import time
from dataclasses import dataclass
from socketserver import BaseRequestHandler, ThreadingTCPServer

from faults.exchange import break_connection

CHUNK = 1024


@dataclass(frozen=True)
class Cut:
    """After so many bytes of answers a connection falls silent for a while, and then breaks."""

    after: int
    silent: float = 0.0


class StreamProxy(ThreadingTCPServer):
    """Passes connections on; the first ones may have a cut each, all later ones `always` the same."""

    daemon_threads = True

    def __init__(self, address: str) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        host, _, port = address.rpartition(":")
        self.upstream = (host, int(port))
        self.cuts: list[Cut | None] = []
        self.always: Cut | None = None
        self.passed: list[int] = []  # bytes of answers, by connection
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"127.0.0.1:{self.server_address[1]}"

    def opened(self) -> tuple[int, Cut | None]:
        """Number a connection; return its cut, too."""
        with self._lock:
            number = len(self.passed)
            self.passed.append(0)
        return number, self.cuts[number] if number < len(self.cuts) else self.always

    def begin(self) -> None:
        """Begin anew: no connections, no cuts."""
        with self._lock:
            self.cuts, self.always, self.passed = [], None, []

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about broken connections."""


class _Connection(BaseRequestHandler):
    server: StreamProxy

    def handle(self) -> None:
        number, cut = self.server.opened()
        server = socket.create_connection(self.server.upstream)
        threading.Thread(target=_pump, args=(self.request, server), daemon=True).start()
        left = None if cut is None else cut.after
        try:
            while left is None or left > 0:
                data = server.recv(CHUNK if left is None else min(CHUNK, left))
                if not data:
                    return
                self.request.sendall(data)
                self.server.passed[number] += len(data)
                left = None if left is None else left - len(data)
            time.sleep(cut.silent if cut else 0)
        finally:
            break_connection(server)
            break_connection(self.request)


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Pass on what a client says until either side has gone."""
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
