"""The story of one flow run, out of the record, bills, ECS's tasks and Prefect's states. No I/O."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from itertools import pairwise
from typing import Final

from chalicelib.adapters.records import KEPT_FOR
from chalicelib.core.model.ecs_task import Cause
from chalicelib.core.model.flow_run import RunRecord, StateType
from chalicelib.core.model.policy import budget_of
from chalicelib.core.model.text import counted
from chalicelib.core.money.bill import Amounts
from spotctl.explain.attempts import attempts_of, failed_starts_of
from spotctl.explain.model import (
    NEVER,
    TASKS_OF_ECS,
    Attempt,
    Evidence,
    FailedToStart,
    Story,
)

_SHOWS: Final = timedelta(seconds=1)
"""A difference of two clocks from which on it is noted."""


def story_of(e: Evidence) -> Story:
    """Return the story of a run, as far as the evidence goes."""
    record = e.record or RunRecord(e.flow_run_id)
    attempts, failed = attempts_of(e, record), failed_starts_of(e, record)
    is_live = any(attempt.is_live for attempt in attempts)
    is_under_way = is_live if e.run is None else not e.run.state.is_final
    begins = [a.order for a in attempts if a.order > NEVER]
    ends = [a.ended_at for a in attempts if a.ended_at]
    amounts = [a.money for a in attempts if a.money] + [f.money for f in failed if f.money]
    is_touched = bool(record.interruptions or record.failed_starts or record.moved)
    return Story(
        flow_run_id=e.flow_run_id,
        name=e.run.name if e.run else "",
        deployment=e.deployment or next((b.deployment.name for b in e.bills), ""),
        state=e.run.state.name if e.run else "",
        message=e.run.state.message if e.run else "",
        headline=_headline(e, attempts, failed),
        attempts=attempts,
        failed_starts=failed,
        moved=record.moved,
        children=e.children,
        money=_sum(amounts),
        unpriced=sum(attempt.money is None for attempt in attempts),
        is_assumed=any(attempt.is_assumed for attempt in attempts),
        is_estimate=any(attempt.is_estimate for attempt in attempts),
        began_at=min(begins, default=None),
        ended_at=e.now if is_live or (is_under_way and begins) else max(ends, default=None),
        is_under_way=is_under_way,
        untouched=() if is_touched else e.obstacles or (_as_nothing_happened(e, attempts),),
        notes=tuple(_notes(e, record, attempts)),
        missing=e.missing,
    )


def _headline(e: Evidence, attempts: Sequence[Attempt], failed: Sequence[FailedToStart]) -> str:
    """What became of it, in a sentence: state, where, after what, in how many tasks."""
    spot = sum(a.cause == Cause.SPOT_INTERRUPTION for a in attempts)
    drills = sum(a.cause == Cause.DRILL for a in attempts)
    after = [
        counted(number, thing)
        for number, thing in (
            (spot, "Spot interruption"),
            (drills, "drill"),
            (len(failed), "failed start"),
        )
        if number
    ]
    state = e.run.state.name if e.run else "State unknown, last"
    runs = e.run is None or e.run.state.type in (StateType.RUNNING, StateType.COMPLETED)
    where = f" on {attempts[-1].capacity}" if attempts and runs else ""
    behind = f" after {' and '.join(after)}" if after else ""
    tasks = f", in {counted(len(attempts), 'ECS task')}" if attempts else "; no task of it is known"
    return f"{state}{where}{behind}{tasks}"


def _as_nothing_happened(e: Evidence, attempts: Sequence[Attempt]) -> str:
    """Why nothing is on record of a run that would be rescued."""
    if number := sum(attempt.is_interrupted for attempt in attempts):
        are = "are" if number > 1 else "is"
        return (
            f"{counted(number, 'interruption')} of it {are} not on record: react had no event of"
            " them, or failed; sweep looks every five minutes; run spotctl status"
        )
    what = "no interruption and no failed start of it is on record"
    if e.run is None or e.run.state.is_final:
        known = [a.order for a in attempts if a.order > NEVER]
        known += [e.run.state.timestamp] if e.run else []
        is_old = bool(known) and e.now - min(known) >= KEPT_FOR
        return f"{what}: none came{f', or it is over {KEPT_FOR.days} days ago' * is_old}"
    own = e.record.own_retries if e.record else e.run.policy.retries
    budget = budget_of(e.run.tags, own, e.policy)
    most = "at most " * budget.is_auto
    return (
        f"{what}; if Spot takes its task, it is rerun: {most}{counted(budget.allowed, 'time')} on"
        f" Spot ({budget.source}), then on FARGATE"
    )


def _notes(e: Evidence, record: RunRecord, attempts: Sequence[Attempt]) -> Iterator[str]:
    unpriced = sum(a.money is None for a in attempts)
    if unpriced:
        yield f"{counted(unpriced, 'task')} of {len(attempts)} without a price: not in the sums"
    if any(a.is_estimate for a in attempts):
        yield "what has no bill yet is estimated up to now, as if it were all useful"
    shown = {task.arn for task in e.tasks}
    was_read = not any(each.startswith(TASKS_OF_ECS) for each in e.missing)
    if was_read and (gone := sum(a.task_arn not in shown for a in attempts)):
        yield (
            f"ECS shows {gone} of {counted(len(attempts), 'task')} no more, as is usual an hour"
            " after the end: when their containers started is not known"
        )
    if len(attempts) > 1 and not e.history:
        yield "without Prefect's states, a rerun counts as running once AWS charged for its task"
    if record.interruptions and record.interrupted > len(record.interruptions):
        gone = record.interrupted - len(record.interruptions)
        yield f"the first {gone} interruptions are no longer on record"
    if off := _clocks_differ(attempts):
        yield (
            f"the clocks of AWS and Prefect differ by {off:.0f} s or more: seconds between a"
            " container's exit and the run's next state are off by as much"
        )
    for before, after in pairwise(attempts):
        ended_at, started_at = before.exited_at, after.started_at
        if ended_at and started_at and started_at < ended_at - _SHOWS:
            yield f"task {after.number} had started before task {before.number} had exited"


def _clocks_differ(attempts: Sequence[Attempt]) -> float:
    """Seconds by which Prefect's flow ran before ECS's container, or after its end; 0: it fits."""
    off = timedelta(0)
    for attempt in attempts:
        running, started, exited = attempt.running_at, attempt.started_at, attempt.exited_at
        if running and started:
            off = max(off, started - running)
        if running and exited:
            off = max(off, running - exited)
    return off.total_seconds() if off >= _SHOWS else 0.0


def _sum(amounts: Sequence[Amounts]) -> Amounts:
    return Amounts(
        *(
            sum((getattr(each, name) for each in amounts), start=getattr(Amounts(), name))
            for name in ("cost_usd", "on_demand_usd", "wasted_usd", "useful_usd")
        )
    )
