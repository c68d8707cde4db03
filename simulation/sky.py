"""When Spot takes a task back, and when it has none to give: one sky for all policies.

Interruptions are drawn on the clock, for each run, and not after each start. So all policies meet
the same ones (common random numbers), and what differs between two of them is the policy. Where the
times are Poisson's this is the same law: what is left of an exponential wait is exponential.
"""

from bisect import bisect_right
from dataclasses import dataclass
from random import Random
from typing import Final, Protocol

from simulation.trace import Trace

HOUR: Final = 3600.0


class Sky(Protocol):
    """What one run meets on Spot. Times are seconds on the clock of its pool."""

    def interruption_after(self, at: float) -> float:
        """Return when a task that is on Spot at `at` will be interrupted."""

    def has_capacity(self, at: float) -> bool:
        """Whether RunTask gets a Spot task at that moment."""


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

    def has_capacity(self, at: float) -> bool:  # noqa: ARG002  # a Sky
        """There is always room."""
        return True


@dataclass(frozen=True, slots=True)
class Climate:
    """How storms come: how long, how much of the time, and how much of the interruptions."""

    storm_hours: float = 0.5
    share_of_time: float = 0.1
    share_of_interruptions: float = 0.8

    def rate_in(self, *, storm: bool, mean_rate: float) -> float:
        """The rate in a storm or in calm weather, such that over time it is `mean_rate`."""
        if storm:
            return mean_rate * self.share_of_interruptions / self.share_of_time
        return mean_rate * (1 - self.share_of_interruptions) / (1 - self.share_of_time)

    @property
    def calm_hours(self) -> float:
        """How long the weather is calm, on average."""
        return self.storm_hours * (1 - self.share_of_time) / self.share_of_time


class Storms:
    """Calm and storm by turns, for all runs of a pool: a Markov-modulated Poisson process.

    Kept as the integral of the rate over time, at each change of the weather: that turns a
    process of rate one into interruptions (`clock_at`).
    """

    def __init__(self, rate_per_hour: float, climate: Climate, random: Random) -> None:
        self._climate: Final = climate
        self._random: Final = random
        self._rates: Final = {
            storm: climate.rate_in(storm=storm, mean_rate=rate_per_hour) / HOUR
            for storm in (True, False)
        }
        self._begins_stormy: Final = random.random() < climate.share_of_time
        self._changes: Final[list[float]] = [0.0]
        self._hazards: Final[list[float]] = [0.0]

    def hazard_at(self, clock: float) -> float:
        """Return the integral of the rate from the beginning up to that time."""
        while self._changes[-1] <= clock:
            self._go_on()
        i = bisect_right(self._changes, clock) - 1
        return self._hazards[i] + (clock - self._changes[i]) * self._rate_of(i)

    def clock_at(self, hazard: float) -> float:
        """Return the time at which the integral of the rate is that much."""
        while self._hazards[-1] <= hazard:
            self._go_on()
        i = bisect_right(self._hazards, hazard) - 1
        return self._changes[i] + (hazard - self._hazards[i]) / self._rate_of(i)

    def _go_on(self) -> None:
        last = len(self._changes) - 1
        hours = self._climate.storm_hours if self._is_stormy(last) else self._climate.calm_hours
        seconds = self._random.expovariate(1 / (hours * HOUR))
        self._changes.append(self._changes[-1] + seconds)
        self._hazards.append(self._hazards[-1] + seconds * self._rate_of(last))

    def _is_stormy(self, i: int) -> bool:
        return self._begins_stormy ^ bool(i % 2)

    def _rate_of(self, i: int) -> float:
        return self._rates[self._is_stormy(i)]


class Stormy:
    """One run in its pool's storms: given the weather, independent of the other runs."""

    def __init__(self, storms: Storms, random: Random) -> None:
        self._storms: Final = storms
        self._unit: Final = Steady(HOUR, random)

    def interruption_after(self, at: float) -> float:
        """Return the first interruption after `at`, found on the scale of the storms' hazard."""
        return self._storms.clock_at(self._unit.interruption_after(self._storms.hazard_at(at)))

    def has_capacity(self, at: float) -> bool:  # noqa: ARG002  # a Sky
        """There is always room: a storm takes tasks, but refuses none."""
        return True


@dataclass(frozen=True, slots=True)
class Traced:
    """A recorded sky: every run of the pool is interrupted when the trace says that Spot ends."""

    trace: Trace
    begins_at: float

    def interruption_after(self, at: float) -> float:
        """Return the end of the trace's present pair."""
        return self.trace.end_after(at + self.begins_at) - self.begins_at

    def has_capacity(self, at: float) -> bool:
        """Whether the trace is within a pair."""
        return self.trace.has_capacity(at + self.begins_at)
