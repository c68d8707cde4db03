"""ECS's reports of tasks: one contract for the adapter before moto and for the twin.

Where moto has no pages, and no failures, the adapter reads answers by script.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from chalicelib.adapters.aws import EcsTasks
from chalicelib.core.model.ecs_task import Task
from chalicelib.core.ports import Tasks, Undescribed
from chalicelib.errors import ClusterGoneError, PrefectSpotError
from localcloud import moto_additions
from tests.make import CLUSTER_ARN, RUN_ID, make_task
from tests.twin.tasks import InMemoryTasks

CLUSTER = "prefect-spot-dev"
UNKNOWN = CLUSTER_ARN.replace(":cluster/", ":task/") + "/" + "0" * 32


@dataclass
class Cluster:
    """A cluster whose tasks are started and stopped by the test."""

    tasks: Tasks
    run: Callable[[int], list[str]]
    stop: Callable[[str], object]


@pytest.fixture
def ecs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    moto_additions.install()  # as moto comes, no task is MISSING
    with mock_aws():
        client = boto3.client("ecs", region_name="us-east-1")
        client.create_cluster(clusterName=CLUSTER)
        client.register_task_definition(
            family="flow", containerDefinitions=[{"name": "flow", "memory": 1, "image": "etl:1"}]
        )
        yield client


def in_moto(client: Any) -> Cluster:
    def run(count: int) -> list[str]:
        tags = [{"key": "prefect.io/flow-run-id", "value": str(RUN_ID)}]
        wanted = {"cluster": CLUSTER, "taskDefinition": "flow", "launchType": "FARGATE"}
        answers = [client.run_task(**wanted, count=1, tags=tags) for _ in range(count)]
        return [answer["tasks"][0]["taskArn"] for answer in answers]

    def stop(arn: str) -> object:
        return client.stop_task(cluster=CLUSTER, task=arn, reason="prefect-spot drill")

    return Cluster(EcsTasks(client), run, stop)


def in_memory() -> Cluster:
    twin = InMemoryTasks({})

    def run(count: int) -> list[str]:
        arns = [f"{UNKNOWN[:-32]}{uuid4().hex}" for _ in range(count)]
        twin.tasks.update({arn: make_task(arn=arn, desired_status="RUNNING") for arn in arns})
        return arns

    def stop(arn: str) -> None:
        twin.tasks[arn] = replace(
            twin.tasks[arn], desired_status="STOPPED", stopped_reason="prefect-spot drill"
        )

    return Cluster(twin, run, stop)


@pytest.fixture(params=["ECS", "in memory"])
def cluster(request: pytest.FixtureRequest) -> Cluster:
    return in_memory() if request.param == "in memory" else in_moto(request.getfixturevalue("ecs"))


def test_tasks_come_with_their_tags_each_once_and_forgotten_ones_are_absent(
    cluster: Cluster,
) -> None:
    arns = cluster.run(3)
    tasks = cluster.tasks.describe_many(CLUSTER, [*arns, UNKNOWN, *arns])
    assert list(tasks) == arns
    assert {getattr(task, "flow_run_id", None) for task in tasks.values()} == {RUN_ID}
    assert cluster.tasks.describe(CLUSTER, arns[0]) == tasks[arns[0]]
    assert cluster.tasks.describe(CLUSTER, UNKNOWN) is None


def test_all_of_a_cluster_are_those_that_run_and_those_that_stopped(cluster: Cluster) -> None:
    arns = cluster.run(5)
    for arn in arns[:2]:
        cluster.stop(arn)
    tasks = {task.arn: task for task in cluster.tasks.all_of(CLUSTER)}
    assert set(tasks) == set(arns)
    assert {task.flow_run_id for task in tasks.values()} == {RUN_ID}
    stopped = cluster.tasks.stopped_of(CLUSTER)
    assert {task: tasks[task.arn].stopped_reason for task in stopped} == {
        tasks[arn]: "prefect-spot drill" for arn in arns[:2]
    }


@pytest.mark.parametrize("odd", ["garbage\n", "arn:aws:ecs::task/x", "arn:\n\0", UNKNOWN + "/a/b"])
def test_an_identifier_that_ecs_refuses_costs_no_other_task(cluster: Cluster, odd: str) -> None:
    arns = cluster.run(3)
    described = cluster.tasks.describe_many(CLUSTER, [arns[0], odd, *arns[1:]])
    assert isinstance(described[odd], Undescribed)
    assert [arn for arn, task in described.items() if isinstance(task, Task)] == arns


# What only ECS has.


def test_a_cluster_that_is_not_there_is_raised_not_empty(ecs: Any) -> None:
    tasks = EcsTasks(ecs)
    for list_tasks in (tasks.all_of, tasks.stopped_of):
        with pytest.raises(ClusterGoneError, match="'prefect-spot-prod' is not found"):
            list_tasks("prefect-spot-prod")
    with pytest.raises(PrefectSpotError, match="cluster is not found"):
        tasks.describe("prefect-spot-prod", UNKNOWN)
    described = tasks.describe_many("prefect-spot-prod", [UNKNOWN])
    assert described == {UNKNOWN: Undescribed("its cluster is not found")}


class RefusingEcs:
    """DescribeTasks that refuses a request whole for one odd ARN; any other is MISSING."""

    def __init__(self, odd: Collection[str], code: str) -> None:
        self.odd, self.code, self.requests = odd, code, 0

    def describe_tasks(self, *, cluster: str, tasks: list[str], include: list[str]) -> Any:
        self.requests += 1
        if any(arn in self.odd for arn in tasks):
            error: Any = {"Error": {"Code": self.code, "Message": "Identifiers are invalid."}}
            raise ClientError(error, "DescribeTasks")
        known = [{"taskArn": arn, "clusterArn": CLUSTER_ARN} for arn in tasks]
        return {"tasks": known, "failures": []}


@pytest.mark.parametrize("odd", [(0,), (149,), (3, 4, 99, 100), range(150)], ids=str)
def test_a_request_that_ecs_refuses_is_halved_until_the_odd_tasks_are_found(
    odd: Sequence[int],
) -> None:
    arns = [f"{UNKNOWN[:-32]}{uuid4().hex}" for _ in range(150)]
    ecs: Any = RefusingEcs({arns[n] for n in odd}, "InvalidParameterException")
    found = EcsTasks(ecs).describe_many(CLUSTER, arns)
    assert set(found) == set(arns)
    refused = {arn for arn, task in found.items() if isinstance(task, Undescribed)}
    assert refused == ecs.odd
    assert ecs.requests <= 2 + 14 * len(odd)


def test_throttling_is_no_tasks_own() -> None:
    throttled: Any = RefusingEcs({UNKNOWN}, "ThrottlingException")
    with pytest.raises(ClientError, match="ThrottlingException"):
        EcsTasks(throttled).describe_many(CLUSTER, [UNKNOWN, UNKNOWN[:-1] + "1"])
    assert throttled.requests == 1


@pytest.fixture
def script() -> Iterator[Any]:
    """An ECS that answers by script, and insists on each request."""
    client = boto3.client(
        "ecs", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )
    with Stubber(client) as stub:
        yield stub
        stub.assert_no_pending_responses()


def test_every_page_of_a_list_is_read_running_before_stopped_and_a_task_in_both_once(
    script: Any,
) -> None:
    arns = [f"{UNKNOWN[:-32]}{uuid4().hex}" for _ in range(250)]
    for desired, start, end, token, more in (
        ("RUNNING", 0, 100, "", "2"),
        ("RUNNING", 100, 150, "2", ""),
        ("STOPPED", 140, 240, "", "3"),
        ("STOPPED", 240, 250, "3", ""),
    ):
        asked = {"cluster": CLUSTER, "desiredStatus": desired, "maxResults": 100}
        script.add_response(
            "list_tasks",
            {"taskArns": arns[start:end]} | ({"nextToken": more} if more else {}),
            asked | ({"nextToken": token} if token else {}),
        )
    for start in (0, 100, 200):
        hundred = arns[start : start + 100]
        script.add_response(
            "describe_tasks",
            {"tasks": [{"taskArn": arn, "clusterArn": CLUSTER_ARN} for arn in hundred]}
            | {"failures": []},
            {"cluster": CLUSTER, "tasks": hundred, "include": ["TAGS"]},
        )
    assert [task.arn for task in EcsTasks(script.client).all_of(CLUSTER)] == arns
    assert EcsTasks(script.client).describe_many(CLUSTER, []) == {}, "ECS refuses an empty list"


@pytest.mark.parametrize("reason", ["ACCESS_DENIED", None])
def test_a_task_that_ecs_says_nothing_of_is_not_taken_for_forgotten(
    script: Any, reason: str | None
) -> None:
    """Its run would be started twice."""
    failures = [{"arn": UNKNOWN, "reason": reason}] if reason else []
    script.add_response("describe_tasks", {"tasks": [], "failures": failures})
    with pytest.raises(PrefectSpotError, match=reason or "no reason given"):
        EcsTasks(script.client).describe(CLUSTER, UNKNOWN)


def test_among_those_that_stopped_stands_what_ecs_says_nothing_of(script: Any) -> None:
    arns = [UNKNOWN, UNKNOWN[:-1] + "1", UNKNOWN[:-1] + "2"]
    described = [{"taskArn": arns[0], "clusterArn": CLUSTER_ARN}]
    missing = {"arn": arns[2], "reason": "MISSING"}
    script.add_response("list_tasks", {"taskArns": arns})
    script.add_response("describe_tasks", {"tasks": described, "failures": [missing]})
    task, odd = EcsTasks(script.client).stopped_of(CLUSTER)
    assert (task.arn, odd.arn) == (arns[0], arns[1])
    assert isinstance(odd, Undescribed)
    assert "no reason given" in odd.reason
