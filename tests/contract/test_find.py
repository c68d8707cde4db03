"""Which runs are found by a search: what a sweep over thousands of runs relies on."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from chalicelib.core.model.flow_run import FlowRun, StateType, StateVerdict
from chalicelib.core.ports import RunQuery
from chalicelib.errors import PrefectRejectedError, PrefectUnreadableError
from chalicelib.functions.sweep import sweep
from chalicelib.functions.sweep_report import UNREAD
from tests.contract.stage import PID, Stage
from tests.laws.universe import Universe
from tests.make import CLUSTER_ARN, TASK_ARN, make_task

SCHEDULED, PENDING, RUNNING = StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING
CRASHED = StateType.CRASHED
LIVE = (PENDING, RUNNING, SCHEDULED)
MICROSECOND = timedelta(microseconds=1)
TIMES = ("created_at", "pull_started_at", "started_at", "execution_stopped_at", "updated_at")
NAMES = ("scheduled", "pending", "running", "parked", "never started", "crashed", "completed")


@dataclass(frozen=True, slots=True)
class Crowd:
    """The runs of a work pool of their own, by name, in the order of their expected starts."""

    stage: Stage
    pool: str
    ids: dict[str, UUID]

    def found(self, *kinds: StateType, **query: Any) -> list[str]:
        """The names of the runs that a query finds, in its order."""
        names = {id_: name for name, id_ in self.ids.items()}
        return [names[run.id] for run in self.runs(*kinds, **query)]

    def runs(self, *kinds: StateType, **query: Any) -> list[FlowRun]:
        found = self.stage.prefect.find_runs(RunQuery((self.pool,), kinds, **query))
        runs = [run for run in found if isinstance(run, FlowRun)]
        assert len(runs) == len(found)
        return runs

    def run(self, name: str) -> FlowRun:
        return self.stage.run(self.ids[name])

    def expected_start(self, name: str) -> datetime:
        at = self.run(name).expected_start
        assert at is not None
        return at


@pytest.fixture(scope="module")
def crowd(stage: Stage) -> Crowd:
    """Only looked at, by all tests here: making it costs a second on a real server."""
    controls, pool = stage.controls, stage.controls.create_work_pool()
    deployment = controls.create_deployment(work_pool=pool)
    ids = {name: controls.create_run(deployment_id=deployment) for name in NAMES}
    for name in NAMES[1:]:
        controls.worker_picks_up(ids[name], PID)
    for name in ("running", "parked", "crashed", "completed"):
        controls.engine_starts(ids[name])
    stage.park(ids["parked"])
    controls.crash(ids["never started"])
    controls.crash(ids["crashed"])
    controls.engine_finishes(ids["completed"])
    return Crowd(stage, pool, ids)


@pytest.mark.parametrize(
    ("kinds", "names", "found"),
    [
        (LIVE, (), ["scheduled", "pending", "running", "parked"]),
        ([RUNNING], (), ["running"]),
        ([StateType.PAUSED], (), []),
        ([SCHEDULED], ("AwaitingRetry",), ["parked"]),
        ([SCHEDULED], ("AwaitingConcurrencySlot",), []),
    ],
)
def test_runs_of_the_pool_are_found_by_type_and_name_of_their_state_in_order(
    crowd: Crowd, kinds: list[StateType], names: tuple[str, ...], found: list[str]
) -> None:
    """In the order of their expected starts; runs of another pool and of none are there, too."""
    crowd.stage.controls.create_run()
    crowd.stage.running_ad_hoc()
    assert crowd.found(*kinds, state_names=names) == found


def test_a_run_is_found_as_it_is_read(crowd: Crowd) -> None:
    found = crowd.runs(SCHEDULED, RUNNING)
    assert found == [crowd.stage.run(run.id) for run in found]
    assert {run.work_pool_name for run in found} == {crowd.pool}


def test_pages_follow_each_other_without_gap_or_overlap(crowd: Crowd) -> None:
    pages = [crowd.found(*LIVE, limit=3, offset=offset) for offset in (0, 3, 6)]
    assert pages == [["scheduled", "pending", "running"], ["parked"], []]


def test_a_search_goes_on_where_another_ended_both_bounds_included(crowd: Crowd) -> None:
    second, third = crowd.expected_start("pending"), crowd.expected_start("running")
    for after, before, found in (
        (second, third, ["pending", "running"]),
        (second + MICROSECOND, third, ["running"]),
        (second, third - MICROSECOND, ["pending"]),
    ):
        assert crowd.found(*LIVE, expected_after=after, expected_before=before) == found


def test_runs_expected_at_one_moment_are_paged_without_gap_or_overlap(stage: Stage) -> None:
    """As a schedule makes them. Among others they are not: see `PrefectRest.find_runs`."""
    pool, noon = stage.controls.create_work_pool(), datetime(2026, 11, 23, 12, tzinfo=UTC)
    deployment = stage.controls.create_deployment(work_pool=pool)
    runs = {stage.controls.create_run(deployment_id=deployment, due=noon) for _ in range(5)}
    at_noon = RunQuery((pool,), (SCHEDULED,), expected_after=noon, expected_before=noon, limit=2)
    pages = [stage.prefect.find_runs(replace(at_noon, offset=offset)) for offset in (0, 2, 4)]
    assert list(map(len, pages)) == [2, 2, 1]
    assert {run.id for page in pages for run in page} == runs


def test_the_expected_start_is_the_first_one_however_far_ahead_a_run_is_parked(
    crowd: Crowd,
) -> None:
    scheduled = str(crowd.run("parked").state.details["scheduled_time"])
    assert datetime.fromisoformat(scheduled) > datetime.now(UTC)
    assert crowd.expected_start("parked") < crowd.expected_start("crashed")


def test_a_run_that_crashed_before_it_started_has_no_end_on_the_oldest_server(crowd: Crowd) -> None:
    """So a search by end alone misses, there, what never got Spot capacity."""
    ended = crowd.run("never started").state.timestamp
    due = crowd.expected_start("never started")
    is_found_by_end = "never started" in crowd.found(CRASHED, ended_after=ended)
    assert is_found_by_end is not crowd.stage.is_oldest
    without_end = crowd.found(CRASHED, without_end=True, expected_after=due)
    assert without_end == (["never started"] if crowd.stage.is_oldest else [])
    assert crowd.found(CRASHED, expected_after=due) == ["never started", "crashed"]


def test_a_crashed_run_is_found_by_its_newest_end_that_moment_included(stage: Stage) -> None:
    run_id = stage.run_in("crashed")
    first_end = stage.run(run_id).state.timestamp
    pool = stage.controls.work_pool_name

    def is_found(after: datetime) -> bool:
        found = stage.prefect.find_runs(RunQuery((pool,), (CRASHED,), ended_after=after))
        return run_id in [run.id for run in found]

    assert is_found(first_end)
    assert not is_found(first_end + MICROSECOND)
    stage.park(run_id)
    assert not is_found(first_end)
    stage.controls.crash(run_id)
    assert is_found(first_end + MICROSECOND)


def test_an_empty_pool_has_no_runs_and_an_unknown_one_or_too_large_a_page_is_rejected(
    stage: Stage,
) -> None:
    empty = RunQuery((stage.controls.create_work_pool(), "no such pool"), (RUNNING,))
    assert stage.prefect.find_runs(empty) == ()
    unchecked = RunQuery(("no such pool",), (RUNNING,), known_pool=True)
    assert stage.prefect.find_runs(unchecked) == ()
    why = "work pool 'no such pool' or 'nor this' is not known"
    with pytest.raises(PrefectRejectedError, match=why):
        stage.prefect.find_runs(RunQuery(("no such pool", "nor this"), (RUNNING,)))
    with pytest.raises(PrefectRejectedError, match="less than or equal to 200"):
        stage.prefect.find_runs(replace(empty, limit=201))


def test_children_in_the_same_process_are_found_while_they_live(stage: Stage) -> None:
    parents = [a_parent(stage), a_parent(stage)]
    running, crashed = (stage.controls.create_child(parent) for parent in parents)
    pending = stage.controls.create_run(deployed=False, parent_run_id=parents[1])
    stage.controls.create_child(a_parent(stage))  # not asked for
    stage.controls.create_child(running)  # found by asking for the child's
    deployed = stage.controls.create_run(parent_run_id=parents[0])
    stage.controls.worker_picks_up(deployed, PID)  # it has a task of its own
    assert ids_of_children(stage, *parents) == {running, crashed, pending}
    answer = stage.propose(crashed, CRASHED, message="the task of its parent is gone")
    assert answer.verdict is StateVerdict.ACCEPT
    assert ids_of_children(stage, *parents) == {running, pending}
    [grandchild] = stage.prefect.find_live_children([running])
    whole = stage.run(grandchild.id)
    assert (grandchild.policy, grandchild.run_count) == (whole.policy, whole.run_count)
    assert (grandchild.state.id, grandchild.state.timestamp) == (
        whole.state.id,
        whole.state.timestamp,
    )
    assert (grandchild.deployment_id, grandchild.work_pool_name) == (None, None)
    assert (grandchild.infrastructure_pid, grandchild.state.type) == (None, RUNNING)
    for childless in ([], [uuid4() for _ in range(100)]):
        assert stage.prefect.find_live_children(childless) == ()


def test_a_child_that_waits_for_its_own_retry_is_found(stage: Stage) -> None:
    parent = a_parent(stage)
    child = stage.controls.create_run(deployed=False, parent_run_id=parent)
    stage.controls.engine_starts(child, retries=1)
    assert stage.controls.engine_fails(child).type is SCHEDULED
    assert ids_of_children(stage, parent) == {child}


def test_a_task_run_of_a_dead_container_is_crashed_which_frees_its_tags_slot(stage: Stage) -> None:
    """Not one that stands for a subflow: Prefect 3.9 would start that anew."""
    run_id, other = stage.running(), stage.running()
    stage.controls.create_child(run_id)
    tag = stage.controls.create_tag_limit()
    for kind in (RUNNING, RUNNING, StateType.COMPLETED):
        stage.controls.run_task(run_id, kind, tags=[tag])
    stage.controls.run_task(other)
    found, _ = stage.prefect.find_task_runs_left([run_id])
    assert len(found) == 2
    assert len(stage.prefect.find_task_runs_left([run_id, other])[0]) == 3
    assert stage.controls.take_slot(tag, found[0])
    assert not stage.controls.take_slot(tag, found[1])
    for _ in range(2):  # once more is no harm
        stage.prefect.crash_task_run(found[0], "its container is gone")
    assert stage.controls.take_slot(tag, found[1])
    assert stage.prefect.find_task_runs_left([run_id]) == ((found[1],), True)
    now = datetime.now(UTC)
    task_runs = stage.prefect.read_task_runs(run_id, now - timedelta(hours=1), now)
    [crashed] = [each for each in task_runs if each.state is CRASHED]
    assert crashed.ended_at


def test_a_task_run_stands_for_each_live_subflow_from_its_creation_on(stage: Stage) -> None:
    parent = a_parent(stage)
    stage.controls.run_task(parent)
    assert stage.prefect.find_task_runs_left([parent])[1] is False
    child = stage.controls.create_run(deployed=False, parent_run_id=parent)
    assert stage.prefect.find_task_runs_left([parent])[1] is True  # PENDING
    stage.controls.engine_starts(child, retries=1)
    assert stage.prefect.find_task_runs_left([parent])[1] is True
    assert stage.controls.engine_fails(child).type is SCHEDULED
    assert stage.prefect.find_task_runs_left([parent])[1] is True
    stage.controls.engine_starts(child)
    stage.controls.engine_finishes(child)
    assert stage.prefect.find_task_runs_left([parent])[1] is False


def a_parent(stage: Stage) -> UUID:
    """Any run: its own state and deployment do not matter here, and this one is quickly made."""
    return stage.controls.create_run(deployed=False)


def ids_of_children(stage: Stage, *parents: UUID) -> set[UUID]:
    return {child.id for child in stage.prefect.find_live_children(parents)}


def test_a_sweep_steps_over_a_run_about_which_prefect_cannot_answer(stage: Stage) -> None:
    """Prefect takes a null label, and then answers 500 for each page that holds the run."""
    controls, pool = stage.controls, stage.controls.create_work_pool()
    deployment = controls.create_deployment(work_pool=pool)
    universe, ids = Universe(), [controls.create_run(deployment_id=deployment) for _ in range(5)]
    for id_ in ids:
        times = dict.fromkeys(TIMES, datetime.now(UTC))
        task = make_task(arn=TASK_ARN[:-32] + id_.hex, flow_run_id=id_, **times)
        universe.tasks[task.arn] = task
        controls.worker_picks_up(id_, f"{CLUSTER_ARN}::{task.arn}")
        controls.engine_starts(id_)
    odd = ids.pop(2)
    controls.add_null_label(odd)
    query = RunQuery((pool,), (RUNNING,), by_id=True)
    with pytest.raises(PrefectUnreadableError):
        stage.prefect.find_runs(query)
    in_order = sorted([odd, *ids], reverse=True)
    assert [*stage.prefect.find_run_ids(query)] == in_order
    assert [*stage.prefect.find_run_ids(replace(query, limit=2, offset=1))] == in_order[1:3]
    context = replace(
        universe.context(),
        prefect=stage.prefect,
        work_pools=(pool,),
        now=lambda: datetime.now(UTC),
        grace=timedelta(0),
    )
    report = sweep(context, {})
    assert (report.finished, report.unjudged) == (True, {UNREAD: 1})
    assert {*universe.stored.sweep.unjudged} == {odd}
    assert {stage.run(id_).state.name for id_ in ids} == {"AwaitingRetry"}
