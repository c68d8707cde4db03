"""The real stack in the emulated AWS is created, changed and rolled back as on AWS."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

import infra
from tests.localcloud.stacks import StackUnderTest


def test_what_motos_own_cloudformation_would_drop_arrives(stack: StackUnderTest) -> None:
    """The rest goes into a request as it stands, and fails the stack where it does not fit."""
    given = stack.full(AlarmEmail="ops@example.com", WorkQueues="etl,ml")
    assert (stack.create(given), stack.failures()) == ("CREATE_COMPLETE", [])
    client, made, outputs = stack.aws.client, stack.physical_ids(), stack.outputs()
    assert set(made) == set(infra.load("stack.json")["Resources"])
    assert set(outputs) == set(infra.load("stack.json")["Outputs"])
    [service] = client("ecs").describe_services(cluster=stack.name, services=["worker"])["services"]
    assert service["networkConfiguration"]["awsvpcConfiguration"]["subnets"] == stack.subnets
    role = {"RoleName": made["ExecutionRole"]}
    assert len(client("iam").list_attached_role_policies(**role)["AttachedPolicies"]) == 1
    assert client("iam").list_role_policies(**role)["PolicyNames"] == ["prefect-credential"]
    table = client("dynamodb").describe_time_to_live(TableName=outputs["TableName"])
    assert table["TimeToLiveDescription"]["AttributeName"] == "expires_at"
    queue = {"QueueUrl": outputs["FailureQueueUrl"], "AttributeNames": ["Policy"]}
    assert "sqs:SendMessage" in client("sqs").get_queue_attributes(**queue)["Attributes"]["Policy"]
    bucket = {"Bucket": outputs["ResultsBucket"]}
    [rule] = client("s3").get_bucket_lifecycle_configuration(**bucket)["Rules"]
    assert rule["Expiration"] == {"Days": 90}
    alarms = client("cloudwatch").describe_alarms()["MetricAlarms"]
    sent = {(*alarm["AlarmActions"], *alarm["OKActions"]) for alarm in alarms}
    assert sent == {(outputs["AlarmTopicArn"],) * 2}


def test_update_changes_what_differs_and_nothing_else(stack: StackUnderTest) -> None:
    stack.create(stack.full())
    before = stack.physical_ids()
    with pytest.raises(ClientError, match=r"No updates are to be performed\."):
        stack.update(stack.full())
    given = stack.full(
        WorkerMemory="2048", LogRetentionDays="7", AlarmEmail="ops@example.com", SpotWeight="1"
    )
    assert (stack.update(given), stack.failures()) == ("UPDATE_COMPLETE", [])
    after = stack.physical_ids()
    assert after.pop("AlarmSubscription")
    assert {name for name in before if before[name] != after[name]} == {"WorkerTaskDefinition"}
    ecs, logs = stack.aws.client("ecs"), stack.aws.client("logs")
    [group] = logs.describe_log_groups(logGroupNamePrefix=before["LogGroup"])["logGroups"]
    assert group["retentionInDays"] == 7
    [cluster] = ecs.describe_clusters(clusters=[stack.name])["clusters"]
    assert cluster["defaultCapacityProviderStrategy"][0]["weight"] == 1
    old = ecs.describe_task_definition(taskDefinition=before["WorkerTaskDefinition"])
    assert old["taskDefinition"]["status"] == "INACTIVE"
    [service] = ecs.describe_services(cluster=stack.name, services=["worker"])["services"]
    assert service["taskDefinition"] == after["WorkerTaskDefinition"]


@pytest.mark.parametrize(
    ("changes", "request_", "complaint"),
    [
        ({"Unheard": "x"}, {}, r"Parameters: \[Unheard\] do not exist in the template"),
        ({"LogRetentionDays": "7 days"}, {}, "Parameter 'LogRetentionDays' must match pattern"),
        ({}, {"Capabilities": []}, "InsufficientCapabilitiesException"),
        ({}, {}, "AlreadyExistsException"),
    ],
    ids=["unknown", "no match", "capabilities", "name is taken"],
)
def test_request_that_aws_would_refuse_is_refused(
    stack: StackUnderTest, changes: dict[str, str], request_: dict[str, Any], complaint: str
) -> None:
    stack.create(stack.full())
    with pytest.raises(ClientError, match=complaint):
        stack.create({**stack.full(), **changes}, **request_)


@pytest.mark.parametrize(
    ("kind", "properties", "reason"),
    [
        ("AWS::ECS::Clutser", {}, "Unrecognized resource types: [AWS::ECS::Clutser]"),
        (
            "AWS::SNS::Subscription",
            {"TopicArn": "a", "Protocl": "email"},
            "Encountered unsupported property Protocl in subscribe",
        ),
    ],
    ids=["type", "property"],
)
def test_what_is_unknown_fails_the_stack_for_good(
    stack: StackUnderTest, kind: str, properties: dict[str, str], reason: str
) -> None:
    stack.template["Resources"] = {"Odd": {"Type": kind, "Properties": properties}}
    stack.template["Outputs"] = {}
    assert stack.create(stack.full()) == "ROLLBACK_COMPLETE"
    assert stack.failures() == [("Odd", reason)]
    with pytest.raises(ClientError, match="is in ROLLBACK_COMPLETE state and can not be updated"):
        stack.update(stack.full(WorkerMemory="2048"))
