"""What `sweep` repairs from state, when no event was handled; and what it leaves alone."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from chalicelib.core.model.flow_run import StateType
from chalicelib.core.model.policy import Mode, Policy
from chalicelib.functions.sweep import PAGE, sweep
from tests.laws.universe import OUT_OF_MEMORY, Befalls, Tripwire, Universe
from tests.twin.orchestration import TwinRun
from tests.twin.prefect import InMemoryPrefect

HOUR = 3700


def stopped(universe: Universe, **how: Any) -> TwinRun:
    """A run whose task was interrupted, unless `how` says otherwise; no event was handled."""
    run, task = universe.running()
    universe.stops(task, **how)
    return run


def refused(universe: Universe) -> TwinRun:
    """A run for which RunTask found no Spot capacity."""
    run = universe.prefect.runs[universe.prefect.create_run()]
    refuse(universe, run)
    return run


def refuse(universe: Universe, run: TwinRun) -> None:
    universe.prefect.worker_picks_up(run.id)
    why = "Flow run could not be submitted to infrastructure: Capacity is unavailable at this time."
    universe.prefect.crash(run.id, why)


def test_events_have_a_grace_before_the_sweep(universe: Universe) -> None:
    run = stopped(universe)
    universe.passes(60)
    sweep(universe.context(), {})
    assert run.state.type is StateType.RUNNING


def test_a_run_with_a_live_task_is_left_alone_whatever_its_noted_task_says(
    universe: Universe,
) -> None:
    run, task = universe.running(pid_noted=False)
    run.infrastructure_pid = f"{task.cluster_arn}::another-task-long-gone"
    states = list(run.states)
    universe.sweep()
    universe.passes(HOUR)  # by now ECS has forgotten the noted one
    universe.sweep()
    assert run.states == states


def test_an_unnoted_task_that_was_interrupted_is_found_by_its_tag(universe: Universe) -> None:
    run, first = universe.running()
    universe.deliver(universe.exits(first)[1])
    second = universe.start(run.id, pid_noted=False)
    universe.stops(second)
    universe.sweep()
    assert universe.prefect.is_due(run.id)
    assert universe.records().read(run.id).warned_of(second.arn)


@pytest.mark.parametrize(
    ("variables", "state"),
    [({}, StateType.SCHEDULED), ({"launch_type": "FARGATE"}, StateType.CRASHED)],
    ids=["on Spot: rerun", "on demand: Crashed"],
)
def test_a_task_that_ecs_has_forgotten_was_interrupted_if_it_was_on_spot(
    universe: Universe, variables: dict[str, str], state: StateType
) -> None:
    run, task = universe.running(job_variables=variables)
    del universe.tasks[task.arn]
    universe.sweep()
    assert run.state.type is StateType.RUNNING, "ECS remembers for an hour"
    universe.passes(HOUR)
    universe.sweep()
    assert run.state.type is state


ON_EC2 = {"launch_type": "EC2"}
ON_INSTANCES = {"capacity_provider_strategy": [{"capacityProvider": "my-instances", "weight": 1}]}


@pytest.mark.parametrize("stop_code", ["TerminationNotice", "EssentialContainerExited"])
@pytest.mark.parametrize(
    "where",
    [{"launch_type": "EC2"}, {"launch_type": "EXTERNAL"}, {"capacity_provider": "my-instances"}],
    ids=str,
)
def test_a_run_whose_task_was_not_on_fargate_is_left_alone(
    universe: Universe, where: dict[str, str], stop_code: str
) -> None:
    run = stopped(universe, stop_code=stop_code, **where)
    universe.sweep()
    assert [state.type for state in run.states][-1] is StateType.RUNNING
    assert not universe.records().read(run.id).interruptions


@pytest.mark.parametrize(
    ("own", "deployed", "default"),
    [
        (ON_EC2, {}, {}),
        ({}, ON_EC2, {}),
        ({}, {}, ON_EC2),
        (ON_INSTANCES, {}, {}),
        ({}, ON_INSTANCES, {}),
        ({}, {}, ON_INSTANCES),
    ],
)
def test_nor_is_one_whose_task_is_forgotten_and_cannot_have_been_on_fargate(
    universe: Universe, own: dict[str, Any], deployed: dict[str, Any], default: dict[str, Any]
) -> None:
    universe.prefect.pool_defaults[universe.prefect.work_pool_name] |= default
    deployment_id = universe.prefect.create_deployment(job_variables=deployed)
    run, task = universe.running(deployment_id=deployment_id, job_variables=own)
    del universe.tasks[task.arn]
    universe.passes(HOUR)
    universe.sweep()
    assert run.state.type is StateType.RUNNING


@pytest.mark.parametrize(
    ("stop_code", "reason", "what", "remedy"),
    [
        ("EssentialContainerExited", "OutOfMemoryError: x", "out of memory", "job variable"),
        ("TaskFailedToStart", "CannotPullContainerError: x", "could not be pulled", "image's name"),
        ("TaskFailedToStart", "", "never started", "ECS console"),
        ("TaskFailedToStart", "CannotPullContainerError: a: not found", "not found", "tag"),
        ("UserInitiated", "ann did it", "a user stopped it", "retry"),
        ("UserInitiated", "OutOfMemory? Rate exceeded?", "a user stopped it", "retry"),
    ],
)
def test_a_run_that_ended_otherwise_is_crashed_with_reason_and_remedy(
    universe: Universe, stop_code: str, reason: str, what: str, remedy: str
) -> None:
    run = stopped(universe, stop_code=stop_code, stopped_reason=reason, container_reason="so it is")
    universe.sweep()
    assert run.state.type is StateType.CRASHED
    for part in (what, remedy, reason, "so it is"):
        assert part in run.state.message


def test_a_cancellation_between_two_tasks_comes_to_its_end(universe: Universe) -> None:
    """A person cancels what waits for its rerun: no task is left that could end it."""
    run, task = universe.running()
    universe.deliver(universe.exits(task)[1])
    assert universe.prefect.cancel(run.id).type is StateType.CANCELLING
    universe.sweep()
    assert run.state.type is StateType.CANCELLED
    assert "no task" in run.state.message


def test_a_run_that_never_gets_a_task_is_started_again_twice_and_then_crashed(
    universe: Universe,
) -> None:
    run = universe.prefect.runs[universe.prefect.create_run()]
    for _ in range(3):
        universe.prefect.worker_picks_up(run.id)
        universe.passes(HOUR)
        universe.sweep()
        universe.passes(200)
    assert [state.type for state in run.states].count(StateType.PENDING) == 3
    assert run.state.type is StateType.CRASHED
    assert "ECS never showed a task for it" in run.state.message


@pytest.mark.parametrize("oldest", [False, True], ids=["newest Prefect", "oldest Prefect"])
def test_a_run_refused_by_spot_goes_on_demand_once(universe: Universe, oldest: bool) -> None:
    universe.prefect = InMemoryPrefect(universe.clock, oldest=oldest)
    run = refused(universe)
    universe.sweep()
    assert universe.prefect.is_due(run.id)
    assert run.job_variables["launch_type"] == "FARGATE"
    refuse(universe, run)
    universe.sweep()
    assert run.state.type is StateType.CRASHED


@pytest.mark.parametrize("parked", [False, True], ids=["in time", "while it was being parked"])
def test_a_paused_run_waits_and_is_rerun_when_it_is_resumed(
    universe: Universe, parked: bool
) -> None:
    run, task = universe.running()
    event = universe.exits(task)[1]

    def pauses() -> None:
        if run.state.type is StateType.RUNNING:
            universe.prefect.pause(run.id)

    universe.handle(event, Tripwire(Befalls.IS_OVERTAKEN, 4 if parked else 0, pauses))
    universe.sweep()
    assert run.state.type is StateType.PAUSED
    assert (StateType.SCHEDULED in [s.type for s in run.states[1:]]) == parked
    universe.prefect.resume(run.id)
    universe.sweep()
    assert universe.prefect.is_due(run.id)


def test_a_rerun_that_a_concurrency_limit_cancelled_is_made_due_again(universe: Universe) -> None:
    prefect = universe.prefect
    deployment = prefect.create_deployment(concurrency_limit=1, collision="CANCEL_NEW")
    run, task = universe.running(deployment_id=deployment)
    universe.deliver(universe.exits(task)[1])
    prefect.worker_picks_up(prefect.create_run(deployment_id=deployment))
    assert prefect.worker_picks_up(run.id).type is StateType.CANCELLED
    universe.sweep()
    assert prefect.is_due(run.id)


def test_subflow_runs_and_theirs_end_with_their_parent(universe: Universe) -> None:
    run = stopped(universe, **OUT_OF_MEMORY)
    child = universe.prefect.create_child(run.id)
    family = [universe.prefect.runs[r] for r in (child, universe.prefect.create_child(child))]
    universe.sweep()
    assert family[0].state.type is StateType.RUNNING, "the parent has its grace as well"
    universe.sweep()
    assert [each.state.type for each in family] == [StateType.CRASHED] * 2


def test_subflow_runs_of_a_run_that_is_rerun_are_left_to_it(universe: Universe) -> None:
    run = stopped(universe)
    child = universe.prefect.runs[universe.prefect.create_child(run.id)]
    universe.sweep()
    assert child.state.type is StateType.RUNNING


def test_observe_mode_touches_nothing() -> None:
    universe = Universe(Policy(mode=Mode.OBSERVE))
    stopped(universe)
    refused(universe)
    for ended in (stopped(universe, **OUT_OF_MEMORY), stopped(universe)):
        universe.prefect.create_child(ended.id)
    universe.prefect.crash(ended.id)
    runs = universe.prefect.runs.values()
    before = [list(run.states) for run in runs]
    universe.sweep()
    assert [run.states for run in runs] == before
    assert len(before) == 6


def test_more_runs_than_time_allows_take_several_invocations(universe: Universe) -> None:
    """Time is what ends an invocation, not a number of runs."""
    started = [universe.running() for _ in range(250)]
    for _, task in started[::50]:
        universe.stops(task)
    universe.passes(300)
    invocations = 1
    while not sweep(replace(universe.context(), seconds_left=lambda: 1.0), {}).finished:
        invocations += 1
    assert invocations >= 3
    assert all(universe.prefect.is_due(run.id) for run, _ in started[::50])


def test_runs_that_were_all_due_at_one_moment_are_all_seen(universe: Universe) -> None:
    at, started = universe.now, []
    for _ in range(230):
        universe.now = at
        started.append(universe.running())
    for _, task in started:
        universe.stops(task)
    for _ in range(3):  # what a repair moves away from under a page is seen by the next sweep
        universe.sweep()
    assert all(universe.prefect.is_due(run.id) for run, _ in started)


def test_a_run_that_was_due_just_after_a_page_of_one_moment_is_seen(universe: Universe) -> None:
    at = universe.now
    for _ in range(PAGE):
        universe.now = at
        universe.running()
    universe.now = at + timedelta(microseconds=10)
    run = stopped(universe)
    universe.sweep()
    assert universe.prefect.is_due(run.id)


def test_a_sweep_ends_although_dynamodb_throttles_the_bills(universe: Universe) -> None:
    universe.sweep()
    first = next(n for n, call in enumerate(universe.calls) if call.startswith("bills."))
    report = universe.sweep(Tripwire(Befalls.FAILS_BEFORE, first))
    assert report is not None
    assert report.finished


def test_a_hundred_healthy_runs_cost_a_handful_of_calls(universe: Universe) -> None:
    for _ in range(100):
        universe.running()
    universe.sweep()
    of_runs = [call for call in universe.calls if not call.startswith("bills.")]
    assert len(of_runs) <= 12, universe.calls
    assert len(universe.calls) <= 16, "bills cost the same, however many runs there are"


def test_one_run_that_cannot_be_repaired_does_not_stop_the_others(universe: Universe) -> None:
    held, free = stopped(universe), stopped(universe)
    lease_begins = universe.now + timedelta(seconds=300)
    universe.records().acquire(held.id, lease_begins, timedelta(minutes=5))
    report = universe.sweep()
    assert report is not None
    assert report.failed == 1
    assert universe.prefect.is_due(free.id)
    assert not universe.prefect.is_due(held.id)
