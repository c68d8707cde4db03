"""An HTTP server on 127.0.0.1 that answers by script, one step per request, and keeps notes."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from localcloud.guard import GuardedHandler


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it came in; `client` differs by connection."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any
    client: tuple[str, int]


Step = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int = 200, body: object = None, **headers: str) -> Step:
    """Answer with JSON; `Retry_After="3"` becomes the header Retry-After."""

    def step(handler: BaseHTTPRequestHandler) -> None:
        _send(handler, status, b"" if body is None else json.dumps(body).encode(), headers)

    return step


def answer_raw(body: bytes, status: int = 200, **headers: str) -> Step:
    """Answer with just these bytes."""
    return lambda handler: _send(handler, status, body, headers)


def cut(body: bytes, missing: int = 10) -> Step:
    """Promise `missing` bytes more than are sent, then hang up."""

    def step(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(body) + missing))
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return step


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Reset the connection instead of an answer."""
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()
    handler.close_connection = True


def silence(until: threading.Event) -> Step:
    """Say nothing until the event is set."""

    def step(handler: BaseHTTPRequestHandler) -> None:
        until.wait(30)
        handler.close_connection = True

    return step


@dataclass(slots=True)
class ScriptedServer:
    """Plays `script`; its last step is repeated for whatever comes after."""

    script: Sequence[Step]
    seen: list[Seen] = field(default_factory=list)
    _server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> ScriptedServer:
        outer = self

        class Handler(GuardedHandler):
            protocol_version = "HTTP/1.1"

            def answer_by_script(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                place = min(len(outer.seen), len(outer.script) - 1)
                content = json.loads(body) if body else None
                headers = dict(self.headers)
                outer.seen.append(
                    Seen(self.command, self.path, headers, content, self.client_address)
                )
                outer.script[place](self)

            do_GET = do_POST = do_PATCH = do_DELETE = answer_by_script  # noqa: N815  # http.server's

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server's
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()


def _send(
    handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: Mapping[str, str]
) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
