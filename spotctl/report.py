"""`spotctl report`: what Spot saved and what reruns cost, by deployment and day.

Shows the report of `chalicelib/core/money/report.py` as a table, as JSON and as CSV; `chart.py`
draws it.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from chalicelib.adapters.bills import BillTable
from chalicelib.core.money.report import (
    COLUMNS,
    Report,
    Row,
    days_between,
    in_usd,
    marked,
    report_of,
)
from spotctl.errors import RefusedError
from spotctl.output import clean, csv_of, no_formula, padded, width_of
from spotctl.rate import interruption_rate
from spotctl.recommend import Recommendation

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

MOST_DAYS: Final = 400
"""For how many days DynamoDB keeps the daily sums."""

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
    drills = [report.drills] if report.drills.counts.spot_us or report.drills.counts.cost_e8 else []
    lines = []
    for row in (*report.rows, *drills):
        plain = {
            name: f"{value:f}" if isinstance(value, Decimal) else value
            for name, value in row.as_mapping().items()
        }
        names = {"deployment": row.deployment, "work_pool": row.work_pool}
        lines.append({**plain, **{name: no_formula(text) for name, text in names.items()}})
    return csv_of(COLUMNS, lines)


def as_table(report: Report, advice: Sequence[Recommendation] = ()) -> str:
    """Return the report for a terminal: days, deployments, total, rates, warnings and advice.

    Plain text, because rich takes seconds for thousands of rows.
    """
    period = f"{report.since} to {report.until} (UTC)"
    parts = []
    if report.rows:
        parts += [f"Spot savings by deployment and day, {period}", *_grid(report, report.rows), ""]
    parts += [f"Spot savings by deployment, {period}", *_grid(report, report.whole), ""]
    parts += _lines(report)
    parts += [f"Recommended for {clean(str(each))}" for each in advice]
    return "\n".join(parts) + "\n"


def _grid(report: Report, rows: Sequence[Row]) -> Iterator[str]:
    """Lines with columns as wide as their widest cell, figures aligned to the right."""
    has_days = any(row.day for row in rows)
    texts = ["day"] * has_days + ["deployment"] + ["work pool"] * report.has_pools
    figures = ["runs", "tasks", "interrupted", "rerun: Spot", "on demand"]
    figures += [*report.optional]
    figures += ["hours", "paid USD", "on demand USD", "saved USD", "wasted USD", "net USD"]
    table = [[*texts, *figures]]
    for row in rows:
        pool = [row.work_pool] * report.has_pools
        table.append([*[str(row.day)] * has_days, row.deployment, *pool, *_cells(report, row)])
    widths = [max(map(width_of, column)) for column in zip(*table, strict=True)]
    for number, line in enumerate(table):
        yield "  ".join(
            padded(cell, width, is_figure=place >= len(texts))
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        if number == 0:
            yield "  ".join("─" * width for width in widths)


def _cells(report: Report, row: Row) -> Iterator[str]:
    counts = row.counts
    yield from map(str, (counts.runs, counts.attempts, counts.interruptions))
    yield from map(str, (counts.spot_reruns, counts.on_demand_reruns))
    yield from map(str, counts.figures(report.optional.values()).values())
    yield f"{counts.hours:.2f}"
    usd = counts.amounts
    yield marked(counts, usd.cost_usd)
    yield in_usd(usd.on_demand_usd)
    for amount in (usd.savings_usd, usd.wasted_usd, usd.net_savings_usd):
        yield marked(counts, amount)


def _lines(report: Report) -> Iterator[str]:
    rate = interruption_rate(report.total.counts)
    if rate is not None:
        yield (
            f"Interruptions per Spot hour: {rate.observed:.4f} ({rate.low:.4f} to {rate.high:.4f}"
            f" with 95 % confidence; {rate.events} in {rate.hours:.1f} hours)"
        )
    if report.moves:
        by_guard = ", ".join(f"{guard} {number}" for guard, number in report.moves.items())
        yield f"Put on demand by a guard, earlier than by the budget: {by_guard}"
    drills = report.drills.counts
    if drills.hours:
        paid = marked(drills, drills.amounts.cost_usd)
        yield f"Drills, in no total: {drills.hours:.2f} hours, {paid} USD paid"
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
