"""The decision table: what to do about one stopped task and its run.

`decide` is asked again after every step, so a rerun has no procedure that could be left half way:
a run that is found parked is finished, by whoever finds it. The order of the questions below is
the order of the table in docs/decisions; the first that matches wins.
"""

from dataclasses import replace
from datetime import timedelta
from hashlib import blake2b
from itertools import pairwise
from typing import Final, assert_never
from uuid import UUID

from chalicelib.core.model.ecs_task import FARGATE, NO_CAPACITY_REASON, Cause
from chalicelib.core.model.flow_run import RunChange, RunState, StateType
from chalicelib.core.model.text import one_line
from chalicelib.core.rescue.actions import (
    Action,
    Annotate,
    Change,
    Decision,
    MakeDue,
    MarkCancelled,
    MarkCrashed,
    Park,
    PutBack,
    Save,
    Verdict,
)
from chalicelib.core.rescue.annotation import (
    Moment,
    Telling,
    annotation_of,
    headline,
    why_rerun,
)
from chalicelib.core.rescue.capacity import recorded, retries_due
from chalicelib.core.rescue.rerun_state import (
    Stage,
    Standing,
    due_id,
    standing_of_refusal,
    standing_of_task,
    was_being_cancelled,
    was_thrown_back,
)
from chalicelib.core.rescue.snapshot import (
    INTERRUPTED_TAG,
    ON_DEMAND_TAG,
    Budget,
    Mode,
    Policy,
    Snapshot,
    budget_of,
    is_on_demand,
    on_demand_variables,
    reason_not_to_rerun,
)
from chalicelib.core.rescue.stop_reasons import explain

PARKED_FOR: Final = timedelta(hours=1)
"""A worker prefetches what is due within ten seconds: an hour leaves room for any delay of ours."""

RESTART_MARGIN: Final = timedelta(seconds=60)
"""How far the clocks of ECS and Prefect may be apart before a restart is taken for older news."""

OVER: Final = frozenset(
    {StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CANCELLING}
)
NOT_TO_BE_PARKED: Final = OVER | {StateType.PAUSED}
RERUNNABLE: Final = frozenset(
    {StateType.RUNNING, StateType.PENDING, StateType.CRASHED, StateType.SCHEDULED}
)


def decide(s: Snapshot) -> Decision:
    """Return what is to be done now; with nothing left to do, a decision without actions."""
    decision = _decide(s)
    if s.policy.mode is Mode.OBSERVE:
        told = tuple(a for a in decision.actions if isinstance(a, Save | Annotate))
        return replace(decision, actions=told)
    return decision


def _decide(s: Snapshot) -> Decision:
    standing = _standing(s)
    match standing.stage:
        case Stage.PARKED:
            return _finish(s, standing.park_id)
        case Stage.THROWN_BACK if not s.newer_task and not _submission_failed(s.run.state):
            return _rerun(s, standing.park_id)
        case Stage.HANDLED if s.no_live_task and not standing.made_due:
            return _decide_untouched(s, standing.park_id)  # it was put back, and has moved on since
        case Stage.THROWN_BACK | Stage.HANDLED:
            return _ignore_but_tell(s, standing)
        case Stage.UNTOUCHED if s.newer_task or (not s.no_live_task and _restarted_since(s)):
            return Decision(Verdict.IGNORE, "news of an older task: the run has a newer one")
        case Stage.UNTOUCHED:
            return _decide_untouched(s, standing.park_id)
    assert_never(standing.stage)


def _decide_untouched(s: Snapshot, park_id: UUID) -> Decision:
    """Nobody has answered this task's end yet, and it is the run's newest task."""
    match s.cause:
        case Cause.SPOT_INTERRUPTION | Cause.DRILL if s.task.exited:
            return _answer_interruption(s, park_id)
        case Cause.SPOT_INTERRUPTION | Cause.DRILL:
            return _note_warning(s)
        case Cause.NO_SPOT_CAPACITY:
            return _answer_refusal(s, park_id)
        case Cause.OTHER:
            return _answer_other_death(s)
    assert_never(s.cause)


def _answer_interruption(s: Snapshot, park_id: UUID) -> Decision:
    state = s.run.state
    if state.type is StateType.CANCELLING and s.grace_over:
        message = "Cancelled: the task is gone, Spot took it during the cancellation."
        return Decision(Verdict.MARK_CANCELLED, message, (MarkCancelled(message),))
    if state.type in OVER:
        return _tell_only(s, f"the run is {one_line(state.name)} already")
    if state.type is StateType.PAUSED:
        return _await_resume(s)
    if state.type is StateType.CRASHED and was_being_cancelled(s.task.arn, s.history):
        return _cancel(s)
    if why := reason_not_to_rerun(s.run, s.policy.mode):
        return _crash(s, why)
    if state.type in RERUNNABLE:
        return _rerun(s, park_id)
    return Decision(Verdict.IGNORE, f"the run is in an unknown state, {one_line(state.name)}")


def _standing(s: Snapshot) -> Standing:
    if s.cause is Cause.NO_SPOT_CAPACITY:
        return standing_of_refusal(s.history)
    return standing_of_task(s.task.arn, s.history)


def _submission_failed(state: RunState) -> bool:
    """Whether the worker itself gave the run up: that is a new attempt, not a late verdict."""
    return NO_CAPACITY_REASON in state.message or "could not be submitted" in state.message


def _restarted_since(s: Snapshot) -> bool:
    """Whether a new attempt began since, though no task id tells so yet.

    A worker picks a run up (SCHEDULED to PENDING) before it asks for a task, so a pick-up after our
    container's start is another attempt's; the worker notes its task only later, or never.
    """
    started_at, exited_at, state = s.task.started_at, s.task.exited_at, s.run.state
    picked_up = any(
        before.type is StateType.SCHEDULED and after.type is StateType.PENDING
        for before, after in pairwise(s.history)
        if started_at is not None and after.timestamp > started_at
    )
    runs_since_long_after = (
        state.type is StateType.RUNNING
        and exited_at is not None
        and state.timestamp - exited_at > RESTART_MARGIN
    )
    return picked_up or runs_since_long_after


def _note_warning(s: Snapshot) -> Decision:
    """The container still runs: a rerun now would run the flow twice."""
    if s.run.state.is_final:
        return Decision(Verdict.IGNORE, "Spot warning for a run that is over")
    noted = recorded(s)
    next_step = "the container gets its stop timeout to end, then this is decided"
    return Decision(
        Verdict.WARNED,
        "Spot warning: the container still runs",
        (*_save(s, noted), *_tell(noted, Moment.WARNING, next_step, "ECS takes the task back")),
    )


def _await_resume(s: Snapshot) -> Decision:
    noted = recorded(s)
    return Decision(
        Verdict.AWAIT_RESUME,
        "the run is paused: to be rerun when it is resumed",
        (
            *_save(s, noted),
            *_tell(noted, Moment.WARNING, "a rerun once the run is resumed", "the run is paused"),
        ),
    )


def _tell_only(s: Snapshot, why: str) -> Decision:
    noted = recorded(s)
    return Decision(
        Verdict.ANNOTATE,
        why,
        (*_save(s, noted), *_tell(noted, Moment.NO_RERUN, "nothing", why)),
    )


def _cancel(s: Snapshot) -> Decision:
    noted, why = recorded(s), "the run was being cancelled when Spot took its task"
    told = _tell(noted, Moment.NO_RERUN, "nothing", why)
    mark = MarkCancelled(f"Cancelled: {why}.")
    return Decision(Verdict.MARK_CANCELLED, why, (*_save(s, noted), mark, *told))


def _ignore_but_tell(s: Snapshot, standing: Standing) -> Decision:
    """Settled before; whoever settled it may have died before people were told."""
    why = "this interruption has been answered already"
    interruption = s.record.interruptions.get(s.task.arn)
    if interruption is None or not interruption.rerun_on:
        return Decision(Verdict.IGNORE, why)
    if standing.made_due:
        return Decision(Verdict.IGNORE, why, _tell_rerun(s))
    moved = f"the run was {one_line(s.run.state.name)} before it could be rerun"
    return Decision(Verdict.IGNORE, why, _tell(s, Moment.NO_RERUN, "nothing", moved))


def _crash(s: Snapshot, why: str) -> Decision:
    noted = recorded(s)
    title = headline(noted.record.interruptions[s.task.arn], _budget(noted))
    message = f"{title}: not rerun, because {why}."
    mark = () if s.run.state.type is StateType.CRASHED else (MarkCrashed(message),)
    told = _tell(noted, Moment.NO_RERUN, "the run stays Crashed", why)
    return Decision(Verdict.MARK_CRASHED, f"not rerun: {why}", (*_save(s, noted), *mark, *told))


def _rerun(s: Snapshot, park_id: UUID) -> Decision:
    """Record, then park; what remains is decided when the run is seen parked."""
    noted = recorded(s, rerun=True)
    on_demand = noted.record.next_capacity == FARGATE
    reason = _headline(noted)
    told = _tell_rerun(noted) if s.policy.mode is Mode.OBSERVE else ()
    cancelled = s.run.state.type is StateType.CANCELLED
    park = Park(park_id, s.now + PARKED_FOR, f"{reason}, being prepared", force=cancelled)
    return Decision(
        Verdict.RERUN_ON_DEMAND if on_demand else Verdict.RERUN_ON_SPOT,
        reason,
        (*_save(s, noted), park, *told),
    )


def _finish(s: Snapshot, park_id: UUID) -> Decision:
    """The run is parked by us: change what must change, then make it due."""
    before = s.history[-2] if len(s.history) > 1 else s.run.state
    if before.type in NOT_TO_BE_PARKED and not was_thrown_back(s.task.arn, s.history, park_id):
        reason = f"the run had become {one_line(before.name)} while it was being parked"
        return Decision(Verdict.UNDO_RERUN, reason, (PutBack(before),))
    noted = recorded(s, rerun=True)
    capacity = noted.record.next_capacity
    change = _change(noted)
    at = s.now if capacity == FARGATE else s.now + rerun_delay(s.run.id, s.policy)
    message = _headline(noted)
    actions: tuple[Action, ...] = (
        *_save(s, noted),
        *(() if change.is_empty else (Change(change),)),
        MakeDue(due_id(park_id), at, message),
        *_tell_rerun(noted),
    )
    return Decision(Verdict.FINISH_RERUN, message, actions)


def _change(s: Snapshot) -> RunChange:
    """Return the difference between what the run is and what its rerun needs."""
    run, on_demand = s.run, s.record.next_capacity == FARGATE
    variables = on_demand_variables(run.job_variables) if on_demand else run.job_variables
    policy = replace(run.policy, retries=retries_due(s))
    if policy.retry_type == "in_process":
        policy = replace(policy, retry_type="reschedule")
    ours = {INTERRUPTED_TAG: bool(s.record.interruptions), ON_DEMAND_TAG: on_demand}
    tags = (*run.tags, *(tag for tag, fits in ours.items() if fits and tag not in run.tags))
    return RunChange(
        job_variables=variables if dict(variables) != dict(run.job_variables) else None,
        policy=policy if policy != run.policy else None,
        tags=tags if tags != run.tags else None,
    )


def _answer_refusal(s: Snapshot, park_id: UUID) -> Decision:
    """Spot had no room: on demand, once. A refusal there is not answered by asking again.

    Which of them refused is told by the run's variables, not by the record: that is ahead of the
    run when a handler died between the two.
    """
    if is_on_demand(s.run):
        return Decision(Verdict.IGNORE, "on-demand capacity was refused as well")
    if why := reason_not_to_rerun(s.run, s.policy.mode):
        return Decision(Verdict.IGNORE, f"no Spot capacity, not rerun: {why}")
    if s.run.state.type in (StateType.CRASHED, StateType.PENDING):
        return _rerun(s, park_id)
    return Decision(Verdict.IGNORE, f"no Spot capacity, but the run is {s.run.state.type.value}")


def _answer_other_death(s: Snapshot) -> Decision:
    """Not an interruption: never rerun, but a run without a task must not stay alive for ever."""
    if not s.task.exited:
        return Decision(Verdict.IGNORE, "the task has not stopped")
    if not s.grace_over:
        return Decision(Verdict.IGNORE, "stopped for another reason: left to Prefect, then sweep")
    message = explain(s.task)
    match s.run.state.type:
        case StateType.RUNNING | StateType.PENDING:
            return Decision(Verdict.MARK_CRASHED, message, (MarkCrashed(message),))
        case StateType.CANCELLING:
            if s.task.never_seen:
                message = "Cancelled: no task of this run is left that could end by itself."
            return Decision(Verdict.MARK_CANCELLED, message, (MarkCancelled(message),))
        case _:
            return Decision(Verdict.IGNORE, f"{message}; the run is {s.run.state.type.value}")


def _save(before: Snapshot, after: Snapshot) -> tuple[Save, ...]:
    return () if after.record == before.record else (Save(after.record),)


def _tell_rerun(s: Snapshot) -> tuple[Annotate, ...]:
    interruption = s.record.interruptions.get(s.task.arn)
    if interruption is None:
        return ()
    why = why_rerun(interruption, s.record.moved, _budget(s))
    would = "would be " if s.policy.mode is Mode.OBSERVE else ""
    return _tell(s, Moment.RERUN, f"{would}rerun on {interruption.rerun_on}", why)


def _tell(s: Snapshot, moment: Moment, next_step: str, why: str) -> tuple[Annotate, ...]:
    """Annotate what has not been told yet, and note in the record that it was."""
    interruption = s.record.interruptions[s.task.arn]
    told = replace(interruption, warning_annotated=True)
    if moment is not Moment.WARNING:
        told = replace(told, outcome_annotated=True)
    if told == interruption:
        return ()
    telling = Telling(moment, interruption, _budget(s), next_step, why)
    return (Annotate(annotation_of(s, telling), s.record.with_interruption(told)),)


def _budget(s: Snapshot) -> Budget:
    return budget_of(s.run.tags, s.record.own_retries, s.policy)


def _headline(s: Snapshot) -> str:
    interruption = s.record.interruptions.get(s.task.arn)
    title = headline(interruption, _budget(s)) if interruption else "No Spot capacity"
    guard = f", by {interruption.guard}" if interruption and interruption.guard else ""
    return f"{title}: rerun on {s.record.next_capacity}{guard}"


def rerun_delay(flow_run_id: UUID, policy: Policy) -> timedelta:
    """The set delay, and up to as much again by the run's id, so that many do not come at once."""
    spread = int.from_bytes(blake2b(flow_run_id.bytes, digest_size=2).digest()) / 0xFFFF
    return timedelta(seconds=policy.rerun_delay_seconds * (1 + spread))
