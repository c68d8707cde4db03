"""Builders: each makes an ordinary thing, a test overrides what it is about."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import (
    FailedStart,
    FlowRun,
    Interruption,
    RunPolicy,
    RunRecord,
    RunState,
    StateType,
)
from chalicelib.core.model.policy import Policy
from chalicelib.core.model.pricing import Rate
from chalicelib.core.rescue.snapshot import Snapshot

NOW = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
RUN_ID = UUID("11111111-2222-4333-8444-555555555555")
ACCOUNT = "111122223333"
CLUSTER_ARN = f"arn:aws:ecs:us-east-1:{ACCOUNT}:cluster/prefect-spot-dev"
TASK_ARN = f"arn:aws:ecs:us-east-1:{ACCOUNT}:task/prefect-spot-dev/0123456789abcdef0123456789abcdef"
NEWER_TASK_ARN = TASK_ARN[:-4] + "0002"
ODD_ARNS = {
    "another region": TASK_ARN.replace("us-east-1", "eu-west-1"),
    "another account": TASK_ARN.replace(ACCOUNT, "999988887777"),
    "another partition": TASK_ARN.replace("arn:aws:", "arn:aws-cn:"),
    "another cluster": TASK_ARN.replace("/prefect-spot-dev/", "/gone/"),
    "no ARN": "0123abcd",
    "empty": "",
    "control characters": "arn:\n\0",
}
"""Noted tasks that ECS refuses to describe."""


LONG = "\U0001f525" * 1000
"""A text of 4 KB."""
LIVES = 600


def longest_record(flow_run_id: UUID = RUN_ID) -> RunRecord:
    """The record of a run before its 600th interruption, each with a failed start and a subflow."""
    record = RunRecord(flow_run_id, subflows={f"subflow {n}": (0, n) for n in range(1000)})
    for n in range(1, LIVES):
        key, at = f"{TASK_ARN[:-3]}{n:03}", NOW - timedelta(days=1) + timedelta(minutes=n)
        texts = {"reason": LONG, "not_rerun": LONG, "capacity": "FARGATE_SPOT", "recorded_at": at}
        more = {"stop_code": LONG, "availability_zone": LONG, "guard_reason": LONG}
        ended = Interruption(key, n, "Spot interruption", lost_start=n, **texts, **more)  # type: ignore[arg-type]  # of many types
        failed = FailedStart(f"{key}0", 1, n, "capacity", **texts)  # type: ignore[arg-type]  # so here
        record = record.with_interruption(ended).with_failed_start(failed)
    return record


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def make_task(**changes: Any) -> Task:
    """A Spot task of RUN_ID that was interrupted and has exited."""
    ordinary: dict[str, Any] = {
        "arn": TASK_ARN,
        "cluster_arn": CLUSTER_ARN,
        "last_status": "DEPROVISIONING",
        "desired_status": "STOPPED",
        "stop_code": "SpotInterruption",
        "stopped_reason": "Your Spot Task was interrupted.",
        "capacity_provider": "FARGATE_SPOT",
        "availability_zone": "us-east-1b",
        "flow_run_id": RUN_ID,
        "flow_container_stopped": True,
        "version": 5,
        "cpu_units": 256,
        "memory_mib": 512,
        "created_at": NOW - seconds(120),
        "pull_started_at": NOW - seconds(100),
        "started_at": NOW - seconds(90),
        "execution_stopped_at": NOW - seconds(1),
        "updated_at": NOW - seconds(1),
    }
    return Task(**{**ordinary, **changes})


def make_rate(
    capacity: str, vcpu_hour_usd: str, gb_hour_usd: str, storage: str | None = None, **changes: Any
) -> Rate:
    """A rate of x86 in us-east-1."""
    ordinary: dict[str, Any] = {
        "region": "us-east-1",
        "architecture": "x86_64",
        "capacity": capacity,
        "vcpu_hour_usd": Decimal(vcpu_hour_usd),
        "gb_hour_usd": Decimal(gb_hour_usd),
        "storage_gb_hour_usd": Decimal(storage) if storage else None,
        "source": "a test",
        "date": "2026-11-01",
    }
    return Rate(**{**ordinary, **changes})


RATES = {
    rate.key: rate
    for rate in (
        make_rate("FARGATE_SPOT", "0.012", "0.0013"),
        make_rate("FARGATE", "0.04", "0.004"),
    )
}
AUTO = Policy(spot_retries="auto", rates=RATES)


def make_state(type: StateType = StateType.RUNNING, **changes: Any) -> RunState:  # noqa: A002  # as RunState has it
    ordinary: dict[str, Any] = {
        "id": uuid4(),
        "type": type,
        "name": type.value.capitalize(),
        "timestamp": NOW - seconds(60),
    }
    return RunState(**{**ordinary, **changes})


def make_run(**changes: Any) -> FlowRun:
    """A run of a deployment, started once, running, its flow without retries."""
    ordinary: dict[str, Any] = {
        "id": RUN_ID,
        "name": "brave-otter",
        "state": make_state(),
        "run_count": 1,
        "deployment_id": UUID("99999999-2222-4333-8444-555555555555"),
        "policy": RunPolicy(retries=0),
        "infrastructure_pid": f"{CLUSTER_ARN}::{TASK_ARN}",
    }
    return FlowRun(**{**ordinary, **changes})


def make_snapshot(**changes: Any) -> Snapshot:
    """The interruption of an ordinary run's ordinary task; the run's state ends its history."""
    run = changes.pop("run", None) or make_run()
    before = (
        make_state(StateType.SCHEDULED, timestamp=NOW - seconds(130)),
        make_state(StateType.PENDING, timestamp=NOW - seconds(125)),
        make_state(StateType.RUNNING, timestamp=NOW - seconds(80)),
    )
    ordinary: dict[str, Any] = {
        "subject": make_task(),
        "run": run,
        "history": (*before, run.state),
        "record": RunRecord(RUN_ID),
        "policy": Policy(),
        "now": NOW,
    }
    return Snapshot(**{**ordinary, **changes})


def make_event(detail: Mapping[str, Any] | None = None, **envelope: Any) -> dict[str, Any]:
    """A complete event of an exited, interrupted Spot task; None in `detail` removes a field."""
    ordinary_detail: dict[str, Any] = {
        "taskArn": TASK_ARN,
        "clusterArn": CLUSTER_ARN,
        "lastStatus": "DEPROVISIONING",
        "desiredStatus": "STOPPED",
        "stopCode": "SpotInterruption",
        "stoppedReason": "Your Spot Task was interrupted.",
        "capacityProviderName": "FARGATE_SPOT",
        "launchType": "FARGATE",
        "availabilityZone": "us-east-1b",
        "cpu": "256",
        "memory": "512",
        "version": 5,
        "createdAt": "2026-11-23T11:58:00.000Z",
        "pullStartedAt": "2026-11-23T11:58:20.000Z",
        "startedAt": "2026-11-23T11:58:30.000Z",
        "executionStoppedAt": "2026-11-23T11:59:59Z",
        "updatedAt": "2026-11-23T11:59:59.500Z",
        "containers": [{"name": "prefect", "lastStatus": "STOPPED", "exitCode": 1}],
        "overrides": {
            "containerOverrides": [
                {
                    "name": "prefect",
                    "environment": [{"name": "PREFECT__FLOW_RUN_ID", "value": str(RUN_ID)}],
                }
            ]
        },
    }
    merged = {**ordinary_detail, **(detail or {})}
    ordinary = {
        "source": "aws.ecs",
        "detail-type": "ECS Task State Change",
        "account": ACCOUNT,
        "region": "us-east-1",
        "time": "2026-11-23T12:00:00Z",
        "version": "0",
        "id": "c0ffee00-0000-4000-8000-000000000001",
        "resources": [TASK_ARN],
        "detail": {name: value for name, value in merged.items() if value is not None},
    }
    return {**ordinary, **envelope}


def make_table(dynamodb: Any, name: str) -> None:
    """Create an empty table in `dynamodb`, a boto3 client, with the key that the product's has."""
    dynamodb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
