"""What guards and bills ask of Prefect: completed runs, task runs, a deployment's name."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID, uuid4

from chalicelib.core.model.flow_run import StateType, TaskRun
from chalicelib.core.money.savings import TableArtifact
from tests.contract.stage import Stage

COMPLETED, RUNNING, CRASHED = StateType.COMPLETED, StateType.RUNNING, StateType.CRASHED
AGES_AGO = datetime(2020, 1, 1, tzinfo=UTC)
MARGIN = timedelta(minutes=5)


def task_runs_of(stage: Stage, run_id: UUID) -> tuple[TaskRun, ...]:
    return stage.prefect.read_task_runs(run_id, AGES_AGO, datetime.now(UTC) + MARGIN)


def kept(stage: Stage, run_id: UUID) -> list[tuple[StateType, bool]]:
    return sorted((task_run.state, task_run.persisted) for task_run in task_runs_of(stage, run_id))


def test_task_runs_of_other_runs_are_not_found(stage: Stage) -> None:
    run_id = stage.running()
    stage.controls.run_task(stage.running())
    assert kept(stage, run_id) == []
    assert kept(stage, uuid4()) == []


def test_those_of_subflows_in_the_same_process_are_found_and_not_the_calls(stage: Stage) -> None:
    parent = stage.running()
    child = stage.controls.create_child(parent)
    grandchild = stage.controls.create_child(child)
    stage.controls.run_task(parent, COMPLETED, persisted=True)
    stage.controls.run_task(child, COMPLETED)
    stage.controls.run_task(grandchild, RUNNING)
    assert kept(stage, parent) == sorted([(COMPLETED, True), (COMPLETED, False), (RUNNING, False)])


def test_those_of_a_child_with_a_task_of_its_own_are_not(stage: Stage) -> None:
    parent = stage.running()
    deployed = stage.controls.create_run(parent_run_id=parent)
    stage.controls.run_task(deployed, RUNNING)
    assert kept(stage, parent) == []


def test_only_those_are_found_that_started_between_two_times(stage: Stage) -> None:
    run_id = stage.running()
    stage.controls.run_task(run_id)
    [task_run] = task_runs_of(stage, run_id)
    at, moment = task_run.started_at, timedelta(milliseconds=1)
    assert abs(datetime.now(UTC) - at) < MARGIN
    assert stage.prefect.read_task_runs(run_id, at, at) == (task_run,)
    assert stage.prefect.read_task_runs(run_id, at + moment, at + MARGIN) == ()
    assert stage.prefect.read_task_runs(run_id, AGES_AGO, at - moment) == ()


def test_more_task_runs_than_fit_into_one_answer_are_all_found(stage: Stage) -> None:
    run_id = stage.running()
    for _ in range(205):
        stage.controls.run_task(run_id)
    assert len(kept(stage, run_id)) == 205


def test_a_deployment_is_called_by_its_flow_and_its_own_name(stage: Stage) -> None:
    run = stage.run(stage.controls.create_run())
    assert run.deployment_id is not None
    name = stage.prefect.read_deployment_name(run.deployment_id)
    assert name.startswith("etl/deployment-")
    assert stage.prefect.read_deployment_name(run.deployment_id) == name
    assert stage.prefect.read_deployment_name(uuid4()) == ""


def test_a_deployment_is_read_as_it_is_now_with_its_job_variables(stage: Stage) -> None:
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    deployment_id = stage.controls.create_deployment(
        job_variables={"capacity_provider_strategy": strategy}
    )
    found = stage.prefect.read_deployment(deployment_id)
    assert found is not None
    assert found.job_variables["capacity_provider_strategy"] == strategy
    assert found.name == stage.prefect.read_deployment_name(deployment_id)
    stage.controls.delete_deployment(deployment_id)
    assert stage.prefect.read_deployment(deployment_id) is None, "what is gone is noticed"
    assert stage.prefect.read_deployment(uuid4()) is None


def test_the_defaults_of_a_pools_variables_are_read_and_a_null_is_none(stage: Stage) -> None:
    strategy = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
    pool = stage.controls.create_work_pool(capacity_provider_strategy=strategy)
    defaults = stage.prefect.read_pool_defaults(pool)
    assert defaults["capacity_provider_strategy"] == strategy
    assert (defaults["launch_type"], defaults.get("cluster", "no default")) == (
        "FARGATE",
        "no default",
    )
    own = stage.prefect.read_pool_defaults(stage.controls.work_pool_name)
    assert "capacity_provider_strategy" not in own
    assert stage.prefect.read_pool_defaults("no such pool") == {}


def test_a_table_is_stored_and_its_newest_version_is_the_last_one(stage: Stage) -> None:
    key = f"spot-savings-{uuid4().hex[:8]}"
    for savings in (1.5, 2.5):
        rows = [{"deployment": "etl/nightly", "runs": 3, "savings_usd": savings}]
        stage.prefect.write_table(TableArtifact(key, rows, "What Spot saved."))
    assert stage.controls.table(key) == [
        {"deployment": "etl/nightly", "runs": 3, "savings_usd": 2.5}
    ]


def test_the_completed_runs_of_a_deployment_are_found_the_newest_first(stage: Stage) -> None:
    deployment_id = stage.controls.create_deployment()
    ids = [stage.running(deployment_id) for _ in range(3)]
    for run_id in ids:
        stage.controls.engine_finishes(run_id)
    stage.controls.create_run(deployment_id=deployment_id)
    stage.controls.crash(stage.running(deployment_id))
    stage.controls.engine_fails(stage.running(deployment_id))
    stage.controls.engine_finishes(stage.running(stage.controls.create_deployment()))
    for limit in (10, 2):
        found = stage.prefect.find_completed_runs(deployment_id, limit)
        assert [run.id for run in found] == ids[::-1][:limit]
    assert stage.prefect.find_completed_runs(uuid4(), 10) == ()


def test_a_completed_run_has_its_times_and_the_run_time_of_all_its_attempts(stage: Stage) -> None:
    deployment_id = stage.controls.create_deployment()
    run_id = stage.running(deployment_id)
    scheduled = stage.run(run_id).expected_start
    stage.make_due(run_id)
    stage.controls.worker_picks_up(run_id)
    stage.controls.engine_starts(run_id)
    stage.controls.engine_finishes(run_id)
    [run] = stage.prefect.find_completed_runs(deployment_id, 10)
    history = stage.prefect.read_history(run_id)
    ran = sum(
        (after.timestamp - before.timestamp).total_seconds()
        for before, after in pairwise(history)
        if before.type is RUNNING
    )
    assert run.run_count == 2
    assert abs(run.run_seconds - ran) < 0.001, "the time between two attempts counts"
    assert run.expected_start == scheduled, "it is the first one's, not the rerun's"
    assert run.started_at == next(s.timestamp for s in history if s.type is RUNNING)
    assert run.ended_at == history[-1].timestamp


def test_a_task_run_has_its_state_its_end_and_what_became_of_its_result(stage: Stage) -> None:
    run_id = stage.running()
    stage.controls.run_task(run_id, COMPLETED, persisted=True)
    stage.controls.run_task(run_id, COMPLETED)
    stage.controls.run_task(run_id, COMPLETED, cached=True)
    stage.controls.run_task(run_id, CRASHED)
    stage.controls.run_task(run_id, RUNNING)
    found = task_runs_of(stage, run_id)
    rows = sorted((t.state, t.persisted, t.cached, t.ended_at is not None) for t in found)
    assert rows == sorted(
        [
            (COMPLETED, True, False, True),
            (COMPLETED, False, False, True),
            (COMPLETED, True, True, True),
            (CRASHED, False, False, True),
            (RUNNING, False, False, False),
        ]
    )
    assert all(t.ended_at >= t.started_at for t in found if t.ended_at)
