"""Flow runs at work, as a worker and an engine leave them, for someone to interrupt."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx

from localcloud.aws import EmulatedAws
from localcloud.bootstrap import CLUSTER, WORK_POOL
from tests.make import make_event

OWN_RETRIES = 1
_ARN = f"arn:aws:ecs:{EmulatedAws.region}:{EmulatedAws.account}"


@dataclass(frozen=True)
class RunAtWork:
    """A run that says RUNNING, the task it runs in, and the event that tells of that task's end."""

    id: str
    task_arn: str
    event: Mapping[str, Any]


class RunningRuns:
    """Makes them on a Prefect server, all of one deployment, in an ECS work pool."""

    def __init__(self, api_url: str, auth_string: str) -> None:
        from prefect_aws.workers import ECSWorker  # takes seconds

        user, _, password = auth_string.partition(":")
        self._http = httpx.Client(
            base_url=api_url, auth=(user, password), timeout=60, trust_env=False
        )
        pool = {
            "name": WORK_POOL,
            "type": "ecs",
            "base_job_template": ECSWorker.get_default_base_job_template(),
        }
        self._send("POST", "/work_pools/", pool)
        flow = self._send("POST", "/flows/", {"name": "measured"})
        body = {"name": "bench", "flow_id": flow["id"], "work_pool_name": WORK_POOL}
        self.deployment_id = self._send("POST", "/deployments/", body)["id"]

    def close(self) -> None:
        """Give the connections back."""
        self._http.close()

    def start(self, *, interruptions_on_spot: int = 3) -> RunAtWork:
        """Return a run at work, with the event of its interrupted task's exit."""
        scheduled = {"type": "SCHEDULED", "name": "Scheduled"}
        tags = [f"spot-retries:{interruptions_on_spot}"]
        path = f"/deployments/{self.deployment_id}/create_flow_run"
        run_id = self._send("POST", path, {"state": scheduled, "tags": tags})["id"]
        task_arn = f"{_ARN}:task/{CLUSTER}/{uuid4().hex}"
        self._move(run_id, "PENDING")
        change = {
            "infrastructure_pid": f"{_ARN}:cluster/{CLUSTER}::{task_arn}",
            "empirical_policy": {"retries": OWN_RETRIES, "retry_delay": 0},
        }
        self._send("PATCH", f"/flow_runs/{run_id}", change)
        started_at = datetime.now(UTC)
        self._move(run_id, "RUNNING")
        return RunAtWork(run_id, task_arn, exit_event(run_id, task_arn, started_at))

    def state_of(self, run: RunAtWork) -> str:
        """Return the name of the run's state."""
        return str(self._send("GET", f"/flow_runs/{run.id}")["state"]["name"])

    def _move(self, run_id: str, kind: str) -> None:
        state = {"type": kind, "name": kind.title()}
        answer = self._send("POST", f"/flow_runs/{run_id}/set_state", {"state": state})
        assert answer["status"] == "ACCEPT", answer

    def _send(self, method: str, path: str, body: object = None) -> Any:
        answer = self._http.request(method, path, json=body).raise_for_status()
        return answer.json() if answer.content else None


def exit_event(
    run_id: str, task_arn: str, started_at: datetime, **detail: object
) -> dict[str, Any]:
    """Return the event that tells of the exit of a run's interrupted task, just now."""
    now = datetime.now(UTC).isoformat()
    started = started_at.isoformat()
    event = make_event(
        {
            "taskArn": task_arn,
            "clusterArn": f"{_ARN}:cluster/{CLUSTER}",
            "createdAt": started,
            "pullStartedAt": started,
            "startedAt": started,
            "executionStoppedAt": now,
            "updatedAt": now,
            **detail,
        }
    )
    [override] = event["detail"]["overrides"]["containerOverrides"]
    override["environment"][0]["value"] = run_id
    return event
