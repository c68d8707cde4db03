"""The events of one pool under one policy, in the order of time: a run is due, an attempt ends.

What the policy decides is the product's; what the sky does was drawn before, and is the same for
every policy.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush
from math import inf

from chalicelib.core.guards.breaker import ProbeSeen
from chalicelib.core.guards.facts import GuardFacts
from chalicelib.core.situation import Situation
from chalicelib.core.task import FARGATE_SPOT
from simulation.barometer import Barometer
from simulation.contenders import Contender
from simulation.foresight import Assignment, Outcome, swept_after
from simulation.memory import Memory
from simulation.product import Run, run_under
from simulation.work import Attempt, Platform, attempt


@dataclass(slots=True)
class _Course:
    """A run on its way."""

    run: Assignment
    product: Run
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def done(self) -> int:
        return self.attempts[-1].done if self.attempts else 0

    def outcome(self) -> Outcome:
        on_spot = [tried for tried in self.attempts if tried.capacity == FARGATE_SPOT]
        return Outcome(
            usd=sum(tried.usd for tried in self.attempts),
            seconds=self.attempts[-1].ended_at - self.run.at,
            spot_usd=sum(tried.usd for tried in on_spot),
            interruptions=sum(tried.is_interrupted for tried in self.attempts),
        )


def play(
    runs: Sequence[Assignment], contender: Contender, memory: Memory, platform: Platform
) -> tuple[Outcome, ...]:
    """Play a pool's runs to their ends; return what became of each, in the order of `runs`."""
    barometer: Barometer | None = None
    if contender.policy.guards.breaker is not None:
        barometer = Barometer(
            contender.policy.guards.breaker, lambda run, at: _seen(by_id[run], at)
        )
    signal = barometer.signal if barometer else None
    courses = [
        _Course(
            run, run_under(contender.policy, f"run-{i}", run.at, contender.tags(run.work), signal)
        )
        for i, run in enumerate(runs)
    ]
    by_id = {course.product.id: course for course in courses}
    for course in courses:
        course.product.before_start(memory.before_start)
    events = [(run.at, i, False) for i, run in enumerate(runs)]
    heapify(events)
    while events:
        at, i, ended = heappop(events)
        if barometer is not None:
            barometer.sweep_until(at)
        course = courses[i]
        if ended:
            heappush(events, (_answer(course, memory, platform, barometer), i, False))
        elif (tried := _place(course, at, platform)).is_interrupted:
            heappush(events, (tried.ended_at, i, True))
    return tuple(course.outcome() for course in courses)


def _place(course: _Course, due_at: float, platform: Platform) -> Attempt:
    """Start the run's next attempt where its variables say; a refusal is answered at once."""
    run, product = course.run, course.product
    placed_at = due_at + platform.unbilled_seconds
    if product.capacity == FARGATE_SPOT and not run.sky.has_capacity(placed_at):
        refused_at = due_at + platform.refusal_seconds
        due_at = product.refused(due_at, refused_at, swept_after(refused_at))
        placed_at = due_at + platform.unbilled_seconds
    on_spot = product.capacity == FARGATE_SPOT
    taken = run.sky.interruption_after(placed_at) if on_spot else inf
    tried = attempt(run.work, course.done, product.capacity, due_at, taken, platform)
    course.attempts.append(tried)
    product.started(due_at, min(due_at + platform.changeover_seconds, tried.ended_at))
    return tried


def _seen(course: _Course, at: float) -> tuple[ProbeSeen, float]:
    """Return what a look at a probe finds, and for how long it has lived on Spot."""
    last = course.attempts[-1]
    if last.capacity != FARGATE_SPOT:
        return ProbeSeen.TELLS_NOTHING, 0.0
    if last.pulled_at > at or (last.is_interrupted and last.ended_at <= at):
        return ProbeSeen.NOT_YET, 0.0
    if last.ended_at <= at:
        return ProbeSeen.ENDED, 0.0
    return ProbeSeen.LIVES, at - last.pulled_at


def _answer(
    course: _Course, memory: Memory, platform: Platform, barometer: Barometer | None
) -> float:
    def facts(s: Situation) -> GuardFacts:
        known = memory.facts(s, course.run.work, course.attempts, platform)
        return replace(known, weather=barometer.ask(s) if barometer else None)

    return course.product.interrupted(course.attempts[-1], facts)
