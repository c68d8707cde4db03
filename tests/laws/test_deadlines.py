"""The deadline of runs that have not started: what `sweep` moves, what it leaves, what it costs."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from chalicelib.core.model.flow_run import StateType
from chalicelib.core.model.policy import Mode, Policy
from chalicelib.core.money.daily_sums import total
from chalicelib.functions.sweep import sweep
from tests.laws.guarded import after_a_run_of
from tests.laws.universe import Befalls, Fault, Universe

TIGHT = "spot-deadline:25m"
WORK = 800.0
"""Seconds: twice that and two changeovers do not fit into 25 minutes, but into 30."""


@pytest.fixture
def universe() -> Universe:
    return Universe()


def waiting(
    universe: Universe,
    *tags: str,
    ahead: float = 600,
    deployment_id: UUID | None = None,
    **variables: Any,
) -> UUID:
    """A run that is due in so many seconds, after one of its like that took `WORK`."""
    return universe.prefect.create_run(
        deployment_id=deployment_id or after_a_run_of(universe, WORK),
        tags=tags,
        due=universe.now + timedelta(seconds=ahead),
        job_variables=variables,
    )


def starts_on(universe: Universe, run_id: UUID) -> str:
    due = universe.prefect.runs[run_id].next_start
    assert due is not None
    universe.now = max(universe.now, due)
    return universe.start(run_id).capacity


def test_a_run_whose_attempt_on_spot_might_be_late_starts_on_demand(universe: Universe) -> None:
    run_id = waiting(universe, TIGHT, "mine", cpu=512)
    states = list(universe.prefect.runs[run_id].states)
    universe.sweep()
    run = universe.prefect.runs[run_id]
    assert run.states == states, "it was moved without being rescheduled"
    assert run.tags == (TIGHT, "mine", "spot-on-demand")
    assert run.job_variables["cpu"] == 512
    assert run.labels["prefect-spot.capacity"] == "FARGATE"
    assert starts_on(universe, run_id) == "FARGATE"


def test_people_are_told_once_which_guard_it_was_and_why(universe: Universe) -> None:
    run_id = waiting(universe, TIGHT)
    universe.sweep()
    universe.sweep()
    [(key, artifact)] = universe.prefect.artifacts_of(run_id)
    [(_, line)] = universe.prefect.logs_of(run_id)
    assert key == f"spot-deadline-{str(run_id)[:8]}"
    assert "**Why:** deadline\\:" in artifact
    assert "Why: deadline: an attempt on Spot may need 33.6 min" in line
    assert [name for _, name in universe.prefect.events_of(run_id)] == ["prefect-spot.on-demand"]
    assert universe.records().read(run_id).next_capacity == "FARGATE"


@pytest.mark.parametrize(
    ("tags", "has_past"),
    [
        pytest.param((), True, id="no deadline"),
        pytest.param(("spot-deadline:40m",), True, id="ample"),
        pytest.param(("spot-deadline:soon",), True, id="cannot be read"),
        pytest.param((TIGHT, "spot:never-rerun"), True, id="never to be rescued"),
        pytest.param((TIGHT,), False, id="no previous run has completed"),
    ],
)
def test_any_other_run_is_left_alone(
    universe: Universe, tags: tuple[str, ...], has_past: bool
) -> None:
    deployment_id = None if has_past else universe.prefect.create_deployment()
    run_id = waiting(universe, *tags, deployment_id=deployment_id)
    universe.sweep()
    assert universe.prefect.runs[run_id].tags == tags
    assert starts_on(universe, run_id) == "FARGATE_SPOT"


def test_one_that_is_due_later_is_looked_at_later(universe: Universe) -> None:
    run_id = waiting(universe, TIGHT, ahead=3600)
    universe.sweep()
    assert not universe.prefect.runs[run_id].job_variables
    universe.passes(2400)
    universe.sweep()
    assert starts_on(universe, run_id) == "FARGATE"


def test_one_that_waits_too_long_is_moved_when_it_has_become_late(universe: Universe) -> None:
    run_id = waiting(universe, "spot-deadline:47m", ahead=0)
    universe.sweep()
    universe.sweep()
    assert not universe.prefect.runs[run_id].job_variables
    universe.sweep()
    assert starts_on(universe, run_id) == "FARGATE"


def test_a_run_that_is_on_demand_already_is_not_told_of(universe: Universe) -> None:
    run_id = waiting(universe, TIGHT, launch_type="FARGATE")
    universe.sweep()
    assert universe.prefect.artifacts_of(run_id) == []


def test_in_observe_mode_nothing_is_touched_and_it_is_told_once(universe: Universe) -> None:
    universe.policy = Policy(mode=Mode.OBSERVE)
    run_id = waiting(universe, TIGHT)
    universe.sweep()
    universe.sweep()
    run = universe.prefect.runs[run_id]
    assert (run.job_variables, run.tags, run.labels) == ({}, (TIGHT,), {})
    [(_, line)] = universe.prefect.logs_of(run_id)
    assert "Next: would start on FARGATE" in line
    assert starts_on(universe, run_id) == "FARGATE_SPOT"


def test_a_worker_that_is_faster_keeps_the_run_and_nothing_says_that_it_was_moved(
    universe: Universe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = waiting(universe, TIGHT, ahead=300)
    change_run = universe.prefect.change_run

    def picked_up_just_before(*arguments: Any) -> None:
        universe.prefect.worker_picks_up(run_id)
        change_run(*arguments)

    monkeypatch.setattr(universe.prefect, "change_run", picked_up_just_before)
    report = universe.sweep()
    assert report is not None
    assert "on-demand-before-start" not in report.decisions
    assert universe.records().read(run_id).moved is None
    assert universe.records().read(run_id).next_capacity == ""
    assert universe.prefect.artifacts_of(run_id) == []
    assert universe.prefect.runs[run_id].state.type is StateType.PENDING


def test_a_run_that_another_handler_has_is_left_to_the_next_sweep_and_ends_no_sweep(
    universe: Universe,
) -> None:
    held, free = waiting(universe, TIGHT, ahead=900), waiting(universe, TIGHT, ahead=900)
    universe.records().acquire(held, universe.now, timedelta(seconds=310))
    report = universe.sweep()
    assert report is not None
    assert report.finished
    assert report.decisions["on-demand-before-start"] == 1
    assert universe.prefect.runs[held].job_variables == {}
    assert universe.prefect.runs[free].job_variables["launch_type"] == "FARGATE"
    universe.sweep()
    assert universe.prefect.runs[held].job_variables["launch_type"] == "FARGATE"


@pytest.mark.parametrize("befalls", [Befalls.DIES_BEFORE, Befalls.DIES_AFTER])
def test_wherever_a_sweep_dies_the_next_ones_end_it_and_it_is_told(befalls: Befalls) -> None:
    undisturbed = Universe()
    waiting(undisturbed, TIGHT)
    undisturbed.sweep()
    assert undisturbed.wire is not None
    for call in range(len(undisturbed.wire.calls)):
        universe = Universe()
        run_id = waiting(universe, TIGHT, ahead=1100)
        universe.sweep(Fault(befalls, call))
        universe.sweep()
        universe.sweep()
        assert universe.prefect.artifacts_of(run_id), call
        record = universe.records().read(run_id)
        assert record.moved is not None
        assert record.moved.annotated
        assert starts_on(universe, run_id) == "FARGATE"


def calls_of_a_sweep(universe: Universe) -> list[str]:
    universe.passes(300)
    sweep(universe.context(), {})
    assert universe.wire is not None
    return universe.wire.calls


def test_without_a_deadline_a_sweep_asks_for_the_waiting_runs_and_for_nothing_more() -> None:
    empty, full = Universe(), Universe()
    for _ in range(5):
        waiting(full, "mine")
    assert calls_of_a_sweep(full) == calls_of_a_sweep(empty)


def test_a_page_costs_one_reading_of_the_past_for_each_deployment(universe: Universe) -> None:
    deployment_id = after_a_run_of(universe, WORK)
    for _ in range(7):
        waiting(universe, "spot-deadline:9h", deployment_id=deployment_id)
    calls = calls_of_a_sweep(universe)
    assert calls.count("records.read_many") == 1
    assert calls.count("prefect.find_completed_runs") == 1
    assert calls.count("prefect.read_task_runs") == 1
    assert "records.acquire" not in calls


def test_a_moved_run_that_is_interrupted_all_the_same_goes_on_demand_and_says_why(
    universe: Universe,
) -> None:
    """A worker had asked for it just before, and held the variables that it had then."""
    run_id = waiting(universe, TIGHT)
    universe.sweep()
    universe.passes(600)
    task = replace(universe.start(run_id), capacity_provider="FARGATE_SPOT")
    universe.tasks[task.arn] = task
    universe.deliver(universe.exits(task)[1])
    assert universe.start(run_id).capacity == "FARGATE"
    _, line = universe.prefect.logs_of(run_id)[-1]
    assert "Why: deadline: an attempt on Spot may need" in line
    assert "as was decided before its start" in line


@pytest.mark.parametrize("mode", [Mode.RESCUE, Mode.OBSERVE])
def test_a_run_that_was_or_would_have_been_moved_is_counted_by_its_first_bill(
    universe: Universe, mode: Mode
) -> None:
    universe.policy = Policy(mode=mode)
    run_id = waiting(universe, TIGHT)
    universe.sweep()
    universe.passes(600)
    task = universe.start(run_id)
    universe.stops(task, stop_code="EssentialContainerExited", stopped_reason="done")
    universe.meter(universe.end_of(task))
    universe.meter(universe.end_of(task))
    counts = total(universe.sums())
    assert (counts.deadline_moves, counts.on_demand_reruns) == (1, 0)
