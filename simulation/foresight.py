"""What needs no decision, and what knows the future: on demand, Spot for ever, and the optimum.

All three are one row: what the run costs if it leaves Spot before its attempt 0, 1, 2, …
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Final

from chalicelib.core.task import FARGATE, FARGATE_SPOT
from simulation.sky import Sky
from simulation.work import Platform, Work, attempt

MOST_ATTEMPTS: Final = 1001
"""Spot for ever ends here: one attempt more than the interruptions that SPOT_RETRIES takes."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run: USD, those of them for Spot, seconds from its scheduled start."""

    usd: float
    seconds: float
    spot_usd: float
    interruptions: int


@dataclass(frozen=True, slots=True)
class Assignment:
    """A run to be played: due at `at` on its pool's clock, under its own sky."""

    work: Work
    sky: Sky
    at: float


def leaving_before(run: Assignment, platform: Platform) -> Iterator[Outcome]:
    """Yield what comes of leaving Spot before attempt 0, 1, 2, …; the last one never leaves."""
    usd, done, at = 0.0, 0, run.at
    for number in range(MOST_ATTEMPTS):
        yield _on_demand(run, done, at, usd, number, platform)
        interruption = run.sky.interruption_after(at + platform.unbilled_seconds)
        tried = attempt(run.work, done, FARGATE_SPOT, at, interruption, platform)
        usd, done, at = usd + tried.usd, tried.done, tried.ended_at
        if not tried.is_interrupted:
            yield Outcome(usd, at - run.at, usd, number)
            return
    yield _on_demand(run, done, at, usd, MOST_ATTEMPTS, platform)


def on_demand(run: Assignment, platform: Platform) -> Outcome:
    """The run that never was on Spot."""
    return next(leaving_before(run, platform))


def for_ever(run: Assignment, platform: Platform) -> Outcome:
    """The run that leaves Spot only after 1001 interruptions."""
    *_, last = leaving_before(run, platform)
    return last


def optimum(run: Assignment, platform: Platform, deadline_seconds: float = inf) -> Outcome:
    """Return the cheapest way, of all, to finish; with a deadline, of those that meet it.

    Exact: what has been spent on Spot only grows, so once it is above the best, nothing later is
    better. Where nothing meets the deadline, the fastest.
    """
    best: Outcome | None = None
    fastest: Outcome | None = None
    for outcome in leaving_before(run, platform):
        if best is not None and outcome.spot_usd > best.usd:
            return best
        if outcome.seconds <= deadline_seconds and (best is None or outcome.usd < best.usd):
            best = outcome
        if fastest is None or outcome.seconds < fastest.seconds:
            fastest = outcome
    return best or fastest or on_demand(run, platform)


def _on_demand(
    run: Assignment, done: int, at: float, usd: float, number: int, platform: Platform
) -> Outcome:
    last = attempt(run.work, done, FARGATE, at, 0.0, platform)
    return Outcome(usd + last.usd, last.ended_at - run.at, usd, number)
