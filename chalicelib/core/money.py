"""What an attempt cost, from a table of rates. Estimates: AWS bills to the second, we to the event.

Decimal throughout, rounded once, to 1e-8 USD. Source of the rule: AWS Fargate pricing, billed from
the start of the image pull until the task ends, per second, one minute at least.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

SMALLEST: Final = Decimal("0.00000001")
MINIMUM_SECONDS: Final = Decimal(60)
_SECONDS_PER_HOUR: Final = Decimal(3600)


@dataclass(frozen=True, slots=True)
class Rate:
    """USD per vCPU-hour and per GB-hour."""

    vcpu_hour_usd: Decimal
    gb_hour_usd: Decimal


Rates = Mapping[tuple[str, str, str], Rate]
"""Rates by (region, architecture, capacity), capacity being FARGATE_SPOT or FARGATE."""


def seconds_between(start: datetime, end: datetime) -> Decimal:
    """Seconds from start to end, never below zero: ECS's times may be out of order."""
    return max(Decimal(0), Decimal(str((end - start).total_seconds())))


def cost_usd(rate: Rate, seconds: Decimal, cpu_units: int, memory_mib: int) -> Decimal:
    """Cost in USD of `seconds` of a task of `cpu_units` (1/1024 vCPU) and `memory_mib` MiB."""
    billed_hours = max(seconds, MINIMUM_SECONDS) / _SECONDS_PER_HOUR
    per_hour = (
        rate.vcpu_hour_usd * Decimal(cpu_units) / 1024
        + rate.gb_hour_usd * Decimal(memory_mib) / 1024
    )
    return (per_hour * billed_hours).quantize(SMALLEST, ROUND_HALF_EVEN)
