"""What an attempt cost: seconds times rate. Estimates: AWS bills to the second, we to the event.

Decimal throughout, rounded once, to 1e-8 USD. Source of the rule: AWS Fargate pricing, billed from
the start of the image pull until the task ends, per second, one minute at least.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.pricing import Rate

SMALLEST_USD: Final = Decimal("0.00000001")
MINIMUM_SECONDS: Final = Decimal(60)
FREE_STORAGE_GIB: Final = 20
"""Ephemeral storage that every Fargate task has without charge."""

_SECONDS_PER_HOUR: Final = Decimal(3600)


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
    """Return the task's size; None where ECS did not tell it. Without word, storage is 20 GiB."""
    if task.cpu_units is None or task.memory_mib is None:
        return None
    return Size(task.cpu_units, task.memory_mib, task.storage_gib or FREE_STORAGE_GIB)


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
    return (per_hour * seconds / _SECONDS_PER_HOUR).quantize(SMALLEST_USD, ROUND_HALF_EVEN)
