"""When Spot interrupts a task: one sky for all policies.

Interruptions are drawn on the clock, for each run, and not after each start. So all policies meet
the same ones (common random numbers), and what differs between two of them is the policy. Where the
times are Poisson's this is the same law: what is left of an exponential wait is exponential.
"""

from bisect import bisect_right
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from random import Random
from typing import Final, Protocol

HOUR: Final = 3600.0


class Pattern(StrEnum):
    """How interruptions come."""

    INDEPENDENT = "independent"
    BURSTS = "bursts"


class Sky(Protocol):
    """What one run meets on Spot. Times are seconds on the clock of its pool."""

    def interruption_after(self, at: float) -> float:
        """Return when a task that is on Spot at `at` will be interrupted."""


class Steady:
    """Interruptions at a constant rate, independent of one another and of other runs."""

    def __init__(self, rate_per_hour: float, random: Random) -> None:
        self._rate_per_second: Final = rate_per_hour / HOUR
        self._random: Final = random
        self._times: Final[list[float]] = [0.0]

    def interruption_after(self, at: float) -> float:
        """Return the first time of the process after `at`."""
        while self._times[-1] <= at:
            self._times.append(self._times[-1] + self._random.expovariate(self._rate_per_second))
        return self._times[bisect_right(self._times, at)]


BURST_HOURS: Final = 0.5
SHARE_OF_TIME: Final = 0.1
SHARE_OF_INTERRUPTIONS: Final = 0.8
"""How bursts come: how long on average, how much of the time, how much of the interruptions."""

HOURS_BETWEEN: Final = BURST_HOURS * (1 - SHARE_OF_TIME) / SHARE_OF_TIME


class Bursts:
    """High rate and low by turns, for all runs of a pool: a Markov-modulated Poisson process.

    Kept as the integral of the rate over time, at each change between the two: that turns
    a process of rate one into interruptions (`clock_at`).
    """

    def __init__(self, rate_per_hour: float, random: Random) -> None:
        self._random: Final = random
        burst = rate_per_hour * SHARE_OF_INTERRUPTIONS / SHARE_OF_TIME
        between = rate_per_hour * (1 - SHARE_OF_INTERRUPTIONS) / (1 - SHARE_OF_TIME)
        turns = [(burst / HOUR, BURST_HOURS * HOUR), (between / HOUR, HOURS_BETWEEN * HOUR)]
        if random.random() >= SHARE_OF_TIME:
            turns.reverse()
        self._turns: Final = turns  # rate per second, and mean length in seconds
        self._changes: Final[list[float]] = [0.0]
        self._hazards: Final[list[float]] = [0.0]

    def hazard_at(self, clock: float) -> float:
        """Return the integral of the rate from the beginning up to that time."""
        i, rate = self._turn_at(self._changes, clock)
        return self._hazards[i] + (clock - self._changes[i]) * rate

    def clock_at(self, hazard: float) -> float:
        """Return the time at which the integral of the rate is that much."""
        i, rate = self._turn_at(self._hazards, hazard)
        return self._changes[i] + (hazard - self._hazards[i]) / rate

    def _turn_at(self, scale: list[float], place: float) -> tuple[int, float]:
        """Return the number and the rate of the turn in which a place on either scale is."""
        while scale[-1] <= place:
            rate, mean_seconds = self._turns[(len(scale) - 1) % 2]
            seconds = self._random.expovariate(1 / mean_seconds)
            self._changes.append(self._changes[-1] + seconds)
            self._hazards.append(self._hazards[-1] + seconds * rate)
        i = bisect_right(scale, place) - 1
        return i, self._turns[i % 2][0]


class Bursty:
    """One run in its pool's bursts: given these, independent of the other runs."""

    def __init__(self, bursts: Bursts, random: Random) -> None:
        self._bursts: Final = bursts
        self._unit: Final = Steady(HOUR, random)

    def interruption_after(self, at: float) -> float:
        """Return the first interruption after `at`, found on the scale of the bursts' hazard."""
        return self._bursts.clock_at(self._unit.interruption_after(self._bursts.hazard_at(at)))


def skies(pattern: Pattern, rate_per_hour: float, shared: Random) -> Callable[[Random], Sky]:
    """Return what makes the skies of a pool's runs, each from a random source of its own.

    Their bursts, if any, come from `shared`.
    """
    if pattern is Pattern.BURSTS:
        return partial(Bursty, Bursts(rate_per_hour, shared))
    return partial(Steady, rate_per_hour)
