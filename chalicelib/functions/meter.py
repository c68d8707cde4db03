"""The `meter` Lambda: one stopped Fargate task, billed once, whoever asks and however often.

The bill and the daily sums go into the table in one transaction. An interrupted attempt is not
billed before it is known what became of it: `sweep`, which bills whatever has no bill yet, is left
to do it where `react` has not decided.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final

from chalicelib.core.context import Context
from chalicelib.core.metrics import Measured, values_of_bill
from chalicelib.core.model.ecs_task import (
    Ignored,
    Task,
    classify,
    in_clusters,
    parse_event,
    was_interrupted,
)
from chalicelib.core.model.run_record import RunRecord
from chalicelib.core.money.bill import (
    NO_DEPLOYMENT,
    NO_FLOW_RUN,
    Bill,
    Deployment,
    bill_of,
    never_started,
    span_of,
)
from chalicelib.core.money.daily_sums import sum_of
from chalicelib.core.money.outcome import (
    Outcome,
    guards_of,
    outcome_of_interruption,
    outcome_of_other_stop,
)
from chalicelib.core.money.waste import wasted_seconds
from chalicelib.errors import LAMBDA_RETRIES, PrefectSpotError, UnsettledError

DECIDED_WITHIN: Final = timedelta(minutes=10)
"""After this, an interruption that nobody has answered is billed as one that was not rerun."""

SECONDS_PER_BILL: Final = 3.0
"""Left of a sweep, or no further task is billed."""

MOST_TRIES: Final = 3
"""Tries against others that bill tasks of the same run or day for the first time."""


class Metering(StrEnum):
    """What came of a task, in a word."""

    BILLED = "billed"
    BILLED_BEFORE = "billed before"
    NOT_CHARGED = "not charged"
    LEFT_TO_SWEEP = "left to sweep"
    IGNORED = "ignored"


@dataclass(frozen=True, slots=True)
class MeterReport:
    """What was done about one event, and why."""

    metering: Metering
    reason: str = ""

    @property
    def summary(self) -> Mapping[str, object]:
        """What the function returns to Lambda."""
        return {"metering": self.metering.value, "reason": self.reason}


def meter(context: Context, event: object) -> MeterReport:
    """Bill the task that an event tells the end of.

    Raises:
        PrefectSpotError: retryable; also botocore's errors, from the table or ECS.
    """
    told = parse_event(event)
    if isinstance(told, Ignored):
        return MeterReport(Metering.IGNORED, told.reason)
    if not in_clusters(told, context.clusters, context.account):
        return MeterReport(Metering.IGNORED, "the task is in none of our clusters")
    if told.last_status != "STOPPED":
        return MeterReport(Metering.IGNORED, "the task has not stopped")
    described = context.tasks.describe(told.cluster_arn, told.arn)
    return bill_task(context, _with_ids(told, described))


def bill_missed(context: Context) -> int:
    """Bill what `meter` missed, of the tasks that ECS still remembers; return how many it were."""
    billed = 0
    for cluster in context.clusters:
        over = [task for task in context.tasks.stopped_of(cluster) if _is_due(context, task)]
        missing = set(context.bills.unbilled([task.arn for task in over]))
        for task in over:
            if context.seconds_left() < SECONDS_PER_BILL:
                return billed
            if task.arn in missing:
                billed += _billed_if_possible(context, task)
    return billed


def bill_task(context: Context, task: Task) -> MeterReport:
    """Bill a stopped task, unless that was done before.

    Raises:
        PrefectSpotError: Prefect, ECS or the table failed; retryable.
    """
    if task.launch_type not in ("", "FARGATE"):
        return MeterReport(Metering.IGNORED, "not a Fargate task")
    if never_started(task):
        return MeterReport(Metering.NOT_CHARGED, "no image was pulled and no container ran")
    if not context.bills.unbilled([task.arn]):
        return MeterReport(Metering.BILLED_BEFORE)
    record = RunRecord(task.flow_run_id) if task.flow_run_id else None
    if task.flow_run_id is not None:
        record = context.records.read(task.flow_run_id)
    cause = classify(task, warned=record is not None and record.warned_of(task.arn))
    wasted, outcome = Decimal(0), Outcome.NONE
    if record is not None and was_interrupted(cause):
        wasted, outcome = _look_at_interruption(context, task, record)
    elif record is not None:
        outcome = outcome_of_other_stop(task, record, context.policy.mode)
    if outcome is Outcome.UNDECIDED and _may_be_decided_yet(context, task):
        return MeterReport(Metering.LEFT_TO_SWEEP, "its interruption has not been answered yet")
    bill = bill_of(
        task,
        context.policy.rates,
        deployment=_deployment(context, task),
        cause=cause,
        wasted_seconds=wasted,
        now=context.now(),
    )
    guards = guards_of(task, record, context.policy.mode) if record is not None else ("", "")
    return _write(context, bill, outcome, guards)


def _write(context: Context, bill: Bill, outcome: Outcome, guards: tuple[str, str]) -> MeterReport:
    first = sum_of(bill, outcome, first_of_its_run=False)
    for _ in range(MOST_TRIES):
        books = context.bills.look_up(bill, first)
        if books.billed:
            return MeterReport(Metering.BILLED_BEFORE)
        is_first = not books.run_known
        daily = sum_of(bill, outcome, first_of_its_run=is_first, guards=guards)
        if context.bills.write(bill, daily, books):
            _tell(context, bill)
            return MeterReport(Metering.BILLED, "; ".join(bill.shortcomings))
    raise UnsettledError(
        "other handlers kept billing tasks of the same run", next_step=LAMBDA_RETRIES
    )


def _tell(context: Context, bill: Bill) -> None:
    context.measure(Measured(bill.deployment.name, values_of_bill(bill)))
    context.log.info(
        "billed",
        task_arn=bill.task_arn,
        flow_run_id=str(bill.flow_run_id or ""),
        capacity=bill.capacity,
        cause=bill.cause.value,
        seconds=None if bill.seconds is None else float(bill.seconds),
        wasted_seconds=float(bill.wasted_seconds),
        cost_usd=None if bill.amounts is None else f"{bill.amounts.cost_usd:f}",
        shortcomings=bill.shortcomings,
    )


def _look_at_interruption(
    context: Context, task: Task, record: RunRecord
) -> tuple[Decimal, Outcome]:
    """Ask Prefect what the attempt lost, and whether it was answered."""
    history = context.prefect.read_history(record.flow_run_id)
    outcome = outcome_of_interruption(task, history, record, context.policy.mode)
    span = span_of(task)
    if span is None or (outcome is Outcome.UNDECIDED and _may_be_decided_yet(context, task)):
        return Decimal(0), outcome
    task_runs = context.prefect.read_task_runs(record.flow_run_id, span.start, span.end)
    return wasted_seconds(span, history, task_runs), outcome


def _may_be_decided_yet(context: Context, task: Task) -> bool:
    return task.exited_at is not None and context.now() - task.exited_at < DECIDED_WITHIN


def _deployment(context: Context, task: Task) -> Deployment:
    """Whom to bill. A name that Prefect does not tell now is told with a later bill."""
    if task.flow_run_id is None:
        return Deployment(NO_FLOW_RUN)
    deployment_id = task.deployment_id
    if deployment_id is None:
        run = context.prefect.read_run(task.flow_run_id)
        deployment_id = run.deployment_id if run else None
    if deployment_id is None:
        return Deployment(NO_DEPLOYMENT)
    try:
        name = context.prefect.read_deployment_name(deployment_id)
    except PrefectSpotError:
        context.log.exception("the deployment's name cannot be had", task_arn=task.arn)
        name = ""
    return Deployment(str(deployment_id), name)


def _with_ids(told: Task, described: Task | None) -> Task:
    """The task as the event tells it, with the ids that only its tags have."""
    if described is None:
        return told
    return replace(
        told,
        flow_run_id=told.flow_run_id or described.flow_run_id,
        deployment_id=described.deployment_id,
    )


def _is_due(context: Context, task: Task) -> bool:
    """Whether the fast path had its time with a task that has stopped."""
    if task.last_status != "STOPPED" or never_started(task):
        return False
    ended_at = task.stopped_at or task.exited_at
    return ended_at is None or context.now() - ended_at > context.grace


def _billed_if_possible(context: Context, task: Task) -> int:
    try:
        return int(bill_task(context, task).metering is Metering.BILLED)
    except PrefectSpotError:
        context.log.exception("billing the task failed", task_arn=task.arn)
        return 0
