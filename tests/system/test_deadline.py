"""A deadline that moves a run to on-demand within its budget, as the deployed zip decides."""

from tests.e2e.scenario import Run, Stage
from tests.system.plays import Play, Playbill


def interrupted_near_its_deadline(stage: Stage) -> Run:
    like = stage.start("waits", interruptions=0, seconds=40)
    assert like.wait_for_end()["state_type"] == "COMPLETED"
    run = stage.start("waits", tags=("spot-deadline:1m",), interruptions=1)
    run.interrupt_each_start(1)
    assert run.wait_for_end()["state_type"] == "COMPLETED"
    return run


NEAR_ITS_DEADLINE = Play("interrupted near its deadline", interrupted_near_its_deadline)
PLAYS = (NEAR_ITS_DEADLINE,)


def test_a_run_that_one_more_interruption_would_make_late_goes_on_demand_within_its_budget(
    playbill: Playbill,
) -> None:
    run = playbill.result(NEAR_ITS_DEADLINE)
    assert run.capacities() == ["FARGATE_SPOT", "FARGATE"]
    annotation = run.cloud.prefect.annotation(run.id)
    assert "**Why:** deadline\\: an attempt on Spot may need" in annotation
    assert not run.verdict(budget=0).findings
