"""A strict, durable Cloud Storage server for laptops, tests and docker-compose.

    python -m nightscore.local.storage_server --host 127.0.0.1 --port 0 --data-dir DIR [--port-file FILE]

Google's own clients talk to it (`STORAGE_EMULATOR_HOST=http://127.0.0.1:PORT`), so code under test is the code that
runs on Google Cloud. What it does not know it refuses with a 501 that says so; it never ignores a precondition.

| part | supported |
|---|---|
| buckets | create, get, list, patch, update, delete; labels, lifecycle and other settings are kept, versioning acts |
| upload | media, multipart, resumable (status, resume after a broken connection or a restart, cancel), XML multipart |
| checks | crc32c and MD5 from metadata, X-Goog-Hash or Content-MD5: a mismatch is 400 and stores nothing |
| read | resource, bytes, ranges, any generation; ETag conditions on resources |
| list | prefix, delimiter, matchGlob, start and end offset, versions, pages |
| change | patch, update, delete, copy, rewrite, move, compose; temporary and event-based holds are enforced |
| preconditions | generation and metageneration, match and not-match, on targets, sources, components and buckets |
| batch | up to 1000 calls in one request |
| XML API | GET and HEAD with ranges, PUT, DELETE, ListObjectsV2, multipart uploads |
| durability | an acknowledged write survives kill -9 and power loss; readers never see part of an object |

| part | not supported |
|---|---|
| access | IAM, ACLs, signatures: whoever reaches the port may do everything, so bind it to 127.0.0.1 |
| refused (501) | encryption keys, soft delete, folders, notifications, HMAC keys, filters by context |
| without effect | lifecycle rules, retention policies, storage classes, `predefinedAcl`, `fields`, `userProject` |
| differs | gzip-encoded objects are always sent as stored |
| differs | no `mediaLink` and `selfLink`: clients would follow them to a host name of the server's own network |
"""

import argparse
import http.client
import io
import os
import signal
import sys
import traceback
import uuid
from collections.abc import Sequence
from email.message import Message
from email.parser import BytesParser
from email.policy import HTTP
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import NoReturn
from urllib.parse import urlsplit

from nightscore.errors import ConfigurationError
from nightscore.local import storage_json, storage_xml
from nightscore.local.storage_errors import ApiError, bad_request, not_implemented
from nightscore.local.storage_http import Body, BrokenBodyError, Request, Response, dispatch
from nightscore.local.storage_store import Store

JSON_PATHS = ("/storage/", "/upload/", "/download/", "/resumable/", "/batch")
BATCH_PATHS = ("/batch/storage/v1", "/batch")
LARGEST_BATCH = 1000
NO_BODY = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED})


def answer(store: Store, request: Request) -> Response:
    """Answer any request; a refusal becomes a response in the dialect that was spoken."""
    xml = request.path != "/" and not request.path.startswith(JSON_PATHS)
    try:
        return _route(store, request, xml=xml)
    except ApiError as refusal:
        error = refusal
    except BrokenBodyError:
        raise
    except Exception:  # noqa: BLE001 - one request's fault must not end the connection of a client without an answer
        traceback.print_exc(file=sys.stderr)
        error = ApiError(HTTPStatus.INTERNAL_SERVER_ERROR, "The local storage server failed; its log has the reason.")
    response = Response.xml(error.xml(), error.status) if xml else Response.json(error.json(), error.status)
    response.headers |= error.headers
    return response


def _route(store: Store, request: Request, *, xml: bool) -> Response:
    if any(name.lower().startswith("x-goog-encryption-") for name in request.headers):
        raise not_implemented("encryption keys")
    if request.path == "/" and request.method in {"GET", "HEAD"}:
        return Response(content=b"ok\n", headers={"Content-Type": "text/plain"})
    if request.path in BATCH_PATHS and request.method == "POST":
        return answer_batch(store, request)
    if xml:
        return storage_xml.answer(store, request)
    response = dispatch(storage_json.ROUTES, store, request)
    if response is None:
        raise not_implemented(f"{request.method} {request.path} (is a slash in a name sent as %2F?)")
    return response


def answer_batch(store: Store, request: Request) -> Response:
    """Answer the calls of a batch one after the other, each as if it had come alone."""
    content_type = f"Content-Type: {request.headers.get('content-type', '')}\r\n\r\n".encode()
    batch = BytesParser(policy=HTTP).parsebytes(content_type + request.body.read())
    calls = list(batch.iter_parts())
    if not 1 <= len(calls) <= LARGEST_BATCH:
        raise bad_request(f"A batch has 1 to {LARGEST_BATCH} calls, not {len(calls)}.")
    boundary = f"batch_{uuid.uuid4().hex}"
    lines = [b""]
    for call in calls:
        inner = _parse_call(call.get_payload(decode=True))
        response = answer(store, inner)
        if response.file is not None:
            response.file.close()
            response = Response.json(bad_request("A batch cannot download objects.").json(), HTTPStatus.BAD_REQUEST)
        content_id = call.get("content-id", "").strip("<>")
        phrase = http.client.responses.get(response.status, "")
        headers = {**response.headers, "Content-Length": str(len(response.content))}
        lines += [
            f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: <response-{content_id}>\r\n\r\n".encode(),
            f"HTTP/1.1 {response.status} {phrase}\r\n".encode(),
            *(f"{name}: {value}\r\n".encode() for name, value in headers.items()),
            b"\r\n" + response.content + b"\r\n",
        ]
    lines.append(f"--{boundary}--\r\n".encode())
    return Response(content=b"".join(lines), headers={"Content-Type": f"multipart/mixed; boundary={boundary}"})


def _parse_call(payload: object) -> Request:
    if not isinstance(payload, bytes):
        raise bad_request("A call of the batch is not an HTTP request.")
    line, _, rest = payload.lstrip().partition(b"\n")
    method, _, target = line.decode("utf-8", "replace").strip().removesuffix(" HTTP/1.1").partition(" ")
    message = BytesParser(policy=HTTP).parsebytes(rest)
    content = message.get_payload(decode=True)
    text = content if isinstance(content, bytes) else b""
    path = urlsplit(target)
    headers = Message()
    for name, value in message.items():
        headers[name] = str(value)
    return Request.parse(method, f"{path.path}?{path.query}", headers, Body(io.BytesIO(text), len(text)))


class Server(ThreadingHTTPServer):
    """A thread per connection, over one store."""

    daemon_threads = True
    # Dozens of clients connect at once when shards start together; the default of 5 would refuse some of them.
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], store: Store) -> None:
        super().__init__(address, Handler)
        self.store = store

    def server_bind(self) -> None:
        """Bind without looking up the host's name, which takes seconds on a machine without DNS."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: object, client_address: object) -> None:
        """Report what went wrong with a connection, except that its client left."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # typeshed names a private alias


class Handler(BaseHTTPRequestHandler):
    """Turns bytes on a connection into requests, and responses into bytes."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = "nightscore-storage"
    # Without this, each small response waits 40 ms for the client's delayed acknowledgement.
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def serve(self) -> None:
        """Answer one request and leave the connection ready for the next."""
        chunked = "chunked" in self.headers.get("transfer-encoding", "").lower()
        length = self.headers.get("content-length") or "0"
        if not chunked and not length.isdecimal():
            self.close_connection = True
            self._send(Response(HTTPStatus.BAD_REQUEST))
            return
        body = Body(self.rfile, None if chunked else int(length))
        try:
            response = answer(self.server.store, Request.parse(self.command, self.path, self.headers, body))
            body.drain()
        except BrokenBodyError:
            self.close_connection = True
            return
        self._send(response)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = serve  # noqa: N815 - the base class looks for these

    def log_message(self, *_: object) -> None:
        """Keep quiet: a request is not news, and a failure is printed where it happens."""

    def _send(self, response: Response) -> None:
        length = response.length if response.file else len(response.content)
        self.send_response(response.status)
        for name, value in response.headers.items():
            # Metadata may hold any character: a line break would begin a header of its own.
            self.send_header(name, " ".join(value.splitlines()).encode().decode("latin-1"))
        if response.status not in NO_BODY:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if response.file is not None:
            with response.file:
                if self.command != "HEAD":
                    self.wfile.flush()
                    self._send_file(response)
        elif self.command != "HEAD" and response.status not in NO_BODY:
            self.wfile.write(response.content)

    def _send_file(self, response: Response) -> None:
        if response.length == 0 or response.file is None:
            return  # sendfile takes a length of 0 for "until the end"
        self.connection.sendfile(response.file, response.offset, response.length)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="nightscore.local.storage_server", description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=0, help="the port, or 0 for any free one (default: %(default)s)")
    parser.add_argument("--data-dir", type=Path, required=True, help="where buckets and objects are kept")
    parser.add_argument("--bucket", help="a bucket that is created unless it is there")
    parser.add_argument("--port-file", type=Path, help="written with the port number once the server listens")
    return parser.parse_args(arguments)


def write_port(file: Path, port: int) -> None:
    """Write the port in one step, so that whoever waits for the file never reads an empty one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    unfinished.write_text(f"{port}\n")
    unfinished.replace(file)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve a data directory until the process is told to stop."""
    options = parse_arguments(arguments)
    try:
        return _serve(options)
    except ConfigurationError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code


def _serve(options: argparse.Namespace) -> int:
    with Store(options.data_dir) as store, _listening(options.host, options.port, store) as server:
        signal.signal(signal.SIGTERM, _stop)
        port = server.server_address[1]
        if options.bucket:
            _provide_bucket(store, options.bucket)
        if options.port_file:
            write_port(options.port_file, port)
        sys.stdout.write(f"Cloud Storage for {options.data_dir} on http://{options.host}:{port}\n")
        sys.stdout.flush()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


def _provide_bucket(store: Store, name: str) -> None:
    try:
        store.buckets.create({"name": name})
    except ApiError as refusal:
        if refusal.status != HTTPStatus.CONFLICT:  # it exists already
            raise ConfigurationError(f"The bucket {name} cannot be created: {refusal}") from refusal


def _listening(host: str, port: int, store: Store) -> Server:
    try:
        return Server((host, port), store)
    except OSError as error:
        raise ConfigurationError(f"Cannot listen on {host}:{port}: {error.strerror}. Pass another --port.") from error


def _stop(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
