"""A Lambda that issues the requests it is given, bare: no logic, connections kept alive.

Its event holds the hosts by name, and stages, each of them requests that do not depend on each
other: those go at the same time, the stages one after the other.
"""

from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any

_threads = ThreadPoolExecutor(6)
_idle: dict[str, list[HTTPConnection]] = {}


def handler(event: dict[str, Any], _context: object) -> int:
    """Issue all requests; return how many they were. Raises RuntimeError when one is refused."""
    for stage in event["stages"]:
        if len(stage) == 1:
            _send(event["hosts"], stage[0])
        else:
            list(_threads.map(lambda request: _send(event["hosts"], request), stage))
    return sum(map(len, event["stages"]))


def _send(hosts: dict[str, str], request: dict[str, Any]) -> None:
    host = hosts[request["to"]]
    kept = _idle.setdefault(host, [])
    connection = kept.pop() if kept else HTTPConnection(host, timeout=30)
    body = request["body"].encode() or None
    headers = {"accept": "application/json", "content-type": "application/json"}
    if request["x-amz-target"]:
        headers["x-amz-target"] = request["x-amz-target"]
    connection.request(request["method"], request["path"], body, headers)
    answer = connection.getresponse()
    content = answer.read()
    if answer.status >= 300 or b'"status":"REJECT"' in content:
        said = f"{answer.status} {content[:300]!r}"
        raise RuntimeError(f"{request['method']} {request['path']}: {said}")
    kept.append(connection)
