"""What goes into the run record, and what follows: the budget, the lost starts, the capacity."""

from dataclasses import replace

import pytest

from chalicelib.core.model.flow_run import RunPolicy, StateType
from chalicelib.core.model.policy import Policy, budget_of
from chalicelib.core.rescue.capacity import choose_capacity, record_interruption
from tests.make import NEWER_TASK_ARN, TASK_ARN, make_run, make_snapshot, make_state, make_task


def test_state_and_tags_that_were_decided_by_are_kept() -> None:
    ours = ("spot-retries:2", "spot:rerun", "spot:never-rerun", "spot-deadline:1h30m")
    others = ("mine", "spot-interrupted", "spot-on-demand", "spot-retries:x", "spot-deadline:soon")
    tags = (*ours, *others)
    crashed = make_run(state=make_state(StateType.CRASHED), tags=tags)
    noted = choose_capacity(make_snapshot(run=crashed)).record.interruptions[TASK_ARN]
    assert (noted.run_state, noted.tags) == ("CRASHED", ours)


def test_where_nothing_is_rerun_the_state_at_the_exit_is_kept() -> None:
    completed = make_snapshot(run=make_run(state=make_state(StateType.COMPLETED)))
    noted = record_interruption(completed)
    assert noted.record.interruptions[TASK_ARN].run_state == "COMPLETED"
    crashed = make_run(state=make_state(StateType.CRASHED))
    assert record_interruption(replace(noted, run=crashed)).record == noted.record


def test_an_interruption_while_an_own_retry_waits_costs_no_start() -> None:
    waiting = make_state(StateType.SCHEDULED, name="AwaitingRetry", message="Flow run failed")
    snapshot = make_snapshot(
        run=make_run(state=waiting, policy=RunPolicy(retries=2, retry_type="in_process"))
    )
    assert choose_capacity(snapshot).record.lost_starts == 0


def test_a_run_that_rescheduled_itself_lost_a_start() -> None:
    itself = make_state(StateType.SCHEDULED, name="AwaitingRetry")
    snapshot = make_snapshot(
        run=make_run(state=itself, policy=RunPolicy(retries=2, retry_type="in_process"))
    )
    assert choose_capacity(snapshot).record.lost_starts == 1


def test_a_start_that_prefect_will_not_count_again_is_not_lost() -> None:
    resuming = RunPolicy(retries=2, others={"resuming": True})
    snapshot = make_snapshot(run=make_run(policy=resuming))
    assert choose_capacity(snapshot).record.lost_starts == 0


def test_a_run_that_never_started_lost_none() -> None:
    pending = make_state(StateType.PENDING)
    snapshot = make_snapshot(
        run=make_run(state=pending, run_count=0, policy=RunPolicy()), history=(pending,)
    )
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


def test_a_task_that_was_on_demand_is_rerun_on_demand() -> None:
    drilled = make_task(capacity_provider="", stopped_reason="prefect-spot drill 1")
    assert choose_capacity(make_snapshot(task=drilled)).record.next_capacity == "FARGATE"


def test_interruptions_are_a_set_not_a_count() -> None:
    once = choose_capacity(make_snapshot())
    twice = choose_capacity(once)
    assert twice.record == once.record
    assert [i.number for i in twice.record.interruptions.values()] == [1]
