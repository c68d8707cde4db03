"""Each rule that the stack's template is held to notices the mistake it is there for."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit import stack_rules as rules
from tests.unit import stack_template as stack

Mistake = Callable[[dict[str, Any]], object]


def statement(resource: dict[str, Any], index: int) -> dict[str, Any]:
    properties = resource["Properties"]
    document = properties.get("PolicyDocument") or properties["Policies"][0]["PolicyDocument"]
    found: dict[str, Any] = document["Statement"][index]
    return found


def container(definition: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = definition["Properties"]["ContainerDefinitions"][0]
    return found


def widgets(dashboard: dict[str, Any]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = dashboard["Properties"]["DashboardBody"]["Fn::Join"][1][1][
        "Fn::Join"
    ][1]
    return found


def respell(widget: dict[str, str], old: str, new: str) -> None:
    assert old in widget["Fn::Sub"]
    widget["Fn::Sub"] = widget["Fn::Sub"].replace(old, new)


def in_properties(**changed: Any) -> Mistake:
    return lambda resource: resource["Properties"].update(changed)


def without(*names: str) -> Mistake:
    return lambda resource: [resource["Properties"].pop(name) for name in names]


def in_statement(index: int, **changed: Any) -> Mistake:
    return lambda resource: statement(resource, index).update(changed)


PLANTED: list[tuple[rules.Rule, str, Mistake, str]] = [
    (
        rules.capacity_providers_exist,
        "Cluster",
        in_properties(CapacityProviders=["FARGATE", "FARGATE-SPOT"]),
        "FARGATE-SPOT is no",
    ),
    (
        rules.capacity_providers_exist,
        "Cluster",
        in_properties(DefaultCapacityProviderStrategy=[{"CapacityProvider": "FARGATE_SPT"}]),
        "FARGATE_SPT is no",
    ),
    (
        rules.lists_are_lists,
        "FailureQueuePolicy",
        in_properties(Queues={"Ref": "FailureQueue"}),
        "is to be a list",
    ),
    (
        rules.lists_are_lists,
        "WorkerTaskDefinition",
        lambda r: container(r).update(Command={"Fn::Join": [" ", ["prefect", "worker"]]}),
        "is to be a list",
    ),
    (
        rules.services_name_one_way_to_launch,
        "WorkerService",
        in_properties(CapacityProviderStrategy=[{"CapacityProvider": "FARGATE", "Weight": 1}]),
        "has both",
    ),
    (
        rules.secrets_can_be_read,
        "WorkerTaskDefinition",
        without("ExecutionRoleArn"),
        "no execution role",
    ),
    (rules.secrets_can_be_read, "ExecutionRole", without("Policies"), "may not read"),
    (
        rules.no_secret_is_in_plain,
        "WorkerTaskDefinition",
        lambda r: container(r)["Environment"].append({"Name": "PREFECT_API_KEY", "Value": "x"}),
        "PREFECT_API_KEY in plain",
    ),
    (
        rules.dashboards_are_json,
        "Dashboard",
        lambda r: respell(widgets(r)[0], '"type":', '"type'),
        "is broken",
    ),
    (
        rules.dashboards_are_json,
        "Dashboard",
        lambda r: respell(widgets(r)[0], "NetSavings", "NetSaving"),
        "no such metric: NetSaving",
    ),
    (
        rules.dashboards_are_json,
        "Dashboard",
        lambda r: respell(widgets(r)[0], '"Stage"', '"stage"'),
        "published by Stage",
    ),
    (
        rules.dashboards_are_json,
        "Dashboard",
        lambda r: respell(widgets(r)[6], '"metrics":[[', '"metrics":["of",['),
        "to be a list",
    ),
    (
        rules.alarms_watch_what_is_published,
        "InterruptionsSurgeAlarm",
        in_properties(MetricName="Interruptions"),
        "no such metric",
    ),
    (
        rules.alarms_watch_what_is_published,
        "NetSavingNegativeAlarm",
        in_properties(Dimensions=[{"Name": "Stage", "Value": "dev"}]),
        "published by Stage",
    ),
    (
        rules.alarms_watch_what_is_published,
        "EventNotHandledAlarm",
        in_properties(AlarmActions=[]),
        "tells nobody",
    ),
    (rules.no_wildcard_action, "FlowRole", in_statement(0, Action="*"), "allows *"),
    (rules.no_wildcard_action, "FlowRole", in_statement(0, Action=["s3:*"]), "allows s3:*"),
    (rules.no_wildcard_resource, "FlowRole", in_statement(0, Resource="*"), "s3:GetObject on *"),
    (
        rules.no_wildcard_resource,
        "WorkerRole",
        in_statement(2, Action="ecs:DeleteTaskDefinitions"),
        "every family",
    ),
    (rules.nobody_from_outside, "FailureQueuePolicy", in_statement(1, Condition={}), "anybody"),
    (
        rules.nobody_connects_from_outside,
        "SecurityGroup",
        in_properties(SecurityGroupIngress=[{"IpProtocol": "-1", "CidrIp": "0.0.0.0/0"}]),
        "connections in",
    ),
    (
        rules.services_are_let_in_for_this_account_only,
        "FailureQueuePolicy",
        in_statement(0, Condition={}),
        "for any account",
    ),
    (
        rules.roles_are_passed_to_ecs_only,
        "WorkerRole",
        in_statement(-1, Condition={}),
        "to any service",
    ),
    (
        rules.roles_are_passed_to_ecs_only,
        "WorkerRole",
        in_statement(-1, Resource="arn:aws:iam::123456789012:role/*"),
        "passes any role",
    ),
    (
        rules.roles_are_assumed_by_tasks_of_this_account,
        "FlowRole",
        lambda r: r["Properties"]["AssumeRolePolicyDocument"]["Statement"][0].pop("Condition"),
        "from any account",
    ),
]


@pytest.mark.parametrize(
    ("rule", "logical_id", "plant", "complaint"),
    PLANTED,
    ids=[f"{rule.__name__} in {where}: {said}" for rule, where, _, said in PLANTED],
)
def test_rule_notices_a_planted_mistake(
    rule: rules.Rule, logical_id: str, plant: Mistake, complaint: str
) -> None:
    template = stack.template()
    plant(template["Resources"][logical_id])
    found = rule(stack.resources(template, stack.parameters()))
    assert any(complaint in said for said in found), found


def test_every_rule_has_a_planted_mistake() -> None:
    assert {rule for rule, *_ in PLANTED} == set(rules.RULES)
