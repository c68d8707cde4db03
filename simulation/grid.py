"""The contest: every policy in every cell of the grid, on the same runs under the same skies.

A cell is a length of work, a rate and a pattern of interruptions, and whether tasks are kept.
Everything drawn depends on seed, cell and pool alone, so any number of processes gives the same.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from multiprocessing import get_context
from random import Random
from typing import Final

from simulation.contenders import (
    BASELINE,
    DEADLINES,
    OPTIMUM,
    Contender,
    contenders_of,
    in_time,
)
from simulation.foresight import Assignment, Outcome, for_ever, on_demand, optimum
from simulation.memory import Knowledge, Memory, PastSky, memory_of, varied
from simulation.play import play
from simulation.sky import HOUR, Bursts, Bursty, Climate, Sky, Steady
from simulation.work import Platform, Work

RUNS_PER_POOL: Final = 8
LEAST_POOLS: Final = 8
ON_DEMAND: Final = "on demand"
FOR_EVER: Final = "Spot for ever"
KEPT_TASKS: Final = 8
"""In how many tasks the work is cut where results are persisted."""

_SHARED: Final = bytes.fromhex("77656174686572").decode()
"""Part of the seed of what a pool's runs share. Under another name the bursts of a seed, and with
them the figures in `docs/guards.md`, would be others."""


class Pattern(StrEnum):
    """How interruptions come."""

    INDEPENDENT = "independent"
    BURSTS = "bursts"


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
    interruptions: float
    misses: int = 0


Pool = dict[str, Tally]
"""By the contender's name."""


@dataclass(frozen=True, slots=True)
class Grid:
    """What is to be played."""

    hours: tuple[float, ...] = (1 / 6, 0.5, 1, 2, 4, 8)
    rates_per_hour: tuple[float, ...] = (0.05, 0.1, 0.2, 0.5, 1, 2)
    tasks: tuple[int, ...] = (1, KEPT_TASKS)
    patterns: tuple[Pattern, ...] = (Pattern.INDEPENDENT, Pattern.BURSTS)
    climate: Climate = field(default_factory=Climate)

    def cells(self) -> Iterator[Cell]:
        """Yield all cells."""
        for pattern in self.patterns:
            for tasks in self.tasks:
                for hours in self.hours:
                    for rate in self.rates_per_hour:
                        yield Cell(pattern, rate, hours, tasks)


@dataclass(frozen=True, slots=True)
class Contest:
    """A grid, and how it is played. `runs`: in each cell, rounded up to whole pools."""

    grid: Grid
    platform: Platform
    runs: int
    seed: int

    @property
    def pools(self) -> int:
        """Pools in each cell: enough for an interval around what only every fourth one plays."""
        return max(LEAST_POOLS, -(-self.runs // RUNS_PER_POOL))

    def play_pool(self, cell: Cell, number: int) -> Pool:
        """Play one pool of a cell under every policy."""
        runs = self._runs(cell, f"{self.seed}/{cell}/{number}")
        outcomes: dict[str, tuple[Outcome, ...]] = {}
        memories: dict[Knowledge, Memory] = {}
        pool: Pool = {}
        for contender in contenders_of(cell.tasks):
            if number % contender.one_pool_in:
                continue
            knowledge = contender.knowledge
            if knowledge not in memories:
                memories[knowledge] = self._memory(cell, knowledge, number)
            outcomes[contender.name] = play(runs, contender, memories[knowledge], self.platform)
            pool[contender.name] = _tally(outcomes[contender.name], runs, contender)
        for name, look in _FORESIGHT.items():
            pool[name] = _tally([look(run, self.platform) for run in runs], runs)
        for factor in DEADLINES[cell.is_persisted]:
            pool.update(self._in_time(factor, runs, outcomes[BASELINE]))
        return pool

    def _in_time(
        self, factor: float, runs: Sequence[Assignment], baseline: Sequence[Outcome]
    ) -> Pool:
        """What the budget alone does under a deadline, and what could have been done."""
        set_ = Contender("", deadline_factor=factor)
        best = [optimum(run, self.platform, 60 * set_.deadline_minutes(run.work)) for run in runs]
        return {
            in_time(BASELINE, factor): _tally(baseline, runs, set_),
            in_time(OPTIMUM, factor): _tally(best, runs, set_),
        }

    def _runs(self, cell: Cell, name: str) -> list[Assignment]:
        """Runs that begin within twice their work, and share their bursts."""
        shared = Random(f"{name}/{_SHARED}")
        sky = self._skies(cell, shared)
        runs = []
        for i in range(RUNS_PER_POOL):
            random = Random(f"{name}/{i}")
            work = varied(Work(cell.hours * HOUR, cell.tasks), random)
            at = random.random() * 2 * cell.hours * HOUR
            runs.append(Assignment(work, sky(Random(f"{name}/{i}/sky")), at))
        return runs

    def _skies(self, cell: Cell, random: Random) -> Callable[[Random], Sky]:
        if cell.pattern is Pattern.BURSTS:
            return partial(Bursty, Bursts(cell.rate_per_hour, self.grid.climate, random))
        return partial(Steady, cell.rate_per_hour)

    def _memory(self, cell: Cell, knowledge: Knowledge, number: int) -> Memory:
        climate = self.grid.climate if cell.pattern is Pattern.BURSTS else None
        past = PastSky(cell.rate_per_hour * knowledge.rate_factor, climate)
        random = Random(f"{self.seed}/{cell}/{number}/{knowledge}")
        work = Work(cell.hours * HOUR, cell.tasks)
        return memory_of(work, knowledge, past, random, self.platform)


def play_all(
    contest: Contest, processes: int, tell: Callable[[str], None]
) -> dict[Cell, list[Pool]]:
    """Play every cell, a pool at a time, in so many processes; `tell` is told how far it is."""
    cells = list(contest.grid.cells())
    jobs = [(cell, number) for cell in cells for number in range(contest.pools)]
    found: dict[Cell, list[Pool]] = {cell: [] for cell in cells}
    # Not forked: whoever calls this may have threads, which a fork leaves behind with their locks.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as workers:
        pools = workers.map(contest.play_pool, *zip(*jobs, strict=True), chunksize=4)
        for count, ((cell, _), pool) in enumerate(zip(jobs, pools, strict=True), start=1):
            found[cell].append(pool)
            if len(found[cell]) == contest.pools:
                tell(f"{count * 100 // len(jobs):3} %  {cell}")
    return found


_FORESIGHT: Final[dict[str, Callable[[Assignment, Platform], Outcome]]] = {
    ON_DEMAND: on_demand,
    FOR_EVER: for_ever,
    OPTIMUM: optimum,
}


def _tally(
    outcomes: Sequence[Outcome], runs: Sequence[Assignment], contender: Contender | None = None
) -> Tally:
    n = len(outcomes)
    late = 0
    if contender is not None and contender.deadline_factor:
        late = sum(
            outcome.seconds > 60 * contender.deadline_minutes(run.work)
            for outcome, run in zip(outcomes, runs, strict=True)
        )
    return Tally(
        runs=n,
        usd=sum(outcome.usd for outcome in outcomes) / n,
        hours=sum(outcome.seconds for outcome in outcomes) / n / HOUR,
        interruptions=sum(outcome.interruptions for outcome in outcomes) / n,
        misses=late,
    )
