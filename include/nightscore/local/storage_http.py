"""Requests and responses of the local Cloud Storage server, apart from any socket: a batch makes them up itself."""

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from http import HTTPStatus
from io import BufferedIOBase
from typing import BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

from nightscore.local.storage_blobs import CHUNK
from nightscore.local.storage_errors import ApiError, Resource, bad_request
from nightscore.local.storage_store import Store

JSON_TYPE = "application/json; charset=UTF-8"
XML_TYPE = "application/xml; charset=UTF-8"
HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
LONGEST_LINE = 1 << 16
LONGEST_JSON = 1 << 24


class BrokenBodyError(ConnectionError):
    """The client went away before it had sent the whole request."""


class Body:
    """The bytes of one request, read once and piece by piece; `length` None means chunked transfer."""

    def __init__(self, stream: BufferedIOBase, length: int | None) -> None:
        self._stream = stream
        self._left = length
        self._buffer = bytearray()
        self._source = self._chunked() if length is None else self._sized(length)

    def pieces(self) -> Iterator[bytes]:
        """Yield what is left; what arrived before a connection broke is yielded before the error is raised."""
        if self._buffer:
            start, self._buffer = bytes(self._buffer), bytearray()
            yield start
        yield from self._source

    def line(self) -> bytes:
        """Return the next line with its end, or what is left."""
        while b"\n" not in self._buffer and len(self._buffer) < LONGEST_LINE:
            piece = next(self._source, b"")
            if not piece:
                break
            self._buffer += piece
        end = self._buffer.find(b"\n") + 1 or len(self._buffer)
        start = bytes(self._buffer[:end])
        del self._buffer[:end]
        return start

    def read(self) -> bytes:
        """Return what is left, for requests that are small."""
        whole = bytearray()
        for piece in self.pieces():
            whole += piece
            if len(whole) > LONGEST_JSON:
                raise ApiError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large.")
        return bytes(whole)

    def json(self) -> Resource:
        """Return the JSON object that is left, or an empty one."""
        text = self.read()
        try:
            value = json.loads(text) if text.strip() else {}
        except ValueError:
            raise bad_request("The request is not valid JSON.") from None
        if not isinstance(value, dict):
            raise bad_request("The request is not a JSON object.")
        return value

    def drain(self) -> None:
        """Read and forget what is left, so that the connection can carry the next request."""
        for _ in self.pieces():
            pass

    def _sized(self, length: int) -> Iterator[bytes]:
        while length:
            piece = self._stream.read(min(CHUNK, length))
            length -= len(piece)
            if piece:
                yield piece
            else:
                raise BrokenBodyError

    def _chunked(self) -> Iterator[bytes]:
        while True:
            header = self._stream.readline(LONGEST_LINE)
            try:
                length = int(header.split(b";")[0], 16)
            except ValueError:
                raise BrokenBodyError from None
            if length == 0:
                break
            yield from self._sized(length)
            self._stream.readline(LONGEST_LINE)
        while self._stream.readline(LONGEST_LINE).strip():  # trailers
            pass


@dataclass
class Request:
    """One request: the path is still quoted, because a quoted slash is part of an object's name."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Message
    body: Body

    @classmethod
    def parse(cls, method: str, target: str, headers: Message, body: Body) -> "Request":
        """Take a request's target apart."""
        parts = urlsplit(target)
        return cls(method, parts.path, dict(parse_qsl(parts.query, keep_blank_values=True)), headers, body)

    @property
    def header(self) -> dict[str, str]:
        """The headers under lower-case names."""
        return {name.lower(): value for name, value in self.headers.items()}

    def expected_checksums(self) -> Resource:
        """Return the checksums that the headers announce, under the names of the JSON API."""
        found: Resource = {}
        for value in self.headers.get_all("x-goog-hash", []):
            for item in value.split(","):
                kind, _, digest = item.strip().partition("=")
                found[{"md5": "md5Hash"}.get(kind, kind)] = digest
        if self.headers.get("content-md5"):
            found["md5Hash"] = self.headers["content-md5"]
        return found


@dataclass
class Response:
    """One response: bytes in memory, or a span of an open file that the server streams and closes."""

    status: int = HTTPStatus.OK
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    file: BinaryIO | None = None
    offset: int = 0
    length: int = 0

    @classmethod
    def json(cls, resource: Resource, status: int = HTTPStatus.OK) -> "Response":
        """Answer with a resource."""
        return cls(status, json.dumps(resource).encode(), {"Content-Type": JSON_TYPE})

    @classmethod
    def xml(cls, text: str, status: int = HTTPStatus.OK, headers: Mapping[str, str] | None = None) -> "Response":
        """Answer with an XML document."""
        return cls(status, text.encode(), {"Content-Type": XML_TYPE, **(headers or {})})


Endpoint = Callable[..., Response]
Route = tuple[str, re.Pattern[str], Endpoint]


def route(method: str, template: str, endpoint: Endpoint) -> Route:
    """Return a route; `{x}` in the template is one quoted path segment, handed to the endpoint unquoted.

    >>> _, pattern, _ = route("GET", "/b/{bucket}/o/{name}", print)
    >>> pattern.fullmatch("/b/x/o/a%2Fb").groups()
    ('x', 'a%2Fb')
    """
    return method, re.compile(re.sub(r"\{\w+\}", "([^/]+)", template)), endpoint


def dispatch(routes: tuple[Route, ...], store: Store, request: Request) -> Response | None:
    """Answer by the first route that fits, or return None."""
    for method, pattern, endpoint in routes:
        match = pattern.fullmatch(request.path) if method == request.method else None
        if match:
            return endpoint(store, request, *(unquoted(part) for part in match.groups()))
    return None


def unquoted(text: str) -> str:
    """Return a path segment without its percent signs, or raise 400."""
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise bad_request(f"Not UTF-8: {text!r}") from None


def media_response(request: Request, resource: Resource, file: BinaryIO) -> Response:
    """Answer with an object's bytes, or the range of them that the request asks for."""
    size = int(resource["size"])
    headers = {
        "Content-Type": resource["contentType"],
        "Accept-Ranges": "bytes",
        "ETag": f'"{resource["etag"]}"',
        "Last-Modified": _http_date(resource["updated"]),
        "X-Goog-Generation": resource["generation"],
        "X-Goog-Metageneration": resource["metageneration"],
        "X-Goog-Storage-Class": resource["storageClass"],
        "X-Goog-Stored-Content-Length": str(size),
        "X-Goog-Stored-Content-Encoding": resource.get("contentEncoding", "identity"),
        "X-Goog-Hash": _hash_header(resource),
    }
    for header, name in (
        ("Content-Encoding", "contentEncoding"),
        ("Content-Disposition", "contentDisposition"),
        ("Content-Language", "contentLanguage"),
        ("Cache-Control", "cacheControl"),
    ):
        if resource.get(name):
            headers[header] = resource[name]
    custom = resource.get("metadata") or {}
    headers |= {f"X-Goog-Meta-{key}": str(value) for key, value in custom.items() if HEADER_NAME.fullmatch(key)}
    try:
        span = requested_span(request.headers.get("range"), size)
    except ApiError:
        file.close()
        raise
    if span is None:
        return Response(HTTPStatus.OK, headers=headers, file=file, length=size)
    first, last = span
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Response(HTTPStatus.PARTIAL_CONTENT, headers=headers, file=file, offset=first, length=last - first + 1)


def requested_span(header: str | None, size: int) -> tuple[int, int] | None:
    """Return the first and last byte a Range header asks for, None for everything, or raise 416.

    >>> requested_span("bytes=2-", 10), requested_span("bytes=-3", 10), requested_span("bytes=0-99", 10)
    ((2, 9), (7, 9), (0, 9))
    """
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").strip())
    if match is None or not (match[1] or match[2]):
        return None
    first = int(match[1]) if match[1] else max(0, size - int(match[2]))
    last = min(int(match[2]), size - 1) if match[1] and match[2] else size - 1
    if match[1] and match[2] and int(match[2]) < first:
        return None  # not a valid range, so the header is ignored
    if first >= size:
        error = ApiError(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, f"The object has {size} bytes; {header} is outside."
        )
        error.headers["Content-Range"] = f"bytes */{size}"
        raise error
    return first, last


def parse_multipart(request: Request) -> tuple[Resource, Iterator[bytes]]:
    """Return the metadata of a multipart upload and its bytes, which are streamed: memory stays flat."""
    boundary = request.headers.get_boundary()
    if not boundary:
        raise bad_request("A multipart upload needs a boundary in its Content-Type.")
    mark = b"--" + boundary.encode()
    body = request.body
    if body.line().rstrip() != mark:
        raise bad_request("The upload does not begin with its boundary.")
    _part_headers(body)
    text = bytearray()
    while (line := body.line()).rstrip() != mark:
        if not line or len(text) > LONGEST_JSON:
            raise bad_request("A multipart upload needs two parts: metadata and bytes.")
        text += line
    try:
        metadata: Resource = json.loads(text) if text.strip() else {}
    except ValueError:
        raise bad_request("The metadata of the upload is not valid JSON.") from None
    content_type = _part_headers(body).get("content-type")
    if content_type:
        metadata.setdefault("contentType", content_type)
    return metadata, _until_end(body.pieces(), mark + b"--")


def _part_headers(body: Body) -> dict[str, str]:
    headers = {}
    while line := body.line().strip():
        name, _, value = line.decode("utf-8", "replace").partition(":")
        headers[name.strip().lower()] = value.strip()
    return headers


def _until_end(pieces: Iterator[bytes], closing: bytes) -> Iterator[bytes]:
    """Yield `pieces` without the closing boundary, which is the last thing in the request.

    Holding back as many bytes as the end can be long finds it without searching the object's bytes.
    """
    longest = len(closing) + 4
    held = bytearray()
    for piece in pieces:
        held += piece
        if len(held) > longest:
            yield bytes(held[:-longest])
            del held[:-longest]
    content, found, after = held.rpartition(closing)
    if not found or after.strip():
        raise bad_request("The upload does not end with its boundary.")
    for end in (b"\r\n", b"\n"):
        if content.endswith(end):
            yield bytes(content[: -len(end)])
            return
    raise bad_request("The upload's closing boundary is not on a line of its own.")


def _hash_header(resource: Resource) -> str:
    md5 = f",md5={resource['md5Hash']}" if resource.get("md5Hash") else ""
    return f"crc32c={resource['crc32c']}{md5}"


def _http_date(text: str) -> str:
    from datetime import datetime
    from email.utils import format_datetime

    with contextlib.suppress(ValueError):
        return format_datetime(datetime.fromisoformat(text), usegmt=True)
    return text
