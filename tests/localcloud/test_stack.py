"""The stack in the emulated AWS: what the template says is what the services say afterwards."""

from typing import Any

import pytest

import infra
from localcloud.aws import EmulatedAws
from tests.localcloud.stack_readings import leaves
from tests.localcloud.stacks import StackUnderTest
from tests.unit import stack_template
from tests.unit.test_stack_template import ALWAYS, FULL_OUTPUTS, OUTPUTS


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


def differences(stack: StackUnderTest) -> list[str]:
    """Every property whose value the emulated AWS does not repeat."""
    found = []
    for logical_id, resource in stack.wanted().items():
        said = dict(leaves(stack.read(logical_id)))
        for path, value in leaves(resource["Properties"]):
            if said.get(path) != value:
                found.append(f"{logical_id}.{path} is {said.get(path)}, not {value}")
    return found


def test_every_property_of_every_resource_arrives(stack: StackUnderTest) -> None:
    made = stack.wanted()
    everything = set(stack_template.template()["Resources"])
    assert set(stack.physical_ids()) == set(made) == everything
    assert differences(stack) == []


def test_a_property_that_did_not_arrive_is_noticed(another: StackUnderTest) -> None:
    another.create(another.full())
    another.aws.client("ecs").put_cluster_capacity_providers(
        cluster=another.name,
        capacityProviders=["FARGATE"],
        defaultCapacityProviderStrategy=[],
    )
    another.aws.client("s3").delete_bucket_lifecycle(Bucket=another.outputs()["ResultsBucket"])
    another.aws.client("s3").put_bucket_lifecycle_configuration(
        Bucket=another.outputs()["ResultsBucket"],
        LifecycleConfiguration={
            "Rules": [
                {"ID": "results", "Status": "Enabled", "Prefix": "", "Expiration": {"Days": 1}}
            ]
        },
    )
    noticed = {difference.split(" is ")[0] for difference in differences(another)}
    assert "Cluster.CapacityProviders[]" in noticed
    assert "Cluster.DefaultCapacityProviderStrategy[0].Weight" in noticed
    assert "ResultsBucket.LifecycleConfiguration.Rules[0].ExpirationInDays" in noticed


def test_outputs_say_where_things_are(stack: StackUnderTest) -> None:
    outputs = stack.outputs()
    assert set(outputs) == OUTPUTS | FULL_OUTPUTS
    assert outputs["ClusterArn"].endswith(":cluster/prefect-spot-dev")
    assert outputs["SubnetIds"].split(",") == stack.subnets
    assert outputs["VpcId"] == stack.vpc
    assert outputs["FlowRoleArn"].endswith(":role/prefect-spot-dev-flow")
    assert outputs["ResultsBucket"] == "prefect-spot-dev-results-123456789012-us-east-1"
    assert outputs["WorkerTaskDefinitionArn"].endswith("/prefect-spot-dev-worker:1")
    assert outputs["SecurityGroupIds"].startswith("sg-")
    assert outputs["FailureQueueUrl"].endswith("/prefect-spot-dev-failures")


def test_rescue_only_makes_what_the_handler_needs(another: StackUnderTest) -> None:
    assert another.create(another.rescue_only()) == "CREATE_COMPLETE"
    assert set(another.physical_ids()) == ALWAYS
    assert set(another.outputs()) == OUTPUTS
    assert differences(another) == []


@pytest.mark.parametrize("mode", ["full", "rescue-only"])
def test_delete_leaves_nothing_behind(another: StackUnderTest, mode: str) -> None:
    before = inventory(another.aws)
    given = another.full(AlarmEmail="ops@example.com", Provision=mode)
    assert another.create(given) == "CREATE_COMPLETE"
    assert inventory(another.aws) != before
    assert (another.delete(), another.failures()) == ("DELETE_COMPLETE", [])
    assert inventory(another.aws) == before


def test_update_changes_what_differs_and_nothing_else(another: StackUnderTest) -> None:
    another.create(another.full())
    before = another.physical_ids()
    given = another.full(
        SpotWeight="1",
        WorkerMemory="2048",
        LogRetentionDays="7",
        AlarmEmail="ops@example.com",
        AssignPublicIp="DISABLED",
        ApiKeyParameter="/another",
    )
    assert (another.update(given), another.failures()) == ("UPDATE_COMPLETE", [])
    assert differences(another) == []
    after = another.physical_ids()
    assert after.pop("AlarmSubscription")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"WorkerTaskDefinition"}
    ecs = another.aws.client("ecs")
    old = ecs.describe_task_definition(taskDefinition=before["WorkerTaskDefinition"])
    assert old["taskDefinition"]["status"] == "INACTIVE"
    assert another.read("WorkerService")["TaskDefinition"] == after["WorkerTaskDefinition"]


def test_update_between_the_modes_makes_and_unmakes_the_rest(another: StackUnderTest) -> None:
    another.create(another.rescue_only())
    before = inventory(another.aws)
    assert another.update(another.full()) == "UPDATE_COMPLETE"
    assert differences(another) == []
    assert another.update(another.rescue_only()) == "UPDATE_COMPLETE"
    assert set(another.physical_ids()) == ALWAYS
    assert inventory(another.aws) == before


def test_two_stages_stand_side_by_side(stack: StackUnderTest, another: StackUnderTest) -> None:
    before = inventory(stack.aws)
    assert another.create(another.full()) == "CREATE_COMPLETE"
    assert not set(another.physical_ids().values()) & set(stack.physical_ids().values())
    assert another.delete() == "DELETE_COMPLETE"
    assert inventory(stack.aws) == before
    assert differences(stack) == []


def test_template_is_handed_out_as_it_was_given(stack: StackUnderTest) -> None:
    body = stack.client.get_template(StackName=stack.id)["TemplateBody"]
    assert body == infra.load("stack.json")
