"""Serves a stand-in over HTTP and WebSocket with Starlette and uvicorn, as if it were far away.

The machine's time that a stand-in takes is missing to both sides of a comparison: one route for
everything, and no middleware.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import uvicorn
from starlette import requests
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

Answer = tuple[int, object]
"""Status, and a body that is sent as JSON; a body of None is not sent."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request: `target` is path and query; names in `headers` are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The decoded body; empty where there is none."""
        return json.loads(self.body) if self.body else {}


Handler = Callable[[Request], Answer | Awaitable[Answer]]
OnMessage = Callable[[str], str | None]
"""Takes a WebSocket's text message, and returns the reply, if any."""


def body_of(answer: Answer) -> bytes:
    """Return an answer's body as it is sent."""
    return b"" if answer[1] is None else json.dumps(answer[1]).encode()


def serve(
    handle: Handler,
    port: int,
    *,
    on_message: OnMessage = lambda _: None,
    delay_seconds: float = 0.0,
) -> None:
    """Serve on 127.0.0.1 until the process ends; answers and replies leave after the delay.

    A WebSocket's pongs are not delayed.
    """

    async def http(asked: requests.Request) -> Response:
        target = asked.url.path + (f"?{asked.url.query}" if asked.url.query else "")
        answer = handle(Request(asked.method, target, asked.headers, await asked.body()))
        if not isinstance(answer, tuple):
            answer = await answer
        await asyncio.sleep(delay_seconds)
        return Response(body_of(answer), answer[0], media_type="application/json")

    async def messages(socket: WebSocket) -> None:
        await asyncio.sleep(delay_seconds)
        await socket.accept(next(iter(socket.scope["subprotocols"]), None))
        async for text in socket.iter_text():
            reply = on_message(text)
            if reply is not None:
                await asyncio.sleep(delay_seconds)
                await socket.send_text(reply)

    routes = [
        Route("/{path:path}", http, methods=["GET", "POST", "PATCH"]),
        WebSocketRoute("/{path:path}", messages),
    ]
    uvicorn.run(
        Starlette(routes=routes),
        host="127.0.0.1",
        port=port,
        backlog=1024,
        log_config=None,
        access_log=False,
        timeout_keep_alive=600,
    )
