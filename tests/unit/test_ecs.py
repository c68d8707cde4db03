"""ECS's own word about many tasks: before moto, and where moto has no pages, before a script."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from chalicelib.adapters.ecs import EcsTasks
from chalicelib.errors import PrefectSpotError
from localcloud import moto_additions
from tests.make import CLUSTER_ARN, RUN_ID

CLUSTER = "prefect-spot-dev"
FAMILY = "flow"
UNKNOWN = CLUSTER_ARN.replace(":cluster/", ":task/") + "/" + "0" * 32


@dataclass
class Cluster:
    """A cluster in moto, our reader of it, and what that asked."""

    client: Any
    tasks: EcsTasks
    calls: Counter[str] = field(default_factory=Counter)

    def run(self, count: int, **options: Any) -> list[str]:
        started: list[str] = []
        while len(started) < count:
            answer = self.client.run_task(
                cluster=CLUSTER,
                taskDefinition=FAMILY,
                count=min(10, count - len(started)),
                launchType="FARGATE",
                tags=[{"key": "prefect.io/flow-run-id", "value": str(RUN_ID)}],
                **options,
            )
            started += [task["taskArn"] for task in answer["tasks"]]
        self.calls.clear()
        return started

    def stop(self, arn: str, reason: str) -> None:
        self.client.stop_task(cluster=CLUSTER, task=arn, reason=reason)
        self.calls.clear()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    moto_additions.install()  # as moto comes, no task is MISSING
    with mock_aws():
        client = boto3.client("ecs", region_name="us-east-1")
        client.create_cluster(clusterName=CLUSTER)
        client.register_task_definition(
            family=FAMILY, containerDefinitions=[{"name": "flow", "memory": 1, "image": "etl:1"}]
        )
        cluster = Cluster(client, EcsTasks(client))
        client.meta.events.register("before-call.ecs.*", _counter(cluster.calls))
        yield cluster


def _counter(calls: Counter[str]) -> Any:
    def count(model: Any, **_: Any) -> None:
        calls[model.name] += 1

    return count


def test_many_tasks_cost_one_call_per_hundred_and_come_with_their_tags(cluster: Cluster) -> None:
    arns = cluster.run(250)

    tasks = cluster.tasks.describe_many(CLUSTER, arns)

    assert cluster.calls == {"DescribeTasks": 3}
    assert list(tasks) == arns
    assert {task.flow_run_id for task in tasks.values()} == {RUN_ID}


@pytest.mark.parametrize(("asked", "calls"), [(0, 0), (1, 1), (100, 1), (101, 2)])
def test_no_call_is_made_for_nothing(cluster: Cluster, asked: int, calls: int) -> None:
    arns = [f"{UNKNOWN[:-4]}{number:04}" for number in range(asked)]

    assert cluster.tasks.describe_many(CLUSTER, arns) == {}
    assert cluster.calls["DescribeTasks"] == calls


def test_a_task_that_was_asked_for_twice_is_described_once(cluster: Cluster) -> None:
    arns = cluster.run(60)

    assert list(cluster.tasks.describe_many(CLUSTER, arns + arns)) == arns
    assert cluster.calls == {"DescribeTasks": 1}


def test_forgotten_tasks_are_simply_absent(cluster: Cluster) -> None:
    [arn] = cluster.run(1)

    assert list(cluster.tasks.describe_many(CLUSTER, [UNKNOWN, arn])) == [arn]
    assert cluster.tasks.describe(CLUSTER, UNKNOWN) is None
    known = cluster.tasks.describe(CLUSTER, arn)
    assert known is not None
    assert known.flow_run_id == RUN_ID


def test_all_of_a_cluster_are_those_that_run_and_those_that_stopped(cluster: Cluster) -> None:
    arns = cluster.run(250)
    for arn in arns[:30]:
        cluster.stop(arn, "prefect-spot drill")

    tasks = cluster.tasks.all_of(CLUSTER)

    assert cluster.calls["DescribeTasks"] == 3
    assert {task.arn for task in tasks} == set(arns)
    stopped = {task.arn: task.stopped_reason for task in tasks if task.desired_status == "STOPPED"}
    assert stopped == dict.fromkeys(arns[:30], "prefect-spot drill")
    assert {task.flow_run_id for task in tasks} == {RUN_ID}


def test_of_those_that_stopped_the_others_are_not_asked_for(cluster: Cluster) -> None:
    running, stopped = cluster.run(2)
    cluster.stop(stopped, "by a test")
    assert [task.arn for task in cluster.tasks.stopped_of(CLUSTER)] == [stopped]
    assert cluster.calls == {"ListTasks": 1, "DescribeTasks": 1}
    assert running != stopped


def test_a_cluster_that_is_not_there_is_raised_not_empty(cluster: Cluster) -> None:
    with pytest.raises(ClientError, match="Cluster not found"):
        cluster.tasks.all_of("prefect-spot-prod")
    with pytest.raises(ClientError, match="Cluster not found"):
        cluster.tasks.describe_many("prefect-spot-prod", [UNKNOWN])


@dataclass
class Script:
    """An ECS that answers by script, for what moto does not do; it insists on each request."""

    client: Any = field(
        default_factory=lambda: boto3.client(
            "ecs", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
        )
    )

    def __post_init__(self) -> None:
        self.stub = Stubber(self.client)
        self.stub.activate()

    def lists(self, desired: str, arns: list[str], token: str = "", more: str = "") -> None:
        asked = {"cluster": CLUSTER, "desiredStatus": desired, "maxResults": 100}
        self.stub.add_response(
            "list_tasks",
            {"taskArns": arns, **({"nextToken": more} if more else {})},
            {**asked, **({"nextToken": token} if token else {})},
        )

    def describes(self, arns: list[str], failures: list[dict[str, str]] | None = None) -> None:
        failed = [failure["arn"] for failure in failures or []]
        tasks = [{"taskArn": arn, "clusterArn": CLUSTER_ARN} for arn in arns if arn not in failed]
        self.stub.add_response(
            "describe_tasks",
            {"tasks": tasks, "failures": failures or []},
            {"cluster": CLUSTER, "tasks": arns, "include": ["TAGS"]},
        )


def test_every_page_of_a_list_is_read_running_before_stopped_and_a_task_in_both_once() -> None:
    script = Script()
    arns = [f"{UNKNOWN[:-32]}{uuid4().hex}" for _ in range(250)]
    script.lists("RUNNING", arns[:100], more="2")
    script.lists("RUNNING", arns[100:150], token="2")
    script.lists("STOPPED", arns[140:240], more="3")
    script.lists("STOPPED", arns[240:], token="3")
    for start in (0, 100, 200):
        script.describes(arns[start : start + 100])

    tasks = EcsTasks(script.client).all_of(CLUSTER)

    assert [task.arn for task in tasks] == arns
    script.stub.assert_no_pending_responses()


@pytest.mark.parametrize("reason", ["ACCESS_DENIED", None])
def test_a_task_that_ecs_says_nothing_of_is_not_taken_for_forgotten(reason: str | None) -> None:
    """Its run would be started twice."""
    script = Script()
    if reason:
        script.describes([UNKNOWN], failures=[{"arn": UNKNOWN, "reason": reason}])
    else:
        script.stub.add_response("describe_tasks", {"tasks": [], "failures": []})

    with pytest.raises(PrefectSpotError, match=reason or "no reason given"):
        EcsTasks(script.client).describe(CLUSTER, UNKNOWN)
