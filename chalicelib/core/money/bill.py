"""The bill of one stopped task: what it cost, what on-demand would have cost, what was in vain.

Over any set of bills: paid = Σ seconds x paid rate; useful = Σ (seconds - wasted) x on-demand rate;
net saving = useful - paid. Each of a bill's amounts is rounded once, to 1e-8 USD; sums and
differences of them are exact. What is not known is never made up: it is named, and left out.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

from chalicelib.core.model.ecs_task import FARGATE, Cause, Task, was_interrupted
from chalicelib.core.model.pricing import Rate, Rates, billed_seconds, cost_usd, size_of
from chalicelib.core.money.waste import Span

NO_FLOW_RUN: Final = "no-flow-run"
NO_DEPLOYMENT: Final = "no-deployment"


@dataclass(frozen=True, slots=True)
class Deployment:
    """Whom a bill is for: `key` is the deployment's id, or one of the keys above.

    `name` is flow/deployment, as Prefect calls it; empty where there is none to be had.
    """

    key: str
    name: str = ""

    @property
    def title(self) -> str:
        """What a report calls it."""
        return self.name or f"({self.key})"


@dataclass(frozen=True, slots=True)
class Amounts:
    """USD, each rounded to 1e-8: paid, the same on demand, wasted of the paid, useful on demand."""

    cost_usd: Decimal
    on_demand_usd: Decimal
    wasted_usd: Decimal
    useful_usd: Decimal

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
    """One stopped task's. `seconds` are charged ones, `wasted_seconds` those to be done again.

    `seconds` is None, and so is `amounts`, where ECS told no times; `amounts` also where there is
    no rate or no size. `shortcomings` says what is missing: then the bill is partial.
    `began_at` is when AWS began to charge, None where ECS did not tell it.
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

    @property
    def is_interrupted(self) -> bool:
        """Whether Spot took the task; a drill did not."""
        return self.cause is Cause.SPOT_INTERRUPTION

    @property
    def is_drill(self) -> bool:
        """Whether it was ended to see what happens: billed apart from real work."""
        return self.cause is Cause.DRILL


def never_started(task: Task) -> bool:
    """Whether nothing was charged: no image was pulled, no container ran."""
    times = (task.pull_started_at, task.started_at, task.execution_stopped_at)
    return not any(times) and task.exit_code is None


def span_of(task: Task) -> Span | None:
    """Return what is charged of a stopped task; None when ECS did not tell its times."""
    start = task.pull_started_at or task.started_at
    end = task.stopped_at or task.execution_stopped_at
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
    """Return the bill of a stopped task that was started. `now` dates it where ECS does not."""
    span = span_of(task)
    paid = rates.get((task.region, task.architecture, task.capacity))
    on_demand = rates.get((task.region, task.architecture, FARGATE))
    shortcomings = _missing_times(task)
    wasted = wasted_seconds if was_interrupted(cause) else Decimal(0)
    amounts = None
    if span is not None:
        shortcomings += _missing_prices(task, paid, on_demand)
        amounts = _amounts(task, paid, on_demand, span.seconds, wasted)
    return Bill(
        task_arn=task.arn,
        flow_run_id=task.flow_run_id,
        deployment=deployment,
        ended_at=task.stopped_at or task.execution_stopped_at or task.updated_at or now,
        capacity=task.capacity,
        cause=cause,
        seconds=span.seconds if span else None,
        wasted_seconds=wasted,
        amounts=amounts,
        rates=tuple(dict.fromkeys(r for r in (paid, on_demand) if r and amounts)),
        shortcomings=tuple(dict.fromkeys(shortcomings)),
        began_at=span.start if span else None,
    )


def _amounts(
    task: Task, paid: Rate | None, on_demand: Rate | None, seconds: Decimal, wasted: Decimal
) -> Amounts | None:
    size = size_of(task)
    if paid is None or on_demand is None or size is None:
        return None
    return Amounts(
        cost_usd=cost_usd(paid, seconds, size),
        on_demand_usd=cost_usd(on_demand, seconds, size),
        wasted_usd=cost_usd(paid, wasted, size),
        useful_usd=cost_usd(on_demand, seconds - wasted, size),
    )


def _missing_times(task: Task) -> list[str]:
    missing = []
    if task.pull_started_at is None:
        missing.append("ECS did not tell when the image pull began")
    if task.stopped_at is None:
        missing.append("ECS did not tell when the task stopped")
    return missing


def _missing_prices(task: Task, paid: Rate | None, on_demand: Rate | None) -> list[str]:
    size = size_of(task)
    missing = []
    if size is None:
        missing.append("ECS did not tell the task's size")
    for rate, capacity in ((on_demand, FARGATE), (paid, task.capacity)):
        if rate is None:
            missing.append(f"no rate of {capacity}, {task.architecture}, in {task.region}")
    if size and size.charged_storage_gib and paid and paid.storage_gb_hour_usd is None:
        missing.append(f"no rate of ephemeral storage in {task.region}: it is left out")
    return missing
