"""What the contest comes to: shares of the on-demand cost, what economics closes, what is late.

All figures are plain values: they go into `build/simulation.json`, onto the terminal and, for the
documentation, into `docs/data/simulation.json`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from simulation.contenders import (
    BASELINE,
    BREAKERS,
    BUDGETS,
    DEADLINE,
    DEADLINES,
    ECONOMICS,
    KNOWLEDGE,
    OPTIMUM,
    economics_with,
    in_time,
    weather_with,
)
from simulation.estimate import Estimate, ratio
from simulation.grid import FOR_EVER, ON_DEMAND, Cell, Contest, Pool, Weather
from simulation.memory import AT_ONCE, SPREAD, Knowledge

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
        "weather": [_breaker(name, found) for name in BREAKERS],
    }


def everything_of(found: Found) -> list[Figures]:
    """Return cost and time of every policy in every cell, with their intervals."""
    return [
        {
            **_named(cell),
            "policies": {
                name: {
                    "cost": _plain(_ratio(pools, name, ON_DEMAND)),
                    "time": _plain(_ratio(pools, name, ON_DEMAND, _hours)),
                    "interruptions": round(_mean(pools, name), 4),
                }
                for name in pools[0]
            },
        }
        for cell, pools in found.items()
    ]


def _played(contest: Contest, found: Found) -> Figures:
    usd = contest.platform.usd_per_second
    return {
        "runs": contest.pools * contest.runs_per_pool,
        "cells": len(found),
        "seed": contest.seed,
        "spot_price": round(usd["FARGATE_SPOT"] / usd["FARGATE"], 4),
        "changeover_seconds": contest.platform.changeover_seconds,
        "billed_start_seconds": contest.platform.billed_start_seconds,
        "tasks_kept": max(contest.grid.tasks),
        "hours": [round(hours, 3) for hours in contest.grid.hours],
        "climate": asdict(contest.grid.climate),
        "knowledge": asdict(Knowledge()),
        "at_once": AT_ONCE,
        "spread": SPREAD,
        "trace": contest.grid.trace is not None,
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
    against = [(_ratio(pools, ECONOMICS, BASELINE), cell) for cell, pools in found.items()]
    worst, where = max(against, key=lambda pair: pair[0].value)
    bare = [(cell, pools) for cell, pools in found.items() if not cell.is_persisted]
    long = [(c, pools) for c, pools in bare if c.interruptions_expected > LONG]
    return {
        "worst": {**_named(where), **_plain(worst)},
        "cells_above": sum(estimate.value > MOST_ABOVE for estimate, _ in against),
        "cells_cheaper": sum(estimate.high < 1 for estimate, _ in against),
        "closed_where_long": _closed_by_weather(long, ECONOMICS),
        "closed_from_four_hours": _closed_by_weather(
            [(c, pools) for c, pools in bare if c.hours >= 4], ECONOMICS
        ),
        "by_cell": [
            {
                **_named(cell),
                "against_budget": _plain(_ratio(pools, ECONOMICS, BASELINE)),
                "optimum": _plain(_ratio(pools, OPTIMUM, BASELINE)),
                "closed": _plain(closed([pools], ECONOMICS)),
            }
            for cell, pools in long
        ],
        "knowledge": [_with_knowledge(name, found, long) for name in KNOWLEDGE],
    }


def _with_knowledge(
    name: str, found: Found, long: Sequence[tuple[Cell, Sequence[Pool]]]
) -> Figures:
    known = economics_with(name)
    worst, where = max(
        ((_ratio(pools, known, BASELINE), cell) for cell, pools in found.items()),
        key=lambda pair: pair[0].value,
    )
    return {
        "name": name,
        "worst": {**_named(where), **_plain(worst)},
        "closed_where_long": _closed_by_weather(long, known),
    }


def _closed_by_weather(cells: Sequence[tuple[Cell, Sequence[Pool]]], name: str) -> Figures:
    shares = {}
    for weather in Weather:
        there = [pools for cell, pools in cells if cell.weather is weather]
        if there:
            shares[weather.value] = _plain(closed(there, name))
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
                row[label] = {
                    "missed": sum(tally.misses for tally in tallies),
                    "cost": round(_mean_of(_ratio(p, timed, ON_DEMAND).value for p in cells), 4),
                }
                row["runs"] = sum(tally.runs for tally in tallies)
            rows.append(row)
    return rows


def _breaker(setting: str, found: Found) -> Figures:
    """What the weather guard costs and gains, where interruptions come in bursts.

    A fixed budget is as good where it neither costs more nor takes longer.
    """
    name = weather_with(setting)
    by_cell = []
    for cell, pools in found.items():
        if cell.weather is Weather.INDEPENDENT:
            continue
        cost, time = _ratio(pools, name, BASELINE), _ratio(pools, name, BASELINE, _hours)
        rivals = [
            n
            for n in BUDGETS
            if _ratio(pools, f"budget {n}", BASELINE).value <= cost.value
            and _ratio(pools, f"budget {n}", BASELINE, _hours).value <= time.value
        ]
        by_cell.append(
            {**_named(cell), "cost": _plain(cost), "time": _plain(time), "as_good": rivals}
        )
    return {
        "setting": setting,
        "by_cell": by_cell,
        "cells": len(by_cell),
        "cells_dearer": sum(row["cost"]["low"] > 1 for row in by_cell),
        "cells_cheaper": sum(row["cost"]["high"] < 1 for row in by_cell),
        "cells_faster": sum(row["time"]["high"] < 1 for row in by_cell),
        "cells_with_a_budget_as_good": sum(bool(row["as_good"]) for row in by_cell),
        "most_dearer": max((row["cost"]["value"] for row in by_cell), default=1.0),
        "most_cheaper": min((row["cost"]["value"] for row in by_cell), default=1.0),
        "most_faster": min((row["time"]["value"] for row in by_cell), default=1.0),
    }


def _usd(pool: Pool, name: str) -> float:
    return pool[name].usd


def _hours(pool: Pool, name: str) -> float:
    return pool[name].hours


def _ratio(
    pools: Sequence[Pool], name: str, other: str, of: Callable[[Pool, str], float] = _usd
) -> Estimate:
    there = [pool for pool in pools if name in pool]
    return ratio([of(pool, name) for pool in there], [of(pool, other) for pool in there])


def _mean(pools: Sequence[Pool], name: str) -> float:
    return _mean_of(pool[name].interruptions for pool in pools if name in pool)


def _mean_of(values: Iterable[float]) -> float:
    all_ = list(values)
    return sum(all_) / len(all_)


def _named(cell: Cell) -> Figures:
    return {
        "weather": cell.weather.value,
        "rate": round(cell.rate_per_hour, 4),
        "hours": round(cell.hours, 4),
        "kept": cell.is_persisted,
    }


def _plain(estimate: Estimate | None) -> Figures:
    """Four digits are what another machine's arithmetic agrees on."""
    if estimate is None:
        return {}
    return {name: round(value, 4) for name, value in asdict(estimate).items()}
