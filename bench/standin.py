"""A stand-in for the Prefect API, as a server across the internet: it answers after 20 ms.

It is the tests' in-memory twin behind HTTP, which has passed the contract suite (`tests/contract`),
as far as `react`, `sweep` and prefect-aws's observer ask; the WebSocket for events included.

`python -m bench.standin PORT DELAY_SECONDS`
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import parse_qs, unquote
from uuid import NAMESPACE_URL, UUID, uuid5

from bench.http_server import Answer, Request, Service, serve
from bench.prefect_json import (
    FLOW_ID,
    FLOW_NAME,
    answer_json,
    read_change,
    read_proposal,
    read_query,
    read_time,
    run_json,
    state_json,
)
from chalicelib.core.ports import Artifact, LogLine, PrefectEvent
from chalicelib.core.run import StateVerdict
from chalicelib.errors import PrefectConflictError, PrefectRejectedError
from tests.twin.orchestration import TwinRun
from tests.twin.prefect import InMemoryPrefect

DELAY_SECONDS: Final = 0.02

_API: Final = "/api/"
_OURS: Final = "prefect-spot."
_RUN_RESOURCE: Final = "prefect.flow-run."

Json = Mapping[str, Any]


@dataclass
class StandIn:
    """A Prefect server's answers, out of the twin."""

    twin: InMemoryPrefect
    requests: Counter[str] = field(default_factory=Counter)
    """How often was asked for what: method and path, ids left out; of WebSockets, messages."""

    def __post_init__(self) -> None:
        self._deployment = self.twin.create_deployment()

    def handle(self, request: Request) -> Answer:
        """Answer a request as Prefect does."""
        path = request.path.removeprefix(_API)
        if path.startswith("standin/"):
            return self._answer_bench(path.removeprefix("standin/"), request)
        parts = [unquote(part) for part in path.strip("/").split("/")]
        self.requests[f"{request.method} {'/'.join(p for p in parts if not _is_id(p))}"] += 1
        body = json.loads(request.body) if request.body else {}
        try:
            return self._answer(request.method, parts, request.query, body)
        except PrefectConflictError as error:
            return _refusal(409, error.what)
        except PrefectRejectedError as error:
            return _refusal(404 if "not found" in error.what else 422, error.what)

    def on_message(self, text: str) -> str | None:
        """Take a message of the WebSocket for events: a credential, or an event."""
        if json.loads(text).get("type") == "auth":
            self.requests["WS connect"] += 1
            return json.dumps({"type": "auth_success"})
        self.requests["WS event"] += 1
        return None

    def _answer(self, method: str, parts: Sequence[str], query: str, body: Any) -> Answer:
        match method, *parts:
            case "GET", "flow_runs", run_id:
                run = self.twin.runs.get(UUID(run_id))
                self.twin.read_run(UUID(run_id))
                return Answer(200, run_json(run)) if run else _unknown("Flow run")
            case "GET", "flow_run_states":
                run_id = parse_qs(query)["flow_run_id"][0]
                return Answer(200, [state_json(x) for x in self.twin.read_history(UUID(run_id))])
            case "POST", "flow_runs", run_id, "set_state":
                proposed = read_proposal(body["state"])
                answer = self.twin.propose_state(
                    UUID(run_id), proposed, force=bool(body.get("force"))
                )
                is_new = answer.verdict is StateVerdict.ACCEPT
                return Answer(201 if is_new else 200, answer_json(answer))
            case "POST", "flow_runs", "filter":
                return Answer(200, [run_json(run) for run in self._find(body)])
            case "PATCH", "flow_runs", run_id, "labels":
                self.twin.add_labels(UUID(run_id), body)
                return Answer(204)
            case "PATCH", "flow_runs", run_id:
                self.twin.change_run(UUID(run_id), read_change(body))
                return Answer(204)
        return self._answer_about_others(method, parts, body)

    def _answer_about_others(self, method: str, parts: Sequence[str], body: Any) -> Answer:
        """Answer what is not about a flow run's state."""
        match method, *parts:
            case "POST", "logs":
                self._write_logs(body)
                return Answer(201)
            case "POST", "artifacts":
                self._write_artifact(body)
                return Answer(201, {"key": body["key"]})
            case "POST", "events":
                self._take_events(body)
                return Answer(204)
            case "GET", "deployments", deployment_id:
                name = self.twin.read_deployment_name(UUID(deployment_id)).partition("/")[2]
                known = {"id": deployment_id, "name": name, "flow_id": str(FLOW_ID)}
                return Answer(200, known) if name else _unknown("Deployment")
            case "GET", "flows", flow_id:
                return Answer(200, {"id": flow_id, "name": FLOW_NAME})
        return self._answer_about_the_server(method, parts)

    def _answer_about_the_server(self, method: str, parts: Sequence[str]) -> Answer:
        match method, *parts:
            case "GET", "work_pools", name:
                return Answer(200, {"id": str(uuid5(NAMESPACE_URL, name)), "name": name})
            case "GET", "csrf-token":
                return _refusal(422, "CSRF protection is disabled.")
            case "GET", "admin", "version":
                return Answer(200, version("prefect"))
            case "GET", "health":
                return Answer(200, True)
        return _refusal(404, "Not Found")

    def _find(self, body: Json) -> list[TwinRun]:
        chosen = body["flow_runs"]
        if "id" in chosen:
            return [self.twin.runs[UUID(run_id)] for run_id in chosen["id"]["any_"]]
        if "parent_flow_run_id" in chosen:
            parents = [UUID(parent) for parent in chosen["parent_flow_run_id"]["any_"]]
            found = sorted(self.twin.find_live_children(parents), key=lambda run: -run.id.int)
            ids = [run.id for run in found[body["offset"] : body["offset"] + body["limit"]]]
        else:
            ids = [run.id for run in self.twin.find_runs(read_query(body))]
        return [self.twin.runs[run_id] for run_id in ids]

    def _write_logs(self, body: Sequence[Json]) -> None:
        for line in body:
            self.twin.write_log(
                LogLine(
                    UUID(line["flow_run_id"]),
                    read_time(line["timestamp"]),
                    line["message"],
                    line["level"],
                )
            )

    def _write_artifact(self, body: Json) -> None:
        run_id = UUID(body["flow_run_id"])
        self.twin.write_artifact(Artifact(run_id, body["key"], body["data"], body["description"]))

    def _take_events(self, body: Sequence[Json]) -> None:
        """Keep those of ours; the twin knows no others."""
        ours = [event for event in body if event["event"].startswith(_OURS)]
        self.twin.emit_events(list(map(_run_event, ours)))

    def _answer_bench(self, name: str, request: Request) -> Answer:
        """Answer the benchmark itself: what is asked here is not counted."""
        match name:
            case "runs":
                return Answer(201, [self._start(run) for run in json.loads(request.body)])
            case "usage":
                usage = {"requests": dict(self.requests), "cpu_seconds": time.process_time()}
                return Answer(200, usage)
        return _refusal(404, "Not Found")

    def _start(self, wanted: Json) -> Json:
        """Have a run of the one deployment RUNNING, in a task of that pid that starts now."""
        run_id = self.twin.create_run(
            deployment_id=self._deployment,
            job_variables=wanted.get("job_variables"),
            tags=wanted.get("tags", ()),
        )
        self.twin.worker_picks_up(run_id, wanted["infrastructure_pid"])
        started_at = datetime.now(UTC)
        self.twin.engine_starts(run_id, retries=wanted.get("retries", 0))
        return {"id": str(run_id), "task_started_at": started_at.isoformat()}


def service_of(stand_in: StandIn, delay_seconds: float = DELAY_SECONDS) -> Service:
    """Return what answers as the stand-in does, so late."""
    return Service(stand_in.handle, stand_in.on_message, delay_seconds)


def make_stand_in() -> StandIn:
    """Return one with no runs."""
    return StandIn(InMemoryPrefect(lambda: datetime.now(UTC)))


def _run_event(event: Json) -> PrefectEvent:
    resource = event["resource"]
    return PrefectEvent(
        UUID(event["id"]),
        UUID(resource["prefect.resource.id"].removeprefix(_RUN_RESOURCE)),
        resource.get("prefect.resource.name", ""),
        event["event"],
        read_time(event["occurred"]),
        event["payload"],
    )


def _is_id(part: str) -> bool:
    return len(part) == 36 and part.count("-") == 4


def _refusal(status: int, detail: str) -> Answer:
    return Answer(status, {"detail": detail})


def _unknown(thing: str) -> Answer:
    return _refusal(404, f"{thing} not found")


if __name__ == "__main__":
    serve(service_of(make_stand_in(), float(sys.argv[2])), int(sys.argv[1]))
