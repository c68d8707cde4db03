"""The emulated CloudFormation takes its time, refuses, rolls back and deletes as AWS does."""

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud.aws import EmulatedAws
from localcloud.cloudformation.operations import wait_for_stack
from tests.localcloud.cloud import wait_until

LOG_GROUP: dict[str, Any] = {
    "Type": "AWS::Logs::LogGroup",
    "Properties": {"LogGroupName": {"Fn::Sub": "/${AWS::StackName}"}, "RetentionInDays": 7},
}
TOPIC: dict[str, Any] = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "a-topic"}}


class Small:
    """A stack of a few resources."""

    def __init__(self, aws: EmulatedAws, name: str) -> None:
        self.aws, self.name, self.id = aws, name, ""
        self.client = aws.client("cloudformation")

    def begin(self, resources: dict[str, Any], **request: Any) -> None:
        self.id = self.client.create_stack(**self._request(resources, request))["StackId"]

    def create(self, resources: dict[str, Any], **request: Any) -> str:
        self.begin(resources, **request)
        return self.settle()

    def update(self, resources: dict[str, Any], **request: Any) -> str:
        self.client.update_stack(**self._request(resources, request))
        return self.settle()

    def delete(self) -> str:
        self.client.delete_stack(StackName=self.id)
        return self.settle()

    def settle(self) -> str:
        return wait_for_stack(self.aws.cloudformation, self.id).status

    def _request(self, resources: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
        template = {"Resources": resources, **request.pop("template", {})}
        return {"StackName": self.name, "TemplateBody": json.dumps(template), **request}

    def status(self) -> str:
        [stack] = self.client.describe_stacks(StackName=self.id)["Stacks"]
        return str(stack["StackStatus"])

    def events(self) -> list[tuple[str, str]]:
        """The oldest first."""
        found = self.client.describe_stack_events(StackName=self.id)["StackEvents"]
        return [(e["LogicalResourceId"], e["ResourceStatus"]) for e in reversed(found)]

    def reasons(self) -> list[str]:
        found = self.client.describe_stack_events(StackName=self.id)["StackEvents"]
        return [
            f"{e['LogicalResourceId']}: {e['ResourceStatusReason']}"
            for e in found
            if e["ResourceStatus"].endswith("_FAILED") and "ResourceStatusReason" in e
        ]

    def made(self) -> list[str]:
        found = self.client.describe_stack_resources(StackName=self.id)["StackResources"]
        return [resource["LogicalResourceId"] for resource in found]


@pytest.fixture
def small(aws: EmulatedAws, request: pytest.FixtureRequest) -> Any:
    small = Small(aws, request.node.name.split("[")[0].replace("_", "-"))
    yield small
    aws.cloudformation.refuse, aws.cloudformation.operation_seconds = {}, 0.0
    if small.id and small.status() != "DELETE_COMPLETE":
        assert small.delete() == "DELETE_COMPLETE"
    assert aws.cloudformation.errors == []


def log_groups(aws: EmulatedAws) -> list[str]:
    return [g["logGroupName"] for g in aws.client("logs").describe_log_groups()["logGroups"]]


def test_request_returns_before_its_work_is_done(small: Small) -> None:
    small.aws.cloudformation.operation_seconds = 0.5
    small.begin({"Log": LOG_GROUP})
    assert small.status() == "CREATE_IN_PROGRESS"
    with pytest.raises(ClientError, match="is in CREATE_IN_PROGRESS state and can not be updated"):
        small.client.update_stack(**small._request({"Topic": TOPIC}, {}))
    with pytest.raises(ClientError, match=r"AlreadyExistsException.*already exists"):
        small.client.create_stack(**small._request({"Log": LOG_GROUP}, {}))
    wait_until(lambda: small.status() == "CREATE_COMPLETE")
    assert small.events() == [
        (small.name, "CREATE_IN_PROGRESS"),
        ("Log", "CREATE_IN_PROGRESS"),
        ("Log", "CREATE_COMPLETE"),
        (small.name, "CREATE_COMPLETE"),
    ]


def test_failed_creation_is_rolled_back_and_says_why(small: Small) -> None:
    small.aws.cloudformation.refuse = {"Topic": "Quota exceeded"}
    topic = {**TOPIC, "DependsOn": "Log"}
    assert small.create({"Topic": topic, "Log": LOG_GROUP}) == "ROLLBACK_COMPLETE"
    assert small.reasons() == ["Topic: Quota exceeded"]
    assert ("Log", "DELETE_COMPLETE") in small.events()
    assert small.made() == []
    assert f"/{small.name}" not in log_groups(small.aws)
    with pytest.raises(ClientError, match="is in ROLLBACK_COMPLETE state and can not be updated"):
        small.update({"Log": LOG_GROUP})
    assert small.delete() == "DELETE_COMPLETE"
    small.aws.cloudformation.refuse = {}
    assert small.create({"Topic": topic, "Log": LOG_GROUP}) == "CREATE_COMPLETE"


def test_failed_update_goes_back_to_what_there_was(aws: EmulatedAws, small: Small) -> None:
    def wanted(image: str) -> dict[str, Any]:
        container = {"Name": "worker", "Image": image, "Memory": 512}
        worker = {"Family": small.name, "ContainerDefinitions": [container]}
        log = {**LOG_GROUP["Properties"], "RetentionInDays": {"Ref": "Days"}}
        return {
            "Log": {**LOG_GROUP, "Properties": log},
            "Worker": {"Type": "AWS::ECS::TaskDefinition", "Properties": worker},
        }

    def days(number: str) -> dict[str, Any]:
        declared = {"Parameters": {"Days": {"Type": "String"}}}
        given = [{"ParameterKey": "Days", "ParameterValue": number}]
        return {"template": declared, "Parameters": given}

    small.create(wanted("first"), **days("7"))
    aws.cloudformation.refuse = {"Topic": "Quota exceeded"}
    changed = {**wanted("second"), "Topic": {**TOPIC, "DependsOn": ["Log", "Worker"]}}
    assert small.update(changed, **days("30")) == "UPDATE_ROLLBACK_COMPLETE"
    assert small.reasons() == ["Topic: Quota exceeded"]
    groups = aws.client("logs").describe_log_groups(logGroupNamePrefix=f"/{small.name}")
    assert groups["logGroups"][0]["retentionInDays"] == 7
    active = aws.client("ecs").list_task_definitions(familyPrefix=small.name, status="ACTIVE")
    assert [arn.split("/")[-1] for arn in active["taskDefinitionArns"]] == [f"{small.name}:1"]
    [stack] = small.client.describe_stacks(StackName=small.id)["Stacks"]
    assert stack["Parameters"] == [{"ParameterKey": "Days", "ParameterValue": "7"}]
    assert "Topic" not in small.client.get_template(StackName=small.id)["TemplateBody"]["Resources"]


def test_update_that_changes_nothing_is_refused_and_one_of_tags_is_not(small: Small) -> None:
    tags = [{"Key": "stage", "Value": "dev"}]
    small.create({"Log": LOG_GROUP}, Tags=tags)
    with pytest.raises(ClientError, match=r"No updates are to be performed\."):
        small.update({"Log": LOG_GROUP}, Tags=tags)
    assert small.update({"Log": LOG_GROUP}, Tags=[{"Key": "stage", "Value": "x"}]) == (
        "UPDATE_COMPLETE"
    )


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
    small: Small, resource: dict[str, Any], reason: str
) -> None:
    assert small.create({"X": resource}) == "ROLLBACK_COMPLETE"
    assert small.reasons() == [f"X: {reason}"]


@pytest.mark.parametrize(
    ("template", "request_", "complaint"),
    [
        ({"Parameters": {"A": {"Type": "String"}}}, {}, r"Parameters: \[A\] must have values"),
        (
            {},
            {"Parameters": [{"ParameterKey": "B", "ParameterValue": ""}]},
            r"Parameters: \[B\] do not exist in the template",
        ),
        (
            {"Parameters": {"A": {"Type": "String", "AllowedValues": ["x"]}}},
            {"Parameters": [{"ParameterKey": "A", "ParameterValue": "y"}]},
            "Parameter 'A' must be one of AllowedValues",
        ),
        (
            {"Parameters": {"A": {"Type": "String", "AllowedPattern": "[0-9]+"}}},
            {"Parameters": [{"ParameterKey": "A", "ParameterValue": "7 days"}]},
            "Parameter 'A' must match pattern",
        ),
        ({"Description": "x" * 51_200}, {}, "less than or equal to 51200"),
        (
            {"Resources": {"Role": {"Type": "AWS::IAM::Role", "Properties": {}}}},
            {},
            "InsufficientCapabilitiesException",
        ),
    ],
    ids=["missing", "unknown", "not allowed", "no match", "too large", "capabilities"],
)
def test_request_that_aws_would_refuse_is_refused(
    small: Small, template: dict[str, Any], request_: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ClientError, match=complaint):
        small.begin({"Log": LOG_GROUP}, template=template, **request_)
    with pytest.raises(ClientError, match="does not exist"):
        small.client.describe_stacks(StackName=small.name)


def test_deleting_stops_at_what_cannot_go_and_goes_on_when_it_can(small: Small) -> None:
    bucket = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "a-full-bucket"}}
    small.create({"Bucket": bucket, "Log": LOG_GROUP})
    s3 = small.aws.client("s3")
    s3.put_object(Bucket="a-full-bucket", Key="result", Body=b"1")
    assert small.delete() == "DELETE_FAILED"
    assert small.made() == ["Bucket"]
    assert any("BucketNotEmpty" in reason for reason in small.reasons())
    s3.delete_object(Bucket="a-full-bucket", Key="result")
    assert small.delete() == "DELETE_COMPLETE"
    assert small.status() == "DELETE_COMPLETE"  # by its id; its name is free again
    with pytest.raises(ClientError, match="does not exist"):
        small.client.describe_stacks(StackName=small.name)


def test_retained_resource_stays(small: Small) -> None:
    small.create({"Log": {**LOG_GROUP, "DeletionPolicy": "Retain"}})
    assert small.delete() == "DELETE_COMPLETE"
    assert f"/{small.name}" in log_groups(small.aws)


def test_first_cluster_needs_the_service_linked_role(small: Small) -> None:
    cluster = {
        "Type": "AWS::ECS::Cluster",
        "Properties": {"ClusterName": "first", "CapacityProviders": ["FARGATE"]},
    }
    assert small.create({"Cluster": cluster}) == "ROLLBACK_COMPLETE"
    [reason] = small.reasons()
    assert reason.startswith("Cluster: Unable to assume the service linked role.")
    assert small.delete() == "DELETE_COMPLETE"
    small.aws.client("iam").create_service_linked_role(AWSServiceName="ecs.amazonaws.com")
    assert small.create({"Cluster": cluster}) == "CREATE_COMPLETE"
