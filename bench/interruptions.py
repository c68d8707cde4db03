"""What both sides get: flow runs that are RUNNING, and ECS's news of the ends of their tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from localcloud.aws import EmulatedAws
from localcloud.bootstrap import CLUSTER

ON_DEMAND_EVERY: Final = 4
"""One in so many interruptions moves its run to FARGATE."""

_ARN: Final = f"arn:aws:ecs:{EmulatedAws.region}:{EmulatedAws.account}"
CLUSTER_ARN: Final = f"{_ARN}:cluster/{CLUSTER}"

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Seed:
    """A run that is to be made: in which task it shall be, and where its interruption leads."""

    task_arn: str
    on_demand: bool

    @property
    def pid(self) -> str:
        """What Prefect's worker notes on a run of this task."""
        return f"{CLUSTER_ARN}::{self.task_arn}"

    @property
    def tags(self) -> Sequence[str]:
        """No interruption allowed on Spot, for those that are to move to FARGATE."""
        return ["spot-retries:0"] if self.on_demand else []


@dataclass(frozen=True)
class Victim:
    """A RUNNING run whose task is taken back."""

    run_id: str
    task_arn: str
    task_started_at: datetime
    on_demand: bool


def make_seeds(number: int) -> Sequence[Seed]:
    """Return that many, of which one in four moves to FARGATE."""
    return [Seed(task_arn(), n % ON_DEMAND_EVERY == ON_DEMAND_EVERY - 1) for n in range(number)]


def task_arn() -> str:
    """Return the ARN of a task that nobody else has."""
    return f"{_ARN}:task/{CLUSTER}/{uuid4().hex}"


def task_of(victim: Victim, **changes: object) -> Json:
    """Return the victim's task as ECS describes it, with its tags."""
    tags = {"prefect.io/flow-run-id": victim.run_id, "prefect.io/flow-run-name": "etl"}
    return {
        **_detail(victim, datetime.now(UTC), 143),
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
        **_times(victim.task_started_at.timestamp()),
        **changes,
    }


def warning_of(victim: Victim) -> Json:
    """Return Spot's warning: the container still works."""
    now = datetime.now(UTC)
    detail = {**_detail(victim, now, None), "lastStatus": "RUNNING", "version": 4}
    del detail["executionStoppedAt"]
    running = [{"name": "prefect", "lastStatus": "RUNNING"}]
    return _event(now, {**detail, "containers": running})


def exit_of(victim: Victim) -> Json:
    """Return the news that the container has exited: DEPROVISIONING."""
    now = datetime.now(UTC)
    return _event(now, {**_detail(victim, now, 143), "lastStatus": "DEPROVISIONING", "version": 5})


def stop_of(victim: Victim, exit_code: int | None = 143) -> Json:
    """Return the last news of the task, STOPPED; an `exit_code` of None is missing there."""
    now = datetime.now(UTC)
    return _event(now, _detail(victim, now, exit_code))


def _event(now: datetime, detail: Json) -> Json:
    return {
        "version": "0",
        "id": str(uuid4()),
        "detail-type": "ECS Task State Change",
        "source": "aws.ecs",
        "account": EmulatedAws.account,
        "time": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": EmulatedAws.region,
        "resources": [detail["taskArn"]],
        "detail": detail,
    }


def _detail(victim: Victim, now: datetime, exit_code: int | None) -> dict[str, Any]:
    container = {"name": "prefect", "lastStatus": "STOPPED", "exitCode": exit_code}
    environment = [{"name": "PREFECT__FLOW_RUN_ID", "value": victim.run_id}]
    return {
        "taskArn": victim.task_arn,
        "clusterArn": CLUSTER_ARN,
        "taskDefinitionArn": f"{_ARN}:task-definition/etl:1",
        "lastStatus": "STOPPED",
        "desiredStatus": "STOPPED",
        "stopCode": "SpotInterruption",
        "stoppedReason": "Your Spot Task was interrupted.",
        "capacityProviderName": "FARGATE_SPOT",
        "launchType": "FARGATE",
        "availabilityZone": "us-east-1b",
        "cpu": "256",
        "memory": "512",
        "version": 6,
        **_times(victim.task_started_at.isoformat()),
        "executionStoppedAt": now.isoformat(),
        "updatedAt": now.isoformat(),
        "containers": [{key: x for key, x in container.items() if x is not None}],
        "overrides": {"containerOverrides": [{"name": "prefect", "environment": environment}]},
    }


def _times(started_at: str | float) -> dict[str, str | float]:
    """All at once: how long a task takes to start is not what is measured."""
    return dict.fromkeys(("createdAt", "pullStartedAt", "startedAt"), started_at)
