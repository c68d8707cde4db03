"""What `react` does before and around a rescue: screening, completing, annotating, failing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from chalicelib.core.actions import Verdict
from chalicelib.core.record import RunRecord
from chalicelib.core.run import StateType
from chalicelib.core.situation import Policy
from chalicelib.core.task import Task
from chalicelib.core.world import World, in_turn
from chalicelib.errors import LeaseHeldError, PrefectUnavailableError, UnsettledError
from chalicelib.functions.react import react
from tests.make import ACCOUNT, CLUSTER_ARN, NOW, RUN_ID, TASK_ARN, make_event, make_task
from tests.twin.prefect import InMemoryPrefect


@dataclass
class OneRecord:
    """A table that holds one record, and says how often it was asked."""

    record: RunRecord
    reads: int = 0
    held: bool = False
    saved: list[RunRecord] = field(default_factory=list)

    def read(self, flow_run_id: UUID) -> RunRecord:
        self.reads += 1
        return self.record

    def read_many(self, flow_run_ids: Sequence[UUID]) -> dict[UUID, RunRecord]:
        return {self.record.flow_run_id: self.record}

    def read_bookmark(self) -> str:
        return ""

    def save_bookmark(self, bookmark: str, now: datetime) -> None: ...

    def acquire(self, flow_run_id: UUID, now: Any, lease: timedelta) -> RunRecord:
        if self.held:
            raise LeaseHeldError("held", next_step="none")
        self.held = True
        return replace(self.record, flow_run_id=flow_run_id)

    def save(self, record: RunRecord) -> None:
        self.saved.append(record)
        self.record = record

    def release(self, record: RunRecord) -> None:
        self.save(record)
        self.held = False


class NoBills:
    """Books that nobody opens: `react` has no business with them."""

    def __getattr__(self, method: str) -> Any:
        raise AssertionError(f"react called bills.{method}")


@dataclass
class Described:
    """ECS, which knows these tasks."""

    tasks: dict[str, Task] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def describe(self, cluster: str, task_arn: str) -> Task | None:
        self.asked.append(task_arn)
        return self.tasks.get(task_arn)

    def describe_many(self, cluster: str, task_arns: Sequence[str]) -> dict[str, Task]:
        self.asked.extend(task_arns)
        return {arn: self.tasks[arn] for arn in task_arns if arn in self.tasks}

    def all_of(self, cluster: str) -> tuple[Task, ...]:
        return tuple(self.tasks.values())

    def stopped_of(self, cluster: str) -> tuple[Task, ...]:
        return tuple(task for task in self.tasks.values() if task.exited)


@dataclass
class Lines:
    """A log that can be read."""

    lines: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def info(self, msg: object, **keys: Any) -> None:
        self.lines.append((str(msg), keys))

    def exception(self, msg: object, **keys: Any) -> None:
        self.lines.append((str(msg), {**keys, "exception": True}))


@dataclass
class Scene:
    """A running run of a deployment, its task, and the world around them."""

    prefect: InMemoryPrefect
    run_id: UUID
    records: OneRecord
    tasks: Described
    log: Lines
    world: World

    def event(self, detail: dict[str, Any] | None = None, **envelope: Any) -> dict[str, Any]:
        event = make_event(detail, **envelope)
        for override in event["detail"].get("overrides", {}).get("containerOverrides", []):
            override["environment"][0]["value"] = str(self.run_id)
        return event


@pytest.fixture
def scene() -> Scene:
    prefect = InMemoryPrefect(lambda: NOW)
    run_id = prefect.create_run()
    prefect.worker_picks_up(run_id, f"{CLUSTER_ARN}::{TASK_ARN}")
    prefect.runs[run_id].states[-1] = replace(
        prefect.runs[run_id].state, timestamp=NOW - timedelta(seconds=125)
    )
    prefect.engine_starts(run_id)
    records, tasks, log = OneRecord(RunRecord(RUN_ID)), Described(), Lines()
    world = World(
        prefect=prefect,
        records=records,
        bills=NoBills(),
        tasks=tasks,
        log=log,
        now=lambda: NOW,
        lease=timedelta(seconds=35),
        policy=Policy(),
        clusters=("prefect-spot-dev",),
        account=ACCOUNT,
    )
    return Scene(prefect, run_id, records, tasks, log, world)


NO_INTERRUPTION = {"stopCode": "EssentialContainerExited", "stoppedReason": "exited"}


def test_a_stop_without_a_warning_costs_one_read_and_nothing_of_prefect(scene: Scene) -> None:
    scene.prefect.calls.clear()
    assert react(scene.world, scene.event(NO_INTERRUPTION)).verdict is Verdict.IGNORE
    assert scene.records.reads == 1
    assert scene.prefect.calls == []
    assert scene.tasks.asked == []


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(make_event({"clusterArn": CLUSTER_ARN + "-2"}), id="another cluster"),
        pytest.param(
            make_event({"taskArn": TASK_ARN.replace(ACCOUNT, "999900001111")}), id="another account"
        ),
        pytest.param({"source": "aws.ecs"}, id="malformed"),
    ],
)
def test_what_is_not_ours_costs_nothing(scene: Scene, event: dict[str, Any]) -> None:
    scene.prefect.calls.clear()
    assert react(scene.world, event).verdict is Verdict.IGNORE
    assert (scene.records.reads, scene.prefect.calls, scene.tasks.asked) == (0, [], [])


def test_an_event_without_overrides_is_completed_from_the_tasks_tags(scene: Scene) -> None:
    scene.tasks.tasks[TASK_ARN] = make_task(flow_run_id=scene.run_id)
    react(scene.world, make_event({"overrides": None, "containers": None}))
    assert scene.prefect.is_due(scene.run_id)
    assert scene.tasks.asked == [TASK_ARN]


def test_a_task_of_no_flow_run_is_ignored(scene: Scene) -> None:
    scene.tasks.tasks[TASK_ARN] = make_task(flow_run_id=None)
    decision = react(scene.world, make_event({"overrides": None}))
    assert (decision.verdict, decision.reason) == (
        Verdict.IGNORE,
        "the task belongs to no flow run",
    )


def test_a_run_that_completes_between_two_reads_is_not_rerun(scene: Scene) -> None:
    def the_run_before_its_history(calls: Sequence[Callable[[], Any]]) -> list[Any]:
        if len(calls) != 2:
            return in_turn(calls)
        run = calls[1]()
        scene.prefect.engine_finishes(scene.run_id)
        return [calls[0](), run]

    decision = react(replace(scene.world, together=the_run_before_its_history), scene.event())
    assert decision.verdict is Verdict.ANNOTATE
    assert scene.prefect.runs[scene.run_id].state.type is StateType.COMPLETED


def test_a_run_that_prefect_does_not_know_is_ignored(scene: Scene) -> None:
    decision = react(scene.world, make_event())
    assert decision.reason == "Prefect does not know the flow run"
    assert not scene.records.held


def fail(*_: Any) -> None:
    raise PrefectUnavailableError("no logs today", next_step="none")


def test_the_rescue_happens_though_annotating_fails(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene.prefect, "write_log", fail)
    decision = react(scene.world, scene.event())
    assert decision.verdict is Verdict.FINISH_RERUN
    assert scene.prefect.is_due(scene.run_id)
    failures = [keys for _, keys in scene.log.lines if keys.get("exception")]
    assert failures == [{"flow_run_id": str(scene.run_id), "task_arn": TASK_ARN, "exception": True}]


def test_what_could_not_be_told_is_told_with_the_next_event(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as ill:
        ill.setattr(scene.prefect, "write_log", fail)
        react(scene.world, scene.event())
    react(scene.world, scene.event())
    assert len(scene.prefect.log_lines) == 1
    react(scene.world, scene.event())
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
    react(scene.world, scene.event())
    assert scene.prefect.runs[scene.run_id].state.type is StateType.PENDING
    assert scene.prefect.artifacts_of(scene.run_id), "people were not told"


def test_a_failed_rescue_raises_and_gives_the_lease_back(scene: Scene) -> None:
    scene.prefect.failure = PrefectUnavailableError("down", next_step="none")
    with pytest.raises(PrefectUnavailableError):
        react(scene.world, scene.event())
    assert not scene.records.held


def test_who_finds_the_lease_held_is_called_again(scene: Scene) -> None:
    scene.records.held = True
    waited: list[float] = []
    with pytest.raises(LeaseHeldError):
        react(replace(scene.world, pause=waited.append), scene.event())
    assert 3 < sum(waited) < 10, "longer than a rescue takes, and shorter than an invocation"


def test_who_finds_the_lease_held_waits_for_it_a_little(scene: Scene) -> None:
    def another_gives_it_back(_seconds: float) -> None:
        scene.records.held = False

    scene.records.held = True
    decision = react(replace(scene.world, pause=another_gives_it_back), scene.event())
    assert decision.verdict is Verdict.FINISH_RERUN
    assert not scene.records.held


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
        react(scene.world, scene.event())
    assert not scene.records.held


def test_the_log_names_run_task_and_decision_and_holds_no_event(scene: Scene) -> None:
    react(scene.world, scene.event())
    decided = [keys for message, keys in scene.log.lines if message == "decided"]
    assert [keys["decision"] for keys in decided] == ["rerun-on-spot", "finish-rerun"]
    for keys in decided:
        assert keys["flow_run_id"] == str(scene.run_id)
        assert keys["task_arn"] == TASK_ARN
    assert "overrides" not in str(scene.log.lines)
