"""Canary secrets in everything that comes in, and none of them in anything that goes out.

First the handlers in process, through every kind of misfortune; then `react` as Lambda calls it,
before servers that send back what they were sent. `tests/system/test_canaries.py` does the same to
the deployed zip.
"""

import io
from collections.abc import Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import uuid4

import pytest
from aws_lambda_powertools import Logger

from chalicelib.core.model.ecs_task import Task, parse_task
from chalicelib.core.model.policy import Mode
from chalicelib.core.rescue.actions import Verdict
from chalicelib.core.rescue.snapshot import park_id_of_task
from chalicelib.functions.react import react
from tests.faults.universes import PLOTS, Life, Plot, finish
from tests.laws.universe import Universe
from tests.make import CLUSTER_ARN, RUN_ID, TASK_ARN, make_event
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
from tests.unit.scripted_server import Step, answer

__all__ = ["function"]  # the fixture


def plant_in(life: Life, canaries: Canaries) -> None:
    """What anyone who may start a run or a task can put on it, and what others wrote there."""
    universe, plant = life.universe, canaries.plant
    run = universe.prefect.runs[life.run_id]
    run.name, run.labels = plant("the run's name"), {**run.labels, "team": plant("a label")}
    run.tags = (*run.tags, plant("a run's tag"), f"spot-retries:{plant('a tag of ours')}")
    run.job_variables = {
        **run.job_variables,
        "env": {"API_TOKEN": plant("a job variable")},
        plant("a job variable's name"): [plant("another job variable")],
    }
    for number, state in enumerate(run.states):
        said = f"{state.message} {plant(f'the message of state {number}')}".strip()
        run.states[number] = replace(state, message=said)
    for child in life.children:
        universe.prefect.runs[child].name = plant("a child's name")
    described = parse_task(make_event(detail_with(canaries, life.run_id))["detail"])
    assert isinstance(described, Task)
    for arn, task in universe.tasks.items():
        universe.tasks[arn] = replace(
            task,
            container_reason=described.container_reason,
            architecture=described.architecture,
        )


def event_with(canaries: Canaries, plot: Plot, life: Life) -> dict[str, Any]:
    assert plot.event is not None
    event = plot.event(life)
    planted = detail_with(canaries, life.run_id)
    planted["containers"] = [*event["detail"]["containers"], *planted["containers"][1:]]
    if plot.is_bill:
        del planted["launchType"]  # only Fargate's tasks are billed
    return {**event, "detail": {**event["detail"], **planted}}


def written(life: Life, before: Sequence[object]) -> str:
    """All that the handlers wrote; the run's own name stays its own, in its own events."""
    universe, prefect = life.universe, life.universe.prefect
    states = [state for run in prefect.runs.values() for state in run.states if state not in before]
    events = [replace(event, flow_run_name="") for event in prefect.events.values()]
    labels = {k: v for k, v in prefect.runs[life.run_id].labels.items() if k != "team"}
    said = [prefect.log_lines, prefect.artifacts, prefect.tables, events, labels, states]
    return "\n".join(map(repr, [*said, universe.measured, universe.stored, universe.bills]))


@pytest.mark.parametrize("mode", [Mode.RESCUE, Mode.OBSERVE])
@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: f"{plot.function}, {plot.name}")
def test_no_handler_writes_a_secret(plot: Plot, mode: Mode) -> None:
    canaries, lines = Canaries(), io.StringIO()
    life = plot.begin(Universe())
    plant_in(life, canaries)
    universe = life.universe
    before = [state for run in universe.prefect.runs.values() for state in run.states]
    universe.policy = replace(universe.policy, mode=mode)
    universe.log = Logger(service=f"canary-{uuid4()}", level="DEBUG", stream=lines)
    planted = plot.event and replace(plot, event=lambda life: event_with(canaries, plot, life))
    (planted or plot).handle(life)
    finish(life, plot, only_sweep=False)
    if mode is Mode.RESCUE:
        assert not life.verdict(rescued=plot.rescued).findings, "it took another way"
    assert "swept" in lines.getvalue()
    assert canaries.found_in(f"{lines.getvalue()}\n{written(life, before)}") == []


@pytest.mark.parametrize("shape", ["text", "list", "object", "detail", "envelope"])
def test_an_event_that_is_none_is_not_shown(shape: str) -> None:
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
    universe = Universe()
    universe.log = Logger(service=f"canary-{uuid4()}", level="DEBUG", stream=lines)
    decision = react(universe.context(), events[shape])
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


def test_the_search_would_find_what_is_printed_or_stored(function: Function) -> None:
    function.hold(AUTH_SETTING)
    function.answers(echo(401))
    secrets = function.canaries.planted
    function.error = ValueError(f"… {secrets['the password'][:14]} …")
    assert function.canaries.found_in(function.printed) == ["the password"]
