"""What the contest comes to, in rows: shares of the on-demand cost, the gap closed, lateness.

All figures are plain values, as JSON takes them; a share is an estimate with the ends of its
interval, from pools: runs of one pool share their sky. The names are the columns of the tables.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import NormalDist, fmean
from typing import Final

from lab.simulation.grid import (
    BASELINE,
    BUDGETS,
    DEADLINE,
    DEADLINES,
    ECONOMICS,
    FOR_EVER,
    KNOWLEDGE,
    ON_DEMAND,
    OPTIMUM,
    RUNS_PER_POOL,
    Cell,
    Contest,
    Pool,
    Tally,
    in_time,
)
from lab.simulation.sky import Pattern
from lab.tables import Row

Found = Mapping[Cell, Sequence[Pool]]

LONG: Final = 2.0
"""A run is long where Spot takes a task more often than this in as long as the work lasts."""

MOST_ABOVE: Final = 1.01
"""What economics may cost of what the budget of 3 does."""

NEARLY: Final = 1.02
"""A setting is as good as the cheapest where it costs no more than this times it."""

Z_97: Final = NormalDist().inv_cdf(0.975)

ADVISED: Final = (BASELINE, ECONOMICS, "budget 10", ON_DEMAND)
"""What a user can set, the simplest first."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and the ends of its 95 % confidence interval."""

    value: float
    low: float
    high: float


def ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """Return mean over mean, a pair for each pool.

    Raises ZeroDivisionError: the denominators are zero together, or there are fewer than two pools.
    """
    below = fmean(denominators)
    value = fmean(numerators) / below
    residuals = [one - value * two for one, two in zip(numerators, denominators, strict=True)]
    n = len(residuals)
    error = sqrt(sum(r * r for r in residuals) / (n - 1) / n) / abs(below)
    half = student(n - 1) * error
    return Estimate(value, value - half, value + half)


def student(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t, by its expansion in 1/degrees.

    Abramowitz and Stegun 26.7.5; with five degrees and more it is right to a hundredth.
    """
    z = Z_97
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(degrees) ** power for power, term in enumerate(terms, start=1))


def figures_of(contest: Contest, found: Found) -> dict[str, list[Row]]:
    """Return all tables of a contest, by their titles."""
    usd = contest.platform.usd_per_second
    played = {
        "runs in each cell": contest.pools * RUNS_PER_POOL,
        "cells": len(found),
        "seed": contest.seed,
        "Spot price": round(usd["FARGATE_SPOT"] / usd["FARGATE"], 4),
        "changeover, s": contest.platform.changeover_seconds,
    }
    return {
        "Played": [played],
        "Cost by budget": [_budgets(cell, pools) for cell, pools in found.items()],
        "Cost by policy": [_policies(cell, pools) for cell, pools in found.items()],
        "Economics": [_economics(name, found) for name in KNOWLEDGE],
        "Deadlines": _deadlines(found),
    }


def _budgets(cell: Cell, pools: Sequence[Pool]) -> Row:
    return {**_named(cell), **{f"{n}": _plain(_ratio(pools, f"budget {n}")) for n in BUDGETS}}


def _policies(cell: Cell, pools: Sequence[Pool]) -> Row:
    cost = {name: _ratio(pools, name).value for name in ADVISED}
    advised = next(name for name in ADVISED if cost[name] <= NEARLY * min(cost.values()))
    shown = (BASELINE, "budget 10", ECONOMICS, FOR_EVER, OPTIMUM)
    return {
        **_named(cell),
        **{name: _plain(_ratio(pools, name)) for name in shown},
        "time with 3": _plain(_ratio(pools, BASELINE, of=lambda tally: tally.hours)),
        "advised": advised,
        "its cost": round(cost[advised], 4),
    }


def _economics(name: str, found: Found) -> Row:
    """What it costs of the budget of 3, and how much of the gap it closes for long runs."""
    against = {cell: _ratio(pools, name, BASELINE) for cell, pools in found.items()}
    worst = max(against, key=lambda cell: against[cell].value)
    long = [
        (cell, pools)
        for cell, pools in found.items()
        if not cell.is_persisted and cell.interruptions_expected > LONG
    ]
    return {
        "what was known": name,
        "at worst": _plain(against[worst]),
        "where": f"{worst}",
        "cells above": sum(each.value > MOST_ABOVE for each in against.values()),
        "cells cheaper": sum(round(each.high, 4) < 1 for each in against.values()),
        **{
            f"closed, {pattern}": _plain(
                closed([pools for cell, pools in long if cell.pattern is pattern], name)
            )
            for pattern in Pattern
        },
    }


def closed(cells: Sequence[Sequence[Pool]], name: str) -> Estimate | None:
    """Return how much of the gap between the budget of 3 and the optimum a policy closes, in USD.

    Over all these cells together; None where there is no gap.
    """
    closed_usd, gap_usd = [], []
    for pools in zip(*cells, strict=True):
        if name in pools[0]:
            closed_usd.append(sum(pool[BASELINE].usd - pool[name].usd for pool in pools))
            gap_usd.append(sum(pool[BASELINE].usd - pool[OPTIMUM].usd for pool in pools))
    return ratio(closed_usd, gap_usd) if sum(gap_usd) > 0 else None


def _deadlines(found: Found) -> list[Row]:
    rows = []
    for kept, factors in DEADLINES.items():
        cells = [pools for cell, pools in found.items() if cell.is_persisted == kept]
        for factor in factors if cells else ():
            late, cost, runs = {}, {}, 0
            for label, name in (("guard", DEADLINE), ("3", BASELINE), ("optimum", OPTIMUM)):
                timed = in_time(name, factor)
                tallies = [pool[timed] for pools in cells for pool in pools]
                shares = [_ratio(pools, timed).value for pools in cells]
                late[f"late: {label}"] = sum(tally.misses for tally in tallies)
                cost[f"cost: {label}"] = round(sum(shares) / len(shares), 4)
                runs = sum(tally.runs for tally in tallies)
            rows.append({"kept": kept, "deadline": factor, "runs": runs, **late, **cost})
    return rows


def _ratio(
    pools: Sequence[Pool],
    name: str,
    other: str = ON_DEMAND,
    of: Callable[[Tally], float] = lambda tally: tally.usd,
) -> Estimate:
    there = [pool for pool in pools if name in pool]
    return ratio([of(pool[name]) for pool in there], [of(pool[other]) for pool in there])


def _named(cell: Cell) -> Row:
    return {
        "pattern": cell.pattern.value,
        "kept": cell.is_persisted,
        "hours": round(cell.hours, 4),
        "per hour": round(cell.rate_per_hour, 4),
    }


def _plain(estimate: Estimate | None) -> Row | None:
    """Four digits are what another machine's arithmetic agrees on."""
    if estimate is None:
        return None
    return {name: round(value, 4) for name, value in asdict(estimate).items()}
