"""The report as a chart: money by day, and interruptions per Spot hour by deployment.

A file of its own, because matplotlib takes a second to import. It needs no display.
"""

from itertools import accumulate
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from chalicelib.core.money.report import ASSUMED_MARK, Counts, Report, Row, days_between
from spotctl.output import clean
from spotctl.rate import interruption_rate

MOST_DEPLOYMENTS: Final = 12
"""How many rates are drawn: those of the deployments with the most interruptions."""

LONGEST_NAME: Final = 40

_PAID, _WASTED, _ON_DEMAND, _NET = "#1f77b4", "#d62728", "#7f7f7f", "#2ca02c"


def draw(report: Report, png: Path, svg: Path) -> None:
    """Write the chart to both files. Raises OSError where they cannot be written."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    money, rates = figure.subplots(2, 1, height_ratios=[3, 2])
    _draw_money(money, report)
    _draw_rates(rates, report)
    mark, net_usd = _mark(report), report.total.counts.amounts.net_savings_usd
    figure.suptitle(
        f"Fargate Spot, {report.since} to {report.until} (UTC), estimated:"
        f" {net_usd:.4f}{mark} USD saved, net of repeated work"
        + f"\n{mark} {report.total.counts.assumed_bills} bills have an assumed Spot rate"
        * bool(mark)
    )
    figure.savefig(png, dpi=120)
    # Without its date, the same report gives the same file.
    figure.savefig(svg, metadata={"Date": None})


def _draw_money(axes: Axes, report: Report) -> None:
    """Each day's costs as bars, and the net saving up to that day as a line."""
    days, mark = days_between(report.since, report.until), _mark(report)
    sums = dict.fromkeys(days, Counts())
    for row in report.rows:
        if row.day is not None:
            sums[row.day] += row.counts
    by_day, places = sums.values(), range(len(days))
    paid = [float(counts.amounts.cost_usd) for counts in by_day]
    wasted = [float(counts.amounts.wasted_usd) for counts in by_day]
    useful = [all_ - repeated for all_, repeated in zip(paid, wasted, strict=True)]
    on_demand = [float(counts.amounts.on_demand_usd) for counts in by_day]
    axes.bar(places, on_demand, 0.8, color="none", edgecolor=_ON_DEMAND, label="all on demand")
    axes.bar(places, useful, 0.6, color=_PAID, label=f"paid{mark}, useful")
    axes.bar(places, wasted, 0.6, bottom=useful, color=_WASTED, label=f"paid{mark}, repeated work")
    net = list(accumulate(float(counts.amounts.net_savings_usd) for counts in by_day))
    axes.plot(places, net, color=_NET, marker="o", markersize=3, label=f"net saving{mark} so far")
    axes.axhline(0, color="black", linewidth=0.5)
    step = max(1, len(days) // 10)
    axes.set_xticks(list(places)[::step], [f"{day:%d %b}" for day in days[::step]])
    axes.set_ylabel("USD")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False, fontsize="small")


def _draw_rates(axes: Axes, report: Report) -> None:
    """Each deployment's rate with its interval; a deployment without time on Spot has none."""
    rows = report.deployments
    rated = [(row, rate) for row in rows if (rate := interruption_rate(row.counts))]
    rated = sorted(rated, key=lambda each: each[0].counts.interruptions)[-MOST_DEPLOYMENTS:]
    axes.set_xlabel("interruptions per Spot hour, with 95 % confidence interval")
    axes.set_yticks(range(len(rated)), [_name(row) for row, _ in rated])
    for place, (_, rate) in enumerate(rated):
        around = [[rate.observed - rate.low], [rate.high - rate.observed]]
        axes.errorbar(rate.observed, place, xerr=around, fmt="o", color=_PAID, capsize=4)
    axes.set_xlim(left=0)
    if not rated:
        axes.text(0.5, 0.5, "no time on Spot", ha="center", transform=axes.transAxes)


def _mark(report: Report) -> str:
    return ASSUMED_MARK * bool(report.total.counts.assumed_bills)


def _name(row: Row) -> str:
    """Clean, cut and escape the name: to matplotlib, a dollar sign begins a formula."""
    name = clean(row.deployment)
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return short.replace("$", r"\$")
