"""Prefect's API for the operator: work pools, workers, deployments, runs to start.

Through the Lambdas' HTTP client (`chalicelib/adapters/prefect_client.py`): Prefect's SDK takes two
seconds to import.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from chalicelib.adapters.prefect_answers import Fields, read_list, read_run
from chalicelib.adapters.prefect_api import PrefectRest
from chalicelib.adapters.prefect_client import JsonHttp
from chalicelib.adapters.prefect_work_pools import PrefectWorkPools, if_served
from chalicelib.core.model.flow_run import FlowRun, ProposedState, StateType

PAGE: Final = 200
"""How many objects Prefect returns per request."""

_STARTED_EVENT: Final = "prefect.worker.started"
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker; online: Prefect received a heartbeat lately.

    `last_heartbeat` is in UTC. `version`: the worker's Prefect, empty where it started over a week
    ago.
    """

    name: str
    is_online: bool
    last_heartbeat: datetime | None
    version: str = ""


@dataclass(frozen=True, slots=True)
class WorkPool:
    """A work pool; `template` is its base job template."""

    name: str
    type: str
    status: str
    is_paused: bool
    template: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment; `name` is "flow/deployment", as Prefect's CLI shows it."""

    id: UUID
    name: str
    job_variables: Mapping[str, Any] = field(hash=False)
    tags: tuple[str, ...] = ()
    work_pool: str = ""


class OperatorPrefect:
    """One Prefect API. Every method raises what `adapters/prefect_client.py` raises."""

    def __init__(self, http: JsonHttp) -> None:
        self.runs: Final = PrefectRest(http)
        self._http = http

    def version(self) -> str:
        """Return the server's version; empty where it is not served: Prefect Cloud has none."""
        return PrefectWorkPools(self._http).server_version()

    def work_pool(self, name: str) -> WorkPool | None:
        """Return the pool, None where there is none."""
        fields = self._get(f"/work_pools/{quote(name, safe='')}")
        if fields is None:
            return None
        return WorkPool(
            name=str(fields["name"]),
            type=str(fields["type"]),
            status=str(fields.get("status") or ""),
            is_paused=bool(fields.get("is_paused")),
            template=fields.get("base_job_template") or {},
        )

    def workers(self, pool: str) -> tuple[Worker, ...]:
        """Return the pool's workers, offline ones too, the latest heartbeat first."""
        found = self._filter(f"/work_pools/{quote(pool, safe='')}/workers", {})
        versions = self._versions() if found else {}
        workers = [
            Worker(
                name=str(worker["name"]),
                is_online=worker.get("status") == "ONLINE",
                last_heartbeat=worker.want("last_heartbeat_time", datetime.fromisoformat),
                version=versions.get(str(worker["name"]), ""),
            )
            for worker in found
        ]
        return tuple(sorted(workers, key=lambda w: w.last_heartbeat or _NEVER, reverse=True))

    def deployments(self, pool: str) -> tuple[Deployment, ...]:
        """Return all deployments of a work pool, by name."""
        chosen = {"work_pools": {"name": {"any_": [pool]}}, "sort": "NAME_ASC", "limit": PAGE}
        found: list[Fields] = []
        while page := self._filter("/deployments", {**chosen, "offset": len(found)}):
            found += page
            if len(page) < PAGE:
                break
        return self._with_flow_names(found)

    def deployment(self, name_or_id: str) -> Deployment | None:
        """Return the deployment "flow/deployment", or the one with that id; None for none."""
        flow, slash, name = name_or_id.partition("/")
        path = f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}"
        if not slash:
            try:
                path = f"/deployments/{UUID(name_or_id)}"
            except ValueError:
                return None
        fields = self._get(path)
        return None if fields is None else self._with_flow_names([fields])[0]

    def start(self, deployment: Deployment, tags: Sequence[str]) -> UUID:
        """Create a flow run of the deployment, due now, with its tags and `tags`; return its id."""
        scheduled = {"type": "SCHEDULED", "name": "Scheduled"}
        body = {"state": scheduled, "tags": [*deployment.tags, *tags]}
        path = f"/deployments/{deployment.id}/create_flow_run"
        return UUID(str(_object(self._http.send("POST", path, body, repeatable=False))["id"]))

    def runs_named(self, name: str) -> tuple[FlowRun, ...]:
        """Return the runs of exactly that name, the latest first, `PAGE` at most."""
        chosen = {"name": {"any_": [name]}}
        body = {"flow_runs": chosen, "sort": "EXPECTED_START_TIME_DESC", "limit": PAGE}
        return tuple(map(read_run, self._filter("/flow_runs", body)))

    def children(self, flow_run_id: UUID) -> tuple[FlowRun, ...]:
        """Return the runs of deployments that a run started, `PAGE` at most."""
        parent = {"parent_flow_run_id": {"any_": [str(flow_run_id)]}}
        chosen = {**parent, "deployment_id": {"is_null_": False}}
        body = {"flow_runs": chosen, "sort": "EXPECTED_START_TIME_ASC", "limit": PAGE}
        return tuple(map(read_run, self._filter("/flow_runs", body)))

    def task_runs(self, flow_runs: Sequence[UUID], offset: int) -> list[Fields]:
        """Return a page of the task runs of these runs that have started, by id."""
        body = {
            "flow_runs": {"id": {"any_": list(map(str, flow_runs))}},
            "task_runs": {"start_time": {"after_": "1970-01-01T00:00:00Z"}},
            "sort": "ID_DESC",
            "limit": PAGE,
            "offset": offset,
        }
        return self._filter("/task_runs", body)

    def save_deployment(
        self,
        flow: str,
        name: str,
        pool: str,
        *,
        entrypoint: str,
        pull_steps: Sequence[Mapping[str, Any]],
        job_variables: Mapping[str, Any],
    ) -> Deployment:
        """Create or replace the deployment "flow/name" in a work pool, and its flow; return it."""
        flow_id = _object(self._http.send("POST", "/flows/", {"name": flow}))["id"]
        body = {
            "name": name,
            "flow_id": str(flow_id),
            "work_pool_name": pool,
            "entrypoint": entrypoint,
            "pull_steps": list(pull_steps),
            "job_variables": dict(job_variables),
        }
        return _deployment(_object(self._http.send("POST", "/deployments/", body)), flow)

    def cancel(self, flow_run_id: UUID, message: str) -> None:
        """Set a run Cancelled, whatever its state; it does not stop the task."""
        cancelled = ProposedState(StateType.CANCELLED, "Cancelled", message)
        self.runs.propose_state(flow_run_id, cancelled, force=True)

    def delete_work_pool(self, name: str) -> None:
        """Delete the pool with its queues and scheduled runs."""
        self._http.send("DELETE", f"/work_pools/{quote(name, safe='')}", None)

    def _versions(self) -> Mapping[str, str]:
        """Each worker's Prefect version, by name, from the event of its latest start.

        The server has the version nowhere else, and keeps events for a week. Empty where it does
        not serve them, or not to us.
        """
        body = {"filter": {"event": {"name": [_STARTED_EVENT]}, "order": "DESC"}, "limit": 50}
        answer = if_served(lambda: self._http.send("POST", "/events/filter", body))
        events = [] if answer is None else _objects(_object(answer)["events"])
        newest_first = [event.get("resource") or {} for event in events]
        return {
            str(worker.get("prefect.resource.name")): str(worker.get("prefect.version") or "")
            for worker in reversed(newest_first)
        }

    def _with_flow_names(self, found: Sequence[Mapping[str, Any]]) -> tuple[Deployment, ...]:
        flow_ids = sorted({str(fields["flow_id"]) for fields in found})
        flows: dict[str, str] = {}
        for start in range(0, len(flow_ids), PAGE):
            body = {"flows": {"id": {"any_": flow_ids[start : start + PAGE]}}, "limit": PAGE}
            flows.update((str(f["id"]), str(f["name"])) for f in self._filter("/flows", body))
        return tuple(_deployment(fields, flows.get(str(fields["flow_id"]), "")) for fields in found)

    def _get(self, path: str) -> Fields | None:
        found = self._http.get(path)
        return None if found is None else _object(found)

    def _filter(self, path: str, body: Mapping[str, Any]) -> list[Fields]:
        return _objects(self._http.send("POST", f"{path}/filter", body))


def _deployment(fields: Mapping[str, Any], flow: str) -> Deployment:
    return Deployment(
        id=UUID(str(fields["id"])),
        name=f"{flow}/{fields['name']}",
        job_variables=fields.get("job_variables") or {},
        tags=tuple(map(str, fields.get("tags") or ())),
        work_pool=str(fields.get("work_pool_name") or ""),
    )


def _object(value: object) -> Fields:
    return Fields(value, "answer")


def _objects(value: object) -> list[Fields]:
    return list(map(_object, read_list(value, "answer")))
