"""What the contest comes to, in rows: shares of the on-demand cost, the gap closed, lateness.

All figures are plain values, as JSON takes them; a share is an estimate with the ends of its
interval, from pools: runs of one pool share their sky. The names are the columns of the tables.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import Any, Final

from lab.simulation.estimates import Estimate, ratio
from lab.simulation.grid import (
    AS_TODAY,
    BASELINE,
    BUDGETS,
    DEADLINES,
    KNOWLEDGE,
    ON_DEMAND,
    OPTIMUM,
    RUNS_PER_POOL,
    TAGGED,
    Cell,
    Contest,
    Pool,
    in_time,
)
from lab.tables import Row

Found = Mapping[Cell, Sequence[Pool]]

NEARLY: Final = 1.02
"""A setting is as good as the cheapest where it costs no more than this times it."""

ADVISED: Final = (BASELINE, AS_TODAY, "budget 10", ON_DEMAND)
"""What a user can set, the simplest first."""


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
        "Cost": [_costs(cell, pools) for cell, pools in found.items()],
        "Gap to the optimum": [_closed(name, found) for name in KNOWLEDGE],
        "Deadlines": _deadlines(found),
    }


def targets_of(contest: Contest, found: Found) -> dict[str, Any]:
    """Return what `auto` is held to: shares of the gap, the worst cell, lateness."""
    kept = {cell: pools for cell, pools in found.items() if cell.is_persisted}
    lost = {cell: pools for cell, pools in found.items() if not cell.is_persisted}
    cell, worst = _worst(AS_TODAY, found)
    wrong = [_worst(name, found)[1].value for name in KNOWLEDGE if name != AS_TODAY]
    tagged = [in_time(name, f) for name in TAGGED for each in DEADLINES.values() for f in each]
    tallies = [
        pool[name] for pools in found.values() for pool in pools for name in tagged & pool.keys()
    ]
    return {
        "seed": contest.seed,
        "runs": contest.pools * RUNS_PER_POOL,
        "gap_closed": _rounded(closed(found)),
        "gap_closed_kept": _rounded(closed(kept)),
        "gap_closed_not_kept": _rounded(closed(lost)),
        "worst_cell": {
            "ratio": round(worst.value, 4),
            "upper": round(worst.high, 4),
            "cell": f"{cell}",
        },
        "wrong_knowledge_worst": round(max(wrong), 4),
        "deadline_misses": sum(tally.misses for tally in tallies),
    }


def _costs(cell: Cell, pools: Sequence[Pool]) -> Row:
    cost = {name: _ratio(pools, name).value for name in ADVISED}
    advised = next(name for name in ADVISED if cost[name] <= NEARLY * min(cost.values()))
    shown = (*(f"budget {n}" for n in BUDGETS), AS_TODAY, OPTIMUM)
    return {
        **_named(cell),
        **{name.removeprefix("budget "): _plain(_ratio(pools, name)) for name in shown},
        "auto, of 3": _plain(_ratio(pools, AS_TODAY, BASELINE)),
        "advised": advised,
    }


def _closed(name: str, found: Found) -> Row:
    cell, worst = _worst(name, found)
    groups = {
        "all": found,
        "kept": {cell: pools for cell, pools in found.items() if cell.is_persisted},
        "not kept": {cell: pools for cell, pools in found.items() if not cell.is_persisted},
    }
    return {
        "what was known": name,
        **{title: _plain(closed(cells, name)) for title, cells in groups.items()},
        "at worst, of 3": _plain(worst),
        "where": f"{cell}",
    }


def _worst(name: str, found: Found) -> tuple[Cell, Estimate]:
    """Return the cell where a policy costs most of what the budget of 3 does there."""
    against = {cell: _ratio(pools, name, BASELINE) for cell, pools in found.items()}
    worst = max(against, key=lambda cell: against[cell].value)
    return worst, against[worst]


def closed(found: Found, name: str = AS_TODAY) -> Estimate | None:
    """Return how much of the gap between the budget of 3 and the optimum a policy closes.

    In shares of each cell's on-demand cost, so that all cells weigh the same; None where there is
    no gap.
    """
    weights = [fmean(pool[ON_DEMAND].usd for pool in pools) for pools in found.values()]
    closed_, gap = [], []
    for pools in zip(*found.values(), strict=False):  # those that every cell has
        pairs = list(zip(pools, weights, strict=True))
        closed_.append(sum((pool[BASELINE].usd - pool[name].usd) / w for pool, w in pairs))
        gap.append(sum((pool[BASELINE].usd - pool[OPTIMUM].usd) / w for pool, w in pairs))
    return ratio(closed_, gap) if sum(gap) > 0 else None


def _deadlines(found: Found) -> list[Row]:
    rows = []
    for kept, factors in DEADLINES.items():
        cells = [pools for cell, pools in found.items() if cell.is_persisted == kept]
        for factor in factors if cells else ():
            late, cost, runs = {}, {}, 0
            for name in (*TAGGED, BASELINE, OPTIMUM):
                timed, label = in_time(name, factor), name.removeprefix("budget ")
                tallies = [pool[timed] for pools in cells for pool in pools if timed in pool]
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
) -> Estimate:
    there = [pool for pool in pools if name in pool]
    return ratio([pool[name].usd for pool in there], [pool[other].usd for pool in there])


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


def _rounded(estimate: Estimate | None) -> float | None:
    return round(estimate.value, 4) if estimate else None
