"""What the guards ask of Prefect: how long a deployment's completed runs took, and their tasks."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import uuid4

from chalicelib.core.model.flow_run import StateType
from tests.contract.stage import Stage

COMPLETED, RUNNING, CRASHED = StateType.COMPLETED, StateType.RUNNING, StateType.CRASHED
AGES_AGO = datetime(2020, 1, 1, tzinfo=UTC)
MARGIN = timedelta(minutes=5)


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
    found = stage.prefect.read_task_runs(run_id, AGES_AGO, datetime.now(UTC) + MARGIN)
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
