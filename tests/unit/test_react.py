"""What `react` does before and around a rescue: screening, completing, annotating, failing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

import pytest

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import StateType
from chalicelib.core.ports import Context
from chalicelib.core.rescue.actions import Verdict
from chalicelib.errors import LeaseHeldError, PrefectUnavailableError, UnsettledError
from chalicelib.functions.react import react
from tests.laws.universe import LEASE, Lines, Universe, one_by_one
from tests.make import seconds
from tests.twin.prefect import InMemoryPrefect

NO_INTERRUPTION = {"stopCode": "EssentialContainerExited", "stoppedReason": "exited"}


@dataclass
class Scene:
    """A running run of a deployment, whose task Spot took a second ago."""

    universe: Universe
    run_id: UUID
    task: Task
    log: Lines = field(default_factory=Lines)

    def __post_init__(self) -> None:
        self.universe.log = self.log
        self.universe.stops(self.task)
        self.universe.passes(1)

    @property
    def prefect(self) -> InMemoryPrefect:
        return self.universe.prefect

    @property
    def context(self) -> Context:
        """A handler's own; `calls` are those of the newest."""
        return self.universe.context()

    @property
    def calls(self) -> list[str]:
        assert self.universe.wire is not None
        return self.universe.wire.calls

    def event(self, detail: dict[str, Any] | None = None) -> dict[str, Any]:
        exited_at = (self.universe.now - seconds(1)).isoformat()
        ordinary = {"lastStatus": "DEPROVISIONING", "executionStoppedAt": exited_at}
        return self.universe.event(self.task, **{**ordinary, **(detail or {})})

    def hold_lease(self) -> Callable[[], None]:
        """Another handler takes the run's lease, unless it is held; return how to give it back."""
        another = self.universe.records()
        record = another.acquire(self.run_id, self.universe.now, LEASE)
        return lambda: another.release(record)


@pytest.fixture
def scene() -> Scene:
    universe = Universe()
    run_id = universe.prefect.create_run()
    return Scene(universe, run_id, universe.start(run_id))


def test_a_stop_without_a_warning_costs_one_read_and_nothing_of_prefect(scene: Scene) -> None:
    assert react(scene.context, scene.event(NO_INTERRUPTION)).verdict is Verdict.IGNORE
    assert scene.calls == ["records.read"]


@pytest.mark.parametrize("missing", ["overrides", "createdAt"])
def test_an_event_that_lacks_something_is_completed_from_ecs(scene: Scene, missing: str) -> None:
    event = scene.event()
    del event["detail"][missing]
    react(scene.context, event)
    assert scene.prefect.is_due(scene.run_id)
    assert scene.calls.count("tasks.describe") == 1


def test_a_task_of_no_flow_run_is_ignored(scene: Scene) -> None:
    scene.universe.tasks[scene.task.arn] = replace(scene.task, flow_run_id=None)
    event = scene.event()
    del event["detail"]["overrides"]
    assert react(scene.context, event).reason == "the task belongs to no flow run"


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
    assert scene.prefect.runs[scene.run_id].state.type is StateType.COMPLETED


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
            raise PrefectUnavailableError("connection reset", next_step="none")
        return answer

    monkeypatch.setattr(scene.prefect, "propose_state", and_lose_the_answer)
    react(scene.context, scene.event())
    assert scene.prefect.runs[scene.run_id].state.type is StateType.PENDING
    assert scene.prefect.artifacts_of(scene.run_id), "the interruption was not annotated"


def test_a_failed_rescue_raises_and_gives_the_lease_back(scene: Scene) -> None:
    scene.prefect.failure = PrefectUnavailableError("down", next_step="none")
    with pytest.raises(PrefectUnavailableError):
        react(scene.context, scene.event())
    scene.hold_lease()


def test_who_finds_the_lease_held_waits_a_little_and_then_raises(scene: Scene) -> None:
    scene.hold_lease()
    waited: list[float] = []
    with pytest.raises(LeaseHeldError):
        react(replace(scene.context, pause=waited.append), scene.event())
    assert 3 < sum(waited) < 10, "longer than a rescue takes, and shorter than an invocation"


def test_who_finds_the_lease_held_goes_on_when_it_is_given_back(scene: Scene) -> None:
    release = scene.hold_lease()
    decision = react(replace(scene.context, pause=lambda _: release()), scene.event())
    assert decision.verdict is Verdict.FINISH_RERUN
    scene.hold_lease()


def test_a_run_that_keeps_moving_is_tried_again_later(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    propose = scene.prefect.propose_state

    def and_somebody_moves_it_back(*args: Any, **kwargs: Any) -> Any:
        answer = propose(*args, **kwargs)
        run = scene.prefect.runs[scene.run_id]
        run.states = [s for s in run.states if s.type is not StateType.SCHEDULED]
        return answer

    monkeypatch.setattr(scene.prefect, "propose_state", and_somebody_moves_it_back)
    with pytest.raises(UnsettledError):
        react(scene.context, scene.event())
    scene.hold_lease()


def test_the_log_names_run_task_and_decision_and_holds_no_event(scene: Scene) -> None:
    react(scene.context, scene.event())
    decided = [keys for message, keys in scene.log.lines if message == "decided"]
    assert [keys["decision"] for keys in decided] == ["rerun-on-spot", "finish-rerun"]
    for keys in decided:
        assert (keys["flow_run_id"], keys["task_arn"]) == (str(scene.run_id), scene.task.arn)
    assert "overrides" not in str(scene.log.lines)
