"""What goes into the run record, and what follows from it for the flow's own retries.

Prefect compares `run_count` with `retries`, so every rerun of ours would eat one of the flow's own
retries. Each start that an interruption took raises `retries` by one in return.
"""

from dataclasses import replace
from typing import Final

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, Cause
from chalicelib.core.model.flow_run import RunState, StateType
from chalicelib.core.model.run_record import Interruption
from chalicelib.core.policies.advice import Advice, advice_on
from chalicelib.core.rescue.rerun_state import due_id, park_id_of_task
from chalicelib.core.rescue.snapshot import Snapshot, budget_of, deciding_tags

IN_PROCESS: Final = "in_process"


def recorded(s: Snapshot, *, rerun: bool = False) -> Snapshot:
    """Return the situation with this task's interruption on record; `rerun` decides its capacity.

    What was decided once stays: a second look finds the record unchanged.
    """
    record = s.record
    if record.own_retries is None:
        record = replace(record, own_retries=s.run.policy.retries)
    if s.cause is Cause.NO_SPOT_CAPACITY:
        return s.after(replace(record, next_capacity=FARGATE))
    known = record.interruptions.get(s.task.arn)
    interruption = known or _interruption(s, number=len(record.interruptions) + 1)
    if s.task.exited and not interruption.rerun_on:
        interruption = replace(
            interruption,
            exited_at=interruption.exited_at or s.task.exited_at or s.now,
            billed_from=interruption.billed_from or s.task.billed_from,
            lost_start=_lost_start(s),
            run_state=interruption.run_state or s.run.state.type.value,
            tags=interruption.tags or deciding_tags(s.run),
        )
    if rerun and not interruption.rerun_on:
        allowed = budget_of(s.run.tags, record.own_retries, s.policy).allowed
        for_good = FARGATE in (record.next_capacity, s.task.capacity)
        by_budget = for_good or interruption.number > allowed
        advice = Advice() if by_budget else advice_on(s)
        interruption = replace(
            interruption,
            rerun_on=FARGATE if by_budget or advice.guard else FARGATE_SPOT,
            guard=advice.guard.value if advice.guard else "",
            guard_reason=advice.reason,
            run_state=s.run.state.type.value,
            tags=deciding_tags(s.run),
        )
        record = replace(record, next_capacity=interruption.rerun_on)
    return s.after(record.with_interruption(interruption))


def retries_due(s: Snapshot) -> int | None:
    """Return the `retries` that leave the flow as many of its own as without interruptions."""
    if s.record.own_retries is None:
        return s.run.policy.retries
    return s.record.own_retries + s.record.lost_starts


def _interruption(s: Snapshot, number: int) -> Interruption:
    return Interruption(
        task_arn=s.task.arn,
        number=number,
        cause=s.cause.value,
        capacity=s.task.capacity,
        cluster_arn=s.task.cluster_arn,
        stop_code=s.task.stop_code,
        reason=s.task.stopped_reason,
        availability_zone=s.task.availability_zone,
        recorded_at=s.now,
        billed_from=s.task.billed_from,
        lost_start=_lost_start(s),
    )


def _lost_start(s: Snapshot) -> int:
    """Return the run's `run_count` if this attempt's start is lost, else 0."""
    if s.run.policy.others.get("resuming"):
        return 0  # resumed from a blocking pause: Prefect will not count the next start
    attempt = _states_of_attempt(s)
    started = any(state.type is StateType.RUNNING for state in attempt)
    return s.run.run_count if started and not _awaits_own_retry(s, attempt) else 0


def _states_of_attempt(s: Snapshot) -> list[RunState]:
    """The run's states since the last rerun of ours was made due."""
    ours = {due_id(park_id_of_task(arn)) for arn in s.record.interruptions}
    begins = [i for i, state in enumerate(s.history) if state.transition_id in ours]
    return list(s.history[begins[-1] + 1 if begins else 0 :])


def _awaits_own_retry(s: Snapshot, attempt: list[RunState]) -> bool:
    """Whether the next start is an own retry of the flow anyway, so that nothing is lost.

    Prefect puts the failure's message on the AwaitingRetry of an own retry; a run that
    rescheduled itself on SIGTERM has none there.
    """
    if s.run.policy.retry_type != IN_PROCESS:
        return False
    for state in reversed(attempt):
        if state.type is StateType.CRASHED:
            continue
        if state.type is StateType.SCHEDULED and not state.message:
            continue
        return state.type is StateType.SCHEDULED and state.transition_id is None
    return False
