"""The deadline of runs that have not started: what `sweep` moves, what it leaves, what it costs."""

from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from chalicelib.core.model.flow_run import StateType
from chalicelib.core.model.policy import ON_FARGATE, STRATEGY, Mode, Policy
from tests.laws.universe import Befalls, Tripwire, Universe
from tests.twin.orchestration import TwinRun

TIGHT = "spot-deadline:25m"
WORK = 800.0
"""Seconds: twice that and two restart overheads do not fit into 25 minutes, but into 30."""


def waiting(
    universe: Universe,
    *tags: str,
    ahead: float = 600,
    deployment_id: UUID | None = None,
    **variables: Any,
) -> TwinRun:
    """A run that is due in so many seconds, after one of its deployment that took `WORK`."""
    run_id = universe.prefect.create_run(
        deployment_id=deployment_id or universe.deployment_after(WORK),
        tags=tags,
        due=universe.now + timedelta(seconds=ahead),
        job_variables=variables,
    )
    return universe.prefect.runs[run_id]


def starts_on(universe: Universe, run: TwinRun) -> str:
    assert run.next_start is not None
    universe.now = max(universe.now, run.next_start)
    return universe.start(run.id).capacity


def test_a_run_whose_attempt_on_spot_might_be_late_starts_on_demand(universe: Universe) -> None:
    run = waiting(universe, TIGHT, "mine", cpu=512)
    states = list(run.states)
    universe.sweep()
    assert run.states == states, "it was moved without being rescheduled"
    assert run.tags == (TIGHT, "mine", "spot-on-demand")
    assert run.job_variables["cpu"] == 512
    assert run.labels["prefect-spot.capacity"] == "FARGATE"
    assert starts_on(universe, run) == "FARGATE"


@pytest.mark.parametrize("inherited_from", ["", "deployment", "pool"])
def test_a_strategy_is_displaced_where_one_is_inherited_and_else_none_is_named(
    universe: Universe, inherited_from: str
) -> None:
    on_spot = {STRATEGY: [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]}
    if inherited_from == "pool":
        universe.prefect.pool_defaults[universe.prefect.work_pool_name] |= on_spot
    deployed = on_spot if inherited_from == "deployment" else {}
    run = waiting(universe, TIGHT, deployment_id=universe.deployment_after(WORK, **deployed))
    universe.sweep()
    displacing = {STRATEGY: [ON_FARGATE]} if inherited_from else {}
    assert run.job_variables == {"launch_type": "FARGATE", **displacing}


@pytest.mark.parametrize("why", ["EC2", "no deployment any more"])
def test_what_cannot_be_moved_is_left_alone(universe: Universe, why: str) -> None:
    deployment_id = universe.deployment_after(WORK, launch_type=why)
    run = waiting(universe, TIGHT, deployment_id=deployment_id)
    if why != "EC2":
        universe.prefect.delete_deployment(deployment_id)
    universe.sweep()
    assert (run.tags, run.job_variables) == ((TIGHT,), {})
    assert universe.records().read(run.id).moved is None


def test_the_guard_and_its_reason_are_annotated_once(universe: Universe) -> None:
    run = waiting(universe, TIGHT)
    universe.sweep()
    universe.sweep()
    [(key, artifact)] = universe.prefect.artifacts_of(run.id)
    [(_, line)] = universe.prefect.logs_of(run.id)
    assert key == f"spot-deadline-{str(run.id)[:8]}"
    assert "**Why:** deadline\\:" in artifact
    assert "Why: deadline: an attempt on Spot may need 33.6 min" in line
    assert [name for _, name in universe.prefect.events_of(run.id)] == ["prefect-spot.on-demand"]
    assert universe.records().read(run.id).next_capacity == "FARGATE"


LEFT_ALONE: dict[str, tuple[tuple[str, ...], bool, dict[str, str]]] = {
    "no deadline": ((), True, {}),
    "ample": (("spot-deadline:40m",), True, {}),
    "cannot be read": (("spot-deadline:soon",), True, {}),
    "never to be rerun": ((TIGHT, "spot:never-rerun"), True, {}),
    "no previous run has completed": ((TIGHT,), False, {}),
    "on demand already": ((TIGHT,), True, {"launch_type": "FARGATE"}),
}


@pytest.mark.parametrize(("tags", "has_past", "variables"), LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_any_other_run_is_left_alone(
    universe: Universe, tags: tuple[str, ...], has_past: bool, variables: dict[str, Any]
) -> None:
    deployment_id = None if has_past else universe.prefect.create_deployment()
    run = waiting(universe, *tags, deployment_id=deployment_id, **variables)
    universe.sweep()
    assert (run.tags, run.job_variables) == (tags, variables)
    assert universe.prefect.artifacts_of(run.id) == []


@pytest.mark.parametrize(
    ("tag", "ahead", "sweeps"),
    [(TIGHT, 3600, 9), ("spot-deadline:47m", 0, 3)],
    ids=["once it is due soon", "once it has waited too long"],
)
def test_a_run_is_moved_no_earlier_than_it_has_to_be(
    universe: Universe, tag: str, ahead: float, sweeps: int
) -> None:
    run = waiting(universe, tag, ahead=ahead)
    for _ in range(sweeps - 1):
        universe.sweep()
    assert not run.job_variables
    universe.sweep()
    assert starts_on(universe, run) == "FARGATE"


def test_in_observe_mode_nothing_but_the_annotation_is_written() -> None:
    universe = Universe(Policy(mode=Mode.OBSERVE))
    run = waiting(universe, TIGHT)
    universe.sweep()
    universe.sweep()
    assert (run.job_variables, run.tags, run.labels) == ({}, (TIGHT,), {})
    [(_, line)] = universe.prefect.logs_of(run.id)
    assert "Next: would start on FARGATE" in line
    assert starts_on(universe, run) == "FARGATE_SPOT"


def test_a_worker_that_is_faster_keeps_the_run_and_nothing_says_that_it_was_moved(
    universe: Universe, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = waiting(universe, TIGHT, ahead=300)
    change_run = universe.prefect.change_run

    def picked_up_just_before(*arguments: Any) -> None:
        universe.prefect.worker_picks_up(run.id)
        change_run(*arguments)

    monkeypatch.setattr(universe.prefect, "change_run", picked_up_just_before)
    report = universe.sweep()
    assert report is not None
    assert "on-demand-before-start" not in report.decisions
    record = universe.records().read(run.id)
    assert (record.moved, record.next_capacity) == (None, "")
    assert universe.prefect.artifacts_of(run.id) == []
    assert run.state.type is StateType.PENDING


def test_a_run_whose_lease_is_held_is_left_to_the_next_sweep(universe: Universe) -> None:
    held, free = waiting(universe, TIGHT, ahead=900), waiting(universe, TIGHT, ahead=900)
    universe.records().acquire(held.id, universe.now, timedelta(seconds=310))
    report = universe.sweep()
    assert report is not None
    assert report.finished
    assert report.decisions["on-demand-before-start"] == 1
    assert (held.job_variables, free.job_variables["launch_type"]) == ({}, "FARGATE")
    universe.sweep()
    assert held.job_variables["launch_type"] == "FARGATE"


@pytest.mark.parametrize("befalls", [Befalls.DIES_BEFORE, Befalls.DIES_AFTER])
def test_wherever_a_sweep_dies_the_next_ones_move_and_annotate_the_run(befalls: Befalls) -> None:
    undisturbed = Universe()
    waiting(undisturbed, TIGHT)
    undisturbed.sweep()
    for call in range(len(undisturbed.calls)):
        universe = Universe()
        run = waiting(universe, TIGHT, ahead=1100)
        universe.sweep(Tripwire(befalls, call))
        universe.sweep()
        universe.sweep()
        assert universe.prefect.artifacts_of(run.id), call
        moved = universe.records().read(run.id).moved
        assert moved is not None
        assert moved.annotated
        assert starts_on(universe, run) == "FARGATE"


def test_without_a_deadline_a_sweep_reads_the_waiting_runs_and_nothing_more() -> None:
    empty, full = Universe(), Universe()
    for _ in range(5):
        waiting(full, "mine")
    full.sweep()
    empty.sweep()
    assert full.calls == empty.calls


def test_a_page_costs_one_reading_of_the_past_for_each_deployment(universe: Universe) -> None:
    deployment_id = universe.deployment_after(WORK)
    for _ in range(7):
        waiting(universe, "spot-deadline:9h", deployment_id=deployment_id)
    universe.sweep()
    calls = universe.calls
    assert calls.count("records.read_many") == 1
    assert calls.count("prefect.find_completed_runs") == 1
    assert calls.count("prefect.read_task_runs") == 1
    assert "records.acquire" not in calls


def test_a_moved_run_that_is_interrupted_all_the_same_goes_on_demand_and_says_why(
    universe: Universe,
) -> None:
    """A worker had read it just before, and held the variables that it had then."""
    run = waiting(universe, TIGHT)
    universe.sweep()
    universe.passes(600)
    task = replace(universe.start(run.id), capacity_provider="FARGATE_SPOT")
    universe.deliver(universe.exits(task)[1])
    assert universe.start(run.id).capacity == "FARGATE"
    _, line = universe.prefect.logs_of(run.id)[-1]
    assert "Why: deadline: an attempt on Spot may need" in line
    assert "as was decided before its start" in line
