"""Two handlers at the breaker, stopped and started at every pair of their calls.

As in `test_two_at_once.py`: each takes its steps only when it is given leave. Here each has a run
of its own, so no lease keeps them apart: what does is the breaker's own conditions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pytest

from chalicelib.core.guards.breaker import BreakerState
from chalicelib.core.task import Task
from chalicelib.functions.react import react
from chalicelib.functions.sweep import sweep
from tests.faults.ledger import FULL
from tests.faults.test_two_at_once import Steps
from tests.laws.test_weather import BREAKER, Pool, pool_of, run_of
from tests.laws.test_weather_probe import completes
from tests.laws.universe import Tables

Work = Callable[[Pool, Task, Steps], object]


@dataclass
class Two:
    """A pool, with two tasks that have been taken, each of a run of its own."""

    pool: Pool
    tasks: tuple[Task, Task]


def two(tables: Tables, *, cooled: bool) -> Two:
    pool = pool_of(tables)
    if cooled:
        pool.open()
        pool.universe.passes(BREAKER.cool_down.total_seconds())
    tasks = (pool.start(), pool.start())
    for task in tasks:
        pool.universe.stops(task)
    return Two(pool, tasks)


def answers(pool: Pool, task: Task, steps: Steps) -> object:
    event = pool.universe.event(task, lastStatus="DEPROVISIONING")
    return react(pool.universe.world(wire=steps), event)


def sweeps(pool: Pool, task: Task, steps: Steps) -> object:
    return sweep(pool.universe.world(wire=steps), {})


def stops(made: Two, work: Work) -> list[int]:
    """After how many calls a handler is stopped: before and after each call of the breaker.

    The long form stops it everywhere.
    """
    steps = Steps()
    steps.start(partial(work, made.pool, made.tasks[0], steps))
    steps.run_out()
    if FULL:
        return list(range(len(steps.calls) + 1))
    of_breaker = [n for n, name in enumerate(steps.calls) if name.startswith("breakers.")]
    assert of_breaker
    return sorted({0, len(steps.calls), *of_breaker, *(n + 1 for n in of_breaker)})


def interleaved(made: Two, works: tuple[Work, Work], i: int, j: int) -> None:
    """A takes i steps, B takes j steps, A ends, B ends."""
    both = (Steps(), Steps())
    for work, task, steps in zip(works, made.tasks, both, strict=True):
        steps.start(partial(work, made.pool, task, steps))
    for steps, number in zip(both, (i, j), strict=True):
        for _ in range(number):
            steps.step()
    for steps in both:
        steps.run_out()
        assert not steps.failed


def pairs(begun: Callable[[], Two], works: tuple[Work, Work]) -> list[tuple[int, int]]:
    one, other = (stops(begun(), work) for work in works)
    return [(i, j) for i in one for j in other]


def test_of_two_signals_at_once_none_is_lost_and_it_opens_once(tables: Tables) -> None:
    begun = partial(two, tables, cooled=False)
    for i, j in pairs(begun, (answers, answers)):
        made = begun()
        interleaved(made, (answers, answers), i, j)
        moved = [made.pool.record_of(task).rerun_on for task in made.tasks]
        assert made.pool.state is BreakerState.OPEN, f"after {i} and {j} steps"
        assert made.pool.told == ["prefect-spot.breaker-opened"], f"after {i} and {j} steps"
        assert "FARGATE" in moved, f"after {i} and {j} steps: who saw the second signal, is moved"


def test_exactly_one_of_two_becomes_the_probe(tables: Tables) -> None:
    begun = partial(two, tables, cooled=True)
    for i, j in pairs(begun, (answers, answers)):
        made = begun()
        interleaved(made, (answers, answers), i, j)
        moved = [made.pool.record_of(task).rerun_on for task in made.tasks]
        assert sorted(moved) == ["FARGATE", "FARGATE_SPOT"], f"after {i} and {j} steps"
        probe = made.pool.universe.breakers().read().probe
        assert probe is not None
        [on_spot] = [t for t in made.tasks if made.pool.record_of(t).rerun_on == "FARGATE_SPOT"]
        assert probe.flow_run_id == run_of(on_spot), f"after {i} and {j} steps"


def test_two_tellings_of_one_task_are_one_signal(tables: Tables) -> None:
    """The first dies at each of its calls, after the breaker was told; the next tells it again."""
    for i in stops(two(tables, cooled=False), answers):
        made = two(tables, cooled=False)
        task, steps = made.tasks[0], Steps()
        steps.start(partial(answers, made.pool, task, steps))
        for _ in range(i):
            steps.step()
        steps.dead = True  # its next call never returns to it
        made.pool.universe.passes(60)
        made.pool.universe.deliver(made.pool.universe.event(task, lastStatus="STOPPED"))
        assert made.pool.state is BreakerState.CLOSED, f"dead after {i} calls"
        assert len(made.pool.universe.breakers().read().signals) == 1, f"dead after {i} calls"


@pytest.mark.parametrize("works", [(answers, sweeps), (sweeps, answers)], ids=["first", "second"])
def test_while_a_sweep_closes_it_no_second_probe_is_let_through(
    tables: Tables, works: tuple[Work, Work]
) -> None:
    """The probe has completed; another rerun asks while `sweep` finds that."""

    def begun() -> Two:
        pool = pool_of(tables)
        completes(pool, pool.probe())
        other = pool.start()
        pool.universe.stops(other)
        pool.universe.passes(5)
        return Two(pool, (other, other))

    for i, j in pairs(begun, works):
        made = begun()
        interleaved(made, works, i, j)
        breaker = made.pool.universe.breakers().read()
        assert breaker.state is BreakerState.CLOSED, f"after {i} and {j} steps"
        assert breaker.probe is None
        assert made.pool.told[-1] == "prefect-spot.breaker-closed"
