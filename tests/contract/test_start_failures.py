"""What Prefect says of a run that the installed worker could not start, and how it is classified.

The real ECS worker of the stage's Prefect is started for one round of runs. Each asks ECS, at a
server that answers as AWS does, and fails in a way of its own. The messages are read back from the
Prefect server; `build/start-failures.json` keeps them.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from chalicelib.core.rescue.start_failures import (
    StartFailureKind,
    is_submission_failure,
    start_failure_of,
)
from localcloud.cloud import wait_for
from localcloud.fault_proxy import Answer, Fault, FaultProxy, Hang, ProxiedRequest, Reset
from localcloud.processes import free_port
from tests.contract.conftest import OLDEST_PYTHON
from tests.contract.real import RealPrefect
from tests.contract.stage import Stage

SEEN = Path(__file__).parents[2] / "build" / "start-failures.json"
WORKER_SECONDS = 180.0
ARN = "arn:aws:ecs:us-east-1:111122223333"
REFUSAL, PASSING, LASTING, UNKNOWN = StartFailureKind


def json_answer(body: object, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/x-amz-json-1.1"}, json.dumps(body).encode())


def error(message: str, code: str = "ClientException", status: int = 400) -> Answer:
    return json_answer({"__type": code, "message": message}, status)


def failure(reason: str) -> Answer:
    return json_answer({"tasks": [], "failures": [{"arn": f"{ARN}:task/a", "reason": reason}]})


def started(**fields: str) -> Answer:
    return json_answer({"tasks": [{**TASK, **fields}], "failures": []})


def aws_client(**parameters: object) -> Mapping[str, Any]:
    """Job variables that give the worker's AWS client parameters of its own."""
    return {"aws_credentials": {"aws_client_parameters": parameters}}


@dataclass(frozen=True)
class Start:
    """A start that fails: how, and at which call of ECS."""

    kind: StartFailureKind
    fault: Fault
    call: str = "RunTask"
    variables: Mapping[str, Any] = field(default_factory=dict)


REGISTER = "RegisterTaskDefinition"
TASK = {"taskArn": f"{ARN}:task/etl/1", "clusterArn": f"{ARN}:cluster/etl"}
QUOTA = "You've reached the limit on the number of vCPUs you can run concurrently"
DENIED = "User: arn:aws:sts::111122223333:assumed-role/worker/a is not authorized to perform: "
SECURITY_GROUP = "Error retrieving security group information for [sg-1]: "
THROTTLED = error("Rate exceeded", "ThrottlingException")
FAULTY = error("Service Unavailable. Please try again later.", "ServerException", 500)
STARTS = {
    "no capacity": Start(
        REFUSAL,
        failure(
            "Capacity is unavailable at this time. Please try again later or in a different"
            " availability zone"
        ),
    ),
    "no resource": Start(REFUSAL, failure("RESOURCE:FARGATE")),
    "vCPU quota as a failure": Start(REFUSAL, failure(QUOTA)),
    "vCPU quota as an error": Start(REFUSAL, error(QUOTA, "ThrottlingException")),
    "CPU above the quota": Start(
        REFUSAL, error("The requested CPU configuration is above your limit")
    ),
    "RunTask throttled": Start(PASSING, THROTTLED),
    "EC2 throttled within RunTask": Start(
        PASSING, error(f"{SECURITY_GROUP}Request limit exceeded. (ErrorCode: RequestLimitExceeded)")
    ),
    "RegisterTaskDefinition throttled": Start(PASSING, THROTTLED, REGISTER),
    "one family registered at once": Start(
        PASSING,
        error("Too many concurrent attempts to create a new revision of the specified family."),
        REGISTER,
    ),
    "RunTask 500": Start(PASSING, FAULTY),
    "RegisterTaskDefinition 500": Start(PASSING, FAULTY, REGISTER),
    "RunTask 503": Start(PASSING, Answer(503, {}, b"Service Unavailable")),
    "RunTask 502": Start(PASSING, Answer(502, {}, b"<html>Bad Gateway</html>")),
    "InternalFailure": Start(PASSING, json_answer({"__type": "InternalFailure"}, status=500)),
    "connection reset": Start(PASSING, Reset()),
    "connection refused": Start(
        PASSING, Reset(), variables=aws_client(endpoint_url=f"http://127.0.0.1:{free_port()}")
    ),
    "no answer": Start(PASSING, Hang(3), REGISTER, aws_client(config={"read_timeout": 1})),
    "task definition inactive": Start(LASTING, error("TaskDefinition is inactive")),
    "task definition missing": Start(
        LASTING,
        error("Unable to describe task definition."),
        "DescribeTaskDefinition",
        {"task_definition_arn": f"{ARN}:task-definition/etl:7"},
    ),
    "RunTask denied": Start(
        LASTING, error(f"{DENIED}ecs:RunTask on resource: *", "AccessDeniedException")
    ),
    "PassRole denied": Start(
        LASTING, error(f"{DENIED}iam:PassRole on resource: role/flow", "AccessDeniedException")
    ),
    "RegisterTaskDefinition denied": Start(
        LASTING, error(f"{DENIED}ecs:{REGISTER} on resource: *", "AccessDeniedException"), REGISTER
    ),
    "role not assumed": Start(
        LASTING,
        error(
            "ECS was unable to assume the role 'arn:aws:iam::111122223333:role/flow' that was"
            " provided for this task. Please verify that the role being passed has the proper trust"
            " relationship and permissions and that your IAM user has permissions to pass this"
            " role."
        ),
    ),
    "cluster missing": Start(LASTING, error("Cluster not found.", "ClusterNotFoundException")),
    "subnet missing": Start(
        LASTING, error("The subnet ID 'subnet-1' does not exist", "InvalidParameterException")
    ),
    "security group missing": Start(
        LASTING,
        error(
            f"{SECURITY_GROUP}The security group 'sg-1' does not exist"
            " (ErrorCode: InvalidGroup.NotFound)",
            "InvalidParameterException",
        ),
    ),
    "subnet of another VPC": Start(
        LASTING,
        started(),
        variables={"vpc_id": "vpc-1", "network_configuration": {"subnets": ["of-another"]}},
    ),
    "capacity provider not associated": Start(
        LASTING,
        error(
            "The specified capacity provider strategy cannot contain a capacity provider that is"
            " not associated with the cluster. Associate the capacity provider with the cluster or"
            " specify a valid capacity provider and try again.",
            "InvalidParameterException",
        ),
    ),
    "CPU and memory do not fit": Start(
        LASTING, error("No Fargate configuration exists for given values."), REGISTER
    ),
    "logs without a role": Start(
        LASTING,
        started(),
        variables={"configure_cloudwatch_logs": True, "execution_role_arn": None},
    ),
    "credentials expired": Start(
        LASTING,
        error("The security token included in the request is expired", "ExpiredTokenException"),
    ),
    "neither task nor failure": Start(UNKNOWN, json_answer({"tasks": [], "failures": []})),
    "new to us": Start(UNKNOWN, failure("MOON:PHASE")),
}


def watched(kind: StartFailureKind, code: str, reason: str) -> Start:
    task = started(lastStatus="STOPPED", stopCode=code, stoppedReason=reason)
    return Start(kind, task, "DescribeTasks")


FAILED = "TaskFailedToStart"
WATCHED = {
    "network interface late": watched(
        PASSING, FAILED, "Timeout waiting for network interface provisioning to complete."
    ),
    "image missing": watched(
        LASTING, FAILED, "CannotPullContainerError: failed to resolve ref etl:1: not found"
    ),
    "host unhealthy": watched(PASSING, "InfrastructureHealth", ""),
    "stopped by hand": watched(LASTING, "UserInitiated", "Task stopped by user"),
    "taken by Spot": watched(PASSING, "SpotInterruption", "Your Spot Task was interrupted."),
    "slow to start": Start(
        PASSING,
        started(lastStatus="PENDING"),
        "DescribeTasks",
        {"task_start_timeout_seconds": 1, "task_watch_poll_interval": 0.7},
    ),
}
"""RunTask works, and ECS ends the task before it runs, or is slow. Older workers wait for that."""
ALL = STARTS | WATCHED
EC2 = {
    "DescribeVpcs": "<vpcSet><item><vpcId>vpc-1</vpcId></item></vpcSet>",
    "DescribeSubnets": "<subnetSet><item><subnetId>subnet-1</subnetId></item></subnetSet>",
}


def as_aws(request: ProxiedRequest) -> Fault:
    """Answer by the start that is named as cluster and family; its calls before that one work."""
    for action, body in EC2.items():
        if f"Action={action}&".encode() in request.body:
            return Answer(200, {}, f"<{action}Response>{body}</{action}Response>".encode())
    if request.target.startswith("AmazonSQS"):  # of the worker's observer
        return error("The specified queue does not exist.", "com.amazonaws.sqs#QueueDoesNotExist")
    call, asked = request.target.rpartition(".")[2], json.loads(request.body or b"{}")
    name = asked.get("cluster") or asked.get("family")
    start = ALL.get(name) or STARTS["task definition missing"]
    if call == start.call:
        return start.fault
    if call == "RunTask":
        return started(clusterArn=name)
    arn = f"{ARN}:task-definition/etl:1"
    return json_answer({"taskDefinition": {**asked, "taskDefinitionArn": arn, "status": "ACTIVE"}})


@pytest.fixture(scope="session")
def crashes(stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """The message of the Crashed state by start; empty where the worker takes it for started."""
    assert isinstance(stage.controls, RealPrefect)
    controls, python = stage.controls, str(OLDEST_PYTHON) if stage.is_oldest else sys.executable
    pool = controls.create_work_pool()
    deployment = controls.create_deployment(work_pool=pool)
    runs = {
        name: controls.create_run(
            deployment_id=deployment,
            job_variables={"cluster": name, "family": name, **start.variables},
        )
        for name, start in ALL.items()
    }
    with FaultProxy("http://127.0.0.1:9") as aws:
        aws.plan = as_aws
        environment = {
            "PATH": "/usr/bin:/bin",
            "HOME": str(tmp_path_factory.mktemp("worker")),
            "PREFECT_API_URL": controls.api_url,
            "PREFECT_API_AUTH_STRING": controls.auth_string or "",
            "PREFECT_INTEGRATIONS_AWS_ECS_WORKER_CREATE_TASK_RUN_MAX_ATTEMPTS": "1",
            "PREFECT_INTEGRATIONS_AWS_ECS_WORKER_REGISTER_TASK_DEFINITION_MAX_ATTEMPTS": "1",
            "AWS_ENDPOINT_URL": aws.url,
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "DO_NOT_TRACK": "1",
        }
        command = [python, "-m", "prefect", "worker", "start", "--type", "ecs", "--pool", pool]
        worker = subprocess.Popen(command, env=environment, cwd=environment["HOME"])

        def ended() -> Mapping[str, str] | None:
            assert worker.poll() is None, "the worker ended"
            body = {"work_pools": {"name": {"any_": [pool]}}}
            seen = {run["id"]: run for run in controls.api.send("POST", "/flow_runs/filter", body)}
            for run in seen.values():
                if run["state_type"] != "CRASHED" and not run["infrastructure_pid"]:
                    return None
            return {name: seen[str(id_)]["state"]["message"] or "" for name, id_ in runs.items()}

        try:
            messages = wait_for("the end of every start", WORKER_SECONDS, ended, 1.0)
        finally:
            worker.kill()
            worker.wait()
        assert not aws.errors
    keep(messages, python)
    return messages


def keep(messages: Mapping[str, str], python: str) -> None:
    """Write what the worker of this Python said beside what other versions said."""
    script = "from importlib.metadata import version as of; print(of('prefect'), of('prefect-aws'))"
    found = subprocess.check_output([python, "-c", script], text=True).split()
    versions = "prefect {}, prefect-aws {}".format(*found)
    others = json.loads(SEEN.read_text()) if SEEN.exists() else []
    kept = [seen for seen in others if seen["from"] != versions]
    for message in filter(None, messages.values()):
        kind = start_failure_of(message).kind.value
        kept.append({"message": message, "class": kind, "from": versions})
    SEEN.parent.mkdir(exist_ok=True)
    SEEN.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n")


@pytest.mark.parametrize("name", STARTS)
def test_the_message_of_a_start_that_failed_is_known_as_such_and_its_kind_is_known(
    crashes: Mapping[str, str], name: str
) -> None:
    message = crashes[name]
    assert is_submission_failure(message), message
    assert start_failure_of(message).kind is STARTS[name].kind, message


@pytest.mark.parametrize("name", WATCHED)
def test_only_an_old_worker_waits_for_the_task_and_says_that_it_could_not_submit_the_run(
    stage: Stage, crashes: Mapping[str, str], name: str
) -> None:
    message = crashes[name]
    assert is_submission_failure(message) is stage.is_oldest, message
    kind = WATCHED[name].kind if stage.is_oldest else UNKNOWN
    assert start_failure_of(message).kind is kind, message
