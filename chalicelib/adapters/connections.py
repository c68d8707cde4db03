"""Connections to Prefect's server: whom they trust, and what all requests over them share."""

import secrets
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import Any

import urllib3

from chalicelib.adapters.not_before import NotBefore
from chalicelib.adapters.prefect_bounds import TimedAnswer


class Connections:
    """Connections to one server that are kept alive, certificates verified; threads may share them.

    `csrf`: the headers that a server with CSRF protection wants with each write; empty until it
    refuses one without. It knows one token per `client`: a new one replaces the old. `is_prefect`:
    the base URL is known to be a Prefect API's. `not_before`: keeps the time that the server asks
    for; None where later requests do not heed it. `headers`: what a proxy before it asks for.
    """

    def __init__(
        self,
        base_url: str,
        at_once: int = 10,
        not_before: NotBefore | None = None,
        *,
        headers: Callable[[bool], Mapping[str, str]] = lambda _fresh: {},
        trust: Callable[[bool], ssl.SSLContext | None] = lambda _fresh: None,
    ) -> None:
        """`base_url`: an http or https URL.

        `trust` returns whose certificates count, None for the system's; as of `headers`, True asks
        for fresh ones.
        """
        self.csrf: Mapping[str, str] = {}
        self.client, self.lock = secrets.token_hex(16), threading.Lock()
        self.is_prefect, self.not_before, self.headers = False, not_before, headers
        self._opening = threading.Lock()
        self._base_url, self._at_once, self._trust = base_url, at_once, trust
        self._pool: tuple[ssl.SSLContext | None, urllib3.HTTPConnectionPool] | None = None

    def pool(self, fresh: bool = False) -> urllib3.HTTPConnectionPool:
        """Return the connections, new ones once others are trusted; `fresh`: look whether so."""
        context = self._trust(fresh)
        with self._opening:
            if self._pool is None or self._pool[0] is not context:
                given: dict[str, Any] = {"ssl_context": context} if context else {}
                # urllib3's pool manager would look up the same pool for each request.
                pool = urllib3.connection_from_url(self._base_url, maxsize=self._at_once, **given)
                timed = {"response_class": TimedAnswer}
                pool.ConnectionCls = type("Timed", (pool.ConnectionCls,), timed)
                self._pool = context, pool
            return self._pool[1]
