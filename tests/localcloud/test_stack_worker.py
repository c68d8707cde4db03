"""The worker comes up from the provisioned service, with its key from SSM, and is looked after."""

import json
import sys
import textwrap
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud.aws import EmulatedAws
from localcloud.fargate import Fargate, Timings
from localcloud.processes import Household
from localcloud.task_life import ContainerLife
from tests.localcloud.cloud import wait_until
from tests.localcloud.stacks import API_KEY, StackUnderTest, empty_account

PREFECT = """\
# Stands for the worker: says what it was given, and answers its health check while it is well.
import http.server, json, os, sys
print(json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ)}), flush=True)
if os.environ["PREFECT_LOGGING_LEVEL"] == "DIES":
    sys.exit(1)

class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        ill = os.path.exists("ill")
        self.send_response(503 if ill or self.path != "/health" else 200)
        self.end_headers()

address = ("127.0.0.1", int(os.environ["PREFECT_WORKER_WEBSERVER_PORT"]))
http.server.HTTPServer(address, Health).serve_forever()
"""


@dataclass
class Site:
    """A Fargate that keeps services, and a stack of its own that is to run on it."""

    stack: StackUnderTest
    fargate: Fargate

    def tasks(self, status: str = "RUNNING") -> list[dict[str, Any]]:
        ecs, cluster = self.stack.aws.client("ecs"), self.stack.name
        arns = ecs.list_tasks(cluster=cluster)["taskArns"]
        found = ecs.describe_tasks(cluster=cluster, tasks=arns)["tasks"] if arns else []
        return [task for task in found if task["lastStatus"] == status]

    def lives(self) -> list[ContainerLife]:
        return [x for x in self.fargate.ledger() if f":task/{self.stack.name}/" in x.task_arn]

    def said(self, task_arn: str) -> Any:
        return json.loads(self.fargate.log_of(task_arn).read_text().splitlines()[0])


@pytest.fixture(scope="module")
def fargate(aws: EmulatedAws, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fargate]:
    folder = tmp_path_factory.mktemp("workers")
    programs = folder / "bin"
    programs.mkdir()
    (folder / "prefect.py").write_text(textwrap.dedent(PREFECT))
    command = f'exec "{sys.executable}" "{folder / "prefect.py"}" "$@"'
    (programs / "prefect").write_text(f"#!/bin/sh\n{command}\n")
    (programs / "prefect").chmod(0o755)
    (programs / "python").symlink_to(sys.executable)
    empty_account(aws)
    with (
        Household.open(folder) as household,
        Fargate(
            household,
            aws,
            lambda _: None,
            path_prefix=programs,
            extra_environment={},
            timings=Timings(
                0.05,
                0.05,
                0.1,
                health_check_scale=0.01,
                start_period_scale=0.2,
                service_seconds=0.1,
            ),
        ) as fargate,
    ):
        yield fargate
        assert fargate.errors == []
    assert aws.cloudformation.errors == []


@pytest.fixture
def site(aws: EmulatedAws, fargate: Fargate) -> Iterator[Site]:
    stack = StackUnderTest(aws, f"prefect-spot-{uuid.uuid4().hex[:6]}")
    yield Site(stack, fargate)
    if stack.described()["StackStatus"] != "DELETE_COMPLETE":
        assert stack.delete() == "DELETE_COMPLETE"


def test_a_worker_comes_up_with_its_key_is_replaced_when_ill_and_ends_with_the_stack(
    site: Site,
) -> None:
    stack = site.stack
    stack.begin(stack.full(WorkQueues="etl"))
    assert stack.status() == "CREATE_IN_PROGRESS"
    with pytest.raises(ClientError, match="is in CREATE_IN_PROGRESS state and can not be updated"):
        stack.update(stack.full())
    assert stack.settle() == "CREATE_COMPLETE"
    [first] = site.tasks()
    assert first["healthStatus"] == "HEALTHY"
    assert first["launchType"] == "FARGATE"
    assert "capacityProviderName" not in first
    assert (first["cpu"], first["memory"]) == ("512", "1024")
    assert first["taskDefinitionArn"] == stack.outputs()["WorkerTaskDefinitionArn"]
    said = site.said(first["taskArn"])
    assert said["arguments"][:2] == ["worker", "start"]
    assert said["environment"]["PREFECT_API_KEY"] == API_KEY
    assert said["environment"]["PREFECT_API_URL"] == "https://prefect.example.com/api"

    (site.fargate.log_of(first["taskArn"]).with_suffix("") / "ill").touch()
    [second] = wait_until(lambda: [t for t in site.tasks() if t["taskArn"] != first["taskArn"]], 60)
    [stopped] = wait_until(lambda: site.tasks("STOPPED"))
    assert stopped["stoppedReason"].endswith("failed container health checks.")

    assert stack.update(stack.full(WorkerMemory="2048")) == "UPDATE_COMPLETE"
    wait_until(lambda: second["taskArn"] in [t["taskArn"] for t in site.tasks("STOPPED")])
    assert [task["memory"] for task in site.tasks()] == ["2048"]

    assert stack.delete() == "DELETE_COMPLETE"
    assert site.tasks() == []
    assert all(life.exited for life in site.lives())


def test_stack_fails_when_its_workers_key_is_missing(site: Site) -> None:
    stack = site.stack
    assert stack.create(stack.full(ApiKeyParameter="/nowhere")) == "ROLLBACK_COMPLETE"
    [(resource, reason)] = stack.failures()
    assert resource == "WorkerService"
    assert "Circuit Breaker was triggered" in reason
    assert "TaskFailedToStart" in {task["stopCode"] for task in site.tasks("STOPPED")}
    assert len(site.lives()) >= 3
    assert stack.physical_ids() == {}
    assert site.tasks() == []


def test_update_to_a_worker_that_fails_goes_back_to_the_one_that_runs(site: Site) -> None:
    stack = site.stack
    stack.create(stack.full())
    before = stack.outputs()["WorkerTaskDefinitionArn"]
    assert stack.update(stack.full(LogLevel="DIES")) == "UPDATE_ROLLBACK_COMPLETE"
    assert stack.outputs()["WorkerTaskDefinitionArn"] == before
    [task] = wait_until(site.tasks)
    assert task["taskDefinitionArn"] == before


def test_cluster_with_a_flow_on_it_cannot_be_deleted(site: Site) -> None:
    stack = site.stack
    stack.create(stack.full())
    ecs = stack.aws.client("ecs")
    definition = ecs.register_task_definition(
        family="flow",
        requiresCompatibilities=["FARGATE"],
        networkMode="awsvpc",
        cpu="256",
        memory="512",
        containerDefinitions=[
            {
                "name": "prefect",
                "image": "x",
                "memory": 512,
                "command": ["python", "-c", "import time; time.sleep(600)"],
            }
        ],
    )["taskDefinition"]["taskDefinitionArn"]
    network = {"awsvpcConfiguration": {"subnets": stack.subnets}}
    [flow] = ecs.run_task(
        cluster=stack.name,
        taskDefinition=definition,
        launchType="FARGATE",
        networkConfiguration=network,
    )["tasks"]
    assert stack.delete() == "DELETE_FAILED"
    failures = dict(stack.failures())
    assert failures["Cluster"] == "The Cluster cannot be deleted while Tasks are active."
    ecs.stop_task(cluster=stack.name, task=flow["taskArn"])
    wait_until(lambda: len(site.tasks("STOPPED")) == 2)
    assert stack.delete() == "DELETE_COMPLETE"
