"""The decision table, row by row; the laws about sequences are in `tests/laws`."""

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, Task
from chalicelib.core.model.flow_run import (
    Interruption,
    Moved,
    PrefectDeployment,
    RunPolicy,
    RunRecord,
    RunState,
    StateType,
)
from chalicelib.core.model.policy import Mode, Policy
from chalicelib.core.rescue.actions import (
    Action,
    Annotate,
    Change,
    ChangeSubflow,
    CrashTaskRuns,
    MakeDue,
    Park,
    Save,
)
from chalicelib.core.rescue.capacity import (
    choose_capacity,
    give_up,
    move_without_effect,
    record_interruption,
)
from chalicelib.core.rescue.decide import decide
from chalicelib.core.rescue.failed_start import choose_retry
from chalicelib.core.rescue.rerun_state import due_id, park_id_of_task, rerun_state_of
from chalicelib.core.rescue.snapshot import FailedSubmission, Gone, Remains, Snapshot
from tests.make import (
    CLUSTER_ARN,
    NOW,
    RUN_ID,
    TASK_ARN,
    make_run,
    make_snapshot,
    make_state,
    make_task,
    seconds,
)

RUNNING, PENDING, SCHEDULED = StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED
CRASHED, PAUSED, COMPLETED = StateType.CRASHED, StateType.PAUSED, StateType.COMPLETED
CANCELLING, CANCELLED = StateType.CANCELLING, StateType.CANCELLED

PARK_ID = park_id_of_task(TASK_ARN)
WARNING = make_task(last_status="RUNNING", flow_container_stopped=False, execution_stopped_at=None)
OUT_OF_MEMORY = make_task(
    stop_code="EssentialContainerExited", stopped_reason="OutOfMemoryError: container killed"
)
DRILLED = make_task(capacity_provider="", stopped_reason="prefect-spot drill 1")
NO_CAPACITY = make_task(
    stop_code="TaskFailedToStart",
    stopped_reason="Capacity is unavailable at this time.",
    started_at=None,
)
NO_INTERFACE = replace(
    NO_CAPACITY, stopped_reason="Timeout waiting for network interface provisioning to complete."
)
NO_IMAGE = replace(NO_CAPACITY, stopped_reason="CannotPullContainerError: manifest unknown")
HOST_DIED = make_task(stop_code="InfrastructureHealth", stopped_reason="")
REFUSAL = "Capacity is unavailable at this time."
THROTTLED = "ClientError: ThrottlingException: Rate exceeded"
INACTIVE = (
    "RuntimeError: the task definition is inactive: ClientException TaskDefinition is inactive"
)
LIMIT = make_state(CANCELLED, message="Deployment concurrency limit reached.")


def in_state(kind: StateType, subject: Any = None, **changes: Any) -> Snapshot:
    run = make_run(state=make_state(kind))
    return make_snapshot(run=run, subject=subject or make_task(), **changes)


def with_tags(*tags: str, **changes: Any) -> Snapshot:
    return make_snapshot(run=make_run(tags=tags), **changes)


def swept(subject: Task | Gone, kind: StateType = RUNNING, **changes: Any) -> Snapshot:
    return in_state(kind, subject, swept=True, **changes)


def gone(capacity: str = FARGATE_SPOT, *, started: bool = True) -> Gone:
    return Gone(TASK_ARN, CLUSTER_ARN, capacity, started)


def through(*kinds: StateType) -> Snapshot:
    """A run that went through these states in one attempt; it is in the last of them."""
    states = tuple(map(make_state, kinds))
    return make_snapshot(run=make_run(state=states[-1]), history=states)


def parked(*before: RunState, **run: Any) -> Snapshot:
    """Parked for its task, from these states after RUNNING; the interruption is on record."""
    state = make_state(SCHEDULED, transition_id=PARK_ID, timestamp=NOW - seconds(0.1))
    history = (make_state(), *before, state)
    recorded = choose_capacity(make_snapshot(run=make_run(**run)))
    return replace(recorded, run=make_run(**{**run, "state": state}), history=history)


def of_pool(name: str | None, pools: tuple[str, ...] = ("a", "b")) -> Snapshot:
    return make_snapshot(run=make_run(work_pool_name=name), policy=Policy(work_pools=pools))


def not_submitted(why: str, kind: StateType = CRASHED, **run: Any) -> Snapshot:
    """The worker could not submit the run; since then it is in a state of that kind."""
    crashed = make_state(CRASHED, message=f"Failed to submit flow run to infrastructure: {why}")
    state = crashed if kind is CRASHED else make_state(kind)
    capacity = run.get("job_variables", {}).get("launch_type", FARGATE_SPOT)
    submission = FailedSubmission(crashed.id, crashed.message, capacity)
    history = (make_state(PENDING), crashed, *(() if kind is CRASHED else (state,)))
    found = make_run(**{"run_count": 0, **run, "state": state})
    return make_snapshot(subject=submission, run=found, history=history, swept=True)


def then_parked(before: Snapshot) -> Snapshot:
    """The snapshot after its run was parked; what was decided is on record."""
    recorded = next((a.record for a in decide(before).actions if isinstance(a, Save)), None)
    park_id = park_id_of_task(before.subject.arn)
    state = make_state(SCHEDULED, transition_id=park_id, timestamp=NOW)
    run, history = replace(before.run, state=state), (*before.history, state)
    return replace(before, run=run, history=history, record=recorded or before.record)


def failed_starts(number: int, **changes: Any) -> Snapshot:
    """The first start failed so often, the last time just now, for a passing reason."""
    snapshot = in_state(PENDING, NO_INTERFACE, **changes)
    run = replace(snapshot.run, run_count=0)
    for each in range(number - 1):
        task = replace(NO_INTERFACE, arn=f"{TASK_ARN}{each}")
        earlier = choose_retry(replace(snapshot, run=run, subject=task))
        snapshot = replace(snapshot, record=earlier.record)
    return replace(snapshot, run=run)


def waiting(
    retry_type: str | None,
    due_in: float,
    subject: Any = None,
    message: str = "oh",
    **changes: Any,
) -> Snapshot:
    """The flow failed, and waits for a retry of its own."""
    at = (NOW + seconds(due_in)).isoformat()
    state = make_state(
        SCHEDULED, name="AwaitingRetry", message=message, details={"scheduled_time": at}
    )
    run = make_run(state=state, policy=RunPolicy(retries=2, retry_type=retry_type))
    return make_snapshot(run=run, subject=subject or make_task(), **changes)


def rescheduled_at_sigterm() -> Snapshot:
    """The flow waited for a retry of its own; at SIGTERM its engine rescheduled the run."""
    waits = waiting("in_process", 1800)
    now = make_state(SCHEDULED, name="AwaitingRetry", timestamp=NOW)
    return replace(waits, run=replace(waits.run, state=now), history=(*waits.history, now))


def failed_at(age: float, warned: float = 5) -> Snapshot:
    """FAILED so many seconds ago; warned 5 s and exited 1 s ago."""
    warning = replace(WARNING, updated_at=NOW - seconds(warned))
    record = record_interruption(make_snapshot(subject=warning)).record
    state = make_state(StateType.FAILED, timestamp=NOW - seconds(age))
    return make_snapshot(run=make_run(state=state), record=record)


def due(now: RunState | None = None, **changes: Any) -> Snapshot:
    """After a rerun was made due; `now` is what became of the run since."""
    before = parked()
    made_due = make_state(SCHEDULED, transition_id=due_id(PARK_ID), timestamp=NOW)
    states = (made_due,) if now is None else (made_due, now)
    run = replace(before.run, state=states[-1])
    return replace(before, run=run, history=(*before.history, *states), **changes)


def due_over(*states: RunState, made_due: bool = True) -> Snapshot:
    """Parked; then another client set the first state; then it was made due; then the others."""
    between, *since = states
    made = [make_state(SCHEDULED, transition_id=due_id(PARK_ID), timestamp=NOW)] * made_due
    before = parked()
    history = (*before.history, between, *made, *since)
    return replace(before, run=replace(before.run, state=history[-1]), history=history)


def crashed_while_parked(times: int) -> Snapshot:
    """An automation crashes the run each time that it is parked."""
    states: list[RunState] = [make_state()]
    for _ in range(times):
        park_id = rerun_state_of(TASK_ARN, states).park_id
        states += [make_state(SCHEDULED, transition_id=park_id), make_state(CRASHED)]
    return replace(parked(), run=make_run(state=states[-1]), history=tuple(states))


def with_start_tag(snapshot: Snapshot, retries: int) -> Snapshot:
    return replace(snapshot, run=replace(snapshot.run, tags=(f"start-retries:{retries}",)))


def running_since(after_exit: float) -> Snapshot:
    exited_at = NOW - seconds(70)
    state = make_state(RUNNING, timestamp=exited_at + seconds(after_exit))
    task = make_task(execution_stopped_at=exited_at)
    return make_snapshot(subject=task, run=make_run(state=state))


def rescheduled_itself() -> Snapshot:
    ages = ((RUNNING, 80), (SCHEDULED, 4), (PENDING, 2))
    states = tuple(make_state(kind, timestamp=NOW - seconds(age)) for kind, age in ages)
    return make_snapshot(run=make_run(state=states[-1]), history=states)


OPT_IN = Policy(mode=Mode.OPT_IN)
WARNED = record_interruption(make_snapshot(subject=WARNING)).record
GIVEN_UP = give_up(choose_capacity(make_snapshot()), "its deployment is gone").record
CANCELLED_BY_ANN = make_state(CANCELLED, message="by ann")
TABLE: dict[str, tuple[Snapshot, str]] = {
    "parked": (parked(), "make-due"),
    **{
        f"parked, but {kind} before": (parked(make_state(kind)), "undo-rerun")
        for kind in (COMPLETED, CANCELLING, CANCELLED, PAUSED)
    },
    "due": (due(), "finish-rerun"),
    "due, then picked up": (due(make_state(PENDING)), "finish-rerun"),
    "due, then runs again": (due(make_state(RUNNING)), "finish-rerun"),
    **{
        f"due, but {kind} before": (due_over(make_state(kind)), "undo-rerun")
        for kind in (COMPLETED, StateType.FAILED, CANCELLING, CANCELLED, PENDING, RUNNING)
    },
    "due, but scheduled by a person before": (due_over(make_state(SCHEDULED)), "undo-rerun"),
    "due, but pended by an observer before": (
        due_over(make_state(PENDING, name="InfrastructurePending")),
        "finish-rerun",
    ),
    "due, but crashed before": (due_over(make_state(CRASHED)), "finish-rerun"),
    "restored after it was made due": (due_over(CANCELLED_BY_ANN, CANCELLED_BY_ANN), "ignore"),
    "parked, then crashed by an automation": (
        due_over(make_state(CRASHED), made_due=False),
        "rerun-on-spot",
    ),
    "parked, but picked up before": (
        parked(make_state(SCHEDULED), make_state(PENDING, timestamp=NOW)),
        "undo-rerun",
    ),
    "parked, but scheduled by a person before": (parked(make_state(SCHEDULED)), "make-due"),
    "parked, its change rejected": (replace(parked(), rejection="no such"), "mark-crashed"),
    "parked, its deployment gone": (replace(parked(), remains=Remains(None)), "mark-crashed"),
    "given up": (
        replace(due_over(make_state(CRASHED), made_due=False), record=GIVEN_UP),
        "ignore",
    ),
    "crashed over COMPLETED": (through(RUNNING, COMPLETED, CRASHED), "restore"),
    "crashed over PAUSED": (through(RUNNING, PAUSED, CRASHED), "restore"),
    "crashed over PAUSED, out of memory": (
        replace(through(RUNNING, PAUSED, CRASHED), subject=OUT_OF_MEMORY),
        "ignore",
    ),
    "crashed twice over CANCELLED": (through(RUNNING, CANCELLED, CRASHED, CRASHED), "restore"),
    "FAILED between warning and exit": (failed_at(3), "rerun-on-spot"),
    "FAILED by the signal, spot:never-rerun": (
        replace(failed_at(3), run=replace(failed_at(3).run, tags=("spot:never-rerun",))),
        "mark-crashed",
    ),
    "FAILED before the warning": (failed_at(6), "annotate"),
    "FAILED long after the exit": (failed_at(-30), "annotate"),
    "waits for its own retry": (waiting("in_process", 1800), "rerun-on-spot"),
    "waits for its own retry, other death": (
        waiting("in_process", 0, OUT_OF_MEMORY, swept=True),
        "mark-crashed",
    ),
    "waits for a worker, other death": (waiting(None, 0, OUT_OF_MEMORY, swept=True), "ignore"),
    "due, then crashed by an automation": (due(make_state(CRASHED)), "rerun-on-spot"),
    "due, then cancelled for a concurrency limit": (due(LIMIT), "rerun-on-spot"),
    "due, then cancelled by a user who names a limit": (
        due(make_state(CANCELLED, message="by ann: above our concurrency limit")),
        "finish-rerun",
    ),
    "crashed while parked, too often": (replace(crashed_while_parked(21), swept=True), "ignore"),
    "due, then cancelled by a user": (due(CANCELLED_BY_ANN), "finish-rerun"),
    "crashed with a newer task": (due(make_state(CRASHED), newer_task=True), "finish-rerun"),
    "cancelled, and crashed by its engine": (
        through(RUNNING, CANCELLING, CRASHED),
        "mark-cancelled",
    ),
    "cancelled long ago, and retried by hand since": (
        through(CANCELLING, CRASHED, RUNNING, CRASHED),
        "rerun-on-spot",
    ),
    "another pool's": (of_pool("theirs"), "ignore"),
    "another pool's, its task gone": (
        replace(of_pool("theirs"), swept=True, subject=gone()),
        "ignore",
    ),
    "of one of ours": (of_pool("b"), "rerun-on-spot"),
    "of no pool": (of_pool(None), "rerun-on-spot"),
    "of any pool": (of_pool("theirs", ()), "rerun-on-spot"),
    "newer task": (make_snapshot(newer_task=True), "ignore"),
    "running since 59 s after the exit": (running_since(59), "rerun-on-spot"),
    "running since 61 s after the exit": (running_since(61), "ignore"),
    "rescheduled itself, and picked up already": (rescheduled_itself(), "ignore"),
    "a mere mismatch of the pid": (
        make_snapshot(run=make_run(infrastructure_pid="other::task")),
        "rerun-on-spot",
    ),
    **{
        f"warning, {kind}": (in_state(kind, WARNING), "warned")
        for kind in (RUNNING, PENDING, PAUSED, CANCELLING)
    },
    "warning, COMPLETED": (in_state(COMPLETED, WARNING), "ignore"),
    **{
        f"exited, {kind}": (in_state(kind), "annotate")
        for kind in (COMPLETED, StateType.FAILED, CANCELLED, CANCELLING)
    },
    "exited, PAUSED": (in_state(PAUSED), "await-resume"),
    "exited, a state of tomorrow": (in_state(StateType.UNKNOWN), "ignore"),
    "no deployment": (make_snapshot(run=make_run(deployment_id=None)), "mark-crashed"),
    "spot:never-rerun": (with_tags("spot:never-rerun"), "mark-crashed"),
    "not opted in": (with_tags(policy=OPT_IN), "mark-crashed"),
    "opted in": (with_tags("spot:rerun", policy=OPT_IN), "rerun-on-spot"),
    **{
        f"budget left, {kind}": (in_state(kind), "rerun-on-spot")
        for kind in (RUNNING, PENDING, CRASHED, SCHEDULED)
    },
    "budget spent": (with_tags("spot-retries:0"), "rerun-on-demand"),
    "refused": (not_submitted(REFUSAL), "rerun-on-demand"),
    "no Spot capacity for its task": (in_state(PENDING, NO_CAPACITY), "rerun-on-demand"),
    "refused, spot:never-rerun": (
        not_submitted(REFUSAL, tags=("spot:never-rerun",)),
        "mark-crashed",
    ),
    "refused, not opted in": (replace(not_submitted(REFUSAL), policy=OPT_IN), "mark-crashed"),
    "refused, but started since": (not_submitted(REFUSAL, PENDING), "ignore"),
    "on demand was refused as well": (
        not_submitted(REFUSAL, job_variables={"launch_type": "FARGATE"}),
        "mark-crashed",
    ),
    "refused, then parked": (then_parked(not_submitted(REFUSAL)), "make-due"),
    **{
        f"refused, then parked, but {kind} before": (
            then_parked(not_submitted(REFUSAL, kind)),
            "undo-rerun",
        )
        for kind in (COMPLETED, CANCELLED, PAUSED, PENDING)
    },
    "throttled": (not_submitted(THROTTLED), "rerun-on-spot"),
    "throttled, then parked": (then_parked(not_submitted(THROTTLED)), "make-due"),
    "an inactive task definition": (not_submitted(INACTIVE), "mark-crashed"),
    "a failed start, one retry left": (failed_starts(2), "rerun-on-spot"),
    "a failed start, no retry left": (failed_starts(3), "mark-crashed"),
    "a failed start, more by tag": (with_start_tag(failed_starts(3), 3), "rerun-on-spot"),
    "a failed start, none by tag": (with_start_tag(failed_starts(1), 0), "mark-crashed"),
    "a failed start, CRASHED": (in_state(CRASHED, NO_INTERFACE), "rerun-on-spot"),
    "a failed start, COMPLETED since": (in_state(COMPLETED, NO_INTERFACE), "ignore"),
    "a failed start for a lasting reason": (in_state(PENDING, NO_IMAGE), "mark-crashed"),
    "its host died": (in_state(RUNNING, HOST_DIED), "rerun-on-spot"),
    "its host died after its warning": (
        in_state(RUNNING, HOST_DIED, record=WARNED),
        "rerun-on-spot",
    ),
    "a drill of a task on demand": (make_snapshot(subject=DRILLED), "rerun-on-demand"),
    "interrupted, CANCELLING, grace over": (swept(make_task(), CANCELLING), "mark-cancelled"),
    "other death, in grace": (make_snapshot(subject=OUT_OF_MEMORY), "ignore"),
    "other death, grace over": (swept(OUT_OF_MEMORY), "mark-crashed"),
    "other death, CANCELLING": (swept(OUT_OF_MEMORY, CANCELLING), "mark-cancelled"),
    "other death, CRASHED already": (swept(OUT_OF_MEMORY, CRASHED), "ignore"),
    "gone from Spot after it started": (swept(gone()), "rerun-on-spot"),
    "gone from Spot after its warning": (
        swept(gone(started=False), PENDING, record=WARNED),
        "rerun-on-spot",
    ),
    "gone from Spot, CANCELLING": (swept(gone(), CANCELLING), "mark-cancelled"),
    "never seen": (swept(gone(started=False), PENDING), "rerun-on-spot"),
    "never seen, CANCELLING": (swept(gone(started=False), CANCELLING), "mark-cancelled"),
    "gone from FARGATE": (swept(gone(FARGATE)), "mark-crashed"),
}
rows = pytest.mark.parametrize(("snapshot", "verdict"), TABLE.values(), ids=TABLE)


@rows
def test_the_first_row_that_matches_wins(snapshot: Snapshot, verdict: str) -> None:
    decision = decide(snapshot)
    assert decision.verdict == verdict
    assert decision.reason


@rows
def test_observe_mode_only_records_and_annotates(snapshot: Snapshot, verdict: str) -> None:
    observing = replace(snapshot, policy=replace(snapshot.policy, mode=Mode.OBSERVE))
    for action in decide(observing).actions:
        assert isinstance(action, Save | Annotate)
        if isinstance(action, Annotate):
            assert (action.annotation.labels, action.annotation.tags) == (None, ())


def action(kind: type[Action], snapshot: Snapshot) -> Any:
    return next(action for action in decide(snapshot).actions if isinstance(action, kind))


def kinds(snapshot: Snapshot) -> list[type]:
    return [type(action) for action in decide(snapshot).actions]


def test_moving_to_on_demand_keeps_every_other_job_variable() -> None:
    own = {"cpu": 1024, "env": {"A": "1"}, "capacity_provider_strategy": [{"x": 1}]}
    change = action(Change, parked(job_variables=own, tags=("spot-retries:0", "mine"))).change
    strategy = [{"capacityProvider": "FARGATE", "weight": 1, "base": 0}]
    moved = {"launch_type": "FARGATE", "capacity_provider_strategy": strategy}
    assert change.job_variables == {**own, **moved}
    assert change.tags == ("spot-retries:0", "mine", "spot-interrupted", "spot-on-demand")


@pytest.mark.parametrize("own", [{}, {"capacity_provider_strategy": []}])
def test_moving_to_on_demand_names_no_strategy_where_none_is_to_be_displaced(
    own: dict[str, Any],
) -> None:
    moved = parked(job_variables=own, tags=("spot-retries:0",))
    change = action(Change, moved).change
    assert change.job_variables == {"launch_type": "FARGATE"}
    again = replace(moved, run=replace(moved.run, job_variables=change.job_variables))
    assert action(Change, again).change.job_variables is None


def on_spot_again(**changes: Any) -> Snapshot:
    """Spot takes the second task; the first interruption had moved the run to FARGATE."""
    first = Interruption("first", 1, "Spot interruption", "FARGATE_SPOT", rerun_on="FARGATE")
    record = RunRecord(RUN_ID, {"first": first}, next_capacity="FARGATE")
    run = make_run(job_variables={"launch_type": "FARGATE"})
    return make_snapshot(**{"run": run, "record": record, **changes})


STRATEGY_OF_SPOT = {"capacity_provider_strategy": [{"capacityProvider": "FARGATE_SPOT"}]}
TOOK_EFFECT: dict[str, tuple[Snapshot, bool]] = {
    "on Spot again": (on_spot_again(), True),
    "moved before its start": (
        on_spot_again(record=RunRecord(RUN_ID, next_capacity="FARGATE", moved=Moved("x", "y"))),
        True,
    ),
    "on FARGATE": (on_spot_again(subject=make_task(capacity_provider="")), False),
    "a first move": (on_spot_again(record=RunRecord(RUN_ID)), False),
    "decided, not done": (on_spot_again(run=make_run()), False),
    "put back by hand": (
        on_spot_again(run=make_run(job_variables={"launch_type": "FARGATE", **STRATEGY_OF_SPOT})),
        False,
    ),
}


@pytest.mark.parametrize(("snapshot", "is_noticed"), TOOK_EFFECT.values(), ids=TOOK_EFFECT)
def test_a_move_whose_next_task_is_on_spot_again_is_noticed_and_annotated(
    snapshot: Snapshot, is_noticed: bool
) -> None:
    assert bool(move_without_effect(snapshot)) is is_noticed
    chosen = choose_capacity(snapshot)
    states = [make_state(SCHEDULED, transition_id=id_) for id_ in (PARK_ID, due_id(PARK_ID))]
    run = replace(snapshot.run, state=states[-1])
    made_due = replace(chosen, run=run, history=(*snapshot.history, *states))
    why = action(Annotate, made_due).annotation.log.message.partition("Why: ")[2]
    assert ("template" in why and "spotctl status" in why) is is_noticed
    assert move_without_effect(made_due) == "", "it is noticed once"


def test_nothing_is_patched_when_nothing_changes() -> None:
    unstarted: dict[str, Any] = {"run_count": 0, "policy": RunPolicy(retries=None)}
    assert Change not in kinds(parked(tags=("spot-interrupted",), **unstarted))


def test_an_in_process_retry_is_cleared_or_no_worker_would_take_the_run() -> None:
    policy = RunPolicy(retries=2, retry_type="in_process", others={"retry_delay": 5})
    assert action(Change, parked(policy=policy)).change.policy == RunPolicy(
        retries=3, retry_type="reschedule", others={"retry_delay": 5}
    )


def test_a_reverted_rerun_is_parked_with_a_fresh_id_and_then_finished() -> None:
    reverted = due(LIMIT)
    park = action(Park, reverted)
    assert park.transition_id not in {state.transition_id for state in reverted.history}
    assert park.force, "Prefect 3.4 lets no run leave CANCELLED unforced"
    state = make_state(SCHEDULED, transition_id=park.transition_id)
    run = replace(reverted.run, state=state)
    made_due = action(MakeDue, replace(reverted, run=run, history=(*reverted.history, state)))
    assert made_due.transition_id == due_id(park.transition_id)


def test_a_crashed_run_that_is_not_rerun_is_not_crashed_again() -> None:
    crashed = make_run(state=make_state(CRASHED), deployment_id=None)
    assert kinds(make_snapshot(run=crashed)) == [Save, Annotate]


@pytest.mark.parametrize(("retries", "least", "most"), [(3, 60, 120), (0, 0, 0)])
def test_a_rerun_waits_between_once_and_twice_the_delay_but_not_on_demand(
    retries: int, least: float, most: float
) -> None:
    policy = Policy(rerun_delay_seconds=60)
    due_at = action(MakeDue, replace(parked(tags=(f"spot-retries:{retries}",)), policy=policy)).at
    assert least <= (due_at - NOW).total_seconds() <= most


@pytest.mark.parametrize(
    ("before", "at"),
    [
        (waiting("in_process", 1800), 1800),
        (waiting("in_process", -5), 0),
        (rescheduled_at_sigterm(), 1800),
        (waiting("in_process", 1800, message=""), 1800),
        (replace(waiting("in_process", 1800), run=make_run(tags=("spot-retries:0",))), 1800),
        (waiting(None, 86_400), 86_400),
        (not_submitted(REFUSAL), 0),
    ],
    ids=[
        "own retry",
        "own retry, over",
        "own retry, rescheduled by its engine",
        "own retry, without a message",
        "on demand",
        "a person's",
        "refused",
    ],
)
def test_a_rerun_is_due_no_earlier_than_the_run_would_have_been(before: Snapshot, at: int) -> None:
    assert action(MakeDue, then_parked(before)).at == NOW + seconds(at)


@pytest.mark.parametrize(("number", "least"), [(1, 30), (2, 60), (3, 120), (4, 120)])
def test_each_failed_start_waits_longer(number: int, least: int) -> None:
    before = with_start_tag(failed_starts(number), 9)
    waits = (action(MakeDue, then_parked(before)).at - NOW).total_seconds()
    assert least <= waits <= 1.5 * least


def test_a_failed_start_costs_no_budget_no_retry_and_no_capacity() -> None:
    parked = then_parked(failed_starts(1))
    assert parked.record.interruptions == {}
    assert (parked.record.lost_starts, parked.record.next_capacity) == (0, "")
    assert Change not in kinds(parked)


def test_a_host_that_died_costs_no_retry_of_the_flow() -> None:
    parked = then_parked(in_state(RUNNING, HOST_DIED))
    change = action(Change, parked).change
    assert change.policy == RunPolicy(retries=1)
    assert change.job_variables is None


def test_what_a_dead_attempt_left_is_ended_before_the_rerun_is_due() -> None:
    child = make_run(id=UUID(int=5), run_count=2, policy=RunPolicy(retries=3))
    waits = replace(child, id=UUID(int=6), state=make_state(SCHEDULED))
    left = Remains(PrefectDeployment("flow/deployment"), {}, (child, waits), (UUID(int=7),))
    completing = replace(parked(), remains=left)
    changed, ended = action(ChangeSubflow, completing), action(CrashTaskRuns, completing)
    assert (changed.flow_run_id, changed.change.policy) == (child.id, RunPolicy(retries=4))
    assert ended.ids == (UUID(int=7),)
    assert kinds(completing)[-1] is MakeDue
    recorded = replace(completing, record=action(Save, completing).record)
    again = replace(child, policy=RunPolicy(retries=4))
    repeated = replace(recorded, remains=replace(left, subflows=(again,)))
    assert ChangeSubflow not in kinds(repeated)
