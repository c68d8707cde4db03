"""What both sides get: flow runs that are RUNNING, and ECS's news of the ends of their tasks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

from localcloud.aws import EmulatedAws
from localcloud.bootstrap import CLUSTER
from tests.make import make_event

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
    """Return the ARN of a task of its own."""
    return f"{_ARN}:task/{CLUSTER}/{uuid4().hex}"


def task_of(victim: Victim, **changes: object) -> Json:
    """Return the victim's task as ECS describes it, with its tags."""
    tags = {"prefect.io/flow-run-id": victim.run_id, "prefect.io/flow-run-name": "etl"}
    return {
        **stop_of(victim)["detail"],
        "tags": [{"key": key, "value": value} for key, value in tags.items()],
        **dict.fromkeys(_BEGINNINGS, victim.task_started_at.timestamp()),
        **changes,
    }


def warning_of(victim: Victim) -> Json:
    """Return Spot's warning: the container still works."""
    running = [{"name": "prefect", "lastStatus": "RUNNING"}]
    changes = {"lastStatus": "RUNNING", "version": 4, "executionStoppedAt": None}
    return _event(victim, containers=running, **changes)


def exit_of(victim: Victim) -> Json:
    """Return the news that the container has exited: DEPROVISIONING."""
    return _event(victim, lastStatus="DEPROVISIONING", version=5)


def stop_of(victim: Victim, exit_code: int | None = 143) -> Json:
    """Return the last news of the task, STOPPED; an `exit_code` of None is missing there."""
    return _event(victim, lastStatus="STOPPED", version=6, containers=[_exited(exit_code)])


def _event(victim: Victim, **detail: object) -> Json:
    """How long a task takes to start is not what is measured: it starts all at once."""
    now = datetime.now(UTC)
    event = make_event(
        {
            "taskArn": victim.task_arn,
            "clusterArn": CLUSTER_ARN,
            **dict.fromkeys(_BEGINNINGS, victim.task_started_at.isoformat()),
            "executionStoppedAt": now.isoformat(),
            "updatedAt": now.isoformat(),
            "containers": [_exited(143)],
            **detail,
        },
        id=str(uuid4()),
        time=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        account=EmulatedAws.account,
        resources=[victim.task_arn],
    )
    [override] = event["detail"]["overrides"]["containerOverrides"]
    override["environment"] = [{"name": "PREFECT__FLOW_RUN_ID", "value": victim.run_id}]
    return event


def _exited(code: int | None) -> Json:
    container = {"name": "prefect", "lastStatus": "STOPPED"}
    return container if code is None else {**container, "exitCode": code}


_BEGINNINGS: Final = ("createdAt", "pullStartedAt", "startedAt")
