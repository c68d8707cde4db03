"""The stack's service starts the worker, with its key from SSM, and keeps it running."""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from chalicelib.core.provision.model import failures_in
from chalicelib.settings import FUNCTIONS
from localcloud import moto_additions
from localcloud.aws import EmulatedAws
from localcloud.fargate import Fargate, Timings
from localcloud.moto_additions import LambdaAnswer, LambdaHooks
from localcloud.processes import Supervisor
from spotctl.context import Aws, Context
from spotctl.deploy import deploy
from spotctl.output import Row, State
from spotctl.project import read_project
from spotctl.status import stack as stack_status
from tests.localcloud.cloud import wait_until
from tests.localcloud.stacks import API_KEY, StackUnderTest
from tests.unit.scripted_server import ScriptedServer, answer

PREFECT = """\
# Stands for the worker: prints what it was given, and answers its health check. With a wrong key
# the first one is Prefect's, and those after it exit at once, too.
import http.server, json, os, sys, time
print(json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ)}), flush=True)
if os.environ["PREFECT_API_KEY"].startswith("pnu_wrong"):
    if os.path.exists("../refused"):
        sys.exit("401 Unauthorized")
    open("../refused", "w").close()
    os.execv(sys.executable, [sys.executable, "-m", "prefect", *sys.argv[1:]])
if os.environ["PREFECT_LOGGING_LEVEL"] == "DEAF":
    time.sleep(600)

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/health" else 404)
        self.end_headers()

address = ("127.0.0.1", int(os.environ["PREFECT_WORKER_WEBSERVER_PORT"]))
http.server.HTTPServer(address, Health).serve_forever()
"""


def tasks(stack: StackUnderTest, status: str = "RUNNING") -> list[dict[str, Any]]:
    ecs, cluster = stack.aws.client("ecs"), stack.name
    arns = ecs.list_tasks(cluster=cluster)["taskArns"]
    found = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []
    return [task for task in found if task["lastStatus"] == status]


@pytest.fixture(scope="module", autouse=True)
def fargate(account: EmulatedAws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fargate]:
    folder = tmp_path_factory.mktemp("workers")
    programs = folder / "bin"
    programs.mkdir()
    (folder / "prefect.py").write_text(PREFECT)
    command = f'exec "{sys.executable}" "{folder / "prefect.py"}" "$@"'
    (programs / "prefect").write_text(f"#!/bin/sh\n{command}\n")
    (programs / "prefect").chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    timings = Timings(
        0.05, 0.05, 0.1, health_check_scale=0.01, start_period_scale=0.001, service_seconds=0.1
    )
    with (
        Supervisor.open(folder) as supervisor,
        Fargate(
            supervisor,
            account,
            lambda _: None,
            path_prefix=programs,
            extra_environment={},
            timings=timings,
        ) as fargate,
    ):
        yield fargate
        assert fargate.errors == []


def test_a_worker_starts_with_its_key_is_replaced_by_an_update_and_ends_with_the_stack(
    stack: StackUnderTest, fargate: Fargate
) -> None:
    assert stack.create(stack.full(WorkQueues="etl")) == "CREATE_COMPLETE"
    [first] = tasks(stack)
    assert (first["healthStatus"], first["launchType"]) == ("HEALTHY", "FARGATE")
    assert "capacityProviderName" not in first
    assert (first["cpu"], first["memory"]) == ("512", "1024")
    assert first["taskDefinitionArn"] == stack.outputs()["WorkerTaskDefinitionArn"]
    printed = json.loads(fargate.log_of(first["taskArn"]).read_text().splitlines()[0])
    assert printed["arguments"][:2] == ["worker", "start"]
    assert printed["environment"]["PREFECT_API_KEY"] == API_KEY
    assert printed["environment"]["PREFECT_API_URL"] == "https://prefect.example.com/api"
    assert stack.update(stack.full(WorkerMemory="2048")) == "UPDATE_COMPLETE"
    wait_until(lambda: first["taskArn"] in [t["taskArn"] for t in tasks(stack, "STOPPED")])
    assert [task["memory"] for task in tasks(stack)] == ["2048"]
    assert stack.delete() == "DELETE_COMPLETE"
    assert tasks(stack) == []
    assert not any(life.exited is None for life in fargate.ledger() if life.started)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"ApiKeyParameter": "/missing"}, "unable to pull secrets"),
        ({"LogLevel": "DEAF"}, "failed container health checks"),
    ],
    ids=["it never starts", "it is never healthy"],
)
def test_update_to_a_worker_that_fails_is_rolled_back_to_the_one_that_runs(
    stack: StackUnderTest, changes: dict[str, str], why: str
) -> None:
    stack.create(stack.full())
    before = stack.outputs()["WorkerTaskDefinitionArn"]
    [worker] = tasks(stack)
    assert stack.update(stack.full(**changes)) == "UPDATE_ROLLBACK_COMPLETE"
    [(resource, reason)] = stack.failures()
    assert resource == "WorkerService"
    assert "Circuit Breaker was triggered" in reason
    failed = tasks(stack, "STOPPED")
    assert len(failed) >= 3
    assert all(why in task["stoppedReason"] for task in failed[:3])
    assert stack.outputs()["WorkerTaskDefinitionArn"] == before
    # ECS stops the last one that failed when the update has been rolled back.
    wait_until(lambda: [task["taskArn"] for task in tasks(stack)] == [worker["taskArn"]])


def operator_of(stack: StackUnderTest, folder: Path, api_url: str) -> Context:
    """An operator's context for the stack; its `provision` is there to be invoked."""
    stage = stack.name.removeprefix("prefect-spot-")
    functions = {name: {"iam_policy_file": f"policy-{name}.json"} for name in FUNCTIONS}
    of_stage = {
        "environment_variables": {"PREFECT_API_URL": api_url},
        "lambda_functions": functions,
    }
    config = {"app_name": "prefect-spot", "stages": {stage: of_stage}}
    (folder / ".chalice").mkdir()
    (folder / ".chalice" / "config.json").write_text(json.dumps(config))
    role = {"RoleName": "lambda", "AssumeRolePolicyDocument": "{}"}
    stack.aws.client("lambda").create_function(
        FunctionName=f"{stack.name}-provision",
        Role=stack.aws.client("iam").create_role(**role)["Role"]["Arn"],
        Code={"ImageUri": "any"},
        PackageType="Image",
    )
    return Context(
        project=read_project(folder, stage),
        aws=Aws(),
        now=lambda: datetime.now(UTC),
        pause=time.sleep,
        environment={},
        progress=print,
        chalice=lambda _command: 0,
    )


def test_a_worker_with_a_wrong_key_is_explained_until_the_key_is_corrected(
    stack: StackUnderTest, fargate: Fargate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It exits before its first health check: the circuit breaker does not count that."""
    timings = fargate.timings
    monkeypatch.setattr(fargate, "timings", replace(timings, health_check_scale=10))
    for name, value in stack.aws.environment().items():
        monkeypatch.setenv(name, value)
    ssm, wrong = stack.aws.client("ssm"), "pnu_wrong0123456789"
    key: Any = {"Name": f"/{stack.name}/key", "Type": "SecureString", "Overwrite": True}
    ssm.put_parameter(**key, Value=wrong)
    lines: list[str] = []
    seen: list[Row] = []

    def provision(_name: str, _event: object) -> LambdaAnswer:
        if not stack.id:
            stack.begin(stack.full(ApiKeyParameter=key["Name"][1:], PrefectApiUrl=url))
        states = {"CREATE_IN_PROGRESS": "creating", "CREATE_COMPLETE": "ready"}
        return LambdaAnswer({"state": states.get(stack.status(), "failed")})

    def pause(seconds: float) -> None:
        ended = [life for life in fargate.ledger() if life.cluster_arn.endswith(stack.name)]
        ended = [life for life in ended if life.stopped]
        if ended and not seen:
            seen.extend(stack_status.rows(stack_status.read(context), context.project))
        if len(ended) > 3:
            fargate.timings = timings
            ssm.put_parameter(**key, Value=API_KEY)
        time.sleep(seconds / 10)

    moto_additions.connect_lambda(LambdaHooks(provision, provision))
    try:
        with ScriptedServer([answer(401, {"detail": "Invalid credentials"})]) as server:
            url = f"{server.url}/api"
            context = operator_of(stack, tmp_path, url)
            rows = deploy(replace(context, pause=pause, progress=lines.append))
    finally:
        moto_additions.connect_lambda(None)
    assert [row.state for row in rows] == [State.OK, State.OK]
    shown = {row.part: row for row in seen}
    reason = "Essential container in task exited (EssentialContainerExited)"
    assert f"{reason}; its container's exit code is 1" in shown["worker: stopped task"].found
    assert "401 Unauthorized" in shown["worker: log"].found
    assert shown["worker service"].state is not State.OK, "the next one may run just then"
    assert any(line.startswith(f"worker: {reason}") for line in lines)
    assert any(line.startswith("worker's log: ") and "401" in line for line in lines)
    assert wrong not in str([lines, seen])
    assert len(tasks(stack)) == 1


def test_a_service_that_is_not_steady_in_time_ends_the_creation_and_says_so(
    stack: StackUnderTest, account: EmulatedAws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account.cloudformation, "minute_seconds", 0.001)
    assert stack.create(stack.full(), TimeoutInMinutes=20) == "ROLLBACK_COMPLETE"
    [described] = stack.client.describe_stacks(StackName=stack.id)["Stacks"]
    assert described["TimeoutInMinutes"] == 20
    [failure] = failures_in(stack.client.describe_stack_events(StackName=stack.id)["StackEvents"])
    assert "Stack creation time exceeded the specified timeout" in failure
    assert "Not complete: WorkerService (AWS::ECS::Service)" in failure
