"""The steps that provisioning is made of: a closed set; `functions/provision.py` performs them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import assert_never

from chalicelib.core.provision.dead_letters import PutInvokeConfig, PutTargets
from chalicelib.core.provision.pool_template import Template


@dataclass(frozen=True, slots=True)
class CreateServiceLinkedRole:
    """ECS's own role, which a new account lacks; the first cluster would fail without it."""


@dataclass(frozen=True, slots=True)
class StackDefinition:
    """All that CloudFormation is told; `template_hash` becomes a tag of the stack."""

    name: str
    template_body: str
    template_hash: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class CreateStack:
    """Begin to create the stack."""

    definition: StackDefinition


@dataclass(frozen=True, slots=True)
class UpdateStack:
    """Begin to update the stack of that id."""

    stack_id: str
    definition: StackDefinition
    reason: str


@dataclass(frozen=True, slots=True)
class DeleteStack:
    """Begin to delete the stack of that id, and never a successor of the same name."""

    stack_id: str
    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class CreateWorkPool:
    """Create the work pool."""

    name: str
    base_job_template: Template


@dataclass(frozen=True, slots=True)
class ChangeWorkPool:
    """Give the work pool a changed base job template; everything else of it stays."""

    name: str
    base_job_template: Template


Step = (
    CreateServiceLinkedRole
    | CreateStack
    | UpdateStack
    | DeleteStack
    | PutTargets
    | PutInvokeConfig
    | CreateWorkPool
    | ChangeWorkPool
)


def describe(step: Step) -> str:
    """Say a step in words, for who reads a plan."""
    match step:
        case CreateServiceLinkedRole():
            return "create ECS's service-linked role"
        case CreateStack(definition):
            return f"create the stack {definition.name}"
        case UpdateStack(_, definition, reason):
            return f"update the stack {definition.name}: {reason}"
        case DeleteStack(_, name, reason):
            return f"delete the stack {name}: {reason}"
        case PutTargets(rule, _):
            return f"put dead-letter queue and retry policy back on the rule {rule}"
        case PutInvokeConfig(function, _):
            return f"put retries and failure destination back on the function {function}"
        case CreateWorkPool(name, _):
            return f"create the work pool {name}"
        case ChangeWorkPool(name, _):
            return f"put our part of the work pool {name}'s base job template back"
        case _:
            assert_never(step)
