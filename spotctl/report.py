"""`spotctl report`: what Spot saved and what reruns cost, by deployment and day.

Shows the report of `chalicelib/core/money/report.py` as a table, as JSON and as CSV; `chart.py`
draws it.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from chalicelib.adapters.bills import BillTable
from chalicelib.core.money.report import (
    ASSUMED_MARK,
    COLUMNS,
    Counts,
    Report,
    Row,
    days_between,
    marked,
    report_of,
    rounded,
)
from spotctl.errors import RefusedError
from spotctl.output import (
    PIPE_WIDTH,
    clean,
    csv_of,
    duration,
    no_formula,
    padded,
    shortened,
    two_digits,
    width_of,
)
from spotctl.rate import interruption_rate
from spotctl.recommend import Recommendation

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MOST_DAYS: Final = 400
"""For how many days DynamoDB keeps the daily sums."""

_COUNTS: Final = {
    "runs": "runs",
    "tasks": "attempts",
    "interrupted": "interruptions",
    "rerun\non Spot": "spot_reruns",
    "rerun\non demand": "on_demand_reruns",
    "would:\non Spot": "would_spot_reruns",
    "would:\non demand": "would_on_demand_reruns",
    "failed\nstarts": "failed_starts",
    "time": "hours",
}
_MONEY: Final = {
    "on demand,\nwithout repeats": "useful_usd",
    "paid": "cost_usd",
    "of it\nwasted": "wasted_usd",
    "net\nsaving": "net_savings_usd",
}
_RERUNS: Final = ("spot_reruns", "on_demand_reruns")
"""Without a column in observe mode, unless there are any; `_IF_ANY` never has one without."""
_IF_ANY: Final = ("would_spot_reruns", "would_on_demand_reruns", "failed_starts")
_GAP: Final = "  "
_SHORTEST: Final = 12
"""Names are cut to no less."""
_PERIOD: Final = re.compile(r"([1-9]\d{0,3})([dw])")
_DAYS: Final = {"d": 1, "w": 7}


def days_since(since: str, today: date, most_days: int = MOST_DAYS) -> tuple[date, ...]:
    """Return the days (UTC) of a period, up to today. `since`: "7d", "4w", or a date in ISO 8601.

    `most_days`: for how many days the data is kept. Raises RefusedError: `since` is none of these,
    or longer ago.
    """
    period = _PERIOD.fullmatch(since)
    try:
        first = (
            today - timedelta(days=int(period[1]) * _DAYS[period[2]] - 1)
            if period
            else date.fromisoformat(since)
        )
    except (ValueError, OverflowError):
        first = date.max
    if not today - timedelta(days=most_days) < first <= today:
        raise RefusedError(
            f"--since {since!r} is not a period: accepted are days and weeks, such as 7d or 4w, or"
            f" a date of the last {most_days} days, such as {today - timedelta(days=6)}",
            next_step="correct --since",
        )
    return days_between(first, today)


def read_report(
    client: "DynamoDBClient",
    table: str,
    since: str,
    today: date,
    pools: Sequence[str] = (),
    pool: str = "",
) -> Report:
    """Read the daily sums of a period, up to today (UTC), from the stack's table.

    `pools`: the stage's; `pool`: of that one alone. Raises RefusedError: `since` is not a period,
    or `pool` not of the stage. Also botocore's errors and ThrottledError.
    """
    days = days_since(since, today)
    if pool and pool not in pools:
        what = f"--pool {pool!r} is none of the stage's work pools: {', '.join(pools)}"
        raise RefusedError(what, next_step="correct --pool")
    sums = BillTable(client, table).read_sums(days)
    if pool:
        sums = tuple(s for s in sums if pool == (s.deployment.work_pool or pools[0]))
    return report_of(sums, days[0], days[-1], pools)


def as_mapping(report: Report, advice: Sequence[Recommendation] = ()) -> dict[str, Any]:
    """Return the report for JSON, amounts in USD, and what is recommended."""
    return {
        "since": report.since,
        "until": report.until,
        "rows": [row.as_mapping() for row in report.rows],
        "deployments": [_with_rate(row) for row in report.deployments],
        "work_pools": [_with_rate(row) for row in report.work_pools],
        "total": _with_rate(report.total),
        "drills": report.drills.as_mapping(),
        "rates": report.rates,
        "warnings": report.warnings,
        "recommendations": [each.as_mapping() for each in advice],
    }


def as_csv(report: Report) -> str:
    """Return CSV: a row per deployment and day, then one for the drills if there were any.

    Every field is quoted. A name, or a part of one, that a spreadsheet would take for a formula
    gets an apostrophe in front; figures stay as they are.
    """
    drills = [report.drills] if report.drills.counts.hours else []
    lines = []
    for row in (*report.rows, *drills):
        plain = {
            name: f"{value:f}" if isinstance(value, Decimal) else value
            for name, value in row.as_mapping().items()
        }
        names = {"deployment": row.deployment, "work_pool": row.work_pool}
        lines.append({**plain, **{name: no_formula(text) for name, text in names.items()}})
    return csv_of(COLUMNS, lines)


def as_table(report: Report, advice: Sequence[Recommendation] = (), width: int = PIPE_WIDTH) -> str:
    """Return the report for a terminal of `width` columns: days, deployments, rates, advice.

    Plain text, because rich takes seconds for thousands of rows.
    """
    period, days = f"{report.since} to {report.until} (UTC)", _by_day(report)
    parts = []
    if len(days) > 1:
        parts += [f"Spot savings by day, {period}, in USD", *_tables(report, days, "day", width)]
    parts += [f"Spot savings by deployment, {period}, in USD"]
    parts += [*_tables(report, report.whole, "deployment", width), *_lines(report)]
    parts += [f"Recommended for {clean(str(each))}" for each in advice]
    return "\n".join(parts) + "\n"


def _by_day(report: Report) -> list[Row]:
    """A row per day that has bills, of all deployments: those of each are in CSV."""
    days = defaultdict[date | None, Counts](Counts)
    for row in report.rows:
        days[row.day] += row.counts
    return [Row(day, str(day), counts) for day, counts in days.items()]


def _tables(report: Report, rows: Sequence[Row], what: str, width: int) -> Iterator[str]:
    """One table, or, where the terminal is too narrow for it, one of counts and one of money."""
    total = report.total.counts
    hidden = [*_IF_ANY, *(_RERUNS * report.observes)]
    counts = {t: n for t, n in _COUNTS.items() if n not in hidden or getattr(total, n)}
    names = [what, *["pool"] * (report.has_pools and what != "day")]
    whole = list(_grid(rows, names, counts | _MONEY))
    if max(map(width_of, whole)) <= width:
        yield from (*whole, "")
        return
    for figures in (counts, _MONEY):
        yield from (*_grid(rows, names, figures, width), "")


def _grid(
    rows: Sequence[Row], names: Sequence[str], figures: Mapping[str, str], width: int = sys.maxsize
) -> Iterator[str]:
    """Lines with columns as wide as their widest cell, figures aligned to the right.

    Where they would take over `width` columns, names are cut.
    """
    heads = [title.rpartition("\n") for title in (*names, *figures)]
    table = [[upper for upper, _, _ in heads], [lower for _, _, lower in heads]]
    for row in rows:
        texts = [row.deployment, row.work_pool][: len(names)]
        table.append([*texts, *(_cell(row.counts, name) for name in figures.values())])
    widths = [max(map(width_of, column)) for column in zip(*table, strict=True)]
    for place in reversed(range(len(names))):
        over = sum(widths) + len(_GAP) * (len(widths) - 1) - width
        widths[place] = max(widths[place] - max(over, 0), min(widths[place], _SHORTEST))
    for number, line in enumerate(table):
        yield _GAP.join(
            padded(shortened(cell, size), size, is_figure=place >= len(names))
            for place, (cell, size) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        if number == 1:
            yield _GAP.join("─" * size for size in widths)


def _cell(counts: Counts, name: str) -> str:
    value = counts.figures([name])[name]
    if name in (usd := rounded(counts.amounts)):
        mark = ASSUMED_MARK * (bool(counts.assumed_bills) and name != "useful_usd")
        return f"{usd[name] or 0:,}{mark}"
    return duration(value) if name == "hours" else f"{value:,}"


def _lines(report: Report) -> Iterator[str]:
    yield "Net saving: on demand, without repeats, less what was paid; wasted is a part of that."
    rate = interruption_rate(report.total.counts)
    if rate is not None:
        observed, low, high = map(two_digits, (rate.observed, rate.low, rate.high))
        yield (
            f"Interruptions per Spot hour: {observed} ({low} to {high} with 95 % confidence;"
            f" {rate.events:,} in {duration(rate.hours)})"
        )
    if report.moves:
        by_guard = ", ".join(f"{guard} {number}" for guard, number in report.moves.items())
        yield f"Put on demand by a guard, earlier than by the budget: {by_guard}"
    drills = report.drills.counts
    if drills.hours:
        paid = marked(drills, drills.amounts.cost_usd)
        yield f"Drills, in no total: {duration(drills.hours)}, {paid} USD paid"
    if report.observes:
        yield "MODE was observe: reruns under `would` were not made, only decided"
    yield "All figures are estimates: seconds as ECS reports them, times these rates:"
    for used in report.rates:
        dated = f", read {used.date}" if used.date else ""
        yield (
            f"  {used.region} {used.architecture} {used.capacity}: {used.vcpu_hour_usd} USD per"
            f" vCPU-hour, {used.gb_hour_usd} USD per GB-hour ({used.source}{dated})"
        )
    if not report.rates:
        yield "  none: nothing was billed with a rate"
    for warning in report.warnings:
        yield f"Warning: {warning}"


def _with_rate(row: Row) -> dict[str, object]:
    rate = interruption_rate(row.counts)
    interval = rate and {"observed": rate.observed, "low": rate.low, "high": rate.high}
    plain = {name: value for name, value in row.as_mapping().items() if name != "day"}
    return {**plain, "interruptions_per_spot_hour": interval}
