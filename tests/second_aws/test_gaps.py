"""What MiniStack cannot do, each shown: a release that can is noticed, and the helper then goes.

That it is MiniStack's gap says the AWS documentation, named in each reason.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest

import infra
from tests.localcloud.stacks import StackUnderTest, empty_account
from tests.make import make_table
from tests.second_aws.calls import ACCOUNT, REGION
from tests.second_aws.server import Account, ask, without_metric_math


def created(account: Account, **resources: Any) -> StackUnderTest:
    """The stack, some of its resources changed."""
    empty_account(account)
    template = without_metric_math(infra.load("stack.json"))
    stack = StackUnderTest(account, template=template)
    template["Resources"].update(resources)
    stack.create(stack.full())
    return stack


def has_no_metric_math(account: Account) -> bool:
    alarm = infra.load("stack.json")["Resources"]["ReactFailingAlarm"]
    [(_, reason)] = created(account, ReactFailingAlarm=alarm).failures()
    return "metric math" in reason


def names_the_role_otherwise(account: Account) -> bool:
    iam = account.client("iam")
    made = iam.create_service_linked_role(AWSServiceName="ecs.amazonaws.com")["Role"]
    return bool(made["RoleName"] != "AWSServiceRoleForECS")


def takes_what_is_there(account: Account) -> bool:
    empty_account(account)
    stack = StackUnderTest(account, template=without_metric_math(infra.load("stack.json")))
    make_table(account.client("dynamodb"), stack.name)
    return stack.create(stack.full()) == "CREATE_COMPLETE"


def takes_a_reference_to_nothing(account: Account) -> bool:
    queue = {"Type": "AWS::SQS::Queue", "Properties": {"QueueName": {"Ref": "Nothing"}}}
    return created(account, Odd=queue).status() == "CREATE_COMPLETE"


def takes_any_request(account: Account) -> bool:
    empty_account(account)
    stack = StackUnderTest(account, template=without_metric_math(infra.load("stack.json")))
    return stack.create({**stack.full(), "Unheard": "x"}, Capabilities=[]) == "CREATE_COMPLETE"


def drops_properties(account: Account) -> bool:
    stack = created(account)
    dynamodb, ecs = account.client("dynamodb"), account.client("ecs")
    expiry = dynamodb.describe_time_to_live(TableName=stack.name)["TimeToLiveDescription"]
    definition = ecs.describe_task_definition(taskDefinition=f"{stack.name}-worker")
    [container] = definition["taskDefinition"]["containerDefinitions"]
    kept = (expiry["TimeToLiveStatus"], container["secrets"], container["healthCheck"])
    return kept == ("DISABLED", [{}], {})


def runs_no_container(account: Account) -> bool:
    stack = created(account)
    answer = account.client("ecs").run_task(
        cluster=stack.name,
        taskDefinition=f"{stack.name}-worker",
        launchType="FARGATE",
        networkConfiguration={"awsvpcConfiguration": {"subnets": stack.subnets}},
    )
    return bool(answer["tasks"][0]["lastStatus"] == "RUNNING")


def weighs_in_text(account: Account) -> bool:
    stack = created(account)
    [cluster] = account.client("ecs").describe_clusters(clusters=[stack.name])["clusters"]
    return isinstance(cluster["defaultCapacityProviderStrategy"][0]["weight"], str)


def fills_no_variable(_: Account) -> bool:
    bucket = "arn:aws:s3:::b-{}"
    to = bucket.format("${aws:PrincipalAccount}")
    allow = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": to}
    request = {"account": ACCOUNT, "region": REGION, "principal": "p", "context": {}}
    request |= {"action": "s3:GetObject", "resource": bucket.format(ACCOUNT)}
    return ask("iam", [([{"Statement": [allow]}], request)]) == [False]


def asks_about_the_cluster_for_a_task(_: Account) -> bool:
    body = {"cluster": "etl", "tasks": [f"arn:aws:ecs:{REGION}:{ACCOUNT}:task/etl/1"]}
    found = ask("resource", [("ecs", json.dumps(body), REGION, ACCOUNT)])
    return found == [f"arn:aws:ecs:{REGION}:{ACCOUNT}:cluster/etl"]


@dataclass(frozen=True)
class Gap:
    """What it cannot do, as `shown`; why that is its gap, and what the tests do instead."""

    shown: Callable[[Account], bool]
    what: str
    why: str


GAPS: Final = (
    Gap(
        has_no_metric_math,
        "alarms with metric math",
        "PutMetricAlarm takes Metrics (CloudWatch API reference); `without_metric_math` leaves the"
        " four alarms on a share of failures out, which cfn-lint checks",
    ),
    Gap(
        names_the_role_otherwise,
        "the name of ECS's service-linked role",
        "it is AWSServiceRoleForECS (ECS developer guide, Using service-linked roles);"
        " `with_ecs_role` makes it beforehand",
    ),
    Gap(
        runs_no_container,
        "RunTask's containers, and so the worker and flows",
        "a task begins in PROVISIONING (ECS developer guide, Task lifecycle); events are composed,"
        " tests/e2e runs real flows",
    ),
    Gap(
        takes_what_is_there,
        "refusing a resource whose name is taken, except for buckets",
        "CloudFormation detects name conflicts before it deploys (user guide, Validate stack"
        " deployments); the tests take a bucket's name",
    ),
    Gap(
        takes_a_reference_to_nothing,
        "refusing a Ref to nothing, and most wrong properties",
        "a template with an unresolved reference is refused (user guide, Troubleshooting); cfn-lint"
        " refuses it",
    ),
    Gap(
        takes_any_request,
        "refusing a parameter that the template has not, and a request without capabilities",
        "CreateStack answers ValidationError and InsufficientCapabilities (CloudFormation API"
        " reference); tests/localcloud proves that our requests pass those",
    ),
    Gap(
        drops_properties,
        "the table's expiry and backups, the bucket's lifecycle, a task's secrets, health check",
        "the resource types have them (CloudFormation template reference); tests/localcloud sees"
        " them arrive",
    ),
    Gap(
        weighs_in_text,
        "numbers in a capacity provider strategy",
        "weight and base are integers (ECS API reference, CapacityProviderStrategyItem)",
    ),
    Gap(
        fills_no_variable,
        "policy variables",
        "${aws:PrincipalAccount} stands for the caller's account (IAM user guide, Policy"
        " variables); `policies` fills it in",
    ),
    Gap(
        asks_about_the_cluster_for_a_task,
        "which resource some calls are authorised on",
        "DescribeTasks is authorised on tasks (service authorization reference, ECS);"
        " tests/second_aws/calls.py reads the calls itself",
    ),
)


@pytest.mark.parametrize("gap", GAPS, ids=lambda gap: gap.shown.__name__)
def test_what_it_cannot_do_is_still_so(account: Account, gap: Gap, judged: dict[str, Any]) -> None:
    judged.setdefault("left_out", []).append({"what": gap.what, "why": gap.why})
    assert gap.shown(account)
