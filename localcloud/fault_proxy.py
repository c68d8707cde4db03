"""A reverse proxy that injects faults, in front of Prefect and of AWS.

What goes wrong is a *plan*: a function from a request to a fault, or to None for none. Plans are
put together from `always`, `nth`, `first`, `fraction`, `matching` and `either`.
"""

import itertools
import json
import random
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from http.server import ThreadingHTTPServer
from typing import Self, assert_never
from urllib.parse import urlsplit

from localcloud.guard import GuardedHandler

UPSTREAM_SECONDS = 60.0
_NOT_PASSED_ON = {"connection", "keep-alive", "transfer-encoding", "content-length"}


@dataclass(frozen=True)
class ProxiedRequest:
    """A request as it came in; `path` with its query, the names of `headers` in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def target(self) -> str:
        """AWS's X-Amz-Target; empty where there is none."""
        return self.headers.get("x-amz-target", "")

    @property
    def text(self) -> str:
        """What `matching` looks at: "POST /path target", and the body in the lines below."""
        return f"{self.method} {self.path} {self.target}\n{self.body.decode(errors='replace')}"


@dataclass(frozen=True)
class Answer:
    """This answer instead of the upstream's, which the request never reaches."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, hash=False)
    body: bytes = b""


def throttle(code: str = "ThrottlingException") -> Answer:
    """AWS's refusal of a call that came too soon, for its JSON protocols (DynamoDB, ECS, SSM)."""
    error = {"__type": f"com.amazonaws#{code}", "message": "Rate exceeded"}
    headers = {"Content-Type": "application/x-amz-json-1.1"}
    return Answer(400, headers, json.dumps(error).encode())


@dataclass(frozen=True)
class Hang:
    """No answer: after so many seconds the connection is closed. Nothing reaches the upstream."""

    seconds: float


@dataclass(frozen=True)
class Reset:
    """The connection is reset (RST). Nothing reaches the upstream."""


@dataclass(frozen=True)
class Cut:
    """The upstream's answer ends after at most so many bytes; more were promised."""

    bytes: int


@dataclass(frozen=True)
class LoseAnswer:
    """The request takes effect upstream, then the connection is reset."""


Fault = Answer | Hang | Reset | Cut | LoseAnswer
Plan = Callable[[ProxiedRequest], Fault | None]
"""Asked once per request, in the order of their coming, by one thread at a time: it may count."""


@dataclass
class Exchange:
    """For assertions: a request, what was done to it, and the status the client was sent.

    `status` is None as long as there is none, and for good when the connection was reset or closed.
    """

    method: str
    path: str
    target: str
    fault: Fault | None
    status: int | None = None


def no_fault(_: ProxiedRequest) -> Fault | None:
    """Pass every request on as it is."""
    return None


def always(fault: Fault) -> Plan:
    """Every request."""
    return lambda _: fault


def nth(n: int, fault: Fault) -> Plan:
    """Only the n-th request that this plan is asked about, counted from 1."""
    numbers = itertools.count(1)
    return lambda _: fault if next(numbers) == n else None


def first(n: int, fault: Fault) -> Plan:
    """The first n requests that this plan is asked about."""
    numbers = itertools.count(1)
    return lambda _: fault if next(numbers) <= n else None


def fraction(seed: int, share: float, fault: Fault) -> Plan:
    """A share (0 to 1) of the requests. Which of them, counted by their coming, `seed` decides."""
    chance = random.Random(seed)
    return lambda _: fault if chance.random() < share else None


def matching(regex: str, plan: Plan) -> Plan:
    """Ask `plan` about the requests whose `text` has a match; `^` and `$` are a line's ends."""
    pattern = re.compile(regex, re.MULTILINE)
    return lambda request: plan(request) if pattern.search(request.text) else None


def either(*plans: Plan) -> Plan:
    """The first fault that a plan has; all of them are asked, so that all of them count."""

    def ask_all(request: ProxiedRequest) -> Fault | None:
        faults = [plan(request) for plan in plans]
        return next((fault for fault in faults if fault is not None), None)

    return ask_all


class FaultProxy(ThreadingHTTPServer):
    """Passes requests on to `upstream_url` (http, no path) as long as the `with` block lasts.

    `plan` may be set at any time; `exchanges` are all requests so far, in the order of their
    coming. `errors` keeps what went wrong without being planned; expect it empty.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, upstream_url: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan: Plan = no_fault
        self.exchanges: list[Exchange] = []
        self.errors: list[Exception] = []
        self.closed = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self._upstream = urlsplit(upstream_url).netloc
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closed.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: object) -> None:
        """Note it; a client that is killed, or gives up, is what this proxy is for."""
        error = sys.exception()
        if isinstance(error, Exception) and not isinstance(error, ConnectionError | TimeoutError):
            self.errors.append(error)

    def decide(self, request: ProxiedRequest) -> Exchange:
        """Ask the plan about a request, and note both."""
        with self._lock:
            fault = self.plan(request)
            exchange = Exchange(request.method, request.path, request.target, fault)
            self.exchanges.append(exchange)
        return exchange

    def ask_upstream(self, request: ProxiedRequest) -> Answer:
        """Return the upstream's answer; 502 when there was none.

        Each time over a new connection: a kept one may be closed under a request, an
        unplanned fault.
        """
        upstream = HTTPConnection(self._upstream, timeout=UPSTREAM_SECONDS)
        # The host is the upstream's: it refuses requests that were meant for another.
        kept = {k: v for k, v in request.headers.items() if k not in ("connection", "host")}
        try:
            upstream.request(request.method, request.path, request.body or None, kept)
            answer = upstream.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())
        except (OSError, HTTPException) as error:
            self.errors.append(error)
            return Answer(502, body=str(error).encode())
        finally:
            upstream.close()


class _Handler(GuardedHandler):
    server: FaultProxy
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer on a kept connection waits 40 ms for an ACK

    def _handle(self) -> None:
        proxy = self.server
        if proxy.closed.is_set():
            self.close_connection = True
            return
        if "Transfer-Encoding" in self.headers:
            self.send_error(501, "a request body in chunks is not emulated")
            return
        request = ProxiedRequest(
            method=self.command,
            path=self.path,
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self.rfile.read(int(self.headers.get("Content-Length", 0))),
        )
        exchange = proxy.decide(request)
        match exchange.fault:
            case None:
                self._send(exchange, proxy.ask_upstream(request))
            case Answer():
                self._send(exchange, exchange.fault)
            case Hang(seconds):
                proxy.closed.wait(seconds)
                self.close_connection = True
            case Reset():
                self._reset()
            case Cut(length):
                self._send(exchange, proxy.ask_upstream(request), most=length)
                self.close_connection = True
            case LoseAnswer():
                proxy.ask_upstream(request)
                self._reset()
            case _:
                assert_never(exchange.fault)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815  # http.server wants these names

    def _send(self, exchange: Exchange, answer: Answer, most: int | None = None) -> None:
        """Send the answer; of its body only `most` bytes, and one less than promised."""
        body = answer.body[:most]
        promised = len(body) if most is None else max(len(answer.body), len(body) + 1)
        exchange.status = answer.status
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in _NOT_PASSED_ON:
                self.send_header(name, value)
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(promised))
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        linger_not = struct.pack("ii", 1, 0)  # closing throws away what is unsent, and sends RST
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_not)
        self.connection.close()
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Log nothing."""
