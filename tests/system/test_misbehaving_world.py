"""Nothing is lost and nothing is run twice while Prefect, AWS and the event bus misbehave.

The deployed zip, its calls through fault proxies, and a real Prefect server; the worker and its
tasks are on paper, and the oracle judges. The acts are played in the background, from the first
test on.
"""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from localcloud.cloud import REACT, wait_for
from localcloud.lambdas import Invocation
from localcloud.oracle import judge, observe
from tests.faults.ledger import Ledger
from tests.system.acts import ACTS
from tests.system.clouds import PAPER
from tests.system.steps import send
from tests.system.world import Act, Run, World

pytestmark = pytest.mark.parametrize("options", [PAPER], indirect=True, ids=["on paper"])

LEDGER = Ledger("misbehaving world")


@pytest.fixture(scope="module")
def world(request: pytest.FixtureRequest, on_paper: World) -> Iterator[World]:
    """Acts of which no test was chosen are not played."""
    params = [getattr(item, "callspec", None) for item in request.session.items]
    chosen = {spec.params.get("act") for spec in params if spec}
    acts = [act for act in ACTS if act in chosen]
    on_paper.rule()
    with ThreadPoolExecutor(len(ACTS)) as pool:
        on_paper.begin(acts, pool)
        yield on_paper


def invocations(world: World, run: Run) -> list[Invocation]:
    """Lambda's tries so far to have `react` answer an event about the run."""
    tries = list(world.cloud.lambdas.invocations)
    return [i for i in tries if i.function == REACT and run.id in json.dumps(i.event)]


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.name)
def test_an_interrupted_run_is_rescued_once(world: World, act: Act) -> None:
    outcome = world.outcomes[act.name].result()
    LEDGER.note(act.name, outcome.verdict, outcome.seconds)
    assert not outcome.verdict.findings, outcome.report
    assert not outcome.complaints, f"{outcome.complaints}; {outcome.report}"
    assert outcome.faults >= act.faults, f"not as much went wrong as planned: {outcome.report}"
    assert outcome.run.state() == "COMPLETED", outcome.report
    assert outcome.run.starts() == len(outcome.run.containers()) == 2, outcome.report


def test_a_run_that_completed_in_an_interrupted_container_is_not_rerun(world: World) -> None:
    run = world.start()
    task = run.wait_for_start()
    world.cloud.prefect.set_state(run.id, {"type": "COMPLETED", "name": "Completed"})
    began = time.monotonic()
    run.interrupt(task)
    wait_for("the warning and both exits", 60, lambda: len(invocations(world, run)) >= 3)
    verdict = run.verdict()
    LEDGER.note("interrupted when the run was complete", verdict, time.monotonic() - began)
    assert not verdict.findings, run.describe()
    assert run.state() == "COMPLETED"
    assert len(run.containers()) == 1


def test_a_run_that_was_deleted_is_ignored_and_not_asked_for_again(world: World) -> None:
    run = world.start()
    task, cloud = run.wait_for_start(), world.cloud
    of_run, history = cloud.prefect.run(run.id), cloud.prefect.history(run.id)
    began = time.monotonic()
    send(cloud, "DELETE", f"/flow_runs/{run.id}")
    run.interrupt(task)
    wait_for("the warning and both exits", 60, lambda: len(invocations(world, run)) >= 3)
    # Who deletes a run wants no more of it: to the oracle it is as good as cancelled.
    verdict = judge(observe({**of_run, "state_type": "CANCELLED"}, history, run.containers()))
    LEDGER.note("Prefect answers 404: the run was deleted", verdict, time.monotonic() - began)
    assert not verdict.findings
    assert len(run.containers()) == 1
    answered = [i for i in invocations(world, run) if i.error is None]
    assert {i.answer["reason"] for i in answered} == {"Prefect does not know the flow run"}
    others = [i.error for i in invocations(world, run) if i.error]  # two events at the same time
    assert all(error["errorType"] == "LeaseHeldError" for error in others), others


def test_once_all_is_quiet_the_verdict_is_the_same(world: World) -> None:
    wait_for("the last event's delivery", 60, lambda: not world.cloud.router.pending)
    world.cloud.lambdas.wait_idle(120)
    runs = world.runs()
    began = time.monotonic()
    verdict = judge(*(run.observation() for run in runs))
    seconds = time.monotonic() - began
    LEDGER.note("all of these runs, once all was quiet", verdict, seconds, len(runs))
    assert not verdict.findings, verdict
    # Of many events about one task, one may three times find another being handled.
    given_up = [i.error for i in world.cloud.lambdas.exhausted if i.error]
    assert [error for error in given_up if error["errorType"] != "LeaseHeldError"] == []
