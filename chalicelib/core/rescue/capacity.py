"""Spot or FARGATE: where a rerun goes, decided once per interruption and kept in the run record.

The budget decides first. Where it leaves the rerun on Spot, the guards are asked: each can move it
to FARGATE, none can keep it on Spot. Once on FARGATE, a run stays there.

The record also keeps which starts were lost. Prefect compares `run_count` with `retries`, so every
rerun would use up one of the flow's own retries; each start that an interruption cost therefore
raises `retries` by one.
"""

from dataclasses import dataclass, replace
from typing import assert_never

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, Cause, Task
from chalicelib.core.model.flow_run import Interruption, RunChange, RunState, StateType
from chalicelib.core.model.policy import (
    INTERRUPTED_TAG,
    ON_DEMAND_TAG,
    deciding_tags,
    has_deadline_tag,
    on_demand_variables,
)
from chalicelib.core.policies.facts import GoOnDemand, Guard, Missing, Opinion, StayOnSpot
from chalicelib.core.rescue.snapshot import Gone, Snapshot, due_id, park_id_of_task


@dataclass(frozen=True, slots=True)
class Advice:
    """Which guard moves the run to FARGATE, None for none, and its reason.

    Without a guard, `reason` names the facts that were missing; empty when none was.
    """

    guard: Guard | None = None
    reason: str = ""


def guards_to_ask(snapshot: Snapshot) -> tuple[Guard, ...]:
    """Return the guards that decide about this rerun, in the order in which they are asked.

    None where the capacity is on record already, or the budget alone puts the rerun on FARGATE.
    """
    recorded = record_interruption(snapshot)
    interruption = recorded.interruption
    if interruption is None or interruption.rerun_on or _must_leave_spot(recorded, interruption):
        return ()
    on = {
        Guard.DEADLINE: has_deadline_tag(snapshot.run.tags),
        Guard.ECONOMICS: snapshot.policy.economics,
    }
    return tuple(guard for guard in Guard if on[guard])


def record_interruption(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with this interruption on record, its capacity not chosen yet.

    What is on record stays: a second call changes nothing. A refused placement is no interruption,
    so it is not recorded.
    """
    record = snapshot.record
    if record.own_retries is None:
        record = replace(record, own_retries=snapshot.run.policy.retries)
    if snapshot.cause is Cause.NO_SPOT_CAPACITY:
        return snapshot.with_record(record)
    interruption = snapshot.interruption or _new_interruption(snapshot)
    if snapshot.has_exited and not interruption.rerun_on:
        task = snapshot.subject if isinstance(snapshot.subject, Task) else None
        interruption = replace(
            interruption,
            exited_at=interruption.exited_at or snapshot.exited_at or snapshot.now,
            billed_from=interruption.billed_from or (task.billed_from if task else None),
            lost_start=_lost_start(snapshot),
            run_state=interruption.run_state or snapshot.run.state.type.value,
            tags=interruption.tags or deciding_tags(snapshot.run),
        )
    return snapshot.with_record(record.with_interruption(interruption))


def choose_capacity(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with the interruption and the capacity of its rerun on record.

    A refused placement goes to FARGATE. What was chosen once stays.
    """
    recorded = record_interruption(snapshot)
    record, interruption = recorded.record, recorded.interruption
    if interruption is None:
        return recorded.with_record(replace(record, next_capacity=FARGATE))
    if interruption.rerun_on:
        return recorded
    leaves_spot = _must_leave_spot(recorded, interruption)
    advice = Advice() if leaves_spot else _advice(snapshot)
    chosen = replace(
        interruption,
        rerun_on=FARGATE if leaves_spot or advice.guard else FARGATE_SPOT,
        guard=advice.guard.value if advice.guard else "",
        guard_reason=advice.reason,
        run_state=snapshot.run.state.type.value,
        tags=deciding_tags(snapshot.run),
    )
    record = replace(record.with_interruption(chosen), next_capacity=chosen.rerun_on)
    return snapshot.with_record(record)


def change_for_rerun(snapshot: Snapshot) -> RunChange:
    """Return the difference between what the run is and what its rerun needs."""
    run, record = snapshot.run, snapshot.record
    on_demand = record.next_capacity == FARGATE
    variables = on_demand_variables(run.job_variables) if on_demand else run.job_variables
    policy = run.policy
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


def _advice(snapshot: Snapshot) -> Advice:
    missing = []
    for guard in guards_to_ask(snapshot):
        opinion = _opinion(guard, snapshot)
        match opinion:
            case GoOnDemand(why):
                return Advice(guard, why)
            case StayOnSpot():
                pass
            case Missing():
                missing.append(f"{guard} guard: {opinion}")
            case _:
                assert_never(opinion)
    return Advice(reason=f"{'; '.join(missing)}; the budget decides" if missing else "")


def _opinion(guard: Guard, snapshot: Snapshot) -> Opinion:
    match guard:
        case Guard.DEADLINE:
            from chalicelib.core.policies.deadline import deadline_opinion

            delay_seconds = snapshot.policy.rerun_delay_seconds
            return deadline_opinion(snapshot.run, snapshot.facts, snapshot.now, delay_seconds)
        case Guard.ECONOMICS:
            from chalicelib.core.policies.economics import economics_opinion

            task = snapshot.subject if isinstance(snapshot.subject, Task) else None
            return economics_opinion(snapshot.facts, task, snapshot.policy.rates)
    assert_never(guard)


def _new_interruption(snapshot: Snapshot) -> Interruption:
    match snapshot.subject:
        case Task() as task:
            interruption = Interruption(
                task_arn=task.arn,
                number=0,
                cause="",
                capacity=task.capacity,
                cluster_arn=task.cluster_arn,
                stop_code=task.stop_code,
                reason=task.stopped_reason,
                availability_zone=task.availability_zone,
                billed_from=task.billed_from,
            )
        case Gone(arn, cluster_arn, capacity):
            interruption = Interruption(arn, 0, "", capacity, cluster_arn)
        case refusal:
            raise ValueError(f"{refusal} is not an interruption")
    return replace(
        interruption,
        number=len(snapshot.record.interruptions) + 1,
        cause=snapshot.cause.value,
        recorded_at=snapshot.now,
        lost_start=_lost_start(snapshot),
    )


def _lost_start(snapshot: Snapshot) -> int:
    """Return the run's `run_count` if this attempt's start is lost, else 0."""
    if snapshot.run.policy.others.get("resuming"):
        return 0  # resumed from a blocking pause: Prefect will not count the next start
    attempt = _states_of_attempt(snapshot)
    started = any(state.type is StateType.RUNNING for state in attempt)
    return snapshot.run.run_count if started and not _awaits_own_retry(snapshot, attempt) else 0


def _states_of_attempt(snapshot: Snapshot) -> list[RunState]:
    """Return the run's states since prefect-spot last made it due."""
    ours = {due_id(park_id_of_task(arn)) for arn in snapshot.record.interruptions}
    begins = [i for i, state in enumerate(snapshot.history) if state.transition_id in ours]
    return list(snapshot.history[begins[-1] + 1 if begins else 0 :])


def _awaits_own_retry(snapshot: Snapshot, attempt: list[RunState]) -> bool:
    """Whether the next start is one of the flow's own retries anyway, so that nothing is lost.

    Prefect copies the failure's message to the AwaitingRetry of an own retry; a run that
    rescheduled itself on SIGTERM has none there.
    """
    if snapshot.run.policy.retry_type != "in_process":
        return False
    for state in reversed(attempt):
        if state.type is StateType.CRASHED:
            continue
        if state.type is StateType.SCHEDULED and not state.message:
            continue
        return state.type is StateType.SCHEDULED and state.transition_id is None
    return False
