"""What no event reported, repaired by the deployed `sweep`: real flows, worker and server."""

from dataclasses import dataclass
from typing import Any

from localcloud.bootstrap import CLUSTER
from localcloud.cloud import SWEEP
from localcloud.events import drop
from localcloud.fargate import REFUSED_CAPACITY
from tests.e2e.scenario import Run, Stage, decisions
from tests.e2e.stories import Stories, story
from tests.e2e.test_money import SIZE, bills_of, charged, price


@dataclass(frozen=True)
class Swept:
    """A run, its state before a sweep, and what the sweep answered; the run has ended since."""

    run: Run
    before: dict[str, Any]
    answer: dict[str, Any]


def swept(stage: Stage, run: Run) -> Swept:
    """Sweep once, and wait for the run's end."""
    before = run.fields()
    answer = stage.sweep()
    run.wait_for_end()
    return Swept(run, before, answer)


@story
def missed(stage: Stage) -> Swept:
    run = stage.start(
        "waits",
        tags=("spot-retries:0",),
        job_variables=SIZE,
        event_faults=drop(lambda _: True),
        interruptions=1,
    )
    run.interrupt_each_start(1)
    run.wait_until_stopped()
    return swept(stage, run)


def test_an_interruption_whose_every_event_was_dropped_is_repaired(missed: Swept) -> None:
    assert missed.before["state_type"] == "RUNNING"
    assert missed.answer["finished"]
    assert missed.run.state_type() == "COMPLETED"
    assert not missed.run.verdict(budget=0).findings


def test_a_task_whose_every_event_was_dropped_is_billed(stage: Stage, missed: Swept) -> None:
    task = missed.run.containers()[0].task_arn
    assert bills_of(stage)[task]["cost_usd"] == str(price(charged(stage, task), "FARGATE_SPOT"))


@story
def stopped_by_hand(stage: Stage) -> Swept:
    run = stage.start("waits", interruptions=1)
    run.wait_for_start(1)
    task = run.containers()[-1].task_arn
    stage.cloud.aws.client("ecs").stop_task(cluster=CLUSTER, task=task, reason="ann was here")
    run.wait_until_stopped()
    return swept(stage, run)


def test_a_task_stopped_by_hand_leaves_a_crashed_run_that_says_so(stopped_by_hand: Swept) -> None:
    assert stopped_by_hand.before["state_type"] == "RUNNING"
    assert stopped_by_hand.run.state_type() == "CRASHED"
    assert "a user stopped it (ann was here" in stopped_by_hand.run.fields()["state"]["message"]
    assert stopped_by_hand.run.starts() == 1


@story
def refused(stage: Stage) -> Swept:
    run = stage.start(
        "waits", job_variables={"env": {REFUSED_CAPACITY: "FARGATE_SPOT"}}, interruptions=0
    )
    run.wait_for_state("CRASHED")  # the worker gives up
    return swept(stage, run)


def test_a_run_that_spot_had_no_room_for_goes_on_demand(refused: Swept) -> None:
    assert "Capacity is unavailable" in refused.before["state"]["message"]
    assert refused.run.state_type() == "COMPLETED"
    assert refused.run.capacities() == ["FARGATE"]


def test_no_sweep_moved_a_run_that_needed_none(
    stories: Stories,
    missed: Swept,
    stopped_by_hand: Swept,
    refused: Swept,
    everything_is_over: None,
) -> None:
    """Else another story would have ended well for the wrong reason."""
    invocations = stories.stage.cloud.lambdas.invocations
    decided = decisions(line for i in invocations if i.function == SWEEP for line in i.logs)
    refused_child = stories.runs(["waited_for_child"])[1:]  # the parent comes first
    runs = [*(repaired.run for repaired in (missed, stopped_by_hand, refused)), *refused_child]
    needed = {run.id for run in runs}
    assert [line for line in decided if line["flow_run_id"] not in needed] == []
    assert {line["flow_run_id"] for line in decided} == needed
