"""`react` as Lambda calls it, with settings, table and credential, before a server by script.

And servers that are careless with the credential that they are sent.
"""

import base64
import io
import json
import logging
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from uuid import uuid4

import boto3
import pytest
from aws_lambda_powertools import Logger
from moto import mock_aws

from chalicelib import wiring
from chalicelib.functions.react import react
from tests.make import ACCOUNT, RUN_ID, make_event, make_table
from tests.unit.canaries import Canaries
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
        "launchType": plant("a launch type"),
    }


class Context:
    """An invocation with time for every try: no test waits between two of them."""

    aws_request_id = "c0ffee00-0000-4000-8000-000000000001"
    invoked_function_arn = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:prefect-spot-dev-react"

    def __init__(self, milliseconds_left: int = 60_000) -> None:
        self.milliseconds_left = milliseconds_left

    def get_remaining_time_in_millis(self) -> int:
        return self.milliseconds_left


PARAMETER = "/prefect-spot/dev/credential"
KEY_SETTING = "PREFECT_API_KEY_PARAMETER"
AUTH_SETTING = "PREFECT_API_AUTH_STRING_PARAMETER"
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
    """The Authorization headers that the server got."""

    def hold(self, setting: str) -> None:
        """Store the credential that the setting names."""
        if setting == AUTH_SETTING:
            value = f"admin:{self.canaries.plant('the password')}"
            self.canaries.plant("the basic header", base64.b64encode(value.encode()).decode())
        else:
            value = self.canaries.plant("the API key", f"pnu_{uuid4().hex}")
        boto3.client("ssm").put_parameter(Name=PARAMETER, Value=value, Type="SecureString")
        self.monkeypatch.setenv(setting, PARAMETER)

    def answers(self, *script: Step) -> dict[str, Any] | None:
        """Have it answer an interruption, without pauses, before a server that plays `script`.

        What it raises is kept, whatever it is.
        """
        event = make_event(detail_with(self.canaries, RUN_ID))
        with ScriptedServer(script) as server:
            self.monkeypatch.setenv("PREFECT_API_URL", f"{server.url}/api")
            try:
                return dict(wiring.answer(react, event, Context(), pause=lambda _seconds: None))
            except Exception as error:
                self.error = error
                return None
            finally:
                self.seen = [seen.headers.get("Authorization", "") for seen in server.seen]

    @property
    def printed(self) -> str:
        """Its standard output and error, and what Lambda's runtime prints of its error."""
        captured = self.capsys.readouterr()
        trace = "".join(traceback.format_exception(self.error)) if self.error else ""
        chain, link = [], self.error
        while link is not None:
            chain.append(f"{link!r} {link.args!r} {vars(link)!r}")
            link = link.__cause__ or link.__context__  # type: ignore[assignment]
        return "\n".join([self.lines.getvalue(), captured.out, captured.err, trace, *chain])

    @property
    def stored(self) -> str:
        """Its table."""
        return json.dumps(boto3.client("dynamodb").scan(TableName=TABLE)["Items"])


def forget() -> None:
    """Make the wiring read its settings again, as a new Lambda environment does."""
    for part in vars(wiring).values():
        if hasattr(part, "cache_clear"):
            part.cache_clear()


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
    for name in (KEY_SETTING, AUTH_SETTING, "MODE", "ECS_CLUSTER", "STACK_NAME"):
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
    return f"{header} / {value} / {plain} / {plain.rpartition(':')[2]}"


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
