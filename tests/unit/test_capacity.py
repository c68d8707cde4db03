"""Spot or FARGATE, and what goes into the run record: budget, lost starts, state and tags."""

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.core.model.flow_run import RunPolicy, StateType
from chalicelib.core.model.policy import Policy, budget_of
from chalicelib.core.rescue.capacity import choose_capacity, record_interruption
from chalicelib.core.rescue.snapshot import Gone, Refusal
from tests.make import (
    CLUSTER_ARN,
    NEWER_TASK_ARN,
    TASK_ARN,
    make_run,
    make_snapshot,
    make_state,
    make_task,
)


def test_state_and_tags_that_were_decided_by_are_kept() -> None:
    ours = ("spot-retries:2", "spot:rerun", "spot:never-rerun", "spot-deadline:1h30m")
    others = ("mine", "spot-interrupted", "spot-on-demand", "spot-retries:x", "spot-deadline:soon")
    crashed = make_run(state=make_state(StateType.CRASHED), tags=(*ours, *others))
    kept = choose_capacity(make_snapshot(run=crashed)).record.interruptions[TASK_ARN]
    assert (kept.run_state, kept.tags) == ("CRASHED", ours)


def test_where_nothing_is_rerun_the_state_at_the_exit_is_kept() -> None:
    completed = make_snapshot(run=make_run(state=make_state(StateType.COMPLETED)))
    recorded = record_interruption(completed)
    assert recorded.record.interruptions[TASK_ARN].run_state == "COMPLETED"
    crashed = make_run(state=make_state(StateType.CRASHED))
    assert record_interruption(replace(recorded, run=crashed)).record == recorded.record


def waiting(policy: RunPolicy, **state: Any) -> dict[str, Any]:
    """The run waits for its next start, whether the flow or Prefect rescheduled it."""
    return {
        "state": make_state(StateType.SCHEDULED, name="AwaitingRetry", **state),
        "policy": policy,
    }


@pytest.mark.parametrize(
    ("run", "lost"),
    [
        pytest.param({}, 1, id="it ran"),
        pytest.param(
            waiting(RunPolicy(2, "in_process"), message="Flow run failed"), 0, id="its own retry"
        ),
        pytest.param(waiting(RunPolicy(2, "in_process")), 1, id="it rescheduled itself"),
        pytest.param(
            {"policy": RunPolicy(2, others={"resuming": True})}, 0, id="Prefect will not count it"
        ),
    ],
)
def test_a_start_is_lost_if_prefect_counts_one_more_for_the_rerun(
    run: dict[str, Any], lost: int
) -> None:
    assert choose_capacity(make_snapshot(run=make_run(**run))).record.lost_starts == lost


def test_a_run_that_never_started_lost_none() -> None:
    pending = make_state(StateType.PENDING)
    run = make_run(state=pending, run_count=0, policy=RunPolicy())
    snapshot = make_snapshot(run=run, history=(pending,))
    assert choose_capacity(snapshot).record.lost_starts == 0


@pytest.mark.parametrize(
    ("tags", "own_retries", "allowed"),
    [
        pytest.param(("spot-retries:7",), 2, 7, id="the tag wins"),
        pytest.param(("spot-retries:0",), 2, 0, id="zero is a number"),
        pytest.param(("spot-retries:many",), 2, 2, id="a tag without a number is passed over"),
        pytest.param(("spot-retries:-1",), 0, 5, id="a negative number too"),
        pytest.param((), 2, 2, id="the flow's own retries"),
        pytest.param((), 0, 5, id="own retries of 0 do not count"),
        pytest.param((), None, 5, id="unknown own retries: the setting"),
    ],
)
def test_the_budget(tags: tuple[str, ...], own_retries: int | None, allowed: int) -> None:
    assert budget_of(tags, own_retries, Policy(spot_retries=5)).allowed == allowed


@pytest.mark.parametrize(
    ("allowed", "capacity"), [(2, "FARGATE_SPOT"), (1, "FARGATE")], ids=["the last", "one more"]
)
def test_the_last_interruption_within_the_budget_is_rerun_on_spot(
    allowed: int, capacity: str
) -> None:
    run = make_run(tags=(f"spot-retries:{allowed}",))
    first = choose_capacity(make_snapshot(run=run))
    second = choose_capacity(replace(first, subject=make_task(arn=NEWER_TASK_ARN)))
    assert second.record.next_capacity == capacity


@pytest.mark.parametrize(
    ("subject", "recorded", "capacity"),
    [
        pytest.param(
            Gone(TASK_ARN, CLUSTER_ARN, "FARGATE_SPOT", True), 1, "FARGATE_SPOT", id="gone"
        ),
        pytest.param(Refusal(), 0, "FARGATE", id="a refusal is no interruption"),
        pytest.param(
            make_task(capacity_provider="", stopped_reason="prefect-spot drill 1"),
            1,
            "FARGATE",
            id="a drill of a task on demand",
        ),
    ],
)
def test_what_ended_decides_where_it_is_rerun(subject: Any, recorded: int, capacity: str) -> None:
    record = choose_capacity(make_snapshot(subject=subject)).record
    assert (len(record.interruptions), record.next_capacity) == (recorded, capacity)


def test_interruptions_are_a_set_not_a_count() -> None:
    once = choose_capacity(make_snapshot())
    twice = choose_capacity(once)
    assert twice.record == once.record
    assert [i.number for i in twice.record.interruptions.values()] == [1]
