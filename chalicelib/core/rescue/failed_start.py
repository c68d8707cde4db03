"""An attempt that failed to start: what is recorded of it, and whether it is started again."""

from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Final

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, Cause
from chalicelib.core.model.flow_run import FailedStart, StateType
from chalicelib.core.rescue.capacity import lost_start
from chalicelib.core.rescue.rerun_state import due_id, park_ids_of
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
    since = _retried_at(snapshot)
    counted = (
        f
        for f in snapshot.record.failed_starts.values()
        if f.kind != _REFUSAL and (f.recorded_at is None or f.recorded_at >= since)
    )
    return FailedStart(
        key=snapshot.subject.arn,
        number=1 + sum(_is_alike(each, attempt, lost) for each in counted),
        attempt=attempt,
        kind=failure.kind.value,
        capacity=snapshot.capacity,
        reason=(said_by(snapshot.subject) or failure.what)[:LONGEST_REASON],
        recorded_at=snapshot.now,
        lost_start=lost,
    )


def _is_alike(earlier: FailedStart, attempt: int, lost: int) -> bool:
    """Whether an earlier failed start counts: of the same attempt, or a host that died as well.

    Those count for the whole run: each attempt had begun, so none would be a second.
    """
    return earlier.lost_start > 0 if lost else earlier.attempt == attempt


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
            return "on-demand capacity was refused"
    if failed.number > (allowed := start_retries_of(snapshot)):
        source = snapshot.start_budget.source
        if failure.kind is StartFailureKind.UNKNOWN:
            source = "a reason that is not known is retried once"
        return f"this was failed start {failed.number}; retries allowed: {allowed} ({source})"
    return ""


def start_retries_of(snapshot: Snapshot) -> int:
    """Return how often this attempt may be started again: once for a reason that is unknown."""
    allowed = snapshot.start_budget.allowed
    return min(allowed, 1) if _failure(snapshot).kind is StartFailureKind.UNKNOWN else allowed


def _failure(snapshot: Snapshot) -> StartFailure:
    failure = start_failure(snapshot.subject)
    if failure is None:
        raise ValueError(f"{snapshot.subject} did not fail to start")
    return failure


def _retried_at(snapshot: Snapshot) -> datetime:
    """Return when a person last retried the run: that begins an attempt anew."""
    history, record = snapshot.history, snapshot.record
    keys = (*record.interruptions, *record.failed_starts)
    parks = {park_id for key in keys for park_id in park_ids_of(key, history)}
    ours = parks | set(map(due_id, parks))
    retried = (
        after.timestamp
        for before, after in pairwise(history)
        if before.is_final and after.type is StateType.SCHEDULED and after.transition_id not in ours
    )
    return max(retried, default=history[0].timestamp)
