"""Tasks that carry a run's id, though no worker started them: `ecs:RunTask` is enough for that."""

from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import ProposedState, StateType
from chalicelib.core.rescue.actions import Verdict
from tests.laws.universe import BY_ITSELF, DRILL, OUT_OF_MEMORY, Universe
from tests.make import TASK_ARN, seconds
from tests.twin.orchestration import TwinRun

HOUR = 3700
STOPS: dict[str, dict[str, Any]] = {"Spot": {}, "code 1": BY_ITSELF, "drill": DRILL}


@dataclass(frozen=True)
class Impostor:
    """One that is created so many seconds after the run was picked up; `stop`: empty while alive.

    It is on whichever capacity. The true engine begins after 3 s, and its task ends after 158 s.
    """

    created: int
    stop: str = ""
    capacity_provider: str = "FARGATE_SPOT"

    def comes(self, universe: Universe, true: Task) -> Task:
        assert true.created_at is not None
        at = true.created_at + seconds(self.created)
        arn = TASK_ARN[:-32] + uuid4().hex
        task = replace(
            true, arn=arn, created_at=at, started_at=at, capacity_provider=self.capacity_provider
        )
        universe.tasks[arn] = task
        if self.stop:
            ended = {"execution_stopped_at": at + seconds(5), "stopped_at": at + seconds(9)}
            universe.stops(task, **ended, **STOPS[self.stop])
        return universe.tasks[arn]


LATEST = 400
impostors = st.builds(
    Impostor,
    st.integers(-HOUR, LATEST),
    st.sampled_from(["", *STOPS]),
    st.sampled_from(["FARGATE_SPOT", ""]),
)
FATES: dict[str, dict[str, Any] | None] = {"Spot": {}, "memory": OUT_OF_MEMORY, "alive": None}


def story(fate: str, state: str, earlier: bool, others: list[Impostor]) -> tuple[Universe, TwinRun]:
    """A run whose noted task met its fate; every event of it was lost."""
    universe = Universe()
    run, task = universe.running()
    if earlier:
        universe.deliver(universe.exits(task)[1])
        task = universe.start(run.id)
    universe.passes(150)
    how = FATES[fate]
    if how is not None:
        universe.stops(task, **how)
    if state == "crashed":
        universe.prefect.crash(run.id, "Execution was aborted by a signal.")
    if state == "cancelling":
        universe.prefect.cancel(run.id)
    for other in others:
        other.comes(universe, task)
    universe.passes(LATEST)
    return universe, run


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([*FATES]),
    st.sampled_from(["running", "crashed", "cancelling"]),
    st.booleans(),
    st.lists(impostors, min_size=1, max_size=3),
)
@example("Spot", "running", False, [Impostor(200)])
@example("Spot", "running", False, [Impostor(200, "code 1")])
@example("Spot", "crashed", True, [Impostor(1)])
@example("memory", "running", False, [Impostor(200, "drill")])
@example("Spot", "running", True, [Impostor(-HOUR)])
def test_where_the_worker_noted_its_task_others_with_the_runs_id_change_nothing(
    fate: str, state: str, earlier: bool, others: list[Impostor]
) -> None:
    ends = []
    for planted in ([], others):
        universe, run = story(fate, state, earlier, planted)
        for _ in range(2):
            assert universe.sweep() is not None
        record = universe.records().read(run.id)
        ends.append(([state.type for state in run.states], len(record.interruptions)))
    assert ends[0] == ends[1]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([*FATES]), st.booleans(), impostors, st.sampled_from([*STOPS]))
@example("alive", False, Impostor(100), "drill")
@example("memory", False, Impostor(100), "drill")
@example("memory", True, Impostor(100), "Spot")
def test_nor_does_the_event_of_their_end(
    fate: str, earlier: bool, other: Impostor, stop: str
) -> None:
    universe, run = story(fate, "running", earlier, [])
    [true] = [task for task in universe.tasks.values() if task.arn in str(run.infrastructure_pid)]
    ended = replace(other, stop=stop).comes(universe, replace(true, last_status="RUNNING"))
    before, recorded = list(run.states), universe.records().read(run.id).interruptions
    for event in (universe.warning(ended), universe.end_of(ended)):
        decision = universe.handle(event)
        assert decision is not None
        assert decision.verdict is Verdict.IGNORE
    assert run.states == before
    assert universe.records().read(run.id).interruptions == recorded


@pytest.mark.parametrize("noted_before", [True, False])
@pytest.mark.parametrize("stop", ["code 1", "Spot", "drill"])
def test_an_end_that_no_worker_noted_proves_no_death_while_one_may_get_a_task(
    stop: str, noted_before: bool
) -> None:
    """RunTask takes its time: a rerun, or Crashed, would come beside the true container."""
    universe = Universe()
    run, first = universe.running(pid_noted=noted_before)
    universe.stops(first, **OUT_OF_MEMORY)
    universe.prefect.crash(run.id)
    universe.passes(600)
    universe.prefect.move(run.id, ProposedState(StateType.SCHEDULED, "AwaitingRetry"))
    universe.prefect.worker_picks_up(run.id)
    Impostor(0, stop).comes(universe, replace(first, created_at=universe.now + seconds(10)))
    for _ in range(2):
        universe.sweep()
        assert run.state.type is StateType.PENDING


def test_a_rerun_that_is_not_noted_yet_is_not_started_beside_itself() -> None:
    universe = Universe()
    run, first = universe.running()
    universe.deliver(universe.exits(first)[1])
    second = universe.start(run.id, pid_noted=False)
    states = list(run.states)
    for _ in range(3):
        universe.sweep()
        assert run.states == states
    universe.stops(second)
    universe.sweep()
    assert universe.prefect.is_due(run.id)


@pytest.mark.parametrize("created", [-1, 1])
@pytest.mark.parametrize("stop", ["code 1", "Spot", ""])
def test_without_a_note_the_run_goes_on_where_it_may_and_is_named_where_it_waits(
    stop: str, created: int
) -> None:
    universe = Universe()
    run, task = universe.running(pid_noted=False)
    universe.stops(task)
    other = Impostor(created, stop).comes(universe, task)
    universe.sweep()
    assert universe.prefect.is_due(run.id) == bool(stop)
    if not stop:
        universe.passes(2 * HOUR)
        report = universe.sweep()
        assert report is not None
        assert report.unjudged.total() == 1
        assert [*universe.stored.sweep.unjudged] == [run.id]
        universe.stops(other, **BY_ITSELF)
        universe.sweep()
        assert universe.prefect.is_due(run.id)


@pytest.mark.parametrize("stop", ["", "code 1", "drill"])
def test_without_a_note_one_that_came_after_the_engine_began_is_none_of_the_runs(stop: str) -> None:
    universe = Universe()
    run, task = universe.running(pid_noted=False)
    Impostor(100, stop).comes(universe, task)
    universe.passes(LATEST)
    universe.stops(task, **OUT_OF_MEMORY)
    universe.sweep()
    assert run.state.type is StateType.CRASHED
    assert "out of memory" in run.state.message


@pytest.mark.parametrize("stop", ["code 1", "drill"])
def test_a_start_that_its_worker_says_failed_is_retried_whoever_died_meanwhile(stop: str) -> None:
    universe = Universe()
    run, task = universe.running(pid_noted=False)
    del universe.tasks[task.arn], run.states[-1]
    universe.prefect.crash(
        run.id, "Flow run could not be submitted to infrastructure: Rate exceeded"
    )
    Impostor(1, stop).comes(universe, task)
    universe.sweep()
    universe.passes(200)
    assert universe.prefect.is_due(run.id)
