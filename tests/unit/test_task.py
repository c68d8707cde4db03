"""Reading tasks out of events, and naming why they stopped."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chalicelib.core.model.ecs_task import (
    Cause,
    Ignored,
    Task,
    classify,
    completed_by,
    parse_event,
    parse_task,
    reason_to_ignore,
)
from chalicelib.core.rescue.snapshot import cause_of
from tests.make import ACCOUNT, CLUSTER_ARN, NOW, RUN_ID, TASK_ARN, make_event, make_task

EVENTS = Path(__file__).parent.parent / "events"


def read(event: object) -> Task:
    task = parse_event(event)
    assert isinstance(task, Task), task
    return task


def test_the_guides_minimal_warning_is_read() -> None:
    task = read(json.loads((EVENTS / "spot-warning-as-documented.json").read_text()))
    assert classify(task, warned=False) is Cause.SPOT_INTERRUPTION
    assert not task.exited
    assert task.flow_run_id is None


STRANGER = "999988887777"
ELSEWHERE, THEIRS = (
    {"taskArn": TASK_ARN.replace(*other), "clusterArn": CLUSTER_ARN.replace(*other)}
    for other in (("us-east-1", "eu-west-1"), (ACCOUNT, STRANGER))
)
NOT_FARGATE = "the task is not on Fargate"
NOT_OURS: list[tuple[dict[str, Any], str]] = [
    *(
        ({"launchType": launch_type, "stopCode": code}, NOT_FARGATE)
        for launch_type in ("EC2", "EXTERNAL", "MANAGED_INSTANCES")
        for code in ("TerminationNotice", "SpotInterruption", "UserInitiated")
    ),
    ({"capacityProviderName": "my-instances"}, NOT_FARGATE),
    ({"launchType": None, "capacityProviderName": "my-instances"}, NOT_FARGATE),
    (ELSEWHERE, "eu-west-1"),
    *(({name: arn}, "eu-west-1") for name, arn in ELSEWHERE.items()),
    *(({name: arn}, STRANGER) for name, arn in THEIRS.items()),
    ({"region": "eu-west-1"}, "eu-west-1"),
    ({"account": STRANGER}, STRANGER),
    *(({"clusterArn": a}, "none of our clusters") for a in (f"{CLUSTER_ARN}-2", CLUSTER_ARN[:-4])),
]
BY_NAME, BY_ARN = ("prefect-spot-dev",), (CLUSTER_ARN,)
ALL_THAT_ARE_NAMED_SO = (*BY_NAME, ELSEWHERE["clusterArn"], THEIRS["clusterArn"])


@pytest.mark.parametrize("clusters", [BY_NAME, BY_ARN, ALL_THAT_ARE_NAMED_SO])
@pytest.mark.parametrize(("changes", "reason"), NOT_OURS, ids=str)
def test_a_task_that_is_not_ours_is_ignored_with_the_reason(
    clusters: tuple[str, ...], changes: dict[str, Any], reason: str
) -> None:
    envelope = {name: value for name, value in changes.items() if name in ("account", "region")}
    task = read(make_event(changes, **envelope))
    assert reason in reason_to_ignore(task, clusters, ACCOUNT, "us-east-1")


OURS: dict[str, dict[str, Any]] = {
    "complete": {},
    "no launch type": {"launchType": None},
    "no provider": {"capacityProviderName": None},
    "on demand": {"capacityProviderName": "FARGATE"},
}


@pytest.mark.parametrize("clusters", [BY_NAME, BY_ARN])
@pytest.mark.parametrize("detail", OURS.values(), ids=OURS)
def test_a_fargate_task_of_ours_is_not_ignored_in_any_partition(
    clusters: tuple[str, ...], detail: dict[str, Any]
) -> None:
    for partition, region in (("aws", "us-east-1"), ("aws-cn", "cn-north-1"), ("aws-us-gov", "x")):
        moved = json.loads(
            json.dumps([make_event(detail, region=region), clusters])
            .replace("arn:aws:", f"arn:{partition}:")
            .replace(":us-east-1:", f":{region}:")
        )
        assert reason_to_ignore(read(moved[0]), moved[1], ACCOUNT, region) == ""
        assert reason_to_ignore(read(moved[0]), moved[1], ACCOUNT, "another")
    bare = make_event(detail)
    del bare["account"], bare["region"]
    assert reason_to_ignore(read(bare), clusters, ACCOUNT, "us-east-1") == ""


def test_a_real_complete_event_is_read() -> None:
    task = read(json.loads((EVENTS / "fargate-task-stopped-real.json").read_text()))
    assert classify(task, warned=False) is Cause.OTHER
    assert task.exited
    assert task.exited_at == datetime(2020, 8, 14, 18, 6, 23, tzinfo=UTC)
    assert (task.cpu_units, task.memory_mib, task.version) == (256, 512, 5)
    assert task.capacity == "FARGATE"
    assert task.availability_zone == "us-east-1b"


def test_the_flow_run_is_found_in_the_tags_of_a_described_task() -> None:
    detail = {
        "taskArn": TASK_ARN,
        "clusterArn": CLUSTER_ARN,
        "createdAt": NOW,
        "tags": [
            {"key": "prefect.io/flow-run-id", "value": str(RUN_ID)},
            {"key": "prefect.io/work-pool-name", "value": "spot"},
        ],
    }
    task = parse_task(detail)
    assert isinstance(task, Task)
    assert (task.flow_run_id, task.created_at, task.work_pool) == (RUN_ID, NOW, "spot")


@pytest.mark.parametrize(
    "event",
    [
        None,
        [],
        {},
        {"source": "aws.ecs"},
        make_event(source="aws.ec2"),
        {**make_event(), "detail-type": "ECS Service Action"},
        make_event({"taskArn": None}),
        make_event({"clusterArn": 7}),
        {**make_event(), "detail": "text"},
    ],
    ids=["nothing", "list", "empty", "type", "source", "kind", "task", "cluster", "detail"],
)
def test_what_is_no_task_change_is_ignored_with_a_reason(event: object) -> None:
    parsed = parse_event(event)
    assert isinstance(parsed, Ignored)
    assert parsed.reason


@pytest.mark.parametrize("status", [{}, [], None, "RUNNING"])
def test_a_container_without_the_status_stopped_has_not_stopped(status: object) -> None:
    containers = [{"name": "prefect", "lastStatus": status}]
    assert not read(make_event({"containers": containers})).flow_container_stopped


SPOT, OTHER = Cause.SPOT_INTERRUPTION, Cause.OTHER
BY_ITSELF = "EssentialContainerExited"
NO_ROOM = "Capacity is unavailable at this time. Please try again later"


@pytest.mark.parametrize(
    ("stop_code", "reason", "warned", "cause"),
    [
        pytest.param("SpotInterruption", "Your Spot", False, SPOT, id="today's stop code"),
        pytest.param("TerminationNotice", "", False, SPOT, id="the older stop code"),
        pytest.param("", "Your Spot Task was interrupted.", False, SPOT, id="only the reason"),
        pytest.param(BY_ITSELF, "", True, SPOT, id="exited by itself after a warning"),
        pytest.param(BY_ITSELF, "", False, OTHER, id="exited by itself without a warning"),
        pytest.param("UserInitiated", "prefect-spot drill 1", False, Cause.DRILL, id="drill"),
        pytest.param("TaskFailedToStart", NO_ROOM, False, Cause.NO_SPOT_CAPACITY, id="no capacity"),
        pytest.param("TaskFailedToStart", "CannotPull", False, Cause.FAILED_START, id="image pull"),
        pytest.param("InfrastructureHealth", "", False, Cause.FAILED_START, id="host died"),
        pytest.param("InfrastructureHealth", "", True, SPOT, id="host died after a warning"),
        pytest.param("SomethingNew", "", False, OTHER, id="unknown"),
    ],
)
def test_the_cause_is_named(stop_code: str, reason: str, warned: bool, cause: Cause) -> None:
    started_at = None if stop_code == "TaskFailedToStart" else NOW
    task = make_task(stop_code=stop_code, stopped_reason=reason, started_at=started_at)
    assert cause_of(task, warned=warned) is cause


def test_an_on_demand_task_is_not_interrupted_by_spot() -> None:
    task = make_task(stop_code="UserInitiated", stopped_reason="by hand", capacity_provider="")
    assert classify(task, warned=True) is Cause.OTHER


ENDED = {"DEPROVISIONING", "STOPPED"}


@pytest.mark.parametrize("container_stopped", [False, True])
@pytest.mark.parametrize(
    "status", ["PROVISIONING", "RUNNING", "DEACTIVATING", "STOPPING", *sorted(ENDED)]
)
def test_exited_means_that_the_flow_is_gone(status: str, container_stopped: bool) -> None:
    task = make_task(last_status=status, flow_container_stopped=container_stopped)
    assert task.exited is (container_stopped or status in ENDED)
    assert (task.exited_at is not None) is task.exited


@pytest.mark.parametrize(
    "number",
    ["9" * 5000, 10**5000, -(10**5000), "-5", True, 2.5],
    ids=["long text", "huge", "hugely negative", "negative", "no number", "a fraction"],
)
def test_a_number_that_makes_no_sense_is_unknown(number: Any) -> None:
    assert read(make_event({"cpu": number})).cpu_units is None


def test_a_sidecar_that_stopped_is_not_the_flow() -> None:
    containers = [
        {"name": "sidecar", "lastStatus": "STOPPED"},
        {"name": "prefect", "lastStatus": "RUNNING"},
    ]
    task = read(make_event({"lastStatus": "RUNNING", "containers": containers}))
    assert not task.exited


def test_storage_and_windows_are_read() -> None:
    windows = {"platformFamily": "Windows_Server_2022_Core"}
    task = read(make_event({"ephemeralStorage": {"sizeInGiB": 30}, **windows}))
    assert (task.storage_gib, task.launch_type, task.architecture) == (30, "FARGATE", "windows")


def test_what_ecs_describes_later_does_not_hide_the_interruption() -> None:
    event_task = make_task(last_status="RUNNING", flow_container_stopped=False)
    described = make_task(stop_code="EssentialContainerExited", stopped_reason="exited")
    assert classify(completed_by(event_task, described), warned=False) is Cause.SPOT_INTERRUPTION
    assert completed_by(event_task, described).exited
