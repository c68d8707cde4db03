"""The decision table, row by row; the laws about sequences are in `tests/laws`."""

from dataclasses import replace
from typing import Any

import pytest

from chalicelib.core.model.flow_run import RunPolicy, RunState, StateType
from chalicelib.core.model.policy import Mode, Policy
from chalicelib.core.rescue.actions import (
    Annotate,
    Change,
    MakeDue,
    MarkCancelled,
    MarkCrashed,
    Park,
    Restore,
    Save,
    Verdict,
)
from chalicelib.core.rescue.capacity import choose_capacity
from chalicelib.core.rescue.decide import decide
from chalicelib.core.rescue.rerun_state import due_id, park_id_of_task
from chalicelib.core.rescue.snapshot import Snapshot
from tests.make import (
    NOW,
    TASK_ARN,
    make_run,
    make_snapshot,
    make_state,
    make_task,
    seconds,
)

T = park_id_of_task(TASK_ARN)
WARNING = make_task(last_status="RUNNING", flow_container_stopped=False, execution_stopped_at=None)
OUT_OF_MEMORY = make_task(
    stop_code="EssentialContainerExited", stopped_reason="OutOfMemoryError: container killed"
)
NO_CAPACITY = make_task(
    stop_code="TaskFailedToStart",
    stopped_reason="Capacity is unavailable at this time.",
    started_at=None,
)


def kinds(snapshot: Snapshot) -> list[type]:
    return [type(action) for action in decide(snapshot).actions]


def in_state(type: StateType, **changes: Any) -> dict[str, Any]:  # noqa: A002
    return {"run": make_run(state=make_state(type, **changes))}


def parked(before: RunState | None = None, **run: Any) -> Snapshot:
    state = make_state(
        StateType.SCHEDULED, name="AwaitingRetry", transition_id=T, timestamp=NOW - seconds(0.1)
    )
    running = make_state()
    noted = choose_capacity(make_snapshot(run=make_run(**run)))
    history = (running, before, state) if before else (running, state)
    return replace(noted, run=make_run(**{**run, "state": state}), history=history)


def due(now: RunState | None = None) -> Snapshot:
    """After a rerun was made due; `now` is what became of the run since."""
    before = parked()
    made_due = make_state(StateType.SCHEDULED, transition_id=due_id(T), timestamp=NOW)
    states = (made_due,) if now is None else (made_due, now)
    run = replace(before.run, state=states[-1])
    return replace(before, run=run, history=(*before.history, *states))


def in_history(*types: StateType) -> Snapshot:
    """A run that went through these states in one attempt; it is in the last of them."""
    states = tuple(make_state(kind) for kind in types)
    return make_snapshot(run=make_run(state=states[-1]), history=states)


ROWS = [
    pytest.param(parked(), Verdict.FINISH_RERUN, id="parked → finish"),
    pytest.param(due(), Verdict.IGNORE, id="made due → ignore"),
    pytest.param(due(make_state(StateType.PENDING)), Verdict.IGNORE, id="picked up → ignore"),
    pytest.param(due(make_state(StateType.RUNNING)), Verdict.IGNORE, id="runs again → ignore"),
    pytest.param(
        due(make_state(StateType.CRASHED, message="No heartbeat")),
        Verdict.RERUN_ON_SPOT,
        id="crashed by a zombie automation after it was due → again",
    ),
    pytest.param(
        due(make_state(StateType.CANCELLED, message="Deployment concurrency limit reached.")),
        Verdict.RERUN_ON_SPOT,
        id="cancelled for a concurrency limit → again",
    ),
    pytest.param(
        due(make_state(StateType.CANCELLED, message="by ann")),
        Verdict.IGNORE,
        id="cancelled by a user after it was due → ignore",
    ),
    pytest.param(
        replace(due(make_state(StateType.CRASHED)), newer_task=True),
        Verdict.IGNORE,
        id="crashed, but with a newer task → ignore",
    ),
    pytest.param(
        in_history(StateType.RUNNING, StateType.CANCELLING, StateType.CRASHED),
        Verdict.MARK_CANCELLED,
        id="crashed by its engine while it was being cancelled → Cancelled",
    ),
    pytest.param(
        in_history(StateType.CANCELLING, StateType.CRASHED, StateType.RUNNING, StateType.CRASHED),
        Verdict.RERUN_ON_SPOT,
        id="cancelled once, long ago, and retried by hand since → rerun",
    ),
    pytest.param(make_snapshot(newer_task=True), Verdict.IGNORE, id="newer task → ignore"),
    *[
        pytest.param(
            make_snapshot(
                task=make_task(execution_stopped_at=NOW - seconds(70)),
                **in_state(StateType.RUNNING, timestamp=NOW - seconds(70 - after)),
            ),
            verdict,
            id=f"running since {after} s after the exit",
        )
        for after, verdict in ((59, Verdict.RERUN_ON_SPOT), (61, Verdict.IGNORE))
    ],
    pytest.param(
        make_snapshot(
            run=make_run(state=make_state(StateType.PENDING, timestamp=NOW - seconds(2))),
            history=(
                make_state(StateType.RUNNING, timestamp=NOW - seconds(80)),
                make_state(StateType.SCHEDULED, timestamp=NOW - seconds(4)),
                make_state(StateType.PENDING, timestamp=NOW - seconds(2)),
            ),
        ),
        Verdict.IGNORE,
        id="rescheduled itself and picked up already → ignore",
    ),
    pytest.param(
        make_snapshot(run=make_run(infrastructure_pid="other::task")),
        Verdict.RERUN_ON_SPOT,
        id="a mere mismatch of the pid → rerun",
    ),
    *[
        pytest.param(
            make_snapshot(task=WARNING, **in_state(state)), Verdict.WARNED, id=f"warning, {state}"
        )
        for state in (StateType.RUNNING, StateType.PENDING, StateType.PAUSED, StateType.CANCELLING)
    ],
    pytest.param(
        make_snapshot(task=WARNING, **in_state(StateType.COMPLETED)),
        Verdict.IGNORE,
        id="warning, COMPLETED",
    ),
    *[
        pytest.param(make_snapshot(**in_state(state)), Verdict.ANNOTATE, id=f"exited, {state}")
        for state in (
            StateType.COMPLETED,
            StateType.FAILED,
            StateType.CANCELLED,
            StateType.CANCELLING,
        )
    ],
    pytest.param(
        make_snapshot(**in_state(StateType.PAUSED)), Verdict.AWAIT_RESUME, id="exited, PAUSED"
    ),
    pytest.param(
        make_snapshot(run=make_run(deployment_id=None)), Verdict.MARK_CRASHED, id="no deployment"
    ),
    pytest.param(
        make_snapshot(run=make_run(tags=("spot:never-rerun",))),
        Verdict.MARK_CRASHED,
        id="spot:never-rerun",
    ),
    pytest.param(
        make_snapshot(policy=Policy(mode=Mode.OPT_IN)), Verdict.MARK_CRASHED, id="not opted in"
    ),
    pytest.param(
        make_snapshot(policy=Policy(mode=Mode.OPT_IN), run=make_run(tags=("spot:rerun",))),
        Verdict.RERUN_ON_SPOT,
        id="opted in",
    ),
    *[
        pytest.param(
            make_snapshot(**in_state(state)), Verdict.RERUN_ON_SPOT, id=f"budget left, {state}"
        )
        for state in (
            StateType.RUNNING,
            StateType.PENDING,
            StateType.CRASHED,
            StateType.SCHEDULED,
        )
    ],
    pytest.param(
        make_snapshot(run=make_run(tags=("spot-retries:0",))),
        Verdict.RERUN_ON_DEMAND,
        id="budget spent",
    ),
    pytest.param(
        make_snapshot(task=NO_CAPACITY, **in_state(StateType.CRASHED)),
        Verdict.RERUN_ON_DEMAND,
        id="no Spot capacity, CRASHED",
    ),
    pytest.param(
        make_snapshot(task=NO_CAPACITY, **in_state(StateType.PENDING)),
        Verdict.RERUN_ON_DEMAND,
        id="no Spot capacity, PENDING",
    ),
    pytest.param(
        make_snapshot(
            task=NO_CAPACITY,
            run=make_run(
                state=make_state(StateType.CRASHED), job_variables={"launch_type": "FARGATE"}
            ),
        ),
        Verdict.IGNORE,
        id="on demand was refused as well",
    ),
    pytest.param(make_snapshot(task=OUT_OF_MEMORY), Verdict.IGNORE, id="other death, in grace"),
    pytest.param(
        make_snapshot(task=OUT_OF_MEMORY, swept=True),
        Verdict.MARK_CRASHED,
        id="other death, grace over",
    ),
    pytest.param(
        make_snapshot(task=OUT_OF_MEMORY, swept=True, **in_state(StateType.CANCELLING)),
        Verdict.MARK_CANCELLED,
        id="other death, CANCELLING",
    ),
    pytest.param(
        make_snapshot(task=OUT_OF_MEMORY, swept=True, **in_state(StateType.CRASHED)),
        Verdict.IGNORE,
        id="other death, CRASHED already",
    ),
    pytest.param(
        make_snapshot(**in_state(StateType.UNKNOWN)), Verdict.IGNORE, id="a state of tomorrow"
    ),
]


@pytest.mark.parametrize(("snapshot", "verdict"), ROWS)
def test_the_first_row_that_matches_wins(snapshot: Snapshot, verdict: Verdict) -> None:
    assert decide(snapshot).verdict is verdict
    assert decide(snapshot).reason


@pytest.mark.parametrize(("snapshot", "verdict"), ROWS)
def test_observe_mode_only_records_and_tells(snapshot: Snapshot, verdict: Verdict) -> None:
    observing = replace(snapshot, policy=replace(snapshot.policy, mode=Mode.OBSERVE))
    for action in decide(observing).actions:
        assert isinstance(action, Save | Annotate)
        if isinstance(action, Annotate):
            assert action.annotation.labels is None
            assert action.annotation.tags == ()


@pytest.mark.parametrize(
    ("mode", "tags"),
    [(Mode.RESCUE, ("spot:never-rerun",)), (Mode.OPT_IN, ())],
    ids=["spot:never-rerun", "not opted in"],
)
def test_a_refused_run_that_may_not_be_rerun_is_left_alone(
    mode: Mode, tags: tuple[str, ...]
) -> None:
    crashed = make_run(state=make_state(StateType.CRASHED), tags=tags)
    decision = decide(make_snapshot(task=NO_CAPACITY, run=crashed, policy=Policy(mode=mode)))
    assert (decision.verdict, decision.actions) == (Verdict.IGNORE, ())


def test_the_park_is_far_enough_ahead_for_every_worker() -> None:
    park = next(a for a in decide(make_snapshot()).actions if isinstance(a, Park))
    assert (park.until - NOW).total_seconds() == 3600
    assert park.transition_id == T


def test_moving_to_on_demand_keeps_every_other_job_variable() -> None:
    own = {"cpu": 1024, "env": {"A": "1"}, "capacity_provider_strategy": [{"x": 1}]}
    change = change_of(parked(job_variables=own, tags=("spot-retries:0", "mine")))
    assert change.job_variables == {
        "cpu": 1024,
        "env": {"A": "1"},
        "launch_type": "FARGATE",
        "capacity_provider_strategy": [],
    }
    assert change.tags == ("spot-retries:0", "mine", "spot-interrupted", "spot-on-demand")


def test_nothing_is_patched_when_nothing_changes() -> None:
    tags = ("spot-interrupted",)
    snapshot = parked(tags=tags, run_count=0, policy=RunPolicy(retries=None))
    snapshot = replace(snapshot, record=replace(snapshot.record, own_retries=None))
    assert Change not in kinds(snapshot)


def change_of(snapshot: Snapshot) -> Any:
    return next(a.change for a in decide(snapshot).actions if isinstance(a, Change))


def test_an_in_process_retry_is_cleared_or_no_worker_would_take_the_run() -> None:
    policy = RunPolicy(retries=2, retry_type="in_process", others={"retry_delay": 5})
    assert change_of(parked(policy=policy)).policy == RunPolicy(
        retries=3, retry_type="reschedule", others={"retry_delay": 5}
    )


@pytest.mark.parametrize(
    "became", [StateType.COMPLETED, StateType.CANCELLING, StateType.CANCELLED, StateType.PAUSED]
)
def test_who_was_faster_than_our_park_is_put_back(became: StateType) -> None:
    before = make_state(became, timestamp=NOW - seconds(0.2), details={"pause_timeout": "x"})
    decision = decide(parked(before))
    assert decision.verdict is Verdict.UNDO_RERUN
    assert decision.actions == (Restore(before),)


def test_a_thrown_back_run_is_parked_with_a_fresh_id_and_then_finished() -> None:
    limit = make_state(StateType.CANCELLED, message="Deployment concurrency limit reached.")
    again = due(limit)
    park = next(a for a in decide(again).actions if isinstance(a, Park))
    assert park.transition_id not in {s.transition_id for s in again.history}
    assert park.force, "Prefect 3.4 lets nobody leave CANCELLED unforced"
    state = make_state(StateType.SCHEDULED, transition_id=park.transition_id)
    after = replace(again, run=replace(again.run, state=state), history=(*again.history, state))
    made_due = next(a for a in decide(after).actions if isinstance(a, MakeDue))
    assert made_due.transition_id == due_id(park.transition_id)


def test_a_crashed_run_that_is_not_rerun_is_not_crashed_again() -> None:
    snapshot = make_snapshot(run=make_run(state=make_state(StateType.CRASHED), deployment_id=None))
    assert kinds(snapshot) == [Save, Annotate]


def test_the_final_message_carries_the_reason_of_ecs() -> None:
    decision = decide(make_snapshot(task=OUT_OF_MEMORY, swept=True))
    assert isinstance(decision.actions[0], MarkCrashed)
    assert "OutOfMemoryError" in decision.actions[0].message
    cancelling = make_snapshot(task=OUT_OF_MEMORY, swept=True, **in_state(StateType.CANCELLING))
    assert kinds(cancelling) == [MarkCancelled]


@pytest.mark.parametrize(("retries", "least", "most"), [(3, 60, 120), (0, 0, 0)])
def test_a_rerun_waits_between_once_and_twice_the_delay_but_not_on_demand(
    retries: int, least: float, most: float
) -> None:
    policy = Policy(rerun_delay_seconds=60)
    snapshot = replace(parked(tags=(f"spot-retries:{retries}",)), policy=policy)
    made_due = next(a for a in decide(snapshot).actions if isinstance(a, MakeDue))
    assert least <= (made_due.at - NOW).total_seconds() <= most
