"""What each request of a rescue costs a Prefect server: where its time goes, on either side.

A server is one process, and does one thing at a time: what a request costs it in CPU seconds is
what all others wait for.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from bench.http_client import Http
from bench.servers import FreshPrefect
from bench.usage import cpu_seconds

RUNS: Final = 31
"""Each kind of request is sent once on each of them; on the first one only to warm the server."""

SETTLE_SECONDS: Final = 1.0
"""For what a server does after it has answered."""

Send = Callable[[Http, str], object]


@dataclass(frozen=True)
class Kind:
    """A kind of request; how often a rescue sends it, on Spot and to FARGATE, and the observer."""

    name: str
    send: Send
    on_spot: int
    to_fargate: int
    observer: int
    reads: bool = False


def _set_state(kind: str, name: str, ahead: timedelta = timedelta(0)) -> Send:
    def send(http: Http, run_id: str) -> object:
        details = {"transition_id": str(uuid4())}
        if kind == "SCHEDULED":
            details["scheduled_time"] = (datetime.now(UTC) + ahead).isoformat()
        state = {"type": kind, "name": name, "message": "Spot", "state_details": details}
        return http.send("POST", f"/flow_runs/{run_id}/set_state", {"state": state})

    return send


def _patch(path: str, body: Mapping[str, Any]) -> Send:
    return lambda http, run_id: http.send("PATCH", f"/flow_runs/{run_id}{path}", body)


def _log(http: Http, run_id: str) -> object:
    line = {"name": "bench", "level": 30, "message": "Spot", "flow_run_id": run_id}
    return http.send("POST", "/logs/", [{**line, "timestamp": datetime.now(UTC).isoformat()}])


def _artifact(http: Http, run_id: str) -> object:
    body = {"key": f"spot-{run_id[:8]}", "type": "markdown", "data": "| a | b |", "description": ""}
    return http.send("POST", "/artifacts/", {**body, "flow_run_id": run_id})


def _event(http: Http, run_id: str) -> object:
    event = {
        "id": str(uuid4()),
        "occurred": datetime.now(UTC).isoformat(),
        "event": "prefect-spot.rerun",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run_id}"},
        "related": [],
        "payload": {},
    }
    return http.send("POST", "/events", [event])


_POLICY: Final = {"empirical_policy": {"retries": 1, "retry_type": None}, "tags": ["a"]}
_ON_DEMAND: Final = {"job_variables": {"launch_type": "FARGATE", "capacity_provider_strategy": []}}

KINDS: Final = (
    Kind("read the run", lambda http, run: http.get(f"/flow_runs/{run}"), 2, 2, 1, reads=True),
    Kind(
        "read its past states",
        lambda http, run: http.get(f"/flow_run_states/?flow_run_id={run}"),
        2,
        2,
        0,
        reads=True,
    ),
    Kind("set the state, parked", _set_state("SCHEDULED", "AwaitingRetry", timedelta(1)), 1, 1, 0),
    Kind("change retries and tags", _patch("", _POLICY), 1, 0, 0),
    Kind("change job variables too", _patch("", {**_POLICY, **_ON_DEMAND}), 0, 1, 0),
    Kind("set the state, due", _set_state("SCHEDULED", "AwaitingRetry"), 1, 1, 0),
    Kind("add labels", _patch("/labels", {"prefect-spot.interruptions": 1}), 1, 1, 0),
    Kind("write a log line", _log, 1, 1, 1),
    Kind("write an artifact", _artifact, 1, 1, 0),
    Kind("emit events", _event, 1, 1, 1),
    Kind("set the state, Crashed", _set_state("CRASHED", "Crashed"), 0, 0, 1),
)
"""In this order they can be sent on one run."""


def measure(prefect: FreshPrefect) -> Mapping[str, float]:
    """Return the server's CPU seconds per request, by kind, what it does afterwards included."""
    first, *ids = [victim.run_id for victim in prefect.victims]
    for kind in KINDS:
        kind.send(prefect.http, first)
    found = {}
    for kind in KINDS:
        before = cpu_seconds(prefect.processes())
        for run_id in ids:
            kind.send(prefect.http, run_id)
        time.sleep(SETTLE_SECONDS)
        found[kind.name] = (cpu_seconds(prefect.processes()) - before) / len(ids)
    return found
