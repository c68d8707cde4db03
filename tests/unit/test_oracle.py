"""The oracle itself: a planted double run, lost run and wrong capacity are each reported."""

from datetime import datetime
from typing import Any

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


def faults(observation: Observation) -> list[Fault]:
    return [finding.fault for finding in judge(observation).findings]


FIRST = life(1, 0, 10)
LAST = life(2, 15, 30, interrupted_at=None, exit_code=0)


def test_a_run_that_was_rescued_is_fine() -> None:
    assert faults(seen(FIRST, LAST, budget=3)) == []


def test_two_containers_at_once_are_reported() -> None:
    assert faults(seen(FIRST, life(2, 9, 30, interrupted_at=None))) == [Fault.RUN_TWICE]


def test_a_container_that_starts_while_another_lives_is_reported() -> None:
    alive = life(1, 0, None)
    assert Fault.RUN_TWICE in faults(seen(alive, LAST))


def test_a_container_after_the_end_is_reported() -> None:
    again = life(3, 40, 50, interrupted_at=None)
    assert Fault.RUN_TWICE in faults(seen(FIRST, LAST, again, at=29))


def test_a_run_that_says_running_without_a_container_is_lost() -> None:
    assert faults(seen(FIRST, state="RUNNING")) == [Fault.LOST]


def test_a_run_that_stayed_crashed_is_lost_where_it_was_to_be_rescued() -> None:
    assert faults(seen(FIRST, state="CRASHED")) == [Fault.LOST]
    assert faults(seen(FIRST, state="CRASHED", rescued=False)) == []


def test_the_wrong_capacity_is_reported() -> None:
    on_demand = life(2, 15, 30, interrupted_at=None, capacity="FARGATE")
    assert faults(seen(FIRST, LAST, budget=0)) == [Fault.WRONG_CAPACITY]
    assert faults(seen(FIRST, on_demand, budget=0)) == []
    assert faults(seen(FIRST, on_demand, budget=1)) == [Fault.WRONG_CAPACITY]
