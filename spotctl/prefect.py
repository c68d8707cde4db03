"""Prefect's API for the operator: work pools, workers, deployments, runs to start.

Through the Lambdas' HTTP client (`chalicelib/adapters/prefect_client.py`): Prefect's SDK takes two
seconds to import.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from chalicelib.adapters.prefect_answers import read_fields
from chalicelib.adapters.prefect_api import PrefectRest
from chalicelib.adapters.prefect_client import CHECK_API_URL, Authorization, JsonHttp
from chalicelib.core.model.flow_run import ProposedState, StateType
from chalicelib.errors import PrefectUnavailableError

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

    def __init__(
        self,
        api_url: str,
        authorization: Authorization,
        deadline: Callable[[], float],
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`deadline` returns how many seconds one request may take, its retries included."""
        self.runs: Final = PrefectRest(api_url, authorization, deadline, sleep=sleep)
        self._http = JsonHttp(api_url, authorization, deadline, sleep=sleep)

    def version(self) -> str:
        """Return the server's version."""
        version = self._http.get("/admin/version")
        if not isinstance(version, str):
            raise PrefectUnavailableError(
                "Prefect's answer contains no version", next_step=CHECK_API_URL
            )
        return version

    def work_pool(self, name: str) -> WorkPool | None:
        """Return the pool, None where there is none."""
        found = self._http.get(f"/work_pools/{quote(name, safe='')}")
        if found is None:
            return None
        fields = _object(found)
        return WorkPool(
            name=str(fields["name"]),
            type=str(fields["type"]),
            status=str(fields.get("status") or ""),
            is_paused=bool(fields.get("is_paused")),
            template=fields.get("base_job_template") or {},
        )

    def workers(self, pool: str) -> tuple[Worker, ...]:
        """Return the pool's workers, offline ones too, the latest heartbeat first."""
        path = f"/work_pools/{quote(pool, safe='')}/workers/filter"
        found = [_object(worker) for worker in _list(self._http.send("POST", path, {}))]
        versions = self._versions() if found else {}
        workers = [
            Worker(
                name=str(worker["name"]),
                is_online=worker.get("status") == "ONLINE",
                last_heartbeat=_time(worker.get("last_heartbeat_time")),
                version=versions.get(str(worker["name"]), ""),
            )
            for worker in found
        ]
        return tuple(sorted(workers, key=lambda w: w.last_heartbeat or _NEVER, reverse=True))

    def deployments(self, pool: str) -> tuple[Deployment, ...]:
        """Return all deployments of a work pool, by name."""
        found: list[Mapping[str, Any]] = []
        more = True
        while more:
            body = {
                "work_pools": {"name": {"any_": [pool]}},
                "sort": "NAME_ASC",
                "limit": PAGE,
                "offset": len(found),
            }
            page = _list(self._http.send("POST", "/deployments/filter", body))
            found += map(_object, page)
            more = len(page) == PAGE
        flows = self._flow_names({str(deployment["flow_id"]) for deployment in found})
        return tuple(_deployment(d, flows.get(str(d["flow_id"]), "")) for d in found)

    def deployment(self, name_or_id: str) -> Deployment | None:
        """Return the deployment "flow/deployment", or the one with that id; None for none."""
        flow, slash, name = name_or_id.partition("/")
        if slash:
            path = f"/deployments/name/{quote(flow, safe='')}/{quote(name, safe='')}"
        else:
            try:
                path = f"/deployments/{UUID(name_or_id)}"
            except ValueError:
                return None
        found = self._http.get(path)
        if found is None:
            return None
        fields = _object(found)
        flow_id = str(fields["flow_id"])
        return _deployment(fields, self._flow_names([flow_id]).get(flow_id, ""))

    def start(self, deployment: Deployment, tags: Sequence[str]) -> UUID:
        """Create a flow run of the deployment, due now, with its tags and `tags`; return its id."""
        body = {
            "state": {"type": "SCHEDULED", "name": "Scheduled"},
            "tags": [*deployment.tags, *tags],
        }
        path = f"/deployments/{deployment.id}/create_flow_run"
        run = _object(self._http.send("POST", path, body, again_if_unsure=False))
        return UUID(str(run["id"]))

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

        The server has the version nowhere else, and keeps events for a week.
        """
        body = {"filter": {"event": {"name": [_STARTED_EVENT]}, "order": "DESC"}, "limit": 50}
        answer = _object(self._http.send("POST", "/events/filter", body))
        newest_first = [_object(event).get("resource") or {} for event in _list(answer["events"])]
        return {
            str(worker.get("prefect.resource.name")): str(worker.get("prefect.version") or "")
            for worker in reversed(newest_first)
        }

    def _flow_names(self, flow_ids: Iterable[str]) -> Mapping[str, str]:
        wanted = sorted(flow_ids)
        names: dict[str, str] = {}
        for start in range(0, len(wanted), PAGE):
            body = {"flows": {"id": {"any_": wanted[start : start + PAGE]}}, "limit": PAGE}
            flows = map(_object, _list(self._http.send("POST", "/flows/filter", body)))
            names.update({str(flow["id"]): str(flow["name"]) for flow in flows})
        return names


def _deployment(fields: Mapping[str, Any], flow: str) -> Deployment:
    return Deployment(
        id=UUID(str(fields["id"])),
        name=f"{flow}/{fields['name']}",
        job_variables=fields.get("job_variables") or {},
        tags=tuple(map(str, fields.get("tags") or ())),
        work_pool=str(fields.get("work_pool_name") or ""),
    )


def _object(value: object) -> Mapping[str, Any]:
    return read_fields(value, "answer")


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise PrefectUnavailableError("Prefect's answer is not a list", next_step=CHECK_API_URL)
    return value


def _time(value: object) -> datetime | None:
    return datetime.fromisoformat(value) if isinstance(value, str) else None
