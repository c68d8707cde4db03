"""A real flow, started by a real worker, interrupted, rescued by the deployed zip."""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from math import exp
from typing import Any

import pytest

from chalicelib.adapters.bills import BillTable
from chalicelib.core.model.ecs_task import FARGATE_SPOT, Cause
from chalicelib.core.money.bill import Bill, Deployment
from chalicelib.core.money.report import Counts, DailySum
from localcloud.bootstrap import CLUSTER, STACK, WORK_POOL
from localcloud.cloud import REACT, wait_for
from localcloud.events import Delivery, Event, delay, duplicate, shuffle
from localcloud.fargate import FAILED_STARTS, REFUSED_CAPACITY
from tests.e2e.scenario import API_SECONDS, ATTEMPT_SECONDS, Run, Stage, decisions
from tests.e2e.stories import story
from tests.e2e.test_money import (
    BY_POOL,
    SIZE,
    bills_of,
    charged,
    price,
    printed_by_the_stage,
)
from tests.make import make_event
from tests.unit.emf import Datum, printed_data, total_of

SIGTERM_BEHAVIOR = "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"
OWN = {"cpu": 512, "memory": 2048, "env": {"REGION_OF_SALES": "north"}}
OWN_TAGS = ("spot-retries:1", "team:sales")
HELD_QUEUE = "held"
NOTHING = (None, Decimal(0), None)
"""Seconds, wasted ones and amounts of a bill."""
NO_NETWORK = "Timeout waiting for network interface provisioning to complete."
OBSERVING = "observing"


@story
def moved_to_on_demand(stage: Stage) -> Run:
    run = stage.start("waits", tags=OWN_TAGS, job_variables=OWN, interruptions=2)
    run.interrupt_each_start(2)
    run.completes(starts=3)
    return run


def test_row_cpu_and_memory_per_run_are_kept_when_it_finishes_on_fargate(
    moved_to_on_demand: Run,
) -> None:
    """Its image relinquishes on SIGTERM: the run is left as it is."""
    run, fields = moved_to_on_demand, moved_to_on_demand.fields()
    assert run.capacities() == ["FARGATE_SPOT", "FARGATE_SPOT", "FARGATE"]
    for life in run.containers():
        assert (life.cpu, life.memory) == ("512", "2048")
        assert life.environment["REGION_OF_SALES"] == "north"
    assert "CRASHED" not in run.states()
    assert fields["job_variables"]["env"] == OWN["env"]
    assert fields["job_variables"]["launch_type"] == "FARGATE"
    assert set(fields["tags"]) == {*OWN_TAGS, "spot-interrupted", "spot-on-demand"}
    assert fields["labels"]["prefect-spot.interruptions"] == 2
    assert fields["labels"]["prefect-spot.capacity"] == "FARGATE"
    assert not run.verdict(budget=1).findings


def test_people_read_why_a_run_was_moved_in_annotation_log_and_events(
    moved_to_on_demand: Run,
) -> None:
    run = moved_to_on_demand
    prefect = run.cloud.prefect
    annotation = prefect.annotation(run.id)
    assert "interruption 2" in annotation
    assert "USD" in annotation
    assert "us\\-east\\-1" in annotation
    assert "FARGATE" in annotation.split("What happens next")[1]
    assert any("Spot interruption 1 of 1" in line["message"] for line in prefect.logs(run.id))
    emitted = {event["event"] for event in prefect.events(run.id)}
    ours = {"prefect-spot.interrupted", "prefect-spot.rerun", "prefect-spot.on-demand"}
    assert ours <= emitted


def test_logs_name_run_task_and_decision(moved_to_on_demand: Run) -> None:
    run = moved_to_on_demand
    decided = decisions(run.log_lines())
    expected = {"warned", "rerun-on-spot", "rerun-on-demand", "finish-rerun"}
    assert expected <= {line["decision"] for line in decided}
    assert {line["flow_run_id"] for line in decided} == {run.id}
    interrupted = {life.task_arn for life in run.containers() if life.interrupted_at}
    assert {line["task_arn"] for line in decided} == interrupted


@story
def decided_by_cost(stage: Stage) -> Run:
    """After 90 Spot hours with nine interruptions, three weeks ago, and an undisturbed run."""
    ended_at = datetime.now(UTC) - timedelta(days=21)
    bill = Bill("past", None, Deployment("past"), ended_at, FARGATE_SPOT, Cause.OTHER, *NOTHING)
    counts = Counts(first_spot_us=90 * 3_600_000_000, first_interruptions=9)
    past = DailySum(ended_at.date(), bill.deployment, counts)
    assert BillTable(stage.cloud.aws.client("dynamodb"), STACK).write(bill, past, past)
    stage.start("waits", interruptions=0, seconds=20).completes(starts=1)
    run = stage.start("waits", tags=("spot-retries:auto",), job_variables=SIZE, interruptions=4)
    run.interrupt_each_start(4)
    run.completes(starts=5)
    return run


EXPECTATION = re.compile(
    r"auto: finishing is expected to cost (?P<spot>[\d.]+) USD on Spot and (?P<demand>[\d.]+) USD"
    r" on demand: (?P<work>\d+) s of work left, from the start if interrupted, (?P<start>\d+) s to"
    r" start, (?P<rate>[\d.]+) interruptions per Spot hour \((?P<events>\d+) in (?P<hours>[\d.]+) h"
    r" of first attempts, prior 1 in 10 h\), (?P<spot_hour>[\d.]+) and (?P<demand_hour>[\d.]+) USD"
    r" per hour"
)


def test_auto_stays_on_spot_beyond_three_and_the_annotation_has_the_figures_to_check_it_by_hand(
    decided_by_cost: Run,
) -> None:
    run = decided_by_cost
    assert run.capacities() == ["FARGATE_SPOT"] * 5
    annotation = run.cloud.prefect.annotation(run.id).replace("\\", "")
    shown = EXPECTATION.search(annotation)
    assert shown, annotation
    said = {name: float(figure) for name, figure in shown.groupdict().items()}
    hourly = [float(price(Decimal(3600), capacity)) for capacity in ("FARGATE_SPOT", "FARGATE")]
    assert [said["spot_hour"], said["demand_hour"]] == pytest.approx(hourly, abs=1e-6)
    assert said["rate"] == pytest.approx((1 + said["events"]) / (10 + said["hours"]), abs=1e-3)
    a_second = said["rate"] / 3600
    needs = said["start"] + said["work"]
    on_spot = (exp(a_second * needs) - 1) / a_second
    charged_for = max(on_spot, 60 * (1 + a_second * on_spot))
    assert said["spot"] == pytest.approx(charged_for / 3600 * said["spot_hour"], rel=0.02)
    assert said["demand"] == pytest.approx(max(needs, 60) / 3600 * said["demand_hour"], rel=0.02)
    assert not run.verdict(budget=20).findings


@story
def delivered_three_times(stage: Stage) -> Run:
    faults = duplicate(3, then=shuffle(seed=7, within_seconds=3))
    run = stage.start("waits", event_faults=faults, interruptions=1, gated=True)
    run.wait_for_start(1)
    task = run.interrupt()
    run.wait_for_start(2)
    wait_for_stops(run, task, 6)
    run.wait_until_handled()
    run.let_go_on()
    run.completes(starts=2)
    return run


def wait_for_stops(run: Run, task: str, times: int) -> Event:
    """Wait until `react` and `meter` together got the task's last event so often; return it."""

    def stops() -> list[Event]:
        seen = list(run.cloud.router.delivered)
        ours = [event for event in seen if event["detail"].get("taskArn") == task]
        return [event for event in ours if event["detail"]["lastStatus"] == "STOPPED"]

    wait_for("every stop", ATTEMPT_SECONDS, lambda: len(stops()) >= times)
    return stops()[0]


def test_an_event_delivered_three_times_and_out_of_order_makes_one_rerun(
    delivered_three_times: Run,
) -> None:
    assert not delivered_three_times.verdict(budget=3).findings
    assert delivered_three_times.states().count("RUNNING") == 2


@dataclass(frozen=True)
class StoppedLate:
    """A run whose old task's stop event came while it was running again."""

    run: Run
    decision: str
    states_before: list[str]
    states_after: list[str]


@story
def stopped_late(stage: Stage) -> StoppedLate:
    cloud = stage.cloud
    late_stop = delay(lambda event: event["detail"]["lastStatus"] == "STOPPED", 3600)
    run = stage.start("waits", event_faults=late_stop, interruptions=1, gated=True)
    run.wait_for_start(1)
    task = run.interrupt()
    run.wait_for_start(2)
    run.wait_for_state("RUNNING")
    run.wait_until_handled()
    [stopped] = cloud.aws.client("ecs").describe_tasks(cluster=CLUSTER, tasks=[task])["tasks"]
    assert stopped["lastStatus"] == "STOPPED"
    late = make_event(json.loads(json.dumps(stopped, default=lambda at: at.isoformat())))
    before = run.states()
    answer = cloud.lambdas.invoke(REACT, late)
    assert answer.status == "ok", answer.error
    after = run.states()
    run.let_go_on()
    run.completes(starts=2)
    return StoppedLate(run, answer.answer["decision"], before, after)


def test_a_stop_that_arrives_when_the_rerun_is_running_does_not_touch_it(
    stopped_late: StoppedLate,
) -> None:
    assert stopped_late.decision == "ignore"
    assert stopped_late.states_after == stopped_late.states_before, "the late stop touched the run"
    assert not stopped_late.run.verdict(budget=3).findings


def moved_after_one(stage: Stage, job_variables: dict[str, Any]) -> Run:
    """A run that is to be on FARGATE after its first interruption."""
    run = stage.start(
        "waits", job_variables=job_variables, tags=("spot-retries:0",), interruptions=1
    )
    run.wait_for_start(1)
    time.sleep(1)  # an engine can lose a SIGTERM of its first moments; it is then killed
    run.interrupt_each_start(1)
    run.wait_for_start(2)  # a run that marked itself Crashed looks over until it is rescued
    run.completes(starts=2)
    assert run.fields()["labels"]["prefect-spot.interruptions"] == 1, "it was not counted"
    return run


@story
def killed_without_a_state(stage: Stage) -> Run:
    return moved_after_one(stage, {"env": {SIGTERM_BEHAVIOR: "crash"}})


@story
def crashed_itself(stage: Stage) -> Run:
    """The engine is the main process of the container, as in older images."""
    own = {"command": "python -m prefect.engine", "env": {SIGTERM_BEHAVIOR: "crash"}}
    return moved_after_one(stage, own)


def test_without_a_behaviour_the_engine_is_killed_and_the_run_is_rescued(
    killed_without_a_state: Run,
) -> None:
    assert "CRASHED" not in killed_without_a_state.states()
    assert not killed_without_a_state.verdict(budget=0).findings


def test_an_older_image_marks_its_run_crashed_and_the_run_is_rescued(crashed_itself: Run) -> None:
    assert "CRASHED" in crashed_itself.states()
    assert not crashed_itself.verdict(budget=0).findings


@story
def rescheduled_itself(stage: Stage) -> Run:
    """No worker takes it before it is moved: its queue is paused meanwhile."""
    prefect = stage.cloud.prefect
    run = stage.start(
        "waits",
        job_variables={"env": {SIGTERM_BEHAVIOR: "reschedule"}},
        tags=("spot-retries:0",),
        queue=HELD_QUEUE,
        interruptions=1,
    )
    run.wait_for_start(1)
    prefect.pause_queue(WORK_POOL, True, HELD_QUEUE)
    run.interrupt()

    def is_moved() -> bool:
        return bool(run.fields()["job_variables"].get("launch_type") == "FARGATE")

    wait_for("the move to FARGATE", ATTEMPT_SECONDS, is_moved, API_SECONDS)
    prefect.pause_queue(WORK_POOL, False, HELD_QUEUE)
    run.completes(starts=2)
    return run


def test_a_run_that_rescheduled_itself_is_moved_like_any_other(rescheduled_itself: Run) -> None:
    run = rescheduled_itself
    states = run.cloud.prefect.history(run.id)
    itself = [s for s in states if s["name"] == "AwaitingRetry" and not s["message"]]
    assert len(itself) == 1, "the run did not reschedule itself: the test shows nothing"
    assert not run.verdict(budget=0).findings


EPOCHS = 70


def epochs(run: Run, attempt: int) -> list[int]:
    """Those that the example trained in that attempt, by its container's output."""
    return [
        int(epoch) for epoch in re.findall(rf"epoch (\d+) of {EPOCHS} is", output(run, attempt))
    ]


def output(run: Run, attempt: int) -> str:
    life = run.containers()[attempt : attempt + 1]
    log = run.cloud.fargate.log_of(life[0].task_arn) if life else None
    return log.read_text() if log and log.exists() else ""


@story
def saved_in_the_warning(stage: Stage) -> tuple[Run, datetime]:
    """The example: interrupted at first, and again when what is left fits into the warning.

    Returned with the time at which its work was saved for the first time, by S3's clock.
    """
    cloud = stage.cloud
    run_id = cloud.prefect.start(
        stage.deployments["train-model"],
        job_variables=SIZE,
        parameters={"epochs": EPOCHS, "seconds": 0.5},
    )
    run = stage.watch(run_id, stage.folder / "notes-nothing")
    wait_for("three epochs", ATTEMPT_SECONDS, lambda: len(epochs(run, 0)) >= 3)
    run.interrupt()
    bucket = cloud.outputs["ResultsBucket"]
    saved = cloud.aws.client("s3").head_object(Bucket=bucket, Key=f"{run_id}-train")
    wait_for("the last epochs", ATTEMPT_SECONDS, lambda: EPOCHS - 20 in epochs(run, 1))
    run.interrupt()
    run.wait_for_end()
    if not bills_of(stage).keys() >= set(tasks_of(run)):
        stage.sweep()  # a task that stopped before its interruption was answered is left to it
    wait_for("both bills", ATTEMPT_SECONDS, lambda: bills_of(stage).keys() >= set(tasks_of(run)))
    return run, saved["LastModified"]


def tasks_of(run: Run) -> list[str]:
    return [life.task_arn for life in run.containers()]


def test_a_flow_goes_on_from_what_it_saved_after_the_warning(
    saved_in_the_warning: tuple[Run, datetime],
) -> None:
    run, saved_at = saved_in_the_warning
    warned_at = run.containers()[0].interrupted_at
    assert warned_at
    assert saved_at >= warned_at.replace(microsecond=0)
    [saved] = re.findall(r"saved after epoch (\d+)", output(run, 0))
    assert set(epochs(run, 0)) <= set(range(1, int(saved) + 1))
    assert epochs(run, 1) == list(range(int(saved) + 1, EPOCHS + 1)), "it did not go on from there"


def test_a_flow_that_finishes_in_the_warning_stays_completed(
    stage: Stage, saved_in_the_warning: tuple[Run, datetime]
) -> None:
    run, _ = saved_in_the_warning
    second = run.containers()[1]
    assert second.interrupted_at
    assert "saved after" in output(run, 1).partition(f"epoch {EPOCHS} of")[0], "it was not warned"
    assert (run.state_type(), run.states().count("RUNNING")) == ("COMPLETED", 2)
    assert run.capacities() == ["FARGATE_SPOT"] * 2
    assert not run.verdict(budget=3).findings


def test_saved_work_counts_as_wasted_and_that_of_a_finished_run_does_not(
    stage: Stage, saved_in_the_warning: tuple[Run, datetime]
) -> None:
    first, second = (bills_of(stage)[task] for task in tasks_of(saved_in_the_warning[0]))
    assert Decimal(first["wasted_usd"]) == Decimal(first["cost_usd"]) > 0
    assert Decimal(second["wasted_usd"]) == 0


@story
def failed_twice(stage: Stage) -> Run:
    """One interruption, two failures of its own, one success."""
    run = stage.start("fails", interruptions=1, failures=2)
    run.interrupt_each_start(1)
    run.wait_for_end()
    return run


def test_interruptions_do_not_eat_the_flows_own_retries(failed_twice: Run) -> None:
    assert failed_twice.state_type() == "COMPLETED", "an own retry was missing"
    assert failed_twice.starts() == 4
    assert not failed_twice.verdict(budget=2).findings


@story
def failed_in_a_subflow(stage: Stage) -> Run:
    """Interrupted within it, one failure of its own, one success."""
    run = stage.start("calls")
    run.wait_for_note("inner")
    run.interrupt()
    run.completes(starts=2)
    return run


def test_interruptions_do_not_eat_the_own_retries_of_a_subflow(failed_in_a_subflow: Run) -> None:
    assert failed_in_a_subflow.notes().count("inner") == 3
    [child] = failed_in_a_subflow.cloud.prefect.children(failed_in_a_subflow.id)
    assert (child["state_type"], child["run_count"]) == ("COMPLETED", 3)
    assert not failed_in_a_subflow.verdict(budget=3).findings


@story
def failed_to_start(stage: Stage) -> Run:
    """Twice, for a reason that passes."""
    variables = {**SIZE, "env": {FAILED_STARTS: f"2 {NO_NETWORK}"}}
    run = stage.start("waits", job_variables=variables, interruptions=0)
    run.wait_for_state("COMPLETED")
    run.wait_for_end()
    return run


def test_a_start_that_fails_twice_for_a_passing_reason_completes_on_the_same_capacity(
    failed_to_start: Run,
) -> None:
    run, fields = failed_to_start, failed_to_start.fields()
    assert run.capacities() == ["FARGATE_SPOT"] * 3
    assert [bool(life.started) for life in run.containers()] == [False, False, True]
    assert run.starts() == fields["run_count"] == 1
    assert fields["empirical_policy"]["retries"] == 0, "it cost or brought an own retry"
    assert "spot-on-demand" not in fields["tags"]
    assert fields["labels"].get("prefect-spot.interruptions", 0) == 0
    assert not run.verdict(budget=3).findings


def test_people_read_that_a_start_failed_and_what_it_cost(
    stage: Stage, failed_to_start: Run
) -> None:
    run, prefect = failed_to_start, failed_to_start.cloud.prefect
    annotation = prefect.annotation(run.id).replace("\\", "")
    assert "Failed start, retry 2 of 2" in annotation
    assert NO_NETWORK in annotation
    emitted = [event["event"] for event in prefect.events(run.id)]
    assert emitted.count("prefect-spot.start-retried") == 2
    assert "prefect-spot.interrupted" not in emitted
    assert total_of(printed_by_the_stage(stage), "FailedStarts", *BY_POOL) == 2
    *failed, worked = (bills_of(stage)[life.task_arn] for life in run.containers())
    assert [(bill["cause"], bill["cost_usd"]) for bill in failed] == [("failed start", "0")] * 2
    task = run.containers()[-1].task_arn
    assert worked["cost_usd"] == str(price(charged(stage, task), "FARGATE_SPOT"))
    assert Decimal(worked["wasted_usd"]) == 0


@story
def waited_for_child(stage: Stage) -> tuple[Run, Run]:
    """A parent, and its child: interrupted, and then refused by Spot."""
    notes = stage.folder / "child-of-a-parent"
    child_fields = {
        "parameters": {"file": str(notes), "interruptions": 1},
        "tags": ["spot-retries:1"],
        "job_variables": {"env": {REFUSED_CAPACITY: "FARGATE_SPOT after 1"}},
    }
    run = stage.start("parent", child=child_fields)
    children = stage.cloud.prefect.children
    [child_id] = wait_for(
        "the child", ATTEMPT_SECONDS, lambda: [c["id"] for c in children(run.id)], API_SECONDS
    )
    child = stage.watch(child_id, notes)
    child.interrupt_each_start(1)
    with stage.sweeping:  # one might come before the parent asks, and Crashed not be seen at all
        run.wait_for_note(f"child {child.id} CRASHED")
    run.wait_for_end()
    child.completes(starts=2)
    return run, child


def test_a_parent_that_asks_again_gets_the_result_of_a_child_that_spot_refused(
    waited_for_child: tuple[Run, Run],
) -> None:
    parent, child = waited_for_child
    assert parent.state_type() == "COMPLETED"
    assert parent.notes()[-1] == f"child {child.id} COMPLETED"
    assert {note.split()[1] for note in parent.notes()} == {child.id}, "it started another child"
    assert child.capacities() == ["FARGATE_SPOT", "FARGATE"]
    assert not child.verdict().findings
    assert not parent.verdict().findings
    assert len(parent.containers()) == 1


def what_observing_leaves_alone(run: Run) -> dict[str, Any]:
    names = ("state", "job_variables", "tags", "labels", "empirical_policy", "run_count")
    fields = run.fields()
    history = run.cloud.prefect.history(run.id)
    return {"history": history, "tasks": len(run.containers()), **{n: fields[n] for n in names}}


@story
def observed(stage: Stage) -> tuple[dict[str, Any], dict[str, Any], set[str]]:
    """A run whose events go to a `react` in observe mode; returned as it was before and after."""
    lambdas, prefect = stage.cloud.lambdas, stage.cloud.prefect
    statuses: list[str] = []

    def only_to_the_observing(event: Event) -> Sequence[Delivery]:
        if event["detail"]["desiredStatus"] == "STOPPED":
            lambdas.invoke_async(OBSERVING, event)
            statuses.append(event["detail"]["lastStatus"])
        return []

    with stage.copy_of_react(OBSERVING, MODE="observe"):
        run = stage.start(
            "waits", tags=("mine",), event_faults=only_to_the_observing, interruptions=1
        )
        run.wait_for_start(1)
        run.wait_for_state("RUNNING")
        lambdas.invoke(OBSERVING, {})  # its cold start

        def is_annotated() -> bool:
            annotation = prefect.annotation(run.id).replace("\\", "")
            return "would be rerun on FARGATE" in annotation

        before = what_observing_leaves_alone(run)
        with stage.sweeping:  # the deployed sweep, which does not observe, would rescue the run
            run.interrupt()
            wait_for("the annotation", ATTEMPT_SECONDS, is_annotated, API_SECONDS)
            wait_for("the last event", ATTEMPT_SECONDS, lambda: "STOPPED" in statuses)
            run.wait_until_handled()
            after = what_observing_leaves_alone(run)
            emitted = {event["event"] for event in prefect.events(run.id)}
            prefect.delete(run.id)
    return before, after, emitted


def test_observe_mode_says_what_would_be_done_and_changes_no_run(
    observed: tuple[dict[str, Any], dict[str, Any], set[str]],
) -> None:
    before, after, emitted = observed
    assert after == before
    assert "prefect-spot.interrupted" in emitted
    assert "prefect-spot.rerun" not in emitted


PUSH = "push"
SERVES_PUSH = ["prefect", "worker", "start", "--type", "ecs", "--pool", PUSH]
TWO_POOLS = {"PROVISION": "rescue-only", "WORK_POOL": f"{WORK_POOL},{PUSH}"}


@dataclass(frozen=True)
class Pushed:
    """A run of a push pool, and what both functions of a stage of two pools did about its task."""

    run: Run
    task: str
    left_alone: str
    answers: Mapping[str, Any]
    printed: list[Datum]


@story
def pushed(stage: Stage) -> Pushed:
    """A worker of its own stands for Prefect Cloud, which starts the tasks of such a pool."""
    prefect, ecs = stage.cloud.prefect, stage.cloud.aws.client("ecs")
    template = prefect.send("GET", f"/work_pools/{WORK_POOL}")["base_job_template"]
    family = template["variables"]["properties"]["family"]
    family["default"] = f"{STACK}_{PUSH}"  # as the stack's worker role lets it be called
    body = {"name": PUSH, "type": "ecs:push", "base_job_template": template}
    prefect.send("POST", "/work_pools/", body)
    waits = prefect.send("GET", f"/deployments/{stage.deployments['waits']}")
    kept = ("flow_id", "entrypoint", "pull_steps", "parameter_openapi_schema")
    body = {**{name: waits[name] for name in kept}, "name": PUSH, "work_pool_name": PUSH}
    deployment = prefect.send("POST", "/deployments/", body)["id"]
    outputs = stage.cloud.outputs
    network = {"subnets": outputs["SubnetIds"].split(","), "assignPublicIp": "ENABLED"}
    [worker] = ecs.run_task(
        cluster=CLUSTER,
        taskDefinition=outputs["WorkerTaskDefinitionArn"],
        launchType="FARGATE",
        overrides={"containerOverrides": [{"name": "worker", "command": SERVES_PUSH}]},
        networkConfiguration={"awsvpcConfiguration": network},
    )["tasks"]
    of_push = replace(stage, deployments={**stage.deployments, PUSH: deployment})
    run = of_push.start(PUSH, job_variables=SIZE, tags=("spot-retries:0",), interruptions=1)
    run.wait_for_start(1)
    task = run.interrupt()
    event = wait_for_stops(run, task, 2)
    run.wait_until_handled()
    left_alone = run.state_type()
    answers, printed = {}, list[Datum]()
    for handler in ("react", "meter"):
        with stage.copy_of_react(f"{handler}-of-two-pools", handler, **TWO_POOLS):
            invocation = stage.cloud.lambdas.invoke(f"{handler}-of-two-pools", event)
        answers[handler] = invocation.answer or invocation.error
        printed += printed_data("\n".join(invocation.logs))
    run.completes(starts=2)
    ecs.stop_task(cluster=CLUSTER, task=worker["taskArn"], reason="the story is over")
    return Pushed(run, task, left_alone, answers, printed)


def test_a_stage_of_two_pools_rescues_the_runs_of_a_push_pool_beside_its_other(
    stage: Stage, pushed: Pushed
) -> None:
    run = pushed.run
    assert pushed.left_alone == "RUNNING", "the stage of the first pool alone touched it"
    assert pushed.answers["react"]["decision"] == "finish-rerun"
    assert pushed.answers["meter"]["metering"] == "billed"
    assert run.capacities() == ["FARGATE_SPOT", "FARGATE"]
    assert not run.verdict(budget=0).findings
    bill = bills_of(stage)[pushed.task]
    assert bill["work_pool"] == PUSH
    series = {dict(d.dimensions)["WorkPool"] for d in pushed.printed if d.metric == "TaskCost"}
    assert series == {PUSH, "<all>"}
