"""What workers, engines and people do on a real Prefect server, by plain requests.

Never by our adapter: what that wrote is to be seen by other eyes. The states are those that
Prefect's SDK and UI send.
"""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import httpx
from prefect_aws.workers import ECSWorker

from chalicelib.core.model.flow_run import ProposedState, RunState, StateType
from localcloud.cloud import wait_for
from localcloud.prefect_api import PrefectApi
from tests.twin.prefect import RUNNING, Hands
from tests.twin.work_pools import PoolSeen

PREFETCH = timedelta(seconds=10)
EVENT_SECONDS = 30.0
HOUR = timedelta(hours=1)
RESULT = {"storage_key": "result", "prefect_version": "3.4.0"}
"""What a state holds of a persisted result."""


class RealPrefect(Hands):
    """What `InMemoryPrefect` and `InMemoryWorkPools` do beside their ports, on a real server.

    Tests of a server share one work pool and one deployment: making these costs 0.2 s each.
    """

    def __init__(self, api_url: str, auth_string: str | None, *, csrf: bool = False) -> None:
        self.clock = partial(datetime.now, UTC)
        self.api_url, self.auth_string = api_url, auth_string
        self.api = PrefectApi(api_url, auth_string, csrf=csrf)
        self.work_pool_name = self.create_work_pool()
        self._flow_id = self.api.send("POST", "/flows/", {"name": "etl"})["id"]
        self._deployment_id = self.create_deployment()

    def create_work_pool(self, **defaults: object) -> str:
        name, template = f"pool-{uuid4()}", deepcopy(ECSWorker.get_default_base_job_template())
        for variable, default in defaults.items():
            template["variables"]["properties"][variable]["default"] = default
        self.create_pool(name, template=template)
        return name

    def create_deployment(
        self,
        *,
        concurrency_limit: int | None = None,
        collision: str = "ENQUEUE",
        work_pool: str | None = None,
        job_variables: Mapping[str, object] | None = None,
    ) -> UUID:
        body = {
            "flow_id": self._flow_id,
            "name": f"deployment-{uuid4()}",
            "work_pool_name": work_pool or self.work_pool_name,
            "job_variables": {"image": "etl:1", **(job_variables or {})},
            "concurrency_limit": concurrency_limit,
            "concurrency_options": {"collision_strategy": collision},
        }
        return UUID(self.api.send("POST", "/deployments/", body)["id"])

    def delete_deployment(self, deployment_id: UUID) -> None:
        self.api.send("DELETE", f"/deployments/{deployment_id}")

    def create_run(
        self,
        *,
        deployed: bool = True,
        deployment_id: UUID | None = None,
        job_variables: Mapping[str, object] | None = None,
        tags: Sequence[str] = (),
        parent_run_id: UUID | None = None,
        due: datetime | None = None,
    ) -> UUID:
        body: dict[str, Any] = {"tags": list(tags)}
        if parent_run_id is not None:
            body["parent_task_run_id"] = self._create_task_run(parent_run_id, "PENDING")
        if not deployed:
            body |= {"flow_id": self._flow_id, "state": _state("PENDING")}
            return UUID(self.api.send("POST", "/flow_runs/", body)["id"])
        body["job_variables"] = dict(job_variables or {})
        body["state"] = _state("SCHEDULED", state_details=_at(due or datetime.now(UTC)))
        return UUID(self.api.start(str(deployment_id or self._deployment_id), **body))

    def create_child(self, parent_run_id: UUID) -> UUID:
        flow_run_id = self.create_run(deployed=False, parent_run_id=parent_run_id)
        self.engine_starts(flow_run_id)
        return flow_run_id

    def is_due(self, flow_run_id: UUID) -> bool:
        pool = self.api.run(str(flow_run_id))["work_pool_name"] or self.work_pool_name
        before = {"scheduled_before": (datetime.now(UTC) + PREFETCH).isoformat()}
        given = self.api.send("POST", f"/work_pools/{pool}/get_scheduled_flow_runs", before)
        return str(flow_run_id) in [answer["flow_run"]["id"] for answer in given]

    def worker_picks_up(self, flow_run_id: UUID, pid: str | None = None) -> RunState:
        assert self.is_due(flow_run_id), "no worker is given this run"
        state = self.move(flow_run_id, ProposedState(StateType.PENDING, "Pending"))
        if pid is not None and state.type is StateType.PENDING:
            self._change(flow_run_id, infrastructure_pid=pid)
        return state

    def engine_starts(
        self, flow_run_id: UUID, *, retries: int = 0, retry_delay: int = 0
    ) -> RunState:
        """What `prefect/flow_engine.py` does before it proposes RUNNING."""
        policy = self.api.run(str(flow_run_id))["empirical_policy"]
        for key, value in (("retries", retries), ("retry_delay", retry_delay)):
            policy[key] = value if policy[key] is None else policy[key]
        self._change(flow_run_id, empirical_policy=policy)
        return self.move(flow_run_id, RUNNING)

    def resume(self, flow_run_id: UUID) -> RunState:
        self.api.resume(str(flow_run_id))
        return self._state_of(flow_run_id)

    def run_task(
        self,
        flow_run_id: UUID,
        kind: StateType = StateType.RUNNING,
        *,
        persisted: bool = False,
        cached: bool = False,
        tags: Sequence[str] = (),
    ) -> None:
        """An engine makes it known by events: the end-to-end tests have those."""
        task_run_id = self._create_task_run(flow_run_id, "RUNNING", tags)
        if kind is not StateType.RUNNING:
            name = "Cached" if cached else kind.value.title()
            data = RESULT if persisted or cached else None
            body = {"state": _state(kind.value, name=name, data=data), "force": True}
            self.api.send("POST", f"/task_runs/{task_run_id}/set_state", body)

    def create_tag_limit(self) -> str:
        """A tag of which one task run at a time may run."""
        tag = f"tag-{uuid4()}"
        body = {"name": f"tag:{tag}", "limit": 1, "active": True}
        self.api.send("POST", "/v2/concurrency_limits/", body)
        return tag

    def take_slot(self, tag: str, task_run_id: UUID) -> bool:
        """What an engine does before a task starts; whether there was a slot."""
        body = {
            "slots": 1,
            "names": [f"tag:{tag}"],
            "mode": "concurrency",
            "lease_duration": 300,
            "holder": {"type": "task_run", "id": str(task_run_id)},
        }
        try:
            self.api.send("POST", "/v2/concurrency_limits/increment-with-lease", body)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.LOCKED:
                raise
            return False
        return True

    def table(self, key: str) -> list[object]:
        newest = self._artifacts({"key": {"any_": [key]}})[-1]
        assert newest["type"] == "table"
        return list(json.loads(newest["data"]))

    def logs_of(self, flow_run_id: UUID) -> list[tuple[int, str]]:
        return [(log["level"], log["message"]) for log in self.api.logs(str(flow_run_id))]

    def artifacts_of(self, flow_run_id: UUID) -> list[tuple[str, str]]:
        found = self._artifacts({"flow_run_id": {"any_": [str(flow_run_id)]}})
        return [(artifact["key"], artifact["data"]) for artifact in found]

    def events_of(self, flow_run_id: UUID, *, at_least: int = 1) -> list[tuple[UUID, str]]:
        """The run's events of ours; the server stores them a few seconds after it took them."""

        def ours() -> list[tuple[UUID, str]] | None:
            found = [(UUID(e["id"]), str(e["event"])) for e in self.api.events(str(flow_run_id))]
            of_ours = [event for event in found if event[1].startswith("prefect-spot.")]
            return of_ours if len(of_ours) >= at_least else None

        return sorted(wait_for("the events", EVENT_SECONDS, ours), key=lambda event: event[1])

    def labels_of(self, flow_run_id: UUID) -> Mapping[str, object]:
        return dict(self.api.run(str(flow_run_id))["labels"])

    def add_null_label(self, flow_run_id: UUID) -> None:
        self.api.send("PATCH", f"/flow_runs/{flow_run_id}/labels", {"team": None})

    def create_pool(self, name: str, *, kind: str = "ecs", template: Mapping[str, Any]) -> None:
        body = {"name": name, "type": kind, "base_job_template": template}
        self.api.send("POST", "/work_pools/", body)

    def settle(self, name: str, *, concurrency_limit: int, description: str) -> None:
        body = {"concurrency_limit": concurrency_limit, "description": description}
        self.api.send("PATCH", f"/work_pools/{name}", {**body, "is_paused": True})
        queue = {"name": "urgent", "concurrency_limit": 2}
        self.api.send("POST", f"/work_pools/{name}/queues", queue)

    def look(self, name: str) -> PoolSeen:
        pool = self.api.send("GET", f"/work_pools/{name}")
        queues = self.api.send("POST", f"/work_pools/{name}/queues/filter", {})
        return PoolSeen(
            type=pool["type"],
            base_job_template=pool["base_job_template"],
            concurrency_limit=pool["concurrency_limit"],
            is_paused=pool["is_paused"],
            description=pool["description"],
            queues={queue["name"]: queue["concurrency_limit"] for queue in queues},
        )

    def _artifacts(self, chosen: object) -> list[dict[str, Any]]:
        """The oldest first."""
        found = self.api.send("POST", "/artifacts/filter", {"artifacts": chosen})
        return sorted(found, key=lambda artifact: str(artifact["created"]))

    def _create_task_run(self, flow_run_id: UUID, kind: str, tags: Sequence[str] = ()) -> str:
        body = {
            "flow_run_id": str(flow_run_id),
            "task_key": "load",
            "dynamic_key": str(uuid4()),
            "tags": list(tags),
        }
        return str(self.api.send("POST", "/task_runs/", {**body, "state": _state(kind)})["id"])

    def _change(self, flow_run_id: UUID, **fields: object) -> None:
        self.api.send("PATCH", f"/flow_runs/{flow_run_id}", fields)

    def move(
        self, flow_run_id: UUID, proposed: ProposedState, *, persisted: bool = False
    ) -> RunState:
        details = dict(proposed.details)
        if proposed.type is StateType.SCHEDULED:
            details |= _at(self.clock())
        body = {"name": proposed.name, "message": proposed.message or None}
        data = RESULT if persisted else None
        state = _state(proposed.type.value, **body, state_details=details, data=data)
        self.api.set_state(str(flow_run_id), state)
        return self._state_of(flow_run_id)

    def _state_of(self, flow_run_id: UUID) -> RunState:
        state = self.api.run(str(flow_run_id))["state"]
        return RunState(
            id=UUID(state["id"]),
            type=StateType(state["type"]),
            name=state["name"],
            timestamp=datetime.fromisoformat(state["timestamp"]),
            message=state["message"] or "",
        )


def _state(kind: str, **fields: object) -> dict[str, object]:
    return {"type": kind, "name": kind.title(), **fields}


def _at(time: datetime) -> dict[str, str]:
    return {"scheduled_time": time.isoformat()}
