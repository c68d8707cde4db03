"""A deadline that moves a run to on-demand within its budget, as the deployed zip decides."""

from tests.e2e.scenario import Stage


def test_a_run_that_one_more_interruption_would_make_late_goes_on_demand_within_its_budget(
    stage: Stage,
) -> None:
    like = stage.start("waits", interruptions=0, seconds=40)
    assert like.wait_for_end()["state_type"] == "COMPLETED"
    run = stage.start("waits", tags=("spot-deadline:1m",), interruptions=1)
    run.wait_for_start(1)
    run.interrupt()
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    assert run.capacities() == ["FARGATE_SPOT", "FARGATE"]
    annotation = stage.cloud.prefect.annotation(run.id)
    assert "**Why:** deadline\\: an attempt on Spot may need" in annotation
    assert not run.verdict(budget=0).findings
