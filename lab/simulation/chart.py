"""The chart of *Which setting is mine?*: cost by the interruptions expected in the work."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Final

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lab.tables import Row

LINES: Final = {"3": "#7f7f7f", "auto": "#1f77b4", "optimum": "#2ca02c"}
TITLES: Final = {True: "Finished tasks are kept", False: "Nothing is kept"}


def draw(figures: Mapping[str, Sequence[Row]], svg: Path) -> None:
    """Write the chart of `figures_of`'s tables: means over both patterns and all lengths."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (kept, title) in zip(figure.subplots(1, 2, sharey=True), TITLES.items(), strict=True):
        _draw(axes, title, [row for row in figures["Cost"] if row["kept"] is kept])
    # Without its date, the same figures give the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "auto"}):
        figure.savefig(svg, metadata={"Date": None})


def _draw(axes: Axes, title: str, rows: Sequence[Row]) -> None:
    expected = sorted({round(row["hours"] * row["per hour"], 2) for row in rows})
    for name, color in LINES.items():
        costs = [
            fmean(
                row[name]["value"] for row in rows if round(row["hours"] * row["per hour"], 2) == x
            )
            for x in expected
        ]
        axes.plot(expected, [100 * cost for cost in costs], color=color, marker=".", label=name)
    axes.axhline(100, color="black", linewidth=0.5)
    axes.set_xscale("log")
    axes.set_title(title)
    axes.set_xlabel("hours of work · interruptions per Spot hour")
    axes.set_ylabel("% of the cost on demand")
    axes.legend(frameon=False)
