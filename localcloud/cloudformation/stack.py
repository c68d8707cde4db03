"""A stack, what it is to be, and what AWS refuses before it begins."""

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
    """Roles with names of their own need a capability."""

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
    """A stack and its life so far. `made` is in the order of making.

    `timeout_minutes`: its creation's limit, None for none.
    """

    id: str
    name: str
    wanted: Wanted
    timeout_minutes: int | None = None
    status: str = ""
    reason: str = ""
    created_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    made: dict[str, Made] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    def note(self, status: str, reason: str = "", logical_id: str = "", physical: str = "") -> None:
        """Record an event; one without a logical id is the stack's own, and its new status."""
        if logical_id in self.made:
            kind = self.made[logical_id].type
        elif logical_id:
            kind = self.wanted.template["Resources"].get(logical_id, {}).get("Type", "")
        else:
            kind, physical, self.status, self.reason = _STACK_TYPE, self.id, status, reason
        event = {
            "StackId": self.id,
            "StackName": self.name,
            "EventId": str(uuid.uuid4()),
            "LogicalResourceId": logical_id or self.name,
            "PhysicalResourceId": physical,
            "ResourceType": kind,
            "ResourceStatus": status,
            "Timestamp": datetime.now(UTC),
        }
        self.events.append({**event, "ResourceStatusReason": reason} if reason else event)


def check(wanted: Wanted, capabilities: list[str]) -> None:
    """Refuse what AWS refuses at once."""
    template, given = wanted.template, wanted.parameters
    declared = template.get("Parameters", {})
    missing, unknown = ", ".join(declared.keys() - given), ", ".join(given.keys() - declared)
    if missing:
        raise ValidationError(message=f"Parameters: [{missing}] must have values")
    if unknown:
        raise ValidationError(message=f"Parameters: [{unknown}] do not exist in the template")
    for name, rule in declared.items():
        if given[name] not in rule.get("AllowedValues", [given[name]]):
            raise ValidationError(message=f"Parameter '{name}' must be one of AllowedValues")
        pattern = rule.get("AllowedPattern", ".*")
        if not re.fullmatch(pattern, given[name], re.DOTALL):
            raise ValidationError(message=f"Parameter '{name}' must match pattern {pattern}")
    makes_roles = any(r["Type"] == "AWS::IAM::Role" for r in template["Resources"].values())
    if makes_roles and "CAPABILITY_NAMED_IAM" not in capabilities:
        raise InsufficientCapabilitiesError
