"""The `meter` Lambda: bills each stopped Fargate task once, however often its event is delivered.

The bill and the daily sums go into the table in one transaction. An interrupted attempt is billed
once `react` has decided about its rerun; `sweep` bills what has no bill by then. `sweep` also
publishes the savings in Prefect.
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
from chalicelib.core.model.flow_run import RunRecord
from chalicelib.core.money.bill import (
    NO_DEPLOYMENT,
    NO_FLOW_RUN,
    Bill,
    Deployment,
    RerunOutcome,
    bill_of,
    guards_of,
    never_started,
    outcome_of_interruption,
    outcome_of_other_stop,
    span_of,
    wasted_seconds,
)
from chalicelib.core.money.daily_sums import sum_of
from chalicelib.core.money.report import (
    TableArtifact,
    days_between,
    in_usd,
    report_of,
    savings_table,
)
from chalicelib.errors import PrefectSpotError

DECIDED_WITHIN: Final = timedelta(minutes=10)
"""After this, an interruption without a decision is billed as one that was not rerun."""

SECONDS_PER_BILL: Final = 3.0
"""What a sweep has left, at least, when it begins with another bill."""

SAVINGS_KEY: Final = "spot-savings"
"""Of the table artifact in Prefect."""

SAVINGS_DAYS: Final = 30


class Metering(StrEnum):
    """What `meter` did about a task."""

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
    """Bill the task whose end an ECS event reports; ignore any other event.

    Raises:
        PrefectSpotError: retryable; also botocore's errors, from the table or ECS.
    """
    event_task = parse_event(event)
    if isinstance(event_task, Ignored):
        return MeterReport(Metering.IGNORED, event_task.reason)
    if not in_clusters(event_task, context.clusters, context.account):
        return MeterReport(Metering.IGNORED, "the task is in none of our clusters")
    if event_task.last_status != "STOPPED":
        return MeterReport(Metering.IGNORED, "the task has not stopped")
    described = context.tasks.describe(event_task.cluster_arn, event_task.arn)
    return bill_task(context, _with_ids(event_task, described))


def bill_missed(context: Context) -> int:
    """Bill what `meter` missed, of the tasks that ECS still describes; return the number of bills.

    Stops when the invocation is short of time. A task that cannot be billed is logged and left to
    the next sweep. Raises botocore's errors, when ECS or the table fail.
    """
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
    """Bill a stopped task, unless it has a bill.

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
    wasted, outcome = Decimal(0), RerunOutcome.NONE
    if record is not None and was_interrupted(cause):
        wasted, outcome = _waste_and_outcome(context, task, record)
    elif record is not None:
        outcome = outcome_of_other_stop(task, record, context.policy.mode)
    if outcome is RerunOutcome.UNDECIDED and _may_be_decided_yet(context, task):
        return MeterReport(Metering.LEFT_TO_SWEEP, "its interruption is not handled yet")
    bill = bill_of(
        task,
        context.policy.rates,
        deployment=_deployment(context, task),
        cause=cause,
        wasted_seconds=wasted,
        now=context.now(),
    )
    guards = guards_of(task, record, context.policy.mode) if record is not None else ("", "")
    first = sum_of(bill, outcome, first_of_its_run=True, guards=guards)
    later = sum_of(bill, outcome, first_of_its_run=False, guards=guards)
    if not context.bills.write(bill, first, later):
        return MeterReport(Metering.BILLED_BEFORE)
    _report(context, bill)
    return MeterReport(Metering.BILLED, "; ".join(bill.shortcomings))


def publish_savings(context: Context) -> bool:
    """Write the last 30 days' savings to Prefect as a table artifact, once a day (UTC).

    Returns whether it did. A sweep that dies between the two writes lets the next one write the
    table again. Raises PrefectSpotError; also botocore's errors.
    """
    today = context.now().date()
    if context.bills.read_reported() == today.isoformat():
        return False
    days = days_between(today - timedelta(days=SAVINGS_DAYS - 1), today)
    report = report_of(context.bills.read_sums(days), days[0], days[-1])
    description = (
        f"What Fargate Spot saved from {days[0]} to {days[-1]} (UTC), estimated;"
        f" net of what had to be run again: {in_usd(report.total.counts.net_savings_usd)} USD."
    )
    text = " ".join([description, *(f"Note: {warning}." for warning in report.warnings)])
    context.prefect.write_table(TableArtifact(SAVINGS_KEY, savings_table(report), text))
    context.bills.save_reported(today.isoformat())
    return True


def _report(context: Context, bill: Bill) -> None:
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


def _waste_and_outcome(
    context: Context, task: Task, record: RunRecord
) -> tuple[Decimal, RerunOutcome]:
    """Read from Prefect what the attempt lost, in seconds, and what became of it."""
    history = context.prefect.read_history(record.flow_run_id)
    outcome = outcome_of_interruption(task, history, record, context.policy.mode)
    span = span_of(task)
    if span is None or (outcome is RerunOutcome.UNDECIDED and _may_be_decided_yet(context, task)):
        return Decimal(0), outcome
    task_runs = context.prefect.read_task_runs(record.flow_run_id, span.start, span.end)
    return wasted_seconds(span, history, task_runs), outcome


def _may_be_decided_yet(context: Context, task: Task) -> bool:
    return task.exited_at is not None and context.now() - task.exited_at < DECIDED_WITHIN


def _deployment(context: Context, task: Task) -> Deployment:
    """What to bill. A name that cannot be read now comes with a later bill of the deployment."""
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
        context.log.exception("the deployment's name cannot be read", task_arn=task.arn)
        name = ""
    return Deployment(str(deployment_id), name)


def _with_ids(event_task: Task, described: Task | None) -> Task:
    """The task of the event, with the ids that only the described task's tags have."""
    if described is None:
        return event_task
    return replace(
        event_task,
        flow_run_id=event_task.flow_run_id or described.flow_run_id,
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
