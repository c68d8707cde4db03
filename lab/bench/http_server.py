"""Serves the stand-ins over HTTP and WebSocket, by uvicorn; each answer is late by as much.

What a stand-in costs this machine is missing to both sides of a comparison, so the application is
as thin as Starlette allows: no routes, no middleware.
"""

import asyncio
import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import uvicorn
from starlette import requests, responses
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.protocols.http.auto import AutoHTTPProtocol

BACKLOG: Final = 1024


@dataclass(frozen=True, slots=True)
class Request:
    """A request; `headers` by names in lower case, `query` undecoded, `body` as it came."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def target(self) -> str:
        """Path and query."""
        return f"{self.path}?{self.query}" if self.query else self.path


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer; `body` is sent as JSON, None as nothing at all."""

    status: int
    body: object = None


Handler = Callable[[Request], "Answer | asyncio.Future[Answer]"]
OnMessage = Callable[[str], str | None]
"""Takes a WebSocket's text message, and returns what to send back."""


@dataclass(frozen=True)
class Service:
    """What a server answers, and how many seconds after a request has come in: an application."""

    handle: Handler
    on_message: OnMessage = lambda _: None
    delay_seconds: float = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or a WebSocket until its client closes it."""
        if scope["type"] == "websocket":
            socket = WebSocket(scope, receive, send)
            await socket.accept(next(iter(scope["subprotocols"]), None))
            async for text in socket.iter_text():
                back = self.on_message(text)
                if back is not None:
                    await socket.send_text(back)
            return
        asked = requests.Request(scope, receive)
        path, query = scope["raw_path"].decode(), scope["query_string"].decode()
        body = await asked.body()
        answer = self.handle(Request(asked.method, path, query, asked.headers, body))
        if isinstance(answer, asyncio.Future):
            answer = await answer
        content = b"" if answer.body is None else json.dumps(answer.body).encode()
        response = responses.Response(content, answer.status, media_type="application/json")
        await response(scope, receive, send)


def serve(service: Service, port: int) -> None:
    """Serve on 127.0.0.1 until the process is ended."""
    _server(service, port).run()


class ServerThread:
    """A service in a thread of this process, behind which a test can see."""

    def __init__(self, service: Service) -> None:
        self._server = _server(service, port=0)
        self._socket = self._server.config.bind_socket()
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> "ServerThread":
        self._socket.listen(BACKLOG)  # who asks before uvicorn is there waits for it
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()
        self._socket.close()


def _server(service: Service, port: int) -> uvicorn.Server:
    class Protocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]  # a variable of uvicorn's
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(_Far(transport, service.delay_seconds))

    config = uvicorn.Config(
        service, "127.0.0.1", port, http=Protocol, backlog=BACKLOG, lifespan="off",
        log_config=None, access_log=False, server_header=False, date_header=False,
        timeout_keep_alive=600,
    )  # fmt: skip
    return uvicorn.Server(config)


class _Far:
    """A transport to a client far away: what is sent arrives late, pongs included."""

    def __init__(self, transport: asyncio.Transport, seconds: float) -> None:
        self._transport = transport
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()

    def write(self, data: bytes) -> None:
        """Send, so many seconds later; a transport that is closed by then drops it."""
        self._loop.call_later(self._seconds, self._transport.write, data)

    def close(self) -> None:
        """Close after all that was written before."""
        self._loop.call_later(self._seconds, self._transport.close)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
