"""What the contest comes to: shares of the on-demand cost, what economics closes, what is late.

All figures are plain values, as JSON takes them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from simulation.contenders import (
    BASELINE,
    BUDGETS,
    DEADLINE,
    DEADLINES,
    ECONOMICS,
    KNOWLEDGE,
    OPTIMUM,
    economics_with,
    in_time,
)
from simulation.estimate import Estimate, ratio
from simulation.grid import FOR_EVER, ON_DEMAND, RUNS_PER_POOL, Cell, Contest, Pattern, Pool

Found = Mapping[Cell, Sequence[Pool]]
Figures = dict[str, Any]

LONG: Final = 2.0
"""A run is long where Spot takes a task more often than this in as long as the work lasts."""

MOST_ABOVE: Final = 1.01
"""What economics may cost of what the budget of 3 does."""

LEAST_CLOSED: Final = 0.5
"""What economics has to close of the gap between that budget and the optimum, for long runs."""

NEARLY: Final = 1.02
"""A setting is as good as the cheapest where it costs no more than this times it."""

ADVISED: Final = {
    BASELINE: "the default",
    ECONOMICS: "`GUARD_ECONOMICS`",
    "budget 10": "`SPOT_RETRIES=10`",
    ON_DEMAND: "on demand",
}
"""What a user can set, the simplest first, by what it was played as."""

SAFE_FROM: Final = {False: 2.5, True: 1.3}
"""By whether tasks are kept: from how many times the work on no deadline may be missed."""


def figures_of(contest: Contest, found: Found) -> Figures:
    """Return all figures of a contest."""
    return {
        "played": _played(contest, found),
        "costs": [_costs(cell, pools) for cell, pools in found.items()],
        "economics": _economics(found),
        "deadline": _deadlines(found),
    }


def _played(contest: Contest, found: Found) -> Figures:
    usd = contest.platform.usd_per_second
    return {
        "runs": contest.pools * RUNS_PER_POOL,
        "cells": len(found),
        "seed": contest.seed,
        "spot_price": round(usd["FARGATE_SPOT"] / usd["FARGATE"], 4),
        "changeover_seconds": contest.platform.changeover_seconds,
    }


def _costs(cell: Cell, pools: Sequence[Pool]) -> Figures:
    """The share of the on-demand cost, and the time to finish, under what can be set."""
    names = [*(f"budget {n}" for n in BUDGETS), ECONOMICS, FOR_EVER, OPTIMUM]
    cost = {name: _ratio(pools, name, ON_DEMAND) for name in [*names, ON_DEMAND]}
    cheapest = min(cost[name].value for name in ADVISED)
    advised = next(name for name in ADVISED if cost[name].value <= NEARLY * cheapest)
    return {
        **_named(cell),
        "cost": {name: _plain(estimate) for name, estimate in cost.items()},
        "time": {
            name: _plain(_ratio(pools, name, ON_DEMAND, _hours)) for name in (BASELINE, ECONOMICS)
        },
        "advised": advised,
    }


def _economics(found: Found) -> Figures:
    """Never above the budget by more than a hundredth? And how much of the gap is closed?"""
    against = [_ratio(pools, ECONOMICS, BASELINE) for pools in found.values()]
    bare = [(cell, pools) for cell, pools in found.items() if not cell.is_persisted]
    long = [(c, pools) for c, pools in bare if c.interruptions_expected > LONG]
    return {
        "worst": _worst(ECONOMICS, found),
        "cells_above": sum(estimate.value > MOST_ABOVE for estimate in against),
        "cells_cheaper": sum(estimate.high < 1 for estimate in against),
        "closed_where_long": _closed_by_pattern(long, ECONOMICS),
        "closed_from_four_hours": _closed_by_pattern(
            [(c, pools) for c, pools in bare if c.hours >= 4], ECONOMICS
        ),
        "knowledge": [_with_knowledge(name, found, long) for name in KNOWLEDGE],
    }


def _with_knowledge(
    name: str, found: Found, long: Sequence[tuple[Cell, Sequence[Pool]]]
) -> Figures:
    known = economics_with(name)
    return {
        "name": name,
        "worst": _worst(known, found),
        "closed_where_long": _closed_by_pattern(long, known),
    }


def _worst(name: str, found: Found) -> Figures:
    """The cell where a policy costs most, of what the budget of 3 does."""
    against = [(_ratio(pools, name, BASELINE), cell) for cell, pools in found.items()]
    worst, where = max(against, key=lambda pair: pair[0].value)
    return {**_named(where), **_plain(worst)}


def _closed_by_pattern(cells: Sequence[tuple[Cell, Sequence[Pool]]], name: str) -> Figures:
    shares = {}
    for pattern in Pattern:
        there = [pools for cell, pools in cells if cell.pattern is pattern]
        if there:
            shares[pattern.value] = _plain(closed(there, name))
    return shares


def closed(cells: Sequence[Sequence[Pool]], name: str) -> Estimate | None:
    """Return how much of the gap between the budget and the optimum a policy closes, in USD.

    Over all these cells together; None where there is no gap.
    """
    closed_usd, gap_usd = [], []
    for pools in zip(*cells, strict=True):
        if name in pools[0]:
            closed_usd.append(sum(pool[BASELINE].usd - pool[name].usd for pool in pools))
            gap_usd.append(sum(pool[BASELINE].usd - pool[OPTIMUM].usd for pool in pools))
    return ratio(closed_usd, gap_usd) if sum(gap_usd) > 0 else None


def _deadlines(found: Found) -> list[Figures]:
    rows = []
    for kept, factors in DEADLINES.items():
        cells = [pools for cell, pools in found.items() if cell.is_persisted == kept]
        for factor in factors if cells else ():
            row: Figures = {"kept": kept, "factor": factor, "safe": factor >= SAFE_FROM[kept]}
            for label, name in (("guard", DEADLINE), ("budget", BASELINE), ("optimum", OPTIMUM)):
                timed = in_time(name, factor)
                tallies = [pool[timed] for pools in cells for pool in pools]
                shares = [_ratio(pools, timed, ON_DEMAND).value for pools in cells]
                row[label] = {
                    "missed": sum(tally.misses for tally in tallies),
                    "cost": round(sum(shares) / len(shares), 4),
                }
                row["runs"] = sum(tally.runs for tally in tallies)
            rows.append(row)
    return rows


def _usd(pool: Pool, name: str) -> float:
    return pool[name].usd


def _hours(pool: Pool, name: str) -> float:
    return pool[name].hours


def _ratio(
    pools: Sequence[Pool], name: str, other: str, of: Callable[[Pool, str], float] = _usd
) -> Estimate:
    there = [pool for pool in pools if name in pool]
    return ratio([of(pool, name) for pool in there], [of(pool, other) for pool in there])


def _named(cell: Cell) -> Figures:
    return {
        "pattern": cell.pattern.value,
        "rate": round(cell.rate_per_hour, 4),
        "hours": round(cell.hours, 4),
        "kept": cell.is_persisted,
    }


def _plain(estimate: Estimate | None) -> Figures:
    """Four digits are what another machine's arithmetic agrees on."""
    if estimate is None:
        return {}
    return {name: round(value, 4) for name, value in asdict(estimate).items()}
