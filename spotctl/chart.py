"""The report as a chart: money by day or by deployment, and interruptions per Spot hour.

A file of its own, because matplotlib takes a second to import. It needs no display.
"""

from collections.abc import Sequence
from decimal import Decimal
from itertools import accumulate
from operator import add
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import FuncFormatter, MaxNLocator

from chalicelib.core.model.text import counted
from chalicelib.core.money.report import ASSUMED_MARK, Counts, Report, Row, days_between, in_usd
from spotctl.output import clean, duration, shortened
from spotctl.rate import RatePerHour, interruption_rate

MOST_DEPLOYMENTS: Final = 12
"""How many have a row: in money those that cost most, in rates those longest on Spot."""
LONGEST_NAME: Final = 31
"""Of which the beginning and the end are shown: the flow and the deployment."""
MOST_BARS: Final = 60
"""More days than these stand without a gap: 400 thin bars flicker."""

# Okabe and Ito's colours, which colour-blind people tell apart (jfly.uni-koeln.de/color), on white,
# also where the page is dark. What is wasted is hatched as well.
_PAID, _WASTED, _NET = "#0072b2", "#d55e00", "#009e73"
_ON_DEMAND, _TEXT, _GRID = "#cbd0d6", "#24292f", "#e4e7eb"
_ROW, _HEAD = 0.36, 0.85  # inches
_HATCH: Final[dict[str, Any]] = {"hatch": "////", "edgecolor": "white", "linewidth": 0}
_FAR_APART: Final = 20
"""Rates that differ by more than this factor are drawn on a logarithmic scale."""


def draw(report: Report, png: Path, svg: Path) -> None:
    """Write the chart to both files. Raises OSError where they cannot be written.

    Money is drawn by day, or by deployment where one day has all bills. The price on demand is that
    of the useful work alone, so that the net saving is the difference between two bars.
    """
    figure = figure_of(report)
    figure.savefig(png, dpi=120)
    # Without its date, the same report gives the same file.
    figure.savefig(svg, metadata={"Date": None})


def drawable(text: str) -> str:
    """Return foreign text clean, with a box for what the font lacks: matplotlib would warn."""
    font = get_font(findfont("DejaVu Sans"))  # matplotlib's own, and its default
    return "".join(c if font.get_char_index(ord(c)) else "□" for c in clean(text))


def title_of(report: Report) -> str:
    """Return the result in words, its amount marked where a Spot rate is assumed."""
    amounts, mark = report.total.counts.amounts, _mark(report.total.counts)
    net, on_demand = amounts.net_savings_usd, amounts.useful_usd
    share = _percent(net, on_demand) if on_demand else ""
    if net < 0:
        more = f" ({share} more)" * bool(share)
        return f"Spot cost {in_usd(-net)}{mark} USD more than on demand, without repeats{more}"
    if not net:
        return "Nothing was saved" if amounts.cost_usd else "Nothing was billed"
    return f"Spot saved {in_usd(net)}{mark} USD net ({share} of on demand, without repeats)"


def figure_of(report: Report) -> Figure:
    """Return the chart: a panel or two of money, and one of rates, each where there are any."""
    billed, rated = _most_expensive(report), _rates(report)
    is_by_day = len({row.day for row in report.rows}) > 1
    heights = [2.8, 1.5] if is_by_day else [_ROW * len(billed)] * bool(billed)
    heights += [_ROW * len(rated)] * bool(rated)
    height = sum(heights) + 0.8 * len(heights) + _HEAD
    figure = Figure(figsize=(10, height), facecolor="white")
    below_the_head = (0.01, 0.01, 0.98, 0.98 - _HEAD / height)
    figure.set_layout_engine("constrained", rect=below_the_head, hspace=0.08)
    _write_head(figure, report, height)
    if not heights:
        return figure
    panels = list(figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0])
    for axes in panels:
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0, colors=_TEXT)
        axes.set_axisbelow(True)
    if is_by_day:
        _draw_days(panels[0], panels[1], report)
    else:
        _draw_deployments(panels[0], billed, report)
    if rated:
        _draw_rates(panels[-1], rated, len(report.deployments))
    return figure


def _write_head(figure: Figure, report: Report, height: float) -> None:
    """Write the result, and below it the period and the counts."""
    counts, mark = report.total.counts, _mark(report.total.counts)
    first, last = (f"{day.day} {day:%b %Y}" for day in (report.since, report.until))
    period = first if first == last else f"{first} to {last}"
    numbers = {"run": counts.runs, "task": counts.attempts, "interruption": counts.interruptions}
    happened = ", ".join(counted(number, name) for name, number in numbers.items())
    lines = f"{period} (UTC), estimated: {happened}"
    if mark:
        lines += f"\n{mark} {counted(counts.assumed_bills, 'bill')} with an assumed Spot rate"
    left: dict[str, Any] = {"x": 0.015, "ha": "left", "va": "top", "color": _TEXT}
    figure.text(y=1 - 0.15 / height, s=title_of(report), fontsize=15, weight="bold", **left)
    figure.text(y=1 - 0.5 / height, s=lines, fontsize=10, **left)


def _draw_days(daily: Axes, running: Axes, report: Report) -> None:
    """Each day's price on demand behind what was paid; below, the net saving up to that day."""
    days = days_between(report.since, report.until)
    sums = dict.fromkeys(days, Counts())
    for row in report.rows:
        if row.day is not None:
            sums[row.day] += row.counts
    by_day, places = list(sums.values()), range(len(days))
    paid, wasted, on_demand = _bars(by_day)
    labels = _labels(report.total.counts)
    wide, thin = (0.86, 0.56) if len(days) <= MOST_BARS else (1, 1)
    daily.bar(places, on_demand, wide, color=_ON_DEMAND, label=labels[0])
    daily.bar(places, paid, thin, color=_PAID, label=labels[1])
    daily.bar(places, wasted, thin, bottom=paid, color=_WASTED, label=labels[2], **_HATCH)
    daily.set_ylim(top=1.05 * max(map(max, on_demand, map(add, paid, wasted))) or 1)
    _legend(daily)
    net = list(accumulate(float(counts.amounts.net_savings_usd) for counts in by_day))
    running.fill_between(places, net, color=_NET, alpha=0.2, linewidth=0)
    running.plot(places, net, color=_NET, linewidth=2)
    running.axhline(0, color=_TEXT, linewidth=0.8)
    running.spines["bottom"].set_visible(False)
    _name_panel(running, f"net saving{_mark(report.total.counts)} so far, USD")
    step = next(n for n in (1, 2, 7, 14, 28, 56) if len(days) <= 12 * n)
    ticks = list(places)[::-1][::step]
    running.set_xticks(ticks, [f"{days[tick].day} {days[tick]:%b}" for tick in ticks])
    daily.set_xticks([])
    for axes in (daily, running):
        axes.set_xlim(-0.6, len(days) - 0.4)
        axes.grid(axis="y", color=_GRID)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(FuncFormatter(_plain))


def _draw_deployments(axes: Axes, rows: Sequence[Row], report: Report) -> None:
    """Each deployment's price on demand behind what was paid, and the difference in words."""
    paid, wasted, on_demand = _bars([row.counts for row in rows])
    labels, places = _labels(report.total.counts), range(len(rows))
    axes.barh(places, on_demand, 0.84, color=_ON_DEMAND, label=labels[0])
    axes.barh(places, paid, 0.44, color=_PAID, label=labels[1])
    axes.barh(places, wasted, 0.44, left=paid, color=_WASTED, label=labels[2], **_HATCH)
    axes.grid(axis="x", color=_GRID)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.set_xlabel(f"USD{_part(len(report.deployments), 'most expensive')}", color=_TEXT)
    _name_rows(axes, [row.deployment for row in rows], [_difference(row.counts) for row in rows])
    _legend(axes)


def _draw_rates(axes: Axes, rated: Sequence[tuple[Row, RatePerHour]], deployments: int) -> None:
    """Each deployment's rate with its interval, and what was counted."""
    seen = [rate.observed for _, rate in rated if rate.events]
    left = 0.0
    if seen and max(rate.high for _, rate in rated) > _FAR_APART * min(seen):
        axes.set_xscale("log")
        left = min(rate.low or rate.high for _, rate in rated) / 2
    for place, (_, rate) in enumerate(rated):
        axes.plot(
            [max(rate.low, left), rate.high], [place] * 2, color=_PAID, alpha=0.4, linewidth=5
        )
        axes.plot(
            max(rate.observed, left),
            place,
            "o",
            color=_PAID,
            fillstyle="full" if rate.events else "none",
        )
    axes.set_xlim(left=left)
    axes.xaxis.set_major_formatter(FuncFormatter(_plain))
    axes.grid(axis="x", color=_GRID)
    seen_in = [f"{rate.events:,} in {duration(rate.hours)}" for _, rate in rated]
    _name_rows(axes, [row.deployment for row, _ in rated], seen_in)
    of_all = _part(deployments, "longest on Spot")
    _name_panel(axes, f"interruptions per Spot hour, with 95 % confidence interval{of_all}")


def _most_expensive(report: Report) -> list[Row]:
    """The deployments that have a row, the most expensive last."""
    return sorted(report.deployments, key=lambda row: row.counts.on_demand_e8)[-MOST_DEPLOYMENTS:]


def _rates(report: Report) -> list[tuple[Row, RatePerHour]]:
    """The rates of those longest on Spot, the highest last; above them that of all."""
    longest = sorted(report.deployments, key=lambda row: row.counts.spot_us)[-MOST_DEPLOYMENTS:]
    rated = [(row, rate) for row in longest if (rate := interruption_rate(row.counts))]
    rated.sort(key=lambda each: each[1].observed)
    whole = interruption_rate(report.total.counts)
    return rated + [(report.total, whole)] * (len(rated) > 1) if whole else rated


def _bars(sums: Sequence[Counts]) -> tuple[list[float], list[float], list[float]]:
    """USD paid for useful work, USD wasted, and the useful work's price on demand."""
    amounts = [counts.amounts for counts in sums]
    return (
        [float(each.cost_usd - each.wasted_usd) for each in amounts],
        [float(each.wasted_usd) for each in amounts],
        [float(each.useful_usd) for each in amounts],
    )


def _labels(total: Counts) -> tuple[str, str, str]:
    """The names of these three, each with its total."""
    amounts, mark = total.amounts, _mark(total)
    return (
        f"on demand, without repeats: {in_usd(amounts.useful_usd)} USD",
        f"paid{mark}, useful: {in_usd(amounts.cost_usd - amounts.wasted_usd)} USD",
        f"paid{mark}, wasted: {in_usd(amounts.wasted_usd)} USD",
    )


def _difference(counts: Counts) -> str:
    net, on_demand = counts.amounts.net_savings_usd, counts.amounts.useful_usd
    share = f" ({_percent(net, on_demand)})" if on_demand else ""
    return f"{in_usd(abs(net))}{_mark(counts)} {'more' if net < 0 else 'saved'}{share}"


def _legend(axes: Axes) -> None:
    axes.legend(
        loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.2, borderpad=0, ncols=3,
        columnspacing=1.2, frameon=False, fontsize=9.5, labelcolor=_TEXT,
    )  # fmt: skip


def _name_panel(axes: Axes, name: str) -> None:
    axes.set_title(name, loc="left", fontsize=10, color=_TEXT)


def _name_rows(axes: Axes, names: Sequence[str], ends: Sequence[str]) -> None:
    """Write each row's name on its left, and on its right what it comes to."""
    axes.set_yticks(range(len(names)), list(map(_name, names)))
    axes.set_ylim(-0.6, len(names) - 0.4)
    for place, text in enumerate(ends):
        axes.text(1.01, place, text, transform=axes.get_yaxis_transform(), va="center", color=_TEXT)


def _part(deployments: int, which: str) -> str:
    """Say which deployments have a row, where not all have one."""
    few = f"; the {MOST_DEPLOYMENTS} {which} of {deployments} deployments"
    return few * (deployments > MOST_DEPLOYMENTS)


def _percent(net: Decimal, on_demand: Decimal) -> str:
    return f"{100 * abs(net) / on_demand:.0f} %"


def _mark(counts: Counts) -> str:
    return ASSUMED_MARK * bool(counts.assumed_bills)


def _name(text: str) -> str:
    """Clean, cut and escape the name: to matplotlib, a dollar sign begins a formula."""
    return shortened(drawable(text), LONGEST_NAME).replace("$", r"\$")


def _plain(value: float, _place: object = None) -> str:
    """Write a tick's number without an exponent, or an offset that all of them share."""
    text = f"{value:,.8f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
