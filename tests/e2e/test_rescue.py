"""A real flow, started by a real worker, interrupted, rescued by the deployed zip."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localcloud.bootstrap import CLUSTER, WORK_POOL
from localcloud.cloud import REACT, wait_for
from localcloud.events import Delivery, Event, delay, duplicate, shuffle
from localcloud.fargate import PROVISIONING_SECONDS
from tests.e2e.conftest import AUTH_STRING
from tests.e2e.scenario import API_SECONDS, ATTEMPT_SECONDS, Run, Stage, decisions, story
from tests.make import make_event

EVENTS = Path(__file__).parent.parent / "events"
SIGTERM_BEHAVIOR = "PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"
OWN = {
    "cpu": 512,
    "memory": 2048,
    "env": {"REGION_OF_SALES": "north", "TOKEN": "canary-4711"},
}
OWN_TAGS = ("spot-retries:1", "team:sales")
HELD_QUEUE = "held"
OBSERVER = "observing"


@dataclass(frozen=True)
class Ended:
    """A run that came to its end, as Prefect has it then."""

    run: Run
    state_type: str
    fields: dict[str, Any]

    @classmethod
    def of(cls, run: Run) -> "Ended":
        finished = run.wait_for_end()
        return cls(run, finished["state_type"], finished)


@story
def moved_to_on_demand(stage: Stage) -> Ended:
    run = stage.start("waits", tags=OWN_TAGS, job_variables=OWN, interruptions=2)
    run.interrupt_each_start(2)
    return Ended.of(run)


def test_row_cpu_and_memory_per_run_are_kept_when_it_finishes_on_fargate(
    moved_to_on_demand: Ended,
) -> None:
    """Its image relinquishes on SIGTERM: the run is left as it is."""
    run, finished = moved_to_on_demand.run, moved_to_on_demand.fields
    assert finished["state_type"] == "COMPLETED"
    assert run.capacities() == ["FARGATE_SPOT", "FARGATE_SPOT", "FARGATE"]
    for life in run.containers():
        assert (life.cpu, life.memory) == ("512", "2048")
        assert life.environment["REGION_OF_SALES"] == "north"
    assert "CRASHED" not in run.states()
    assert finished["job_variables"]["env"] == OWN["env"]
    assert finished["job_variables"]["launch_type"] == "FARGATE"
    assert set(finished["tags"]) == {*OWN_TAGS, "spot-interrupted", "spot-on-demand"}
    assert finished["labels"]["prefect-spot.interruptions"] == 2
    assert finished["labels"]["prefect-spot.capacity"] == "FARGATE"
    assert not run.verdict(budget=1).findings


def test_people_read_why_a_run_was_moved_in_annotation_log_and_events(
    moved_to_on_demand: Ended,
) -> None:
    run = moved_to_on_demand.run
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


def test_logs_name_run_task_and_decision(moved_to_on_demand: Ended) -> None:
    run = moved_to_on_demand.run
    decided = decisions(run.log_lines())
    expected = {"warned", "rerun-on-spot", "rerun-on-demand", "finish-rerun"}
    assert expected <= {line["decision"] for line in decided}
    assert {line["flow_run_id"] for line in decided} == {run.id}
    interrupted = {life.task_arn for life in run.containers() if life.interrupted_at}
    assert {line["task_arn"] for line in decided} == interrupted


def test_no_log_holds_a_secret(
    stage: Stage, moved_to_on_demand: Ended, everything_is_over: None
) -> None:
    printed = "\n".join(line for i in stage.cloud.lambdas.invocations for line in i.logs)
    assert moved_to_on_demand.run.id in printed
    assert "canary-4711" not in printed
    assert AUTH_STRING.partition(":")[2] not in printed


@story
def delivered_three_times(stage: Stage) -> Ended:
    mischief = duplicate(3, then=shuffle(seed=7, within_seconds=3))
    run = stage.start("waits", mischief=mischief, interruptions=1, gated=True)
    run.wait_for_start(1)
    task = run.interrupt()
    run.wait_for_start(2)

    def stops() -> int:
        seen = [event["detail"] for event in list(stage.cloud.router.delivered)]
        return sum(d.get("taskArn") == task and d["lastStatus"] == "STOPPED" for d in seen)

    wait_for("every stop, to react and meter", ATTEMPT_SECONDS, lambda: stops() >= 6)
    run.wait_until_handled()
    run.let_go_on()
    return Ended.of(run)


def test_an_event_delivered_three_times_and_out_of_order_makes_one_rerun(
    delivered_three_times: Ended,
) -> None:
    run = delivered_three_times.run
    assert delivered_three_times.state_type == "COMPLETED"
    assert run.starts() == 2
    assert not run.verdict(budget=3).findings
    assert run.states().count("RUNNING") == 2


@dataclass(frozen=True)
class StoppedLate:
    """A run whose old task's stop came while it was running again."""

    ended: Ended
    decision: str
    states_before: list[str]
    states_after: list[str]


@story
def stopped_late(stage: Stage) -> StoppedLate:
    cloud = stage.cloud
    run = stage.start(
        "waits",
        mischief=delay(lambda event: event["detail"]["lastStatus"] == "STOPPED", 3600),
        interruptions=1,
        gated=True,
    )
    run.wait_for_start(1)
    task = run.interrupt()
    run.wait_for_start(2)
    run.wait_for_state("RUNNING")
    run.wait_until_handled()
    [stopped] = cloud.aws.client("ecs").describe_tasks(cluster=CLUSTER, tasks=[task])["tasks"]
    assert stopped["lastStatus"] == "STOPPED"
    late = make_event(
        {
            **json.loads(json.dumps(stopped, default=lambda at: at.isoformat())),
            "executionStoppedAt": stopped["executionStoppedAt"].isoformat(),
        }
    )
    before = run.states()
    answer = cloud.lambdas.invoke(REACT, late)
    assert answer.status == "ok", answer.error
    after = run.states()
    run.let_go_on()
    return StoppedLate(Ended.of(run), answer.answer["decision"], before, after)


def test_a_stop_that_arrives_when_the_rerun_is_running_does_not_touch_it(
    stopped_late: StoppedLate,
) -> None:
    run = stopped_late.ended.run
    assert stopped_late.decision == "ignore"
    assert stopped_late.states_after == stopped_late.states_before, "the late stop touched the run"
    assert stopped_late.ended.state_type == "COMPLETED"
    assert len(run.containers()) == 2
    assert not run.verdict(budget=3).findings


def moved_after_one(stage: Stage, job_variables: dict[str, Any]) -> Ended:
    """A run that is to be on FARGATE after its first interruption."""
    run = stage.start(
        "waits", job_variables=job_variables, tags=("spot-retries:0",), interruptions=1
    )
    run.interrupt_each_start(1)
    run.wait_for_start(2)  # a run that marked itself Crashed looks over until it is rescued
    return Ended.of(run)


@story
def killed_before_it_spoke(stage: Stage) -> Ended:
    return moved_after_one(stage, {"env": {SIGTERM_BEHAVIOR: "crash"}})


@story
def crashed_itself(stage: Stage) -> Ended:
    """The engine is the main process of the container, as in older images."""
    own = {"command": "python -m prefect.engine", "env": {SIGTERM_BEHAVIOR: "crash"}}
    return moved_after_one(stage, own)


def test_without_a_behaviour_the_engine_is_killed_and_the_run_is_rescued(
    killed_before_it_spoke: Ended,
) -> None:
    assert "CRASHED" not in killed_before_it_spoke.run.states()
    check_moved_after_one(killed_before_it_spoke)


def test_an_older_image_marks_its_run_crashed_and_the_run_is_rescued(
    crashed_itself: Ended,
) -> None:
    assert "CRASHED" in crashed_itself.run.states()
    check_moved_after_one(crashed_itself)


def check_moved_after_one(ended: Ended) -> None:
    assert ended.state_type == "COMPLETED"
    assert ended.run.starts() == 2
    assert ended.fields["labels"]["prefect-spot.interruptions"] == 1, "it was not counted"
    assert not ended.run.verdict(budget=0).findings


@story
def rescheduled_itself(stage: Stage) -> Ended:
    """Nobody takes it up before it is moved: its queue is paused meanwhile."""
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
        return bool(prefect.run(run.id)["job_variables"].get("launch_type") == "FARGATE")

    wait_for("the move to FARGATE", ATTEMPT_SECONDS, is_moved, API_SECONDS)
    prefect.pause_queue(WORK_POOL, False, HELD_QUEUE)
    return Ended.of(run)


def test_a_run_that_rescheduled_itself_is_moved_like_any_other(rescheduled_itself: Ended) -> None:
    run = rescheduled_itself.run
    assert rescheduled_itself.state_type == "COMPLETED"
    states = run.cloud.prefect.history(run.id)
    itself = [s for s in states if s["name"] == "AwaitingRetry" and not s["message"]]
    assert len(itself) == 1, "the run did not reschedule itself: the test shows nothing"
    assert not run.verdict(budget=0).findings


@dataclass(frozen=True)
class PickedUp:
    """A run whose new task was noted when `react` heard of the old one's end."""

    ended: Ended
    decisions: list[str]


@story
def picked_up_early(stage: Stage) -> PickedUp:
    held: list[Event] = []

    def hold_the_end(event: Event) -> Sequence[Delivery]:
        if event["detail"]["lastStatus"] not in ("DEPROVISIONING", "STOPPED"):
            return [Delivery(event)]
        held.append(event)
        return []

    # As on Fargate, the old container is gone when the new one starts.
    own = {"env": {SIGTERM_BEHAVIOR: "reschedule", PROVISIONING_SECONDS: "20"}}
    run = stage.start("waits", job_variables=own, mischief=hold_the_end, interruptions=1)
    run.interrupt_each_start(1)
    wait_for("the new task", ATTEMPT_SECONDS, lambda: len(run.containers()) == 2)
    new = run.containers()[1].task_arn

    def is_noted() -> bool:
        return str(stage.cloud.prefect.run(run.id)["infrastructure_pid"]).endswith(new)

    wait_for("the worker's note of the new task", ATTEMPT_SECONDS, is_noted, API_SECONDS)
    wait_for("the old task's last event", ATTEMPT_SECONDS, lambda: len(held) == 2)
    news = [stage.cloud.lambdas.invoke(REACT, event) for event in held[:2]]
    return PickedUp(Ended.of(run), [heard.answer["decision"] for heard in news])


def test_a_run_that_was_picked_up_before_its_old_containers_end_was_heard_of_is_left_alone(
    picked_up_early: PickedUp,
) -> None:
    ended = picked_up_early.ended
    assert ended.state_type == "COMPLETED"
    assert ended.run.starts() == 2
    assert picked_up_early.decisions == ["ignore", "ignore"]
    assert not ended.run.verdict(budget=3).findings


@story
def failed_twice(stage: Stage) -> Ended:
    run = stage.start("fails", interruptions=1, failures=2)
    run.interrupt_each_start(1)
    return Ended.of(run)


def test_interruptions_do_not_eat_the_flows_own_retries(failed_twice: Ended) -> None:
    assert failed_twice.state_type == "COMPLETED", "an own retry was missing"
    assert failed_twice.run.starts() == 4, "one interruption, two own failures, one success"
    assert not failed_twice.run.verdict(budget=2).findings


@story
def failed_too_often(stage: Stage) -> Ended:
    run = stage.start("fails", interruptions=1, failures=3)
    run.interrupt_each_start(1)
    return Ended.of(run)


def test_a_flow_that_fails_too_often_still_fails(failed_too_often: Ended) -> None:
    run = failed_too_often.run
    assert failed_too_often.state_type == "FAILED"
    assert run.starts() == 4, "one interruption, and three failures: the first and its two retries"
    assert not run.verdict(budget=2).findings


@story
def waited_for_child(stage: Stage) -> tuple[Ended, Ended]:
    """A parent, and its child, which is interrupted."""
    child_file = stage.folder / "child-of-a-parent"
    run = stage.start("parent", child_file=str(child_file), interruptions=1, spot_retries=0)
    children = stage.cloud.prefect.children
    [child_id] = wait_for(
        "the child", ATTEMPT_SECONDS, lambda: [c["id"] for c in children(run.id)], API_SECONDS
    )
    child = stage.watch(child_id, child_file)
    child.interrupt_each_start(1)
    return Ended.of(run), Ended.of(child)


def test_a_parent_gets_its_childs_final_result_and_never_an_interruption(
    waited_for_child: tuple[Ended, Ended],
) -> None:
    parent, child = waited_for_child
    assert (parent.state_type, child.state_type) == ("COMPLETED", "COMPLETED")
    assert parent.run.notes() == [f"child {child.run.id} COMPLETED"]
    assert child.run.capacities() == ["FARGATE_SPOT", "FARGATE"]
    assert not child.run.verdict(budget=0).findings
    assert not parent.run.verdict().findings
    assert len(parent.run.containers()) == 1


def test_the_guides_minimal_event_and_a_malformed_one_are_answered(stage: Stage) -> None:
    minimal = json.loads((EVENTS / "spot-warning-as-documented.json").read_text())
    others: list[dict[str, Any]] = [{}, {"detail": []}, make_event(source="somebody")]
    for event in (minimal, *others):
        answer = stage.cloud.lambdas.invoke(REACT, event)
        assert (answer.status, answer.answer["decision"]) == ("ok", "ignore"), answer.error


@dataclass(frozen=True)
class Observed:
    """A run whose events went to a `react` with MODE=observe, before and after that."""

    run: Run
    before: dict[str, Any]
    history_before: list[dict[str, Any]]
    after: dict[str, Any]
    history_after: list[dict[str, Any]]
    containers: int
    emitted: set[str]


@story
def observed(stage: Stage) -> Observed:
    cloud = stage.cloud
    with observer(stage):
        passed_on: list[str] = []

        def to_the_observer(event: Event) -> Sequence[Delivery]:
            """Hand a stop to the observing function instead of all others; note the status."""
            if event["detail"]["desiredStatus"] == "STOPPED":
                cloud.lambdas.invoke_async(OBSERVER, event)
                passed_on.append(event["detail"]["lastStatus"])
            return []

        run = stage.start("waits", tags=("mine",), mischief=to_the_observer, interruptions=1)
        run.wait_for_start(1)
        run.wait_for_state("RUNNING")
        cloud.lambdas.invoke(OBSERVER, {})  # its cold start
        before, history_before = cloud.prefect.run(run.id), cloud.prefect.history(run.id)
        with stage.sweeping:  # the deployed sweep, which does not observe, would rescue the run
            run.interrupt()
            wait_for(
                "the note of what would have been done",
                ATTEMPT_SECONDS,
                lambda: (
                    "would be rerun on FARGATE"
                    in cloud.prefect.annotation(run.id).replace("\\", "")
                ),
                API_SECONDS,
            )
            wait_for("the last event", ATTEMPT_SECONDS, lambda: "STOPPED" in passed_on)
            run.wait_until_handled()
            seen = Observed(
                run=run,
                before=before,
                history_before=history_before,
                after=cloud.prefect.run(run.id),
                history_after=cloud.prefect.history(run.id),
                containers=len(run.containers()),
                emitted={event["event"] for event in cloud.prefect.events(run.id)},
            )
            cloud.prefect.delete(run.id)
    return seen


@contextmanager
def observer(stage: Stage) -> Iterator[None]:
    """A second function with the code and the settings of `react`, in observe mode."""
    functions = stage.cloud.aws.client("lambda")
    config = functions.get_function_configuration(FunctionName=REACT)
    functions.create_function(
        FunctionName=OBSERVER,
        Runtime=config["Runtime"],
        Role=config["Role"],
        Handler=config["Handler"],
        Timeout=config["Timeout"],
        Environment={"Variables": {**config["Environment"]["Variables"], "MODE": "observe"}},
        Code={"ZipFile": stage.cloud.aws.lambdas.get_function(REACT).code_bytes},
    )
    yield
    functions.delete_function(FunctionName=OBSERVER)


def test_observe_mode_says_what_would_be_done_and_changes_no_run(observed: Observed) -> None:
    for field in ("state", "job_variables", "tags", "labels", "empirical_policy", "run_count"):
        assert observed.after[field] == observed.before[field], field
    assert observed.history_after == observed.history_before
    assert observed.containers == 1
    assert "prefect-spot.interrupted" in observed.emitted
    assert "prefect-spot.rerun" not in observed.emitted
