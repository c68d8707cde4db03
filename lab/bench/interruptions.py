"""What both sides of a comparison get: RUNNING flow runs, and ECS's events about their tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from localcloud.aws import EmulatedAws
from localcloud.bootstrap import CLUSTER
from tests.make import make_event

ON_DEMAND_EVERY: Final = 4
"""One in so many interruptions moves its run to FARGATE."""

_ARN: Final = f"arn:aws:ecs:{EmulatedAws.region}:{EmulatedAws.account}"
_CLUSTER_ARN: Final = f"{_ARN}:cluster/{CLUSTER}"
_STARTS: Final = ("createdAt", "pullStartedAt", "startedAt")
_STOPPED_CONTAINER: Final = {"name": "prefect", "lastStatus": "STOPPED"}
_RUNNING: Final[Mapping[str, Any]] = {
    "lastStatus": "RUNNING",
    "containers": [{"name": "prefect", "lastStatus": "RUNNING"}],
    "executionStoppedAt": None,
}

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Interruption:
    """A RUNNING run, and its task that Spot takes back; `on_demand`: the rerun is on FARGATE."""

    on_demand: bool = False
    task_arn: str = field(default_factory=lambda: f"{_ARN}:task/{CLUSTER}/{uuid4().hex}")
    run_id: str = field(default_factory=lambda: str(uuid4()))
    task_started_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def pid(self) -> str:
        """The `infrastructure_pid` that Prefect's worker writes on the run."""
        return f"{_CLUSTER_ARN}::{self.task_arn}"

    @property
    def tags(self) -> Sequence[str]:
        """The run's tags: a budget of 0 where the rerun is to be on FARGATE."""
        return ["spot-retries:0"] if self.on_demand else []


def interruptions(number: int) -> Sequence[Interruption]:
    """Return that many; one in four moves its run to FARGATE."""
    return [Interruption(n % ON_DEMAND_EVERY == ON_DEMAND_EVERY - 1) for n in range(number)]


def all_on_spot(number: int) -> Sequence[Interruption]:
    """Return that many whose reruns are all on Spot."""
    return [Interruption() for _ in range(number)]


def task_of(of: Interruption, **changes: object) -> Json:
    """Return the task as DescribeTasks shows it, with the tags of Prefect's worker."""
    tags = {"prefect.io/flow-run-id": of.run_id, "prefect.io/flow-run-name": "etl"}
    return {
        **stop_of(of)["detail"],
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
        **dict.fromkeys(_STARTS, of.task_started_at.timestamp()),
        **changes,
    }


def running_task_of(of: Interruption) -> Json:
    """Return a task that nothing has happened to."""
    return task_of(of, **_RUNNING, desiredStatus="RUNNING", stopCode=None)


def exit_of(of: Interruption, **detail: object) -> Json:
    """Return the event of the container's exit, DEPROVISIONING."""
    return _event(of, lastStatus="DEPROVISIONING", version=5, **detail)


def stop_of(of: Interruption, exit_code: int | None = 143, **detail: object) -> Json:
    """Return the task's last event, STOPPED; `exit_code` None: the event has none."""
    code = {} if exit_code is None else {"exitCode": exit_code}
    containers = [{**_STOPPED_CONTAINER, **code}]
    return _event(of, lastStatus="STOPPED", version=6, containers=containers, **detail)


def out_of_memory(of: Interruption) -> Json:
    """Return the last event of a task whose container the kernel killed; no interruption."""
    reason = "OutOfMemoryError: Container killed due to memory usage"
    return stop_of(of, 137, stopCode="EssentialContainerExited", stoppedReason=reason)


def exit_without_warning() -> Json:
    """Return the stop of a Spot task that exited by itself: the event that `react` gets most."""
    return exit_of(Interruption(), stopCode="EssentialContainerExited", stoppedReason="exited")


def _event(of: Interruption, **detail: object) -> Json:
    """Make an event of now; how long the task took to start is not measured."""
    now = datetime.now(UTC)
    environment = [{"name": "PREFECT__FLOW_RUN_ID", "value": of.run_id}]
    overrides = [{"name": "prefect", "environment": environment}]
    return make_event(
        {
            "taskArn": of.task_arn,
            "clusterArn": _CLUSTER_ARN,
            **dict.fromkeys(_STARTS, of.task_started_at.isoformat()),
            **dict.fromkeys(("executionStoppedAt", "updatedAt"), now.isoformat()),
            "containers": [{**_STOPPED_CONTAINER, "exitCode": 143}],
            "overrides": {"containerOverrides": overrides},
            **detail,
        },
        id=str(uuid4()),
        time=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        account=EmulatedAws.account,
        resources=[of.task_arn],
    )
