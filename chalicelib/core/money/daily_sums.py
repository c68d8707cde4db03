"""The daily sums: what reports are made of, one per day and deployment.

All of it whole numbers, in units of 1e-8 USD and of microseconds, so that adding is exact in any
order, wherever it is done: DynamoDB adds to what is there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, field
from datetime import date
from decimal import Decimal
from operator import add
from typing import Any, Final

from chalicelib.core.model.ecs_task import FARGATE_SPOT
from chalicelib.core.model.pricing import SMALLEST_USD
from chalicelib.core.money.bill import Amounts, Bill, Deployment, RerunOutcome
from chalicelib.core.policies.facts import Guard

DRILLS: Final = Deployment("drills")
"""Drills of all deployments are summed here: apart from real work, and in no total."""

_NOTHING: Final = Amounts(*[Decimal(0)] * 4)
_MICRO: Final = Decimal("0.000001")
_ON_DEMAND: Final = (RerunOutcome.ON_DEMAND_RERUN, RerunOutcome.WOULD_ON_DEMAND_RERUN)


@dataclass(frozen=True, slots=True)
class Counts:
    """What is added up. `..._e8` are 1e-8 USD, `..._us` microseconds; `partial_bills` lack data.

    `runs` counts a run with its first bill, `attempts` every task of a run; `would_...` are reruns
    that observe mode left undone. `..._moves` are runs that a guard moved to on-demand before
    their budget would have, in observe mode those that it would have moved. `first_...` are of
    first bills on Spot alone: `core/policies` estimates the interruption rate from them.
    """

    runs: int = 0
    attempts: int = 0
    interruptions: int = 0
    spot_reruns: int = 0
    on_demand_reruns: int = 0
    would_spot_reruns: int = 0
    would_on_demand_reruns: int = 0
    partial_bills: int = 0
    spot_us: int = 0
    on_demand_us: int = 0
    wasted_us: int = 0
    cost_e8: int = 0
    on_demand_e8: int = 0
    wasted_e8: int = 0
    useful_e8: int = 0
    deadline_moves: int = 0
    economics_moves: int = 0
    first_spot_us: int = 0
    first_interruptions: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*map(add, astuple(self), astuple(other)))

    def as_mapping(self) -> Mapping[str, int]:
        """All of it by name."""
        return asdict(self)

    def figures(self, names: Iterable[str]) -> dict[str, Any]:
        """Return numbers, hours and USD (`..._usd`, of `amounts`) by their names."""
        return {n: getattr(self.amounts if n.endswith("_usd") else self, n) for n in names}

    @property
    def amounts(self) -> Amounts:
        """All of it that is money, in USD."""
        e8 = (self.cost_e8, self.on_demand_e8, self.wasted_e8, self.useful_e8)
        return Amounts(*map(usd, e8))

    @property
    def spot_hours(self) -> Decimal:
        """Charged hours on Spot."""
        return _hours(self.spot_us)

    @property
    def first_spot_hours(self) -> Decimal:
        """Charged hours on Spot of runs' first attempts."""
        return _hours(self.first_spot_us)

    @property
    def hours(self) -> Decimal:
        """Charged hours on either capacity."""
        return _hours(self.spot_us + self.on_demand_us)

    @property
    def wasted_hours(self) -> Decimal:
        """Charged hours that had to be done again."""
        return _hours(self.wasted_us)


@dataclass(frozen=True, slots=True)
class DailySum:
    """One deployment's day (UTC, by the end of the task).

    `rates`: lines, from `str(Rate)`; when read from the table, those of all deployments that day.
    """

    day: date
    deployment: Deployment
    counts: Counts
    rates: frozenset[str] = field(default_factory=frozenset)


def sum_of(
    bill: Bill,
    outcome: RerunOutcome,
    *,
    first_of_its_run: bool,
    guards: tuple[str, str] = ("", ""),
) -> DailySum:
    """Return what a bill adds to its day and deployment; `guards`: what `guards_of` returns."""
    amounts, is_spot = bill.amounts or _NOTHING, bill.capacity == FARGATE_SPOT
    charged_us = int((bill.seconds or Decimal(0)) / _MICRO)
    is_first = first_of_its_run and bill.flow_run_id is not None
    of_rerun, of_start = guards
    moved_by = [of_rerun] * (outcome in _ON_DEMAND) + [of_start] * first_of_its_run
    counts = Counts(
        runs=int(is_first),
        attempts=int(bill.flow_run_id is not None),
        interruptions=int(bill.is_interrupted),
        spot_reruns=int(outcome is RerunOutcome.SPOT_RERUN),
        on_demand_reruns=int(outcome is RerunOutcome.ON_DEMAND_RERUN),
        would_spot_reruns=int(outcome is RerunOutcome.WOULD_SPOT_RERUN),
        would_on_demand_reruns=int(outcome is RerunOutcome.WOULD_ON_DEMAND_RERUN),
        partial_bills=int(bool(bill.shortcomings)),
        spot_us=charged_us if is_spot else 0,
        on_demand_us=0 if is_spot else charged_us,
        wasted_us=int(bill.wasted_seconds / _MICRO),
        cost_e8=int(amounts.cost_usd / SMALLEST_USD),
        on_demand_e8=int(amounts.on_demand_usd / SMALLEST_USD),
        wasted_e8=int(amounts.wasted_usd / SMALLEST_USD),
        useful_e8=int(amounts.useful_usd / SMALLEST_USD),
        deadline_moves=moved_by.count(Guard.DEADLINE),
        economics_moves=moved_by.count(Guard.ECONOMICS),
        first_spot_us=charged_us if is_spot and is_first else 0,
        first_interruptions=int(bill.is_interrupted and is_spot and is_first),
    )
    deployment = DRILLS if bill.is_drill else bill.deployment
    return DailySum(bill.ended_at.date(), deployment, counts, frozenset(map(str, bill.rates)))


def total(sums: Iterable[DailySum]) -> Counts:
    """Return the sum over all days and deployments, without the drills."""
    return sum((s.counts for s in sums if s.deployment.key != DRILLS.key), Counts())


def usd(e8: int) -> Decimal:
    """Return an amount of 1e-8 USD as USD."""
    return Decimal(e8) * SMALLEST_USD


def _hours(micros: int) -> Decimal:
    return Decimal(micros) * _MICRO / 3600
