"""What no event reported, repaired by the deployed `sweep`: real flows, worker and server."""

import json
import re
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import quantiles
from typing import Any

from chalicelib.core.model.ecs_task import FARGATE
from localcloud.bootstrap import CLUSTER
from localcloud.cloud import SWEEP
from localcloud.events import drop
from localcloud.fargate import REFUSED_CAPACITY
from tests.e2e.scenario import Run, Stage, decisions, mailbox
from tests.e2e.stories import Stories, story
from tests.e2e.test_money import SIZE, bills_of, charged, price
from tests.faults.ledger import FOLDER

REFUSALS = 4
REFUSAL_SECONDS = FOLDER.parent / "refusal-seconds.json"
SEEN_WITHIN = timedelta(seconds=5)
"""From a state's timestamp, which precedes its commit, until every sweep sees it."""


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
def refused(stage: Stage) -> list[Run]:
    """Runs that Spot has no room for, spread over the time between two scheduled sweeps."""
    period = stage.cloud.router.schedules()[SWEEP]
    variables = {"env": {REFUSED_CAPACITY: "FARGATE_SPOT"}}
    runs = []
    for _ in range(REFUSALS):
        runs.append(stage.start("waits", job_variables=variables, interruptions=0))
        time.sleep(period / REFUSALS)
    for run in runs:
        run.completes(starts=1)
    return runs


def test_the_next_sweep_moves_a_run_that_spot_had_no_room_for(
    stage: Stage, refused: list[Run]
) -> None:
    """One comes each minute: on FARGATE within 90 seconds, unless other work keeps the machine.

    How long it was here is kept for `tests.rows`.
    """
    seconds = sorted((when(r, "Running") - when(r, "Crashed")).total_seconds() for r in refused)
    p50, p95 = (quantiles(seconds, n=100, method="inclusive")[n - 1] for n in (50, 95))
    REFUSAL_SECONDS.parent.mkdir(exist_ok=True)
    REFUSAL_SECONDS.write_text(json.dumps({"p50": p50, "p95": p95, "seconds": seconds}) + "\n")
    for run in refused:
        sweeps = sweeps_since(stage, when(run, "Crashed"))
        moved = [any(line["flow_run_id"] == run.id for line in lines) for _, lines in sweeps]
        too_early = [begin - when(run, "Crashed") < SEEN_WITHIN for begin, _ in sweeps]
        assert all(too_early[: moved.index(True)]), f"{run.id}: moved too late, {moved}"
    assert stage.cloud.router.schedules()[SWEEP] == 60
    assert [run.capacities() for run in refused] == [["FARGATE"]] * REFUSALS


def when(run: Run, state: str) -> datetime:
    """When the run first got the state."""
    at = {each["name"]: each for each in reversed(run.cloud.prefect.history(run.id))}
    return datetime.fromisoformat(at[state]["timestamp"])


def sweeps_since(stage: Stage, time: datetime) -> list[tuple[datetime, list[dict[str, Any]]]]:
    """Return when each sweep began that did after the time, in order, and what it decided."""
    begun = []
    for i in stage.cloud.lambdas.invocations:
        lines = [json.loads(line) for line in i.logs if line.startswith("{")]
        times = [line["timestamp"].replace(",", ".") for line in lines if "timestamp" in line]
        if i.function == SWEEP and times:
            begin = datetime.fromisoformat(max(times)) - timedelta(seconds=i.seconds)
            begun.append((begin, i.request_id, i.logs))
    return [(begin, decisions(logs)) for begin, _, logs in sorted(begun) if begin > time]


def test_people_get_a_message_about_the_lost_run_and_about_moves_to_on_demand(
    stage: Stage, stopped_by_hand: Swept, refused: list[Run], everything_is_over: None
) -> None:
    """Of moves ten in five minutes at most, then one that there are more; fewer if SNS is slow."""
    lost, moved, unsent = set(), set(), runs_without_a_message(stage)
    for message in mailbox(stage.cloud):
        found = re.search(r"The run: http://127.0.0.1:\d+/runs/flow-run/(\S+)", message["Message"])
        if not found:
            assert message["Subject"] == "prefect-spot dev: more runs moved to on-demand"
        elif "run lost" in message["Subject"]:
            lost.add(found[1])
        else:
            moved.add(found[1])
    of_lost_run = {stopped_by_hand.run.id}
    assert lost | (unsent & of_lost_run) == of_lost_run
    lives = stage.cloud.fargate.ledger()
    on_demand = {
        life.flow_run_id for life in lives if life.flow_run_id and life.capacity == FARGATE
    }
    assert moved
    assert moved <= on_demand
    assert {run.id for run in refused} <= on_demand
    assert len(moved | (unsent & on_demand)) >= min(10, len(on_demand))


def runs_without_a_message(stage: Stage) -> set[str]:
    """Return the runs of which a function said that it could not send the message."""
    printed = [line for i in stage.cloud.lambdas.invocations for line in i.logs]
    records = [json.loads(line) for line in printed if "the message was not sent" in line]
    return {record["flow_run_id"] for record in records}


def test_no_sweep_moved_a_run_that_needed_none(
    stories: Stories,
    missed: Swept,
    stopped_by_hand: Swept,
    refused: list[Run],
    everything_is_over: None,
) -> None:
    """Else another story would have ended well for the wrong reason."""
    invocations = stories.stage.cloud.lambdas.invocations
    decided = decisions(line for i in invocations if i.function == SWEEP for line in i.logs)
    refused_child = stories.runs(["waited_for_child"])[1:]  # the parent comes first
    runs = [missed.run, stopped_by_hand.run, *refused, *refused_child]
    needed = {run.id for run in runs}
    assert [line for line in decided if line["flow_run_id"] not in needed] == []
    assert {line["flow_run_id"] for line in decided} == needed
