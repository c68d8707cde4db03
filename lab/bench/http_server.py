"""Serves a stand-in over HTTP and WebSocket with Starlette and uvicorn, as if it were far away.

The machine's time that a stand-in takes is missing to both sides of a comparison: one route for
everything, and no middleware but the guard that answers no web page.
"""

import asyncio
import json
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from localcloud.guard import guarded

Answer = tuple[int, object]
"""Status, and a body that is sent as JSON; a body of None is not sent."""

NEWEST: Final = 32
"""So many requests are kept as they came."""


def serve(
    port: int,
    answer: Callable[[Request, Any], Awaitable[Answer]],
    *,
    reply: Callable[[Any], object] = lambda _: None,
    usage: Callable[[], Mapping[str, object]] = dict,
    delay_seconds: float = 0.0,
) -> None:
    """Serve on 127.0.0.1 until the process ends; answers and replies leave after the delay.

    `answer` gets the request's body as well, out of JSON. `reply` returns the reply to a
    WebSocket's message, None for no reply; pongs are not delayed. Below /bench are the benchmark's
    own requests, which are not counted: its usage holds the number of all others by their kind, the
    newest of them, and `usage`.
    """
    counted: Counter[str] = Counter()
    newest: deque[Mapping[str, str]] = deque(maxlen=NEWEST)

    async def http(request: Request) -> Response:
        path, sent = request.url.path, (await request.body()).decode()
        if path.endswith("/bench/usage"):
            return JSONResponse({"requests": counted, "newest": list(newest), **usage()})
        if "/bench/" not in path:
            whole = "?".join(filter(None, (path, request.url.query)))
            target = request.headers.get("x-amz-target", "")
            counted[target or request.method] += 1
            kept = {"method": request.method, "path": whole, "x-amz-target": target, "body": sent}
            newest.append(kept)
        status, body = await answer(request, json.loads(sent or "{}"))
        await asyncio.sleep(delay_seconds)
        return Response(status_code=status) if body is None else JSONResponse(body, status)

    async def messages(socket: WebSocket) -> None:
        await asyncio.sleep(delay_seconds)
        await socket.accept(next(iter(socket.scope["subprotocols"]), None))
        async for message in socket.iter_json():
            counted["WebSocket"] += 1
            if (back := reply(message)) is not None:
                await asyncio.sleep(delay_seconds)
                await socket.send_json(back)

    everything = "/{path:path}"
    routes = [
        Route(everything, http, methods=["GET", "POST", "PATCH"]),
        WebSocketRoute(everything, messages),
    ]
    uvicorn.run(
        guarded(Starlette(routes=routes), port),
        port=port,
        backlog=1024,
        log_config=None,
        access_log=False,
        timeout_keep_alive=600,
    )
