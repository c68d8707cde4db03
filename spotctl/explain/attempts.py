"""The attempts of a run, and its failed starts: each joined of record, bill, ECS and Prefect."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise

from chalicelib.core.model.ecs_task import FARGATE, Cause, Task
from chalicelib.core.model.flow_run import (
    OVER_STATES,
    FailedStart,
    FlowRun,
    Interruption,
    RunRecord,
    RunState,
    StateType,
)
from chalicelib.core.model.policy import Mode, is_on_demand
from chalicelib.core.money.bill import Bill, Deployment, believed, bill_of
from chalicelib.core.rescue.orphans import noted_task
from chalicelib.core.rescue.rerun_state import due_id, park_ids_of
from chalicelib.core.rescue.snapshot import CLOCKS_DIFFER, cause_of
from spotctl.explain.model import (
    INTERRUPTED,
    NEVER,
    Attempt,
    Decided,
    Evidence,
    FailedToStart,
    seconds_from,
)
from spotctl.explain.work import divide, judged, with_repeats

_WITH_A_TASK = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
_LOSES: frozenset[str] = frozenset({*INTERRUPTED, Cause.FAILED_START})


def attempts_of(e: Evidence, record: RunRecord) -> tuple[Attempt, ...]:
    """Return the attempts in the order of their beginning, with what followed each."""
    bills = {bill.task_arn: bill for bill in e.bills}
    tasks = {task.arn: believed(task, e.now) for task in e.tasks}
    found = []
    for key in dict.fromkeys((*record.interruptions, *bills, *tasks)):
        noted, bill, task = record.interruptions.get(key), bills.get(key), tasks.get(key)
        if noted or not _never_started(bill, task, record.failed_starts.get(key)):
            found.append(_attempt(e, record, key, bill, task))
    known = {*record.interruptions, *record.failed_starts, *bills, *tasks}
    if e.run is not None and (arn := noted_task(e.run)[1]).startswith("arn:") and arn not in known:
        found.append(_seen_by_prefect(e, e.run, arn, record.next_capacity))
    found.sort(key=lambda attempt: attempt.order)
    return _with_work(e, _followed(e, found))


def _seen_by_prefect(e: Evidence, run: FlowRun, arn: str, capacity: str) -> Attempt:
    """The task that the worker noted on the run, of which nothing else is known."""
    running = [state.timestamp for state in e.history if state.type is StateType.RUNNING]
    return Attempt(
        arn,
        FARGATE if is_on_demand(run) else capacity,
        running_at=max(running, default=run.state.timestamp),
        ended_at=run.state.timestamp if run.state.is_final else None,
        is_live=run.state.type in _WITH_A_TASK,
    )


def failed_starts_of(e: Evidence, record: RunRecord) -> tuple[FailedToStart, ...]:
    """Return the starts that failed, by time: those on record, and those that only a bill shows."""
    bills = {bill.task_arn: bill for bill in e.bills if not bill.started}
    found = []
    for key, failed in record.failed_starts.items():
        if failed.lost_start:
            continue  # its host died: an attempt
        arn, bill = key if key.startswith("arn:") else "", bills.pop(key, None)
        found.append(
            FailedToStart(
                at=failed.recorded_at or (bill.ended_at if bill else None),
                capacity=failed.capacity,
                kind=failed.kind,
                reason=failed.reason,
                decided=_decided_of_start(e, failed),
                number=failed.number,
                task_arn=arn,
                money=bill.amounts if bill else None,
            )
        )
    ends = {key: (b.ended_at, b.capacity, b.ended_by, b.amounts) for key, b in bills.items()}
    for task in e.tasks:
        if _never_started(None, task, None) and task.arn not in {b.task_arn for b in e.bills}:
            ends[task.arn] = (task.exited_at or e.now, task.capacity, task.ended_by, None)
    for key in ends.keys() - record.interruptions.keys() - record.failed_starts.keys():
        at, capacity, reason, amounts = ends[key]
        unknown = Decided("not on record")
        found.append(FailedToStart(at, capacity, "", reason, unknown, 1, key, amounts))
    return tuple(sorted(found, key=lambda failed: failed.at or NEVER))


def _never_started(bill: Bill | None, task: Task | None, failed: FailedStart | None) -> bool:
    if bill is not None:
        return not bill.started
    if failed is not None:
        return failed.lost_start == 0
    return task is not None and task.exited and task.started_at is None


def _attempt(
    e: Evidence, record: RunRecord, key: str, bill: Bill | None, task: Task | None
) -> Attempt:
    """Join what is known: the bill before ECS, ECS before the record, where they say the same."""
    attempt, noted = Attempt(key, ""), record.interruptions.get(key)
    if noted is not None:
        attempt = replace(
            attempt,
            capacity=noted.capacity,
            availability_zone=noted.availability_zone,
            began_at=noted.billed_from,
            warned_at=noted.warned_at,
            exited_at=noted.exited_at,
            ended_at=noted.exited_at,
            cause=noted.cause,
            ended_by=", ".join(filter(None, (noted.stop_code, noted.reason))),
            interruption=noted.number,
        )
    if task is not None:
        cause = cause_of(task, warned=noted is not None).value if task.exited else ""
        attempt = replace(
            attempt,
            capacity=task.capacity,
            created_at=task.created_at,
            availability_zone=task.availability_zone or attempt.availability_zone,
            began_at=task.billed_from or attempt.began_at,
            started_at=task.started_at,
            exited_at=task.exited_at or attempt.exited_at,
            ended_at=(task.exited and task.stopped_at) or task.exited_at or attempt.ended_at,
            cause=attempt.cause or cause,
            ended_by=(task.exited and task.ended_by) or attempt.ended_by,
        )
    if bill is not None:
        attempt = replace(
            attempt,
            capacity=bill.capacity,
            availability_zone=attempt.availability_zone or bill.availability_zone,
            began_at=bill.began_at or attempt.began_at,
            exited_at=attempt.exited_at or bill.ended_at,
            ended_at=bill.ended_at,
            cause=bill.cause.value,
            ended_by=attempt.ended_by or bill.ended_by,
            wasted_seconds=bill.wasted_seconds,
        )
    is_live = bill is None and attempt.exited_at is None and task is not None
    priced = bill or _estimate(e, task)
    return replace(
        attempt,
        is_live=is_live,
        cause="" if is_live else attempt.cause,
        loses_work=not is_live and attempt.cause in _LOSES and not _was_over(e, attempt, noted),
        decided=_decided(e, attempt, noted, record.failed_starts.get(key)),
        money=priced.amounts if priced else None,
        is_estimate=bill is None and priced is not None,
        is_assumed=priced is not None and priced.is_assumed,
    )


def _estimate(e: Evidence, task: Task | None) -> Bill | None:
    """Return what a task without a bill has cost so far; None where nothing is charged."""
    if task is None or task.billed_from is None:
        return None
    so_far = replace(task, stopped_at=task.stopped_at or task.exited_at or e.now)
    nothing, deployment = Decimal(0), Deployment("")
    return bill_of(
        so_far,
        e.policy.rates,
        deployment=deployment,
        cause=Cause.OTHER,
        wasted_seconds=nothing,
        now=e.now,
    )


def _was_over(e: Evidence, attempt: Attempt, noted: Interruption | None) -> bool:
    """Whether the run had ended when the container exited: then nothing is lost."""
    if noted is not None and noted.run_state:
        return noted.run_state in OVER_STATES and not noted.rerun_on
    exited_at = attempt.exited_at
    before = [s for s in e.history if exited_at is not None and s.timestamp <= exited_at]
    return bool(before) and before[-1].is_over


def _decided_of_start(e: Evidence, failed: FailedStart) -> Decided:
    what, _, why = failed.why.partition(": ")
    if failed.not_rerun:
        what, why = "not started again", failed.not_rerun
    elif not what:
        again = f"started again on {failed.retry_on}"
        what = again if failed.retry_on else "not started again"
    due = _due(failed.key, e.history)
    return Decided(what, why, due.timestamp if due else failed.recorded_at)


def _decided(
    e: Evidence, attempt: Attempt, noted: Interruption | None, failed: FailedStart | None
) -> Decided | None:
    if noted is None:
        return _decided_of_start(e, failed) if failed else None
    parked = _first(e.history, park_ids_of(attempt.task_arn, e.history))
    due = _due(attempt.task_arn, e.history)
    what, _, why = noted.why.partition(": ")
    if noted.not_rerun:
        what, why = "not rerun", noted.not_rerun
    elif not what and noted.rerun_on:  # of an older release, or not annotated yet
        guard = f"{noted.guard}: " if noted.guard else ""
        what = f"{'would be ' * (e.policy.mode is Mode.OBSERVE)}rerun on {noted.rerun_on}"
        said = due.message.rpartition(": ")[0] if due else ""
        why = f"{guard}{noted.guard_reason}" if noted.guard_reason else said
    elif not what:
        what = "not rerun" if noted.outcome_annotated else "not decided yet"
    at = noted.decided_at or (parked.timestamp if parked else None)
    seconds = seconds_from(attempt.exited_at, due.timestamp) if due else None
    return Decided(what, why, at, seconds)


def _followed(e: Evidence, found: Sequence[Attempt]) -> list[Attempt]:
    """Number them, and join each with when its flow ran, and with the next one."""
    followed: list[Attempt] = []
    since = NEVER
    for number, attempt in enumerate(found, start=1):
        running = attempt.running_at or _running_at(e.history, since)
        followed.append(replace(attempt, number=number, running_at=running))
        due = _due(attempt.task_arn, e.history)
        if due is not None:
            since = due.timestamp
        elif attempt.exited_at is not None:
            since = max(attempt.exited_at - CLOCKS_DIFFER, since)
    for place, (attempt, after) in enumerate(pairwise(followed)):
        again_at = after.running_at or after.started_at or after.began_at
        again = seconds_from(attempt.exited_at, again_at)
        decided = attempt.decided or _by_prefect(e.history, attempt, after)
        followed[place] = replace(attempt, again_seconds=again, decided=decided)
    return followed


def _running_at(history: Sequence[RunState], since: datetime) -> datetime | None:
    running = (s.timestamp for s in history if s.type is StateType.RUNNING and s.timestamp >= since)
    return next(running, None)


def _by_prefect(history: Sequence[RunState], before: Attempt, after: Attempt) -> Decided | None:
    """What Prefect scheduled after an end that is not ours: an own retry, or a person's."""
    start, end = before.order, after.running_at or after.order
    between = [s for s in history if s.type is StateType.SCHEDULED and start < s.timestamp <= end]
    if not between:
        return None
    return Decided(f"Prefect: {between[-1].name}", between[-1].message, between[-1].timestamp)


def _with_work(e: Evidence, attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    begins = [a.running_at or a.order for a in attempts]
    shares = divide(e.work, [begin - timedelta(seconds=1) for begin in begins if begin > NEVER])
    if len(shares) < len(attempts):  # of one nothing is known, not even when: the first, by order
        shares = [()] * (len(attempts) - len(shares)) + shares
    fates = [
        judged(share, is_lost=a.loses_work, is_over=not a.is_live)
        for a, share in zip(attempts, shares, strict=True)
    ]
    marked = with_repeats(fates)
    return tuple(replace(a, work=work) for a, work in zip(attempts, marked, strict=True))


def _due(key: str, history: Sequence[RunState]) -> RunState | None:
    return _first(history, {due_id(park_id) for park_id in park_ids_of(key, history)})


def _first(history: Sequence[RunState], ids: frozenset[object] | set[object]) -> RunState | None:
    return next((state for state in history if state.transition_id in ids), None)
