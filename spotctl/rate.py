"""Interruptions per Spot hour, with their interval: counts are Poisson's."""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from math import exp, lgamma, log, sqrt
from typing import Final

from chalicelib.core.money.report import Counts

_STEPS: Final = 80
_NEGLIGIBLE: Final = 1e-17


@dataclass(frozen=True, slots=True)
class RatePerHour:
    """Events per hour, as `observed`; `low` and `high` enclose the true rate with 95 %."""

    events: int
    hours: float
    observed: float
    low: float
    high: float


def interruption_rate(counts: Counts) -> RatePerHour | None:
    """Return interruptions per Spot hour; None where no time was spent on Spot."""
    return rate_per_hour(counts.interruptions, counts.spot_hours)


def rate_per_hour(events: int, hours: Decimal) -> RatePerHour | None:
    """Return the rate with its exact interval; None without a single hour's fraction seen."""
    if hours <= 0:
        return None
    seen = float(hours)
    low, high = garwood(events)
    return RatePerHour(events, seen, events / seen, low / seen, high / seen)


@lru_cache
def garwood(events: int) -> tuple[float, float]:
    """Return the limits of a Poisson mean of which `events` were counted, 95 % sure."""
    tail = 0.025
    furthest = events + 20 * sqrt(events + 1) + 20
    low = 0.0
    if events > 0:
        low = _where(lambda mean: _tail(events, mean, up=True) < tail, 0.0, float(events))
    return low, _where(lambda mean: _tail(events, mean, up=False) > tail, float(events), furthest)


def _where(is_below: Callable[[float], bool], low: float, high: float) -> float:
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def _tail(events: int, mean: float, *, up: bool) -> float:
    """P(X >= events) for a mean below `events`, or P(X <= events) for one above: terms fall."""
    term = sum_ = _probability(events, mean)
    number = events
    while term > _NEGLIGIBLE * sum_:
        term *= mean / (number + 1) if up else number / mean
        number += 1 if up else -1
        sum_ += term
    return sum_


def _probability(events: int, mean: float) -> float:
    if mean == 0:
        return float(events == 0)
    return exp(events * log(mean) - mean - lgamma(events + 1))
