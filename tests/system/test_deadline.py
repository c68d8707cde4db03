"""A deadline that moves a run to on-demand within its budget, as the deployed zip decides."""

from tests.e2e.scenario import Run, Stage
from tests.e2e.stories import story


@story
def interrupted_near_its_deadline(stage: Stage) -> Run:
    stage.start("waits", interruptions=0, seconds=40).completes(starts=1)
    run = stage.start("waits", interruptions=1)
    run.wait_for_start(1)
    # Tagged no earlier, since another story's sweep may move a run before it starts.
    run.cloud.prefect.tag(run.id, "spot-deadline:1m")
    run.interrupt()
    run.completes(starts=2)
    return run


def test_a_run_that_one_more_interruption_would_make_late_goes_on_demand_within_its_budget(
    interrupted_near_its_deadline: Run,
) -> None:
    run = interrupted_near_its_deadline
    assert run.capacities() == ["FARGATE_SPOT", "FARGATE"]
    annotation = run.cloud.prefect.annotation(run.id)
    assert "**Why:** deadline\\: an attempt on Spot may need" in annotation
    assert not run.verdict(budget=0).findings
