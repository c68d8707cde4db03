"""A real flow, started by a real worker, interrupted, rescued by the deployed zip."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localcloud.bootstrap import CLUSTER, WORK_POOL
from localcloud.cloud import REACT, wait_for
from localcloud.events import delay, duplicate, shuffle
from tests.e2e.scenario import Stage
from tests.make import make_event

EVENTS = Path(__file__).parent.parent / "events"
SIGTERM_BEHAVIOR = "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"


def test_row_lazarus_a_run_interrupted_once_resumes_on_spot(stage: Stage) -> None:
    run = stage.start("steps", count=4, seconds=1.5)
    wait_for("a persisted step", 60, lambda: "step 0" in run.notes())
    run.interrupt()
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    assert [life.capacity for life in run.containers()] == ["FARGATE_SPOT", "FARGATE_SPOT"]
    assert run.starts() == 2
    done = [line for line in run.notes() if line.startswith("step")]
    assert sorted(done) == [f"step {n}" for n in range(4)], "a persisted step was done again"
    assert not run.verdict(budget=3).findings


def test_row_cpu_and_memory_per_run_are_kept_when_it_finishes_on_fargate(
    stage: Stage,
) -> None:
    own = {"cpu": 512, "memory": 2048, "env": {"REGION_OF_SALES": "north"}}
    tags = ("spot-retries:1", "team:sales")
    run = stage.start("waits", tags=tags, job_variables=own, interruptions=2)
    for number in (1, 2):
        run.wait_for_start(number)
        run.interrupt()
    finished = run.wait_for_end()
    assert finished["state_type"] == "COMPLETED"
    containers = run.containers()
    assert [life.capacity for life in containers] == ["FARGATE_SPOT", "FARGATE_SPOT", "FARGATE"]
    for life in containers:
        assert (life.cpu, life.memory) == ("512", "2048")
        assert life.environment["REGION_OF_SALES"] == "north"
    assert finished["job_variables"]["env"] == own["env"]
    assert finished["job_variables"]["launch_type"] == "FARGATE"
    assert set(finished["tags"]) == {*tags, "spot-interrupted", "spot-on-demand"}
    assert finished["labels"]["prefect-spot.interruptions"] == 2
    assert finished["labels"]["prefect-spot.capacity"] == "FARGATE"
    assert not run.verdict(budget=1).findings
    annotation = stage.cloud.prefect.annotation(run.id)
    assert "interruption 2" in annotation
    assert "USD" in annotation
    assert "us\\-east\\-1" in annotation
    assert "FARGATE" in annotation.split("What happens next")[1]
    logged = [line["message"] for line in stage.cloud.prefect.logs(run.id)]
    assert any("Spot interruption 1 of 1" in line for line in logged)
    emitted = {event["event"] for event in stage.cloud.prefect.events(run.id)}
    ours = {"prefect-spot.interrupted", "prefect-spot.rerun", "prefect-spot.on-demand"}
    assert ours <= emitted


def test_a_run_that_one_more_interruption_would_make_late_goes_on_demand_within_its_budget(
    stage: Stage,
) -> None:
    like = stage.start("waits", interruptions=0, seconds=40)
    assert like.wait_for_end()["state_type"] == "COMPLETED"
    run = stage.start("waits", tags=("spot-deadline:1m",), interruptions=1)
    run.wait_for_start(1)
    run.interrupt()
    finished = run.wait_for_end()
    assert finished["state_type"] == "COMPLETED"
    assert [life.capacity for life in run.containers()] == ["FARGATE_SPOT", "FARGATE"]
    assert "**Why:** deadline\\: an attempt on Spot may need" in stage.cloud.prefect.annotation(
        run.id
    )
    assert not run.verdict(budget=0).findings


def test_an_event_delivered_three_times_and_out_of_order_makes_one_rerun(stage: Stage) -> None:
    stage.cloud.router.mischief = duplicate(3, then=shuffle(seed=7, within_seconds=3))
    run = stage.start("waits", interruptions=1, seconds=8)
    run.wait_for_start(1)
    run.interrupt()
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    assert run.starts() == 2
    assert not run.verdict(budget=3).findings
    assert run.states().count("RUNNING") == 2


def test_a_stop_that_is_told_30_s_into_the_rerun_does_not_touch_it(stage: Stage) -> None:
    cloud = stage.cloud
    cloud.router.mischief = delay(lambda event: event["detail"]["lastStatus"] == "STOPPED", 3600)
    run = stage.start("waits", interruptions=1, seconds=45)
    run.wait_for_start(1)
    task = run.interrupt()
    run.wait_for_start(2)
    time.sleep(30)
    stopped = cloud.aws.client("ecs").describe_tasks(cluster=CLUSTER, tasks=[task])["tasks"][0]
    assert stopped["lastStatus"] == "STOPPED"
    late = make_event(
        {
            **json.loads(json.dumps(stopped, default=lambda at: at.isoformat())),
            "executionStoppedAt": stopped["executionStoppedAt"].isoformat(),
        }
    )
    before = run.states()
    answer = cloud.lambdas.invoke(REACT, late)
    assert (answer.status, answer.answer["decision"]) == ("ok", "ignore")
    assert run.states() == before, "the late stop touched the run"
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    assert len(run.containers()) == 2
    assert not run.verdict(budget=3).findings


@pytest.mark.parametrize(
    ("job_variables", "state_left"),
    [
        pytest.param({}, "RUNNING", id="relinquish: the run is left as it is"),
        pytest.param(
            {"env": {SIGTERM_BEHAVIOR: "crash"}},
            "RUNNING",
            id="unset: the engine is killed before it can say anything",
        ),
        pytest.param(
            {"command": "python -m prefect.engine", "env": {SIGTERM_BEHAVIOR: "crash"}},
            "CRASHED",
            id="an older image: its engine is the main process, and marks the run Crashed",
        ),
    ],
)
def test_every_behaviour_of_a_flow_image_is_rescued(
    stage: Stage, job_variables: dict[str, Any], state_left: str
) -> None:
    run = stage.start(
        "waits", job_variables=job_variables, tags=("spot-retries:1",), interruptions=2
    )
    for number in (1, 2):
        run.wait_for_start(number)
        run.interrupt()
    run.wait_for_start(3)  # a run that marked itself Crashed looks over until it is rescued
    finished = run.wait_for_end()
    assert finished["state_type"] == "COMPLETED"
    assert run.starts() == 3
    assert finished["labels"]["prefect-spot.interruptions"] == 2, "an interruption was not counted"
    assert ("CRASHED" in run.states()) is (state_left == "CRASHED")
    assert not run.verdict(budget=1).findings


def test_a_run_that_rescheduled_itself_is_moved_like_any_other(stage: Stage) -> None:
    prefect = stage.cloud.prefect
    own = {"env": {SIGTERM_BEHAVIOR: "reschedule"}}
    run = stage.start("waits", job_variables=own, tags=("spot-retries:0",), interruptions=1)
    run.wait_for_start(1)
    prefect.pause_queue(WORK_POOL, True)  # a worker that does not look before we do
    try:
        run.interrupt()
        stage.cloud.lambdas.wait_idle(30)
    finally:
        prefect.pause_queue(WORK_POOL, False)
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    states = prefect.history(run.id)
    itself = [s for s in states if s["name"] == "AwaitingRetry" and not s["message"]]
    assert len(itself) == 1, "the run did not reschedule itself: the test shows nothing"
    assert not run.verdict(budget=0).findings


def test_a_run_that_was_picked_up_before_its_old_container_was_gone_is_left_alone(
    stage: Stage,
) -> None:
    fargate = stage.cloud.fargate
    quick = fargate.timings
    fargate.timings = replace(quick, provisioning_seconds=8)  # still quick, for Fargate
    try:
        own = {"env": {SIGTERM_BEHAVIOR: "reschedule"}}
        run = stage.start("waits", job_variables=own, interruptions=1)
        run.wait_for_start(1)
        run.interrupt()
        finished = run.wait_for_end()
    finally:
        fargate.timings = quick
    assert finished["state_type"] == "COMPLETED"
    assert run.starts() == 2
    assert finished["labels"]["prefect-spot.interruptions"] == 1
    assert not run.verdict(budget=3).findings


def test_interruptions_do_not_eat_the_flows_own_retries(stage: Stage) -> None:
    run = stage.start("fails", interruptions=2, failures=2)
    for number in (1, 2):
        run.wait_for_start(number)
        run.interrupt()
    finished = run.wait_for_end()
    assert finished["state_type"] == "COMPLETED", "an own retry was missing"
    assert run.starts() == 5, "two interruptions, two own failures, one success"
    assert not run.verdict(budget=2).findings


def test_a_flow_that_fails_too_often_still_fails(stage: Stage) -> None:
    run = stage.start("fails", interruptions=1, failures=3)
    run.wait_for_start(1)
    run.interrupt()
    assert run.wait_for_end()["state_type"] == "FAILED"
    assert run.starts() == 4, "one interruption, and three failures: the first and its two retries"
    assert not run.verdict(budget=2).findings


def test_a_parent_gets_its_childs_final_result_and_never_an_interruption(stage: Stage) -> None:
    child_file = stage.folder / "child-of-a-parent"
    run = stage.start("parent", child_file=str(child_file))
    child_id = wait_for(
        "the child", 90, lambda: next((c["id"] for c in stage.cloud.prefect.children(run.id)), None)
    )
    child = type(run)(stage.cloud, child_id, child_file)
    for number in (1, 2):
        child.wait_for_start(number)
        child.interrupt()
    assert child.wait_for_end()["state_type"] == "COMPLETED"
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    assert run.notes() == [f"child {child_id} COMPLETED"]
    assert [life.capacity for life in child.containers()][-1] == "FARGATE"
    assert not child.verdict(budget=1).findings
    assert not run.verdict().findings


def test_the_guides_minimal_event_and_a_malformed_one_are_answered(stage: Stage) -> None:
    minimal = json.loads((EVENTS / "spot-warning-as-documented.json").read_text())
    others: list[dict[str, Any]] = [{}, {"detail": []}, make_event(source="somebody")]
    for event in (minimal, *others):
        answer = stage.cloud.lambdas.invoke(REACT, event)
        assert (answer.status, answer.answer["decision"]) == ("ok", "ignore"), answer.error


def test_logs_name_run_task_and_decision_and_no_secret(stage: Stage) -> None:
    run = stage.start("waits", interruptions=1, job_variables={"env": {"TOKEN": "canary-4711"}})
    run.wait_for_start(1)
    task = run.interrupt()
    run.wait_for_end()
    printed = [line for i in stage.cloud.lambdas.invocations for line in i.logs]
    ours = [json.loads(line) for line in printed if run.id in line]
    decided = [line for line in ours if line.get("decision", "ignore") != "ignore"]
    assert {"warned", "rerun-on-spot", "finish-rerun"} <= {line["decision"] for line in decided}
    assert {line["task_arn"] for line in decided} == {task}
    everything = "\n".join(printed)
    assert "canary-4711" not in everything
    assert "only-for-these-tests" not in everything


def test_observe_mode_changes_no_run(stage: Stage) -> None:
    cloud = stage.cloud
    functions = cloud.aws.client("lambda")
    variables = functions.get_function_configuration(FunctionName=REACT)["Environment"]["Variables"]
    functions.update_function_configuration(
        FunctionName=REACT, Environment={"Variables": {**variables, "MODE": "observe"}}
    )
    try:
        run = stage.start("waits", tags=("mine",), interruptions=1)
        run.wait_for_start(1)
        before, history = cloud.prefect.run(run.id), cloud.prefect.history(run.id)
        run.interrupt()
        wait_for(
            "the note of what would have been done",
            60,
            lambda: "would be rerun on FARGATE" in _plain(cloud.prefect.annotation(run.id)),
        )
        cloud.lambdas.wait_idle(30)
        time.sleep(5)
        after = cloud.prefect.run(run.id)
        for field in ("state", "job_variables", "tags", "labels", "empirical_policy", "run_count"):
            assert after[field] == before[field], field
        assert cloud.prefect.history(run.id) == history
        assert len(run.containers()) == 1
        emitted = {event["event"] for event in cloud.prefect.events(run.id)}
        assert "prefect-spot.interrupted" in emitted
        assert "prefect-spot.rerun" not in emitted
    finally:
        functions.update_function_configuration(
            FunctionName=REACT, Environment={"Variables": variables}
        )


def _plain(markdown: str) -> str:
    return markdown.replace("\\", "")
