"""Servers that take what a run says of itself, and keep it: entries of Cloud Logging, OTLP metrics, OpenLineage."""

import contextlib
import gzip
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Sink(ThreadingHTTPServer):
    """An HTTP server that keeps the bodies of all POSTs, as path → bodies; `answer` is the status of its answers,
    which come after `delay` seconds.

    While `open` is not set, requests hang.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = 200
        self.delay = 0.0
        self.open = threading.Event()
        self.open.set()
        self.bodies: dict[str, list[bytes]] = {}

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def entries(self) -> list[dict[str, Any]]:
        """Entries of Cloud Logging, without those in which Google's client says what it is."""
        found = [json.loads(body) for body in self.bodies.get("/v2/entries:write", [])]
        entries = [entry for request in found for entry in request["entries"]]
        return [entry for entry in entries if "event" in entry.get("jsonPayload", {})]

    @property
    def lineage(self) -> list[dict[str, Any]]:
        """OpenLineage's events."""
        return [json.loads(body) for body in self.bodies.get("/api/v1/lineage", [])]

    @property
    def metrics(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """OTLP metrics: name → tags and value of every point that came."""
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

        found: dict[str, list[tuple[dict[str, str], float]]] = {}
        for body in self.bodies.get("/v1/metrics", []):
            request = ExportMetricsServiceRequest.FromString(body)
            for metric in (m for r in request.resource_metrics for s in r.scope_metrics for m in s.metrics):
                for point in (*metric.gauge.data_points, *metric.sum.data_points):
                    tags = {item.key: item.value.string_value for item in point.attributes}
                    value = point.as_double if point.HasField("as_double") else float(point.as_int)
                    found.setdefault(metric.name, []).append((tags, value))
        return found


class _Handler(BaseHTTPRequestHandler):
    server: Sink

    def do_POST(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.server.open.wait()
        time.sleep(self.server.delay)
        self.server.bodies.setdefault(self.path.split("?")[0], []).append(body)
        with contextlib.suppress(OSError):  # who asked may not have waited
            self.send_response(self.server.answer)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextlib.contextmanager
def running_sink() -> Iterator[Sink]:
    """Yield a sink, and stop it in the end."""
    with Sink() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.open.set()
            server.shutdown()
