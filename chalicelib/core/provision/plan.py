"""What shall be and what is, and the plan that leads from one to the other.

`functions/provision.py` gathers both, and either performs the plan or only shows it. Each call goes
one step with the stack, since CloudFormation takes minutes and no Lambda waits for it; what is not
in the stack is put right whenever it differs. A plan may be broken off anywhere: the next call
plans again from what is then.

Its price: what fails is tried again with every call, by schedule. A stack that cannot be created
comes and goes until somebody reads why.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, assert_never

from chalicelib.core.provision.dead_letters import Delivery, delivery_steps
from chalicelib.core.provision.mode import Provision
from chalicelib.core.provision.pool_template import Template, Values, WorkPool, merged
from chalicelib.core.provision.stack import Condition, Stack, Standing, standing_of
from chalicelib.core.provision.steps import (
    ChangeWorkPool,
    CreateServiceLinkedRole,
    CreateStack,
    CreateWorkPool,
    DeleteStack,
    StackDefinition,
    Step,
    UpdateStack,
)
from chalicelib.errors import in_one_line


@dataclass(frozen=True, slots=True)
class Network:
    """Where worker and flows live."""

    vpc_id: str
    subnet_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Credential:
    """The SSM parameter with Prefect's credential; `arn` once it has been looked up."""

    parameter: str
    setting: str
    is_api_key: bool


@dataclass(frozen=True, slots=True)
class Desired:
    """What shall be: the user's settings, and the data that is shipped.

    `parameters` are the stack's, but for VPC and subnets. `vpc_id`, `subnet_ids`: empty where they
    are to be looked up. `functions`: ours, by their names in Lambda.
    """

    provision: Provision
    stack_name: str
    template: Mapping[str, Any]
    parameters: Mapping[str, str]
    credential: Credential | None
    vpc_id: str
    subnet_ids: tuple[str, ...]
    assign_public_ip: bool
    use_spot: bool
    work_pool: str
    pool_template: Template
    functions: tuple[str, ...]

    @property
    def is_full(self) -> bool:
        """Whether cluster, worker and work pool are ours to provide."""
        return self.provision is Provision.FULL


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that stands in the way, with the next step. `name` is its error's."""

    name: str
    what: str
    next_step: str

    @property
    def message(self) -> str:
        """Both in one line."""
        return in_one_line(self.what, self.next_step)


@dataclass(frozen=True, slots=True)
class Observed:
    """What is. None: there is none, or it was not asked for; `problems` tells which.

    `has_service_linked_role` matters only where there is no stack yet.
    """

    stack: Stack | None = None
    network: Network | None = None
    credential_arn: str = ""
    work_pool: WorkPool | None = None
    deliveries: tuple[Delivery, ...] = ()
    has_service_linked_role: bool = True
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one call, and where it all stands once they are done."""

    condition: Condition
    steps: tuple[Step, ...] = ()
    problems: tuple[Problem, ...] = ()


def plan(desired: Desired, observed: Observed) -> Plan:
    """Return what this call has to do; no steps where it is up to date.

    A problem keeps everything from being changed but the functions' own delivery.
    """
    queue_arn = _failure_queue(observed.stack)
    deliveries = delivery_steps(observed.deliveries, queue_arn) if queue_arn else ()
    if observed.problems:
        failed = _failed(observed.stack) if observed.stack else ()
        return Plan(Condition.BLOCKED, deliveries, (*observed.problems, *failed))
    course = _course(desired, observed)
    course = replace(course, steps=(*course.steps, *deliveries))
    if course.condition is not Condition.READY:
        return course
    try:
        return replace(course, steps=(*course.steps, *_pool_steps(desired, observed)))
    except ValueError as error:
        problem = Problem(
            "WorkPool",
            f"the base job template of work pool {desired.work_pool!r} cannot be completed:"
            f" {error}",
            next_step="reset it in the pool's settings, or set WORK_POOL to another pool",
        )
        return replace(course, condition=Condition.BLOCKED, problems=(problem,))


def stack_definition(desired: Desired, network: Network | None) -> StackDefinition:
    """Return what the stack shall be; without a network its parameters are empty."""
    network = network or Network("", ())
    parameters = {
        **desired.parameters,
        "VpcId": network.vpc_id,
        "SubnetIds": ",".join(network.subnet_ids),
    }
    body = json.dumps(desired.template, separators=(",", ":"), ensure_ascii=False)
    return StackDefinition(desired.stack_name, body, hash_of(desired.template), parameters)


def hash_of(template: Mapping[str, Any]) -> str:
    """Return a template's hash, whatever its spacing and the order of its keys."""
    canonical = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _failure_queue(stack: Stack | None) -> str:
    """The queue's ARN, empty where there is none that lasts."""
    standing, condition = standing_of(stack)
    is_lasting = standing not in (Standing.ABSENT, Standing.BROKEN)
    if stack is None or not is_lasting or condition is Condition.DELETING:
        return ""
    return stack.outputs.get("FailureQueueArn", "")


def _course(desired: Desired, observed: Observed) -> Plan:
    """What the stack alone asks for."""
    definition = stack_definition(desired, observed.network)
    stack = observed.stack
    standing, condition = standing_of(stack)
    if stack is None or standing is Standing.ABSENT:
        # Alone: IAM needs a moment until others see a new role.
        if desired.is_full and not observed.has_service_linked_role:
            return Plan(condition, (CreateServiceLinkedRole(),))
        return Plan(condition, (CreateStack(definition),))
    failed = _failed(stack)
    match standing:
        case Standing.BUSY:
            return Plan(condition, (), failed)
        case Standing.BROKEN:
            reason = f"it is in {stack.status}, to be created anew"
            return Plan(condition, (DeleteStack(stack.id, stack.name, reason),), failed)
        case Standing.STUCK:
            return Plan(condition, (), (*failed, _stuck(stack)))
        case Standing.SETTLED | Standing.HALF_UPDATED:
            differs = _differences(stack, definition)
            if standing is Standing.HALF_UPDATED:
                differs = differs or f"it is in {stack.status}"
            if not differs:
                return Plan(Condition.READY)
            if not stack.is_ours:
                return Plan(Condition.BLOCKED, (), (_not_ours(stack),))
            condition = Condition.RECOVERING if failed else Condition.UPDATING
            return Plan(condition, (UpdateStack(stack.id, definition, differs),), failed)
        case _:
            assert_never(standing)


def _differences(stack: Stack, definition: StackDefinition) -> str:
    """Say in what a stack differs, empty when in nothing."""
    given, wanted = stack.parameters, definition.parameters
    changed = sorted(n for n in {*given, *wanted} if given.get(n) != wanted.get(n))
    new_template = ["template"] if stack.template_hash != definition.template_hash else []
    names = [*new_template, *changed]
    return f"changed: {', '.join(names)}" if names else ""


def _pool_steps(desired: Desired, observed: Observed) -> tuple[Step, ...]:
    if not desired.is_full or observed.stack is None:
        return ()
    pool = observed.work_pool
    current = pool.base_job_template if pool else {}
    launch_type = "FARGATE_SPOT" if desired.use_spot else "FARGATE"
    values = _pool_values(desired, observed, observed.stack.outputs)
    template = merged(current, desired.pool_template, values, launch_type)
    if pool is None:
        return (CreateWorkPool(desired.work_pool, template),)
    return () if template == current else (ChangeWorkPool(pool.name, template),)


def _pool_values(desired: Desired, observed: Observed, outputs: Mapping[str, str]) -> Values:
    credential, arn = desired.credential, observed.credential_arn
    is_api_key = credential is not None and credential.is_api_key
    return {
        **outputs,
        "SubnetIds": _split(outputs.get("SubnetIds", "")),
        "SecurityGroupIds": _split(outputs.get("SecurityGroupIds", "")),
        "AssignPublicIp": "ENABLED" if desired.assign_public_ip else "DISABLED",
        "ApiKeyParameterArn": arn if is_api_key else "",
        "AuthStringParameterArn": "" if is_api_key else arn,
    }


def _split(names: str) -> tuple[str, ...]:
    return tuple(name for name in names.split(",") if name)


def _failed(stack: Stack) -> tuple[Problem, ...]:
    if not stack.failures:
        return ()
    told = "; ".join(map(str, stack.failures))
    return (
        Problem(
            "StackFailed",
            f"stack {stack.name} is in {stack.status}: {told}",
            next_step="fix what failed; the next run retries",
        ),
    )


def _stuck(stack: Stack) -> Problem:
    remedies = {
        "UPDATE_ROLLBACK_FAILED": "fix what failed, then run: aws cloudformation"
        f" continue-update-rollback --stack-name {stack.name}",
        "REVIEW_IN_PROGRESS": "execute its change set, or delete the stack",
        "IMPORT_ROLLBACK_FAILED": "fix what failed, then roll the import back again",
    }
    step = remedies.get(stack.status, "bring the stack out of this status by hand")
    return Problem("StackStuck", f"stack {stack.name} is in {stack.status}", next_step=step)


def _not_ours(stack: Stack) -> Problem:
    return Problem(
        "StackNotOurs",
        f"stack {stack.name} was not made by prefect-spot, and is left alone",
        next_step="set STACK_NAME to a name that is free",
    )
