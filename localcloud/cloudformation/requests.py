"""Hands moto's CloudFormation requests to `operations.py`; each answer is AWS's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult, EmptyResult

from localcloud.cloudformation.operations import CloudFormation
from localcloud.cloudformation.stack import Stack, Wanted

Action = Callable[[CloudFormation, CloudFormationResponse], Any]


def connect(cloudformation: CloudFormation | None) -> None:
    """Let requests come to `cloudformation`, or with None to moto's own again."""
    for name, action in _ACTIONS.items():
        ours = _answering(action, cloudformation) if cloudformation else _MOTOS_OWN[name]
        setattr(CloudFormationResponse, name, ours)


def _answering(
    action: Action, cloudformation: CloudFormation
) -> Callable[[CloudFormationResponse], Any]:
    return lambda self: action(cloudformation, self)


def _wanted(request: CloudFormationResponse) -> Wanted:
    return Wanted(
        body=request._get_param("TemplateBody"),
        parameters={
            p["ParameterKey"]: p["ParameterValue"] for p in request._get_param("Parameters", [])
        },
        tags={tag["Key"]: tag["Value"] for tag in request._get_param("Tags", [])},
    )


def _create_stack(here: CloudFormation, request: CloudFormationResponse) -> ActionResult:
    stack_id = here.create(
        request._get_param("StackName"),
        _wanted(request),
        request._get_param("Capabilities", []),
    )
    return ActionResult({"StackId": stack_id})


def _update_stack(here: CloudFormation, request: CloudFormationResponse) -> ActionResult:
    stack_id = here.update(
        request._get_param("StackName"), _wanted(request), request._get_param("Capabilities", [])
    )
    return ActionResult({"StackId": stack_id})


def _delete_stack(here: CloudFormation, request: CloudFormationResponse) -> EmptyResult:
    here.delete(request._get_param("StackName"))
    return EmptyResult()


def _describe_stacks(here: CloudFormation, request: CloudFormationResponse) -> ActionResult:
    name = request._get_param("StackName")
    stacks = [here.stack(name)] if name else here.stacks()
    return ActionResult({"Stacks": [_described(stack) for stack in stacks]})


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
    return {**described, "StackStatusReason": stack.reason} if stack.reason else described


def _describe_stack_events(here: CloudFormation, request: CloudFormationResponse) -> ActionResult:
    events = here.stack(request._get_param("StackName")).events
    return ActionResult({"StackEvents": events[::-1]})


def _describe_stack_resources(
    here: CloudFormation, request: CloudFormationResponse
) -> ActionResult:
    stack = here.stack(request._get_param("StackName"))
    latest = {event["LogicalResourceId"]: event for event in stack.events}
    resources = [
        {
            "StackId": stack.id,
            "StackName": stack.name,
            "LogicalResourceId": logical_id,
            "PhysicalResourceId": made.physical_id,
            "ResourceType": made.type,
            "ResourceStatus": latest[logical_id]["ResourceStatus"],
            "Timestamp": latest[logical_id]["Timestamp"],
            "LastUpdatedTimestamp": latest[logical_id]["Timestamp"],
        }
        for logical_id, made in list(stack.made.items())
    ]
    return ActionResult({"StackResources": resources})


def _get_template(here: CloudFormation, request: CloudFormationResponse) -> ActionResult:
    return ActionResult({"TemplateBody": here.stack(request._get_param("StackName")).wanted.body})


_ACTIONS: dict[str, Action] = {
    "create_stack": _create_stack,
    "update_stack": _update_stack,
    "delete_stack": _delete_stack,
    "describe_stacks": _describe_stacks,
    "describe_stack_events": _describe_stack_events,
    "describe_stack_resources": _describe_stack_resources,
    "get_template": _get_template,
}
_MOTOS_OWN = {name: getattr(CloudFormationResponse, name) for name in _ACTIONS}
