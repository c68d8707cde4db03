"""The real stack in the emulated AWS: what moto alone would drop arrives.

How it is updated, rolled back and refused: `tests/second_aws`, which nobody here wrote.
"""

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


@pytest.mark.parametrize(
    ("changes", "request_", "complaint"),
    [
        ({"Unheard": "x"}, {}, r"Parameters: \[Unheard\] do not exist in the template"),
        ({}, {"Capabilities": []}, "InsufficientCapabilitiesException"),
    ],
    ids=["unknown", "capabilities"],
)
def test_a_request_that_ministack_lets_through_and_aws_would_not_is_refused(
    stack: StackUnderTest, changes: dict[str, str], request_: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ClientError, match=complaint):
        stack.create({**stack.full(), **changes}, **request_)
