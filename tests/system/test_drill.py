"""The drills that the end-to-end tests leave out, with a real flow, worker and Prefect."""

from localcloud.cloud import wait_for
from tests.e2e.command import Said, spotctl
from tests.e2e.scenario import END_SECONDS, Run, Stage
from tests.system.plays import Play, Playbill


def budget_spent(stage: Stage) -> tuple[Run, Said]:
    run = stage.start("waits", tags=("spot-retries:0",), interruptions=1, seconds=8)
    run.wait_for_start(1)
    run.wait_for_state("RUNNING")
    task = run.containers()[-1].task_arn
    tried = spotctl(stage.cloud, "drill", "--task", task, "--dry-run")
    assert tried.answer == {"dry_run": True, "task": task, "flow_run": run.id}
    assert stage.cloud.fargate.running(run.id) == [task], "a dry run touched the task"
    task_id = task.rpartition("/")[2]
    said = spotctl(stage.cloud, "drill", "--task", task_id, "--timeout", "500")
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    return run, said


BUDGET_SPENT = Play("a drill of a run whose budget is spent", budget_spent)
PLAYS = (BUDGET_SPENT,)


def test_a_drill_with_a_throw_away_flow_passes(stage: Stage) -> None:
    cloud = stage.cloud
    said = spotctl(cloud, "drill", "--throw-away", "--timeout", "500")
    assert said.code == 0, said
    assert said.answer["passed"]
    run_id = said.answer["flow_run"]["id"]
    wait_for("the run's end", END_SECONDS, lambda: cloud.prefect.is_final(run_id))
    assert cloud.prefect.run(run_id)["state_type"] == "COMPLETED"
    assert len(cloud.tasks(run_id)) == 2


def test_a_drill_of_a_run_whose_budget_is_spent_ends_on_demand(playbill: Playbill) -> None:
    run, said = playbill.result(BUDGET_SPENT)
    assert said.code == 0, said
    assert "FARGATE, task" in said.answer["steps"][-1]["found"]
    assert not run.verdict(budget=0).findings
