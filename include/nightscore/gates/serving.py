"""Serving a few pages to a browser on this machine, and to nobody else."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from nightscore.errors import ConfigurationError


class PortTakenError(ConfigurationError):
    """Something else listens on the port."""


@contextmanager
def serve(pages: Mapping[str, bytes], port: int) -> Iterator[ThreadingHTTPServer]:
    """Yield a server of pages, by their path, that listens on 127.0.0.1; its `serve_forever` is the caller's to call.

    Raises:
        PortTakenError: the port cannot be listened on.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pages.get(self.path.split("?")[0])
            # A page of another site may reach this server under a name of its own; it must not read what is here.
            host = self.headers.get("Host", "").rsplit(":", 1)[0]
            found = page is not None and host in ("127.0.0.1", "localhost")
            self.send_response(HTTPStatus.OK if found else HTTPStatus.NOT_FOUND)
            body = page if found and page is not None else b"There is no such page.\n"
            self.send_header("Content-Type", "text/html; charset=utf-8" if found else "text/plain")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing of each request."""

    try:
        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    except OSError as error:
        why = f"cannot listen on 127.0.0.1:{port}: {error.strerror}"
        raise PortTakenError(f"--port: {why}. 0 chooses a free one.") from error
    with server:
        yield server
