"""An attempt that failed to start: what is recorded of it, and whether it is started again."""

from dataclasses import replace
from typing import Final

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, Cause
from chalicelib.core.model.flow_run import FailedStart
from chalicelib.core.rescue.capacity import lost_start
from chalicelib.core.rescue.snapshot import Snapshot, said_by, start_failure
from chalicelib.core.rescue.start_failures import StartFailure, StartFailureKind

LONGEST_REASON: Final = 600
"""Characters kept of what ECS or the worker said."""
_REFUSAL: Final = StartFailureKind.REFUSAL.value


def is_failed_start(snapshot: Snapshot) -> bool:
    """Whether the attempt failed to start, for whatever reason: it is recorded as that."""
    return snapshot.cause in (Cause.NO_SPOT_CAPACITY, Cause.FAILED_START)


def refused_by_spot(failed: FailedStart) -> bool:
    """Whether Spot had no capacity: the run goes on demand, and is counted as rerun there."""
    return (failed.kind, failed.capacity) == (_REFUSAL, FARGATE_SPOT)


def failed_start_of(snapshot: Snapshot) -> FailedStart:
    """Return what is, or has to be, on record about the attempt that failed to start."""
    if (recorded := snapshot.failed_start) is not None:
        return recorded
    failure, task = _failure(snapshot), snapshot.task
    lost = lost_start(snapshot) if task is not None and task.started_at is not None else 0
    attempt = snapshot.run.run_count - int(lost > 0)
    # A host that dies counts for the whole run: its attempt had begun, so none would be a second.
    counted = (f for f in snapshot.record.failed_starts.values() if f.kind != _REFUSAL)
    return FailedStart(
        key=snapshot.subject.arn,
        number=1 + sum(each.lost_start > 0 or each.attempt == attempt for each in counted),
        attempt=attempt,
        kind=failure.kind.value,
        capacity=snapshot.capacity,
        reason=(said_by(snapshot.subject) or failure.what)[:LONGEST_REASON],
        recorded_at=snapshot.now,
        lost_start=lost,
    )


def record_failed_start(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with this failed start on record; a second call changes nothing."""
    record = snapshot.record
    if record.own_retries is None:
        record = replace(record, own_retries=snapshot.run.policy.retries)
    return replace(snapshot, record=record.with_failed_start(failed_start_of(snapshot)))


def choose_retry(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with the capacity of the next start on record, chosen once.

    FARGATE, for good, where Spot had no capacity; else the same as before.
    """
    recorded = record_failed_start(snapshot)
    record, failed = recorded.record, failed_start_of(snapshot)
    if failed.retry_on:
        return recorded
    if snapshot.cause is Cause.NO_SPOT_CAPACITY:
        record = replace(record, next_capacity=FARGATE)
    retry_on = FARGATE if record.next_capacity == FARGATE else failed.capacity
    chosen = replace(failed, retry_on=retry_on)
    return replace(recorded, record=record.with_failed_start(chosen))


def why_not_started_again(snapshot: Snapshot) -> str:
    """Return why the attempt is not started again; empty when it is."""
    failed, failure = failed_start_of(snapshot), _failure(snapshot)
    if failed.retry_on or snapshot.cause is Cause.NO_SPOT_CAPACITY:
        return ""
    match failure.kind:
        case StartFailureKind.LASTING:
            return f"{failure.what}: another try would not change that"
        case StartFailureKind.REFUSAL:
            return "on-demand capacity was refused as well"
    budget = snapshot.start_budget
    allowed = min(budget.allowed, 1) if failure.kind is StartFailureKind.UNKNOWN else budget.allowed
    if failed.number > allowed:
        return f"it failed to start {failed.number} times, and {allowed} retries are allowed"
    return ""


def _failure(snapshot: Snapshot) -> StartFailure:
    failure = start_failure(snapshot.subject)
    if failure is None:
        raise ValueError(f"{snapshot.subject} did not fail to start")
    return failure
