"""Requests of the benchmark's own, which are no part of what is measured."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx

CLIENTS = 8

A = TypeVar("A")
B = TypeVar("B")


class Http:
    """JSON to one address, from many threads."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=60, trust_env=False)

    def __enter__(self) -> "Http":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def send(self, method: str, path: str, body: object = None) -> Any:
        """Return the decoded answer. Raises httpx.HTTPError."""
        answer = self._client.request(method, path, json=body).raise_for_status()
        return answer.json() if answer.content else None

    def get(self, path: str) -> Any:
        """Return the decoded answer. Raises httpx.HTTPError."""
        return self._client.get(path).raise_for_status().json()


def at_once(call: Callable[[A], B], things: Sequence[A]) -> list[B]:
    """Call for each thing, several at a time; return the results in order."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        return list(pool.map(call, things))
