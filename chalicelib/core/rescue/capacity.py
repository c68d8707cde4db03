"""Spot or FARGATE: where a rerun goes, decided once per interruption and kept in the run record.

The budget decides first. Where it leaves the rerun on Spot, the guards are asked: the deadline tag,
then, where the budget is `auto`, the expected cost. Once on FARGATE, a run stays there.

The record also keeps which starts were lost. Prefect compares `run_count` with `retries`, so every
rerun would use up one of the flow's own retries; each start that an interruption cost therefore
raises `retries` by one.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, Task
from chalicelib.core.model.flow_run import Interruption, RunChange, RunState, StateType
from chalicelib.core.model.policy import (
    BUDGET_WITHOUT_FACTS,
    INTERRUPTED_TAG,
    ON_DEMAND_TAG,
    deciding_tags,
    has_deadline_tag,
    is_on_demand,
    on_demand_variables,
)
from chalicelib.core.policies.facts import GoOnDemand, Guard, Missing, Opinion, StayOnSpot
from chalicelib.core.rescue.rerun_state import due_id, park_id_of_task
from chalicelib.core.rescue.snapshot import FailedSubmission, Snapshot

NO_EFFECT: Final = (
    "the run had been moved to FARGATE before, and its task was on Spot all the same: most likely"
    " the base job template of its work pool names the capacity itself; run spotctl status"
)


def guards_to_ask(snapshot: Snapshot) -> tuple[Guard, ...]:
    """Return the guards to ask, in order; none where record or budget name the capacity already."""
    recorded = record_interruption(snapshot)
    interruption = recorded.interruption
    if interruption is None or interruption.rerun_on or _must_leave_spot(recorded, interruption):
        return ()
    deadline = (Guard.DEADLINE,) if has_deadline_tag(snapshot.run.tags) else ()
    return (*deadline, Guard.AUTO) if snapshot.budget.is_auto else deadline


def record_interruption(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with this interruption on record, its capacity not chosen yet.

    What is on record stays: a second call changes nothing.
    """
    record = snapshot.record
    if record.own_retries is None:
        record = replace(record, own_retries=snapshot.run.policy.retries)
    interruption = snapshot.interruption or _new_interruption(snapshot)
    if not snapshot.has_exited and interruption.warned_at is None and snapshot.task is not None:
        interruption = replace(interruption, warned_at=snapshot.task.updated_at or snapshot.now)
    if snapshot.has_exited and not interruption.rerun_on:
        task = snapshot.task
        billed_from = task.billed_from if task else None
        interruption = replace(
            interruption,
            exited_at=interruption.exited_at
            or snapshot.exited_at
            or (snapshot.now if task else None),
            billed_from=interruption.billed_from or billed_from,
            lost_start=lost_start(snapshot),
            run_state=interruption.run_state or snapshot.run.state.type.value,
            tags=interruption.tags or deciding_tags(snapshot.run),
        )
    return replace(snapshot, record=record.with_interruption(interruption))


def choose_capacity(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with its rerun's capacity on record, chosen once."""
    recorded = record_interruption(snapshot)
    record, interruption = recorded.record, recorded.interruption
    if interruption is None or interruption.rerun_on:
        return recorded
    capacity, guard, reason = FARGATE, "", move_without_effect(snapshot)
    if not _must_leave_spot(recorded, interruption):
        capacity, guard, reason = _advice(snapshot, interruption.number)
    chosen = replace(
        interruption,
        rerun_on=capacity,
        guard=guard,
        guard_reason=reason,
        decided_at=snapshot.now,
        outcome_annotated=False,
        run_state=snapshot.run.state.type.value,
        tags=deciding_tags(snapshot.run),
    )
    record = replace(record.with_interruption(chosen), next_capacity=chosen.rerun_on)
    return replace(snapshot, record=record)


def give_up(recorded: Snapshot, why: str) -> Snapshot:
    """Return the snapshot with it on record that its rerun is impossible, for good."""
    record, interruption, failed = recorded.record, recorded.interruption, recorded.failed_start
    if interruption is not None:
        record = record.with_interruption(replace(interruption, not_rerun=why))
    elif failed is not None:
        record = record.with_failed_start(replace(failed, not_rerun=why))
    return replace(recorded, record=record)


def move_without_effect(snapshot: Snapshot) -> str:
    """Return what to say of a task that Spot had although its run was moved to FARGATE; mostly "".

    The run's own variables say FARGATE, so the move took effect in Prefect, and not at the worker.
    Ask before the capacity of the rerun is chosen: then the record holds earlier decisions only.
    """
    task, moved = snapshot.task, snapshot.record.next_capacity == FARGATE
    undecided = snapshot.interruption is None or not snapshot.interruption.rerun_on
    on_spot = task is not None and task.capacity == FARGATE_SPOT
    return NO_EFFECT if undecided and on_spot and moved and is_on_demand(snapshot.run) else ""


def change_for_rerun(snapshot: Snapshot) -> RunChange:
    """Return the difference between what the run is and what its rerun needs."""
    run, record, policy = snapshot.run, snapshot.record, snapshot.run.policy
    on_demand, variables = record.next_capacity == FARGATE, run.job_variables
    if on_demand:
        inherited = snapshot.remains.inherited_variables if snapshot.remains else ()
        variables = on_demand_variables(variables, *inherited)
    if record.own_retries is not None:  # what leaves the flow as many retries as it had
        policy = replace(policy, retries=record.own_retries + record.lost_starts)
    if policy.retry_type == "in_process":
        policy = replace(policy, retry_type="reschedule")
    ours = {INTERRUPTED_TAG: bool(record.interruptions), ON_DEMAND_TAG: on_demand}
    tags = (*run.tags, *(tag for tag, fits in ours.items() if fits and tag not in run.tags))
    return RunChange(
        job_variables=variables if dict(variables) != dict(run.job_variables) else None,
        policy=policy if policy != run.policy else None,
        tags=tags if tags != run.tags else None,
    )


def _must_leave_spot(snapshot: Snapshot, interruption: Interruption) -> bool:
    is_on_demand = FARGATE in (snapshot.record.next_capacity, interruption.capacity)
    return is_on_demand or interruption.number > snapshot.budget.allowed


def _advice(snapshot: Snapshot, number: int) -> tuple[str, str, str]:
    """Return the rerun's capacity, the guard that moved it to FARGATE, and the reason.

    The reason on Spot holds what `auto` expects, and the facts that guards lacked.
    """
    reasons, capacity = [], FARGATE_SPOT
    for guard in guards_to_ask(snapshot):
        match _opinion(guard, snapshot, number):
            case GoOnDemand(why):
                return FARGATE, guard.value, why
            case StayOnSpot(why) if guard is Guard.AUTO:
                reasons.append(why)
            case Missing(fact, why) if guard is Guard.AUTO:
                reasons.append(f"{fact} is unknown ({why}), using {BUDGET_WITHOUT_FACTS}")
                capacity = FARGATE if number > BUDGET_WITHOUT_FACTS else FARGATE_SPOT
            case Missing() as missing:
                reasons.append(f"{guard} guard: {missing}; the budget decides")
            case _:
                pass
    return capacity, "", "; ".join(reasons)


def _opinion(guard: Guard, snapshot: Snapshot, number: int) -> Opinion:
    policy, facts = snapshot.policy, snapshot.facts
    if guard is Guard.DEADLINE:
        from chalicelib.core.policies.deadline import deadline_opinion  # 2 ms of a cold start's 220

        return deadline_opinion(snapshot.run, facts, snapshot.now, policy.rerun_delay_seconds)
    from chalicelib.core.policies.economics import auto_opinion  # the same

    return auto_opinion(facts, snapshot.task, policy.rates, number)


def _new_interruption(snapshot: Snapshot) -> Interruption:
    ended = snapshot.subject
    if isinstance(ended, FailedSubmission):
        raise ValueError(f"{ended} is not an interruption")
    task = snapshot.task or Task(ended.arn, ended.cluster_arn)
    return Interruption(
        task_arn=ended.arn,
        number=snapshot.record.interrupted + 1,
        cause=snapshot.cause.value,
        capacity=ended.capacity,
        cluster_arn=ended.cluster_arn,
        stop_code=task.stop_code,
        reason=task.stopped_reason,
        availability_zone=task.availability_zone,
        recorded_at=snapshot.now,
        billed_from=task.billed_from,
        lost_start=lost_start(snapshot),
    )


def lost_start(snapshot: Snapshot) -> int:
    """Return the run's `run_count` if this attempt's start is lost, else 0."""
    if snapshot.run.policy.others.get("resuming"):
        return 0  # resumed from a blocking pause: Prefect will not count the next start
    answered = (*snapshot.record.interruptions, *snapshot.record.failed_starts)
    ours = {due_id(park_id_of_task(key)) for key in answered}
    begins = [i for i, s in enumerate(snapshot.history, start=1) if s.transition_id in ours]
    attempt = snapshot.history[begins[-1] if begins else 0 :]  # since we last made the run due
    started = any(state.type is StateType.RUNNING for state in attempt)
    return snapshot.run.run_count if started and not _awaits_own_retry(snapshot, attempt) else 0


def _awaits_own_retry(snapshot: Snapshot, attempt: Sequence[RunState]) -> bool:
    """Whether the next start is one of the flow's own retries anyway, so that nothing is lost.

    Prefect copies the failure's message to the AwaitingRetry of an own retry; a run that
    rescheduled itself on SIGTERM has none there. A failure after the warning is Spot's.
    """
    warned_at = snapshot.interruption.warned_at if snapshot.interruption else None
    if snapshot.run.policy.retry_type != "in_process":
        return False
    for state in reversed(attempt):
        if warned_at is not None and state.timestamp >= warned_at:
            continue
        waits = state.type is StateType.SCHEDULED
        if state.type is not StateType.CRASHED and not state.is_rescheduled_by_engine:
            return waits and state.transition_id is None
    return False
