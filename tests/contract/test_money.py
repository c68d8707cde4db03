"""What a bill asks of Prefect: which work of an attempt is kept, and a deployment's name."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from chalicelib.core.model.flow_run import StateType
from chalicelib.core.money.report import TableArtifact
from tests.contract.stage import Stage

COMPLETED, RUNNING = StateType.COMPLETED, StateType.RUNNING
AGES_AGO = datetime(2020, 1, 1, tzinfo=UTC)
MARGIN = timedelta(minutes=5)


def kept(stage: Stage, run_id: UUID) -> list[tuple[StateType, bool]]:
    found = stage.prefect.read_task_runs(run_id, AGES_AGO, datetime.now(UTC) + MARGIN)
    return sorted((task_run.state, task_run.persisted) for task_run in found)


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
    [task_run] = stage.prefect.read_task_runs(run_id, AGES_AGO, datetime.now(UTC) + MARGIN)
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
    run = stage.run(stage.scheduled())
    assert run.deployment_id is not None
    name = stage.prefect.read_deployment_name(run.deployment_id)
    assert name.startswith("etl/deployment-")
    assert stage.prefect.read_deployment_name(run.deployment_id) == name
    assert stage.prefect.read_deployment_name(uuid4()) == ""


def test_a_table_is_stored_and_its_newest_version_is_the_last_one(stage: Stage) -> None:
    key = f"spot-savings-{uuid4().hex[:8]}"
    for savings in (1.5, 2.5):
        rows = [{"deployment": "etl/nightly", "runs": 3, "savings_usd": savings}]
        stage.prefect.write_table(TableArtifact(key, rows, "What Spot saved."))
    assert stage.controls.table(key) == [
        {"deployment": "etl/nightly", "runs": 3, "savings_usd": 2.5}
    ]
