"""What `sweep` repairs from state, when no event told; and what it leaves alone."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import StateType
from chalicelib.core.model.policy import Mode, Policy
from chalicelib.functions.sweep import PAGE, sweep
from tests.laws.universe import Befalls, Fault, Universe
from tests.twin.prefect import InMemoryPrefect

OUT_OF_MEMORY = {
    "stop_code": "EssentialContainerExited",
    "stopped_reason": "Essential container in task exited",
    "container_reason": "OutOfMemoryError: Container killed due to memory usage",
    "exit_code": 137,
}


@pytest.fixture
def universe() -> Universe:
    return Universe()


def state_of(universe: Universe, run_id: UUID) -> Any:
    return universe.prefect.runs[run_id].state


def running(universe: Universe, **start: Any) -> tuple[UUID, Task]:
    run_id = universe.prefect.create_run()
    return run_id, universe.start(run_id, **start)


def refuse(universe: Universe, run_id: UUID) -> None:
    universe.prefect.worker_picks_up(run_id)
    universe.prefect.crash(
        run_id,
        "Flow run could not be submitted to infrastructure: Capacity is unavailable at this time.",
    )


def test_the_fast_path_goes_first(universe: Universe) -> None:
    run_id, task = running(universe)
    universe.stops(task)
    universe.passes(60)
    sweep(universe.context(), {})
    assert state_of(universe, run_id).type is StateType.RUNNING


def test_a_run_with_a_live_task_is_left_alone_whatever_its_noted_task_says(
    universe: Universe,
) -> None:
    run_id, task = running(universe, pid_noted=False)
    universe.prefect.runs[run_id].infrastructure_pid = f"{task.cluster_arn}::another-task-long-gone"
    states = list(universe.prefect.runs[run_id].states)
    universe.sweep()
    universe.passes(3700)  # by now ECS has forgotten the noted one
    universe.sweep()
    assert universe.prefect.runs[run_id].states == states


def test_an_unnoted_task_that_was_interrupted_is_found_by_its_tag(universe: Universe) -> None:
    run_id, first = running(universe)
    universe.deliver(universe.exits(first)[1])
    second = universe.start(run_id, pid_noted=False)
    universe.stops(second)
    universe.sweep()
    assert universe.prefect.is_due(run_id)
    assert universe.records().read(run_id).warned_of(second.arn)


def test_a_task_that_ecs_has_forgotten_counts_as_interrupted(universe: Universe) -> None:
    run_id, task = running(universe)
    del universe.tasks[task.arn]
    universe.sweep()
    assert state_of(universe, run_id).type is StateType.RUNNING, "ECS remembers for an hour"
    universe.passes(3700)
    universe.sweep()
    assert universe.prefect.is_due(run_id)


def test_a_forgotten_task_on_demand_is_not_rerun(universe: Universe) -> None:
    run_id = universe.prefect.create_run(job_variables={"launch_type": "FARGATE"})
    task = universe.start(run_id)
    del universe.tasks[task.arn]
    universe.passes(3700)
    universe.sweep()
    assert state_of(universe, run_id).type is StateType.CRASHED


@pytest.mark.parametrize(
    ("how", "words", "remedy"),
    [
        pytest.param(OUT_OF_MEMORY, "ran out of memory", "`memory` job variable", id="memory"),
        pytest.param(
            {
                "stop_code": "TaskFailedToStart",
                "stopped_reason": "CannotPullContainerError: no such image",
                "started_at": None,
            },
            "image could not be pulled",
            "image's name",
            id="image pull",
        ),
        pytest.param(
            {"stop_code": "TaskFailedToStart", "stopped_reason": "", "started_at": None},
            "never started",
            "ECS console",
            id="failed to start",
        ),
        pytest.param(
            {"stop_code": "UserInitiated", "stopped_reason": "ann did it"},
            "a user stopped it",
            "retry",
            id="stopped by hand",
        ),
    ],
)
def test_any_other_death_is_told_in_its_own_words(
    universe: Universe, how: dict[str, Any], words: str, remedy: str
) -> None:
    run_id, task = running(universe)
    universe.stops(task, **how)
    universe.sweep()
    state = state_of(universe, run_id)
    assert state.type is StateType.CRASHED
    assert words in state.message
    assert remedy in state.message
    if how["stopped_reason"]:
        assert str(how["stopped_reason"]) in state.message, "ECS's own reason is missing"


def test_a_cancellation_whose_task_is_gone_comes_to_its_end(universe: Universe) -> None:
    for how in (OUT_OF_MEMORY, {}):
        run_id, task = running(universe)
        universe.prefect.cancel(run_id)
        universe.stops(task, **how)
        universe.sweep()
        assert state_of(universe, run_id).type is StateType.CANCELLED


def test_a_cancellation_between_two_tasks_comes_to_its_end(universe: Universe) -> None:
    """A person cancels what waits for its rerun: no task is left that could end it."""
    run_id, task = running(universe)
    universe.deliver(universe.exits(task)[1])
    assert universe.prefect.cancel(run_id).type is StateType.CANCELLING
    universe.sweep()
    state = state_of(universe, run_id)
    assert state.type is StateType.CANCELLED
    assert "no task" in state.message


def test_a_run_that_was_picked_up_and_never_got_a_task_is_ended(universe: Universe) -> None:
    run_id = universe.prefect.create_run()
    universe.prefect.worker_picks_up(run_id)
    universe.sweep()
    state = state_of(universe, run_id)
    assert state.type is StateType.CRASHED
    assert "ECS never showed a task for it" in state.message


@pytest.mark.parametrize("oldest", [False, True], ids=["newest", "oldest"])
def test_a_run_refused_by_spot_goes_on_demand_once(universe: Universe, oldest: bool) -> None:
    universe.prefect = InMemoryPrefect(universe.clock, oldest=oldest)
    run_id = universe.prefect.create_run()
    refuse(universe, run_id)
    universe.sweep()
    assert universe.prefect.is_due(run_id)
    assert universe.prefect.runs[run_id].job_variables["launch_type"] == "FARGATE"
    refuse(universe, run_id)
    universe.sweep()
    assert state_of(universe, run_id).type is StateType.CRASHED


def test_a_paused_run_waits_and_is_rerun_when_it_is_resumed(universe: Universe) -> None:
    run_id, task = running(universe)
    universe.prefect.pause(run_id)
    universe.deliver(universe.exits(task)[1])
    universe.sweep()
    assert state_of(universe, run_id).type is StateType.PAUSED
    universe.prefect.resume(run_id)
    universe.sweep()
    assert universe.prefect.is_due(run_id)


def test_a_pause_that_was_parked_by_mistake_is_rerun_when_it_is_resumed(universe: Universe) -> None:
    run_id, task = running(universe)
    event = universe.exits(task)[1]

    def meanwhile() -> None:
        if universe.prefect.runs[run_id].state.type is StateType.RUNNING:
            universe.prefect.pause(run_id)

    universe.handle(event, Fault(Befalls.IS_OVERTAKEN, 4), meanwhile)
    assert state_of(universe, run_id).type is StateType.PAUSED
    universe.prefect.resume(run_id)
    universe.sweep()
    assert universe.prefect.is_due(run_id)


def test_a_run_that_lost_its_place_under_a_concurrency_limit_is_put_on_its_way_again(
    universe: Universe,
) -> None:
    prefect = universe.prefect
    deployment = prefect.create_deployment(concurrency_limit=1, collision="CANCEL_NEW")
    run_id = prefect.create_run(deployment_id=deployment)
    task = universe.start(run_id)
    universe.deliver(universe.exits(task)[1])
    quicker = prefect.create_run(deployment_id=deployment)
    prefect.worker_picks_up(quicker)
    assert prefect.worker_picks_up(run_id).type is StateType.CANCELLED
    universe.sweep()
    assert prefect.is_due(run_id)


def test_subflow_runs_and_theirs_end_with_their_parent(universe: Universe) -> None:
    run_id, task = running(universe)
    child = universe.prefect.create_child(run_id)
    grandchild = universe.prefect.create_child(child)
    universe.stops(task, **OUT_OF_MEMORY)
    universe.sweep()
    assert state_of(universe, child).type is StateType.RUNNING, "the parent has its grace as well"
    universe.sweep()
    assert state_of(universe, child).type is StateType.CRASHED
    assert state_of(universe, grandchild).type is StateType.CRASHED


def test_subflow_runs_of_a_run_that_is_rerun_are_left_to_it(universe: Universe) -> None:
    run_id, task = running(universe)
    child = universe.prefect.create_child(run_id)
    universe.stops(task)
    universe.sweep()
    assert state_of(universe, child).type is StateType.RUNNING


def test_observe_mode_touches_nothing() -> None:
    universe = Universe(Policy(mode=Mode.OBSERVE))
    first, task = running(universe)
    universe.stops(task)
    second, task = running(universe)
    universe.stops(task, **OUT_OF_MEMORY)
    child = universe.prefect.create_child(second)
    third = universe.prefect.create_run()
    refuse(universe, third)
    ended, task = running(universe)
    orphan = universe.prefect.create_child(ended)
    universe.stops(task)
    universe.prefect.crash(ended)
    before = {run: list(universe.prefect.runs[run].states) for run in universe.prefect.runs}
    universe.sweep()
    assert {run: universe.prefect.runs[run].states for run in before} == before
    assert {first, second, third, child, ended, orphan} == set(before)


def test_ten_thousand_runs_are_gone_through_in_several_invocations(universe: Universe) -> None:
    """A hundred runs stand for ten thousand: time is what ends an invocation, not a number."""
    runs = []
    for _ in range(250):
        run_id, task = running(universe)
        runs.append((run_id, task))
    for _, task in runs[::50]:
        universe.stops(task)
    universe.passes(300)
    invocations = 0
    while True:
        context = replace(universe.context(), seconds_left=lambda: 1.0)
        invocations += 1
        if sweep(context, {}).finished:
            break
    assert invocations >= 3
    assert all(universe.prefect.is_due(run_id) for run_id, _ in runs[::50])


def test_runs_that_were_all_due_at_one_moment_are_all_seen(universe: Universe) -> None:
    at = universe.now
    runs = []
    for _ in range(230):
        universe.now = at
        run_id = universe.prefect.create_run()
        runs.append((run_id, universe.start(run_id)))
    for _, task in runs:
        universe.stops(task)
    for _ in range(3):  # what a repair moves away from under a page is seen by the next sweep
        universe.sweep()
    assert all(universe.prefect.is_due(run_id) for run_id, _ in runs)


def test_a_run_that_was_due_just_after_a_page_of_one_moment_is_seen(universe: Universe) -> None:
    at = universe.now
    for _ in range(PAGE):
        universe.now = at
        running(universe)
    universe.now = at + timedelta(microseconds=10)
    run_id, task = running(universe)
    universe.stops(task)
    universe.sweep()
    assert universe.prefect.is_due(run_id)


def test_a_sweep_ends_although_dynamodb_throttles_the_bills(universe: Universe) -> None:
    universe.sweep()
    assert universe.wire is not None
    first = next(n for n, call in enumerate(universe.wire.calls) if call.startswith("bills."))
    report = universe.sweep(Fault(Befalls.FAILS_BEFORE, first))
    assert report is not None
    assert report.finished


def test_a_hundred_healthy_runs_cost_a_handful_of_calls(universe: Universe) -> None:
    for _ in range(100):
        running(universe)
    universe.sweep()
    assert universe.wire is not None
    of_runs = [call for call in universe.wire.calls if not call.startswith("bills.")]
    assert len(of_runs) <= 12, universe.wire.calls
    assert len(universe.wire.calls) <= 16, "the books cost the same, however many runs there are"


def test_one_run_that_cannot_be_repaired_does_not_stop_the_others(universe: Universe) -> None:
    first, task = running(universe)
    universe.stops(task)
    second, task = running(universe)
    universe.stops(task)
    held = universe.records()
    held.acquire(first, universe.now + timedelta(seconds=300), timedelta(minutes=5))
    report = universe.sweep()
    assert report is not None
    assert report.failed == 1
    assert universe.prefect.is_due(second)
    assert not universe.prefect.is_due(first)
