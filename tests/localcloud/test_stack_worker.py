"""The stack's service starts the worker, with its key from SSM, and keeps it running."""

import json
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from chalicelib.core.provision.model import failures_in
from localcloud.aws import EmulatedAws
from localcloud.fargate import Fargate, Timings
from localcloud.processes import Supervisor
from tests.localcloud.cloud import wait_until
from tests.localcloud.stacks import API_KEY, StackUnderTest

PREFECT = """\
# Stands for the worker: prints what it was given, and answers its health check.
import http.server, json, os, sys
print(json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ)}), flush=True)
if os.environ["PREFECT_LOGGING_LEVEL"] == "DIES":
    sys.exit(1)

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
    timings = Timings(0.05, 0.05, 0.1, health_check_scale=0.01, service_seconds=0.1)
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


def test_update_to_a_worker_that_fails_is_rolled_back_to_the_one_that_runs(
    stack: StackUnderTest,
) -> None:
    stack.create(stack.full())
    before = stack.outputs()["WorkerTaskDefinitionArn"]
    assert stack.update(stack.full(LogLevel="DIES")) == "UPDATE_ROLLBACK_COMPLETE"
    [(resource, reason)] = stack.failures()
    assert resource == "WorkerService"
    assert "Circuit Breaker was triggered" in reason
    assert len(tasks(stack, "STOPPED")) >= 3
    assert stack.outputs()["WorkerTaskDefinitionArn"] == before
    [task] = wait_until(lambda: tasks(stack))
    assert task["taskDefinitionArn"] == before


def test_a_service_that_is_not_steady_in_time_ends_the_creation_and_says_so(
    stack: StackUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stack.aws.cloudformation, "minute_seconds", 0.001)
    assert stack.create(stack.full(), TimeoutInMinutes=20) == "ROLLBACK_COMPLETE"
    [described] = stack.client.describe_stacks(StackName=stack.id)["Stacks"]
    assert described["TimeoutInMinutes"] == 20
    [failure] = failures_in(stack.client.describe_stack_events(StackName=stack.id)["StackEvents"])
    assert "Stack creation time exceeded the specified timeout" in failure
    assert "Not complete: WorkerService (AWS::ECS::Service)" in failure
