"""The report: daily sums as rows, by deployment and day, with totals, rates and warnings.

Pure; `spotctl report` shows it, and `sweep` puts its totals into Prefect once a day.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from chalicelib.core.model.pricing import Rate, age_warning, read_rate
from chalicelib.core.model.text import one_line
from chalicelib.core.money.daily_sums import DRILLS, Counts, DailySum, total
from chalicelib.core.policies.economics import RatePerHour, rate_per_hour
from chalicelib.core.policies.facts import Guard

COUNT_COLUMNS: Final = (
    "runs",
    "attempts",
    "interruptions",
    "spot_reruns",
    "on_demand_reruns",
    "would_spot_reruns",
    "would_on_demand_reruns",
    "hours",
    "spot_hours",
    "cost_usd",
    "on_demand_usd",
    "savings_usd",
    "wasted_hours",
    "wasted_usd",
    "net_savings_usd",
    "partial_bills",
    "deadline_moves",
    "economics_moves",
)
COLUMNS: Final = ("day", "deployment", *COUNT_COLUMNS)
"""Of a row, in this order, in JSON and CSV alike.

`would_...` is of observe mode, `..._moves` of the guards.
"""

_HOUR: Final = Decimal("0.000001")


@dataclass(frozen=True, slots=True)
class TableArtifact:
    """A table for the Prefect UI, on no run; one more with the same key is its newest version."""

    key: str
    rows: Sequence[Mapping[str, object]]
    description: str


@dataclass(frozen=True, slots=True)
class Row:
    """One deployment on one day; `day` is None for all days, `deployment` "all" for all of them."""

    day: date | None
    deployment: str
    counts: Counts

    def as_mapping(self) -> Mapping[str, object]:
        """Plain values by column; USD and hours are Decimals, hours rounded to 1e-6."""
        values = self.counts.figures(COUNT_COLUMNS)
        hours = {n: v.quantize(_HOUR) for n, v in values.items() if n.endswith("hours")}
        day = self.day.isoformat() if self.day else ""
        return {"day": day, "deployment": self.deployment, **values, **hours}

    @property
    def interruption_rate(self) -> RatePerHour | None:
        """Interruptions per Spot hour; None where no time was spent on Spot."""
        return rate_per_hour(self.counts.interruptions, self.counts.spot_hours)


@dataclass(frozen=True, slots=True)
class Report:
    """From `since` to `until`, both included, UTC days. Drills are rows of their own, in no total.

    `rates` are those that the bills were made with; `warnings` are sentences.
    """

    since: date
    until: date
    rows: tuple[Row, ...]
    deployments: tuple[Row, ...]
    total: Row
    drills: Row
    rates: tuple[Rate, ...]
    warnings: tuple[str, ...]

    @property
    def moves(self) -> Mapping[str, int]:
        """How many runs each guard moved to on-demand, or would have; guards with none left out."""
        numbers = self.total.counts.as_mapping()
        return {g.value: numbers[f"{g}_moves"] for g in Guard if numbers[f"{g}_moves"]}

    @property
    def observes(self) -> bool:
        """Whether there are reruns that observe mode left undone."""
        counts = self.total.counts
        return counts.would_spot_reruns + counts.would_on_demand_reruns > 0


def days_between(since: date, until: date) -> tuple[date, ...]:
    """Return every day from `since` to `until`, both included."""
    return tuple(since + timedelta(days=n) for n in range((until - since).days + 1))


def report_of(sums: Iterable[DailySum], since: date, until: date) -> Report:
    """Return the report of the days from `since` to `until`, from their sums.

    A warning names rates that were read more than 90 days before `until`.
    """
    all_sums = list(sums)
    work = [daily for daily in all_sums if daily.deployment.key != DRILLS.key]
    drills = [daily.counts for daily in all_sums if daily.deployment.key == DRILLS.key]
    names, of_key = _names(work), defaultdict[str, Counts](Counts)
    for daily in work:
        of_key[daily.deployment.key] += daily.counts
    rates = tuple(read_rate(line) for line in sorted({r for s in all_sums for r in s.rates}))
    whole, old = total(work), age_warning(rates, until)
    partial = (
        f"{whole.partial_bills} bills are partial: a time, a size or a rate was missing, and what"
        " hangs on it is left out"
    )
    keys = sorted(names, key=lambda key: (names[key], key))
    return Report(
        since=since,
        until=until,
        rows=tuple(Row(s.day, names[s.deployment.key], s.counts) for s in work),
        deployments=tuple(Row(None, names[key], of_key[key]) for key in keys),
        total=Row(None, "all", whole),
        drills=Row(None, DRILLS.title, sum(drills, Counts())),
        rates=rates,
        warnings=tuple(filter(None, (old, partial if whole.partial_bills else ""))),
    )


def savings_table(report: Report) -> Sequence[Mapping[str, object]]:
    """Return the rows for Prefect's UI: one per deployment and the total, in plain numbers.

    USD come first: the UI shows about five columns, the others when scrolled.
    """
    return [_savings_row(row, report.observes) for row in (*report.deployments, report.total)]


def _savings_row(row: Row, observes: bool) -> Mapping[str, object]:
    counts, amounts = row.counts, row.counts.amounts
    would = {
        "would: Spot": counts.would_spot_reruns,
        "would: on demand": counts.would_on_demand_reruns,
    }
    return {
        "deployment": row.deployment,
        "net USD": float(in_usd(amounts.net_savings_usd)),
        "saved USD": float(in_usd(amounts.savings_usd)),
        "wasted USD": float(in_usd(amounts.wasted_usd)),
        "interrupted": counts.interruptions,
        "rerun: Spot": counts.spot_reruns,
        "rerun: on demand": counts.on_demand_reruns,
        **(would if observes else {}),
        "runs": counts.runs,
        "tasks": counts.attempts,
        "hours": float(f"{counts.hours:.2f}"),
        "paid USD": float(in_usd(amounts.cost_usd)),
        "on demand USD": float(in_usd(amounts.on_demand_usd)),
    }


def in_usd(amount: Decimal) -> str:
    """Return the amount with two digits after the point, six for less than a dollar."""
    return f"{amount:.2f}" if abs(amount) >= 1 or amount == 0 else f"{amount:.6f}"


def _names(sums: Sequence[DailySum]) -> Mapping[str, str]:
    """Each deployment's newest name, cut to one line."""
    names: dict[str, str] = {}
    for daily in sorted(sums, key=lambda daily: daily.day):
        if daily.deployment.name or daily.deployment.key not in names:
            names[daily.deployment.key] = one_line(daily.deployment.title)
    return names
