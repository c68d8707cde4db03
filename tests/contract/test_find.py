"""Which runs are found by a search: what a sweep over thousands of runs relies on."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from chalicelib.core.model.flow_run import StateType, StateVerdict
from chalicelib.core.ports import RunQuery
from chalicelib.errors import PrefectRejectedError
from tests.contract.stage import PID, Stage

SCHEDULED, PENDING, RUNNING = StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING
CRASHED = StateType.CRASHED
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Crowd:
    """The runs of a work pool that nobody else uses, in the order of their expected starts."""

    stage: Stage
    pool: str
    scheduled: UUID
    pending: UUID
    running: UUID
    parked: UUID
    never_started: UUID
    crashed: UUID
    completed: UUID

    def query(self, *kinds: StateType) -> RunQuery:
        return RunQuery(self.pool, kinds)

    def found(self, query: RunQuery) -> list[UUID]:
        return [run.id for run in self.stage.prefect.find_runs(query)]

    def expected_start(self, flow_run_id: UUID) -> datetime:
        at = self.stage.run(flow_run_id).expected_start
        assert at is not None
        return at

    @property
    def live(self) -> RunQuery:
        return self.query(PENDING, RUNNING, SCHEDULED)


@pytest.fixture(scope="module")
def crowd(open_stage: Callable[[], Stage]) -> Crowd:
    """Only looked at, by all tests here: making it costs a second on a real server."""
    stage = open_stage()
    controls, pool = stage.controls, stage.controls.create_work_pool()
    deployment = controls.create_deployment(work_pool=pool)
    runs = [controls.create_run(deployment_id=deployment) for _ in range(7)]
    crowd = Crowd(stage, pool, *runs)
    for run_id in runs[1:]:
        controls.worker_picks_up(run_id, PID)
    for run_id in (crowd.running, crowd.parked, crowd.crashed, crowd.completed):
        controls.engine_starts(run_id)
    stage.park(crowd.parked)
    controls.crash(crowd.never_started)
    controls.crash(crowd.crashed)
    controls.engine_finishes(crowd.completed)
    return crowd


def test_runs_are_found_by_state_in_the_order_of_their_expected_starts(crowd: Crowd) -> None:
    assert crowd.found(crowd.live) == [
        crowd.scheduled,
        crowd.pending,
        crowd.running,
        crowd.parked,
    ]
    assert crowd.found(crowd.query(RUNNING)) == [crowd.running]
    assert crowd.found(crowd.query(StateType.PAUSED)) == []


def test_parked_runs_are_found_by_the_name_of_their_state(crowd: Crowd) -> None:
    parked = replace(crowd.query(SCHEDULED), state_names=("AwaitingRetry",))
    late = replace(crowd.query(SCHEDULED), state_names=("Late", "AwaitingConcurrencySlot"))

    assert crowd.found(parked) == [crowd.parked]
    assert crowd.found(late) == []


def test_a_run_is_found_as_it_is_read(crowd: Crowd) -> None:
    found = crowd.stage.prefect.find_runs(crowd.query(SCHEDULED, RUNNING))

    assert list(found) == [crowd.stage.run(run.id) for run in found]
    assert {run.work_pool_name for run in found} == {crowd.pool}


def test_runs_of_other_pools_and_of_none_are_not_found(crowd: Crowd) -> None:
    stage = crowd.stage
    others = {stage.scheduled(), stage.running_ad_hoc()}

    assert not others & set(crowd.found(crowd.live))


def test_pages_follow_each_other_without_gap_or_overlap(crowd: Crowd) -> None:
    pages = [crowd.found(replace(crowd.live, limit=3, offset=offset)) for offset in (0, 3, 6)]

    assert list(map(len, pages)) == [3, 1, 0]
    assert [id_ for page in pages for id_ in page] == crowd.found(crowd.live)


def test_a_search_goes_on_where_another_ended_both_bounds_included(crowd: Crowd) -> None:
    second, third = crowd.expected_start(crowd.pending), crowd.expected_start(crowd.running)
    between = replace(crowd.live, expected_after=second, expected_before=third)

    assert crowd.found(between) == [crowd.pending, crowd.running]
    assert crowd.found(replace(between, expected_after=second + MICROSECOND)) == [crowd.running]
    assert crowd.found(replace(between, expected_before=third - MICROSECOND)) == [crowd.pending]


def test_runs_expected_at_one_moment_are_paged_without_gap_or_overlap(stage: Stage) -> None:
    """As a schedule makes them. Among others they are not: see `PrefectRest.find_runs`."""
    pool, noon = stage.controls.create_work_pool(), datetime(2026, 11, 23, 12, tzinfo=UTC)
    deployment = stage.controls.create_deployment(work_pool=pool)
    runs = {stage.controls.create_run(deployment_id=deployment, due=noon) for _ in range(5)}
    at_noon = RunQuery(pool, (SCHEDULED,), expected_after=noon, expected_before=noon, limit=2)

    pages = [stage.prefect.find_runs(replace(at_noon, offset=offset)) for offset in (0, 2, 4)]

    assert list(map(len, pages)) == [2, 2, 1]
    assert {run.id for page in pages for run in page} == runs


def test_the_expected_start_is_the_first_one_however_far_ahead_a_run_is_parked(
    crowd: Crowd,
) -> None:
    state = crowd.stage.run(crowd.parked).state
    assert datetime.fromisoformat(str(state.details["scheduled_time"])) > datetime.now(UTC)

    assert crowd.expected_start(crowd.parked) < crowd.expected_start(crowd.crashed)


def test_a_crashed_run_is_found_by_its_end_that_moment_included(crowd: Crowd) -> None:
    ended = crowd.stage.run(crowd.crashed).state.timestamp
    crashed = crowd.query(CRASHED)

    assert crowd.crashed in crowd.found(replace(crashed, ended_after=ended))
    assert crowd.crashed not in crowd.found(replace(crashed, ended_after=ended + MICROSECOND))


def test_a_run_that_crashed_before_it_started_has_no_end_on_the_oldest_server(
    crowd: Crowd,
) -> None:
    """So a search by end alone misses, there, what never got Spot capacity."""
    crashed = crowd.query(CRASHED)
    ended = crowd.stage.run(crowd.never_started).state.timestamp
    due = crowd.expected_start(crowd.never_started)

    by_end = crowd.found(replace(crashed, ended_after=ended))
    by_expected_start = crowd.found(replace(crashed, expected_after=due))

    assert (crowd.never_started in by_end) is not crowd.stage.is_oldest
    assert by_expected_start == [crowd.never_started, crowd.crashed]


def test_a_run_that_was_parked_and_crashed_again_has_a_new_end(stage: Stage) -> None:
    run_id = stage.crashed()
    first_end = stage.run(run_id).state.timestamp
    stage.park(run_id)
    crashed = RunQuery(stage.controls.work_pool_name, (CRASHED,), ended_after=first_end)
    assert run_id not in [run.id for run in stage.prefect.find_runs(crashed)]

    stage.controls.crash(run_id)

    later = replace(crashed, ended_after=first_end + MICROSECOND)
    assert run_id in [run.id for run in stage.prefect.find_runs(later)]


def test_a_pool_without_runs_is_told_from_one_that_is_not_there(stage: Stage) -> None:
    pool = stage.controls.create_work_pool()

    assert stage.prefect.find_runs(RunQuery(pool, (RUNNING,))) == ()
    with pytest.raises(PrefectRejectedError, match="work pool 'no such pool' is not known"):
        stage.prefect.find_runs(RunQuery("no such pool", (RUNNING,)))


def test_more_than_two_hundred_runs_at_once_are_refused(crowd: Crowd) -> None:
    with pytest.raises(PrefectRejectedError, match="less than or equal to 200"):
        crowd.found(replace(crowd.live, limit=201))


def test_children_in_the_same_process_are_found_while_they_live(stage: Stage) -> None:
    parents = [a_parent(stage), a_parent(stage)]
    running, crashed = (stage.controls.create_child(parent) for parent in parents)
    pending = stage.controls.create_run(deployed=False, parent_run_id=parents[1])
    stage.controls.create_child(a_parent(stage))  # a stranger's
    assert ids_of_children(stage, *parents) == {running, crashed, pending}

    answer = stage.propose(crashed, CRASHED, message="the task of its parent is gone")

    assert answer.verdict is StateVerdict.ACCEPT
    assert ids_of_children(stage, *parents) == {running, pending}


def test_a_child_has_no_deployment_no_pool_and_no_task(stage: Stage) -> None:
    parent = a_parent(stage)
    stage.controls.create_child(parent)

    [child] = stage.prefect.find_live_children([parent])

    assert child == stage.run(child.id)
    assert child.state.type is RUNNING
    assert (child.deployment_id, child.work_pool_name, child.infrastructure_pid) == (None,) * 3


def test_a_child_with_a_deployment_has_a_task_of_its_own_and_is_not_found(stage: Stage) -> None:
    parent = a_parent(stage)
    deployed = stage.controls.create_run(parent_run_id=parent)
    stage.controls.worker_picks_up(deployed, PID)

    assert ids_of_children(stage, parent) == set()


def test_a_childs_children_are_found_by_asking_for_the_childs(stage: Stage) -> None:
    parent = a_parent(stage)
    child = stage.controls.create_child(parent)
    grandchild = stage.controls.create_child(child)

    assert ids_of_children(stage, parent) == {child}
    assert ids_of_children(stage, child) == {grandchild}


def test_nobodys_children_are_none(stage: Stage) -> None:
    assert stage.prefect.find_live_children([]) == ()
    assert stage.prefect.find_live_children([uuid4() for _ in range(100)]) == ()


def a_parent(stage: Stage) -> UUID:
    """Any run: its own state and deployment do not matter here, and this one is quickly made."""
    return stage.controls.create_run(deployed=False)


def ids_of_children(stage: Stage, *parents: UUID) -> set[UUID]:
    return {child.id for child in stage.prefect.find_live_children(parents)}
