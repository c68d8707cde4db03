"""A task on the emulated Fargate lives, is described and dies as one on the real one."""

from ast import literal_eval
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localcloud.cloud import Cloud, wait_until

SLEEP = "import time; print('up'); time.sleep(600)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEP
POLITE = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0));" + SLEEP


def test_task_that_ends_by_itself_goes_through_all_statuses(cloud: Cloud) -> None:
    task = cloud.run(cloud.define("import sys; sys.exit(3)"))
    described = cloud.await_status(task, "STOPPED")
    assert described["stopCode"] == "EssentialContainerExited"
    assert described["stoppedReason"] == "Essential container in task exited"
    assert described["containers"][0]["exitCode"] == 3
    assert described["containers"][0]["lastStatus"] == "STOPPED"
    wait_until(lambda: len(cloud.details(task)) == 5)
    assert [(d["version"], d["lastStatus"], d["desiredStatus"]) for d in cloud.details(task)] == [
        (1, "PROVISIONING", "RUNNING"),
        (2, "PENDING", "RUNNING"),
        (3, "RUNNING", "RUNNING"),
        (4, "DEPROVISIONING", "STOPPED"),
        (5, "STOPPED", "STOPPED"),
    ]


def test_a_launch_type_beside_a_strategy_is_refused_as_aws_does(cloud: Cloud) -> None:
    with pytest.raises(ClientError, match="not both"):
        cloud.run(cloud.define(), launchType="FARGATE")


def test_description_has_the_fields_of_a_real_one_and_the_event_says_the_same(cloud: Cloud) -> None:
    overrides = {"cpu": "1024", "containerOverrides": [{"name": "prefect", "memory": 256}]}
    request: dict[str, Any] = {"overrides": overrides, "startedBy": "a caller"}
    task = cloud.run(cloud.define(), tags=[{"key": "a", "value": "b"}], **request)
    described = cloud.await_status(task, "STOPPED")
    expected = {
        "cpu": "1024",
        "memory": "1024",
        "launchType": "FARGATE",
        "capacityProviderName": "FARGATE_SPOT",
        "attributes": [{"name": "ecs.cpu-architecture", "value": "arm64"}],
        "startedBy": "a caller",
        "group": "family:flow",
        "platformVersion": "1.4.0",
        "version": 5,
    }
    assert described.items() >= expected.items()
    assert described["availabilityZone"].startswith("us-east-1")
    assert described["overrides"]["containerOverrides"] == overrides["containerOverrides"]
    times = ["createdAt", "pullStartedAt", "pullStoppedAt", "startedAt", "stoppingAt", "stoppedAt"]
    assert sorted(times, key=lambda name: described[name]) == times
    assert described["startedAt"] < described["executionStoppedAt"] < described["stoppedAt"]
    assert "tags" not in described
    with_tags = cloud.aws.client("ecs").describe_tasks(
        cluster=cloud.cluster, tasks=[task.split("/")[-1]], include=["TAGS"]
    )
    assert with_tags["tasks"][0]["tags"] == [{"key": "a", "value": "b"}]
    wait_until(lambda: len(cloud.details(task)) == 5)
    event = cloud.events[-1]
    assert (event["source"], event["detail-type"]) == ("aws.ecs", "ECS Task State Change")
    assert event["resources"] == [task]
    assert event["time"].endswith("Z")
    detail = event["detail"]
    assert set(detail) == set(described) | {"updatedAt"}
    assert detail["overrides"] == described["overrides"]
    assert detail["stoppedAt"] == (
        described["stoppedAt"].isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


@pytest.mark.parametrize(
    ("code", "exit_code", "stop_timeout", "least"),
    [(POLITE, 0, 10, 0.0), (DEAF, 137, 1, 0.99)],
    ids=["heeds SIGTERM", "ignores SIGTERM"],
)
def test_interruption_warns_first_and_then_ends_the_container(
    cloud: Cloud, code: str, exit_code: int, stop_timeout: int, least: float
) -> None:
    task = cloud.run(cloud.define(code, stopTimeout=stop_timeout))
    cloud.await_output(task, "up")
    cloud.fargate.interrupt(task)
    described = cloud.await_status(task, "STOPPED")
    assert described["stopCode"] == "SpotInterruption"
    assert described["stoppedReason"] == "Your Spot Task was interrupted."
    assert described["containers"][0]["exitCode"] == exit_code
    seconds = (described["executionStoppedAt"] - described["stoppingAt"]).total_seconds()
    assert least < seconds < 9
    wait_until(lambda: len(cloud.details(task)) == 6)
    warning, deprovisioning = cloud.details(task)[3:5]
    assert (warning["lastStatus"], warning["desiredStatus"]) == ("RUNNING", "STOPPED")
    assert warning["stopCode"] == "SpotInterruption"
    assert "executionStoppedAt" not in warning
    assert warning["containers"][0]["lastStatus"] == "RUNNING"
    assert deprovisioning["containers"][0]["lastStatus"] == "STOPPED"
    [life] = cloud.fargate.ledger()
    assert life.exited and life.interrupted_at  # noqa: PT018  # one fact: it was interrupted
    assert life.interrupted_at <= life.exited


def test_task_interrupted_before_its_container_never_starts_one(cloud: Cloud) -> None:
    task = cloud.run(cloud.define(SLEEP))
    cloud.fargate.interrupt(task)
    described = cloud.await_status(task, "STOPPED")
    assert described["stopCode"] == "SpotInterruption"
    assert "startedAt" not in described
    assert described["containers"][0]["lastStatus"] == "STOPPED"
    assert "exitCode" not in described["containers"][0]
    [life] = cloud.fargate.ledger()
    assert (life.started, life.exited, life.exit_code) == (None, None, None)


def test_container_gets_environment_overrides_and_secrets_and_no_more(cloud: Cloud) -> None:
    ssm = cloud.aws.client("ssm")
    ssm.put_parameter(Name="plain-name", Value="one", Type="SecureString")
    ssm.put_parameter(Name="/with/path", Value="two", Type="SecureString")
    arn = f"arn:aws:ssm:us-east-1:{cloud.aws.account}:parameter"
    definition = cloud.define(
        command=["false"],
        environment=[{"name": "KEPT", "value": "1"}, {"name": "CHANGED", "value": "1"}],
        secrets=[
            {"name": "BY_NAME", "valueFrom": "plain-name"},
            {"name": "BY_ARN", "valueFrom": f"{arn}/with/path"},
        ],
    )
    override = {
        "name": "prefect",
        "command": ["python", "-c", "import os; print(dict(os.environ))"],
        "environment": [
            {"name": "CHANGED", "value": "2"},
            {"name": "PREFECT__FLOW_RUN_ID", "value": "run-1"},
        ],
    }
    task = cloud.run(definition, overrides={"containerOverrides": [override]})
    cloud.await_status(task, "STOPPED")
    seen = literal_eval(cloud.fargate.log_of(task).read_text())
    given = {"KEPT": "1", "CHANGED": "2", "PREFECT__FLOW_RUN_ID": "run-1"}
    secrets = {"BY_NAME": "one", "BY_ARN": "two"}
    expected = {**given, **secrets, "PREFECT_SPOT_ECS_TASK": task}
    assert expected.items() <= seen.items()
    allowed = {"PATH", "HOME", "TMPDIR", "LANG", "FROM_THE_IMAGE", "PREFECT_SPOT_LOCALCLOUD"}
    allowed |= {"PREFECT_WORKER_WEBSERVER_PORT", *expected, *cloud.aws.environment()}
    assert set(seen) - {"LC_CTYPE", "__CF_USER_TEXT_ENCODING"} == allowed
    [life] = cloud.fargate.ledger()
    assert life.flow_run_id == "run-1"
    assert life.environment == given


@pytest.mark.parametrize(
    ("container", "reason"),
    [
        ({"secrets": [{"name": "KEY", "valueFrom": "nowhere"}]}, "ResourceInitializationError"),
        ({"command": ["no-such-program"]}, "CannotStartContainerError"),
    ],
    ids=["secret missing", "program missing"],
)
def test_task_that_cannot_start_says_why(
    cloud: Cloud, container: dict[str, Any], reason: str
) -> None:
    task = cloud.run(cloud.define(**container))
    described = cloud.await_status(task, "STOPPED")
    assert described["stopCode"] == "TaskFailedToStart"
    assert described["stoppedReason"].startswith(reason)
    assert "startedAt" not in described
