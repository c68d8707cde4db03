"""What `spotctl report` recommends for a deployment, by its own daily sums: a setting, in words.

A run of the deployment is w hours of useful work, in units that an interruption repeats: twice
what one has wasted on average. Interruptions come at the rate of its first attempts. What a setting
then costs is added up exactly, unit by unit and interruption by interruption; a start costs nothing
here. The interval is that of the rate (95 %): what else is not known, is not in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from math import exp, expm1
from typing import Any, Final

from chalicelib.core.model.policy import AUTO, MOST_ON_SPOT, SpotRetries
from chalicelib.core.money.report import Counts, Report, in_usd
from chalicelib.core.policies.economics import (
    PRIOR_SPOT_HOURS,
    expected_spot_seconds,
    leaves_spot,
)
from spotctl.output import duration, two_digits
from spotctl.rate import rate_per_hour

STAY: Final = "stay"
ON_DEMAND: Final = "on demand"
PERSIST: Final = "persist results"
A_NUMBER: Final = 10
WORTH: Final = 0.02
"""The part of a run's cost that another setting has to save, or the simpler one is as good."""
WORTH_CODE: Final = 0.1
"""The same of persisting results, which takes a change of the flow."""
MOST_UNITS: Final = 50
NEARLY_ALL: Final = 0.75
"""Of what an interruption would waste if nothing was kept: from there on, nothing is."""
LEAST_RATE: Final = 1e-3  # interruptions per hour
UNITS_IF_PERSISTED: Final = 8
_HOUR: Final = 3600.0
_WORDS: Final = {
    STAY: "keep its budget (SPOT_RETRIES={budget}, unless a tag or the flow sets another)",
    AUTO: "tag it spot-retries:auto",
    str(A_NUMBER): f"tag it spot-retries:{A_NUMBER}",
    ON_DEMAND: "start it on demand (launch_type: FARGATE)",
    PERSIST: "persist its tasks' results, and tag it spot-retries:auto",
}


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`saving_usd` a run, with the ends of its interval; None where `choice` is to stay.

    `budget` is the stage's SPOT_RETRIES.
    """

    deployment: str
    budget: SpotRetries
    choice: str
    saving_usd: tuple[float, float, float] | None
    why: str

    def __str__(self) -> str:
        words = f"{self.deployment}: {_WORDS[self.choice].format(budget=self.budget)}"
        if self.saving_usd:
            value, low, high = (in_usd(Decimal(f"{usd:.6f}")) for usd in self.saving_usd)
            words += f", expected to save {value} USD a run ({low} to {high})"
        return f"{words}; {self.why}"

    def as_mapping(self) -> dict[str, Any]:
        """Return it for JSON."""
        value, low, high = self.saving_usd or (0.0, 0.0, 0.0)
        saving = {"value": round(value, 8), "low": round(low, 8), "high": round(high, 8)}
        plain = {"deployment": self.deployment, "choice": self.choice, "words": str(self)}
        return {**plain, "saving_usd_per_run": saving}


@dataclass(frozen=True, slots=True)
class Run:
    """A run as the sums show it: hours of work, in `units` equal parts, and both hourly prices."""

    hours: float
    units: int
    spot_usd: float
    on_demand_usd: float

    def on_demand(self, units: int) -> float:
        """Cost in USD of so many units on demand."""
        return units * self.hours / self.units * self.on_demand_usd

    def expected_usd(self, budget: SpotRetries, rate: float) -> float:
        """Return what the run costs on average under a budget, begun on Spot."""
        unit = self.hours / self.units
        done, tried = exp(-rate * unit), -expm1(-rate * unit) / rate * self.spot_usd
        most = MOST_ON_SPOT if budget == AUTO else budget
        costs = [0.0] * (most + 2)  # of no unit left, by the interruptions so far
        for left in range(1, self.units + 1):
            after = self.on_demand(left)
            for number in range(most, -1, -1):
                leaves = number == most or self._leaves(budget, left, number + 1, rate)
                again = after if leaves else costs[number + 1]
                costs[number] = tried + done * costs[number] + (1 - done) * again
        return costs[0]

    def _leaves(self, budget: SpotRetries, left: int, number: int, rate: float) -> bool:
        if budget != AUTO:
            return False
        unit = self.hours / self.units * _HOUR
        on_spot = expected_spot_seconds(left * unit, unit, 0.0, rate) / _HOUR
        return leaves_spot(on_spot * self.spot_usd, self.on_demand(left), number)


def recommend(report: Report, budget: SpotRetries) -> tuple[Recommendation, ...]:
    """Recommend a setting for each deployment; `budget` is the stage's SPOT_RETRIES."""
    return tuple(_recommended(r.deployment, r.counts, budget) for r in report.deployments)


def _recommended(deployment: str, counts: Counts, budget: SpotRetries) -> Recommendation:
    rate = rate_per_hour(counts.first_interruptions, counts.first_spot_hours)
    run = _run_of(counts, max(rate.observed, LEAST_RATE)) if rate else None
    if rate is None or run is None or rate.hours < PRIOR_SPOT_HOURS:
        seen, needed = duration(counts.first_spot_hours), duration(PRIOR_SPOT_HOURS)
        why = f"{seen} of first attempts on Spot is on record, {needed} are needed"
        if rate and rate.hours >= PRIOR_SPOT_HOURS:
            why = "no useful work is on record"
        return Recommendation(deployment, budget, STAY, None, why)
    rates = [max(each, LEAST_RATE) for each in (rate.observed, rate.low, rate.high)]
    kept = run.units > 1
    choices: dict[str, Callable[[float], float]] = {
        STAY: partial(run.expected_usd, budget),
        AUTO: partial(run.expected_usd, AUTO),
        str(A_NUMBER): partial(run.expected_usd, A_NUMBER),
        ON_DEMAND: lambda _: run.on_demand(run.units),
    }
    costs = {name: cost(rates[0]) for name, cost in choices.items()}
    choice = next(n for n, usd in costs.items() if usd <= min(costs.values()) + WORTH * costs[STAY])
    chosen = choice
    if not kept:
        parts = Run(run.hours, UNITS_IF_PERSISTED, run.spot_usd, run.on_demand_usd)
        choices[PERSIST] = partial(parts.expected_usd, AUTO)
        if choices[PERSIST](rates[0]) < costs[choice] - WORTH_CODE * costs[STAY]:
            chosen = PERSIST
    then = _WORDS[choice].format(budget=budget)
    until_then = f"; until then, {then}" if chosen == PERSIST else ""
    value, *ends = (choices[STAY](each) - choices[chosen](each) for each in rates)
    saving = None if chosen == STAY else (value, min(value, *ends), max(value, *ends))
    unit = (
        f"an interruption repeats {duration(run.hours / run.units)}" if kept else "nothing is kept"
    )
    observed, low, high = map(two_digits, (rate.observed, rate.low, rate.high))
    stay, on_demand = (in_usd(Decimal(f"{costs[c]:.6f}")) for c in (STAY, ON_DEMAND))
    why = (
        f"{duration(run.hours)} of work, {unit}, {observed} interruptions per Spot hour ({low} to"
        f" {high}), {stay} USD a run with SPOT_RETRIES={budget} and {on_demand} on demand"
        f"{until_then}"
    )
    return Recommendation(deployment, budget, chosen, saving, why)


def _run_of(counts: Counts, rate: float) -> Run | None:
    """Return an average run; None without a run, useful work, or a task on Spot."""
    hours, amounts = float(counts.hours), counts.amounts
    if not (counts.runs and counts.useful_e8 > 0 and counts.spot_us and counts.on_demand_e8):
        return None
    work = hours * float(amounts.useful_usd / amounts.on_demand_usd) / counts.runs
    on_spot = float(counts.spot_hours) / hours
    demand = float(amounts.on_demand_usd) / hours
    paid = float(amounts.cost_usd) / hours
    spot = max((paid - (1 - on_spot) * demand) / on_spot, 0.0)
    return Run(work, _units_of(counts, work, rate), spot, demand)


def _units_of(counts: Counts, work: float, rate: float) -> int:
    """Return in how many parts the work is kept; 1: nothing is, or nothing shows it.

    Of work that is lost whole, an interruption at rate λ wastes 1/λ - w/(e^{λw} - 1) on average.
    """
    if not counts.interruptions:
        return 1
    wasted = float(counts.wasted_hours) / counts.interruptions
    if wasted > NEARLY_ALL * (1 / rate - work / expm1(min(rate * work, 500.0))):
        return 1
    return max(1, min(MOST_UNITS, round(work / max(2 * wasted, work / MOST_UNITS))))
