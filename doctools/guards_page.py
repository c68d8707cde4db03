"""Writes `docs/guards.md`: the frame, filled with the figures of the last `make simulate`.

    python -m doctools.guards_page

The figures are in `docs/data/simulation.json`; `make simulate` writes them and calls this.
"""

import json
from collections.abc import Iterable, Sequence
from math import expm1
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
PAGE: Final = ROOT / "docs" / "guards.md"
DATA: Final = ROOT / "docs" / "data" / "simulation.json"
FRAME: Final = Path(__file__).parent / "guards.md.in"

Row = dict[str, Any]

ADVICE: Final = {
    "budget 3": "default",
    "economics": "economics",
    "budget 10": "10",
    "on demand": "on demand",
}


def page(figures: Row) -> str:
    """Return the page, in Markdown."""
    text = FRAME.read_text()
    for name, value in _filled(figures).items():
        text = text.replace("{" + name + "}", value)
    return text


def _filled(figures: Row) -> dict[str, str]:
    played, economics = figures["played"], figures["economics"]
    climate, known = played["climate"], played["knowledge"]
    return {
        "runs": f"{played['runs']}",
        "cells": f"{played['cells']}",
        "seed": f"{played['seed']}",
        "spot_price": f"{100 * played['spot_price']:.1f} %",
        "break_even": f"{_break_even(1 / played['spot_price']):.2f}",
        "changeover": f"{played['changeover_seconds']:.0f}",
        "billed_start": f"{played['billed_start_seconds']:.0f}",
        "tasks_kept": f"{played['tasks_kept']}",
        "storm_minutes": f"{60 * climate['storm_hours']:.0f}",
        "storm_time": f"{100 * climate['share_of_time']:.0f} %",
        "storm_interruptions": f"{100 * climate['share_of_interruptions']:.0f} %",
        "known_hours": f"{known['spot_hours']:.0f}",
        "known_runs": f"{known['runs']}",
        "at_once": f"{played['at_once']}",
        "spread": f"{100 * played['spread']:.0f} %",
        "advice": "\n\n".join(_advice(figures["costs"])),
        "costs": _costs(figures["costs"]),
        "budgets": _budgets(figures["costs"]),
        "economics_verdict": _economics_verdict(economics),
        "economics_by_cell": _economics_by_cell(economics["by_cell"]),
        "economics_known": _economics_known(economics["knowledge"]),
        "deadlines": _deadlines(figures["deadline"]),
        "deadline_verdict": _deadline_verdict(figures["deadline"]),
        "weather": _weather(figures["weather"]),
        "weather_verdict": _weather_verdict(figures["weather"]),
        "weather_by_cell": _weather_by_cell(figures["weather"][0]),
    }


def _break_even(price_ratio: float) -> float:
    """Bisect (e^x - 1)/x = price ratio, without the product's own arithmetic."""
    low, high = 0.01, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if expm1(middle) / middle < price_ratio else (low, middle)
    return low


def _advice(rows: Sequence[Row]) -> Iterable[str]:
    """The cheapest setting, and its cost, by length and rate: one table for each kind of run."""
    for weather in _distinct(rows, "weather"):
        for kept in _distinct(rows, "kept"):
            here = [row for row in rows if (row["weather"], row["kept"]) == (weather, kept)]
            rates = _distinct(here, "rate")
            title = f"**{'Tasks are kept' if kept else 'Nothing is kept'}; interruptions"
            title += f" {'come in bursts' if weather == 'bursts' else 'are independent'}**"
            lines = []
            for hours in _distinct(here, "hours"):
                cells = {row["rate"]: row for row in here if row["hours"] == hours}
                lines.append([_length(hours), *(_advised(cells[rate]) for rate in rates)])
            yield f"{title}\n\n{_table(['work', *(f'{rate:g}/h' for rate in rates)], lines)}"


def _advised(row: Row) -> str:
    return f"{ADVICE[row['advised']]} · {100 * row['cost'][row['advised']]['value']:.0f} %"


def _costs(rows: Sequence[Row]) -> str:
    names = ["budget 0", "budget 3", "budget 10", "economics", "Spot for ever", "offline optimum"]
    lines = [
        [
            *_where(row),
            *(_share(row["cost"][name]) for name in names),
            _percent(row["time"]["budget 3"]),
        ]
        for row in rows
        if row["hours"] in (1, 8) and row["rate"] in (0.1, 0.5, 2)
    ]
    heads = ["", "kept", "work", "rate", "0", "3", "10", "economics", "for ever", "optimum"]
    return _table([*heads, "time with 3"], lines)


def _budgets(rows: Sequence[Row]) -> str:
    budgets = range(11)
    lines = []
    for row in rows:
        if row["weather"] == rows[0]["weather"] and row["hours"] == 4:
            kept = "yes" if row["kept"] else "no"
            costs = [_percent(row["cost"][f"budget {n}"]) for n in budgets]
            lines.append([kept, f"{row['rate']:g}/h", *costs])
    return _table(["kept", "rate", *map(str, budgets)], lines)


def _economics_verdict(economics: Row) -> str:
    worst = economics["worst"]
    where = " ".join(_words(worst))
    long = _by_weather(economics["closed_where_long"])
    four = _by_weather(economics["closed_from_four_hours"])
    return (
        f"At worst, over the whole grid, it costs {_share(worst)} of what the budget of 3 does"
        f" ({where}); in {economics['cells_above']} cells it is more than 1 % above, in"
        f" {economics['cells_cheaper']} it is cheaper for certain. Of the gap between that budget"
        f" and the optimum it closes, where runs are long and keep nothing, {long}. Of all runs of"
        f" four hours and more that keep nothing, at whatever rate: {four}."
    )


def _economics_by_cell(rows: Sequence[Row]) -> str:
    lines = [
        [
            *(_where(row)[i] for i in (0, 2, 3)),
            *(_share(row[name]) for name in ("against_budget", "optimum", "closed")),
        ]
        for row in rows
    ]
    return _table(["", "work", "rate", "economics", "optimum", "of the gap closed"], lines)


def _economics_known(rows: Sequence[Row]) -> str:
    weathers = list(rows[0]["closed_where_long"])
    lines = []
    for row in rows:
        closed = [_share(row["closed_where_long"][weather]) for weather in weathers]
        worst = f"{_share(row['worst'])} ({' '.join(_words(row['worst']))})"
        lines.append([row["name"] or "an ordinary past", worst, *closed])
    return _table(["what was known", "at worst", *(f"closed, {w}" for w in weathers)], lines)


def _deadlines(rows: Sequence[Row]) -> str:
    lines = [
        [
            "yes" if row["kept"] else "no",
            f"{row['factor']:g} times the work",
            f"{row['runs']}",
            *(f"{row[way]['missed']}" for way in ("guard", "budget")),
            *(f"{100 * row[way]['cost']:.0f} %" for way in ("guard", "budget", "optimum")),
        ]
        for row in rows
    ]
    heads = ["kept", "deadline", "runs", "late: guard", "late: 3", "cost: guard", "cost: 3"]
    return _table([*heads, "cost: optimum in time"], lines)


def _deadline_verdict(rows: Sequence[Row]) -> str:
    safe = [row for row in rows if row["safe"]]
    missed, runs = sum(row["guard"]["missed"] for row in safe), sum(row["runs"] for row in safe)
    budget = sum(row["budget"]["missed"] for row in safe)
    return (
        f"Of {runs} runs with a deadline of 2.5 times the work and more without persistence, 1.3"
        f" times with it, **{missed} were late**; under the budget of 3 alone, {budget}."
    )


def _weather(rows: Sequence[Row]) -> str:
    lines = [
        [
            f"`{row['setting']}`",
            f"{row['cells']}",
            *(f"{row[name]}" for name in ("cells_dearer", "cells_cheaper", "cells_faster")),
            f"{row['cells_with_a_budget_as_good']}",
            f"{100 * row['most_cheaper']:.0f} to {100 * row['most_dearer']:.0f} %",
            f"{100 * row['most_faster']:.0f} %",
        ]
        for row in rows
    ]
    heads = ["`BREAKER`", "cells", "dearer in", "cheaper in", "faster in"]
    return _table([*heads, "a plain budget is as good in", "cost", "time down to"], lines)


def _weather_verdict(rows: Sequence[Row]) -> str:
    first = rows[0]
    return (
        f"With `{first['setting']}`, in bursts, runs cost more for certain in"
        f" {first['cells_dearer']} of {first['cells']} cells and less in {first['cells_cheaper']};"
        f" they finish sooner in {first['cells_faster']}. In"
        f" {first['cells_with_a_budget_as_good']} cells some fixed budget is as cheap and as fast."
    )


def _weather_by_cell(figures: Row) -> str:
    lines = [
        [*_where(row)[1:], _share(row["cost"]), _share(row["time"])]
        for row in figures["by_cell"]
        if row["hours"] in (1, 8) and row["rate"] in (0.1, 0.5, 2)
    ]
    return _table(["kept", "work", "rate", "cost", "time to finish"], lines)


def _by_weather(shares: Row) -> str:
    words = {"bursts": "in bursts", "independent": "of independent interruptions"}
    return ", ".join(f"**{_share(part)}** {words.get(w, w)}" for w, part in shares.items())


def _where(row: Row) -> list[str]:
    kept = "yes" if row["kept"] else "no"
    return [row["weather"], kept, _length(row["hours"]), f"{row['rate']:g}/h"]


def _words(row: Row) -> list[str]:
    weather, _, length, rate = _where(row)
    return [
        f"{length},",
        f"{rate},",
        weather + ",",
        "tasks kept" if row["kept"] else "nothing kept",
    ]


def _length(hours: float) -> str:
    return f"{60 * hours:.0f} min" if hours < 1 else f"{hours:g} h"


def _share(estimate: Row) -> str:
    if not estimate:
        return "none"
    half = (estimate["high"] - estimate["low"]) / 2
    return f"{100 * estimate['value'] + 0.0:.1f} ± {100 * half:.1f} %".replace("-0.0", "0.0")


def _percent(estimate: Row) -> str:
    return f"{100 * estimate['value']:.0f} %"


def _distinct(rows: Sequence[Row], name: str) -> list[Any]:
    return list(dict.fromkeys(row[name] for row in rows))


def _table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ["---"] * len(heads)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, rule, *lines))


if __name__ == "__main__":
    PAGE.write_text(page(json.loads(DATA.read_text())))
