"""What `react` does before and around a rescue: screening, completing, annotating, failing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

import pytest

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import StateType
from chalicelib.core.model.policy import Pause
from chalicelib.core.ports import Context
from chalicelib.core.rescue.actions import Verdict
from chalicelib.errors import (
    LeaseHeldError,
    PrefectNotNowError,
    PrefectOutcomeUnknownError,
    PrefectUnavailableError,
    UnsettledError,
)
from chalicelib.functions.react import react
from tests.laws.universe import LEASE, Lines, Universe, one_by_one
from tests.make import ODD_ARNS, TASK_ARN, seconds
from tests.twin.prefect import InMemoryPrefect
from tests.unit.prefect_bench import Bench
from tests.unit.scripted_server import answer

NO_INTERRUPTION = {"stopCode": "EssentialContainerExited", "stoppedReason": "exited"}


@dataclass
class Scene:
    """A running run of a deployment, whose task Spot took a second ago."""

    universe: Universe
    run_id: UUID
    task: Task

    @property
    def prefect(self) -> InMemoryPrefect:
        return self.universe.prefect

    @property
    def context(self) -> Context:
        """A handler's own; `universe.calls` are those of the newest."""
        return self.universe.context()

    @property
    def state(self) -> StateType:
        return self.prefect.runs[self.run_id].state.type

    @property
    def log(self) -> Lines:
        assert isinstance(self.universe.log, Lines)
        return self.universe.log

    def event(self, detail: dict[str, Any] | None = None, *, without: str = "") -> dict[str, Any]:
        exited_at = (self.universe.now - seconds(1)).isoformat()
        ordinary = {"lastStatus": "DEPROVISIONING", "executionStoppedAt": exited_at}
        event = self.universe.event(self.task, **{**ordinary, **(detail or {})})
        event["detail"].pop(without, None)
        return event

    def hold_lease(self) -> Callable[[], None]:
        """Another handler takes the run's lease, unless it is held; return how to release it."""
        another = self.universe.records()
        record = another.acquire(self.run_id, self.universe.now, LEASE)
        return lambda: another.release(record)


@pytest.fixture
def scene() -> Scene:
    universe = Universe()
    run, task = universe.running()
    universe.stops(task)
    universe.passes(1)
    return Scene(universe, run.id, task)


def test_a_stop_without_a_warning_costs_one_read_and_nothing_of_prefect(scene: Scene) -> None:
    assert react(scene.context, scene.event(NO_INTERRUPTION)).verdict is Verdict.IGNORE
    assert scene.universe.calls == ["records.read"]


def test_while_the_stage_is_paused_an_interruption_costs_a_read_and_changes_nothing(
    scene: Scene,
) -> None:
    scene.universe.stored.pause = Pause(scene.universe.now, "arn:aws:iam::1:user/ops", "a storm")
    for status in ("RUNNING", "DEPROVISIONING", "STOPPED"):
        decision = react(scene.context, scene.event({"lastStatus": status}))
        assert decision.verdict is Verdict.PAUSED
        assert scene.universe.calls == ["records.read_pause"]
        assert scene.log.lines[-1][1]["reason"] == decision.reason
    assert decision.reason.startswith("paused since 20")
    assert decision.reason.endswith("UTC by arn:aws:iam::1:user/ops: a storm")
    assert (scene.state, scene.universe.stored.runs) == (StateType.RUNNING, {})


@pytest.mark.parametrize("missing", ["overrides", "createdAt"])
def test_an_event_that_lacks_something_is_completed_from_ecs(scene: Scene, missing: str) -> None:
    react(scene.context, scene.event(without=missing))
    assert scene.prefect.is_due(scene.run_id)
    assert scene.universe.calls.count("tasks.describe") == 1


def test_a_warning_that_is_handled_late_is_followed_by_the_end_of_its_task(scene: Scene) -> None:
    """Its container exited by itself, and that event was ignored: no warning was on record yet."""
    universe = scene.universe
    warning = universe.warning(scene.task)
    universe.stops(scene.task, stop_code="EssentialContainerExited", stopped_reason="exited")
    assert react(scene.context, universe.end_of(scene.task)).verdict is Verdict.IGNORE
    react(scene.context, warning)
    assert scene.prefect.is_due(scene.run_id)


def test_a_warning_stands_where_ecs_does_not_describe_its_task(scene: Scene) -> None:
    warning = scene.universe.warning(scene.task)
    scene.universe.tasks.clear()
    assert react(scene.context, warning).verdict is Verdict.WARNED
    assert scene.state is StateType.RUNNING


@pytest.mark.parametrize("event", ["warning", "exit"])
def test_a_warning_fails_while_prefect_must_not_be_asked_and_an_exit_is_left_to_sweep(
    scene: Scene, event: str
) -> None:
    """No sweep finds the warning of a task that exits by itself. Nothing is recorded unchecked."""
    universe, until = scene.universe, scene.universe.now
    scene.prefect.failure = PrefectNotNowError("429", "none", until, lasts=False)
    with pytest.raises(PrefectNotNowError) as raised:
        react(scene.context, universe.warning(scene.task) if event == "warning" else scene.event())
    assert raised.value.lasts is (event == "warning")
    assert not universe.records().read(scene.run_id).interruptions
    scene.prefect.failure = None
    universe.sweep()
    assert scene.prefect.is_due(scene.run_id)


def test_a_task_of_no_flow_run_is_ignored(scene: Scene) -> None:
    scene.universe.tasks[scene.task.arn] = replace(scene.task, flow_run_id=None)
    decision = react(scene.context, scene.event(without="overrides"))
    assert decision.reason == "the task belongs to no flow run"


@pytest.mark.parametrize(
    ("detail", "envelope"),
    [
        ({"launchType": "EC2", "stopCode": "TerminationNotice"}, {}),
        ({"capacityProviderName": "my-instances"}, {}),
        ({}, {"region": "eu-west-1"}),
        ({}, {"account": "999988887777"}),
    ],
    ids=str,
)
def test_a_task_that_is_not_ours_costs_nothing(
    scene: Scene, detail: dict[str, Any], envelope: dict[str, str]
) -> None:
    event = {**scene.event(detail), **envelope}
    assert react(scene.context, event).verdict is Verdict.IGNORE
    assert scene.universe.calls == []


def test_a_task_that_ecs_alone_shows_to_be_on_ec2_is_ignored(scene: Scene) -> None:
    scene.universe.tasks[scene.task.arn] = replace(scene.task, launch_type="EC2")
    event = scene.event({"launchType": None, "stopCode": "TerminationNotice"}, without="overrides")
    assert react(scene.context, event).reason == "the task is not on Fargate"


def test_a_run_of_another_work_pool_is_ignored(scene: Scene) -> None:
    scene.universe.policy = replace(scene.universe.policy, work_pools=("ours",))
    pool = scene.prefect.work_pool_name
    reason = react(scene.context, scene.event()).reason
    assert reason == f"the run is of another work pool, {pool}"
    assert scene.state is StateType.RUNNING


def test_a_move_without_effect_is_logged_once_and_annotated(scene: Scene) -> None:
    universe = scene.universe
    universe.policy = replace(universe.policy, spot_retries=0)
    react(scene.context, scene.event())
    task = replace(universe.start(scene.run_id), capacity_provider="FARGATE_SPOT")
    for event in universe.exits(task):
        universe.deliver(event)
    [line] = [keys for message, keys in scene.log.lines if message == "a move had no effect"]
    assert line["task_arn"] == task.arn
    assert line["reason"] in universe.prefect.log_lines[-1].message
    assert "spotctl status" in line["reason"]


@pytest.mark.parametrize(
    ("pid", "is_newer"),
    [
        ("0123abcd", False),
        (f"prefect-spot-dev::{TASK_ARN[:-1]}x", False),  # ECS has forgotten it
        (f"gone::{TASK_ARN}", True),
        *((f"prefect-spot-dev::{arn}", "another" in what) for what, arn in ODD_ARNS.items()),
    ],
    ids=str,
)
def test_a_noted_task_of_another_place_is_a_newer_attempts_and_what_is_none_proves_nothing(
    scene: Scene, pid: str, is_newer: bool
) -> None:
    """ECS refuses to describe either, at each retry of the event."""
    scene.prefect.runs[scene.run_id].infrastructure_pid = pid
    decision = react(scene.context, scene.event())
    assert (decision.verdict is Verdict.IGNORE) == is_newer
    assert scene.prefect.is_due(scene.run_id) != is_newer


def test_a_run_that_prefect_does_not_know_is_ignored(scene: Scene) -> None:
    del scene.prefect.runs[scene.run_id]
    assert react(scene.context, scene.event()).reason == "Prefect does not know the flow run"
    scene.hold_lease()


def test_a_run_that_completes_between_two_reads_is_not_rerun(scene: Scene) -> None:
    def the_run_before_its_history(calls: Sequence[Callable[[], Any]]) -> list[Any]:
        if len(calls) != 2:
            return one_by_one(calls)
        run = calls[1]()
        scene.prefect.engine_finishes(scene.run_id)
        return [calls[0](), run]

    decision = react(replace(scene.context, gather=the_run_before_its_history), scene.event())
    assert decision.verdict is Verdict.ANNOTATE
    assert scene.state is StateType.COMPLETED


def test_what_a_rerun_needs_is_read_at_the_same_time_as_the_parked_run(scene: Scene) -> None:
    at_once: list[list[str]] = []

    def noted(calls: Sequence[Callable[[], Any]]) -> list[Any]:
        before = len(scene.universe.calls)
        results = one_by_one(calls)
        at_once.append(scene.universe.calls[before:])
        return results

    react(replace(scene.context, gather=noted), scene.event())
    look = ["prefect.read_history", "prefect.read_run"]
    needed = ["prefect.read_deployment", "prefect.find_task_runs_left"]
    assert at_once[:2] == [look, [*look, *needed]]
    assert "prefect.write_log" in at_once[2]


def test_the_rescue_happens_though_annotating_fails_and_the_next_event_annotates_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise PrefectUnavailableError("no logs today", next_step="none")

    with monkeypatch.context() as ill:
        ill.setattr(scene.prefect, "write_log", fail)
        assert react(scene.context, scene.event()).verdict is Verdict.FINISH_RERUN
    assert scene.prefect.is_due(scene.run_id)
    [failure] = [keys for _, keys in scene.log.lines if keys.pop("exception", False)]
    assert failure == {"flow_run_id": str(scene.run_id), "task_arn": scene.task.arn}
    for _ in range(2):
        react(scene.context, scene.event())
        assert len(scene.prefect.log_lines) == 1


def test_a_run_that_a_worker_took_before_the_answer_came_is_left_to_it(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was made due, the answer was lost, and a worker was quick."""
    propose = scene.prefect.propose_state

    def and_lose_the_answer(*args: Any, **kwargs: Any) -> Any:
        answer = propose(*args, **kwargs)
        if scene.prefect.is_due(scene.run_id):
            scene.prefect.worker_picks_up(scene.run_id)
            raise PrefectOutcomeUnknownError("connection reset", next_step="none")
        return answer

    monkeypatch.setattr(scene.prefect, "propose_state", and_lose_the_answer)
    react(scene.context, scene.event())
    assert scene.state is StateType.PENDING
    assert scene.prefect.artifacts_of(scene.run_id), "the interruption was not annotated"


def test_a_proposal_that_prefect_puts_off_is_left_to_a_retry_and_releases_the_lease(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client waits where that fits; nothing has happened, so there is nothing to look for."""
    waits = [answer(429, Retry_After="9")] * 3
    with Bench(waits, seconds_left=26.0) as bench, monkeypatch.context() as busy:
        busy.setattr(scene.prefect, "propose_state", bench.prefect.propose_state)
        with pytest.raises(
            PrefectUnavailableError, match=r"Prefect is unavailable.+asking for 9 s"
        ):
            react(scene.context, scene.event())
    assert len(bench.requests) == 3
    assert 18.0 <= sum(bench.slept) < 19.0
    scene.hold_lease()()
    assert react(scene.context, scene.event()).verdict is Verdict.FINISH_RERUN


def test_a_failed_rescue_raises_and_releases_the_lease(scene: Scene) -> None:
    scene.prefect.failure = PrefectUnavailableError("down", next_step="none")
    with pytest.raises(PrefectUnavailableError):
        react(scene.context, scene.event())
    scene.hold_lease()


def test_a_handler_waits_a_little_for_a_lease_that_is_held_and_then_raises(scene: Scene) -> None:
    scene.hold_lease()
    waited: list[float] = []
    with pytest.raises(LeaseHeldError):
        react(replace(scene.context, pause=waited.append), scene.event())
    assert 3 < sum(waited) < 10, "longer than a rescue takes, and shorter than an invocation"


def test_a_handler_goes_on_when_a_lease_that_was_held_is_released(scene: Scene) -> None:
    release = scene.hold_lease()
    decision = react(replace(scene.context, pause=lambda _: release()), scene.event())
    assert decision.verdict is Verdict.FINISH_RERUN
    scene.hold_lease()


def test_a_run_whose_state_keeps_changing_is_left_to_a_retry(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose = scene.prefect.propose_state

    def and_move_it_back(*args: Any, **kwargs: Any) -> Any:
        answer = propose(*args, **kwargs)
        run = scene.prefect.runs[scene.run_id]
        run.states = [s for s in run.states if s.type is not StateType.SCHEDULED]
        return answer

    monkeypatch.setattr(scene.prefect, "propose_state", and_move_it_back)
    with pytest.raises(UnsettledError):
        react(scene.context, scene.event())
    scene.hold_lease()


def test_the_log_names_run_task_and_decision_and_holds_no_event(scene: Scene) -> None:
    react(scene.context, scene.event())
    decided = [keys for message, keys in scene.log.lines if message == "decided"]
    assert [keys["decision"] for keys in decided] == ["rerun-on-spot", "make-due", "finish-rerun"]
    for keys in decided:
        assert (keys["flow_run_id"], keys["task_arn"]) == (str(scene.run_id), scene.task.arn)
    assert "overrides" not in str(scene.log.lines)
