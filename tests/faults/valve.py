"""A TCP proxy for the Storage Read API that can be shut, or made slow, while shards read through it."""

import contextlib
import threading
import time
from collections.abc import Callable
from socket import create_connection
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any, TypeVar

import psutil

T = TypeVar("T")


class Valve(ThreadingTCPServer):
    """Passes everything on; while it is shut, answers stop after some kilobytes.

    Attributes:
        pause: seconds for which the answers of each connection stop once, after some kilobytes. It delays the
            answers to pings as well: a client gives the connection up after 20 (`nightscore.clients.KEEPALIVE`).
    """

    daemon_threads = True
    before_it_stops = 30_000

    def __init__(self, address: str, pause: float = 0.0) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        host, _, port = address.rpartition(":")
        self.upstream, self.open, self.pause = (host, int(port)), threading.Event(), pause
        self.open.set()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.server_address[1])

    @property
    def address(self) -> str:
        """Where clients find it."""
        return f"127.0.0.1:{self.port}"

    def handle_error(self, *_: Any) -> None:
        """Keep quiet: clients are killed here; that is what this is about."""

    def reader(self) -> psutil.Process | None:
        """Return a process that is being read to, after letting it get as far as it can."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                connections = process.net_connections("tcp")
                if any(c.raddr and c.raddr.port == self.port and c.status == "ESTABLISHED" for c in connections):
                    time.sleep(1)
                    return process
        return None

    def close(self) -> None:
        """Let everything through and stop listening."""
        self.open.set()
        self.shutdown()
        self.server_close()


class _Connection(BaseRequestHandler):
    server: Valve

    def handle(self) -> None:
        with create_connection(self.server.upstream) as server:
            threading.Thread(target=self.pump, args=(self.request, server), daemon=True).start()
            self.pump(server, self.request, self.server)

    @staticmethod
    def pump(source: Any, target: Any, valve: Valve | None = None) -> None:
        passed, paused = 0, False
        with contextlib.suppress(OSError):  # one of the two was killed
            while data := source.recv(4096):
                passed += len(data)
                if valve and passed > valve.before_it_stops:
                    valve.open.wait()
                    time.sleep(0 if paused else valve.pause)
                    paused = True
                target.sendall(data)


def eventually(look: Callable[[], T | None], seconds: float = 240, pause: float = 0.2) -> T:
    """Return what `look` finds, once it does."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(pause)
    return found
