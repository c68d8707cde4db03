"""What a user's own records would tell the guards: not the truth, but a past of stated length.

A past of the same pool is played for it: so many hours on Spot with their interruptions, and so
many completed runs with the times that Prefect would show for them.
"""

from dataclasses import dataclass
from math import inf
from random import Random
from typing import Final

from chalicelib.core.guards.facts import Changeover, GuardFacts, PastRuns, Progress, SpotEvidence
from chalicelib.core.task import FARGATE, FARGATE_SPOT
from simulation.sky import HOUR, Climate, Sky, Steady, Storms
from simulation.trace import Trace
from simulation.work import Attempt, Platform, Work, attempt

BUDGET_OF_THE_PAST: Final = 3
AT_ONCE: Final = 5
"""Runs of the pool that were on Spot at a time, so that a storm in the past hit several."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """How much of a past there is, and how wrong it is.

    `spot_hours`: observed on Spot; `runs`: completed ones that Prefect still shows. The factors are
    what the interruptions of the past, or its work, were to those of today.
    """

    spot_hours: float = 100.0
    runs: int = 20
    rate_factor: float = 1.0
    work_factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Memory:
    """One pool's past, as the product would gather it."""

    evidence: SpotEvidence
    past: PastRuns | None

    def facts(self, work: Work, attempts: list[Attempt], platform: Platform) -> GuardFacts:
        """Return what is known when the last of `attempts` has been interrupted.

        Those before it have been billed, so they are evidence too.
        """
        earlier = [tried for tried in attempts[:-1] if tried.capacity == FARGATE_SPOT]
        hours = sum(tried.ended_at - tried.pulled_at for tried in earlier) / HOUR
        evidence = SpotEvidence(
            self.evidence.hours + hours, self.evidence.interruptions + len(earlier)
        )
        return GuardFacts(
            evidence=evidence,
            past=self.past,
            progress=progress_of(work, attempts, platform),
            changeover=Changeover(platform.changeover_seconds, platform.billed_start_seconds),
        )


def progress_of(work: Work, attempts: list[Attempt], platform: Platform) -> Progress:
    """Return how far a run has come, as its task runs in Prefect tell."""
    worked = [_worked(tried, platform) for tried in attempts]
    if work.tasks == 1:
        return Progress(longest_seconds=max(worked, default=0.0))
    done = attempts[-1].done if attempts else 0
    before = attempts[-2].done if len(attempts) > 1 else 0
    begun = worked[-1] - (done - before) * work.task_seconds if worked else 0.0
    return Progress(
        kept_seconds=done * work.task_seconds,
        longest_seconds=max(worked, default=0.0),
        piece_seconds=(*[work.task_seconds] * done, max(0.0, begun)),
    )


def memory_of(
    work: Work, knowledge: Knowledge, past: "PastSky", random: Random, platform: Platform
) -> Memory:
    """Play the past of a pool whose runs are like `work`."""
    factor = knowledge.work_factor
    runs = [varied(work, random, factor) for _ in range(knowledge.runs)]
    shown = [_shown(run, past.run_sky(random), platform) for run in runs]
    undisturbed = [seconds for seconds, was_interrupted in shown if not was_interrupted]
    pieces = (runs[0].task_seconds,) * runs[0].tasks if runs and work.tasks > 1 else ()
    return Memory(
        SpotEvidence(knowledge.spot_hours, past.interruptions_in(knowledge.spot_hours, random)),
        PastRuns(
            work_seconds=tuple(undisturbed or [seconds for seconds, _ in shown]),
            piece_seconds=pieces,
            start_seconds=(platform.changeover_seconds,) * len(runs),
        )
        if runs
        else None,
    )


@dataclass(frozen=True, slots=True)
class PastSky:
    """What Spot was like: a steady rate, storms around it, or a trace."""

    rate_per_hour: float
    climate: Climate | None = None
    trace: Trace | None = None

    def run_sky(self, random: Random) -> Sky:
        """Return a sky for one completed run; those of the past are far apart."""
        return Steady(self.rate_per_hour, random)

    def interruptions_in(self, spot_hours: float, random: Random) -> int:
        """Count what several runs at once met in so many hours on Spot, taken together."""
        clock = spot_hours * HOUR / AT_ONCE
        if self.trace is not None:
            begins_at = random.random() * self.trace.span_seconds
            return AT_ONCE * _ends_within(self.trace, begins_at, clock)
        mean = spot_hours * self.rate_per_hour
        if self.climate is not None:
            mean = AT_ONCE * Storms(self.rate_per_hour, self.climate, random).hazard_at(clock)
        return _poisson(mean, random)


SPREAD: Final = 0.1
"""A run's work varies by so much about its deployment's: the sigma of a lognormal distribution."""


def varied(work: Work, random: Random, factor: float = 1.0) -> Work:
    """Return the work of one run of a deployment whose work is `work` on average."""
    seconds = work.seconds * factor * random.lognormvariate(-SPREAD * SPREAD / 2, SPREAD)
    return Work(seconds, work.tasks)


def _shown(work: Work, sky: Sky, platform: Platform) -> tuple[float, bool]:
    """Seconds that Prefect shows a completed run to have run, and whether it was interrupted."""
    done, at, shown = 0, 0.0, 0.0
    for number in range(BUDGET_OF_THE_PAST + 2):
        on_spot = number <= BUDGET_OF_THE_PAST
        capacity = FARGATE_SPOT if on_spot else FARGATE
        taken = sky.interruption_after(at + platform.unbilled_seconds) if on_spot else inf
        tried = attempt(work, done, capacity, at, taken, platform)
        shown += _worked(tried, platform)
        done, at = tried.done, tried.ended_at
        if not tried.is_interrupted:
            return shown, number > 0
    raise AssertionError("an attempt on demand is not interrupted")


def _worked(tried: Attempt, platform: Platform) -> float:
    begins_at = tried.due_at + platform.changeover_seconds
    return max(0.0, tried.ended_at - begins_at)


def _ends_within(trace: Trace, begins_at: float, seconds: float) -> int:
    """Ends of availability within so many seconds of availability."""
    ends, at = 0, begins_at
    while seconds > 0:
        end = trace.end_after(at)
        start = max(at, end - _length_of_pair_at(trace, end))
        seconds -= end - start
        ends += int(seconds >= 0)
        at = end
    return ends


def _length_of_pair_at(trace: Trace, end: float) -> float:
    place = end % trace.span_seconds or trace.span_seconds
    return next(two - one for one, two in trace.pairs if abs(two - place) < 1e-6)


def _poisson(mean: float, random: Random) -> int:
    """Count the arrivals of a process of rate one within `mean`."""
    count, at = 0, random.expovariate(1.0)
    while at < mean:
        count, at = count + 1, at + random.expovariate(1.0)
    return count
