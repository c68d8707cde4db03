"""What a user's own records say to the policies: not the truth, but a past of stated length.

A past of the same pool is played: first attempts for so many hours on Spot, and so many completed
runs. What is known of them, and of the run itself, is read by the product's own functions, out of
what ECS and Prefect would show.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from random import Random
from typing import Final
from uuid import NAMESPACE_URL, uuid5

from chalicelib.core.model.ecs_task import FARGATE, FARGATE_SPOT
from chalicelib.core.model.flow_run import CompletedRun, StateType, TaskRun
from chalicelib.core.policies import facts as product
from chalicelib.core.policies.facts import (
    Missing,
    PolicyFacts,
    PreviousRuns,
    SpotEvidence,
    facts_of,
    previous_runs_of,
    progress_of,
    reference_run,
    restart_overhead_of,
)
from lab.simulation.sky import HOUR, Pattern, Sky, skies
from lab.simulation.work import Attempt, Platform, Work, attempt, moment

BUDGET_OF_THE_PAST: Final = 3

AT_ONCE: Final = 5
"""Runs of the pool that were on Spot at a time, so that a burst in the past hit several."""

SPREAD: Final = 0.1
"""A run's work varies by so much about its deployment's: the sigma of a lognormal distribution."""


def varied(work: Work, random: Random, factor: float = 1.0) -> Work:
    """Return the work of one run of a deployment whose work is `work` on average."""
    seconds = work.seconds * factor * random.lognormvariate(-SPREAD * SPREAD / 2, SPREAD)
    return Work(seconds, work.tasks)


@dataclass(frozen=True, slots=True)
class Knowledge:
    """How much of a past there is, and how wrong it is.

    `spot_hours`: of first attempts on Spot; `runs`: completed ones that Prefect still shows. The
    factors are what the interruptions of the past, or its work, were to those of today.
    """

    spot_hours: float = 100.0
    runs: int = 20
    rate_factor: float = 1.0
    work_factor: float = 1.0


@dataclass(frozen=True)
class Memory:
    """One pool's past, as ECS and Prefect have it."""

    evidence: SpotEvidence
    completed: tuple[CompletedRun, ...]
    tasks_of_newest: tuple[TaskRun, ...]

    @cached_property
    def past(self) -> PreviousRuns | Missing:
        """What the deployment's completed runs show."""
        return previous_runs_of(self.completed, self.tasks_of_newest)

    @cached_property
    def before_start(self) -> PolicyFacts | Missing:
        """What is known of a run that has not begun."""
        overhead = restart_overhead_of((), self.past)
        return facts_of(self.past, progress_of((), ()), overhead, self.evidence)

    def facts(
        self, work: Work, attempts: Sequence[Attempt], platform: Platform
    ) -> PolicyFacts | Missing:
        """Return what is known when the last of `attempts` has been interrupted.

        The run's first attempt is evidence too: its bill, or the event itself, shows it.
        """
        first, own = attempts[0], _that_ran(attempts, platform)
        hours = self.evidence.hours + (first.ended_at - first.pulled_at) / HOUR
        return facts_of(
            evidence=SpotEvidence(hours, self.evidence.interruptions + 1),
            past=self.past,
            progress=progress_of(own, task_runs(work, attempts, platform)),
            restart_overhead=restart_overhead_of(own, self.past),
        )


def _that_ran(attempts: Sequence[Attempt], platform: Platform) -> list[product.Attempt]:
    """Return the attempts as the product reads them off the record and Prefect's history."""
    return [
        product.Attempt(moment(a.due_at), moment(a.pulled_at), moment(began), moment(a.ended_at))
        for a in attempts
        if (began := a.due_at + platform.changeover_seconds) < a.ended_at
    ]


def memory_of(
    work: Work,
    knowledge: Knowledge,
    pattern: Pattern,
    rate_per_hour: float,
    random: Random,
    platform: Platform,
) -> Memory:
    """Play the past of a pool whose runs are like `work`, under that rate of interruptions."""
    rate_per_hour *= knowledge.rate_factor

    def past_skies(number: int) -> list[Sky]:
        sources = [Random(random.random()) for _ in range(number)]
        sky = skies(pattern, rate_per_hour, random)
        return [sky(source) for source in sources]

    shown: list[CompletedRun] = []
    tasks: dict[str, tuple[TaskRun, ...]] = {}
    for number in range(knowledge.runs):
        run = varied(work, random, knowledge.work_factor)
        attempts = _to_the_end(run, past_skies(1)[0], platform)
        completed = _completed(f"past-{number}", attempts, platform)
        shown.append(completed)
        tasks[str(completed.id)] = task_runs(run, attempts, platform)
    newest = reference_run(shown)
    lanes = [(random.random() * work.seconds, sky) for sky in past_skies(AT_ONCE)]
    return Memory(
        _first_attempts(lanes, work, knowledge.spot_hours, random),
        tuple(shown),
        tasks[str(newest.id)] if newest else (),
    )


def task_runs(work: Work, attempts: Sequence[Attempt], platform: Platform) -> tuple[TaskRun, ...]:
    """Return the task runs that Prefect would show for a run's attempts.

    Without persistence the work is one task run, whose result is stored nowhere.
    """
    kept = work.tasks > 1
    shown: list[TaskRun] = []
    before = 0
    for tried in attempts:
        at = tried.due_at + platform.changeover_seconds
        if at >= tried.ended_at:
            continue  # interrupted before the flow ran
        found = moment(at)
        shown += [TaskRun(StateType.COMPLETED, found, True, found, True)] * before
        for _ in range(tried.done - before):
            end = at + work.task_seconds
            shown.append(TaskRun(StateType.COMPLETED, moment(at), kept, moment(end)))
            at = end
        if tried.is_interrupted:
            shown.append(TaskRun(StateType.RUNNING, moment(at), False))
        before = tried.done
    return tuple(shown)


def _first_attempts(
    lanes: list[tuple[float, Sky]], work: Work, spot_hours: float, random: Random
) -> SpotEvidence:
    """Play runs' first attempts, one per lane at a time, for so many hours on Spot.

    The next one comes some time after the one before would have ended undisturbed.
    """
    left, interruptions = spot_hours * HOUR, 0
    while left > 0:
        at, sky = lanes.pop(0)
        lasts = sky.interruption_after(at) - at
        seconds = min(work.seconds, left)
        interruptions += int(lasts < seconds)
        left -= min(lasts, seconds)
        lanes.append((at + work.seconds * (1 + random.random()), sky))
    return SpotEvidence(spot_hours, interruptions)


def _to_the_end(work: Work, sky: Sky, platform: Platform) -> list[Attempt]:
    """Play a run of the past: the budget on Spot, then on demand."""
    attempts: list[Attempt] = []
    done, at = 0, 0.0
    while not attempts or attempts[-1].is_interrupted:
        on_spot = len(attempts) <= BUDGET_OF_THE_PAST
        taken = sky.interruption_after(at + platform.unbilled_seconds) if on_spot else inf
        capacity = FARGATE_SPOT if on_spot else FARGATE
        attempts.append(attempt(work, done, capacity, at, taken, platform))
        done, at = attempts[-1].done, attempts[-1].ended_at
    return attempts


def _completed(name: str, attempts: Sequence[Attempt], platform: Platform) -> CompletedRun:
    """Return a run of the past as Prefect shows it: how long it ran in all, in how many starts."""
    begun = [(tried.due_at + platform.changeover_seconds, tried.ended_at) for tried in attempts]
    ran = [(start, end) for start, end in begun if start < end]
    return CompletedRun(
        id=uuid5(NAMESPACE_URL, name),
        run_count=len(ran),
        run_seconds=sum(end - start for start, end in ran),
        started_at=moment(ran[0][0]),
        ended_at=moment(ran[-1][1]),
        expected_start=moment(attempts[0].due_at),
    )
