"""The requests that a rescue cannot do without, each with its reason, as bytes to be sent bare.

Requests of one stage do not depend on each other; each stage needs the answer, or the effect, of
the one before. The bytes are those that `react` itself sends when it rescues a run in this process:
one request more or less than this list has, and there is no floor.
"""

from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from chalicelib.functions.react import react
from lab.bench.http_server import Request
from lab.bench.in_process import InProcess
from lab.bench.interruptions import Interruption, exit_of
from lab.tables import Row

TABLE: Final = "the table"
PREFECT: Final = "Prefect"

NEEDED: Final = (
    (1, TABLE, "take the lease", "Prefect cannot compare and swap; the answer is the record"),
    (2, PREFECT, "read its states", "whether this very interruption was handled before"),
    (2, PREFECT, "read the run", "whether it may be rerun, and how often it was"),
    (3, TABLE, "record the interruption", "before the run moves on: else a crash loses the count"),
    (
        4,
        PREFECT,
        "park",
        "Prefect changes only a scheduled run, and no worker may get it meanwhile",
    ),
    (5, PREFECT, "read its states again", "whether the run had ended while it was being parked"),
    (5, PREFECT, "read the run again", "a change replaces whole fields: it needs a fresh read"),
    (6, PREFECT, "change", "the retry that the rerun would take, and the tag"),
    (7, PREFECT, "make due", "the rerun itself"),
    (8, PREFECT, "log", "people look there first"),
    (8, PREFECT, "artifact", "the whole story, on the run"),
    (8, PREFECT, "events", "users' automations wait for them; both in one request"),
    (8, PREFECT, "labels", "runs are searched by them"),
    (9, TABLE, "release the lease", "the next event need not wait, nor annotate a second time"),
)
"""Stage, service, name, and reason, in the order in which one thread sends them."""


def needed() -> list[Row]:
    """Return the list as rows of a table."""
    return [dict(zip(("stage", "to", "request", "because"), row, strict=True)) for row in NEEDED]


class Floor:
    """Makes the requests of a warm rescue, for `bare/requests_alone.py`."""

    def __init__(self) -> None:
        self._sent: list[Request] = []
        self._place = InProcess(self._sent.append)
        react(self._place.context(), exit_of(self._place.begin(Interruption())))

    def event(self, of: Interruption, *, prefect_url: str, aws_url: str) -> Mapping[str, Any]:
        """Return what moves this run from RUNNING to due again, with its annotation.

        Raises:
            ValueError: `react` sends more requests than are needed, or fewer.
        """
        self._place.begin(of)
        self._sent.clear()
        react(self._place.context(), exit_of(of))
        stages: dict[int, list[Mapping[str, Any]]] = {}
        json_headers = {"accept": "application/json", "content-type": "application/json"}
        for (stage, to, *_), request in zip(NEEDED, self._sent, strict=True):
            wire = {
                "method": request.method,
                "host": urlsplit(prefect_url if to == PREFECT else aws_url).netloc,
                "path": request.target,
                "headers": {**request.headers, **json_headers},
                "body": b64encode(request.body).decode(),
            }
            stages.setdefault(stage, []).append(wire)
        return {"stages": list(stages.values())}
