"""What goes to CloudWatch: the names, and which values a rescue and a bill give.

Dashboard and alarms name these; the dimensions and the printing are `adapters/aws.py`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, Cause
from chalicelib.core.model.flow_run import RunRecord
from chalicelib.core.model.pricing import seconds_between
from chalicelib.core.money.bill import Bill
from chalicelib.core.rescue.actions import Decision, Verdict
from chalicelib.core.rescue.failed_start import refused_by_spot
from chalicelib.core.rescue.orphans import is_annotated

NAMESPACE: Final = "PrefectSpot"


class Metric(StrEnum):
    """Every metric, by its name in CloudWatch."""

    SPOT_INTERRUPTIONS = "SpotInterruptions"
    SPOT_RERUNS = "SpotReruns"
    ON_DEMAND_RERUNS = "OnDemandReruns"
    NOT_RERUN = "NotRerun"
    FAILED_STARTS = "FailedStarts"
    REACTION_SECONDS = "ReactionSeconds"
    TASK_COST = "TaskCost"
    ON_DEMAND_EQUIVALENT_COST = "OnDemandEquivalentCost"
    SAVINGS = "Savings"
    WASTED_COST = "WastedCost"
    NET_SAVINGS = "NetSavings"
    WASTED_SECONDS = "WastedSeconds"
    SWEEP_UNJUDGED = "SweepUnjudged"
    PAUSED_SECONDS = "PausedSeconds"


USD: Final = "None"
"""CloudWatch has no unit for money."""

UNITS: Final[Mapping[Metric, str]] = {
    Metric.SPOT_INTERRUPTIONS: "Count",
    Metric.SPOT_RERUNS: "Count",
    Metric.ON_DEMAND_RERUNS: "Count",
    Metric.NOT_RERUN: "Count",
    Metric.FAILED_STARTS: "Count",
    Metric.REACTION_SECONDS: "Seconds",
    Metric.TASK_COST: USD,
    Metric.ON_DEMAND_EQUIVALENT_COST: USD,
    Metric.SAVINGS: USD,
    Metric.WASTED_COST: USD,
    Metric.NET_SAVINGS: USD,
    Metric.WASTED_SECONDS: "Seconds",
    Metric.SWEEP_UNJUDGED: "Count",
    Metric.PAUSED_SECONDS: "Seconds",
}
Values = Mapping[Metric, Decimal]


@dataclass(frozen=True, slots=True)
class Measured:
    """Values of one series. `deployment`: flow/deployment; `reason`: why; empty for none.

    By `deployment` they are published only with DEPLOYMENT_METRICS. `work_pool`: the run's own,
    empty for what concerns the whole stage.
    """

    deployment: str
    values: Values
    reason: str = ""
    work_pool: str = ""


def values_of_rescue(key: str, before: RunRecord, after: RunRecord, decision: Decision) -> Values:
    """Return what one handling of a task counts for: nothing when repeated, nor for a drill.

    `key`: the subject's `arn`. `before` and `after` are the run's record when the handling began
    and when it ended. ReactionSeconds: from the container's exit to the time that the run was made
    due for. A capacity that Spot refused counts as a rerun on demand, one that FARGATE refused as a
    failed start, as in bills.
    """
    noted, failed = after.interruptions.get(key), after.failed_starts.get(key)
    if noted is not None and noted.cause == Cause.DRILL:
        return {}
    # A rerun may be looked at again, and a crash be decided again; each is annotated once.
    annotated_now = is_annotated(after, key) and not is_annotated(before, key)
    is_rerun = decision.verdict is Verdict.FINISH_RERUN and annotated_now
    is_failed_start = failed is not None and not refused_by_spot(failed)
    rerun_on = after.next_capacity if is_rerun and not is_failed_start else ""
    happened = {
        Metric.SPOT_INTERRUPTIONS: _is_shown(after, key) and not _is_shown(before, key),
        Metric.FAILED_STARTS: is_failed_start and annotated_now,
        Metric.SPOT_RERUNS: rerun_on == FARGATE_SPOT,
        Metric.ON_DEMAND_RERUNS: rerun_on == FARGATE,
        Metric.NOT_RERUN: decision.verdict is Verdict.MARK_CRASHED and annotated_now,
    }
    values = {metric: Decimal(1) for metric, is_so in happened.items() if is_so}
    exited_at = noted.exited_at if noted else None
    if is_rerun and exited_at is not None and decision.due_at is not None:
        values[Metric.REACTION_SECONDS] = seconds_between(exited_at, decision.due_at)
    return values


def _is_shown(record: RunRecord, key: str) -> bool:
    noted = record.interruptions.get(key)
    return noted is not None and (noted.warning_annotated or noted.outcome_annotated)


def values_of_bill(bill: Bill) -> Values:
    """Return what a bill counts for: nothing for a drill, and no amounts where they are unknown."""
    if bill.is_drill:
        return {}
    values = {Metric.WASTED_SECONDS: bill.wasted_seconds} if bill.is_redone else {}
    if bill.amounts is not None:
        values |= {
            Metric.TASK_COST: bill.amounts.cost_usd,
            Metric.ON_DEMAND_EQUIVALENT_COST: bill.amounts.on_demand_usd,
            Metric.SAVINGS: bill.amounts.savings_usd,
            Metric.WASTED_COST: bill.amounts.wasted_usd,
            Metric.NET_SAVINGS: bill.amounts.net_savings_usd,
        }
    return values
