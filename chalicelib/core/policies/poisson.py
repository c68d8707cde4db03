"""The exact confidence interval of a rate of events, for interruptions per Spot hour.

Garwood 1936, "Fiducial limits for the Poisson distribution": the limits are quantiles of gamma
distributions, found here by bisection on the Poisson distribution itself.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from math import exp, lgamma, log, sqrt
from typing import Final

CONFIDENCE: Final = 0.95

_STEPS: Final = 80
_NEGLIGIBLE: Final = 1e-17


@dataclass(frozen=True, slots=True)
class RatePerHour:
    """Events per hour: `low` and `high` enclose the true rate with 95 % confidence."""

    events: int
    hours: float
    low: float
    high: float

    @property
    def observed(self) -> float:
        """Events divided by hours."""
        return self.events / self.hours


def rate_per_hour(events: int, hours: Decimal) -> RatePerHour | None:
    """Return the rate with its exact interval; None without a single hour's fraction seen."""
    if hours <= 0:
        return None
    low, high = garwood(events)
    return RatePerHour(events, float(hours), low / float(hours), high / float(hours))


def garwood(events: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the limits of a Poisson mean of which `events` were counted."""
    tail = (1 - confidence) / 2
    furthest = events + 20 * sqrt(events + 1) + 20
    low = 0.0
    if events > 0:
        low = _where(lambda mean: _at_least(events, mean) < tail, 0.0, float(events))
    return low, _where(lambda mean: _at_most(events, mean) > tail, float(events), furthest)


def _where(is_below: Callable[[float], bool], low: float, high: float) -> float:
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def _at_most(events: int, mean: float) -> float:
    """P(X <= events), for a mean above `events`: the terms fall towards zero."""
    term = sum_ = _probability(events, mean)
    for number in range(events, 0, -1):
        term *= number / mean
        sum_ += term
        if term < _NEGLIGIBLE * sum_:
            break
    return sum_


def _at_least(events: int, mean: float) -> float:
    """P(X >= events), for a mean below `events`: the terms fall from the first on."""
    term = sum_ = _probability(events, mean)
    number = events
    while term > _NEGLIGIBLE * sum_:
        number += 1
        term *= mean / number
        sum_ += term
    return sum_


def _probability(events: int, mean: float) -> float:
    if mean == 0:
        return float(events == 0)
    return exp(events * log(mean) - mean - lgamma(events + 1))
