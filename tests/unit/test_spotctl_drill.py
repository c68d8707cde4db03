"""A drill's timeline, and what a drill refuses to touch."""

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import RunState, StateType
from chalicelib.core.model.policy import Mode
from chalicelib.core.model.run_record import Interruption
from chalicelib.core.rescue.rerun_state import due_id, park_id_of_task
from spotctl.drill.show import verdict_of
from spotctl.drill.target import Target, refusal_of
from spotctl.drill.timeline import (
    NEXT_STEPS,
    Progress,
    Seen,
    failure,
    is_passed,
    reaction_seconds,
    timeline,
)
from spotctl.drill.watch import Drilled, drill
from tests.make import (
    NEWER_TASK_ARN,
    NOW,
    RUN_ID,
    TASK_ARN,
    make_run,
    make_state,
    make_task,
    seconds,
)

PARK = park_id_of_task(TASK_ARN)


def states(*more: RunState) -> tuple[RunState, ...]:
    return (make_state(StateType.RUNNING, timestamp=NOW - seconds(60)), *more)


PARKED = make_state(
    StateType.SCHEDULED, name="AwaitingRetry", transition_id=PARK, timestamp=NOW + seconds(5)
)
DUE = make_state(
    StateType.SCHEDULED,
    name="AwaitingRetry",
    transition_id=due_id(PARK),
    timestamp=NOW + seconds(5.2),
)
PENDING = make_state(StateType.PENDING, timestamp=NOW + seconds(9))
RUNNING = make_state(StateType.RUNNING, timestamp=NOW + seconds(20))


def make_interruption(**changes: Any) -> Interruption:
    ordinary = Interruption(
        TASK_ARN, 1, "drill", "FARGATE_SPOT", recorded_at=NOW + seconds(1), rerun_on="FARGATE_SPOT"
    )
    return replace(ordinary, **changes)


def make_seen(**changes: Any) -> Seen:
    """A drill that has come to its good end."""
    ordinary = Seen(
        asked_at=NOW,
        task=make_task(execution_stopped_at=NOW + seconds(4), exit_code=1),
        stopping_at=NOW + seconds(0.5),
        interruption=make_interruption(),
        history=states(PARKED, DUE, PENDING, RUNNING),
        newer=make_task(
            arn=NEWER_TASK_ARN, created_at=NOW + seconds(10), started_at=NOW + seconds(15)
        ),
    )
    return replace(ordinary, **changes)


def waiting(seen: Seen) -> list[str]:
    return [step.name for step in timeline(seen) if step.progress is Progress.WAITING]


def test_a_run_that_came_back_has_passed_every_step() -> None:
    steps = timeline(make_seen())
    assert is_passed(steps)
    assert [step.name for step in steps[1:]] == list(NEXT_STEPS)
    assert all(step.at for step in steps)
    assert reaction_seconds(make_seen()) == pytest.approx(1.2)


STILL_RUNS = make_task(last_status="RUNNING", flow_container_stopped=False)


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        pytest.param({"stopping_at": None}, "SIGTERM", id="not stopped yet"),
        pytest.param({"task": STILL_RUNS}, "container exit", id="still running"),
        pytest.param({"interruption": None}, "event", id="no event yet"),
        pytest.param({"interruption": make_interruption(rerun_on="")}, "decision", id="warned"),
        pytest.param({"history": states()}, "parked", id="not parked"),
        pytest.param({"history": states(PARKED)}, "due", id="parked"),
        pytest.param({"history": states(PARKED, DUE)}, "picked up", id="due"),
        pytest.param({"history": states(PARKED, DUE, PENDING)}, "running", id="picked up"),
        pytest.param({"newer": None}, "capacity", id="no task noted"),
    ],
)
def test_a_step_that_is_missing_is_waited_for(changes: dict[str, Any], first: str) -> None:
    seen = make_seen(**changes)
    assert waiting(seen)[0] == first
    assert not is_passed(timeline(seen))
    assert failure(timeline(seen)) is None
    drilled = Drilled(Target(seen.task, make_run()), timeline(seen), None)
    told, next_step = verdict_of(drilled)
    assert first in told
    assert next_step == NEXT_STEPS[first]


COMPLETED = make_state(StateType.COMPLETED, timestamp=NOW + seconds(2))
CRASHED = make_state(StateType.CRASHED, message="not rerun, because of its tag")
NOT_RERUN = make_interruption(rerun_on="", outcome_annotated=True)


def newer(after: float, capacity_provider: str = "FARGATE_SPOT") -> Task:
    """The run's next task, started so many seconds after the drill began."""
    at = NOW + seconds(after)
    return make_task(arn=NEWER_TASK_ARN, started_at=at, capacity_provider=capacity_provider)


@pytest.mark.parametrize(
    ("changes", "step", "said"),
    [
        ({"interruption": None, "history": states(COMPLETED)}, "decision", "drill a longer one"),
        ({"interruption": NOT_RERUN, "history": states(CRASHED)}, "decision", "because of its tag"),
        ({"newer": newer(15, capacity_provider="")}, "capacity", "not FARGATE_SPOT"),
        ({"newer": newer(3)}, "running", "ran twice"),
    ],
    ids=["it completed in its grace", "not rerun", "the wrong capacity", "two containers at once"],
)
def test_what_speaks_against_it_fails_the_drill(
    changes: dict[str, Any], step: str, said: str
) -> None:
    seen = make_seen(**changes)
    broken = failure(timeline(seen))
    assert broken is not None
    assert broken.name == step
    assert said in broken.found
    drilled = Drilled(Target(seen.task, make_run()), timeline(seen), None)
    assert verdict_of(drilled)[0].startswith(f"failed at {step}")


def test_a_run_that_completed_before_the_drill_says_nothing_about_it() -> None:
    before = make_state(StateType.COMPLETED, timestamp=NOW - seconds(1))
    assert failure(timeline(make_seen(interruption=None, history=states(before)))) is None


def test_in_observe_mode_a_drill_ends_with_the_decision() -> None:
    steps = timeline(make_seen(is_observing=True, history=states(), newer=None))
    assert is_passed(steps)
    assert steps[-1].name == "decision"
    assert steps[-1].found.startswith("would be rerun on FARGATE_SPOT")


RUNS = make_task(last_status="RUNNING", desired_status="RUNNING", flow_container_stopped=False)


STOPPING = replace(RUNS, desired_status="STOPPED")
NOT_STARTED = make_run(state=make_state(StateType.PENDING))
PROTECTED = make_run(tags=("spot:never-rerun",))


@pytest.mark.parametrize(
    ("task", "run", "mode", "said"),
    [
        pytest.param(RUNS, make_run(), "rescue", "", id="rescued"),
        pytest.param(replace(RUNS, flow_run_id=None), None, "rescue", "runs no flow", id="no flow"),
        pytest.param(newer(0), make_run(), "rescue", "not RUNNING", id="stopped"),
        pytest.param(
            replace(RUNS, capacity_provider=""), make_run(), "rescue", "on demand", id="FARGATE"
        ),
        pytest.param(STOPPING, make_run(), "rescue", "not RUNNING", id="stopping"),
        pytest.param(RUNS, None, "rescue", "does not know", id="unknown to Prefect"),
        pytest.param(RUNS, NOT_STARTED, "rescue", "not Running", id="not started"),
        pytest.param(
            RUNS, make_run(deployment_id=None), "rescue", "no deployment", id="no deployment"
        ),
        pytest.param(RUNS, PROTECTED, "rescue", "spot:never-rerun", id="protected"),
        pytest.param(RUNS, make_run(), "opt-in", "opt-in", id="not opted in"),
        pytest.param(RUNS, make_run(), "observe", "MODE is observe", id="observe"),
    ],
)
def test_a_drill_refuses_what_would_not_come_back(
    task: Any, run: Any, mode: str, said: str
) -> None:
    refusal = refusal_of(task, run, Mode(mode))
    assert bool(refusal) is bool(said)
    assert said in refusal


def test_in_observe_mode_only_a_run_that_is_meant_may_be_interrupted() -> None:
    assert refusal_of(RUNS, make_run(), Mode.OBSERVE, is_meant=True) == ""


@pytest.mark.parametrize(
    ("mode", "is_throw_away", "ended"),
    [
        pytest.param("observe", True, [RUN_ID], id="its own run in observe mode"),
        pytest.param("observe", False, [], id="another run"),
        pytest.param("rescue", True, [], id="its own run, which is rescued"),
    ],
)
def test_a_drill_ends_the_run_that_it_started_where_nobody_else_does(
    mode: str, is_throw_away: bool, ended: list[UUID]
) -> None:
    cancelled: list[UUID] = []
    ecs = SimpleNamespace(stop_task=lambda **_: None, describe_tasks=lambda **_: {"tasks": []})
    no_records = SimpleNamespace(get_item=lambda **_: {})
    world: Any = SimpleNamespace(
        aws=SimpleNamespace(client={"ecs": ecs, "dynamodb": no_records}.__getitem__),
        now=lambda: NOW,
        prefect=SimpleNamespace(
            runs=SimpleNamespace(read_history=lambda _: (), read_run=lambda _: None),
            cancel=lambda run_id, _message: cancelled.append(run_id),
        ),
        project=SimpleNamespace(stack="runs", settings=SimpleNamespace(mode=Mode(mode))),
    )
    target = Target(RUNS, make_run(), is_throw_away)
    assert not drill(world, target, timedelta(0), lambda _: None).passed
    assert cancelled == ended
