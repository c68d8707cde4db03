"""The oracle itself: a planted double run, lost run and wrong capacity are each reported."""

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from localcloud.oracle import Fault, Observation, judge
from localcloud.task_life import ContainerLife
from tests.make import CLUSTER_ARN, NOW, RUN_ID, seconds


def life(number: int, begins: float, ends: float | None, **changes: Any) -> ContainerLife:
    """A container on Spot, alive from second `begins` to second `ends`, then interrupted."""
    ended = None if ends is None else NOW + seconds(ends)
    ordinary: dict[str, Any] = {
        "task_arn": f"task/{number}",
        "cluster_arn": CLUSTER_ARN,
        "flow_run_id": str(RUN_ID),
        "capacity": "FARGATE_SPOT",
        "created": NOW + seconds(begins - 1),
        "started": NOW + seconds(begins),
        "exited": ended,
        "interrupted_at": ended,
        "exit_code": 1,
        "cpu": "256",
        "memory": "512",
        "environment": {},
    }
    return ContainerLife(**{**ordinary, **changes})


def seen(
    *containers: ContainerLife,
    state: str = "COMPLETED",
    at: float = 30,
    budget: int | None = None,
    rescued: bool = True,
) -> Observation:
    states: list[tuple[datetime, str]] = [(NOW, "SCHEDULED"), (NOW + seconds(at), state)]
    return Observation(str(RUN_ID), state, states, containers, budget, rescued)


FIRST = life(1, 0, 10)
LAST = life(2, 15, 30, interrupted_at=None, exit_code=0)
ON_DEMAND = replace(LAST, capacity="FARGATE")
AT_ONCE = life(2, 9, 30, interrupted_at=None)
ALIVE = life(1, 0, None)
AGAIN = life(3, 40, 50, interrupted_at=None)


@pytest.mark.parametrize(
    ("observed", "faults"),
    [
        pytest.param(seen(FIRST, LAST, budget=3), [], id="rescued"),
        pytest.param(seen(FIRST, AT_ONCE), [Fault.RUN_TWICE], id="two at once"),
        pytest.param(seen(ALIVE, LAST), [Fault.RUN_TWICE], id="while another lives"),
        pytest.param(seen(FIRST, LAST, AGAIN, at=29), [Fault.RUN_TWICE], id="after the end"),
        pytest.param(seen(FIRST, state="RUNNING"), [Fault.LOST], id="no container"),
        pytest.param(seen(FIRST, state="CRASHED"), [Fault.LOST], id="stayed crashed"),
        pytest.param(seen(FIRST, state="CRASHED", rescued=False), [], id="not to be rescued"),
        pytest.param(seen(FIRST, LAST, budget=0), [Fault.WRONG_CAPACITY], id="too late"),
        pytest.param(seen(FIRST, ON_DEMAND, budget=0), [], id="on demand"),
        pytest.param(seen(FIRST, ON_DEMAND, budget=1), [Fault.WRONG_CAPACITY], id="too early"),
    ],
)
def test_each_fault_is_reported_and_no_other(observed: Observation, faults: list[Fault]) -> None:
    assert {finding.fault for finding in judge(observed).findings} == set(faults)
