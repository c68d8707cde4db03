"""The contest: every policy in every cell of the grid, on the same runs under the same skies.

A cell is a length of work, a rate and a pattern of interruptions, and whether tasks are kept.
Everything drawn depends on seed, cell and pool alone, so any number of processes gives the same.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from math import ceil
from multiprocessing import get_context
from random import Random
from statistics import fmean
from typing import Final

from chalicelib.core.model.policy import AUTO, DEADLINE_TAG, SpotRetries
from lab.simulation.estimates import ratio
from lab.simulation.memory import Knowledge, Memory, memory_of, varied
from lab.simulation.play import (
    Assignment,
    Outcome,
    Rule,
    by_budget,
    by_rule,
    leaving_before,
    optimum,
)
from lab.simulation.sky import HOUR, Pattern, skies
from lab.simulation.work import Platform, Work

RUNS_PER_POOL: Final = 8
KEPT_TASKS: Final = 8
"""In how many tasks the work is cut where results are persisted."""

BUDGETS: Final = (0, 1, 2, 3, 5, 10, 20)
BASELINE: Final = "budget 3"
ON_DEMAND: Final = "on demand"
OPTIMUM: Final = "optimum"
AS_TODAY: Final = "auto"

DEADLINES: Final = {False: (1.5, 2.5, 3.0, 4.0), True: (1.3, 1.6, 2.0)}
"""By whether tasks are kept: deadlines as multiples of the run's own work."""
POOLS_WITH_DEADLINES: Final = 30
"""As many of a cell's pools are played under deadlines as well."""

KNOWLEDGE: Final = {
    AS_TODAY: Knowledge(),
    "no history": Knowledge(spot_hours=0, runs=0),
    "5x the interruptions": Knowledge(rate_factor=5),
    "half the work": Knowledge(work_factor=0.5),
}
"""What `auto` is judged with: a past like today, none, and two that are wrong."""


MOST_ABOVE: Final = 1.02
"""What `auto` may cost of what the budget of 3 does."""
NEAR: Final = 6

TAGGED: Final[dict[str, SpotRetries]] = {"tag, auto": AUTO, "tag, 3": 3}
"""The deadline tag with either budget."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of the grid. `tasks` 1: nothing is persisted, a rerun does everything again."""

    pattern: Pattern
    rate_per_hour: float
    hours: float
    tasks: int

    @property
    def is_persisted(self) -> bool:
        """Whether a rerun finds tasks done."""
        return self.tasks > 1

    @property
    def interruptions_expected(self) -> float:
        """How many times Spot takes a task in as long as the work lasts."""
        return self.rate_per_hour * self.hours

    def __str__(self) -> str:
        kept = f"{self.tasks} tasks kept" if self.is_persisted else "not persisted"
        return f"{self.hours:.3g} h, {self.rate_per_hour:.3g}/h, {self.pattern}, {kept}"


@dataclass(frozen=True, slots=True)
class Tally:
    """What a pool's runs came to under one policy: means; and `misses`, runs that were late."""

    runs: int
    usd: float
    hours: float
    misses: int = 0


Pool = dict[str, Tally]
"""By the policy's name."""


def in_time(name: str, factor: float) -> str:
    """Name a policy under a deadline."""
    return f"{name}, deadline {factor:g}x work"


@dataclass(frozen=True, slots=True)
class Contest:
    """A grid, and how it is played. `runs`: in each cell, rounded up to whole pools."""

    platform: Platform
    runs: int
    seed: int
    hours: tuple[float, ...] = (1 / 6, 0.5, 1, 2, 4, 8)
    rates_per_hour: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1, 2)
    patterns: tuple[Pattern, ...] = tuple(Pattern)

    def cells(self) -> list[Cell]:
        """Return all cells."""
        factors = product(self.patterns, (1, KEPT_TASKS), self.hours, self.rates_per_hour)
        return [Cell(pattern, rate, hours, tasks) for pattern, tasks, hours, rate in factors]

    @property
    def pools(self) -> int:
        """Pools in each cell: two at least, or there is no interval."""
        return max(2, -(-self.runs // RUNS_PER_POOL))

    def play_pool(self, cell: Cell, number: int) -> Pool:
        """Play one pool of a cell under every policy."""
        runs = self._runs(cell, f"{self.seed}/{cell}/{number}")
        ways = [list(leaving_before(run, self.platform)) for run in runs]
        pool = {f"budget {n}": _tally([by_budget(way, n) for way in ways]) for n in BUDGETS}
        pool[ON_DEMAND] = _tally([way[0] for way in ways])
        pool[OPTIMUM] = _tally([optimum(way) for way in ways])
        for name, knowledge in KNOWLEDGE.items():
            memory = self._memory(cell, knowledge, number)
            pool[name] = _tally([by_rule(r, Rule(AUTO), memory, self.platform) for r in runs])
        if number < POOLS_WITH_DEADLINES:
            memory = self._memory(cell, KNOWLEDGE[AS_TODAY], number)
            for factor in DEADLINES[cell.is_persisted]:
                pool |= self._under_deadline(factor, runs, ways, memory)
        return pool

    def _under_deadline(
        self,
        factor: float,
        runs: Sequence[Assignment],
        ways: Sequence[Sequence[Outcome]],
        memory: Memory,
    ) -> Pool:
        """Play the tag with each budget, the budget of 3 alone, and what could be done."""
        minutes = [ceil(run.work.seconds * factor / 60) for run in runs]
        seconds = [60 * each for each in minutes]
        tags = [f"{DEADLINE_TAG}{each}m" for each in minutes]
        decided = {
            BASELINE: [by_budget(way, 3) for way in ways],
            OPTIMUM: [optimum(way, s) for way, s in zip(ways, seconds, strict=True)],
        }
        for name, budget in TAGGED.items():
            rules = [Rule(budget, tag) for tag in tags]
            decided[name] = [
                by_rule(run, rule, memory, self.platform)
                for run, rule in zip(runs, rules, strict=True)
            ]
        return {in_time(name, factor): _tally(each, seconds) for name, each in decided.items()}

    def _runs(self, cell: Cell, name: str) -> list[Assignment]:
        """Runs that begin within twice their work, and share their bursts."""
        sky = skies(cell.pattern, cell.rate_per_hour, Random(f"{name}/shared"))
        runs = []
        for i in range(RUNS_PER_POOL):
            random = Random(f"{name}/{i}")
            work = varied(Work(cell.hours * HOUR, cell.tasks), random)
            at = random.random() * 2 * cell.hours * HOUR
            runs.append(Assignment(work, sky(Random(f"{name}/{i}/sky")), at))
        return runs

    def _memory(self, cell: Cell, knowledge: Knowledge, number: int) -> Memory:
        random = Random(f"{self.seed}/{cell}/{number}/{knowledge}")
        work = Work(cell.hours * HOUR, cell.tasks)
        return memory_of(work, knowledge, cell.pattern, cell.rate_per_hour, random, self.platform)


def play_all(
    contest: Contest, processes: int, log: Callable[[str], None]
) -> dict[Cell, list[Pool]]:
    """Play every cell, a pool at a time, in so many processes; `log` gets the progress.

    A cell where `auto` may cost over `MOST_ABOVE` is played on, to `NEAR` times as many runs.
    """
    found: dict[Cell, list[Pool]] = {cell: [] for cell in contest.cells()}
    # Not forked: the caller may have threads, which a fork leaves behind with their locks.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as workers:

        def play(cells: Sequence[Cell], pools: range) -> None:
            jobs = [(cell, number) for cell in cells for number in pools]
            played = workers.map(contest.play_pool, *zip(*jobs, strict=True), chunksize=4)
            for count, ((cell, number), pool) in enumerate(zip(jobs, played, strict=True), start=1):
                found[cell].append(pool)
                if number == pools[-1]:
                    log(f"{count * 100 // len(jobs):3} %  {cell}")

        play(list(found), range(contest.pools))
        if near := [cell for cell, pools in found.items() if _is_near(pools)]:
            log(f"{len(near)} cells again, {NEAR} times as long: auto may cost over {MOST_ABOVE}")
            play(near, range(contest.pools, NEAR * contest.pools))
    return found


def _is_near(pools: Sequence[Pool]) -> bool:
    """Whether the upper end of the interval is above."""
    pairs = [(pool[AS_TODAY].usd, pool[BASELINE].usd) for pool in pools]
    return ratio(*zip(*pairs, strict=True)).high > MOST_ABOVE


def _tally(outcomes: Sequence[Outcome], deadlines_seconds: Sequence[float] = ()) -> Tally:
    late = zip(outcomes, deadlines_seconds, strict=False)
    return Tally(
        runs=len(outcomes),
        usd=fmean(outcome.usd for outcome in outcomes),
        hours=fmean(outcome.seconds for outcome in outcomes) / HOUR,
        misses=sum(outcome.seconds > seconds for outcome, seconds in late),
    )
