"""One request in a proxy's hands, and the faults that can happen to it.

A fault is a function of the exchange: it forwards the request, answers it, breaks the connection, or does these in an
order that hurts.
"""

import contextlib
import http.client
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Protocol

from faults.calls import Call

NOT_PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "content-length"}
REASONS = {403: "accessDenied", 429: "rateLimitExceeded", 500: "internalError", 503: "backendError"}


@dataclass(frozen=True)
class Answer:
    """A server's answer to one request."""

    status: int
    headers: list[tuple[str, str]]
    content: bytes

    @property
    def refuses(self) -> bool:
        """Whether it says that something is not there or not possible."""
        return self.status >= HTTPStatus.BAD_REQUEST


class Service(Protocol):
    """The service behind a proxy."""

    upstream: tuple[str, int]

    def answered(self, call: Call, answer: Answer) -> None:
        """Is told of every answer, whether or not the client gets it."""


class Exchange:
    """One request that waits in the proxy for what becomes of it."""

    def __init__(self, service: Service, handler: BaseHTTPRequestHandler, call: Call, body: bytes) -> None:
        self.call = call
        self._service = service
        self._handler = handler
        self._body = body

    def forward(self) -> Answer:
        """Send the request on and return the server's answer, which the client does not have yet."""
        with contextlib.closing(self._sent(self._body)) as connection:
            response = connection.getresponse()
            answer = Answer(response.status, _passed_on(response.headers), response.read())
        self._service.answered(self.call, answer)
        return answer

    def forward_half(self) -> None:
        """Send the server half of the request's body, and break that connection."""
        break_connection(self._sent(self._body[: len(self._body) // 2]).sock)

    def forward_and_leave(self) -> None:
        """Send the request on, and hang up before the server answers."""
        self._sent(self._body).close()

    def answer(self, answer: Answer, share: float = 1.0) -> None:
        """Send the client an answer, or the first `share` of its content and then a reset."""
        handler = self._handler
        handler.send_response_only(answer.status)
        for name, value in answer.headers:
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(answer.content)))
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(answer.content[: int(len(answer.content) * share)])
        handler.wfile.flush()
        if share < 1:
            self.reset()

    def reset(self) -> None:
        """Break the client's connection."""
        break_connection(self._handler.connection)
        self._handler.close_connection = True

    def _sent(self, body: bytes) -> http.client.HTTPConnection:
        handler = self._handler
        connection = http.client.HTTPConnection(*self._service.upstream)
        # The client's own Host goes along: addresses that the server answers with then lead through the proxy again.
        connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
        for name, value in _passed_on(handler.headers):
            connection.putheader(name, value)
        connection.putheader("Content-Length", str(len(self._body)))
        connection.endheaders(body)
        return connection


Fault = Callable[[Exchange], None]


def passed_on(exchange: Exchange) -> None:
    """No fault."""
    exchange.answer(exchange.forward())


def status(code: int) -> Fault:
    """The server refuses with this status, in Google's words, and does nothing."""

    def refuse(exchange: Exchange) -> None:
        exchange.answer(_google_error(code))

    return refuse


def reset(exchange: Exchange) -> None:
    """The connection breaks before the request arrives."""
    exchange.reset()


def lost_answer(exchange: Exchange) -> None:
    """The server does what it is asked to, and the connection breaks before the answer."""
    exchange.forward()
    exchange.reset()


def done_but_unavailable(exchange: Exchange) -> None:
    """The server does what it is asked to, and something before it answers 503."""
    exchange.forward()
    exchange.answer(_google_error(503))


def half_answer(exchange: Exchange) -> None:
    """What was asked for breaks off in its middle; a refusal arrives whole."""
    answer = exchange.forward()
    exchange.answer(answer, share=1.0 if answer.refuses else 0.5)


def half_refusal(exchange: Exchange) -> None:
    """A refusal breaks off in its middle; anything else arrives whole."""
    answer = exchange.forward()
    exchange.answer(answer, share=0.5 if answer.refuses else 1.0)


def half_request(exchange: Exchange) -> None:
    """The request's body breaks off in its middle, on its way to the server."""
    exchange.forward_half()
    exchange.reset()


def stalled(seconds: float) -> Fault:
    """Nothing happens for a while; then the connection breaks, and the server never heard of it."""

    def stall(exchange: Exchange) -> None:
        time.sleep(seconds)
        exchange.reset()

    return stall


class Held:
    """A fault: the request waits in the network until it is let go; `first` is done before it waits."""

    def __init__(self, first: Callable[[], None] = lambda: None, *, forwarded: bool = False) -> None:
        """Hold a request, or, with `forwarded`, the answer to it."""
        self.arrived = threading.Event()
        self._first = first
        self._forwarded = forwarded
        self._let_go = threading.Event()

    def __call__(self, exchange: Exchange) -> None:
        """Hold the exchange."""
        answer = exchange.forward() if self._forwarded else None
        self._first()
        self.arrived.set()
        self._let_go.wait()
        exchange.answer(answer or exchange.forward())

    def let_go(self) -> None:
        """Let it pass."""
        self._let_go.set()


def break_connection(connection: socket.socket) -> None:
    """Break a connection so that the other side sees a reset, not an end."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(connection.detach())  # close() would wait for the files that were made of the socket


def _passed_on(headers: Message) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in NOT_PASSED_ON]


def _google_error(code: int) -> Answer:
    reason = REASONS[code]
    message = f"{HTTPStatus(code).phrase}, says the test"
    error = {"code": code, "message": message, "errors": [{"reason": reason, "message": message, "domain": "global"}]}
    return Answer(code, [("Content-Type", "application/json")], json.dumps({"error": error}).encode())
