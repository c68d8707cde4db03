"""The stack, made, changed, rolled back and deleted by a CloudFormation nobody here wrote."""

from typing import Any

import pytest
from botocore.exceptions import ClientError

import infra
from tests.localcloud.stacks import StackUnderTest, empty_account
from tests.second_aws.server import Account, without_metric_math
from tests.system.test_spotctl_deploy import names_of
from tests.unit import stack_template

NO_UPDATES = "No updates are to be performed."
DONE, UNDONE, NEVER = "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "ROLLBACK_COMPLETE"


@pytest.fixture
def stack(account: Account) -> StackUnderTest:
    empty_account(account)
    template = without_metric_math(infra.load("stack.json"))
    return StackUnderTest(account, template=template)


@pytest.fixture(scope="module")
def updates(judged: dict[str, Any]) -> dict[str, str]:
    """The status after each kind of operation, for the report."""
    found: dict[str, str] = judged.setdefault("updates", {})
    return found


def taken(stack: StackUnderTest) -> dict[str, Any]:
    """A resource of which CloudFormation finds that it is there already."""
    name = f"{stack.name}-taken"
    stack.aws.client("s3").create_bucket(Bucket=name)
    return {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": name}}


def impossible() -> dict[str, Any]:
    """A resource that fails when the others have been made, since it has no metric math."""
    alarm = infra.load("stack.json")["Resources"]["ReactFailingAlarm"]
    return {**alarm, "DependsOn": ["WorkerService", "Table"]}


def test_it_is_updated_where_it_differs_and_one_resource_is_replaced(
    stack: StackUnderTest, updates: dict[str, str]
) -> None:
    given = stack.full(WorkQueues="etl,ml")
    updates["create"] = stack.create(given)
    before = stack.physical_ids()
    assert (updates["create"], set(stack.outputs())) == (
        "CREATE_COMPLETE",
        set(infra.load("stack.json")["Outputs"]),
    )
    for _ in range(2):
        with pytest.raises(ClientError, match=NO_UPDATES):
            stack.update(given)
    updates["the same update twice"] = NO_UPDATES
    changes = {"LogRetentionDays": "7", "AlarmEmail": "ops@example.com", "SpotWeight": "1"}
    updates["update"] = stack.update({**given, **changes})
    updated = stack.physical_ids()
    assert (updates["update"], set(updated) - set(before)) == (DONE, {"AlarmSubscription"})
    assert {name for name in before if before[name] != updated[name]} == set()
    logs, ecs = stack.aws.client("logs"), stack.aws.client("ecs")
    [group] = logs.describe_log_groups(logGroupNamePrefix=before["LogGroup"])["logGroups"]
    [cluster] = ecs.describe_clusters(clusters=[stack.name])["clusters"]
    weights = {
        s["capacityProvider"]: s["weight"] for s in cluster["defaultCapacityProviderStrategy"]
    }
    assert (group["retentionInDays"], int(weights["FARGATE_SPOT"])) == (7, 1)
    updates["replace"] = stack.update({**given, **changes, "WorkerMemory": "2048"})
    replaced = stack.physical_ids()
    changed = {name for name in updated if updated[name] != replaced[name]}
    assert (updates["replace"], changed) == (DONE, {"WorkerTaskDefinition"})
    old = ecs.describe_task_definition(taskDefinition=updated["WorkerTaskDefinition"])
    [service] = ecs.describe_services(cluster=stack.name, services=["worker"])["services"]
    assert old["taskDefinition"]["status"] == "INACTIVE"
    assert service["taskDefinition"] == replaced["WorkerTaskDefinition"]
    updates["delete"] = stack.delete()
    assert (updates["delete"], names_of(stack.aws, stack.name)) == ("DELETE_COMPLETE", set())


def test_between_full_and_rescue_only_comes_and_goes_what_only_one_has(
    stack: StackUnderTest, updates: dict[str, str]
) -> None:
    names = {"Stage", "ClusterName", "TableName"}
    full = stack.full()
    rescue_only = stack_template.rescue_only(**{name: full[name] for name in names})
    expected = {
        way: set(stack_template.resources(way_, stack.template))
        for way, way_ in (("full", full), ("rescue-only", rescue_only))
    }
    assert expected["rescue-only"] < expected["full"]
    stack.create(full)
    first = stack.physical_ids()
    for name, way, given in (
        ("full to rescue-only", "rescue-only", rescue_only),
        ("rescue-only to full", "full", full),
    ):
        updates[name] = stack.update(given)
        found = stack.physical_ids()
        assert (updates[name], set(found)) == (DONE, expected[way])
        kept = {kind: id_ for kind, id_ in found.items() if kind in expected["rescue-only"]}
        assert kept.items() <= first.items(), "table, queue and topic stay what they were"


@pytest.mark.parametrize("how", ["at validation", "midway"])
def test_an_update_that_fails_is_rolled_back_and_the_next_one_succeeds(
    stack: StackUnderTest, updates: dict[str, str], how: str
) -> None:
    stack.create(stack.full())
    before, outputs = stack.physical_ids(), stack.outputs()
    stack.template["Resources"]["Odd"] = taken(stack) if how == "at validation" else impossible()
    changed = stack.full(LogRetentionDays="7")
    updates[f"failed {how}, rolled back"] = stack.update(changed)
    assert updates[f"failed {how}, rolled back"] == UNDONE
    assert (stack.physical_ids(), stack.outputs()) == (before, outputs)
    group = {"logGroupNamePrefix": before["LogGroup"]}
    [found] = stack.aws.client("logs").describe_log_groups(**group)["logGroups"]
    assert found["retentionInDays"] == 30
    del stack.template["Resources"]["Odd"]
    assert stack.update(changed) == DONE


@pytest.mark.parametrize("how", ["at validation", "midway"])
def test_a_creation_that_fails_is_undone_and_can_be_deleted_and_begun_anew(
    stack: StackUnderTest, updates: dict[str, str], how: str
) -> None:
    stack.template["Resources"]["Odd"] = taken(stack) if how == "at validation" else impossible()
    updates[f"creation failed {how}"] = stack.create(stack.full())
    assert updates[f"creation failed {how}"] == NEVER
    with pytest.raises(ClientError, match="is in ROLLBACK_COMPLETE state and can"):
        stack.update(stack.full(WorkerMemory="2048"))
    assert {name for name in names_of(stack.aws, stack.name) if "taken" not in name} == set()
    assert stack.delete() == "DELETE_COMPLETE"
    updates[f"creation failed {how}, deleted"] = "DELETE_COMPLETE"
    del stack.template["Resources"]["Odd"]
    assert stack.create(stack.full()) == "CREATE_COMPLETE"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"LogRetentionDays": "7 days"}, "Parameter 'LogRetentionDays' must match pattern"),
        ({}, "AlreadyExistsException"),
    ],
    ids=["no match", "name is taken"],
)
def test_a_request_with_a_wrong_parameter_or_a_name_that_is_taken_is_refused(
    stack: StackUnderTest, changes: dict[str, str], complaint: str
) -> None:
    if not changes:
        stack.create(stack.full())
    with pytest.raises(ClientError, match=complaint):
        stack.create({**stack.full(), **changes})


def test_what_fails_validation_is_named_by_describe_events_only(stack: StackUnderTest) -> None:
    """As CloudFormation user guide, "Validate stack deployments": `provision` names the command."""
    stack.template["Resources"]["Odd"] = taken(stack)
    assert (stack.create(stack.full()), stack.failures()) == (NEVER, [])
    failed = {"StackName": stack.id, "Filters": {"FailedEvents": True}}
    events = stack.client.describe_events(**failed)["OperationEvents"]
    reasons = [e["ValidationStatusReason"] for e in events if e["EventType"] == "VALIDATION_ERROR"]
    assert [f"{stack.name}-taken" in reason for reason in reasons] == [True]


@pytest.mark.parametrize(
    ("resource", "change"),
    [
        ("Cluster", {"Type": "AWS::ECS::Clutser"}),
        ("FailureQueuePolicy", {"Queues": [{"Fn::GetAtt": ["FailureQueue", "Arnn"]}]}),
        ("WorkerService", {"CapacityProviderStrategy": [{"CapacityProvider": "FARGATE"}]}),
    ],
    ids=["type", "attribute", "launch type and strategy"],
)
def test_a_planted_mistake_in_the_template_is_noticed(
    stack: StackUnderTest, resource: str, change: dict[str, Any]
) -> None:
    planted = stack.template["Resources"][resource]
    planted.update({"Type": change.pop("Type", planted["Type"])})
    planted["Properties"].update(change)
    try:
        found = str(stack.create(stack.full()) == NEVER and stack.failures())
    except ClientError as refused:
        found = str(refused)
    assert resource in found or "Clutser" in found
