"""Nothing is lost and nothing is run twice while Prefect, AWS and the event bus misbehave.

Real runs, a real worker, the deployed zip, its calls through fault proxies; the oracle judges. The
stories are played in the background, from the first test on.
"""

import json
import time
from dataclasses import replace

import pytest

from localcloud.cloud import REACT, wait_for
from localcloud.lambdas import Invocation
from localcloud.oracle import judge
from tests.e2e.scenario import Run
from tests.system.steps import send
from tests.system.stories import ACTS, STORIES
from tests.system.world import START_SECONDS, Act, Story, World

pytestmark = pytest.mark.timeout(600)


def begin(world: World, *, interruptions: int = 0, seconds: float = 1) -> Run:
    return world.stage.start("waits", interruptions=interruptions, seconds=seconds)


def end(world: World, name: str, run: Run, began: float) -> dict[str, object]:
    """Wait for the run's end, judge it and write its row; return the run."""
    prefect = world.cloud.prefect
    wait_for(f"the end of {run.id}", START_SECONDS, lambda: prefect.is_final(run.id))
    wait_for("the last exit", 60, lambda: not world.cloud.fargate.running(run.id))
    verdict = run.verdict(budget=3)
    world.note(name, verdict, time.monotonic() - began)
    assert not verdict.findings, f"{verdict}; {run.states()}"
    return prefect.run(run.id)


def newest_task(run: Run, number: int) -> str:
    """Return the ARN of the run's `number`-th task as soon as it is placed."""
    seconds = START_SECONDS
    wait_for(f"task {number}", seconds, lambda: len(run.containers()) >= number)
    return run.containers()[number - 1].task_arn


def invocations(world: World, run: Run) -> list[Invocation]:
    """Lambda's tries so far to have `react` answer an event about the run."""
    tries = world.cloud.lambdas.invocations
    return [i for i in tries if i.function == REACT and run.id in json.dumps(i.event)]


def test_a_run_interrupted_before_its_container_started_is_rerun(world: World) -> None:
    fargate = world.cloud.fargate
    usual = fargate.timings
    fargate.timings = replace(usual, provisioning_seconds=5)
    try:
        run = begin(world)
        task = newest_task(run, 1)
        began = time.monotonic()
        fargate.interrupt(task)
    finally:
        fargate.timings = usual
    finished = end(world, "interrupted while PROVISIONING", run, began)
    assert finished["state_type"] == "COMPLETED"
    assert run.starts() == 1, "the interrupted task's container was never to start"
    assert len(run.containers()) == 2


def test_a_run_interrupted_twice_within_seconds_is_rerun_twice(world: World) -> None:
    run = begin(world, interruptions=1)
    run.wait_for_start(1)
    began = time.monotonic()
    run.interrupt()
    world.cloud.fargate.interrupt(newest_task(run, 2))
    finished = end(world, "interrupted twice within seconds", run, began)
    assert finished["state_type"] == "COMPLETED"
    assert len(run.containers()) == 3


def test_a_run_that_completed_in_an_interrupted_container_is_not_rerun(world: World) -> None:
    run = begin(world, seconds=3)
    task = newest_task(run, 1)
    deadline = time.monotonic() + START_SECONDS
    while not world.cloud.prefect.is_final(run.id) and time.monotonic() < deadline:
        time.sleep(0.05)
    began = time.monotonic()
    world.cloud.fargate.interrupt(task)
    finished = end(world, "interrupted when the run was complete", run, began)
    assert run.containers()[0].interrupted_at is not None, "the container was gone before"
    assert finished["state_type"] == "COMPLETED"
    assert len(run.containers()) == 1


def test_a_run_interrupted_at_the_end_of_its_flow_completes(world: World) -> None:
    """Either it is over in time, or it is rerun: both are right, and nothing else is."""
    run = begin(world, seconds=3)
    run.wait_for_start(1)
    time.sleep(2.9)
    began = time.monotonic()
    world.cloud.fargate.interrupt(newest_task(run, 1))
    finished = end(world, "interrupted at the very end of the flow", run, began)
    assert finished["state_type"] == "COMPLETED"
    assert run.starts() == len(run.containers()) <= 2


def test_a_run_that_was_deleted_is_ignored_and_not_asked_for_again(world: World) -> None:
    run = begin(world, interruptions=1)
    run.wait_for_start(1)
    cloud, task = world.cloud, newest_task(run, 1)
    running = cloud.observe(run.id, rescued=False)
    began = time.monotonic()
    send(cloud, "DELETE", f"/flow_runs/{run.id}")
    run.interrupt()
    wait_for("the warning and both exits", 60, lambda: len(invocations(world, run)) >= 3)
    # Who deletes a run wants no more of it: to the oracle it is as good as cancelled.
    containers = [life for life in cloud.fargate.ledger() if life.task_arn == task]
    verdict = judge(replace(running, state_type="CANCELLED", containers=containers))
    world.note("Prefect answers 404: the run was deleted", verdict, time.monotonic() - began)
    assert not verdict.findings
    assert len(run.containers()) == 1
    answered = [i for i in invocations(world, run) if i.error is None]
    assert {i.answer["reason"] for i in answered} == {"Prefect does not know the flow run"}
    others = [i.error for i in invocations(world, run) if i.error]  # two events at the same time
    assert all(error["errorType"] == "LeaseHeldError" for error in others), others


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_an_interrupted_run_is_rescued_once(world: World, act: Act) -> None:
    outcome = world.outcomes[act.name].result()
    assert (outcome.lost, outcome.run_twice) == (0, 0), outcome.report
    assert not outcome.complaints, f"{outcome.complaints}; {outcome.report}"
    assert outcome.faults >= act.faults, f"not as much went wrong as planned: {outcome.report}"


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_run_completes_after_as_many_starts_as_it_needs(world: World, story: Story) -> None:
    run = world.runs[story.name].result()
    assert world.cloud.prefect.run(run.id)["state_type"] == "COMPLETED"
    assert run.starts() == len(run.containers()) == len(story.acts) + 1


def test_once_all_is_quiet_the_verdict_is_the_same(world: World) -> None:
    wait_for("the last event's delivery", 60, lambda: not world.cloud.router.pending)
    world.cloud.lambdas.wait_idle(120)
    runs = [future.result() for future in world.runs.values()]
    began = time.monotonic()
    verdict = judge(*(world.cloud.observe(run.id, budget=50) for run in runs))
    world.note(
        "all of these runs, once all was quiet", verdict, time.monotonic() - began, tries=len(runs)
    )
    assert not verdict.findings, verdict
    # Of many events about one task, one may three times find another being handled.
    given_up = [i.error for i in world.cloud.lambdas.exhausted if i.error]
    assert [error for error in given_up if error["errorType"] != "LeaseHeldError"] == []
