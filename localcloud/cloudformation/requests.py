"""Hands moto's CloudFormation requests to `operations.py`; each answer is AWS's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.cloudformation.responses import CloudFormationResponse
from moto.core.responses import ActionResult, EmptyResult

from localcloud.cloudformation.operations import CloudFormation
from localcloud.cloudformation.stack import Stack, Wanted

Action = Callable[[CloudFormationResponse], Any]

_connected: CloudFormation | None = None
_installed = False


def connect(cloudformation: CloudFormation | None) -> None:
    """Let requests come to `cloudformation`, or with None to moto's own again."""
    global _connected
    _connected = cloudformation


def install() -> None:
    """Put our actions before moto's; a second call changes nothing."""
    global _installed
    if _installed:
        return
    _installed = True
    for name, action in _ACTIONS.items():
        _put_before(name, action)


def _put_before(name: str, action: Action) -> None:
    original: Action = getattr(CloudFormationResponse, name)

    def answer(self: CloudFormationResponse) -> Any:
        return (action if _connected else original)(self)

    setattr(CloudFormationResponse, name, answer)


def _there() -> CloudFormation:
    if _connected is None:
        raise RuntimeError("the emulated AWS was closed just now")
    return _connected


def _wanted(self: CloudFormationResponse) -> Wanted:
    return Wanted(
        body=self._get_param("TemplateBody"),
        parameters={
            p["ParameterKey"]: p["ParameterValue"] for p in self._get_param("Parameters", [])
        },
        tags={tag["Key"]: tag["Value"] for tag in self._get_param("Tags", [])},
    )


def _create_stack(self: CloudFormationResponse) -> ActionResult:
    stack_id = _there().create(
        self._get_param("StackName"),
        _wanted(self),
        self._get_param("Capabilities", []),
    )
    return ActionResult({"StackId": stack_id})


def _update_stack(self: CloudFormationResponse) -> ActionResult:
    stack_id = _there().update(
        self._get_param("StackName"), _wanted(self), self._get_param("Capabilities", [])
    )
    return ActionResult({"StackId": stack_id})


def _delete_stack(self: CloudFormationResponse) -> EmptyResult:
    _there().delete(self._get_param("StackName"))
    return EmptyResult()


def _describe_stacks(self: CloudFormationResponse) -> ActionResult:
    name = self._get_param("StackName")
    stacks = [_there().stack(name)] if name else _there().stacks()
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


def _describe_stack_events(self: CloudFormationResponse) -> ActionResult:
    events = _there().stack(self._get_param("StackName")).events
    return ActionResult({"StackEvents": events[::-1]})


def _describe_stack_resources(self: CloudFormationResponse) -> ActionResult:
    return ActionResult({"StackResources": _resources(self)})


def _resources(self: CloudFormationResponse) -> list[dict[str, Any]]:
    stack = _there().stack(self._get_param("StackName"))
    wanted = self._get_param("LogicalResourceId")
    latest = {event["LogicalResourceId"]: event for event in stack.events}
    return [
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
        if wanted in (None, logical_id)
    ]


def _get_template(self: CloudFormationResponse) -> ActionResult:
    return ActionResult({"TemplateBody": _there().stack(self._get_param("StackName")).wanted.body})


_ACTIONS: dict[str, Action] = {
    "create_stack": _create_stack,
    "update_stack": _update_stack,
    "delete_stack": _delete_stack,
    "describe_stacks": _describe_stacks,
    "describe_stack_events": _describe_stack_events,
    "describe_stack_resources": _describe_stack_resources,
    "get_template": _get_template,
}
