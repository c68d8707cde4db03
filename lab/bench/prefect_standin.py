"""A stand-in for the Prefect API, as a server across the internet: it answers after 20 ms.

Not the twin of `tests/twin`: that one speaks the product's port, this one Prefect's JSON, also to
prefect-aws's observer. It accepts every proposed state, since nothing that is measured proposes
one that Prefect would refuse; the awkward cases run on the real server.

`python -m lab.bench.prefect_standin PORT AGE_SECONDS`
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any, Final
from uuid import uuid4

from starlette.requests import Request

from lab.bench.http_server import Answer, serve
from localcloud.bootstrap import WORK_POOL

DELAY_SECONDS: Final = 0.02

_FLOW: Final = {"id": str(uuid4()), "name": "etl"}
_DEPLOYMENT: Final = {
    "id": str(uuid4()),
    "name": "nightly",
    "flow_id": _FLOW["id"],
    "job_variables": {},
}
_POOL: Final = {"id": str(uuid4()), "name": WORK_POOL, "base_job_template": {}}
_OTHERS: Final[Mapping[str, Answer]] = {
    "GET csrf-token": (422, {"detail": "CSRF protection is disabled."}),
    "GET deployments": (200, _DEPLOYMENT),
    "GET flows": (200, _FLOW),
    "GET work_pools": (200, _POOL),
    "GET admin": (200, version("prefect")),
    "GET health": (200, True),
    "POST deployments": (201, _DEPLOYMENT),
    "POST flows": (201, _FLOW),
    "POST work_pools": (201, {}),
    "POST task_runs": (200, []),
    "POST logs": (201, {}),
    "POST artifacts": (201, {}),
    "POST events": (204, None),
}
"""Answers that never change, by method and first part of the path."""

Json = dict[str, Any]


@dataclass
class PrefectStandIn:
    """A Prefect server's answers to `react`, `sweep` and prefect-aws's observer.

    `age`: by so much the clock of its runs and states is slow, as if they were older.
    """

    age: timedelta
    runs: dict[str, Json] = field(default_factory=dict)
    states: dict[str, list[Json]] = field(default_factory=dict)
    """All states of each run, the newest last."""

    async def answer(self, request: Request, body: Any) -> Answer:
        """Answer a request."""
        _, *parts = request.url.path.strip("/").split("/")
        match request.method, *parts:
            case "POST", "bench", "runs":
                return 200, [self._begin(**each) for each in body]
            case "POST", "deployments", _, "create_flow_run":
                return 201, self._create(body["tags"])
            case "GET", "flow_runs", run_id:
                return 200, self.runs[run_id]
            case "GET", "flow_run_states":
                return 200, self.states[request.query_params["flow_run_id"]]
            case "POST", "flow_runs", "filter":
                return 200, self._find(body)
            case "POST", "flow_runs", run_id, "set_state":
                state = self._enter(self.runs[run_id], body["state"])
                accepted = {"status": "ACCEPT", "details": {"type": "accept_details"}}
                return 201, {**accepted, "state": state}
            case "PATCH", "flow_runs", run_id, "labels":
                self.runs[run_id]["labels"] |= body
                return 204, None
            case "PATCH", "flow_runs", run_id:
                self.runs[run_id] |= body
                return 204, None
        return _OTHERS.get(f"{request.method} {parts[0]}", (404, {"detail": "Not Found"}))

    def _create(self, tags: Sequence[str]) -> Json:
        """Create a run of the deployment, SCHEDULED for now; return it."""
        run_id = str(uuid4())
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
            "expected_start_time": self._now(),
        }
        self.runs[run_id], self.states[run_id] = run, []
        self._enter(run, {"type": "SCHEDULED"})
        return run

    def _begin(self, tags: Sequence[str], pid: str) -> str:
        """Create a run that is RUNNING in a task; return its id."""
        run = self._create(tags)
        self._enter(run, {"type": "PENDING"})
        run["infrastructure_pid"] = pid
        self._enter(run, {"type": "RUNNING"})
        return str(run["id"])

    def _now(self) -> str:
        return (datetime.now(UTC) - self.age).isoformat()

    def _enter(self, run: Json, proposed: Mapping[str, Any]) -> Json:
        """Move a run to a proposed state; return the state."""
        kind, details = proposed["type"], proposed.get("state_details") or {}
        state = {
            "id": str(uuid4()),
            "type": kind,
            "name": proposed.get("name") or kind.title(),
            "timestamp": self._now(),
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

    def _find(self, body: Json) -> list[Json]:
        """Find runs by id, or as `sweep` does: by state and times. No run has children."""
        wanted, limit, offset = body["flow_runs"], body["limit"], body.get("offset", 0)
        if "id" in wanted:
            return [self.runs[run_id] for run_id in wanted["id"]["any_"]]
        if "parent_flow_run_id" in wanted:
            return []
        types, names = wanted["state"]["type"]["any_"], wanted["state"].get("name", {}).get("any_")
        times = ("expected_start_time", "end_time")
        found = [
            run
            for run in self.runs.values()
            if run["state_type"] in types
            and (names is None or run["state_name"] in names)
            and all(_is_within(run[name], wanted.get(name, {})) for name in times)
        ]
        by_id = body["sort"] == "ID_DESC"
        found.sort(key=lambda run: run["id" if by_id else "expected_start_time"], reverse=by_id)
        return found[offset : offset + limit]


def _is_within(at: str | None, bounds: Mapping[str, str]) -> bool:
    """Whether a time is between `after_` and `before_`, where these are given."""
    if at is None:
        return not bounds
    in_order = [bounds.get("after_", at), at, bounds.get("before_", at)]
    return in_order == sorted(in_order, key=datetime.fromisoformat)


def _reply(message: Json) -> Json | None:
    """Accept any credential; an event gets no reply."""
    return {"type": "auth_success"} if message.get("type") == "auth" else None


if __name__ == "__main__":
    port, age_seconds = map(int, sys.argv[1:])
    stand_in = PrefectStandIn(timedelta(seconds=age_seconds))
    serve(port, stand_in.answer, reply=_reply, delay_seconds=DELAY_SECONDS)
