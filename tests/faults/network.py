"""A network that fails on demand: proxies between nightscore and its three services, which follow rules."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from urllib.parse import parse_qs, urlsplit

from faults.calls import Call, describe_bigquery, describe_storage
from faults.exchange import Answer, Exchange, Fault, passed_on
from faults.stream import StreamProxy
from nightscore.settings import Settings

BIGQUERY, STORAGE = "bigquery", "storage"
Fits = Callable[[Call], bool]


@dataclass
class Rule:
    """Which requests meet a fault, and those that have met it."""

    fits: Fits
    fault: Fault
    met: list[Call] = field(default_factory=list)


def only(wanted: Call | str) -> Fits:
    """The request of just this description."""
    return lambda call: str(call) == str(wanted)


def first_of_each(call: Call) -> bool:
    """Every kind of request, the first time that it is sent."""
    return call.occurrence == 0


def all_from(first: str) -> Fits:
    """Every request to a service, from the one of this description on."""
    began = threading.Event()

    def fits(call: Call) -> bool:
        if str(call) == first:
            began.set()
        return began.is_set() and first.startswith(f"{call.server}: ")

    return fits


class Journal:
    """The requests to both HTTP services in the order in which they came, and the rules that they fall under."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._rules: list[Rule] = []
        self._counted: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def begin(self, rules: Iterable[Rule]) -> None:
        """Begin anew: no requests so far, and these rules."""
        with self._lock:
            self.calls, self._rules = [], list(rules)
            self._counted.clear()

    def enter(self, server: str, method: str, what: str) -> tuple[Call, Fault]:
        """Write a request down; return it and what becomes of it."""
        with self._lock:
            call = Call(server, method, what, self._counted[server, what])
            self._counted[server, what] += 1
            self.calls.append(call)
            for rule in self._rules:
                if rule.fits(call):
                    rule.met.append(call)
                    return call, rule.fault
        return call, passed_on


class HttpProxy(ThreadingHTTPServer):
    """Listens for one service's clients, a thread per connection."""

    daemon_threads = True
    request_queue_size = 256

    def __init__(self, name: str, url: str, journal: Journal) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        address = urlsplit(url)
        self.name = name
        self.upstream = (str(address.hostname), int(address.port or 80))
        self.journal = journal
        self.uploads: dict[str, str] = {}

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.server_port}"

    def server_bind(self) -> None:
        """Bind without looking up the host's name, which takes seconds on a machine without DNS."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def enter(self, method: str, target: str, body: bytes) -> tuple[Call, Fault]:
        """Write a request down; return it and what becomes of it."""
        if self.name == BIGQUERY:
            return self.journal.enter(self.name, method, describe_bigquery(method, target, body))
        upload = parse_qs(urlsplit(target).query).get("upload_id", [""])[0]
        return self.journal.enter(self.name, method, describe_storage(method, target, body, self.uploads.get(upload)))

    def answered(self, call: Call, answer: Answer) -> None:
        """Remember for which object the address of an upload stands."""
        for name, value in answer.headers:
            if name.lower() == "location":
                [upload] = parse_qs(urlsplit(value).query)["upload_id"]
                self.uploads[upload] = call.what.removeprefix("begin ")

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet about clients that were killed; their test knows."""


class _Handler(BaseHTTPRequestHandler):
    server: HttpProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        call, fault = self.server.enter(self.command, self.path, body)
        fault(Exchange(self.server, self, call, body))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815 - the base class looks for these

    def log_message(self, *_: object) -> None:
        """Keep quiet: the journal has it."""


class Network:
    """Proxies before all three services; journal and rules are those of the two that speak HTTP."""

    def __init__(self, settings: Settings) -> None:
        self.journal = Journal()
        self.bigquery = HttpProxy(BIGQUERY, str(settings.bigquery_host), self.journal)
        self.storage = HttpProxy(STORAGE, str(settings.storage_host), self.journal)
        self.stream = StreamProxy(str(settings.bigquery_storage_host))
        self._servers = (self.bigquery, self.storage, self.stream)
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a process through the proxies."""
        return {
            "BIGQUERY_EMULATOR_HOST": self.bigquery.url,
            "BIGQUERY_STORAGE_EMULATOR_HOST": self.stream.address,
            "STORAGE_EMULATOR_HOST": self.storage.url,
        }

    def begin(self, *rules: Rule) -> None:
        """Begin anew: no requests so far, and these rules."""
        self.journal.begin(rules)
        self.stream.begin()

    def close(self) -> None:
        """Stop listening."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
