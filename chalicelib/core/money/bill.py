"""The bill of one stopped task: what it cost, what on-demand would have cost, what was in vain.

Over any set of bills: paid = Σ seconds x paid rate; useful = Σ (seconds - wasted) x on-demand rate;
net saving = useful - paid. Each of a bill's amounts is rounded once, to 1e-8 USD; sums and
differences of them are exact. What is unknown is named and left out, but for an assumed Spot rate.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from chalicelib.core.model.ecs_task import FARGATE, Cause, Task, classify, was_interrupted
from chalicelib.core.model.flow_run import RunRecord, RunState, StateType, TaskRun
from chalicelib.core.model.policy import Mode
from chalicelib.core.model.pricing import (
    Rate,
    Rates,
    Size,
    billed_seconds,
    cost_usd,
    seconds_between,
    size_of,
)
from chalicelib.core.rescue import snapshot
from chalicelib.core.rescue.rerun_state import was_made_due

NO_FLOW_RUN: Final = "no-flow-run"
NO_DEPLOYMENT: Final = "no-deployment"
SAMPLE_OF_DRILLS: Final = "spot-drill/throw-away"
"""The deployment of `spotctl drill --sample-flow`: nothing in it is real work."""
FARGATE_SINCE: Final = datetime(2017, 11, 29, tzinfo=UTC)
"""When AWS announced Fargate."""
CLOCKS_DIFFER: Final = timedelta(minutes=5)
"""How much AWS's clock may be ahead of Lambda's, at most."""
_AT: Final = ("pull_started_at", "started_at", "execution_stopped_at", "stopped_at", "updated_at")
_NOTHING: Final = Decimal(0)
_REDONE: Final = (Cause.SPOT_INTERRUPTION, Cause.DRILL, Cause.FAILED_START)


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment's id or a key above; its name, if known: flow/deployment; the run's pool."""

    key: str
    name: str = ""
    work_pool: str = ""

    @property
    def title(self) -> str:
        """Its name in a report."""
        return self.name or f"({self.key})"


@dataclass(frozen=True, slots=True)
class Amounts:
    """USD, each rounded to 1e-8: paid, the same on demand, wasted of the paid, useful on demand."""

    cost_usd: Decimal = _NOTHING
    on_demand_usd: Decimal = _NOTHING
    wasted_usd: Decimal = _NOTHING
    useful_usd: Decimal = _NOTHING

    @property
    def savings_usd(self) -> Decimal:
        """What Spot cost less than on-demand would have."""
        return self.on_demand_usd - self.cost_usd

    @property
    def net_savings_usd(self) -> Decimal:
        """The useful part at on-demand's price, less what was paid: may be negative."""
        return self.useful_usd - self.cost_usd


@dataclass(frozen=True, slots=True)
class Bill:
    """One stopped task's, or a failed start's: then `task_arn` is `FailedStart.key`.

    `seconds` are charged ones, `wasted_seconds` those to be redone. `seconds` and `amounts` are
    None where ECS reported no times; `amounts` also where there is no rate or no size.
    `shortcomings` says what is missing: then the bill is partial.
    `began_at` is when AWS began to charge, None where ECS did not report it. `started`: a container
    was; else it is a failed start, and no attempt. Zone and `ended_by` are the task's.
    """

    task_arn: str
    flow_run_id: UUID | None
    deployment: Deployment
    ended_at: datetime
    capacity: str
    cause: Cause
    seconds: Decimal | None
    wasted_seconds: Decimal
    amounts: Amounts | None
    rates: tuple[Rate, ...] = ()
    shortcomings: tuple[str, ...] = ()
    began_at: datetime | None = None
    started: bool = True
    availability_zone: str = ""
    ended_by: str = ""

    @property
    def is_assumed(self) -> bool:
        """Whether what was paid is made with an assumed Spot rate."""
        return any(rate.is_assumed and rate.capacity == self.capacity for rate in self.rates)

    @property
    def is_interrupted(self) -> bool:
        """Whether Spot took the task; a drill did not."""
        return self.cause is Cause.SPOT_INTERRUPTION

    @property
    def is_redone(self) -> bool:
        """Whether its work has to be done again: it was interrupted, or failed to start."""
        return self.cause in _REDONE

    @property
    def is_drill(self) -> bool:
        """Whether a drill ended the task, or its flow is the drills' own: billed apart."""
        return self.cause is Cause.DRILL or self.deployment.name == SAMPLE_OF_DRILLS

    @property
    def counts_its_run(self) -> bool:
        """Whether a report counts its run by it: a container was started, and for no drill."""
        return self.flow_run_id is not None and self.started and not self.is_drill


@dataclass(frozen=True, slots=True)
class Span:
    """An attempt as charged, a minute at least; its container was gone (UTC) before its `end`."""

    start: datetime
    exited_at: datetime
    end: datetime
    seconds: Decimal


def believed(task: Task, now: datetime) -> Task:
    """Return the task without the times that cannot be: before Fargate's, or in the future."""
    times, latest = {name: getattr(task, name) for name in _AT}, now + CLOCKS_DIFFER
    odd = [name for name, at in times.items() if at and not FARGATE_SINCE <= at <= latest]
    unknown: dict[str, Any] = dict.fromkeys(odd)
    return replace(task, **unknown) if odd else task


def never_started(task: Task) -> bool:
    """Whether nothing was charged: no image was pulled, no container ran."""
    times = (task.pull_started_at, task.started_at, task.execution_stopped_at)
    return not any(times) and task.exit_code is None


def cause_of(task: Task, *, warned: bool = False) -> Cause:
    """Return why a task stopped, as the rescue has it; `warned`: a Spot warning is on record.

    A task of no flow run, which none looks after, never is a failed start.
    """
    return (snapshot.cause_of if task.flow_run_id else classify)(task, warned=warned)


def loses_work(task: Task, cause: Cause) -> bool:
    """Whether the task was at work when it was interrupted, or when its host died."""
    host_died = cause is Cause.FAILED_START and task.started_at is not None
    return was_interrupted(cause) or host_died


def span_of(task: Task) -> Span | None:
    """Return what is charged of a stopped task; None where ECS did not report its times."""
    start, end = task.billed_from, task.stopped_at or task.execution_stopped_at
    if start is None or end is None:
        return None
    return Span(start, task.execution_stopped_at or end, end, billed_seconds(start, end))


def bill_of(
    task: Task,
    rates: Rates,
    *,
    deployment: Deployment,
    cause: Cause,
    wasted_seconds: Decimal,
    now: datetime,
) -> Bill:
    """Return the bill of a stopped task. `now` dates it where ECS does not.

    What a failed start was charged is wasted; `wasted_seconds` counts where it was at work.
    """
    ended_at = task.stopped_at or task.execution_stopped_at or task.updated_at or now
    if never_started(task):
        return bill_of_nothing(task.arn, task.flow_run_id, deployment, ended_at, task.capacity)
    span, size = span_of(task), size_of(task)
    paid = rates.get((task.region, task.architecture, task.capacity))
    on_demand = rates.get((task.region, task.architecture, FARGATE))
    started = cause is not Cause.FAILED_START or task.started_at is not None
    wasted = wasted_seconds if cause in _REDONE else _NOTHING
    if span is not None and not started:
        wasted = span.seconds
    lacks = {
        "ECS did not report when the image pull began": task.pull_started_at is None,
        "ECS did not report when the task stopped": task.stopped_at is None,
    }
    amounts = None
    if span is not None:
        lacks |= _missing_prices(task, size, paid, on_demand)
    if span is not None and size is not None and paid is not None and on_demand is not None:
        amounts = Amounts(
            cost_usd=cost_usd(paid, span.seconds, size),
            on_demand_usd=cost_usd(on_demand, span.seconds, size),
            wasted_usd=cost_usd(paid, wasted, size),
            useful_usd=cost_usd(on_demand, span.seconds - wasted, size),
        )
    return Bill(
        task.arn,
        task.flow_run_id,
        deployment,
        ended_at,
        task.capacity,
        cause,
        seconds=span.seconds if span else None,
        wasted_seconds=wasted,
        amounts=amounts,
        rates=tuple(dict.fromkeys(r for r in (paid, on_demand) if r and amounts)),
        shortcomings=tuple(text for text, is_so in lacks.items() if is_so),
        began_at=span.start if span else None,
        started=started,
        availability_zone=task.availability_zone,
        ended_by=task.ended_by,
    )


def bill_of_nothing(
    key: str, flow_run_id: UUID | None, deployment: Deployment, ended_at: datetime, capacity: str
) -> Bill:
    """Return the bill of a failed start that AWS charged nothing for; `key`: `FailedStart.key`."""
    return Bill(
        key,
        flow_run_id,
        deployment,
        ended_at=ended_at,
        capacity=capacity,
        cause=Cause.FAILED_START,
        seconds=_NOTHING,
        wasted_seconds=_NOTHING,
        amounts=Amounts(),
        started=False,
    )


def _missing_prices(
    task: Task, size: Size | None, paid: Rate | None, on_demand: Rate | None
) -> Mapping[str, bool]:
    of, storage = f"{task.architecture}, in {task.region}", size and size.charged_storage_gib
    return {
        "ECS did not report the task's size": size is None,
        f"no rate of {FARGATE}, {of}": on_demand is None,
        f"no rate of {task.capacity}, {of}": paid is None,
        f"no rate of ephemeral storage in {task.region}: it is left out": bool(
            storage and paid and paid.storage_gb_hour_usd is None
        ),
    }


def wasted_seconds(
    span: Span, history: Sequence[RunState], task_runs: Sequence[TaskRun]
) -> Decimal:
    """Return the seconds of an interrupted attempt that have to be redone, of those charged.

    Without persisted results that is all of them; with some, the time from the start of the
    earliest task run to be redone until the attempt's end. `history`: the run's states, oldest
    first; a run that was over when its container exited has nothing to redo. `task_runs`: of the
    run and its subflows, of this attempt or of others too.
    """
    before = [state for state in history if state.timestamp <= span.exited_at]
    if before and before[-1].is_over:
        return Decimal(0)
    attempt = [t for t in task_runs if span.start <= t.started_at <= span.end]
    if not any(task_run.is_kept for task_run in attempt):
        return span.seconds
    redone = [task_run.started_at for task_run in attempt if not task_run.is_kept]
    # All of them count to the same end, so the earliest covers the others.
    return min(seconds_between(min(redone), span.end), span.seconds) if redone else Decimal(0)


class RerunOutcome(StrEnum):
    """What became of an attempt's end; WOULD_ is what observe mode left undone."""

    NONE = "none"
    UNDECIDED = "undecided"
    SPOT_RERUN = "spot-rerun"
    ON_DEMAND_RERUN = "on-demand-rerun"
    WOULD_SPOT_RERUN = "would-spot-rerun"
    WOULD_ON_DEMAND_RERUN = "would-on-demand-rerun"


def outcome_of(
    task: Task, cause: Cause, history: Sequence[RunState], record: RunRecord, mode: Mode
) -> RerunOutcome:
    """Return what was done about a task that stopped.

    `history`: the run's states, oldest first, empty for a run that Prefect does not know; only an
    interruption needs it. UNDECIDED means that `react` or `sweep` may still handle it.

    A start that Spot had no capacity for never had a task, so it has no bill to count its rerun by:
    the attempt on demand after it is the rerun. A run that was moved before its start is none.
    """
    if was_interrupted(cause):
        return _outcome_of_interruption(task, history, record, mode)
    by_interruption = any(i.rerun_on == FARGATE for i in record.interruptions.values())
    by_refusal = record.next_capacity == FARGATE and not by_interruption and record.moved is None
    took_effect = task.capacity == FARGATE and mode is not Mode.OBSERVE
    is_rerun = by_refusal and took_effect and cause is not Cause.FAILED_START
    return RerunOutcome.ON_DEMAND_RERUN if is_rerun else RerunOutcome.NONE


def _outcome_of_interruption(
    task: Task, history: Sequence[RunState], record: RunRecord, mode: Mode
) -> RerunOutcome:
    interruption = record.interruptions.get(task.arn)
    if not history or history[-1].type is StateType.PAUSED:
        return RerunOutcome.NONE
    if interruption is None:
        return RerunOutcome.UNDECIDED
    on_demand = interruption.rerun_on == FARGATE
    if interruption.rerun_on and mode is Mode.OBSERVE:
        return RerunOutcome.WOULD_ON_DEMAND_RERUN if on_demand else RerunOutcome.WOULD_SPOT_RERUN
    if interruption.rerun_on and was_made_due(task.arn, history):
        return RerunOutcome.ON_DEMAND_RERUN if on_demand else RerunOutcome.SPOT_RERUN
    return RerunOutcome.NONE if interruption.outcome_annotated else RerunOutcome.UNDECIDED


def guards_of(task: Task, record: RunRecord, mode: Mode) -> tuple[str, str]:
    """The guards that moved (or would have) the rerun and the run's first start; empty for none."""
    interruption, moved = record.interruptions.get(task.arn), record.moved
    took_effect = moved is not None and (task.capacity == FARGATE or mode is Mode.OBSERVE)
    of_start = moved.guard if moved and took_effect else ""
    return interruption.guard if interruption else "", of_start
