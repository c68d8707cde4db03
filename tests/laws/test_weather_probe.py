"""The breaker's probe among runs that live: what becomes of it, and what that decides."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from chalicelib.core.guards.breaker import BreakerState
from chalicelib.core.task import NO_CAPACITY_REASON, Task
from tests.laws.test_meter import BY_ITSELF
from tests.laws.test_weather import BREAKER, Pool, pool_of, run_of, state_of
from tests.laws.universe import Tables


@pytest.fixture
def pool(tables: Tables) -> Pool:
    return pool_of(tables)


def test_a_probe_that_is_taken_opens_it_again(pool: Pool) -> None:
    probe = pool.probe()
    assert pool.take(probe).guard == "weather"
    assert pool.state is BreakerState.OPEN
    assert pool.told == ["prefect-spot.breaker-opened"] * 2


def test_a_probe_that_spot_refuses_opens_it_again(pool: Pool) -> None:
    pool.open()
    pool.universe.passes(BREAKER.cool_down.total_seconds())
    taken = pool.start()
    pool.take(taken)
    run_id = run_of(taken)
    pool.universe.prefect.worker_picks_up(run_id)
    pool.universe.prefect.crash(run_id, f"RunTask failed: {NO_CAPACITY_REASON}")
    pool.universe.sweep()
    assert pool.state is BreakerState.OPEN
    assert pool.universe.prefect.runs[run_id].job_variables["launch_type"] == "FARGATE"


def completes(pool: Pool, probe: Task) -> None:
    pool.universe.prefect.engine_finishes(run_of(probe))
    pool.universe.stops(probe, **BY_ITSELF)


def fails(pool: Pool, probe: Task) -> None:
    pool.universe.prefect.engine_fails(run_of(probe))
    pool.universe.stops(probe, **BY_ITSELF)


def lives_on(pool: Pool, probe: Task) -> None:
    pool.universe.passes(BREAKER.window.total_seconds())


@pytest.mark.parametrize("what", [completes, fails, lives_on])
def test_a_probe_that_spot_leaves_alone_closes_it(
    pool: Pool, what: Callable[[Pool, Task], None]
) -> None:
    probe = pool.probe()
    what(pool, probe)
    pool.universe.sweep()
    assert pool.state is BreakerState.CLOSED
    assert pool.told == ["prefect-spot.breaker-opened", "prefect-spot.breaker-closed"]
    assert pool.gauge[-1] == 0
    assert pool.take(pool.start()).rerun_on == "FARGATE_SPOT", "it counts from zero"


def test_a_young_probe_is_waited_for(pool: Pool) -> None:
    pool.probe()
    pool.universe.sweep()
    assert (pool.state, pool.gauge[-1]) == (BreakerState.HALF_OPEN, 1)


def cancelled(pool: Pool, probe: Task) -> None:
    pool.universe.prefect.cancel(run_of(probe))
    pool.universe.prefect.worker_cancels(run_of(probe))
    pool.universe.stops(probe, stop_code="UserInitiated", stopped_reason="cancelled")


def crashes(pool: Pool, probe: Task) -> None:
    pool.universe.prefect.crash(run_of(probe))
    pool.universe.stops(probe, **BY_ITSELF)


def is_deleted(pool: Pool, probe: Task) -> None:
    del pool.universe.prefect.runs[run_of(probe)]


def is_on_demand(pool: Pool, probe: Task) -> None:
    pool.universe.tasks[probe.arn] = replace(probe, capacity_provider="")


@pytest.mark.parametrize("what", [cancelled, crashes, is_deleted, is_on_demand])
def test_after_a_probe_that_told_nothing_the_next_rerun_is_the_probe(
    pool: Pool, what: Callable[[Pool, Task], None]
) -> None:
    what(pool, pool.probe())
    pool.universe.sweep()
    assert pool.state is BreakerState.OPEN
    assert pool.take(pool.start()).rerun_on == "FARGATE_SPOT"
    assert state_of(pool) is BreakerState.HALF_OPEN


def test_a_probe_that_never_starts_is_not_waited_for_for_ever(pool: Pool) -> None:
    pool.open()
    pool.universe.passes(BREAKER.cool_down.total_seconds())
    pool.take(pool.start())
    pool.universe.sweep()
    assert pool.state is BreakerState.HALF_OPEN
    pool.universe.passes((BREAKER.window + BREAKER.cool_down).total_seconds())
    pool.universe.sweep()
    assert state_of(pool) is BreakerState.OPEN
