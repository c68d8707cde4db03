"""What cfn-lint lets pass, and AWS, or an attacker, would not.

Each rule takes the resources as they would be made and returns its complaints; one mistake per
rule is planted in test_stack_template.py.
"""

import json
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import cfnlint

from tests.unit.stack_template import Resources

Rule = Callable[[Resources], list[str]]

CAPACITY_PROVIDERS: Final = {"FARGATE", "FARGATE_SPOT"}

METRICS: Final = {
    "SpotInterruptions",
    "SpotReruns",
    "OnDemandReruns",
    "NotRerun",
    "ReactionSeconds",
    "TaskCost",
    "OnDemandEquivalentCost",
    "Savings",
    "WastedCost",
    "NetSavings",
    "WastedSeconds",
}
"""What the Lambdas publish, each by Stage and WorkPool, and by Stage, WorkPool and Deployment."""

OPEN_FAMILIES: Final = ("ecs:RegisterTaskDefinition", "ecs:RunTask")
"""On any family: deployments may name their own. RunTask is held to the cluster instead."""


def capacity_providers_exist(resources: Resources) -> list[str]:
    """A misspelt one fails only when the stack is made."""
    named = [p for _, p in find(resources, "CapacityProvider")]
    for _, providers in find(resources, "CapacityProviders"):
        named += providers
    return [f"{name} is no capacity provider" for name in named if name not in CAPACITY_PROVIDERS]


def lists_are_lists(resources: Resources) -> list[str]:
    """What a function returns is not always what the property wants: a Join is no Split."""
    wanted = ("Subnets", "SecurityGroups", "Command", "CapacityProviders", "Queues", "AlarmActions")
    return [
        f"{name} of {where} is {value!r}: it is to be a list"
        for name in wanted
        for where, value in find(resources, name)
        if not isinstance(value, list)
    ]


def services_name_one_way_to_launch(resources: Resources) -> list[str]:
    """ECS refuses a launch type together with a strategy."""
    return [
        f"{where} has both LaunchType and CapacityProviderStrategy"
        for where, service in of_type(resources, "AWS::ECS::Service")
        if {"LaunchType", "CapacityProviderStrategy"} <= set(service)
    ]


def secrets_can_be_read(resources: Resources) -> list[str]:
    """ECS reads secrets with the execution role, which needs the right to just these."""
    found = []
    roles = dict(of_type(resources, "AWS::IAM::Role"))
    for where, definition in of_type(resources, "AWS::ECS::TaskDefinition"):
        for container in definition["ContainerDefinitions"]:
            for secret in container.get("Secrets", []):
                role_arn = definition.get("ExecutionRoleArn", "")
                role = next((r for name, r in roles.items() if role_arn.endswith(name)), None)
                if role is None:
                    found.append(f"{where} has secrets, and no execution role to read them")
                elif secret["ValueFrom"] not in _readable(role):
                    found.append(f"{where}: its execution role may not read {secret['ValueFrom']}")
    return found


def no_secret_is_in_plain(resources: Resources) -> list[str]:
    """A credential comes from SSM, never through the environment."""
    secret = ("KEY", "AUTH_STRING", "PASSWORD", "TOKEN", "SECRET")
    return [
        f"{where} has {variable['Name']} in plain"
        for where, environment in find(resources, "Environment")
        for variable in environment
        if any(word in variable["Name"] for word in secret)
    ]


def dashboards_are_json(resources: Resources) -> list[str]:
    """CloudWatch shows a broken body as nothing, and a wrong metric as an empty chart."""
    found = []
    for where, dashboard in of_type(resources, "AWS::CloudWatch::Dashboard"):
        try:
            widgets = json.loads(dashboard["DashboardBody"])["widgets"]
        except (ValueError, KeyError, TypeError) as error:
            found.append(f"{where} is broken: {error!r}")
            continue
        for widget in widgets:
            title = widget["properties"]["title"]
            lines = widget["properties"]["metrics"]
            if not all(isinstance(line, list) for line in lines):
                found.append(f"{where}: each metric of {title!r} is to be a list")
                continue
            ours = [line for line in lines if line[0] == "PrefectSpot"]
            found += [f"{where}: no such metric: {m[1]}" for m in ours if m[1] not in METRICS]
            found += [
                f"{where}: {m[1]} is published by Stage and WorkPool"
                for m in ours
                if (m[2::2][:2], len(m) // 2) != (["Stage", "WorkPool"], 3)
            ]
    return found


def alarms_watch_what_is_published(resources: Resources) -> list[str]:
    """An alarm on a metric that nobody publishes never rings."""
    found = []
    for where, alarm in of_type(resources, "AWS::CloudWatch::Alarm"):
        if not alarm.get("AlarmActions"):
            found.append(f"{where} tells nobody")
        if alarm.get("Namespace") != "PrefectSpot":
            continue
        if alarm["MetricName"] not in METRICS:
            found.append(f"{where}: no such metric: {alarm['MetricName']}")
        if [d["Name"] for d in alarm["Dimensions"]] != ["Stage", "WorkPool"]:
            found.append(f"{where}: {alarm['MetricName']} is published by Stage and WorkPool")
    return found


def no_wildcard_action(resources: Resources) -> list[str]:
    """Nobody needs all actions, not even of one service."""
    return [
        f"{where} allows {action}"
        for where, statement in allowed(resources)
        for action in as_list(statement["Action"])
        if "*" in action
    ]


def no_wildcard_resource(resources: Resources) -> list[str]:
    """`*` only where the action takes no resource; a family or a path may stay open if listed."""
    found = []
    for where, statement in allowed(resources):
        for action in as_list(statement["Action"]):
            for resource in as_list(statement.get("Resource", [])):
                if resource == "*" and takes_a_resource(action):
                    found.append(f"{where} allows {action} on *")
                open_family = fnmatchcase(resource, "*:task-definition/[*]:[*]")
                if open_family and action not in OPEN_FAMILIES:
                    found.append(f"{where} allows {action} on every family")
    return found


def nobody_from_outside(resources: Resources) -> list[str]:
    """A principal `*` only where a condition holds it to this account."""
    return [
        f"{where} lets anybody in"
        for where, statement in allowed(resources)
        if "*" in as_list(statement.get("Principal", {}), into="AWS")
        and "aws:PrincipalAccount" not in statement.get("Condition", {}).get("StringEquals", {})
    ]


def nobody_connects_from_outside(resources: Resources) -> list[str]:
    """The worker and the flows listen to nobody."""
    return [
        f"{where} lets connections in"
        for where, group in of_type(resources, "AWS::EC2::SecurityGroup")
        if group.get("SecurityGroupIngress")
    ]


def services_are_let_in_for_this_account_only(resources: Resources) -> list[str]:
    """Without the condition, a service could be talked into it by another account."""
    return [
        f"{where} lets {statement['Principal']['Service']} in for any account"
        for where, statement in allowed(resources)
        if "Service" in statement.get("Principal", {})
        and "aws:SourceAccount" not in statement.get("Condition", {}).get("StringEquals", {})
    ]


def roles_are_passed_to_ecs_only(resources: Resources) -> list[str]:
    """Who may pass a role to any service has that role's rights, and more."""
    found = []
    for where, statement in allowed(resources):
        if "iam:PassRole" not in as_list(statement["Action"]):
            continue
        condition = statement.get("Condition", {}).get("StringEquals", {})
        if condition.get("iam:PassedToService") != "ecs-tasks.amazonaws.com":
            found.append(f"{where} passes roles to any service")
        if any("*" in resource for resource in as_list(statement["Resource"])):
            found.append(f"{where} passes any role")
    return found


def roles_are_assumed_by_tasks_of_this_account(resources: Resources) -> list[str]:
    """Without the condition, ECS could be talked into it by another account."""
    return [
        f"{where} can be assumed by {statement['Principal']}, from any account"
        for where, role in of_type(resources, "AWS::IAM::Role")
        for statement in role["AssumeRolePolicyDocument"]["Statement"]
        if statement["Principal"] != {"Service": "ecs-tasks.amazonaws.com"}
        or "aws:SourceAccount" not in statement.get("Condition", {}).get("StringEquals", {})
    ]


RULES: Final[tuple[Rule, ...]] = (
    capacity_providers_exist,
    lists_are_lists,
    services_name_one_way_to_launch,
    secrets_can_be_read,
    no_secret_is_in_plain,
    dashboards_are_json,
    alarms_watch_what_is_published,
    no_wildcard_action,
    no_wildcard_resource,
    nobody_from_outside,
    nobody_connects_from_outside,
    services_are_let_in_for_this_account_only,
    roles_are_passed_to_ecs_only,
    roles_are_assumed_by_tasks_of_this_account,
)


def of_type(resources: Resources, name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for logical_id, resource in resources.items():
        if resource["Type"] == name:
            yield logical_id, resource["Properties"]


def find(value: Any, name: str, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value called `name`, anywhere below, with the resource it is in."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key == name:
                yield where, inner
            yield from find(inner, name, where or key)
    elif isinstance(value, list):
        for inner in value:
            yield from find(inner, name, where)


def allowed(resources: Resources) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every statement that allows, but for those that say who may assume a role."""
    for where, document in find(resources, "PolicyDocument"):
        for statement in document["Statement"]:
            if statement["Effect"] == "Allow":
                yield where, statement


def as_list(value: Any, into: str = "") -> list[Any]:
    if isinstance(value, dict):
        return as_list(value.get(into, []))
    return value if isinstance(value, list) else [value]


def takes_a_resource(action: str) -> bool:
    """Return whether the action can be held to a resource, as AWS's own tables say."""
    service, name = action.lower().split(":")
    return bool(_ACTIONS[service]["Actions"][name].get("Resources"))


def _readable(role: dict[str, Any]) -> list[str]:
    return [
        parameter
        for policy in role.get("Policies", [])
        for statement in policy["PolicyDocument"]["Statement"]
        if "ssm:GetParameters" in as_list(statement["Action"])
        for parameter in as_list(statement["Resource"])
    ]


_TABLES: Final = Path(cfnlint.__file__).parent / "data" / "AdditionalSpecs" / "Policies.json"
_ACTIONS: Final[dict[str, Any]] = json.loads(_TABLES.read_text())
