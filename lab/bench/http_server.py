"""Serves a stand-in over HTTP and WebSocket with Starlette and uvicorn, as if it were far away.

The machine's time that a stand-in takes is missing to both sides of a comparison: one route for
everything, and no middleware.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

Answer = tuple[int, object]
"""Status, and a body that is sent as JSON; a body of None is not sent."""

NEWEST: Final = 32
"""So many requests are kept as they came."""


def serve(
    port: int,
    answer: Callable[[Request], Awaitable[Answer]],
    *,
    reply: Callable[[Any], object] = lambda _: None,
    usage: Callable[[], Mapping[str, object]] = dict,
    delay_seconds: float = 0.0,
) -> None:
    """Serve on 127.0.0.1 until the process ends; answers and replies leave after the delay.

    `reply` returns the reply to a WebSocket's message, None for no reply; pongs are not delayed.
    Below /bench are the benchmark's own requests, which are not counted: its usage holds the number
    of all others by their kind, the newest of them, and `usage`.
    """
    counted: Counter[str] = Counter()
    newest: deque[Mapping[str, str]] = deque(maxlen=NEWEST)

    async def http(request: Request) -> Response:
        if request.url.path.endswith("/bench/usage"):
            return JSONResponse({"requests": counted, "newest": list(newest), **usage()})
        if "/bench/" not in request.url.path:
            operation = request.headers.get("x-amz-target", "")
            counted[operation or request.method] += 1
            newest.append(
                {
                    "method": request.method,
                    "path": request.url.path
                    + (f"?{request.url.query}" if request.url.query else ""),
                    "x-amz-target": operation,
                    "body": (await request.body()).decode(),
                }
            )
        status, body = await answer(request)
        await asyncio.sleep(delay_seconds)
        return Response(status_code=status) if body is None else JSONResponse(body, status)

    async def messages(socket: WebSocket) -> None:
        await asyncio.sleep(delay_seconds)
        await socket.accept(next(iter(socket.scope["subprotocols"]), None))
        async for message in socket.iter_json():
            counted["WebSocket"] += 1
            back = reply(message)
            if back is not None:
                await asyncio.sleep(delay_seconds)
                await socket.send_json(back)

    methods: Sequence[str] = ("GET", "POST", "PATCH")
    routes = [
        Route("/{path:path}", http, methods=methods),
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
