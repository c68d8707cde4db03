"""A drill's timeline, and what a drill refuses to interrupt."""

from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from chalicelib.core.model.ecs_task import Task
from chalicelib.core.model.flow_run import Interruption, RunState, StateType
from chalicelib.core.model.policy import Mode, Policy
from chalicelib.core.rescue.rerun_state import due_id, park_id_of_task
from spotctl.drill.target import Target, refusal_of
from spotctl.drill.timeline import NEXT_STEPS, Seen, failure, is_passed, timeline
from spotctl.drill.watch import Drilled, drill, show_drill, verdict_of
from spotctl.output import Output
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
SPOT = "FARGATE_SPOT"


def state(type: StateType, at: float, **changes: Any) -> RunState:  # noqa: A002  # the same
    """A state of the run, so many seconds after the drill began."""
    return make_state(type, timestamp=NOW + seconds(at), **changes)


BEFORE = state(StateType.RUNNING, -60)
PARKED = state(StateType.SCHEDULED, 5, name="AwaitingRetry", transition_id=PARK)
DUE = state(StateType.SCHEDULED, 5.2, name="AwaitingRetry", transition_id=due_id(PARK))
PENDING = state(StateType.PENDING, 9)
RUNNING = state(StateType.RUNNING, 20)

INTERRUPTION = Interruption(TASK_ARN, 1, "drill", SPOT, recorded_at=NOW + seconds(1), rerun_on=SPOT)
WARNED = replace(INTERRUPTION, rerun_on="")
NOT_RERUN = replace(INTERRUPTION, rerun_on="", outcome_annotated=True)


def newer(started: float, capacity_provider: str = SPOT) -> Task:
    """The run's next task, started so many seconds after the drill began."""
    return make_task(
        arn=NEWER_TASK_ARN,
        created_at=NOW + seconds(10),
        started_at=NOW + seconds(started),
        capacity_provider=capacity_provider,
    )


def make_seen(**changes: Any) -> Seen:
    """A drill that has passed. `history`: after the state in which it found the run."""
    ordinary = Seen(
        asked_at=NOW,
        task=make_task(execution_stopped_at=NOW + seconds(4), exit_code=1),
        stopping_at=NOW + seconds(0.5),
        interruption=INTERRUPTION,
        history=(BEFORE, PARKED, DUE, PENDING, RUNNING),
        newer=newer(15),
    )
    if "history" in changes:
        changes["history"] = (BEFORE, *changes["history"])
    return replace(ordinary, **changes)


def verdict(seen: Seen) -> tuple[str, str]:
    return verdict_of(Drilled(Target(seen.task, make_run()), seen))


def test_a_run_that_was_rerun_has_passed_every_step() -> None:
    steps = timeline(make_seen())
    assert is_passed(steps)
    assert [step.name for step in steps[1:]] == list(NEXT_STEPS)
    assert all(step.at for step in steps)
    assert verdict(make_seen()) == ("passed, due again 1.20 s after the container's exit", "")


def test_steps_are_shown_in_the_order_of_their_times_and_once_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = make_seen()
    drilled = Drilled(Target(seen.task, make_run()), seen)
    show_drill(drilled, Output("table", quiet=True))
    shown = capsys.readouterr().out
    order = ["stop asked", "SIGTERM", "event", "container exit", "capacity", "running"]
    places = [shown.index(f" {name} ") for name in order]
    assert places == sorted(places)
    assert "react has recorded a drill" in shown
    for stream in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{stream}.isatty", lambda: True)
    show_drill(drilled, Output("table"))
    out, err = capsys.readouterr()
    assert out.startswith(f"Drill of flow run {make_run().name}: passed")
    assert "SIGTERM" not in out
    assert err.endswith(f"spotctl explain {make_run().name}\n")


STILL_RUNS = make_task(last_status="RUNNING", flow_container_stopped=False)


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        pytest.param({"stopping_at": None}, "SIGTERM", id="not stopped yet"),
        pytest.param({"task": STILL_RUNS}, "container exit", id="still running"),
        pytest.param({"interruption": None}, "event", id="no event yet"),
        pytest.param({"interruption": WARNED}, "decision", id="warned"),
        pytest.param({"history": []}, "parked", id="not parked"),
        pytest.param({"history": [PARKED]}, "due", id="parked"),
        pytest.param({"history": [PARKED, DUE]}, "picked up", id="due"),
        pytest.param({"history": [PARKED, DUE, PENDING]}, "running", id="picked up"),
        pytest.param({"newer": None}, "capacity", id="no task noted"),
    ],
)
def test_a_step_that_is_missing_is_waited_for(changes: dict[str, Any], first: str) -> None:
    seen = make_seen(**changes)
    assert not is_passed(timeline(seen))
    assert failure(timeline(seen)) is None
    assert verdict(seen) == (f"timed out waiting for {first}", NEXT_STEPS[first])


COMPLETED = state(StateType.COMPLETED, 2)
CRASHED = state(StateType.CRASHED, 2, message="not rerun, because of its tag")


@pytest.mark.parametrize(
    ("changes", "step", "found"),
    [
        ({"interruption": None, "history": [COMPLETED]}, "decision", "drill a longer one"),
        ({"interruption": NOT_RERUN, "history": [CRASHED]}, "decision", "because of its tag"),
        ({"newer": newer(15, capacity_provider="")}, "capacity", "not FARGATE_SPOT"),
        ({"newer": newer(3)}, "running", "ran twice"),
    ],
    ids=["it completed in its grace", "not rerun", "the wrong capacity", "two containers at once"],
)
def test_what_must_not_be_fails_the_drill(changes: dict[str, Any], step: str, found: str) -> None:
    what, next_step = verdict(make_seen(**changes))
    assert what.startswith(f"failed at {step}: ")
    assert found in what
    assert next_step == NEXT_STEPS[step]


def test_a_run_that_completed_before_the_drill_fails_no_step() -> None:
    before = replace(COMPLETED, timestamp=NOW - seconds(1))
    assert failure(timeline(make_seen(interruption=None, history=[before]))) is None


def test_in_observe_mode_a_drill_ends_with_the_decision() -> None:
    steps = timeline(make_seen(is_observing=True, history=[], newer=None))
    assert is_passed(steps)
    assert steps[-1].name == "decision"
    assert steps[-1].found.startswith("would be rerun on FARGATE_SPOT")


RUNS = make_task(last_status="RUNNING", desired_status="RUNNING", flow_container_stopped=False)
RUN = make_run()
ON_DEMAND = replace(RUNS, capacity_provider="")
NO_FLOW = replace(RUNS, flow_run_id=None)
STOPPING = replace(RUNS, desired_status="STOPPED")
PROTECTED = make_run(tags=("spot:never-rerun",))


@pytest.mark.parametrize(
    ("task", "run", "mode", "is_named", "refusal"),
    [
        (RUNS, RUN, "rescue", False, ""),
        (NO_FLOW, None, "rescue", True, "runs no flow"),
        (newer(0), RUN, "rescue", True, "not RUNNING"),
        (STOPPING, RUN, "rescue", True, "not RUNNING"),
        (ON_DEMAND, RUN, "rescue", True, "on demand"),
        (RUNS, None, "rescue", True, "does not know"),
        (RUNS, make_run(state=PENDING), "rescue", True, "not Running"),
        (RUNS, make_run(deployment_id=None), "rescue", True, "no deployment"),
        (RUNS, PROTECTED, "rescue", True, "spot:never-rerun"),
        (RUNS, make_run(work_pool_name="ml"), "rescue", True, ""),
        (RUNS, make_run(work_pool_name="theirs"), "rescue", True, "another work pool, theirs"),
        (RUNS, RUN, "opt-in", True, "opt-in"),
        (RUNS, RUN, "observe", False, "MODE is observe"),
        (RUNS, RUN, "observe", True, ""),
    ],
)
def test_a_drill_refuses_what_would_not_be_rerun(
    task: Task, run: Any, mode: str, is_named: bool, refusal: str
) -> None:
    found = refusal_of(task, run, Policy(Mode(mode), work_pools=("etl", "ml")), is_named=is_named)
    assert bool(found) is bool(refusal)
    assert refusal in found


@pytest.mark.parametrize(
    ("mode", "is_own_run", "ended"),
    [
        pytest.param("observe", True, [RUN_ID], id="its own run in observe mode"),
        pytest.param("observe", False, [], id="another run"),
        pytest.param("rescue", True, [], id="its own run, which is rescued"),
    ],
)
def test_a_drill_ends_the_run_that_it_started_where_no_handler_does(
    mode: str, is_own_run: bool, ended: list[UUID]
) -> None:
    cancelled: list[UUID] = []
    ecs = SimpleNamespace(stop_task=lambda **_: None, describe_tasks=lambda **_: {"tasks": []})
    no_records = SimpleNamespace(get_item=lambda **_: {})
    context: Any = SimpleNamespace(
        aws=SimpleNamespace(client={"ecs": ecs, "dynamodb": no_records}.__getitem__),
        now=lambda: NOW,
        progress=lambda _line: None,
        prefect=SimpleNamespace(
            runs=SimpleNamespace(read_history=lambda _: (), read_run=lambda _: None),
            cancel=lambda run_id, _message: cancelled.append(run_id),
        ),
        project=SimpleNamespace(stack="runs", settings=SimpleNamespace(mode=Mode(mode))),
    )
    assert not drill(context, Target(RUNS, make_run(), is_own_run), timedelta(0)).passed
    assert cancelled == ended
