"""The daily sums, one per day, deployment and work pool, and the report made of them.

The sums are whole numbers, in units of 1e-8 USD and of microseconds, so that adding is exact in any
order, wherever it is done: DynamoDB adds to what is there. `spotctl report` shows the report, and
`sweep` puts its totals into Prefect once a day.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from datetime import date, timedelta
from decimal import Decimal
from operator import add
from typing import Any, Final

from chalicelib.core.model.ecs_task import FARGATE_SPOT, Cause
from chalicelib.core.model.pricing import SMALLEST_USD, Rate, age_warning, read_rate
from chalicelib.core.model.text import counted, one_line
from chalicelib.core.money.bill import Amounts, Bill, Deployment, RerunOutcome
from chalicelib.core.policies.facts import Guard

DRILLS: Final = Deployment("drills")
"""Drills of all deployments are summed here: apart from real work, and in no total."""
ASSUMED_MARK: Final = "*"  # behind a figure that is made with an assumed Spot rate
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
    "auto_moves",
    "failed_starts",
    "assumed_bills",
)
COLUMNS: Final = ("day", "deployment", *COUNT_COLUMNS, "work_pool", "useful_usd")
"""Of a row, in this order, in JSON and CSV alike.

`would_...` is of observe mode, `..._moves` of the guards, `assumed_bills` of an assumed Spot rate.
`useful_usd` is "on demand, without repeats": the net saving is that less `cost_usd`.
"""

_MICRO: Final = Decimal("0.000001")
_ON_DEMAND: Final = (RerunOutcome.ON_DEMAND_RERUN, RerunOutcome.WOULD_ON_DEMAND_RERUN)


@dataclass(frozen=True, slots=True)
class Counts:
    """What is added up. `..._e8` are 1e-8 USD, `..._us` microseconds; `partial_bills` lack data.

    `runs` counts a run with its first bill that is no drill's, `attempts` every task of a run; one
    of `failed_starts` is neither where no container started. `would_...` are reruns that observe
    mode left undone. `..._moves` are runs that a guard moved to on-demand before their budget would
    have, in observe mode those that it would have moved. `first_...` are of first bills on Spot
    alone: `core/policies` estimates the interruption rate from them. `assumed_bills` are made with
    an assumed Spot rate.
    """

    runs: int = 0
    attempts: int = 0
    interruptions: int = 0
    spot_reruns: int = 0
    on_demand_reruns: int = 0
    would_spot_reruns: int = 0
    would_on_demand_reruns: int = 0
    partial_bills: int = 0
    spot_us: int = 0
    on_demand_us: int = 0
    wasted_us: int = 0
    cost_e8: int = 0
    on_demand_e8: int = 0
    wasted_e8: int = 0
    useful_e8: int = 0
    deadline_moves: int = 0
    auto_moves: int = 0
    first_spot_us: int = 0
    first_interruptions: int = 0
    failed_starts: int = 0
    assumed_bills: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*map(add, astuple(self), astuple(other)))

    def figures(self, names: Iterable[str]) -> dict[str, Any]:
        """Return numbers, hours and USD (`..._usd`, of `amounts`) by their names."""
        return {n: getattr(self.amounts if n.endswith("_usd") else self, n) for n in names}

    @property
    def amounts(self) -> Amounts:
        """All of it that is money, in USD."""
        e8 = (self.cost_e8, self.on_demand_e8, self.wasted_e8, self.useful_e8)
        return Amounts(*map(usd, e8))

    @property
    def spot_hours(self) -> Decimal:
        """Charged hours on Spot."""
        return _hours(self.spot_us)

    @property
    def first_spot_hours(self) -> Decimal:
        """Charged hours on Spot of runs' first attempts."""
        return _hours(self.first_spot_us)

    @property
    def hours(self) -> Decimal:
        """Charged hours on either capacity."""
        return _hours(self.spot_us + self.on_demand_us)

    @property
    def wasted_hours(self) -> Decimal:
        """Charged hours that had to be done again."""
        return _hours(self.wasted_us)


@dataclass(frozen=True, slots=True)
class DailySum:
    """A deployment's day (UTC, by the end of the task) in a pool; `rates`: lines of `str(Rate)`."""

    day: date
    deployment: Deployment
    counts: Counts
    rates: frozenset[str] = field(default_factory=frozenset)


def by_day_and_name(daily: DailySum) -> tuple[object, ...]:
    """Return what sums are sorted by."""
    of = daily.deployment
    return daily.day, of.title, of.key, of.work_pool


def sum_of(
    bill: Bill, outcome: RerunOutcome, *, first_of_its_run: bool, guards: tuple[str, str] = ("", "")
) -> DailySum:
    """Return what a bill adds to its day and deployment; `guards`: what `guards_of` returns."""
    amounts, is_spot = bill.amounts or Amounts(), bill.capacity == FARGATE_SPOT
    charged_us = int((bill.seconds or Decimal(0)) / _MICRO)
    is_attempt = bill.flow_run_id is not None and bill.started
    is_first = first_of_its_run and bill.counts_its_run
    of_rerun, of_start = guards
    moved_by = [of_rerun] * (outcome in _ON_DEMAND) + [of_start] * is_first
    counts = Counts(
        runs=int(is_first),
        attempts=int(is_attempt),
        interruptions=int(bill.is_interrupted),
        spot_reruns=int(outcome is RerunOutcome.SPOT_RERUN),
        on_demand_reruns=int(outcome is RerunOutcome.ON_DEMAND_RERUN),
        would_spot_reruns=int(outcome is RerunOutcome.WOULD_SPOT_RERUN),
        would_on_demand_reruns=int(outcome is RerunOutcome.WOULD_ON_DEMAND_RERUN),
        partial_bills=int(bool(bill.shortcomings)),
        spot_us=charged_us if is_spot else 0,
        on_demand_us=0 if is_spot else charged_us,
        wasted_us=int(bill.wasted_seconds / _MICRO),
        cost_e8=int(amounts.cost_usd / SMALLEST_USD),
        on_demand_e8=int(amounts.on_demand_usd / SMALLEST_USD),
        wasted_e8=int(amounts.wasted_usd / SMALLEST_USD),
        useful_e8=int(amounts.useful_usd / SMALLEST_USD),
        deadline_moves=moved_by.count(Guard.DEADLINE),
        auto_moves=moved_by.count(Guard.AUTO),
        first_spot_us=charged_us if is_spot and is_first else 0,
        first_interruptions=int(bill.is_interrupted and is_spot and is_first),
        failed_starts=int(bill.cause is Cause.FAILED_START),
        assumed_bills=int(bill.is_assumed),
    )
    pool = bill.deployment.work_pool
    deployment = replace(DRILLS, work_pool=pool) if bill.is_drill else bill.deployment
    return DailySum(bill.ended_at.date(), deployment, counts, frozenset(map(str, bill.rates)))


def total(sums: Iterable[DailySum]) -> Counts:
    """Return the sum over all days and deployments, without the drills."""
    return sum((s.counts for s in sums if s.deployment.key != DRILLS.key), Counts())


def usd(e8: int) -> Decimal:
    """Return an amount of 1e-8 USD as USD."""
    return Decimal(e8) * SMALLEST_USD


def _hours(micros: int) -> Decimal:
    return Decimal(micros) * _MICRO / 3600


@dataclass(frozen=True, slots=True)
class Row:
    """One deployment on one day; `day` is None for all days, `deployment` "all" for all of them.

    `work_pool`: empty for all of them.
    """

    day: date | None
    deployment: str
    counts: Counts
    work_pool: str = ""

    def as_mapping(self) -> Mapping[str, object]:
        """Plain values by column; USD and hours are Decimals, hours rounded to 1e-6."""
        values = self.counts.figures(COUNT_COLUMNS)
        hours = {n: v.quantize(_MICRO) for n, v in values.items() if n.endswith("hours")}
        day = self.day.isoformat() if self.day else ""
        plain = {"day": day, "deployment": self.deployment, **values, **hours}
        return {**plain, "work_pool": self.work_pool, "useful_usd": self.counts.amounts.useful_usd}


@dataclass(frozen=True, slots=True)
class Report:
    """Of UTC days, both ends included. Drills are a row of their own; `rates`: the bills' own."""

    since: date
    until: date
    rows: tuple[Row, ...]
    deployments: tuple[Row, ...]
    work_pools: tuple[Row, ...]
    total: Row
    drills: Row
    rates: tuple[Rate, ...]
    warnings: tuple[str, ...]

    @property
    def moves(self) -> Mapping[str, int]:
        """How many runs each guard moved to on-demand, or would have; guards with none left out."""
        numbers = asdict(self.total.counts)
        return {g.value: numbers[f"{g}_moves"] for g in Guard if numbers[f"{g}_moves"]}

    @property
    def has_pools(self) -> bool:
        """Whether there is more than one work pool."""
        return len(self.work_pools) > 1

    @property
    def whole(self) -> tuple[Row, ...]:
        """The rows of all days: the deployments', the work pools' where there are several, all."""
        return (*self.deployments, *(self.work_pools if self.has_pools else ()), self.total)

    @property
    def observes(self) -> bool:
        """Whether there are reruns that observe mode left undone."""
        counts = self.total.counts
        return counts.would_spot_reruns + counts.would_on_demand_reruns > 0

    @property
    def optional(self) -> Mapping[str, str]:
        """Counts of the columns that are shown only where they are not zero, by their titles."""
        would = {"would: Spot": "would_spot_reruns", "would: on demand": "would_on_demand_reruns"}
        failed = {"failed starts": "failed_starts"} if self.total.counts.failed_starts else {}
        return (would if self.observes else {}) | failed


def days_between(since: date, until: date) -> tuple[date, ...]:
    """Return every day from `since` to `until`, both included."""
    return tuple(since + timedelta(days=n) for n in range((until - since).days + 1))


def report_of(
    sums: Iterable[DailySum], since: date, until: date, pools: Sequence[str] = ()
) -> Report:
    """Return the days' report; a warning names rates read more than 90 days before `until`.

    `pools`: the stage's. What was summed without one, as by earlier releases, is the first's.
    """
    all_sums = list(sums)
    work = [s for s in all_sums if s.deployment.key != DRILLS.key]
    drills = sum((s.counts for s in all_sums if s.deployment.key == DRILLS.key), Counts())
    names, first = _names(work), pools[0] if pools else ""
    by_day, by_key, by_pool = (defaultdict[Any, Counts](Counts) for _ in range(3))
    for daily in work:
        key, pool = daily.deployment.key, daily.deployment.work_pool or first
        by_day[daily.day, key, pool] += daily.counts
        by_key[key, pool] += daily.counts
        by_pool[pool] += daily.counts
    rates = tuple(read_rate(line) for line in sorted({r for s in all_sums for r in s.rates}))
    whole = total(work)
    assumed = whole.assumed_bills + drills.assumed_bills
    warnings = {
        age_warning(rates, until): True,
        f"{counted(whole.partial_bills, 'partial bill')}: a time, a size or a rate was missing, and"
        " what hangs on it is left out": whole.partial_bills,
        f"{counted(assumed, 'bill')} with an assumed Spot rate; figures made with it bear a"
        f" {ASSUMED_MARK}: `make prices` reads the published rates, RATES states your own": assumed,
    }
    keys = sorted(by_key, key=lambda each: (names[each[0]], *each))
    return Report(
        since=since,
        until=until,
        rows=tuple(Row(day, names[key], by_day[day, key, pool], pool) for day, key, pool in by_day),
        deployments=tuple(Row(None, names[key], by_key[key, pool], pool) for key, pool in keys),
        work_pools=tuple(Row(None, "all", by_pool[pool], pool) for pool in sorted(by_pool)),
        total=Row(None, "all", whole),
        drills=Row(None, DRILLS.title, drills),
        rates=rates,
        warnings=tuple(text for text, holds in warnings.items() if text and holds),
    )


def rounded(amounts: Amounts) -> Mapping[str, Decimal]:
    """Return the sum behind the net saving, in USD: what was paid and the net saving make the rest.

    All of it has two digits after the point, six where it is below 1 USD.
    """
    unit = Decimal("0.01" if max(amounts.useful_usd, amounts.cost_usd) >= 1 else "0.000001")
    names = ("cost_usd", "wasted_usd", "net_savings_usd")
    found = {name: getattr(amounts, name).quantize(unit) for name in names}
    return {**found, "useful_usd": found["cost_usd"] + found["net_savings_usd"]}


def marked(counts: Counts, amount: Decimal) -> str:
    """Return an amount of the counts' as `in_usd` does, marked where a Spot rate is assumed."""
    return in_usd(amount) + ASSUMED_MARK * bool(counts.assumed_bills)


def in_usd(amount: Decimal) -> str:
    """Return the amount with two digits after the point, six for less than a dollar; or 0."""
    return f"{amount:,.2f}" if abs(amount) >= 1 else f"{amount:.6f}" if amount else "0"


def _names(sums: Sequence[DailySum]) -> Mapping[str, str]:
    """Each deployment's newest name, cut to one line."""
    names: dict[str, str] = {}
    for daily in sorted(sums, key=lambda daily: daily.day):
        if daily.deployment.name or daily.deployment.key not in names:
            names[daily.deployment.key] = one_line(daily.deployment.title)
    return names
