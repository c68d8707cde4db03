"""What goes into the run record: state, tags, lost starts; and the budget.

Where a rerun goes is in `test_decide.py`, and over many interruptions in `tests/laws/test_laws.py`.
"""

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.core.model.flow_run import RunPolicy, StateType
from chalicelib.core.model.policy import Policy, budget_of
from chalicelib.core.rescue.capacity import choose_capacity, record_interruption
from chalicelib.core.rescue.snapshot import Gone
from tests.make import CLUSTER_ARN, NOW, TASK_ARN, make_run, make_snapshot, make_state, seconds


def test_state_and_tags_that_were_decided_by_are_kept() -> None:
    ours = (
        "spot-retries:2",
        "spot-retries:auto",
        "spot:rerun",
        "spot:never-rerun",
        "spot-deadline:1h30m",
    )
    others = ("mine", "spot-interrupted", "spot-on-demand", "spot-retries:x", "spot-deadline:soon")
    crashed = make_run(state=make_state(StateType.CRASHED), tags=(*ours, *others))
    kept = choose_capacity(make_snapshot(run=crashed)).record.interruptions[TASK_ARN]
    assert (kept.run_state, kept.tags, kept.decided_at) == ("CRASHED", ours, NOW)


def test_when_a_task_that_ecs_has_forgotten_exited_is_unknown() -> None:
    running = make_state(timestamp=NOW - seconds(7200))
    forgotten = Gone(TASK_ARN, CLUSTER_ARN, "FARGATE_SPOT", started=True)
    run = make_run(state=running)
    recorded = choose_capacity(make_snapshot(subject=forgotten, run=run, history=(running,)))
    assert recorded.interruption is not None
    assert recorded.interruption.exited_at is None


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


STARTS: dict[str, tuple[dict[str, Any], int]] = {
    "it ran": ({}, 1),
    "its own retry waits": (
        waiting(RunPolicy(2, "in_process"), message="Flow run failed"),
        0,
    ),
    "it rescheduled itself": (waiting(RunPolicy(2, "in_process")), 1),
    "Prefect will not count it": ({"policy": RunPolicy(2, others={"resuming": True})}, 0),
}


@pytest.mark.parametrize(("run", "lost"), STARTS.values(), ids=STARTS)
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
    ("tag", "own_retries", "allowed"),
    [
        ("spot-retries:7", 2, 7),
        ("spot-retries:0", 2, 0),
        ("spot-retries:auto", 2, 20),
        ("spot-retries:AUTO", 2, 2),
        ("spot-retries:many", 2, 2),
        ("spot-retries:-1", 0, 5),
        ("mine", 2, 2),
        ("mine", 0, 5),
        ("mine", None, 5),
    ],
)
def test_the_tag_goes_before_the_flows_own_retries_and_these_before_the_setting(
    tag: str, own_retries: int | None, allowed: int
) -> None:
    """A tag without a number, and own retries of 0, do not count."""
    assert budget_of((tag,), own_retries, Policy(spot_retries=5)).allowed == allowed
