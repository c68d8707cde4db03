"""The drills that the end-to-end tests leave out, with a real flow, worker and Prefect."""

from localcloud.cloud import wait_for
from tests.e2e.command import spotctl
from tests.e2e.scenario import Stage


def test_a_drill_with_a_throw_away_flow_passes(stage: Stage) -> None:
    said = spotctl(stage.cloud, "drill", "--throw-away", "--timeout", "300")
    assert said.code == 0, said
    assert said.answer["passed"]
    run_id = said.answer["flow_run"]["id"]
    wait_for("the run's end", 300, lambda: stage.cloud.prefect.is_final(run_id))
    assert stage.cloud.prefect.run(run_id)["state_type"] == "COMPLETED"
    assert len(stage.cloud.tasks(run_id)) == 2


def test_a_drill_of_a_run_whose_budget_is_spent_ends_on_demand(stage: Stage) -> None:
    run = stage.start("waits", tags=("spot-retries:0",), interruptions=1, seconds=8)
    run.wait_for_start(1)
    run.wait_for_state("RUNNING")
    task = run.containers()[-1].task_arn
    tried = spotctl(stage.cloud, "drill", "--task", task, "--dry-run")
    assert tried.answer == {"dry_run": True, "task": task, "flow_run": run.id}
    assert stage.cloud.fargate.running(run.id) == [task], "a dry run touched the task"
    said = spotctl(stage.cloud, "drill", "--task", task.rpartition("/")[2], "--timeout", "300")
    assert said.code == 0, said
    assert "FARGATE, task" in said.answer["steps"][-1]["found"]
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    assert not run.verdict(budget=0).findings
