"""The contest as a chart: cost against the rate of interruptions, by length and persistence.

matplotlib, as for the report's chart; drawn without a display.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from simulation.contenders import BASELINE, BUDGETS, ECONOMICS, OPTIMUM
from simulation.grid import FOR_EVER

LONGEST_SHOWN: Final = 3
TOP: Final = 1.6
"""In shares of the on-demand cost; Spot for ever goes beyond it where runs do not come through."""

_LINES: Final = {
    BASELINE: ("#1f77b4", "o", "budget 3, the default"),
    ECONOMICS: ("#2ca02c", "s", "and GUARD_ECONOMICS"),
    FOR_EVER: ("#d62728", "^", "Spot for ever"),
    OPTIMUM: ("#7f7f7f", "x", "optimum, knowing the future"),
}


def draw(costs: Sequence[dict[str, Any]], png: Path) -> None:
    """Draw the costs of `figures_of` into a file. Raises OSError as writing does."""
    pattern = costs[0]["pattern"]
    rows = [row for row in costs if row["pattern"] == pattern]
    hours = sorted({row["hours"] for row in rows})[-LONGEST_SHOWN:]
    kinds = sorted({row["kept"] for row in rows})
    figure = Figure(figsize=(11, 3.4 * len(kinds) + 0.8), layout="constrained")
    grid = figure.subplots(len(kinds), len(hours), sharex=True, sharey=True, squeeze=False)
    for kept, across in zip(kinds, grid, strict=True):
        for length, axes in zip(hours, across, strict=True):
            here = [r for r in rows if r["kept"] == kept and r["hours"] == length]
            _draw_cells(axes, sorted(here, key=lambda row: row["rate"]))
            kind = "tasks kept" if kept else "nothing kept"
            axes.set_title(f"{length:g} h of work, {kind}", fontsize="medium")
    for axes in grid[-1]:
        axes.set_xlabel("interruptions per hour")
    for across in grid:
        across[0].set_ylabel("cost, of on-demand's")
    grid[0][0].legend(loc="upper left", fontsize="x-small")
    figure.suptitle(f"What a run costs on Fargate Spot; {pattern} interruptions, 95 % intervals")
    figure.savefig(png, dpi=100, metadata={"Software": None})


def _draw_cells(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    rates = [row["rate"] for row in rows]
    for n in BUDGETS:
        costs = [row["cost"][f"budget {n}"]["value"] for row in rows]
        axes.plot(rates, costs, color="#aec7e8", linewidth=0.7, zorder=1)
    for name, (colour, marker, label) in _LINES.items():
        costs = [row["cost"][name]["value"] for row in rows]
        errors = [
            [row["cost"][name]["value"] - row["cost"][name]["low"] for row in rows],
            [row["cost"][name]["high"] - row["cost"][name]["value"] for row in rows],
        ]
        axes.errorbar(
            rates, costs, yerr=errors, color=colour, marker=marker, markersize=4, label=label,
            linewidth=1.3, capsize=2,
        )  # fmt: skip
    axes.axhline(1, color="black", linewidth=0.6, linestyle="--")
    if len(rates) > 1:
        axes.set_xscale("log")
        axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
        axes.minorticks_off()
    axes.set_ylim(0, TOP)
