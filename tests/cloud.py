"""Google Cloud as clients see it from afar: its own host names, TLS, bearer tokens and IAM, on this machine.

Clients get there through a proxy, as they do in a closed network; nothing in them knows. Tokens, impersonation and
`testIamPermissions` are answered here, in the shapes of the public references; what is asked of BigQuery and Cloud
Storage is passed on to the local servers, if the token is one of those that were given out.
"""

import datetime as dt
import http.client
import json
import re
import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import closing, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from nightscore.local.servers import LocalServers

OWN, OWN_TOKEN = "the process itself", "token-of-the-process"
NOT_PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "content-length", "authorization", "accept-encoding"}
ACTING = re.compile(r"/v1/projects/-/serviceAccounts/(?P<account>[^:]+):generateAccessToken")
OF_PROJECT = re.compile(r"/v\d/projects/[^/:]+:testIamPermissions")
OF_TABLE = re.compile(r"/bigquery/v2/projects/[^/]+/datasets/(?P<dataset>[^/]+)/tables/[^/]+:testIamPermissions")
OF_BUCKET = re.compile(r"/storage/v1/b/(?P<bucket>[^/]+)/iam/testPermissions")


@dataclass(frozen=True)
class Asked:
    """One request: which host, what, and who asks: a token's owner."""

    host: str
    method: str
    path: str
    who: str | None
    body: Any


@dataclass
class Cloud:
    """One project's servers. `grants`: who → resource (`project`, a dataset, a bucket) → permissions; `*`: all."""

    servers: LocalServers
    folder: Path
    grants: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    may_act_as: set[str] = field(default_factory=set)
    asked: list[Asked] = field(default_factory=list)
    clock: dt.timedelta = dt.timedelta()
    tokens: dict[str, str] = field(default_factory=lambda: {OWN_TOKEN: OWN})
    answers: dict[str, Callable[[], tuple[int, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Start all of it."""
        authority, certificate, key = _certificates(self.folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._http = _Server(("127.0.0.1", 0), _Google)
        self._http.cloud = self
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self._grpc = grpc.server(futures.ThreadPoolExecutor(4))
        self._grpc.add_generic_rpc_handlers((_ReadSessions(self),))
        pair = [(Path(key).read_bytes(), Path(certificate).read_bytes())]
        self.grpc_port = self._grpc.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair))
        self._grpc.start()
        self._proxy = _Server(("127.0.0.1", 0), _Proxy)
        self._proxy.cloud = self
        for server in (self._http, self._proxy):
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        user = {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"}
        (self.folder / "credentials.json").write_text(json.dumps(user))
        self._authority = authority

    @property
    def http_port(self) -> int:
        """Where everything but gRPC is served."""
        return self._http.server_port

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead a process here."""
        proxy = f"http://127.0.0.1:{self._proxy.server_port}"
        return {
            **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "grpc_proxy"), proxy),
            # gRPC asks the proxy for addresses of this machine, too.
            **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1"),
            **dict.fromkeys(("REQUESTS_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"), self._authority),
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.folder / "credentials.json"),
            "NO_GCE_CHECK": "true",
        }

    def who(self, authorization: str | None) -> str | None:
        """Return whose token it is."""
        return self.tokens.get((authorization or "").removeprefix("Bearer "))

    def held(self, who: str | None, resource: str, wanted: list[str]) -> list[str]:
        """Return which of the permissions somebody holds on a resource."""
        own = self.grants.get(who or "", {}).get(resource, set())
        return [name for name in wanted if "*" in own or name in own]

    def close(self) -> None:
        """Stop all of it."""
        self._grpc.stop(None)
        for server in (self._http, self._proxy):
            server.shutdown()
            server.server_close()


class _Server(ThreadingHTTPServer):
    cloud: Cloud
    daemon_threads = True

    def server_bind(self) -> None:
        """Bind without looking up the host's name."""
        socket.socket.bind(self.socket, self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that left."""


class _Proxy(BaseHTTPRequestHandler):
    """CONNECT, whatever the name."""

    server: _Server

    def do_CONNECT(self) -> None:
        cloud = self.server.cloud
        is_grpc = self.path.startswith("bigquerystorage.")
        with closing(socket.create_connection(("127.0.0.1", cloud.grpc_port if is_grpc else cloud.http_port))) as far:
            self.send_response_only(200)
            self.end_headers()
            other = {far: self.connection, self.connection: far}
            while True:
                for ready in select.select(list(other), [], [])[0]:
                    data = b""
                    with suppress(OSError):
                        data = ready.recv(1 << 16)
                    if not data:
                        return
                    other[ready].sendall(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Google(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def serve(self) -> None:
        cloud, host = self.server.cloud, self.headers["Host"]
        self.passed_on: list[tuple[str, str]] = []
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        who = cloud.who(self.headers.get("Authorization"))
        with suppress(ValueError):
            body = json.loads(body) if body else {}
        path = unquote(urlsplit(self.path).path)
        cloud.asked.append(Asked(host, self.command, path, who, body))
        self.answer(*self._answer(cloud, host, path, who, body))

    def _answer(  # noqa: PLR0911 - one return for each service
        self, cloud: Cloud, host: str, path: str, who: str | None, body: Any
    ) -> tuple[int, Any]:
        if host == "oauth2.googleapis.com":
            return 200, {"access_token": OWN_TOKEN, "expires_in": 3600, "token_type": "Bearer"}
        if who is None:
            return _error(401, "Request had invalid authentication credentials.")
        if found := ACTING.fullmatch(path):
            return _act(cloud, found["account"], body)
        if OF_PROJECT.fullmatch(path):
            return _permissions(cloud.held(who, "project", body["permissions"]))
        if found := OF_TABLE.fullmatch(path):
            there = self._forwarded(cloud.servers, host, None, "GET", path.removesuffix(":testIamPermissions"))
            if there[0] != 200:
                return there
            return _permissions(cloud.held(who, found["dataset"], body["permissions"]))
        if found := OF_BUCKET.fullmatch(path):
            wanted = parse_qs(urlsplit(self.path).query)["permissions"]
            return _permissions(cloud.held(who, found["bucket"], wanted))
        if found := next((answer for start, answer in cloud.answers.items() if path.startswith(start)), None):
            return found()
        return self._forwarded(cloud.servers, host, body)

    def _forwarded(
        self, servers: LocalServers, host: str, body: Any, method: str | None = None, path: str | None = None
    ) -> tuple[int, Any]:
        url = servers.bigquery_url if host.startswith("bigquery.") else servers.storage_url
        with closing(http.client.HTTPConnection(urlsplit(url).netloc)) as connection:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_PASSED_ON}
            data = body if isinstance(body, bytes) else json.dumps(body).encode() if body else None
            connection.request(method or self.command, path or self.path, data, headers)
            response = connection.getresponse()
            self.passed_on = [
                (name, value) for name, value in response.headers.items() if name.lower().startswith("x-")
            ]
            return response.status, response.read()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815 - the base class looks for these

    def answer(self, status: int, content: Any) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response_only(status)
        now = dt.datetime.now(dt.UTC) + self.server.cloud.clock
        self.send_header("Date", f"{now:%a, %d %b %Y %H:%M:%S} GMT")
        self.send_header("Content-Type", "application/json")
        for name, value in self.passed_on:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _ReadSessions(grpc.GenericRpcHandler):
    """The Storage Read API: the caller's token is looked at, and the call passed on."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._channel = grpc.insecure_channel(cloud.servers.bigquery_storage_address)

    def service(self, details: Any) -> Any:
        """Return how a call is handled."""
        authorization = dict(details.invocation_metadata).get("authorization")
        who = self._cloud.who(authorization)
        self._cloud.asked.append(Asked("bigquerystorage.googleapis.com", "gRPC", details.method, who, None))
        if who is None:
            return grpc.unary_unary_rpc_method_handler(_unauthenticated)
        if details.method.endswith("ReadRows"):
            call = self._channel.unary_stream(details.method)
            return grpc.unary_stream_rpc_method_handler(lambda request, context: _each(call, request, context))
        one = self._channel.unary_unary(details.method)
        return grpc.unary_unary_rpc_method_handler(lambda request, context: _one(one, request, context))


def _each(call: Any, request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    try:
        yield from call(request)
    except grpc.RpcError as error:
        context.abort(error.code(), error.details())


def _one(call: Any, request: bytes, context: grpc.ServicerContext) -> bytes:
    try:
        return call(request)
    except grpc.RpcError as error:
        context.abort(error.code(), error.details())
        raise


def _unauthenticated(_: bytes, context: grpc.ServicerContext) -> bytes:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "Request had invalid authentication credentials.")
    return b""


def _act(cloud: Cloud, account: str, body: Any) -> tuple[int, Any]:
    if account not in cloud.may_act_as:
        return _error(403, "Permission 'iam.serviceAccounts.getAccessToken' denied on resource (or it may not exist).")
    token = f"token-of-{account}"
    cloud.tokens[token] = account
    expires = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=int(body["lifetime"].rstrip("s")))
    return 200, {"accessToken": token, "expireTime": f"{expires:%Y-%m-%dT%H:%M:%SZ}"}


def _permissions(held: list[str]) -> tuple[int, Any]:
    return 200, {"permissions": held} if held else {}


def _error(code: int, message: str) -> tuple[int, Any]:
    reason = {401: "authError", 403: "accessDenied", 404: "notFound"}[code]
    errors = [{"message": message, "domain": "global", "reason": reason}]
    return code, {"error": {"code": code, "message": message, "errors": errors, "status": "PERMISSION_DENIED"}}


def _certificates(folder: Path) -> tuple[str, str, str]:
    """Write an authority, and a certificate of Google's names that it has signed; return the three files."""
    now = dt.datetime.now(dt.UTC)

    def certificate(
        subject: str, key: Any, issuer: str, signer: Any, extension: x509.ExtensionType
    ) -> x509.Certificate:
        name, by = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)]) for text in (subject, issuer))
        made = x509.CertificateBuilder(by, name, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now - dt.timedelta(days=1)).not_valid_after(now + dt.timedelta(days=1))
        return made.add_extension(extension, critical=False).sign(signer, hashes.SHA256())

    root, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    authority = certificate("tests", root, "tests", root, x509.BasicConstraints(ca=True, path_length=None))
    names = x509.SubjectAlternativeName([x509.DNSName("*.googleapis.com")])
    server = certificate("googleapis.com", own, "tests", root, names)
    files = [folder / name for name in ("authority.pem", "certificate.pem", "key.pem")]
    files[0].write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(server.public_bytes(serialization.Encoding.PEM))
    files[2].write_bytes(
        own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return str(files[0]), str(files[1]), str(files[2])
