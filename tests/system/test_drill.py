"""The drills that the end-to-end tests leave out, with a real flow, worker and Prefect."""

from localcloud.cloud import wait_for
from tests.e2e.command import CommandResult, spotctl
from tests.e2e.scenario import END_SECONDS, Run, Stage
from tests.e2e.stories import story


@story
def drilled_with_a_spent_budget(stage: Stage) -> tuple[Run, CommandResult]:
    run = stage.start("waits", tags=("spot-retries:0",), interruptions=1, seconds=8)
    run.wait_for_start(1)
    run.wait_for_state("RUNNING")
    task = run.containers()[-1].task_arn
    tried = spotctl(stage.cloud, "drill", "--task", task, "--dry-run")
    assert tried.answer == {
        "dry_run": True,
        "task": task,
        "flow_run": run.id,
        "flow_run_name": run.fields()["name"],
        "deployment": "waits/e2e",
        "attempt": 1,
        "counts_as": "interruption 1 of the run (tag spot-retries:0); in the report a drill, which"
        " is in no total",
    }
    assert stage.cloud.fargate.running(run.id) == [task], "a dry run touched the task"
    task_id = task.rpartition("/")[2]
    result = spotctl(stage.cloud, "drill", "--task", task_id, "--yes", "--timeout", "500")
    run.completes(starts=2)
    return run, result


def test_a_drill_with_the_sample_flow_passes(stage: Stage) -> None:
    cloud = stage.cloud
    result = spotctl(cloud, "drill", "--sample-flow", "--timeout", "500")
    assert result.code == 0, result
    assert result.answer["passed"]
    run_id = result.answer["flow_run"]["id"]
    wait_for("the run's end", END_SECONDS, lambda: cloud.prefect.is_final(run_id))
    assert cloud.prefect.run(run_id)["state_type"] == "COMPLETED"
    assert len(cloud.tasks(run_id)) == 2


def test_a_drill_of_a_run_whose_budget_is_spent_ends_on_demand(
    drilled_with_a_spent_budget: tuple[Run, CommandResult],
) -> None:
    run, result = drilled_with_a_spent_budget
    assert result.code == 0, result
    assert "FARGATE, task" in result.answer["steps"][-1]["found"]
    assert not run.verdict(budget=0).findings
