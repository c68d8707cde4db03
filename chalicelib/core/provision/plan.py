"""The plan that leads from what there is to what is desired.

Each call takes one step with the stack, since CloudFormation takes minutes and no Lambda waits for
it; what is not in the stack is corrected whenever it differs. A plan may stop anywhere: the next
call plans again. The work pool comes first: whether Prefect takes it is known before anything is
created.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from chalicelib.core.provision import model, problems
from chalicelib.core.provision.concurrency import Concurrency, concurrency_steps
from chalicelib.core.provision.model import ProvisionState, Stack, StackDefinition
from chalicelib.core.provision.pool_template import (
    Template,
    Values,
    WorkPool,
    fixed_capacity,
    merged,
    role_names,
    roles_in,
    strangers_roles,
)
from chalicelib.core.provision.problems import Problem as Problem


@dataclass(frozen=True, slots=True)
class Network:
    """The VPC and the subnets that worker and flows run in."""

    vpc_id: str
    subnet_ids: tuple[str, ...]


ARNS: Final[Mapping[str, str]] = {
    "ApiKeyParameterArn": "PREFECT_API_KEY_PARAMETER",
    "AuthStringParameterArn": "PREFECT_API_AUTH_STRING_PARAMETER",
    "CustomHeadersParameterArn": "PREFECT_CUSTOM_HEADERS_PARAMETER",
    "CaCertificateParameterArn": "PREFECT_CA_CERTIFICATE_PARAMETER",
}
"""Placeholders of the pool's template, by the settings that name the SSM parameters."""


@dataclass(frozen=True, slots=True)
class Desired:
    """What is desired: the user's settings, and the templates that are shipped.

    `is_full`: cluster, worker and work pool, then the only one, are ours to provide. `parameters`
    are the stack's, VPC and subnets as they are set. `secrets`: the names of SSM parameters, by the
    settings that name them. `vpc_id`, `subnet_ids`: empty where they are looked up.
    `functions`: ours, by their names in Lambda, whose logs are kept for `log_retention_days`.
    `ends_runs`: as of the stage's `Mode`. `roles_arn`: that of a role, up to its name.
    `concurrency`: what to reserve for which of them. `architecture`: of worker and flows.
    """

    is_full: bool
    stack_name: str
    template: Mapping[str, Any]
    parameters: Mapping[str, str]
    secrets: Mapping[str, str]
    vpc_id: str
    subnet_ids: tuple[str, ...]
    assign_public_ip: bool
    use_spot: bool
    work_pools: tuple[str, ...]
    pool_template: Template
    functions: tuple[str, ...]
    ends_runs: bool = True
    log_retention_days: int = 30
    concurrency: Mapping[str, int] = field(default_factory=dict)
    roles_arn: str = ""
    architecture: str = "x86_64"


@dataclass(frozen=True, slots=True)
class Observed:
    """What there is. None: there is none, or it could not be read, as `problems` says.

    `arns`: the SSM parameters', by those settings. `has_service_linked_role` matters only where
    there is no stack yet. `retentions`: days by the functions' log groups that there are, None for
    ever. `warnings`: what stands in no way.
    """

    stack: Stack | None = None
    network: Network | None = None
    arns: Mapping[str, str] = field(default_factory=dict)
    work_pools: tuple[WorkPool, ...] = ()
    deliveries: tuple[model.Delivery, ...] = ()
    has_service_linked_role: bool = True
    retentions: Mapping[str, int | None] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    concurrency: Concurrency = field(default_factory=Concurrency)
    warnings: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """The steps of one call, and the state once they are done, whatever the warnings say."""

    state: ProvisionState
    steps: tuple[model.Step, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()


def plan(desired: Desired, observed: Observed) -> Plan:
    """Return what this call has to do; no steps where all is up to date.

    With a problem, nothing is changed but what a deploy takes away (dead-letter queues, retries,
    failure destinations, reserved concurrency), and how long the functions' logs are kept, which
    comes last: it stands in the way of nothing. With another's stack in the way, nothing at all.
    """
    stage = desired.parameters[model.STAGE_PARAMETER]
    if foreign := problems.foreign(observed.stack, stage):
        return Plan(ProvisionState.BLOCKED, (), (*observed.problems, *foreign))
    planned = _plan(desired, observed)
    reserve, short = concurrency_steps(desired.concurrency, observed.concurrency)
    retention = model.retention_steps(observed.retentions, desired.log_retention_days)
    return replace(
        planned,
        steps=(*planned.steps, *(reserve if _failure_queue(observed.stack) else ()), *retention),
        warnings=(
            *(*planned.warnings, *observed.warnings),
            *([Problem("Concurrency", *short)] if short else ()),
        ),
    )


def _plan(desired: Desired, observed: Observed) -> Plan:
    queue_arn = _failure_queue(observed.stack)
    deliveries = model.delivery_steps(observed.deliveries, queue_arn) if queue_arn else ()
    ours, flaws = _pool_plan(desired, observed)
    if observed.problems:
        found = (*observed.problems, *flaws, *problems.failed(observed.stack))
        return Plan(ProvisionState.BLOCKED, deliveries, found)
    planned = _stack_plan(desired, observed)
    planned = replace(planned, steps=(*planned.steps, *deliveries))
    comes_first = not _exists(observed.stack)
    if planned.state is not ProvisionState.READY and not comes_first:
        return planned
    if flaws and comes_first and not desired.is_full:
        return replace(planned, warnings=flaws)
    if flaws:
        return Plan(ProvisionState.BLOCKED, deliveries, flaws)
    # Before the rest is created it shows that URL, key, role and plan are the right ones.
    steps = (*ours, *planned.steps) if comes_first else (*planned.steps, *ours)
    return replace(planned, steps=steps)


def _pool_plan(
    desired: Desired, observed: Observed
) -> tuple[tuple[model.Step, ...], tuple[Problem, ...]]:
    """Return the steps with the work pool, and what in its template keeps us from them."""
    if not desired.is_full:
        return (), tuple(flaw for pool in observed.work_pools for flaw in _fixed(pool))
    template = observed.work_pools[0].base_job_template if observed.work_pools else {}
    if roles := strangers_roles(template, desired.stack_name):
        what = f"gives flows roles of another stack: {', '.join(roles)}"
        next_step = "set WORK_POOL to a name that is free, or empty task_role_arn and"
        next_step += " execution_role_arn in the pool's settings to hand it over"
    else:
        try:
            return _pool_steps(desired, observed), ()
        except ValueError as error:
            what = f"cannot be completed: {error}"
            next_step = "reset it in the pool's settings, or set WORK_POOL to another pool"
    return (), (_flaw(desired.work_pools[0], what, next_step),)


def _fixed(pool: WorkPool) -> tuple[Problem, ...]:
    """Return what in the user's own template keeps runs from being moved."""
    if not (fixed := fixed_capacity(pool.base_job_template)):
        return ()
    what = f"sets {' and '.join(fixed)} itself: runs cannot be moved to FARGATE"
    assignments = " and ".join(f"{field} to {value}" for field, value in fixed.items())
    return (_flaw(pool.name, what, f"set {assignments} in its task_run_request"),)


def _flaw(pool: str, what: str, next_step: str) -> Problem:
    what = f"the base job template of work pool {pool!r} {what}"
    return Problem("WorkPool", what, next_step=next_step)


def stack_definition(desired: Desired, network: Network | None) -> StackDefinition:
    """Return the stack that is desired; without a network its parameters are empty."""
    network = network or Network("", ())
    place = {"VpcId": network.vpc_id, "SubnetIds": ",".join(network.subnet_ids)}
    body = json.dumps(desired.template, separators=(",", ":"), ensure_ascii=False)
    parameters = {**desired.parameters, **place}
    return StackDefinition(desired.stack_name, body, hash_of(desired.template), parameters)


def hash_of(template: Mapping[str, Any]) -> str:
    """Return a template's hash, whatever its spacing and the order of its keys."""
    canonical = json.dumps(template, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def _failure_queue(stack: Stack | None) -> str:
    """The queue's ARN; empty where the stack has none, or is being deleted."""
    if stack is None or stack.status in model.BROKEN or stack.status.startswith("DELETE_"):
        return ""
    return stack.outputs.get("FailureQueueArn", "")


def _exists(stack: Stack | None) -> bool:
    return stack is not None and not stack.is_gone


def _stack_plan(desired: Desired, observed: Observed) -> Plan:
    definition = stack_definition(desired, observed.network)
    stack, state = observed.stack, model.state_of(observed.stack)
    if stack is None or stack.is_gone:
        # The stack comes with the next call: IAM needs a moment until ECS sees a new role.
        if desired.is_full and not observed.has_service_linked_role:
            return Plan(state, (model.CreateServiceLinkedRole(),))
        return Plan(state, (model.CreateStack(definition),))
    failed, waits = problems.failed(stack), problems.waits(stack)
    if state is ProvisionState.FAILED:
        return Plan(state, (), (*failed, problems.stuck(stack)))
    if stack.status in model.BROKEN:
        reason = f"it is in {stack.status} and will be created anew"
        state = ProvisionState.PENDING if waits else state
        return Plan(state, (model.DeleteStack(stack.id, stack.name, reason),), failed, waits)
    if stack.is_busy:
        return Plan(ProvisionState.PENDING if waits else state, (), failed, waits)
    differs = _differences(stack, definition)
    if not differs and state is ProvisionState.READY:
        return Plan(state)
    state = ProvisionState.RECOVERING if failed else ProvisionState.UPDATING
    reason = differs or f"it is in {stack.status}"
    return Plan(state, (model.UpdateStack(stack.id, definition, reason),), failed)


def _differences(stack: Stack, definition: StackDefinition) -> str:
    """Name what differs; empty where nothing does."""
    given, wanted = stack.parameters, definition.parameters
    names = sorted(n for n in {*given, *wanted} if given.get(n) != wanted.get(n))
    if stack.template_hash != definition.template_hash:
        names.insert(0, "template")
    return f"changed: {', '.join(names)}" if names else ""


def _pool_steps(desired: Desired, observed: Observed) -> tuple[model.Step, ...]:
    [name], stack = desired.work_pools, observed.stack
    pool = next(iter(observed.work_pools), None)
    current = pool.base_job_template if pool else {}
    launch_type = "FARGATE_SPOT" if desired.use_spot else "FARGATE"
    # Until there are outputs, what they will be, but for a security group of the stack's own: the
    # worker starts minutes before that is read, and its first flows run in the VPC's default group.
    outputs = {
        "ClusterName": "",
        **stack_definition(desired, observed.network).parameters,
        **{name: desired.roles_arn + of for name, of in role_names(desired.stack_name).items()},
        "LogGroupName": f"/ecs/{desired.stack_name}",
        **(stack.outputs if stack and _exists(stack) else {}),
    }
    values: Values = {
        **outputs,
        **{
            name: [each for each in outputs.get(name, "").split(",") if each]
            for name in ("SubnetIds", "SecurityGroupIds")
        },
        "CpuArchitecture": desired.architecture.upper(),  # ECS: ARM64, X86_64
        "AssignPublicIp": "ENABLED" if desired.assign_public_ip else "DISABLED",
        **{name: observed.arns.get(setting, "") for name, setting in ARNS.items()},
    }
    template = merged(
        current, desired.pool_template, values, launch_type, ends_runs=desired.ends_runs
    )
    if pool is None:
        return (model.CreateWorkPool(name, template),)
    if not _exists(stack) and not roles_in(current):
        # Another worker may use it by now: written as it is, it only shows whether we may.
        return (model.ChangeWorkPool(pool.name, current),)
    return () if template == current else (model.ChangeWorkPool(pool.name, template),)
