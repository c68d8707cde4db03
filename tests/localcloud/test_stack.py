"""The real stack in the emulated AWS: it comes up, changes, fails and goes as on AWS."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

import infra
from localcloud.aws import EmulatedAws
from tests.localcloud.stacks import StackUnderTest


def test_first_cluster_needs_the_service_linked_role_and_a_failed_creation_is_rolled_back(
    aws: EmulatedAws,
) -> None:
    """The first test here: the others make the role."""
    stack = StackUnderTest(aws)
    assert stack.create(stack.full()) == "ROLLBACK_COMPLETE"
    [(resource, reason)] = stack.failures()
    assert resource == "Cluster"
    assert reason.startswith("Unable to assume the service linked role.")
    assert stack.physical_ids() == {}
    assert aws.client("dynamodb").list_tables()["TableNames"] == []
    with pytest.raises(ClientError, match="is in ROLLBACK_COMPLETE state and can not be updated"):
        stack.update(stack.full(WorkerMemory="2048"))
    assert stack.delete() == "DELETE_COMPLETE"


def test_what_motos_own_cloudformation_would_drop_arrives(stack: StackUnderTest) -> None:
    client, made, outputs = stack.aws.client, stack.physical_ids(), stack.outputs()
    assert set(made) == set(infra.load("stack.json")["Resources"])
    assert set(outputs) == set(infra.load("stack.json")["Outputs"])
    [cluster] = client("ecs").describe_clusters(clusters=[stack.name])["clusters"]
    assert cluster["defaultCapacityProviderStrategy"] == [
        {"capacityProvider": "FARGATE_SPOT", "weight": 3},
        {"capacityProvider": "FARGATE", "weight": 2, "base": 1},
    ]
    [service] = client("ecs").describe_services(cluster=stack.name, services=["worker"])["services"]
    assert service["launchType"] == "FARGATE"
    assert service["networkConfiguration"]["awsvpcConfiguration"]["subnets"] == stack.subnets
    definition = client("ecs").describe_task_definition(taskDefinition=service["taskDefinition"])
    definition = definition["taskDefinition"]
    assert (definition["cpu"], definition["networkMode"]) == ("512", "awsvpc")
    assert definition["executionRoleArn"] == outputs["ExecutionRoleArn"]
    [container] = definition["containerDefinitions"]
    assert container["secrets"][0]["name"] == "PREFECT_API_KEY"
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
    assert {tuple(alarm["AlarmActions"]) for alarm in alarms} == {(outputs["AlarmTopicArn"],)}
    assert len(alarms) == len([name for name in made if name.endswith("Alarm")])


def test_update_changes_what_differs_and_nothing_else(another: StackUnderTest) -> None:
    another.create(another.full())
    before = another.physical_ids()
    with pytest.raises(ClientError, match=r"No updates are to be performed\."):
        another.update(another.full())
    given = another.full(
        WorkerMemory="2048", LogRetentionDays="7", AlarmEmail="ops@example.com", SpotWeight="1"
    )
    assert (another.update(given), another.failures()) == ("UPDATE_COMPLETE", [])
    after = another.physical_ids()
    assert after.pop("AlarmSubscription")
    assert {name for name in before if before[name] != after[name]} == {"WorkerTaskDefinition"}
    ecs, logs = another.aws.client("ecs"), another.aws.client("logs")
    [group] = logs.describe_log_groups(logGroupNamePrefix=before["LogGroup"])["logGroups"]
    assert group["retentionInDays"] == 7
    [cluster] = ecs.describe_clusters(clusters=[another.name])["clusters"]
    assert cluster["defaultCapacityProviderStrategy"][0]["weight"] == 1
    old = ecs.describe_task_definition(taskDefinition=before["WorkerTaskDefinition"])
    assert old["taskDefinition"]["status"] == "INACTIVE"
    [service] = ecs.describe_services(cluster=another.name, services=["worker"])["services"]
    assert service["taskDefinition"] == after["WorkerTaskDefinition"]


@pytest.mark.parametrize(
    ("changes", "request_", "complaint"),
    [
        ({"Unheard": "x"}, {}, r"Parameters: \[Unheard\] do not exist in the template"),
        ({}, {"Parameters": []}, r"Parameters: \[.*Stage.*\] must have values"),
        ({"UseSpot": "yes"}, {}, "Parameter 'UseSpot' must be one of AllowedValues"),
        ({"LogRetentionDays": "7 days"}, {}, "Parameter 'LogRetentionDays' must match pattern"),
        ({}, {"Capabilities": []}, "InsufficientCapabilitiesException"),
        ({}, {"StackName": "prefect-spot-dev"}, "AlreadyExistsException"),
    ],
    ids=["unknown", "missing", "not allowed", "no match", "capabilities", "name is taken"],
)
def test_request_that_aws_would_refuse_is_refused(
    another: StackUnderTest, changes: dict[str, str], request_: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ClientError, match=complaint):
        another.begin({**another.full(), **changes}, **request_)


@pytest.mark.parametrize(
    ("resource", "reason"),
    [
        ({"Type": "AWS::ECS::Clutser"}, "Unrecognized resource types: [AWS::ECS::Clutser]"),
        (
            {"Type": "AWS::SNS::Subscription", "Properties": {"TopicArn": "a", "Protocl": "email"}},
            "Encountered unsupported property Protocl in subscribe",
        ),
    ],
    ids=["type", "property"],
)
def test_what_nobody_knows_fails_the_stack(
    another: StackUnderTest, resource: dict[str, Any], reason: str
) -> None:
    another.template["Resources"] = {"Odd": resource}
    another.template["Outputs"] = {}
    assert another.create(another.full()) == "ROLLBACK_COMPLETE"
    assert another.failures() == [("Odd", reason)]


def test_deleting_stops_at_a_full_bucket_and_goes_on_once_it_is_empty(
    another: StackUnderTest,
) -> None:
    another.create(another.full())
    s3, bucket = another.aws.client("s3"), another.outputs()["ResultsBucket"]
    s3.put_object(Bucket=bucket, Key="result", Body=b"1")
    assert another.delete() == "DELETE_FAILED"
    assert set(another.physical_ids()) == {"ResultsBucket"}
    assert "BucketNotEmpty" in dict(another.failures())["ResultsBucket"]
    s3.delete_object(Bucket=bucket, Key="result")
    assert another.delete() == "DELETE_COMPLETE"
