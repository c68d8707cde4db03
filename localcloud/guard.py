"""Whom the embedded cloud's HTTP servers answer: programs on this machine, never a web page.

Any page that a browser on this machine shows can send requests to 127.0.0.1, or have its own name
resolve to it (DNS rebinding). Of all these servers only Prefect's has a UI: its pages are answered
there, and no others.
"""

from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

Asgi = Callable[[Any, Any, Any], Awaitable[None]]

MOST_DISCARDED_BYTES = 1 << 20
DISCARDING_SECONDS = 2.0
_BROWSERS = ("origin", "sec-fetch-", "access-control-request-")
"""How the headers begin that browsers add to what a page sends, and programs do not."""
_OF_NO_PAGE_OR_THE_SAME = ({"none"}, {"same-origin"}, set[str]())
"""Sec-Fetch-Site where an address was typed, by a page of that origin, and of other programs."""


def refusal(
    headers: Iterable[tuple[str, str]], port: int, target: str = "/", *, has_ui: bool = False
) -> str | None:
    """Return why a request to 127.0.0.1:`port` is refused, or None.

    `headers`: all of them as they came, repeated ones too. `target`: of the request line; one that
    names a host of its own is refused. `has_ui`: whether the server's own pages are answered.
    """
    named = [(name.strip().lower(), value) for name, value in headers]
    own = [[f"127.0.0.1:{port}"], [f"localhost:{port}"]]
    if [value for name, value in named if name == "host"] not in own or not target.startswith("/"):
        return "this is not the host that was asked for"
    origins = [value for name, value in named if name == "origin"]
    sites = {value for name, value in named if name == "sec-fetch-site"}
    if has_ui:
        is_page = sites not in _OF_NO_PAGE_OR_THE_SAME
        is_foreign = origins not in [[f"http://{host}"] for [host] in own] if origins else is_page
    else:
        is_foreign = any(name.startswith(_BROWSERS) for name, _ in named)
    return "a web page has no business here" if is_foreign else None


def guarded(app: Asgi, port: int, *, has_ui: bool = False) -> Asgi:
    """Return an ASGI application that answers 403 to what `refusal` refuses, else as `app` does."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        headers = [
            (name.decode("latin-1"), value.decode("latin-1"))
            for name, value in scope.get("headers", ())
        ]
        if scope["type"] == "lifespan" or (why := refusal(headers, port, has_ui=has_ui)) is None:
            await app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # before it is accepted: 403
        else:
            plain = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 403, "headers": plain})
            await send({"type": "http.response.body", "body": why.encode()})

    return answer


class GuardedHandler(BaseHTTPRequestHandler):
    """Answers 403 to what `refusal` refuses, before any method of the handler is called."""

    def parse_request(self) -> bool:
        """Return whether the request is to be handled; if not, it has been answered."""
        if not super().parse_request():
            return False
        port: int = self.connection.getsockname()[1]
        why = refusal(self.headers.items(), port, self.path)
        if why is not None:
            self.refuse(HTTPStatus.FORBIDDEN, why)
        return why is None

    def refuse(self, status: HTTPStatus, why: str) -> None:
        """Answer with an error, and close the connection once the client can have read it."""
        self.send_error(status, why)
        self.close_connection = True
        length = self.headers.get("Content-Length", "")
        if length.isdecimal():  # closing over what is unread would take the answer back
            self.connection.settimeout(DISCARDING_SECONDS)
            self.rfile.read(min(int(length[:9]), MOST_DISCARDED_BYTES))
