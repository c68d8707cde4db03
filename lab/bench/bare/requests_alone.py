"""A Lambda that issues the requests it is given, bare: no logic, connections kept alive.

Its event holds stages, each of them requests that do not depend on each other: those go at the same
time, the stages one after the other.
"""

from base64 import b64decode
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

_threads = ThreadPoolExecutor(6)
_idle: dict[str, list[HTTPConnection]] = {}


def handler(event: dict[str, Any], _context: object) -> int:
    """Issue all requests; return how many they were. Raises RuntimeError when one is refused."""
    for stage in event["stages"]:
        if len(stage) == 1:
            _send(stage[0])
        else:
            list(_threads.map(_send, stage))
    return sum(map(len, event["stages"]))


def _send(request: dict[str, Any]) -> None:
    kept = _idle.setdefault(request["host"], [])
    connection = kept.pop() if kept else HTTPConnection(request["host"], timeout=30)
    body = b64decode(request["body"]) or None
    connection.request(request["method"], request["path"], body, request["headers"])
    answer = connection.getresponse()
    said = answer.read()
    if answer.status >= 300 or b'"status":"REJECT"' in said:
        raise RuntimeError(f"{request['method']} {request['path']}: {answer.status} {said[:300]!r}")
    kept.append(connection)
