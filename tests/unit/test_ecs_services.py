"""The emulated circuit breaker counts what the ECS developer guide counts, and nothing else."""

from typing import Any

import pytest

from localcloud.ecs_services import UNHEALTHY, failures_of, threshold
from tests.make import NOW, seconds


def task(started: float | None, stopped: float | None, *, health: str = "UNKNOWN") -> Any:
    """A task with its times in seconds; `health`: what its check came to."""
    reason = UNHEALTHY if health == "UNHEALTHY" else "Essential container in task exited"
    code = "TaskFailedToStart" if started is None else "EssentialContainerExited"
    began = {} if started is None else {"startedAt": NOW + seconds(started)}
    ended = {"stoppedAt": NOW + seconds(stopped or 0), "stopCode": code, "stoppedReason": reason}
    return {"healthStatus": health, **began, **(ended if stopped else {})}


def unstarted(stopped: float) -> Any:
    return task(None, stopped)


def unhealthy(started: float) -> Any:
    return task(started, started + 9, health="UNHEALTHY")


@pytest.mark.parametrize(
    ("desired", "failures"),
    [(0, 3), (1, 3), (6, 3), (7, 4), (25, 13), (400, 200), (800, 200)],
)
def test_half_of_the_desired_tasks_break_the_circuit_within_bounds(
    desired: int, failures: int
) -> None:
    assert threshold(desired) == failures


@pytest.mark.parametrize(
    ("tasks", "failures"),
    [
        pytest.param([unstarted(1), unstarted(2), unstarted(3)], 3, id="none starts"),
        pytest.param([task(1, 2), task(3, 4), task(5, 6)], 0, id="each starts and exits at once"),
        pytest.param(
            [unstarted(1), unstarted(2), task(3, 4), unstarted(5)], 1, id="one that started between"
        ),
        pytest.param([task(1, None), unstarted(2), unstarted(3)], 0, id="beside one that runs"),
        pytest.param([unhealthy(1), unhealthy(11), unhealthy(21)], 3, id="each is unhealthy"),
        pytest.param(
            [unhealthy(1), unhealthy(11), task(21, 22), unhealthy(31)], 3, id="an exit between"
        ),
        pytest.param(
            [unhealthy(1), unhealthy(11), task(21, 22, health="HEALTHY"), unhealthy(31)],
            1, id="a healthy one between",
        ),
    ],
)  # fmt: skip
def test_only_tasks_that_never_run_or_are_unhealthy_count_one_after_the_other(
    tasks: list[Any], failures: int
) -> None:
    assert failures_of(tasks, is_checked=True) == failures


def test_without_a_health_check_every_task_that_runs_is_a_healthy_one() -> None:
    tasks = [unhealthy(1), unstarted(15), task(21, 22)]
    assert failures_of(tasks, is_checked=False) == 0
