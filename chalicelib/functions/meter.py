"""The `meter` Lambda: bills each stopped Fargate task once, however often its event is delivered.

The bill and the daily sums go into the table in one transaction. An interrupted attempt is billed
once `react` has decided about its rerun; `sweep` bills what has no bill by then. `sweep` also
publishes the savings in Prefect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Final
from uuid import UUID

from chalicelib.core.metrics import Measured, Metric, values_of_bill
from chalicelib.core.model.ecs_task import Cause, Ignored, Task, parse_event, reason_to_ignore
from chalicelib.core.model.flow_run import FailedStart, FlowRun, RunRecord
from chalicelib.core.model.policy import other_pool
from chalicelib.core.model.sweeping import SweepNotes, Unjudged
from chalicelib.core.model.text import kept, one_line
from chalicelib.core.money import bill as billing
from chalicelib.core.money.report import days_between, marked, report_of, sum_of
from chalicelib.core.money.savings import TableArtifact, savings_table
from chalicelib.core.ports import Context, Undescribed
from chalicelib.core.rescue.orphans import MOST_NOTED
from chalicelib.errors import PASSING, PrefectSpotError, concerns_all

DECIDED_WITHIN: Final = timedelta(minutes=10)
"""After this, an interruption without a decision is billed as one that was not rerun."""
SECONDS_PER_BILL: Final = 3.0
"""What a sweep has left, at least, when it begins with another bill."""
PASSES_WITHIN: Final = timedelta(minutes=30)
"""How long a task may stay without a bill because Prefect or the table are busy. ECS shows it for
an hour."""
ENOUGH_IN_A_ROW: Final = 3
"""After so many failures that seem to concern all, the rest is left to the next sweep: what AWS
answers about one task only may have any name."""
UNBILLED_FOR: Final = timedelta(hours=1)
MOST_UNBILLED: Final = 100
"""How many tasks that could not be billed are kept, the last ones."""
SAVINGS_DAYS: Final = 30
NO_RUN: Final = UUID(int=0)
"""Stands for the run of a task that has none, in an empty record."""


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

    Raises PrefectSpotError, retryable; also botocore's errors, from the table or ECS.
    """
    task = parse_event(event)
    if isinstance(task, Ignored):
        return MeterReport(Metering.IGNORED, task.reason)
    if reason := reason_to_ignore(task, *context.scope):
        return MeterReport(Metering.IGNORED, reason)
    if task.last_status != "STOPPED":
        return MeterReport(Metering.IGNORED, "the task has not stopped")
    if described := context.tasks.describe(task.cluster_arn, task.arn):  # its tags have the ids
        task = replace(
            task,
            launch_type=task.launch_type or described.launch_type,
            capacity_provider=task.capacity_provider or described.capacity_provider,
            flow_run_id=task.flow_run_id or described.flow_run_id,
            deployment_id=described.deployment_id,
            work_pool=described.work_pool,
        )
    return bill_task(context, task)


def keep_accounts(context: Context, notes: SweepNotes) -> int:
    """Bill what `meter` missed, and publish the savings; return the number of bills.

    Neither stops the other, nor the sweep: runs are repaired by now, which comes first. A task that
    cannot be billed is counted once, and kept for `spotctl status` until it is billed, or for an
    hour after it was last met. `notes`: as the sweep has saved them. Never raises.
    """
    billed = 0
    try:
        kept_since = context.now() - UNBILLED_FOR
        unbilled = {arn: u for arn, u in notes.unbilled.items() if u.met_at > kept_since}
        try:
            billed = bill_missed(context, unbilled)
        finally:
            newest = dict(
                sorted(unbilled.items(), key=lambda kept: kept[1].met_at)[-MOST_UNBILLED:]
            )
            if newest != notes.unbilled:
                context.records.save_sweep(replace(notes, unbilled=newest))
    except Exception:
        context.log.exception("billing what was missed failed")
    try:
        publish_savings(context)
    except Exception:
        context.log.exception("publishing the savings failed")
    return billed


def bill_missed(context: Context, unbilled: dict[str, Unjudged] | None = None) -> int:
    """Bill what `meter` missed, of the tasks that ECS still describes; return the number of bills.

    Stops when the invocation is short of time. A task that cannot be billed is logged and left to
    the next sweep, as is a cluster that is gone; one that will not be, it seems, is noted by ARN in
    `unbilled`, and tried last. Raises botocore's errors, when ECS or the table fail for all.
    """
    unbilled = {} if unbilled is None else unbilled
    billed = 0
    for cluster in context.clusters:
        if context.seconds_left() < SECONDS_PER_BILL:
            break
        try:
            stopped = context.tasks.stopped_of(cluster)
        except PrefectSpotError:
            context.log.exception("reading the stopped tasks failed", cluster=cluster)
            continue
        for task in stopped:
            if isinstance(task, Undescribed):
                _note(context, task.arn, task.reason, unbilled)
        billed += _bill(context, [t for t in stopped if isinstance(t, Task)], unbilled)
    return billed


def _bill(context: Context, stopped: Sequence[Task], unbilled: dict[str, Unjudged]) -> int:
    over = [task for task in stopped if _is_due(context, task)]
    over.sort(key=lambda task: task.arn in unbilled)
    missing = set(context.bills.unbilled([task.arn for task in over]))
    billed = in_a_row = 0
    for task in over:
        if context.seconds_left() < SECONDS_PER_BILL:
            break
        try:
            if task.arn in missing:
                billed += bill_task(context, task).metering is Metering.BILLED
                in_a_row = 0
            unbilled.pop(task.arn, None)
        except Exception as error:  # the others are billed
            context.log.exception("billing the task failed", task_arn=task.arn)
            if not _may_pass(context, task, error):
                _note(context, task.arn, f"billing failed: {type(error).__name__}", unbilled)
            in_a_row = in_a_row + 1 if concerns_all(error) else 0
            if in_a_row == ENOUGH_IN_A_ROW:
                raise
    return billed


def _may_pass(context: Context, task: Task, error: Exception) -> bool:
    """Whether a later sweep may do what this one could not: Prefect or AWS are busy, or gone."""
    now = context.now()
    exited_at = billing.believed(task, now).exited_at
    is_new = exited_at is not None and now - exited_at < PASSES_WITHIN
    return is_new and (isinstance(error, PASSING) or concerns_all(error))


def _note(context: Context, arn: str, reason: str, unbilled: dict[str, Unjudged]) -> None:
    """Note a task that cannot be billed; log and count it, where it is new."""
    arn, reason = one_line(arn, MOST_NOTED), one_line(reason)
    if arn not in unbilled:
        context.log.info("could not be billed", task_arn=arn, reason=reason)
        context.measure(Measured("", {Metric.SWEEP_UNJUDGED: Decimal(1)}, reason))
    unbilled[arn] = Unjudged(reason, context.now())


def bill_task(context: Context, task: Task) -> MeterReport:
    """Bill a stopped task, unless it has a bill.

    Raises PrefectSpotError when Prefect, ECS or the table failed; retryable.
    """
    if reason := reason_to_ignore(task, *context.scope):
        return MeterReport(Metering.IGNORED, reason)
    task = billing.believed(task, context.now())
    prefect, run_id = context.prefect, task.flow_run_id
    record = context.records.read(run_id) if run_id else RunRecord(NO_RUN)
    cause = billing.cause_of(task, warned=record.warned_of(task.arn))
    if billing.never_started(task) and cause is not Cause.FAILED_START:
        return MeterReport(Metering.NOT_CHARGED, "no image was pulled and no container ran")
    if not context.bills.unbilled([task.arn]):
        return MeterReport(Metering.BILLED_BEFORE)
    pool, reason = _pool_of(context, task)
    if reason:
        return MeterReport(Metering.IGNORED, reason)
    lost_work_of = run_id if billing.loses_work(task, cause) else None
    history = prefect.read_history(lost_work_of) if lost_work_of else ()
    outcome = billing.outcome_of(task, cause, history, record, context.policy.mode)
    waits = task.exited_at is not None and context.now() - task.exited_at < DECIDED_WITHIN
    if outcome is billing.RerunOutcome.UNDECIDED and waits:
        return MeterReport(Metering.LEFT_TO_SWEEP, "its interruption is not handled yet")
    wasted = Decimal(0)
    if lost_work_of and (span := billing.span_of(task)):
        task_runs = prefect.read_task_runs(lost_work_of, span.start, span.end)
        wasted = billing.wasted_seconds(span, history, task_runs)
    bill = billing.bill_of(
        task,
        context.policy.rates,
        deployment=_deployment(context, run_id, task.deployment_id, pool),
        cause=cause,
        wasted_seconds=wasted,
        now=context.now(),
    )
    return _write(context, bill, outcome, billing.guards_of(task, record, context.policy.mode))


def bill_failed_start(context: Context, run: FlowRun, failed: FailedStart) -> MeterReport:
    """Count a failed start of which ECS shows no task, unless it was counted.

    Raises PrefectSpotError when Prefect or the table failed; also botocore's errors.
    """
    if not context.bills.unbilled([failed.key]):
        return MeterReport(Metering.BILLED_BEFORE)
    deployment = _deployment(context, run.id, run.deployment_id, context.pool_of(run))
    at = failed.recorded_at or context.now()
    bill = billing.bill_of_nothing(failed.key, run.id, deployment, at, failed.capacity)
    return _write(context, bill, billing.RerunOutcome.NONE, ("", ""))


def _write(
    context: Context, bill: billing.Bill, outcome: billing.RerunOutcome, guards: tuple[str, str]
) -> MeterReport:
    first = sum_of(bill, outcome, first_of_its_run=True, guards=guards)
    later = sum_of(bill, outcome, first_of_its_run=False, guards=guards)
    if not context.bills.write(bill, first, later):
        return MeterReport(Metering.BILLED_BEFORE)
    of = bill.deployment
    context.measure(Measured(of.name, values_of_bill(bill), work_pool=of.work_pool))
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
        assumed_rate=bill.is_assumed,
    )
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
    sums = context.bills.read_sums(days)
    report = report_of(sums, days[0], days[-1], context.work_pools)
    counts = report.total.counts
    net_usd = marked(counts, counts.amounts.net_savings_usd)
    description = (
        f"What Fargate Spot saved from {days[0]} to {days[-1]} (UTC), estimated;"
        f" net of what had to be run again: {net_usd} USD."
    )
    text = " ".join([description, *(f"Note: {warning}." for warning in report.warnings)])
    context.prefect.write_table(TableArtifact("spot-savings", savings_table(report), text))
    context.bills.save_reported(today.isoformat())
    return True


def _pool_of(context: Context, task: Task) -> tuple[str, str]:
    """Return the task's work pool, and why its run is of another one; empty where it is not.

    The tag answers mostly: only a name that the worker had to change for AWS needs a look. What is
    of no pool counts to the first of ours.
    """
    pool, pools, reason = task.work_pool, context.policy.work_pools, ""
    if pools and pool not in pools and task.flow_run_id is not None:
        if run := context.prefect.read_run(task.flow_run_id):
            pool = run.work_pool_name or ""
        reason = other_pool(pool, pools)
    return (pool if pool in context.work_pools else context.work_pools[0]), reason


def _deployment(
    context: Context, flow_run_id: UUID | None, deployment_id: UUID | None, pool: str
) -> billing.Deployment:
    """What to bill. A name that cannot be read now comes with a later bill of the deployment."""
    if flow_run_id is None:
        return billing.Deployment(billing.NO_FLOW_RUN, work_pool=pool)
    if deployment_id is None and (run := context.prefect.read_run(flow_run_id)):
        deployment_id = run.deployment_id
    if deployment_id is None:
        return billing.Deployment(billing.NO_DEPLOYMENT, work_pool=pool)
    try:
        name = context.prefect.read_deployment_name(deployment_id)
    except PrefectSpotError:
        name, what = "", "the deployment's name cannot be read"
        context.log.exception(what, deployment_id=str(deployment_id))
    return billing.Deployment(str(deployment_id), kept(name), pool)


def _is_due(context: Context, task: Task) -> bool:
    """Whether the fast path had its time with a task that has stopped."""
    task = billing.believed(task, context.now())
    ended_at = task.stopped_at or task.exited_at
    had_its_time = ended_at is None or context.now() - ended_at > context.grace
    failed = billing.cause_of(task) is Cause.FAILED_START
    is_billed = failed or not billing.never_started(task)
    return task.last_status == "STOPPED" and is_billed and had_its_time
