"""The real stack in the emulated AWS: it comes up, changes, and goes without a trace."""

from typing import Any

import infra
from localcloud.aws import EmulatedAws
from tests.localcloud.stacks import StackUnderTest
from tests.unit.test_stack_template import ALWAYS, OUTPUTS


def inventory(aws: EmulatedAws) -> dict[str, list[Any]]:
    """Everything in the account that a stack could have made, by kind."""
    ecs, iam, s3 = aws.client("ecs"), aws.client("iam"), aws.client("s3")
    clusters = ecs.describe_clusters(clusters=ecs.list_clusters()["clusterArns"])["clusters"]
    active = [cluster["clusterName"] for cluster in clusters if cluster["status"] == "ACTIVE"]
    cloudwatch = aws.client("cloudwatch")
    groups = aws.client("ec2").describe_security_groups()["SecurityGroups"]
    return {
        "clusters": active,
        "services": [ecs.list_services(cluster=name)["serviceArns"] for name in active],
        "task definitions": ecs.list_task_definitions(status="ACTIVE")["taskDefinitionArns"],
        "roles": [role["RoleName"] for role in iam.list_roles()["Roles"]],
        "security groups": [group["GroupId"] for group in groups],
        "log groups": aws.client("logs").describe_log_groups()["logGroups"],
        "buckets": s3.list_buckets()["Buckets"],
        "tables": aws.client("dynamodb").list_tables()["TableNames"],
        "queues": aws.client("sqs").list_queues().get("QueueUrls", []),
        "topics": aws.client("sns").list_topics()["Topics"],
        "subscriptions": aws.client("sns").list_subscriptions()["Subscriptions"],
        "alarms": cloudwatch.describe_alarms()["MetricAlarms"],
        "dashboards": cloudwatch.list_dashboards()["DashboardEntries"],
    }


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


def test_a_second_stage_changes_its_mode_and_goes_and_the_first_is_untouched(
    stack: StackUnderTest, another: StackUnderTest
) -> None:
    before = inventory(stack.aws)
    assert another.create(another.rescue_only()) == "CREATE_COMPLETE"
    assert set(another.physical_ids()) == ALWAYS
    assert set(another.outputs()) == OUTPUTS
    small = inventory(stack.aws)
    assert small != before
    assert another.update(another.full()) == "UPDATE_COMPLETE"
    assert not set(another.physical_ids().values()) & set(stack.physical_ids().values())
    assert another.update(another.rescue_only()) == "UPDATE_COMPLETE"
    assert inventory(stack.aws) == small
    assert another.update(another.full(AlarmEmail="ops@example.com")) == "UPDATE_COMPLETE"
    assert (another.delete(), another.failures()) == ("DELETE_COMPLETE", [])
    assert inventory(stack.aws) == before
