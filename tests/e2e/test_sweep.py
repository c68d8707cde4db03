"""What no event told, repaired by the deployed `sweep`: real flows, real worker, real server."""

import time
from typing import Any

from localcloud.bootstrap import CLUSTER, WORK_POOL
from localcloud.cloud import SWEEP, wait_for
from localcloud.events import drop
from tests.e2e.scenario import Run, Stage

GRACE_SECONDS = 6


def sweep(stage: Stage) -> dict[str, Any]:
    """Run the deployed function once the grace is over; return what it says it did."""
    time.sleep(GRACE_SECONDS)
    answer = stage.cloud.lambdas.invoke(SWEEP, {"source": "aws.events", "detail": {}})
    assert answer.status == "ok", answer.error
    return dict(answer.answer)


def wait_until_stopped(run: Run) -> None:
    ecs = run.cloud.aws.client("ecs")
    task = run.containers()[-1].task_arn

    def stopped() -> bool:
        described = ecs.describe_tasks(cluster=CLUSTER, tasks=[task])["tasks"]
        return bool(described[0]["lastStatus"] == "STOPPED")

    wait_for("the task's end", 60, stopped)


def test_an_interruption_whose_every_event_was_dropped_is_repaired(stage: Stage) -> None:
    stage.cloud.router.mischief = drop(lambda _: True)
    run = stage.start("waits", tags=("spot-retries:0",), interruptions=1)
    run.wait_for_start(1)
    run.interrupt()
    wait_until_stopped(run)
    assert "RUNNING" in stage.cloud.prefect.run(run.id)["state_type"]
    report = sweep(stage)
    assert report["finished"]
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    assert not run.verdict(budget=0).findings


def test_a_task_stopped_by_hand_leaves_a_crashed_run_that_says_so(stage: Stage) -> None:
    run = stage.start("waits", interruptions=1)
    run.wait_for_start(1)
    task = run.containers()[-1].task_arn
    stage.cloud.aws.client("ecs").stop_task(cluster=CLUSTER, task=task, reason="ann was here")
    wait_until_stopped(run)
    sweep(stage)
    ended = stage.cloud.prefect.run(run.id)
    assert ended["state_type"] == "CRASHED"
    assert "somebody stopped it (ann was here" in ended["state"]["message"]
    assert run.starts() == 1


def test_a_run_that_spot_had_no_room_for_goes_on_demand(stage: Stage) -> None:
    fargate, prefect = stage.cloud.fargate, stage.cloud.prefect
    fargate.capacity["FARGATE_SPOT"] = False
    try:
        run = stage.start("waits", interruptions=0)
        wait_for("the worker to give up", 90, lambda: prefect.is_final(run.id))
    finally:
        fargate.capacity["FARGATE_SPOT"] = True
    assert "Capacity is unavailable" in prefect.run(run.id)["state"]["message"]
    sweep(stage)
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    assert [life.capacity for life in run.containers()] == ["FARGATE"]


def test_a_sweep_leaves_healthy_runs_alone(stage: Stage) -> None:
    run = stage.start("waits", interruptions=0, seconds=20)
    run.wait_for_start(1)
    states = run.states()
    report = sweep(stage)
    assert report["seen"] >= 1
    assert run.states() == states
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    assert stage.cloud.prefect.run(run.id)["work_pool_name"] == WORK_POOL
