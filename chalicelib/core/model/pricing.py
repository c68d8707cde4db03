"""What a task costs: rates by region, architecture and capacity, and seconds times rate.

Rates come from the shipped table (`infra/prices.json`) and, over it, from the setting `RATES`; each
has its source, and one that cannot be right is refused. A Spot rate that neither has is assumed to
be on-demand less `ASSUMED_SPOT_DISCOUNT`, and its source says so. Costs are estimates: AWS bills to
the second, we to the event. Decimal throughout, rounded once, to 1e-8 USD. Source of the rule: AWS
Fargate pricing, billed from the start of the image pull until the task ends, per second, one minute
at least.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import astuple, dataclass, fields, replace
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any, Final

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT, Task

OLD_AFTER: Final = timedelta(days=90)
"""Spot prices move: figures made with older ones are reported with a warning."""
OWN_RATES_FORM: Final = (
    "REGION/ARCHITECTURE/CAPACITY=USD per vCPU-hour/USD per GB-hour, comma-separated, such as"
    " us-east-1/x86_64/FARGATE=0.03238/0.003556"
)

ASSUMED: Final = "assumed: "
"""How the source of an assumed rate begins: bills and sums keep rates with their sources."""

SMALLEST_USD: Final = Decimal("0.00000001")
MINIMUM_SECONDS: Final = Decimal(60)
"""What AWS charges a Fargate task at least."""
FREE_STORAGE_GIB: Final = 20
"""Ephemeral storage that every Fargate task has without charge."""
LARGEST: Final = 2**24
"""Far above what a task may have: 16,384 CPU units, 122,880 MiB, 204,800 MiB of storage (ECS
developer guide, "Fargate task definition differences")."""
_REGION: Final = re.compile(r"[a-z]{2}(-[a-z]+)+-\d")
_NUMBER: Final = r"(\d{1,6}(?:\.\d{1,12})?)"
_OWN_RATE: Final = re.compile(rf"([^/=]*)/([^/=]*)/([^/=]*?)\s*=\s*{_NUMBER}/{_NUMBER}")
ARCHITECTURES: Final = ("x86_64", "arm64")

RateKey = tuple[str, str, str]
"""Region, architecture (x86_64 or arm64), capacity (FARGATE or FARGATE_SPOT)."""


@dataclass(frozen=True, slots=True)
class Rate:
    """One row. `storage_gb_hour_usd`: of ephemeral storage above 20 GiB, None where unknown.

    `source` says where the rate is from; `date`, ISO 8601, when it was read there, and is empty for
    a rate of the user's own.
    """

    region: str
    architecture: str
    capacity: str
    vcpu_hour_usd: Decimal
    gb_hour_usd: Decimal
    storage_gb_hour_usd: Decimal | None = None
    source: str = ""
    date: str = ""

    @property
    def key(self) -> RateKey:
        """Region, architecture and capacity."""
        return self.region, self.architecture, self.capacity

    @property
    def is_assumed(self) -> bool:
        """Whether it is made of on-demand's: figures made with it are marked."""
        return self.source.startswith(ASSUMED)

    def __str__(self) -> str:
        """All of it in a line for `read_rate`; bills store the rates they were made with."""
        return "|".join("" if value is None else f"{value}" for value in astuple(self))


Rates = Mapping[RateKey, Rate]


def read_rate(line: str) -> Rate:
    """Read a rate's own line, as `str` writes it. Raises ValueError for anything else."""
    names, values = [field.name for field in fields(Rate)], line.split("|")
    if len(values) != len(names):
        raise ValueError(f"{line!r} is not a rate")
    return _rate(dict(zip(names, values, strict=True)))


def read_table(table: Mapping[str, Iterable[Mapping[str, str]]]) -> Rates:
    """Read the price table: `rates`, and `storage` by region. Raises ValueError, naming the row."""
    storage = {row["region"]: row["gb_hour_usd"] for row in table["storage"]}
    return checked(
        _rate({**row, "storage_gb_hour_usd": storage.get(row["region"], "")})
        for row in table["rates"]
    )


def _rate(row: Mapping[str, str]) -> Rate:
    values: Mapping[str, Any] = {
        name: _usd(text) if name.endswith("_usd") else text
        for name, text in row.items()
        if text or name != "storage_gb_hour_usd"
    }
    return Rate(**values)


def read_own_rates(text: str) -> Rates:
    """Read the setting `RATES`, see `OWN_RATES_FORM`. Raises ValueError, naming the row."""
    return checked(_own_rate(row.strip()) for row in text.split(",") if row.strip())


def with_own(shipped: Rates, own: Rates) -> Rates:
    """Return the shipped rates with the user's own in their places. Raises ValueError as `checked`.

    Rates of storage stay as shipped: `RATES` has none.
    """
    storage = {rate.region: rate.storage_gb_hour_usd for rate in shipped.values()}
    rows = [replace(rate, storage_gb_hour_usd=storage.get(rate.region)) for rate in own.values()]
    return checked([*(rate for key, rate in shipped.items() if key not in own), *rows])


def rates_of(table: Mapping[str, Any], own: Rates, discount: Decimal) -> Rates:
    """Return a stage's rates: the shipped table's, `own` over them, and the assumed for the rest.

    Raises ValueError: they contradict each other, as Spot above on-demand.
    """
    return with_assumed(with_own(read_table(table), own), discount)


def with_assumed(rates: Rates, discount: Decimal) -> Rates:
    """Return the rates, with a Spot rate for each of on-demand that has none: on-demand less that.

    `discount`: a share, from 0 to below 1. Source of 0.68: that of published Spot rates, 0.68 to
    0.70; AWS says up to 0.70.
    """
    source = f"{ASSUMED}on-demand less {(discount * 100).normalize():f} %"
    assumed = (
        replace(
            rate,
            capacity=FARGATE_SPOT,
            vcpu_hour_usd=rate.vcpu_hour_usd * (1 - discount),
            gb_hour_usd=rate.gb_hour_usd * (1 - discount),
            source=source,
        )
        for rate in rates.values()
        if rate.capacity == FARGATE
    )
    return {**{rate.key: rate for rate in assumed}, **rates}


def checked(rows: Iterable[Rate]) -> Rates:
    """Return the rates by region, architecture and capacity.

    Raises ValueError, naming a rate that is not above zero, is there twice, is of something
    unknown, or is of Spot and above on-demand.
    """
    rates: dict[RateKey, Rate] = {}
    for rate in rows:
        name = "/".join(rate.key)
        if not _REGION.fullmatch(rate.region):
            raise ValueError(f"{name}: {rate.region!r} is no AWS region")
        if rate.architecture not in ARCHITECTURES or rate.capacity not in (FARGATE, FARGATE_SPOT):
            raise ValueError(f"{name}: known are x86_64 and arm64, FARGATE and FARGATE_SPOT")
        if rate.key in rates:
            raise ValueError(f"{name} is there twice")
        for usd in (rate.vcpu_hour_usd, rate.gb_hour_usd, rate.storage_gb_hour_usd):
            if usd is not None and not usd > 0:
                raise ValueError(f"{name}: {usd} USD is not above zero")
        rates[rate.key] = rate
    for rate in rates.values():
        on_demand = rates.get((rate.region, rate.architecture, FARGATE), rate)
        if rate.vcpu_hour_usd > on_demand.vcpu_hour_usd or rate.gb_hour_usd > on_demand.gb_hour_usd:
            raise ValueError(f"{rate.region}/{rate.architecture}: Spot is above on-demand")
    return rates


def age_warning(rates: Iterable[Rate], today: date) -> str:
    """Return a warning that names the oldest rate read more than 90 days ago; empty for none."""
    oldest = (today - OLD_AFTER).isoformat()
    old = sorted(rate.date for rate in rates if "" < rate.date < oldest)
    if not old:
        return ""
    return (
        f"rates of {old[0]} were used, which is more than {OLD_AFTER.days} days ago: Spot prices"
        " move; `make prices` reads them again"
    )


def _own_rate(row: str) -> Rate:
    found = _OWN_RATE.fullmatch(row)
    if found is None:
        raise ValueError(f"{row!r} cannot be read")
    region, arch, capacity, vcpu, gb = found.groups()
    return Rate(region, arch, capacity, Decimal(vcpu), Decimal(gb), source="the setting RATES")


def _usd(text: str) -> Decimal:
    with suppress(InvalidOperation):
        value = Decimal(text)
        if value.is_finite():
            return value
    raise ValueError(f"{text!r} is not a number of USD")


@dataclass(frozen=True, slots=True)
class Size:
    """What a task takes up: CPU units (1/1024 vCPU), MiB of memory, GiB of ephemeral storage."""

    cpu_units: int
    memory_mib: int
    storage_gib: int = FREE_STORAGE_GIB

    @property
    def charged_storage_gib(self) -> int:
        """GiB of ephemeral storage above those that are free."""
        return max(0, self.storage_gib - FREE_STORAGE_GIB)


def size_of(task: Task) -> Size | None:
    """Return the task's size; None where ECS did not report it. Storage is 20 GiB if unreported.

    Nor is it one that no task can have.
    """
    cpu, memory, storage = task.cpu_units, task.memory_mib, task.storage_gib or FREE_STORAGE_GIB
    if not cpu or not memory or max(cpu, memory, 1024 * storage) > LARGEST:
        return None
    return Size(cpu, memory, storage)


def seconds_between(start: datetime, end: datetime) -> Decimal:
    """Seconds from start to end, never below zero: ECS's times may be out of order."""
    return max(Decimal(0), Decimal(str((end - start).total_seconds())))


def billed_seconds(start: datetime, end: datetime) -> Decimal:
    """Seconds that AWS charges for a task of this length: a minute at least."""
    return max(seconds_between(start, end), MINIMUM_SECONDS)


def cost_usd(rate: Rate, seconds: Decimal, size: Size) -> Decimal:
    """Cost in USD of `seconds` of a task, rounded to 1e-8. Storage without a rate costs nothing."""
    per_hour = (
        rate.vcpu_hour_usd * size.cpu_units / 1024
        + rate.gb_hour_usd * size.memory_mib / 1024
        + (rate.storage_gb_hour_usd or 0) * size.charged_storage_gib
    )
    return (per_hour * seconds / 3600).quantize(SMALLEST_USD, ROUND_HALF_EVEN)
