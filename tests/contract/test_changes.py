"""What can be changed on a run, and what people find on it afterwards."""

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import uuid4

import pytest

from chalicelib.core.model.flow_run import RunChange, RunPolicy, StateType, StateVerdict
from chalicelib.core.model.policy import STRATEGY, on_demand_variables
from chalicelib.core.rescue.actions import Artifact, LogLine, PrefectEvent
from chalicelib.errors import PrefectRefusedError, PrefectRejectedError
from tests.contract.stage import Stage

ON_SPOT = {"cpu": 512, "memory": 1024, "launch_type": "FARGATE_SPOT", "env": {"A": "1"}}
ON_DEMAND = on_demand_variables(ON_SPOT, {STRATEGY: []})
WHOLE = RunChange(job_variables=ON_DEMAND, policy=RunPolicy(retries=9), tags=("late",))


def test_job_variables_are_replaced_whole_while_the_run_is_parked(stage: Stage) -> None:
    run_id = stage.controls.create_run(job_variables=ON_SPOT)
    assert dict(stage.run(run_id).job_variables) == ON_SPOT
    stage.park(run_id)
    for variables in (ON_DEMAND, {"launch_type": "FARGATE"}):
        stage.prefect.change_run(run_id, RunChange(job_variables=variables))
        assert dict(stage.run(run_id).job_variables) == variables


@pytest.mark.parametrize("state", ["running", "pending", "crashed"])
def test_a_change_with_job_variables_is_rejected_whole_in_any_other_state(
    stage: Stage, state: str
) -> None:
    run_id = stage.run_in(state)
    before = stage.run(run_id)
    with pytest.raises(PrefectRejectedError, match="cannot be updated"):
        stage.prefect.change_run(run_id, WHOLE)
    assert stage.run(run_id) == before


def test_job_variables_are_rejected_without_a_deployment(stage: Stage) -> None:
    run_id = stage.running_ad_hoc()
    stage.park(run_id)
    with pytest.raises(PrefectRejectedError, match="deployment"):
        stage.prefect.change_run(run_id, RunChange(job_variables=ON_DEMAND))


def test_a_deployment_takes_along_what_never_started_and_the_rest_takes_no_job_variables(
    stage: Stage,
) -> None:
    deployment = stage.controls.create_deployment()
    unstarted = stage.controls.create_run(deployment_id=deployment)
    running = stage.running(deployment)
    stage.controls.delete_deployment(deployment)
    assert stage.prefect.read_run(unstarted) is None
    assert stage.run(running).deployment_id == deployment
    assert stage.park(running).verdict is StateVerdict.ACCEPT
    with pytest.raises(PrefectRejectedError, match=r"(?i)deployment"):
        stage.prefect.change_run(running, RunChange(job_variables={"launch_type": "FARGATE"}))
    assert stage.propose(running, StateType.CRASHED).verdict is StateVerdict.ACCEPT


def test_all_of_a_change_is_made_at_once_while_the_run_is_parked(stage: Stage) -> None:
    run_id = stage.run_in("parked")
    stage.prefect.change_run(run_id, WHOLE)
    run = stage.run(run_id)
    assert dict(run.job_variables) == ON_DEMAND
    assert (run.tags, run.policy.retries) == (("late",), 9)


def test_tags_are_replaced_whole_in_any_state(stage: Stage) -> None:
    run_id = stage.controls.create_run(tags=["etl", "nightly"])
    assert set(stage.run(run_id).tags) == {"etl", "nightly"}
    stage.controls.worker_picks_up(run_id)
    stage.prefect.change_run(run_id, RunChange(tags=("spot-interrupted",)))
    assert stage.run(run_id).tags == ("spot-interrupted",)


def test_a_change_of_an_unknown_run_is_rejected_and_an_empty_one_is_never_sent(
    stage: Stage,
) -> None:
    stage.prefect.change_run(uuid4(), RunChange())
    with pytest.raises(PrefectRejectedError, match=r"not found|404"):
        stage.prefect.change_run(uuid4(), RunChange(tags=("x",)))


def test_labels_are_merged_and_a_null_one_is_never_sent(stage: Stage) -> None:
    run_id = stage.running()
    null: dict[str, str | int] = {"owner": None}  # type: ignore[dict-item]  # meant
    stage.prefect.add_labels(run_id, {"prefect-spot.interruptions": 1, "team": "etl"})
    stage.prefect.add_labels(run_id, {"prefect-spot.interruptions": 2})
    with pytest.raises(PrefectRejectedError, match="null"):
        stage.prefect.add_labels(run_id, null)
    labels = stage.controls.labels_of(run_id)
    assert (labels["prefect-spot.interruptions"], labels["team"]) == (2, "etl")
    assert "owner" not in labels


def test_a_log_line_is_in_the_log_and_an_artifact_with_the_same_key_becomes_a_newer_version(
    stage: Stage,
) -> None:
    run_id = stage.running()
    stage.prefect.write_log(LogLine(run_id, datetime.now(UTC), "Spot took the task", 30))
    assert stage.controls.logs_of(run_id) == [(30, "Spot took the task")]
    key = f"spot-interruption-{str(run_id)[:8]}"
    for markdown in ("# 1 of 3", "# 2 of 3"):
        stage.prefect.write_artifact(Artifact(run_id, key, markdown, "Interruptions"))
    assert stage.controls.artifacts_of(run_id) == [(key, "# 1 of 3"), (key, "# 2 of 3")]


def test_an_event_with_the_same_id_counts_once(stage: Stage) -> None:
    run_id = stage.running()
    at = datetime.now(UTC)
    rerun = PrefectEvent(uuid4(), run_id, "run", "prefect-spot.rerun", at, {"n": 1})
    seen = PrefectEvent(uuid4(), run_id, "run", "prefect-spot.interrupted", at, {})
    for events in ([rerun], [rerun, seen], []):
        stage.prefect.emit_events(events)
    found = stage.controls.events_of(run_id, at_least=2)
    assert found == [(seen.id, seen.name), (rerun.id, rerun.name)]


def test_wrong_credentials_are_refused_where_any_are_asked_for(stage: Stage) -> None:
    run_id = stage.controls.create_run()
    if stage.asks_for_credentials:
        with pytest.raises(PrefectRefusedError):
            stage.unauthorized.read_run(run_id)
        with pytest.raises(PrefectRefusedError, match="401"):  # CSRF protection is not blamed
            stage.unauthorized.change_run(run_id, RunChange(tags=("a",)))
    else:
        assert stage.unauthorized.read_run(run_id) is not None


def test_a_write_survives_the_loss_of_a_csrf_token_where_one_is_asked_for(stage: Stage) -> None:
    run_id = stage.controls.create_run()
    tokens: list[Mapping[str, str] | None] = []
    for number in (1, 2):
        stage.prefect.add_labels(run_id, {"number": number})
        assert stage.controls.labels_of(run_id)["number"] == number
        tokens.append(stage.protected.csrf if stage.protected else None)
        is_protected = stage.loses_csrf_token()
    assert all(tokens) is (tokens[0] != tokens[1]) is is_protected
