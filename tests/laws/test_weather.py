"""The breaker among runs that live: who is let through to Spot, and what people are told."""

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chalicelib.core.guards.breaker import BreakerPolicy, BreakerState
from chalicelib.core.guards.facts import GuardPolicy
from chalicelib.core.metrics import Metric
from chalicelib.core.record import Interruption
from chalicelib.core.situation import Mode, Policy
from chalicelib.core.sums import total
from chalicelib.core.task import NO_CAPACITY_REASON, Task
from chalicelib.errors import ThrottledError
from chalicelib.functions.react import react
from chalicelib.functions.weather import MOST_TRIES
from tests.laws.test_meter import DRILL
from tests.laws.universe import Befalls, Fault, Tables, Tripwire, Universe

BREAKER = BreakerPolicy(2, timedelta(minutes=30), timedelta(minutes=60))
POLICY = Policy(guards=GuardPolicy(breaker=BREAKER))


@dataclass
class Pool:
    """A universe with a breaker, and as many runs in it as a test starts."""

    universe: Universe

    def start(self, **run: Any) -> Task:
        return self.universe.start(self.universe.prefect.create_run(**run))

    def take(self, task: Task) -> Interruption:
        """Spot takes the task; return what was recorded when the container had exited."""
        self.universe.deliver(self.universe.exits(task)[1])
        return self.record_of(task)

    def record_of(self, task: Task) -> Interruption:
        return self.universe.records().read(run_of(task)).interruptions[task.arn]

    def rerun(self, task: Task) -> Task:
        return self.universe.start(run_of(task))

    @property
    def state(self) -> BreakerState:
        return self.universe.breakers().read().state

    @property
    def told(self) -> list[str]:
        """The pool's events, in the order in which they came."""
        return [event.name for event in self.universe.prefect.pool_events.values()]

    @property
    def gauge(self) -> list[int]:
        """Every value of BreakerOpen."""
        values = [measured.values for measured in self.universe.measured]
        return [int(v[Metric.BREAKER_OPEN]) for v in values if Metric.BREAKER_OPEN in v]

    def artifact_of(self, task: Task) -> str:
        return self.universe.prefect.artifacts_of(run_of(task))[-1][1].replace("\\", "")

    def open(self) -> None:
        for _ in range(BREAKER.limit):
            self.take(self.start())
        assert self.state is BreakerState.OPEN

    def probe(self) -> Task:
        """Open it, let it cool down, and return the task of the probe."""
        self.open()
        self.universe.passes(BREAKER.cool_down.total_seconds())
        taken = self.start()
        assert self.take(taken).rerun_on == "FARGATE_SPOT"
        assert self.state is BreakerState.HALF_OPEN
        return self.rerun(taken)


def state_of(pool: Pool) -> BreakerState:
    """The state anew: a type checker believes that a property stays what it was."""
    return pool.state


def run_of(task: Task) -> UUID:
    assert task.flow_run_id is not None
    return task.flow_run_id


def pool_of(tables: Tables, policy: Policy = POLICY) -> Pool:
    universe = tables.universe(policy)
    universe.shows_stopped = False
    return Pool(universe)


@pytest.fixture
def pool(tables: Tables) -> Pool:
    return pool_of(tables)


def test_the_second_interruption_opens_it_and_its_own_rerun_goes_to_fargate(pool: Pool) -> None:
    first, second = pool.start(), pool.start()
    assert pool.take(first).rerun_on == "FARGATE_SPOT"
    assert (pool.state, pool.told, pool.gauge) == (BreakerState.CLOSED, [], [])
    noted = pool.take(second)
    assert (noted.rerun_on, noted.guard) == ("FARGATE", "weather")
    assert (pool.state, pool.told) == (BreakerState.OPEN, ["prefect-spot.breaker-opened"])
    assert pool.gauge == [1]
    words = pool.artifact_of(second)
    assert "weather: the breaker is open until 2026-11-23 13:0" in words
    assert "2 interruptions or refused placements within 30m" in words
    assert "BREAKER=2/30m/1h" in words
    assert pool.rerun(second).capacity == "FARGATE"


def test_what_it_moved_is_counted_in_the_report(tables: Tables) -> None:
    pool = pool_of(tables)
    for _ in range(2):
        task = pool.start()
        pool.take(task)
        pool.universe.passes(30)
        pool.universe.meter(pool.universe.end_of(task))
    counts = total(pool.universe.sums())
    assert (counts.spot_reruns, counts.on_demand_reruns, counts.weather_moves) == (1, 1, 1)


def test_one_task_counts_once_whatever_is_told_of_it(pool: Pool) -> None:
    task = pool.start()
    for event in (*pool.universe.exits(task), *pool.universe.exits(task)):
        pool.universe.deliver(event)
    assert (pool.state, len(pool.universe.breakers().read().signals)) == (BreakerState.CLOSED, 1)


def test_what_the_budget_would_move_anyway_counts_too(pool: Pool) -> None:
    for _ in range(2):
        noted = pool.take(pool.start(tags=("spot-retries:0",)))
        assert (noted.rerun_on, noted.guard) == ("FARGATE", "")
    assert pool.state is BreakerState.OPEN


def test_a_refused_placement_counts_and_a_drill_does_not(pool: Pool) -> None:
    drilled = pool.start()
    pool.universe.stops(drilled, **DRILL)
    told = {"stopCode": DRILL["stop_code"], "stoppedReason": DRILL["stopped_reason"]}
    pool.universe.deliver(pool.universe.event(drilled, lastStatus="DEPROVISIONING", **told))
    assert pool.record_of(drilled).rerun_on == "FARGATE_SPOT"
    assert not pool.universe.breakers().read().signals
    for _ in range(2):
        run_id = pool.universe.prefect.create_run()
        pool.universe.prefect.worker_picks_up(run_id)
        pool.universe.prefect.crash(run_id, f"RunTask failed: {NO_CAPACITY_REASON}")
    pool.universe.sweep()
    assert pool.state is BreakerState.OPEN


def test_interruptions_further_apart_than_the_window_leave_it_closed(pool: Pool) -> None:
    for _ in range(4):
        pool.universe.passes(BREAKER.window.total_seconds())
        assert pool.take(pool.start()).rerun_on == "FARGATE_SPOT"
    assert pool.state is BreakerState.CLOSED


def test_while_it_is_open_every_rerun_goes_to_fargate_and_is_told_until_when(pool: Pool) -> None:
    pool.open()
    task = pool.start()
    assert pool.take(task).guard == "weather"
    assert "the breaker is open until" in pool.artifact_of(task)
    assert pool.told == ["prefect-spot.breaker-opened"], "once"


def test_after_the_cool_down_one_is_the_probe_and_the_others_wait_for_it(pool: Pool) -> None:
    pool.open()
    pool.universe.passes(BREAKER.cool_down.total_seconds())
    probe, other = pool.start(), pool.start()
    assert pool.take(probe).rerun_on == "FARGATE_SPOT"
    assert "this rerun is the probe that decides" in pool.artifact_of(probe)
    assert pool.take(other).rerun_on == "FARGATE"
    assert f"waits for its probe, flow run {run_of(probe)}" in pool.artifact_of(other)


def test_off_it_is_never_asked(tables: Tables) -> None:
    pool = pool_of(tables, Policy())
    for _ in range(3):
        task = pool.start()
        wire = Tripwire(None, lambda: None)
        assert pool.universe.handle(pool.universe.exits(task)[1], wire=wire) is not None
        assert not [name for name in wire.calls if name.startswith("breakers.")]
        assert pool.record_of(task).guard_reason == ""
    pool.universe.sweep()
    assert pool.universe.wire is not None
    assert not [name for name in pool.universe.wire.calls if name.startswith("breakers.")]
    assert (pool.told, pool.gauge) == ([], [])


def test_a_sweep_forgets_what_counts_no_more(pool: Pool) -> None:
    pool.take(pool.start())
    pool.universe.sweep()
    assert len(pool.universe.breakers().read().signals) == 1
    pool.universe.passes(BREAKER.window.total_seconds())
    pool.universe.sweep()
    assert not pool.universe.breakers().read().signals


def test_closed_it_costs_one_call_per_interruption(pool: Pool) -> None:
    task = pool.start()
    calls = []
    for event in pool.universe.exits(task):
        wire = Tripwire(None, lambda: None)
        pool.universe.handle(event, wire=wire)
        calls += [name for name in wire.calls if name.startswith("breakers.")]
    assert calls == ["breakers.signal"]


@pytest.mark.parametrize("method", ["signal", "change"])
def test_when_it_cannot_be_had_the_budget_alone_decides_and_that_is_told(
    pool: Pool, method: str
) -> None:
    pool.take(pool.start())
    task = pool.start()
    world = pool.universe.world()

    class Fails:
        def __getattr__(self, name: str) -> Any:
            if name == method:
                raise ThrottledError("not now", next_step="none")
            return getattr(world.breakers, name)

    react(replace(world, breakers=Fails()), pool.universe.exits(task)[1])
    noted = pool.record_of(task)
    assert (noted.rerun_on, noted.guard) == ("FARGATE_SPOT", "")
    words = pool.artifact_of(task)
    assert "weather has no say (the breaker: it could not be read (ThrottledError))" in words
    assert "the budget alone decides" in words


def test_where_others_never_let_it_change_the_budget_alone_decides(pool: Pool) -> None:
    pool.take(pool.start())
    task = pool.start()
    world = pool.universe.world()
    tries = []

    class Overtaken:
        def change(self, *_: object) -> bool:
            tries.append(1)
            return False

        def __getattr__(self, name: str) -> Any:
            return getattr(world.breakers, name)

    react(replace(world, breakers=Overtaken()), pool.universe.exits(task)[1])
    assert len(tries) == MOST_TRIES
    assert pool.record_of(task).rerun_on == "FARGATE_SPOT"


def test_an_event_that_cannot_be_emitted_changes_nothing_of_the_rescue(pool: Pool) -> None:
    pool.take(pool.start())
    task = pool.start()
    world = pool.universe.world()

    class NoPoolEvents:
        def emit_pool_event(self, event: object) -> None:
            raise ThrottledError("not now", next_step="none")

        def __getattr__(self, name: str) -> Any:
            return getattr(world.prefect, name)

    react(replace(world, prefect=NoPoolEvents()), pool.universe.exits(task)[1])
    assert pool.record_of(task).guard == "weather"
    assert pool.state is BreakerState.OPEN


def test_in_observe_mode_all_is_told_as_what_would_have_been_done(tables: Tables) -> None:
    pool = pool_of(tables, replace(POLICY, mode=Mode.OBSERVE))
    pool.take(pool.start())
    task = pool.start()
    noted = pool.take(task)
    assert (noted.rerun_on, noted.guard) == ("FARGATE", "weather")
    assert "would be rerun on FARGATE" in pool.artifact_of(task)
    assert not pool.universe.prefect.is_due(run_of(task))
    pool.universe.passes(BREAKER.cool_down.total_seconds())
    assert pool.take(pool.start()).rerun_on == "FARGATE_SPOT"
    assert pool.state is BreakerState.CLOSED, "nothing is rerun, so there is no probe"


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    call=st.integers(0, 30),
    befalls=st.sampled_from([Befalls.DIES_BEFORE, Befalls.DIES_AFTER, Befalls.FALLS_ASLEEP]),
    cooled=st.booleans(),
)
def test_a_handler_that_dies_at_any_call_leaves_the_breaker_where_it_would_have(
    tables: Tables, call: int, befalls: Befalls, cooled: bool
) -> None:
    pool = pool_of(tables)
    if cooled:
        pool.open()
        pool.universe.passes(BREAKER.cool_down.total_seconds())
    else:
        pool.take(pool.start())
    task = pool.start()
    pool.universe.deliver(pool.universe.exits(task)[1], Fault(befalls, call))
    breaker, noted = pool.universe.breakers().read(), pool.record_of(task)
    if cooled:
        assert breaker.state is BreakerState.HALF_OPEN
        assert breaker.probe is not None
        assert breaker.probe.flow_run_id == run_of(task)
        assert noted.rerun_on == "FARGATE_SPOT"
    else:
        assert breaker.state is BreakerState.OPEN
        assert (noted.rerun_on, noted.guard) == ("FARGATE", "weather")
