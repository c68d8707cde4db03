"""Whom the embedded cloud's HTTP servers answer: programs on this machine, never a web page.

Any page that a browser on this machine shows can send requests to 127.0.0.1, or have its own name
resolve to it (DNS rebinding). No browser has business with these servers; Prefect's, which has a
UI, is shut by its password.
"""

from collections.abc import Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler

MOST_DISCARDED_BYTES = 1 << 20
DISCARDING_SECONDS = 2.0
_BROWSERS = ("origin", "sec-fetch-", "access-control-request-")
"""How the headers begin that browsers add to what a page sends, and programs do not."""


def refusal(headers: Iterable[tuple[str, str]], port: int, target: str = "/") -> str | None:
    """Return why a request to 127.0.0.1:`port` is refused, or None.

    `headers`: all of them as they came, repeated ones too. `target`: of the request line; one that
    names a host of its own is refused.
    """
    named = [(name.strip().lower(), value) for name, value in headers]
    if any(name.startswith(_BROWSERS) for name, _ in named):
        return "a web page has no business here"
    hosts = [value for name, value in named if name == "host"]
    if hosts not in ([f"127.0.0.1:{port}"], [f"localhost:{port}"]) or not target.startswith("/"):
        return "this is not the host that was asked for"
    return None


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
