"""Hands moto's CloudFormation requests to `operations.py`; each answer is AWS's."""

from collections.abc import Callable
from typing import Any

from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult

from localcloud.cloudformation.operations import CloudFormation
from localcloud.cloudformation.stack import Stack, Wanted

Get = Callable[..., Any]
"""A request's parameter by its name, and a default."""
Action = Callable[[CloudFormation, Get], dict[str, Any] | None]


def connect(cloudformation: CloudFormation | None) -> None:
    """Let requests come to `cloudformation`, or with None to moto's own again."""
    for name, action in _ACTIONS.items():
        ours = _answering(action, cloudformation) if cloudformation else _MOTOS_OWN[name]
        setattr(CloudFormationResponse, name, ours)


def _answering(action: Action, here: CloudFormation) -> Callable[[CloudFormationResponse], Any]:
    return lambda request: ActionResult(action(here, request._get_param))


def _wanted(get: Get) -> Wanted:
    return Wanted(
        body=get("TemplateBody"),
        parameters={p["ParameterKey"]: p["ParameterValue"] for p in get("Parameters", [])},
        tags={tag["Key"]: tag["Value"] for tag in get("Tags", [])},
    )


def _described(stack: Stack) -> dict[str, Any]:
    described = {
        "StackId": stack.id,
        "StackName": stack.name,
        "StackStatus": stack.status,
        "CreationTime": stack.created_at,
        "Description": stack.wanted.template.get("Description", ""),
        "Parameters": [
            {"ParameterKey": name, "ParameterValue": value}
            for name, value in stack.wanted.parameters.items()
        ],
        "Outputs": [
            {"OutputKey": name, "OutputValue": value} for name, value in stack.outputs.items()
        ],
        "Tags": stack.wanted.tags,  # moto writes the list
    }
    if stack.timeout_minutes:
        described["TimeoutInMinutes"] = stack.timeout_minutes
    return {**described, "StackStatusReason": stack.reason} if stack.reason else described


def _resources(stack: Stack) -> list[dict[str, Any]]:
    latest = {event["LogicalResourceId"]: event for event in stack.events}
    return [
        {
            "StackId": stack.id,
            "StackName": stack.name,
            "LogicalResourceId": logical_id,
            "PhysicalResourceId": made.physical_resource_id,
            "ResourceType": made.type,
            "ResourceStatus": latest[logical_id]["ResourceStatus"],
            "Timestamp": latest[logical_id]["Timestamp"],
        }
        for logical_id, made in list(stack.made.items())
    ]


def _describe_stacks(here: CloudFormation, get: Get) -> dict[str, Any]:
    stacks = [here.stack(get("StackName"))] if get("StackName") else here.stacks()
    return {"Stacks": [_described(stack) for stack in stacks]}


_ACTIONS: dict[str, Action] = {
    "create_stack": lambda here, get: {
        "StackId": here.create(
            get("StackName"), _wanted(get), get("Capabilities", []), get("TimeoutInMinutes")
        )
    },
    "update_stack": lambda here, get: {
        "StackId": here.update(get("StackName"), _wanted(get), get("Capabilities", []))
    },
    "delete_stack": lambda here, get: here.delete(get("StackName")),
    "describe_stacks": _describe_stacks,
    "describe_stack_events": lambda here, get: {
        "StackEvents": here.stack(get("StackName")).events[::-1]
    },
    "describe_stack_resources": lambda here, get: {
        "StackResources": _resources(here.stack(get("StackName")))
    },
    "get_template": lambda here, get: {"TemplateBody": here.stack(get("StackName")).wanted.body},
}
_MOTOS_OWN = {name: getattr(CloudFormationResponse, name) for name in _ACTIONS}
