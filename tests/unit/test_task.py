"""Reading tasks out of events, and naming why they stopped."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.core.task import (
    Cause,
    Ignored,
    Task,
    classify,
    completed_by,
    in_clusters,
    parse_event,
    parse_task,
)
from tests.make import ACCOUNT, CLUSTER_ARN, NOW, RUN_ID, TASK_ARN, make_event, make_task

EVENTS = Path(__file__).parent.parent / "events"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def read(event: object) -> Task:
    task = parse_event(event)
    assert isinstance(task, Task), task
    return task


def test_the_guides_minimal_warning_is_read() -> None:
    task = read(json.loads((EVENTS / "spot-warning-as-documented.json").read_text()))
    assert classify(task, warned=False) is Cause.SPOT_INTERRUPTION
    assert not task.exited
    assert task.flow_run_id is None


def test_a_real_complete_event_is_read() -> None:
    task = read(json.loads((EVENTS / "fargate-task-stopped-real.json").read_text()))
    assert classify(task, warned=False) is Cause.OTHER
    assert task.exited
    assert task.exited_at == datetime(2020, 8, 14, 18, 6, 23, tzinfo=UTC)
    assert (task.cpu_units, task.memory_mib, task.version) == (256, 512, 5)
    assert task.capacity == "FARGATE"
    assert task.availability_zone == "us-east-1b"


def test_the_flow_run_is_found_in_the_overrides() -> None:
    assert read(make_event()).flow_run_id == RUN_ID


def test_the_flow_run_is_found_in_the_tags_of_a_described_task() -> None:
    detail = {
        "taskArn": TASK_ARN,
        "clusterArn": CLUSTER_ARN,
        "createdAt": NOW,
        "tags": [{"key": "prefect.io/flow-run-id", "value": str(RUN_ID)}],
    }
    task = parse_task(detail)
    assert isinstance(task, Task)
    assert (task.flow_run_id, task.created_at) == (RUN_ID, NOW)


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(None, id="nothing"),
        pytest.param([], id="a list"),
        pytest.param({}, id="empty"),
        pytest.param({"source": "aws.ecs"}, id="no type"),
        pytest.param(make_event(source="aws.ec2"), id="another source"),
        pytest.param(
            {**make_event(), "detail-type": "ECS Service Action"}, id="an unknown kind of ECS event"
        ),
        pytest.param(make_event(detail={"taskArn": None}), id="no task"),
        pytest.param(make_event(detail={"clusterArn": 7}), id="cluster of a wrong type"),
        pytest.param({**make_event(), "detail": "text"}, id="detail of a wrong type"),
    ],
)
def test_what_is_no_task_change_is_ignored_with_a_reason(event: object) -> None:
    parsed = parse_event(event)
    assert isinstance(parsed, Ignored)
    assert parsed.reason


@given(json_values)
def test_no_event_whatsoever_raises(event: object) -> None:
    assert isinstance(parse_event(event), Ignored)


@given(st.dictionaries(st.sampled_from(sorted(make_event()["detail"])), json_values))
def test_no_detail_whatsoever_raises(detail: dict[str, Any]) -> None:
    event = make_event()
    event["detail"] = {**event["detail"], **detail}
    assert isinstance(parse_event(event), Task | Ignored)


@pytest.mark.parametrize(
    ("changes", "warned", "cause"),
    [
        pytest.param({}, False, Cause.SPOT_INTERRUPTION, id="today's stop code"),
        pytest.param(
            {"stop_code": "TerminationNotice", "stopped_reason": ""},
            False,
            Cause.SPOT_INTERRUPTION,
            id="the older stop code",
        ),
        pytest.param({"stop_code": ""}, False, Cause.SPOT_INTERRUPTION, id="only the reason"),
        pytest.param(
            {"stop_code": "EssentialContainerExited", "stopped_reason": ""},
            True,
            Cause.SPOT_INTERRUPTION,
            id="left by itself after a warning",
        ),
        pytest.param(
            {"stop_code": "EssentialContainerExited", "stopped_reason": ""},
            False,
            Cause.OTHER,
            id="left by itself without a warning",
        ),
        pytest.param(
            {"stop_code": "UserInitiated", "stopped_reason": "prefect-spot drill of 12:00"},
            False,
            Cause.DRILL,
            id="drill",
        ),
        pytest.param(
            {"stop_code": "UserInitiated", "stopped_reason": "by hand", "capacity_provider": ""},
            True,
            Cause.OTHER,
            id="an on-demand task is not interrupted by Spot",
        ),
        pytest.param(
            {
                "stop_code": "TaskFailedToStart",
                "stopped_reason": "Capacity is unavailable at this time. Please try again later",
                "started_at": None,
            },
            False,
            Cause.NO_SPOT_CAPACITY,
            id="never got Spot capacity",
        ),
        pytest.param(
            {
                "stop_code": "TaskFailedToStart",
                "stopped_reason": "CannotPullContainerError: not found",
                "started_at": None,
            },
            False,
            Cause.OTHER,
            id="image pull",
        ),
        pytest.param(
            {"stop_code": "SomethingNew", "stopped_reason": ""}, False, Cause.OTHER, id="unknown"
        ),
    ],
)
def test_the_cause_is_named(changes: dict[str, Any], warned: bool, cause: Cause) -> None:
    assert classify(make_task(**changes), warned=warned) is cause


@pytest.mark.parametrize(
    ("status", "container_stopped", "exited"),
    [
        ("PROVISIONING", False, False),
        ("RUNNING", False, False),
        ("RUNNING", True, True),
        ("DEACTIVATING", False, False),
        ("STOPPING", False, False),
        ("STOPPING", True, True),
        ("DEPROVISIONING", False, True),
        ("STOPPED", False, True),
    ],
)
def test_exited_means_that_the_flow_is_gone(
    status: str, container_stopped: bool, exited: bool
) -> None:
    task = make_task(last_status=status, flow_container_stopped=container_stopped)
    assert task.exited is exited
    assert (task.exited_at is not None) is exited


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


def test_what_ecs_describes_later_does_not_hide_the_interruption() -> None:
    told = make_task(last_status="RUNNING", flow_container_stopped=False)
    described = make_task(stop_code="EssentialContainerExited", stopped_reason="exited")
    assert classify(completed_by(told, described), warned=False) is Cause.SPOT_INTERRUPTION
    assert completed_by(told, described).exited


@pytest.mark.parametrize(
    ("clusters", "account", "ours"),
    [
        pytest.param(("prefect-spot-dev",), ACCOUNT, True, id="by name"),
        pytest.param((CLUSTER_ARN,), ACCOUNT, True, id="by ARN"),
        pytest.param(("other", "prefect-spot-dev"), ACCOUNT, True, id="one of several"),
        pytest.param(("prefect-spot",), ACCOUNT, False, id="a name's beginning is not enough"),
        pytest.param(("prefect-spot-dev",), "999900001111", False, id="another account"),
    ],
)
def test_only_our_own_clusters_count(clusters: tuple[str, ...], account: str, ours: bool) -> None:
    assert in_clusters(make_task(), clusters, account) is ours


def test_half_a_pair_of_surrogates_is_no_text_that_could_be_stored() -> None:
    event = json.loads(json.dumps(make_event({"stoppedReason": "Spot took \ud83d it"})))
    task = parse_event(event)
    assert isinstance(task, Task)
    assert task.stopped_reason.encode() == b"Spot took ? it"
