"""Canary secrets in everything that comes in, and none of them in anything that goes out.

First `react` in process, through every kind of decision; then the whole function as Lambda calls
it, before servers that send back what they were sent. `tests/system/test_canaries.py` does the same
to the deployed zip.
"""

import io
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import uuid4

import pytest
from aws_lambda_powertools import Logger

from chalicelib.core.actions import Verdict
from chalicelib.core.run import StateType
from chalicelib.core.situation import Mode
from chalicelib.core.standing import park_id_of_task
from chalicelib.errors import SettingError
from chalicelib.functions.react import react
from chalicelib.functions.sweep import sweep
from chalicelib.settings import read_settings
from tests.make import (
    CLUSTER_ARN,
    NEWER_TASK_ARN,
    NOW,
    RUN_ID,
    TASK_ARN,
    make_event,
    make_task,
)
from tests.unit.canaries import Canaries
from tests.unit.lambda_bench import (
    AUTH_SETTING,
    CARELESS,
    KEY_SETTING,
    Function,
    detail_with,
    echo,
    function,
)
from tests.unit.prefect_bench import make_answer, make_state
from tests.unit.scripted_server import ScriptedServer, Step, answer
from tests.unit.test_react import Scene, scene

__all__ = ["function", "scene"]  # the fixtures


def run_with(canaries: Canaries, scene: Scene, *tags: str) -> None:
    """What whoever may start a run can put on it."""
    run, plant = scene.prefect.runs[scene.run_id], canaries.plant
    run.name = plant("the run's name")
    run.tags = (*tags, plant("a run's tag"), f"spot-retries:{plant('a tag of ours')}")
    run.job_variables = {
        "cpu": 512,
        "env": {"API_TOKEN": plant("a job variable")},
        plant("a job variable's name"): [plant("another job variable")],
    }
    run.labels = {"team": plant("a label")}


def written(scene: Scene) -> str:
    """All that `react` wrote in process; the run's own name stays its own, in its own events."""
    prefect = scene.prefect
    run = prefect.runs[scene.run_id]
    events = [replace(event, flow_run_name="") for event in prefect.events.values()]
    ours = [tag for tag in run.tags if tag in ("spot-interrupted", "spot-on-demand")]
    labels = {name: value for name, value in run.labels.items() if name != "team"}
    said = [prefect.log_lines, prefect.artifacts, events, ours, labels, run.states]
    return "\n".join(map(repr, [*said, scene.records.saved, scene.records.record]))


def own_things(scene: Scene) -> tuple[object, ...]:
    run = scene.prefect.runs[scene.run_id]
    capacity = ("launch_type", "capacity_provider_strategy")
    ours = ("spot-interrupted", "spot-on-demand")
    return (
        [tag for tag in run.tags if tag not in ours],
        {k: v for k, v in run.job_variables.items() if k not in capacity},
    )


def into_state(scene: Scene, kind: StateType) -> None:
    run = scene.prefect.runs[scene.run_id]
    run.states[-1] = replace(run.state, type=kind, name=kind.value.title())


WARNING = {"lastStatus": "RUNNING", "containers": None}
ORDINARY_END = {"stopCode": "EssentialContainerExited", "stoppedReason": "exited"}
NO_CAPACITY = {
    "stopCode": "TaskFailedToStart",
    "stoppedReason": "Capacity is unavailable at this time",
    "startedAt": None,
}


@dataclass(frozen=True)
class Case:
    """A way through `react`, and the verdict that shows it was taken."""

    verdict: Verdict
    detail: Mapping[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    state: StateType | None = None
    mode: Mode = Mode.RESCUE
    pid: str | None = None


CASES = {
    "rerun on Spot": Case(Verdict.FINISH_RERUN),
    "rerun on demand": Case(Verdict.FINISH_RERUN, tags=("spot-retries:0",)),
    "warning": Case(Verdict.WARNED, WARNING),
    "over already": Case(Verdict.ANNOTATE, state=StateType.COMPLETED),
    "paused": Case(Verdict.AWAIT_RESUME, state=StateType.PAUSED),
    "never rerun": Case(Verdict.MARK_CRASHED, tags=("spot:never-rerun",)),
    "observed": Case(Verdict.RERUN_ON_SPOT, mode=Mode.OBSERVE),
    "not opted in": Case(Verdict.MARK_CRASHED, mode=Mode.OPT_IN),
    "an ordinary end": Case(Verdict.IGNORE, ORDINARY_END),
    "of an older task": Case(Verdict.IGNORE, pid=f"{CLUSTER_ARN}::{NEWER_TASK_ARN}"),
    "another cluster's": Case(Verdict.IGNORE, {"clusterArn": f"{CLUSTER_ARN}-2"}),
    "no flow run's": Case(Verdict.IGNORE, {"overrides": None, "tags": None}),
    "malformed": Case(Verdict.IGNORE, {"taskArn": None}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_no_decision_tells_a_secret(scene: Scene, case: Case) -> None:
    canaries, lines = Canaries(), io.StringIO()
    run_with(canaries, scene, *case.tags)
    if case.state:
        into_state(scene, case.state)
    if case.pid:
        scene.prefect.runs[scene.run_id].infrastructure_pid = case.pid
        newer = NOW + timedelta(seconds=5)
        scene.tasks.tasks[NEWER_TASK_ARN] = replace(
            make_task(), arn=NEWER_TASK_ARN, created_at=newer
        )
    logger = Logger(service=f"canary-{uuid4()}", level="DEBUG", stream=lines)
    policy = replace(scene.world.policy, mode=case.mode)
    world = replace(scene.world, log=logger, policy=policy)
    before = own_things(scene)
    event = make_event({**detail_with(canaries, scene.run_id), **case.detail})

    decision = react(world, event)

    assert decision.verdict is case.verdict
    assert '"message":"decided"' in lines.getvalue()
    assert canaries.found_in(f"{lines.getvalue()}\n{written(scene)}\n{decision.reason}") == []
    assert own_things(scene) == before


@pytest.mark.parametrize("shape", ["text", "list", "object", "detail", "envelope"])
def test_an_event_that_is_none_is_not_shown(scene: Scene, shape: str) -> None:
    canaries, lines = Canaries(), io.StringIO()
    secret = canaries.plant("the event")
    envelope = {"source": "aws.ecs", "detail-type": "ECS Task State Change"}
    events: dict[str, object] = {
        "text": secret,
        "list": [secret],
        "object": {"password": secret, secret: 1},
        "detail": {**envelope, "detail": {"password": secret}},
        "envelope": {**envelope, "account": secret, "detail": secret},
    }
    logger = Logger(service=f"canary-{uuid4()}", level="DEBUG", stream=lines)
    decision = react(replace(scene.world, log=logger), events[shape])
    assert decision.verdict is Verdict.IGNORE
    assert canaries.found_in(lines.getvalue() + decision.reason) == []


# The whole function, as Lambda calls it.


@pytest.mark.parametrize(
    ("server", "setting"),
    [
        *[pytest.param(server, AUTH_SETTING, id=name) for name, server in CARELESS.items()],
        pytest.param(CARELESS["refused"], KEY_SETTING, id="refused, with a key"),
        pytest.param(CARELESS["no HTTP"], KEY_SETTING, id="no HTTP, with a key"),
    ],
)
def test_a_server_that_sends_the_credential_back_does_not_get_it_printed(
    function: Function, server: Step, setting: str
) -> None:
    function.hold(setting)
    result = function.answers(server)
    printed = function.printed
    assert any(map(function.canaries.found_in, function.seen)), "the server was sent no credential"
    assert function.canaries.found_in(f"{printed}\n{function.stored}\n{result}") == []
    if function.error is not None:
        assert "the invocation failed" in printed
        assert "stack_trace" in printed


@pytest.mark.parametrize("server", CARELESS.values(), ids=CARELESS.keys())
def test_nor_does_it_get_what_sweep_sends_printed(function: Function, server: Step) -> None:
    function.hold(AUTH_SETTING)
    with ScriptedServer([server]) as scripted:
        function.monkeypatch.setenv("PREFECT_API_URL", f"{scripted.url}/api")
        function.called(sweep, {})
        sent = [seen.headers.get("Authorization", "") for seen in scripted.seen]
    printed = function.printed
    assert any(map(function.canaries.found_in, sent)), "the server was sent no credential"
    assert "the invocation failed" in printed
    assert function.canaries.found_in(f"{printed}\n{function.stored}") == []


def test_a_refused_change_does_not_quote_the_runs_job_variables(function: Function) -> None:
    """Prefect's own words about a value that its template does not take hold that value."""
    function.hold(KEY_SETTING)
    secret = function.canaries.plant("a job variable")
    parked = make_state(
        type="SCHEDULED",
        name="AwaitingRetry",
        state_details={"transition_id": str(park_id_of_task(TASK_ARN))},
    )
    run = make_answer(
        state=parked,
        tags=["spot-retries:0"],
        deployment_id=str(RUN_ID),
        infrastructure_pid=f"{CLUSTER_ARN}::{TASK_ARN}",
        job_variables={"env": {"DB": f"{secret}\nsecond 'line'"}},
    )
    said = (
        "Error updating flow run: Validation failed for field 'env'. Failure reason:"
        f" {run['job_variables']!r} is not of type 'string'"
    )

    def step(handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "PATCH":
            answer(422, {"detail": said})(handler)
        elif "flow_run_states" in handler.path:
            answer(200, [parked])(handler)
        else:
            answer(200, run)(handler)

    function.answers(step)
    printed = function.printed
    assert "Validation failed for field 'env'" in printed
    assert function.canaries.found_in(f"{printed}\n{function.stored}") == []


@pytest.mark.parametrize("setting", [KEY_SETTING, AUTH_SETTING])
def test_a_server_that_is_not_there_gets_nothing_printed(function: Function, setting: str) -> None:
    function.hold(setting)
    with ScriptedServer([answer()]) as server:
        gone = server.url
    function.monkeypatch.setenv("PREFECT_API_URL", gone)
    function.answers_event()
    printed = function.printed
    assert "PrefectUnavailableError" in printed
    assert function.canaries.found_in(f"{printed}\n{function.stored}") == []


def test_a_key_that_no_header_can_hold_is_not_printed(function: Function) -> None:
    function.store(KEY_SETTING, f"{function.canaries.plant('the key')}\r\nX-Evil: 1")
    function.answers(answer())
    printed = function.printed
    assert "SecretUnreadableError" in printed
    assert function.canaries.found_in(printed) == []


def test_the_search_would_find_what_is_printed_or_stored(function: Function) -> None:
    function.hold(AUTH_SETTING)
    function.answers(echo(401))
    secrets = function.canaries.planted
    function.error = ValueError(f"… {secrets['the password'][:14]} …")
    assert function.canaries.found_in(function.printed) == ["the password"]


# Settings that hold the secret itself.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PREFECT_API_URL", "https://admin:{}@prefect.example/api"),
        ("PREFECT_API_URL", "admin:{}@prefect.example/api"),
        ("PREFECT_API_URL", "https:/admin:{}@prefect.example/api"),
        (KEY_SETTING, "pnu_{}"),
        (KEY_SETTING, "pnb_{}"),
    ],
)
def test_a_credential_where_none_belongs_is_refused_without_showing_it(
    name: str, value: str
) -> None:
    canaries = Canaries()
    environment = {"PREFECT_API_URL": "https://prefect.example/api"}
    environment[name] = value.format(canaries.plant("a credential"))
    with pytest.raises(SettingError) as caught:
        read_settings(environment)
    assert name in str(caught.value)
    assert canaries.found_in("".join(traceback.format_exception(caught.value))) == []
