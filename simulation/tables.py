"""The contest on a terminal: what each setting costs, and what the guards are worth."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.table import Table

from simulation.contenders import BASELINE, BUDGETS, ECONOMICS, OPTIMUM
from simulation.figures import ADVISED, Figures
from simulation.grid import FOR_EVER

_WIDTH_OF_A_PIPE: Final = 160
_SHOWN: Final = ("budget 0", BASELINE, "budget 10", ECONOMICS, FOR_EVER, OPTIMUM)


def show(figures: Figures) -> None:
    """Print all tables."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDTH_OF_A_PIPE)
    console.print(Group(*_tables(figures)))


def share(estimate: dict[str, float]) -> str:
    """Return a share in percent, with half the width of its interval."""
    if not estimate:
        return "-"
    half = (estimate["high"] - estimate["low"]) / 2
    return f"{100 * estimate['value']:.0f} ± {100 * half:.0f} %"


def where(row: dict[str, Any]) -> list[str]:
    """Return a row's cell in words: pattern, persistence, length, rate."""
    kept = "tasks kept" if row["kept"] else "nothing kept"
    minutes = f"{60 * row['hours']:.0f} min" if row["hours"] < 1 else f"{row['hours']:g} h"
    return [row["pattern"], kept, minutes, f"{row['rate']:g}/h"]


def _tables(figures: Figures) -> Iterator[RenderableType]:
    played = figures["played"]
    yield (
        f"{played['runs']} runs in each of {played['cells']} cells, seed {played['seed']};"
        f" Spot costs {100 * played['spot_price']:.1f} % of on-demand\n"
    )
    yield _costs(figures["costs"])
    yield _economics(figures["economics"])
    yield _deadlines(figures["deadline"])


def _costs(rows: Sequence[dict[str, Any]]) -> Table:
    names = [*_SHOWN, "best budget"]
    table = _table(
        "Cost, of on-demand's", "interruptions", "kept", "work", "rate", *names, "setting"
    )
    for row in rows:
        cost = row["cost"]
        best = min(BUDGETS, key=lambda n: cost[f"budget {n}"]["value"])
        shown = [share(cost[name]) for name in _SHOWN]
        advice = ADVISED[row["advised"]].replace("`", "")
        table.add_row(*where(row), *shown, f"{best}", advice)
    return table


def _economics(figures: Figures) -> Table:
    worst = figures["worst"]
    table = _table(
        f"Economics: at worst {share(worst)} of the budget of 3 ({', '.join(where(worst))});"
        " of the gap to the optimum it closes, where runs are long and keep nothing",
        "what was known",
        "at worst, of budget 3",
        *(f"closed: {pattern}" for pattern in figures["closed_where_long"]),
    )
    for row in figures["knowledge"]:
        closed = map(share, row["closed_where_long"].values())
        table.add_row(row["name"] or "an ordinary past", share(row["worst"]), *closed)
    return table


def _deadlines(rows: Sequence[Figures]) -> Table:
    table = _table(
        "Deadlines: runs that were late, and the cost, of on-demand's",
        "kept", "deadline", "runs", "guard late", "budget 3 late", "optimum late",
        "guard costs", "budget 3", "optimum",
    )  # fmt: skip
    for row in rows:
        ways = [row[way] for way in ("guard", "budget", "optimum")]
        table.add_row(
            "tasks kept" if row["kept"] else "nothing kept",
            f"{row['factor']:g} x work",
            f"{row['runs']}",
            *(f"{way['missed']}" for way in ways),
            *(f"{100 * way['cost']:.0f} %" for way in ways),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in ("interruptions", "kept") else "right")
    return table
