"""A stand-in for the Prefect API, as a server across the internet: it answers after 20 ms.

Not the twin of `tests/twin`: that one speaks the product's port, this one Prefect's JSON, also to
prefect-aws's observer. It accepts every proposed state, since nothing that is measured proposes
one that Prefect would refuse; the awkward cases run on the real server.

`python -m lab.bench.prefect_standin PORT`
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import NAMESPACE_URL, uuid4, uuid5

from lab.bench.http_server import Answer, Request, serve
from localcloud.bootstrap import WORK_POOL

DELAY_SECONDS: Final = 0.02

_DEPLOYMENT: Final = {
    "id": str(uuid5(NAMESPACE_URL, "nightly")),
    "name": "nightly",
    "flow_id": str(uuid5(NAMESPACE_URL, "etl")),
}
_OTHERS: Final[Mapping[str, Answer]] = {
    "GET csrf-token": (422, {"detail": "CSRF protection is disabled."}),
    "GET deployments": (200, _DEPLOYMENT),
    "GET flows": (200, {"id": _DEPLOYMENT["flow_id"], "name": "etl"}),
    "GET work_pools": (200, {"id": str(uuid5(NAMESPACE_URL, WORK_POOL)), "name": WORK_POOL}),
    "GET admin": (200, version("prefect")),
    "GET health": (200, True),
    "POST deployments": (201, _DEPLOYMENT),
    "POST flows": (201, {"id": _DEPLOYMENT["flow_id"]}),
    "POST work_pools": (201, {}),
    "POST logs": (201, {}),
    "POST artifacts": (201, {}),
    "POST events": (204, None),
}
"""Answers that never change, by method and first part of the path."""

Json = dict[str, Any]


@dataclass
class PrefectStandIn:
    """A Prefect server's answers to `react`, `sweep` and prefect-aws's observer."""

    runs: dict[str, Json] = field(default_factory=dict)
    states: dict[str, list[Json]] = field(default_factory=dict)
    """All states of each run, the newest last."""
    requests: Counter[str] = field(default_factory=Counter)
    """By method and first part of the path; of WebSockets, messages."""

    def create(self, tags: Sequence[str], run_id: str, at: datetime) -> Json:
        """Create a run of the deployment, SCHEDULED for that time; return it."""
        run = {
            "id": run_id,
            "name": "measured",
            "flow_id": _DEPLOYMENT["flow_id"],
            "deployment_id": _DEPLOYMENT["id"],
            "work_pool_name": WORK_POOL,
            "run_count": 0,
            "tags": tags,
            "labels": {},
            "job_variables": {},
            "empirical_policy": {"retries": 0, "retry_delay": 0, "retry_type": None},
            "infrastructure_pid": None,
            "expected_start_time": at.isoformat(),
        }
        self.runs[run_id], self.states[run_id] = run, []
        self.enter(run, {"type": "SCHEDULED"}, at)
        return run

    def enter(self, run: Json, proposed: Mapping[str, Any], at: datetime) -> Json:
        """Move a run to a proposed state; return the state."""
        kind, details = proposed["type"], proposed.get("state_details") or {}
        state = {
            "id": str(uuid4()),
            "type": kind,
            "name": proposed.get("name") or kind.title(),
            "timestamp": at.isoformat(),
            "message": proposed.get("message"),
            "state_details": details,
            "data": proposed.get("data"),
        }
        self.states[run["id"]].append(state)
        run |= {
            "state": state,
            "state_id": state["id"],
            "state_type": kind,
            "state_name": state["name"],
            "run_count": run["run_count"] + (kind == "RUNNING"),
            "next_scheduled_start_time": details.get("scheduled_time"),
            "end_time": state["timestamp"] if kind in ("CRASHED", "CANCELLED") else None,
        }
        return state

    def handle(self, request: Request) -> Answer:
        """Answer a request, and count it unless it is the benchmark's own."""
        url = urlsplit(request.target)
        _, *parts = unquote(url.path).strip("/").split("/")
        if parts == ["bench", "usage"]:
            return 200, {"requests": dict(self.requests)}
        kind = f"{request.method} {parts[0]}"
        self.requests[kind] += 1
        match request.method, *parts:
            case "POST", "deployments", _, "create_flow_run":
                return 201, self.create(request.json["tags"], str(uuid4()), datetime.now(UTC))
            case "GET", "flow_runs", run_id:
                return 200, self.runs[run_id]
            case "GET", "flow_run_states":
                return 200, self.states[parse_qs(url.query)["flow_run_id"][0]]
            case "POST", "flow_runs", "filter":
                return 200, self._find(request.json)
            case "POST", "flow_runs", run_id, "set_state":
                state = self.enter(self.runs[run_id], request.json["state"], datetime.now(UTC))
                accepted = {"status": "ACCEPT", "details": {"type": "accept_details"}}
                return 201, {**accepted, "state": state}
            case "PATCH", "flow_runs", run_id, "labels":
                self.runs[run_id]["labels"] |= request.json
                return 204, None
            case "PATCH", "flow_runs", run_id:
                self.runs[run_id] |= request.json
                return 204, None
        return _OTHERS.get(kind, (404, {"detail": "Not Found"}))

    def on_message(self, text: str) -> str | None:
        """Take a message of the WebSocket for events: a credential, or an event."""
        if json.loads(text).get("type") == "auth":
            self.requests["WS connect"] += 1
            return json.dumps({"type": "auth_success"})
        self.requests["WS event"] += 1
        return None

    def _find(self, body: Json) -> list[Json]:
        """Find runs by id, or as `sweep` does: by state and times. No run has children."""
        wanted, limit, offset = body["flow_runs"], body["limit"], body.get("offset", 0)
        if "id" in wanted:
            return [self.runs[run_id] for run_id in wanted["id"]["any_"]]
        if "parent_flow_run_id" in wanted:
            return []
        types, names = wanted["state"]["type"]["any_"], wanted["state"].get("name", {}).get("any_")
        found = [
            run
            for run in self.runs.values()
            if run["state_type"] in types
            and (names is None or run["state_name"] in names)
            and all(
                _is_within(run[name], wanted.get(name))
                for name in ("expected_start_time", "end_time")
            )
        ]
        by_id = body["sort"] == "ID_DESC"
        found.sort(key=lambda run: run["id" if by_id else "expected_start_time"], reverse=by_id)
        return found[offset : offset + limit]


def _is_within(at: str | None, bounds: Mapping[str, str] | None) -> bool:
    """Whether a time is between `after_` and `before_`, where these are given."""
    if not bounds:
        return True
    if at is None:
        return False
    after, before = bounds.get("after_", at), bounds.get("before_", at)
    time = datetime.fromisoformat(at)
    return datetime.fromisoformat(after) <= time <= datetime.fromisoformat(before)


if __name__ == "__main__":
    stand_in = PrefectStandIn()
    serve(
        stand_in.handle,
        int(sys.argv[1]),
        on_message=stand_in.on_message,
        delay_seconds=DELAY_SECONDS,
    )
