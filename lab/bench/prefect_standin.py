"""A stand-in for the Prefect API, as a server across the internet: it answers after 20 ms.

Flow runs are kept as the JSON that Prefect sends. Every proposed state is accepted, since nothing
that is measured proposes one that Prefect would refuse; the awkward cases are played on the real
server. The WebSocket for events is included.

`python -m lab.bench.prefect_standin PORT DELAY_SECONDS`
"""

import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import parse_qs, unquote
from uuid import NAMESPACE_URL, uuid4, uuid5

from lab.bench.http_server import Answer, Request, Service, serve
from localcloud.bootstrap import WORK_POOL

DELAY_SECONDS: Final = 0.02

_DEPLOYMENT: Final = {
    "id": str(uuid5(NAMESPACE_URL, "nightly")),
    "name": "nightly",
    "flow_id": str(uuid5(NAMESPACE_URL, "etl")),
}

Json = dict[str, Any]


@dataclass
class PrefectStandIn:
    """A Prefect server's answers to `react`, `sweep` and prefect-aws's observer."""

    runs: dict[str, Json] = field(default_factory=dict)
    states: dict[str, list[Json]] = field(default_factory=dict)
    """All states of each run, the newest last."""
    requests: Counter[str] = field(default_factory=Counter)
    """How often was asked for what: method and first part of the path; of WebSockets, messages."""

    def start(
        self, pid: str, tags: Sequence[str], at: datetime | None = None, run_id: str = ""
    ) -> Json:
        """Have a run RUNNING since `at` (now), in a task of that pid; return it."""
        started_at = at or datetime.now(UTC)
        run_id = run_id or str(uuid4())
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
            "infrastructure_pid": pid,
            "expected_start_time": started_at.isoformat(),
        }
        self.runs[run_id], self.states[run_id] = run, []
        for kind in ("SCHEDULED", "PENDING", "RUNNING"):
            self._enter(run, {"type": kind}, started_at)
        return run

    def handle(self, request: Request) -> Answer:
        """Answer a request; those of the benchmark itself are not counted."""
        method, *parts = [request.method, *unquote(request.path).strip("/").split("/")[1:]]
        body = json.loads(request.body) if request.body else {}
        match parts:
            case ["bench", "runs"]:
                return Answer(201, [self.start(each["pid"], each["tags"]) for each in body])
            case ["bench", "usage"]:
                return Answer(200, {"requests": dict(self.requests)})
        self.requests[f"{method} {parts[0]}"] += 1
        return self._answer_about_a_run(method, parts, request.query, body)

    def on_message(self, text: str) -> str | None:
        """Take a message of the WebSocket for events: a credential, or an event."""
        if json.loads(text).get("type") == "auth":
            self.requests["WS connect"] += 1
            return json.dumps({"type": "auth_success"})
        self.requests["WS event"] += 1
        return None

    def is_due(self, run_id: str) -> bool:
        """Whether a worker would be given the run."""
        due_at = self.runs[run_id]["next_scheduled_start_time"]
        return due_at is not None and datetime.fromisoformat(due_at) <= datetime.now(UTC)

    def _answer_about_a_run(
        self, method: str, parts: Sequence[str], query: str, body: Any
    ) -> Answer:
        match method, *parts:
            case "GET", "flow_runs", run_id:
                return Answer(200, self.runs[run_id])
            case "GET", "flow_run_states":
                return Answer(200, self.states[parse_qs(query)["flow_run_id"][0]])
            case "POST", "flow_runs", "filter":
                return Answer(200, self._find(body))
            case "POST", "flow_runs", run_id, "set_state":
                state = self._enter(self.runs[run_id], body["state"], datetime.now(UTC))
                accepted = {"status": "ACCEPT", "details": {"type": "accept_details"}}
                return Answer(201, {**accepted, "state": state})
            case "PATCH", "flow_runs", run_id, "labels":
                self.runs[run_id]["labels"] |= body
                return Answer(204)
            case "PATCH", "flow_runs", run_id:
                self.runs[run_id] |= body
                return Answer(204)
        return _answer_about_others(method, parts)

    def _enter(self, run: Json, proposed: Mapping[str, Any], at: datetime) -> Json:
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

    def _find(self, body: Json) -> list[Json]:
        """Find runs by id, or as `sweep` does: by state and times. None has children."""
        wanted, limit, offset = body["flow_runs"], body["limit"], body.get("offset", 0)
        if "id" in wanted:
            return [self.runs[run_id] for run_id in wanted["id"]["any_"]]
        if "parent_flow_run_id" in wanted:
            return []
        types, names = wanted["state"]["type"]["any_"], wanted["state"].get("name", {}).get("any_")
        times = {name: wanted.get(name, {}) for name in ("expected_start_time", "end_time")}
        found = [
            run
            for run in self.runs.values()
            if run["state_type"] in types
            and (names is None or run["state_name"] in names)
            and all(_is_within(run[name], bounds) for name, bounds in times.items())
        ]
        by_id = body["sort"] == "ID_DESC"
        found.sort(key=lambda run: run["id" if by_id else "expected_start_time"], reverse=by_id)
        return found[offset : offset + limit]


def _answer_about_others(method: str, parts: Sequence[str]) -> Answer:
    match method, *parts:
        case "POST", "logs" | "artifacts", *_:
            return Answer(201, {})
        case "POST", "events":
            return Answer(204)
        case "GET", "deployments", _:
            return Answer(200, _DEPLOYMENT)
        case "GET", "flows" | "work_pools" as kind, _:
            return Answer(200, {"id": str(uuid5(NAMESPACE_URL, kind)), "name": "etl"})
        case "GET", "csrf-token":
            return Answer(422, {"detail": "CSRF protection is disabled."})
        case "GET", "admin", "version":
            return Answer(200, version("prefect"))
        case "GET", "health":
            return Answer(200, True)
    return Answer(404, {"detail": "Not Found"})


def _is_within(at: str | None, bounds: Mapping[str, str]) -> bool:
    if not bounds:
        return True
    after, before = bounds.get("after_"), bounds.get("before_")
    time = datetime.fromisoformat(at) if at else None
    return (
        time is not None
        and (after is None or datetime.fromisoformat(after) <= time)
        and (before is None or time <= datetime.fromisoformat(before))
    )


if __name__ == "__main__":
    stand_in = PrefectStandIn()
    serve(Service(stand_in.handle, stand_in.on_message, float(sys.argv[2])), int(sys.argv[1]))
