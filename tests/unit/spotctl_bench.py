"""`spotctl` before moto and a Prefect that answers by path: settings, functions, queue, table."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto import mock_aws
from moto.sqs.models import SQSBackend
from typer.testing import CliRunner

from localcloud import moto_additions
from localcloud.moto_additions import LambdaAnswer, LambdaHooks
from spotctl.cli import app
from tests.unit.scripted_server import ScriptedServer, Seen, answer

REGION = "us-east-1"
STACK = "prefect-spot-dev"
POOL = "fargate-spot-dev"
FUNCTIONS = ("react", "meter", "sweep", "provision")
KEY = "pnu_0123456789abcdef"


@dataclass
class Result:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def answer(self) -> Any:
        return json.loads(self.out)

    @property
    def rows(self) -> dict[str, Any]:
        """The rows of a status or teardown, by part."""
        return {row["part"]: row for row in self.answer["rows"]}

    def is_refused(self, error: str, next_step: str = "") -> bool:
        """Whether the command ended with an error and a next step, with these in them."""
        what, step = self.err.splitlines()[-2:]
        assert (what[:7], step[:11]) == ("error: ", "next step: "), self.err
        return (self.code, self.out) == (2, "") and error in what and next_step in step


@dataclass
class Bench:
    """A stage in moto; `answers`: Prefect's, by "METHOD /path"; `reply`: what functions answer."""

    folder: Path
    answers: dict[str, object]
    server: ScriptedServer = field(init=False)
    invoked: list[tuple[str, Any]] = field(default_factory=list)
    reply: Callable[[Any], LambdaAnswer] = lambda _event: LambdaAnswer({"decision": "ignore"})

    @property
    def requests(self) -> list[Seen]:
        """Those to Prefect."""
        return self.server.seen

    def client(self, service: str) -> Any:
        return boto3.client(service, region_name=REGION)  # type: ignore[call-overload]  # any service

    def run(self, *arguments: str) -> Result:
        """Run a command; its output goes into a pipe."""
        result = CliRunner().invoke(app, [*arguments, "--project-dir", str(self.folder)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return Result(result.exit_code, result.stdout, result.stderr)

    def configure(self, **environment: str) -> None:
        """Write the stage's config, with these settings over the ordinary ones."""
        functions = {name: {"iam_policy_file": f"policy-{name}-dev.json"} for name in FUNCTIONS}
        settings = {"PREFECT_API_URL": f"{self.server.url}/api", **environment}
        dev = {"lambda_functions": functions, "environment_variables": settings}
        path = self.folder / ".chalice" / "config.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"app_name": "prefect-spot", "stages": {"dev": dev}}))

    def deploy_functions(self) -> Mapping[str, str]:
        """Create the functions; return their ARNs by short name."""
        role = self.client("iam").create_role(RoleName="lambda", AssumeRolePolicyDocument="{}")
        image = {"Code": {"ImageUri": "any"}, "PackageType": "Image"}
        return {
            name: self.client("lambda").create_function(
                FunctionName=f"{STACK}-{name}", Role=role["Role"]["Arn"], **image
            )["FunctionArn"]
            for name in FUNCTIONS
        }

    def _invoke(self, name: str, event: Any) -> LambdaAnswer:
        self.invoked.append((name, event))
        return self.reply(event)

    def _answer(self, handler: BaseHTTPRequestHandler) -> None:
        found = self.answers.get(f"{handler.command} {handler.path.removeprefix('/api')}")
        step = answer(body=found) if found is not None else answer(404, {"detail": "not found"})
        step(handler)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """The bench in a folder of its own."""
    prefects = ("PREFECT_API_KEY", "PREFECT_API_AUTH_STRING", "PREFECT_API_URL", "PREFECT_PROFILE")
    for name in (*prefects, "PREFECT_PROFILES_PATH", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    receive: Any = SQSBackend.receive_message
    monkeypatch.setattr(  # as AWS's, but without waiting for a message
        SQSBackend,
        "receive_message",
        lambda sqs, queue, n, _s, *rest: receive(sqs, queue, n, 0, *rest),
    )
    moto_additions.install()
    made = Bench(tmp_path, {})
    with ExitStack() as stack:
        stack.enter_context(mock_aws(config={"core": {"passthrough": {"urls": [r"127\.0\.0\.1"]}}}))
        made.server = stack.enter_context(ScriptedServer([made._answer]))
        made.configure()
        moto_additions.connect_lambda(LambdaHooks(made._invoke, made._invoke))
        stack.callback(moto_additions.connect_lambda, None)
        yield made
