"""A stage of this project on an AWS that nobody here wrote: from `chalice deploy` to `teardown`.

Real are the zip, its four functions, Prefect's server and `spotctl`. RunTask wants Docker there, so
events are composed, and ECS knows no task of theirs: as on AWS an hour after a task's end.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

import infra
from chalicelib.settings import FUNCTIONS
from localcloud.bootstrap import (
    AUTH_PARAMETER,
    CLUSTER,
    STACK,
    STAGE,
    WORK_POOL,
    provision,
    store_credential,
)
from localcloud.cloud import PROVISION, REACT, SCHEDULED, SWEEP, new_auth_string
from localcloud.deployment import copy_project, deploy
from localcloud.lambdas import Invocation
from localcloud.moto_additions import NO_CAPACITY
from localcloud.prefect_api import PrefectApi
from localcloud.prefect_server import PrefectServer
from localcloud.processes import Supervisor
from tests.e2e.command import CommandResult, spotctl_with, states
from tests.make import make_event
from tests.second_aws.server import Account, MiniStack, with_ecs_role, without_metric_math
from tests.system.test_spotctl_deploy import names_of

METER = f"{STACK}-meter"
GRACE_SECONDS = 5
REGION = Account.region
AT_WORK = [{"name": "prefect", "lastStatus": "RUNNING"}]
NO_ROOM = f"Failed to submit flow run to infrastructure: TaskFailedToStart: {NO_CAPACITY}"
AUTH_STRING = new_auth_string()


@dataclass(frozen=True)
class Stage:
    """The stage, provisioned, in an account that was empty before."""

    account: Account
    server: PrefectServer
    prefect: PrefectApi
    folder: Path

    def deploy(self) -> None:
        settings = {
            "PREFECT_API_URL": self.server.api_url,
            "PREFECT_API_AUTH_STRING_PARAMETER": AUTH_PARAMETER,
            "SWEEP_GRACE_SECONDS": str(GRACE_SECONDS),
        }
        deploy(self.account, self.folder, STAGE, settings, 60)

    def invoke(self, function: str, event: object = SCHEDULED) -> Invocation:
        request = {"FunctionName": function, "Payload": json.dumps(event)}
        answer = self.account.client("lambda").invoke(**request)
        payload, failed = json.loads(answer["Payload"].read()), "FunctionError" in answer
        return Invocation(
            status="error" if failed else "ok",
            seconds=0,
            logs=[],
            answer=None if failed else payload,
            error=payload if failed else None,
            function=function,
            request_id="",
            attempt=1,
            event=event,
        )

    def answer(self, function: str, event: object = SCHEDULED) -> Any:
        invocation = self.invoke(function, event)
        assert invocation.status == "ok", invocation.error
        return invocation.answer

    def spotctl(self, *arguments: str) -> CommandResult:
        prefect = {"PREFECT_API_URL": self.server.api_url, "PREFECT_API_AUTH_STRING": AUTH_STRING}
        environment = {**self.account.environment(), **prefect}
        return spotctl_with(environment, self.folder, *arguments)

    def pending(self) -> str:
        """Make a run that a worker has picked up; return its id."""
        flow = self.prefect.send("POST", "/flows/", {"name": "etl"})
        body = {
            "name": "etl",
            "flow_id": flow["id"],
            "work_pool_name": WORK_POOL,
            "enforce_parameter_schema": False,
        }
        deployment = self.prefect.send("POST", "/deployments/", body)
        run_id = self.prefect.start(deployment["id"])
        self.prefect.set_state(run_id, {"type": "PENDING"})
        return run_id

    def running(self) -> tuple[str, dict[str, Any]]:
        """Make a run whose task is at work; return its id, and the task as its events show it."""
        run_id, place = self.pending(), f"arn:aws:ecs:{REGION}:{self.account.number}"
        cluster, task = f"{place}:cluster/{CLUSTER}", f"{place}:task/{CLUSTER}/{uuid4().hex}"
        pid = {"infrastructure_pid": f"{cluster}::{task}"}
        self.prefect.send("PATCH", f"/flow_runs/{run_id}", pid)
        self.prefect.set_state(run_id, {"type": "RUNNING"})
        environment = [{"name": "PREFECT__FLOW_RUN_ID", "value": run_id}]
        now = datetime.now(UTC).isoformat()
        times = ("createdAt", "pullStartedAt", "startedAt", "executionStoppedAt", "stoppedAt")
        return run_id, {
            "taskArn": task,
            "clusterArn": cluster,
            "overrides": {"containerOverrides": [{"name": "prefect", "environment": environment}]},
            **dict.fromkeys((*times, "updatedAt"), now),
        }

    def event(self, task: Mapping[str, Any], **detail: Any) -> dict[str, Any]:
        """An event of the task, which was interrupted."""
        return make_event(
            {**task, **detail}, account=self.account.number, resources=[task["taskArn"]]
        )

    def states(self, run_id: str) -> list[str]:
        return [state["name"] for state in self.prefect.history(run_id)]


@pytest.fixture(scope="module")
def stage(ministack: MiniStack, supervisor: Supervisor) -> Iterator[Stage]:
    folder, account = supervisor.folder, ministack.account()
    with PrefectServer(folder / "prefect", supervisor.spawn, auth_string=AUTH_STRING) as server:
        api = PrefectApi(server.api_url, AUTH_STRING)
        stage = Stage(account, server, api, folder / "project")
        copy_project(stage.folder)
        template = stage.folder / "infra" / "stack.json"
        template.write_text(json.dumps(without_metric_math(infra.load("stack.json"))))
        stage.deploy()
        store_credential(account, AUTH_STRING)
        with_ecs_role(account)
        provision(lambda: stage.invoke(PROVISION), print)
        yield stage


NOT_THERE = {"worker": "failed", f"work pool {WORK_POOL}": "warning", "last sweep": "warning"}
"""What `status` misses until a sweep has run: the worker, since RunTask wants Docker."""


def test_status_finds_all_that_deploy_and_provision_made(
    stage: Stage, judged: dict[str, Any]
) -> None:
    result = stage.spotctl("status")
    found = states(result)
    assert {part: state for part, state in found.items() if state != "ok"} == NOT_THERE, result
    assert found["stack"] == found["provision"] == found["failure queue"] == "ok"
    made = stage.account.client("cloudformation").describe_stack_resources(StackName=STACK)
    judged["resources"] = len(made["StackResources"])
    assert stage.answer(PROVISION)["steps"] == [], "all is up to date"


def test_an_interrupted_run_is_started_again_on_spot_and_billed_once(stage: Stage) -> None:
    run_id, task = stage.running()
    warning = stage.event(task, lastStatus="RUNNING", containers=AT_WORK, version=4)
    assert stage.answer(REACT, warning)["decision"] == "warned"
    assert stage.states(run_id)[-1] == "Running"
    for decision in ("finish-rerun", "ignore"):
        assert stage.answer(REACT, stage.event(task))["decision"] == decision
    states = ["Scheduled", "Pending", "Running", "AwaitingRetry", "AwaitingRetry"]
    assert stage.states(run_id) == states
    stopped = stage.event(task, lastStatus="STOPPED", version=6)
    assert stage.answer(METER, stopped)["metering"] == "billed"
    assert stage.answer(METER, stopped)["metering"] != "billed"
    [row] = stage.spotctl("report").answer["rows"]
    counted = {name: row[name] for name in ("deployment", "runs", "interruptions", "spot_reruns")}
    assert counted == {"deployment": "etl/etl", "runs": 1, "interruptions": 1, "spot_reruns": 1}


def test_sweep_moves_a_run_that_spot_has_no_room_for_and_ends_one_without_a_task(
    stage: Stage,
) -> None:
    refused, cancelled = stage.pending(), stage.pending()
    stage.prefect.set_state(refused, {"type": "CRASHED", "message": NO_ROOM})
    stage.prefect.set_state(cancelled, {"type": "CANCELLING"})
    time.sleep(GRACE_SECONDS + 1)
    assert stage.answer(SWEEP, {})["finished"]
    run = stage.prefect.run(refused)
    assert (run["state_name"], run["job_variables"]["launch_type"]) == ("AwaitingRetry", "FARGATE")
    assert stage.states(cancelled)[-1] == "Cancelled"


def test_teardown_leaves_nothing_of_the_stage(stage: Stage) -> None:
    """Last: the tests above use it."""
    assert len(names_of(stage.account, STAGE)) > len(FUNCTIONS)
    gone = stage.spotctl("teardown", "--stage", STAGE, "--yes", "--delete-work-pool")
    assert gone.code == 0, gone
    left = {f"log group /aws/lambda/{STACK}-{function}" for function in FUNCTIONS}
    assert names_of(stage.account, STAGE) <= left
    assert AUTH_PARAMETER in "\n".join(gone.answer["stays"])
