"""Canary secrets in everything that comes in, and none of them in anything that goes out.

First the handlers in process, through every kind of misfortune; then `react` as Lambda calls it,
before servers that send back what they were sent. `tests/system/test_canaries.py` does the same to
the deployed zip.
"""

import base64
import io
import json
import logging
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import uuid4

import boto3
import pytest
from aws_lambda_powertools import Logger
from moto import mock_aws

from chalicelib import wiring
from chalicelib.core.model.ecs_task import Task, parse_task
from chalicelib.core.model.policy import Mode
from chalicelib.core.rescue.actions import Verdict
from chalicelib.core.rescue.rerun_state import park_id_of_task
from chalicelib.errors import PrefectSpotError
from chalicelib.functions.react import react
from localcloud.access_proxy import HEADER
from tests.faults.universes import PLOTS, Life, Plot, finish
from tests.laws.universe import Universe
from tests.make import CLUSTER_ARN, RUN_ID, TASK_ARN, make_event, make_table
from tests.unit.canaries import Canaries
from tests.unit.lambda_bench import Context, forget
from tests.unit.prefect_bench import make_answer, make_state
from tests.unit.scripted_server import ScriptedServer, Step, answer, answer_raw, cut


def detail_with(canaries: Canaries, run_id: object) -> dict[str, Any]:
    """What anyone who may run a task can put into its events."""
    plant = canaries.plant
    flow = {
        "name": "prefect",
        "command": ["prefect", "flow-run", "execute", plant("a command")],
        "environment": [
            {"name": "PREFECT__FLOW_RUN_ID", "value": str(run_id)},
            {"name": "DB_PASSWORD", "value": plant("the flow's environment")},
            {"name": plant("a variable's name"), "value": "x"},
            {"name": "PREFECT_API_KEY", "value": plant("a key the worker copied")},
        ],
    }
    sidecar = {
        "name": plant("a container's name"),
        "environment": [{"name": "TOKEN", "value": plant("a sidecar's environment")}],
    }
    return {
        "overrides": {"containerOverrides": [flow, sidecar], "taskRoleArn": plant("a role")},
        "containers": [
            {"name": "prefect", "lastStatus": "STOPPED", "image": plant("an image")},
            {"name": plant("another container"), "reason": plant("its reason"), "exitCode": 1},
        ],
        "startedBy": plant("who started it"),
        "group": plant("a group"),
        "attachments": [{"details": [{"name": "subnetId", "value": plant("an attachment")}]}],
        "attributes": [{"name": plant("an attribute"), "value": plant("its value")}],
        "tags": [{"key": "owner", "value": plant("a task's tag")}],
        "platformVersion": plant("a platform version"),
    }


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

PARAMETER = "/prefect-spot/dev/credential"
KEY_SETTING = "PREFECT_API_KEY_PARAMETER"
AUTH_SETTING = "PREFECT_API_AUTH_STRING_PARAMETER"
HEADERS_SETTING = "PREFECT_CUSTOM_HEADERS_PARAMETER"
TABLE = "prefect-spot-dev"


@dataclass
class Function:
    """The function with its settings, its table and its credential, in moto's AWS."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    lines: io.StringIO
    canaries: Canaries = field(default_factory=Canaries)
    error: Exception | None = None
    seen: list[str] = field(default_factory=list)
    """The credentials, and the custom headers, that the server got."""

    def hold(self, setting: str) -> None:
        """Store the credential that the setting names."""
        name = PARAMETER
        if setting == HEADERS_SETTING:
            value = json.dumps({HEADER: self.canaries.plant("the proxy's header")})
            name = f"{PARAMETER}-headers"
        elif setting == AUTH_SETTING:
            value = f"admin:{self.canaries.plant('the password')}"
            self.canaries.plant("the basic header", base64.b64encode(value.encode()).decode())
        else:
            value = self.canaries.plant("the API key", f"pnu_{uuid4().hex}")
        boto3.client("ssm").put_parameter(Name=name, Value=value, Type="SecureString")
        self.monkeypatch.setenv(setting, name)

    def answers(self, *script: Step) -> dict[str, Any] | None:
        """Have it answer an interruption, without pauses, before a server that plays `script`.

        What it raises is kept, whatever it is.
        """
        event = make_event(detail_with(self.canaries, RUN_ID))
        with ScriptedServer(script) as server:
            self.monkeypatch.setenv("PREFECT_API_URL", f"{server.url}/api")
            try:
                without_pauses = partial(wiring.context_of, pause=lambda _seconds: None)
                return dict(wiring.answer(react, without_pauses, event, Context()))
            except Exception as error:
                self.error = error
                return None
            finally:
                names = ("Authorization", HEADER)
                self.seen = [seen.headers.get(n, "") for n in names for seen in server.seen]

    @property
    def printed(self) -> str:
        """Its standard output and error, and what Lambda's runtime prints of its error."""
        captured = self.capsys.readouterr()
        trace = "".join(traceback.format_exception(self.error)) if self.error else ""
        chain, link = [], self.error
        while link is not None:
            chain.append(f"{link!r} {link.args!r} {vars(link)!r}")
            link = link.__cause__ or link.__context__  # type: ignore[assignment]  # a cause may be none
        return "\n".join([self.lines.getvalue(), captured.out, captured.err, trace, *chain])

    @property
    def stored(self) -> str:
        """Its table."""
        return json.dumps(boto3.client("dynamodb").scan(TableName=TABLE)["Items"])


@pytest.fixture
def function(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Function]:
    environment = {
        "STAGE": "dev",
        "LOG_LEVEL": "DEBUG",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in (KEY_SETTING, AUTH_SETTING, HEADERS_SETTING, "MODE", "ECS_CLUSTER", "STACK_NAME"):
        monkeypatch.delenv(name, raising=False)
    forget()
    # One logger for the whole process, with the stream it began with: Powertools' and Chalice's.
    lines = io.StringIO()
    Logger(service="prefect-spot")
    for handler in logging.getLogger("prefect-spot").handlers:
        monkeypatch.setattr(handler, "stream", lines)
    with mock_aws():
        make_table(boto3.client("dynamodb"), TABLE)
        yield Function(monkeypatch, capsys, lines)
    forget()


def heard(handler: BaseHTTPRequestHandler) -> str:
    """What a careless server or proxy sends back: the header, and what it read in it."""
    header = handler.headers.get("Authorization", "none")
    scheme, _, value = header.partition(" ")
    plain = base64.b64decode(value).decode() if scheme == "Basic" else value
    custom = handler.headers.get(HEADER, "")
    return f"{header} / {value} / {plain} / {plain.rpartition(':')[2]} / {custom} / {custom!a}"


def echo(status: int, shape: str = "detail", **headers: str) -> Step:
    def step(handler: BaseHTTPRequestHandler) -> None:
        said = heard(handler)
        bodies: dict[str, object] = {
            "detail": {"detail": f"Not authorized: {said}"},
            "message": {"message": said, "exception_message": said},
            "validation": {
                "exception_detail": [{"loc": ["headers", said], "msg": said, "input": said}]
            },
            "list": [said],
            "states": [{"type": said}],
        }
        echoed = {name: value.replace("HEARD", said) for name, value in headers.items()}
        answer(status, bodies[shape], **echoed)(handler)

    return step


def echo_raw(status: int) -> Step:
    return lambda handler: answer_raw(heard(handler).encode(), status)(handler)


def no_http(handler: BaseHTTPRequestHandler) -> None:
    """A status line that is none, which HTTP clients like to show."""
    handler.wfile.write(f"{heard(handler)}\r\n\r\n".encode())
    handler.close_connection = True


CARELESS: dict[str, Step] = {
    "refused": echo(401),
    "forbidden": echo(403),
    "not found": echo(404, "message"),
    "invalid": echo(422, "validation"),
    "broken": echo(500, "message"),
    "overloaded": echo(503, Retry_After="HEARD"),
    "redirecting": echo(302, Location="https://elsewhere.example/?token=HEARD"),
    "a page": echo_raw(200),
    "an error page": echo_raw(502),
    "cut": lambda handler: cut(heard(handler).encode())(handler),
    "no HTTP": no_http,
    "another shape": echo(200, "list"),
    "a list of states that are none": echo(200, "states"),
}


@pytest.mark.parametrize(
    ("server", "setting"),
    [
        *[pytest.param(server, AUTH_SETTING, id=name) for name, server in CARELESS.items()],
        pytest.param(CARELESS["refused"], KEY_SETTING, id="refused, with a key"),
        pytest.param(CARELESS["no HTTP"], KEY_SETTING, id="no HTTP, with a key"),
        *[
            pytest.param(CARELESS[name], HEADERS_SETTING, id=f"{name}, with headers")
            for name in ("forbidden", "redirecting", "an error page", "no HTTP", "invalid")
        ],
    ],
)
def test_a_server_that_sends_the_credential_back_does_not_get_it_printed(
    function: Function, server: Step, setting: str
) -> None:
    function.hold(setting)
    if setting == HEADERS_SETTING:
        function.hold(AUTH_SETTING)
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
        elif "/deployments/" in handler.path or "/work_pools/" in handler.path:
            answer(200, {"flow_id": str(RUN_ID), "job_variables": {}, "base_job_template": {}})(
                handler
            )
        elif "/filter" in handler.path:
            answer(200, [])(handler)
        else:
            answer(200, run)(handler)

    function.answers(step)
    printed = function.printed
    assert "Validation failed for field 'env'" in printed
    assert function.canaries.found_in(f"{printed}\n{function.stored}") == []


@pytest.mark.parametrize("form", ["{}", '{{"X": "{}\\r\\nY: 1"}}', '{{"Host": "{}"}}', '["{}"]'])
def test_headers_that_cannot_be_sent_are_in_no_log_of_the_function(
    function: Function, form: str
) -> None:
    function.hold(HEADERS_SETTING)
    value = form.format(function.canaries.planted["the proxy's header"])
    boto3.client("ssm").put_parameter(
        Name=f"{PARAMETER}-headers", Value=value, Type="SecureString", Overwrite=True
    )
    function.answers(echo(401))
    assert "PREFECT_CUSTOM_HEADERS_PARAMETER" in (printed := function.printed)
    assert function.canaries.found_in(f"{printed}\n{function.stored}") == []


@pytest.mark.parametrize("form", ["{}\r", "{}\n ", "{}\r\nX-Evil: 1", "a {}", "{}\u2028", "ä{}"])
def test_a_key_that_cannot_be_sent_is_in_no_log_of_the_function(
    function: Function, form: str
) -> None:
    function.hold(KEY_SETTING)
    key = form.format(function.canaries.planted["the API key"])
    boto3.client("ssm").put_parameter(
        Name=PARAMETER, Value=key, Type="SecureString", Overwrite=True
    )
    function.answers(echo(401))
    assert "the invocation failed" in (printed := function.printed)
    assert function.canaries.found_in(f"{printed}\n{function.stored}") == []


@pytest.mark.parametrize(
    "url", ["https://{}@p.de/api", "https://u:{}@p.de", "https://p.de/?key={}", "https://p.de/{}"]
)
def test_a_key_in_the_functions_address_is_in_no_log(
    function: Function, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    key = function.canaries.plant("the API key", f"pnu_{uuid4().hex}")
    monkeypatch.setenv("PREFECT_API_URL", url.format(key))
    with pytest.raises(PrefectSpotError, match="it is not shown") as caught:
        wiring.answer(react, wiring.context_of, make_event(), Context())
    function.error = caught.value
    assert function.canaries.found_in(function.printed) == []


def test_the_search_would_find_what_is_printed_or_stored(function: Function) -> None:
    function.hold(AUTH_SETTING)
    function.answers(echo(401))
    secrets = function.canaries.planted
    function.error = ValueError(f"… {secrets['the password'][:14]} …")
    assert function.canaries.found_in(function.printed) == ["the password"]
