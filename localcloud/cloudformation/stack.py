"""A stack, what it is to be, and what AWS refuses before it begins."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moto.cloudformation.exceptions import ValidationError
from moto.core.exceptions import ServiceException

from localcloud.cloudformation.resources import Made

_STACK_TYPE = "AWS::CloudFormation::Stack"


class InsufficientCapabilitiesError(ServiceException):
    """Roles with names of their own are made only by those who say that they know."""

    code = "InsufficientCapabilitiesException"
    message = "Requires capabilities : [CAPABILITY_NAMED_IAM]"


@dataclass(frozen=True)
class Wanted:
    """What a stack is to be."""

    body: str
    parameters: Mapping[str, str]
    tags: Mapping[str, str]

    @property
    def template(self) -> dict[str, Any]:
        """The template, read."""
        read: dict[str, Any] = json.loads(self.body)
        return read


@dataclass
class Stack:
    """A stack and its life so far. `made` is in the order of making."""

    id: str
    name: str
    wanted: Wanted
    status: str = ""
    reason: str = ""
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    made: dict[str, Made] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    def note(self, status: str, reason: str = "", logical_id: str = "", physical: str = "") -> None:
        """Write an event down; one without a logical id is the stack's own, and its new status."""
        kind = _STACK_TYPE
        if logical_id:
            kind = self.wanted.template["Resources"].get(logical_id, {}).get("Type", "")
            kind = self.made[logical_id].type if logical_id in self.made else kind
        else:
            self.status, self.reason = status, reason
        event = {
            "StackId": self.id,
            "StackName": self.name,
            "EventId": str(uuid.uuid4()),
            "LogicalResourceId": logical_id or self.name,
            "PhysicalResourceId": physical if logical_id else self.id,
            "ResourceType": kind,
            "ResourceStatus": status,
            "Timestamp": datetime.now(UTC),
        }
        self.events.append({**event, "ResourceStatusReason": reason} if reason else event)


def check(wanted: Wanted, capabilities: list[str]) -> None:
    """Refuse what AWS refuses at once."""
    template = wanted.template
    declared = template.get("Parameters", {})
    if missing := [name for name in declared if name not in wanted.parameters]:
        raise ValidationError(message=f"Parameters: [{', '.join(missing)}] must have values")
    if unknown := [name for name in wanted.parameters if name not in declared]:
        raise ValidationError(
            message=f"Parameters: [{', '.join(unknown)}] do not exist in the template"
        )
    for name, rule in declared.items():
        value = wanted.parameters[name]
        if value not in rule.get("AllowedValues", [value]):
            raise ValidationError(message=f"Parameter '{name}' must be one of AllowedValues")
        if not re.fullmatch(rule.get("AllowedPattern", ".*"), value, re.DOTALL):
            raise ValidationError(
                message=f"Parameter '{name}' must match pattern {rule['AllowedPattern']}"
            )
    makes_roles = any(r["Type"] == "AWS::IAM::Role" for r in template["Resources"].values())
    if makes_roles and "CAPABILITY_NAMED_IAM" not in capabilities:
        raise InsufficientCapabilitiesError
