"""The `provision` Lambda: brings up all that is needed, and keeps it so, a step per call.

It is called by schedule and by hand, `{"dry_run": true}` only shows what it would do. All questions
are asked before anything is changed. Who calls by hand reads the answer; nobody reads a schedule's,
so there a problem is raised, and the function's alarm tells of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar, assert_never

from chalicelib.core.provision.context import ProvisionContext
from chalicelib.core.provision.dead_letters import PutInvokeConfig, PutTargets
from chalicelib.core.provision.plan import Observed, Plan, Problem, plan
from chalicelib.core.provision.pool_template import POOL_TYPE, WorkPool
from chalicelib.core.provision.stack import Condition, Standing, standing_of
from chalicelib.core.provision.steps import (
    ChangeWorkPool,
    CreateServiceLinkedRole,
    CreateStack,
    CreateWorkPool,
    DeleteStack,
    Step,
    UpdateStack,
    describe,
)
from chalicelib.errors import (
    NotProvisionedError,
    OvertakenError,
    PrefectConflictError,
    PrefectSpotError,
    WorkPoolError,
)

T = TypeVar("T")

_ERROR: Final = "Error"


@dataclass(frozen=True, slots=True)
class ProvisionReport:
    """What a call did, or would do: `steps` in words; `overtaken` those somebody else did first."""

    condition: Condition
    dry_run: bool
    stack_name: str
    stack_status: str
    steps: tuple[str, ...]
    overtaken: tuple[str, ...]
    problems: tuple[Problem, ...]

    @property
    def summary(self) -> Mapping[str, object]:
        """The function's answer.

        `state`: `ready`: up to date. `pending`: to be called again, something had no
        turn yet. `creating`, `updating`, `deleting`, `recovering` (from a failure, which
        `problems` tells): CloudFormation is at it; to be called again. `blocked`, `failed`: a
        person has to do what `problems` says.
        `steps` were done, or with `dry_run` would be. `problems`: each with `error`, its name, and
        `message`, which ends with the next step.
        """
        return {
            "state": self.condition.value,
            "dry_run": self.dry_run,
            "stack": {"name": self.stack_name, "status": self.stack_status},
            "steps": list(self.steps),
            "overtaken": list(self.overtaken),
            "problems": [{"error": p.name, "message": p.message} for p in self.problems],
        }


def provision(context: ProvisionContext, event: object) -> ProvisionReport:
    """Go one step towards what shall be; return where it stands.

    Raises:
        NotProvisionedError: there are problems, and the call came by schedule.
        botocore's errors, where AWS fails or refuses: to be called again.
    """
    dry_run = isinstance(event, Mapping) and bool(event.get("dry_run"))
    observed = _observe(context)
    planned = plan(context.desired, observed)
    overtaken = () if dry_run else _perform_all(context, planned)
    report = ProvisionReport(
        condition=_condition(planned, overtaken, dry_run=dry_run),
        dry_run=dry_run,
        stack_name=context.desired.stack_name,
        stack_status=observed.stack.status if observed.stack else "",
        steps=tuple(describe(step) for step in planned.steps if step not in overtaken),
        overtaken=tuple(map(describe, overtaken)),
        problems=planned.problems,
    )
    context.log.info("provisioned", **report.summary)
    if report.problems and _is_scheduled(event):
        found = "; ".join(f"{problem.name}: {problem.what}" for problem in report.problems)
        raise NotProvisionedError(
            f"{report.condition.value}: {found}",
            next_step="; ".join(problem.next_step for problem in report.problems),
        )
    return report


def _is_scheduled(event: object) -> bool:
    return isinstance(event, Mapping) and event.get("source") == "aws.events"


def _condition(planned: Plan, overtaken: tuple[Step, ...], *, dry_run: bool) -> Condition:
    is_undone = bool(overtaken) or (dry_run and bool(planned.steps))
    return (
        Condition.PENDING
        if is_undone and planned.condition is Condition.READY
        else (planned.condition)
    )


def _observe(context: ProvisionContext) -> Observed:
    """Ask all questions; what has no answer for a reason that we know becomes a problem.

    AWS is asked first: a Prefect that does not answer takes its time.
    """
    desired = context.desired
    problems: list[Problem] = []

    def ask(question: Callable[[], T]) -> T | None:
        try:
            return question()
        except PrefectSpotError as error:
            name = type(error).__name__.removesuffix(_ERROR)
            problems.append(Problem(name, error.what, error.next_step))
            return None

    stack = context.stacks.read(desired.stack_name)
    network = arn = None
    has_role = True
    if desired.is_full:
        network = ask(
            lambda: context.networks.find(
                desired.vpc_id, desired.subnet_ids, assign_public_ip=desired.assign_public_ip
            )
        )
        if standing_of(stack)[0] is Standing.ABSENT:
            has_role = context.service_linked_role.exists()
    credential = desired.credential
    if credential is not None:
        arn = ask(lambda: context.parameters.arn_of(credential))
    deliveries = tuple(context.deliveries.read(name) for name in desired.functions)
    readable = credential is None or arn is not None
    pool = ask(lambda: _work_pool(context)) if readable else None
    return Observed(
        stack=stack,
        network=network,
        credential_arn=arn or "",
        work_pool=pool,
        deliveries=deliveries,
        has_service_linked_role=has_role,
        problems=tuple(problems),
    )


def _work_pool(context: ProvisionContext) -> WorkPool | None:
    """Ask Prefect for the pool, and so whether it can be reached at all."""
    desired = context.desired
    pool = context.work_pools.read(desired.work_pool)
    if pool is None and not desired.is_full:
        raise WorkPoolError(
            f"work pool {desired.work_pool!r} is not known to Prefect",
            next_step="create it, or set WORK_POOL to the pool of your worker",
        )
    if pool is not None and pool.type != POOL_TYPE:
        raise WorkPoolError(
            f"work pool {pool.name!r} is of type {pool.type}, not {POOL_TYPE}",
            next_step=f"create an {POOL_TYPE} pool, or set WORK_POOL",
        )
    return pool


def _perform_all(context: ProvisionContext, planned: Plan) -> tuple[Step, ...]:
    """Perform the steps; return those that somebody else was quicker at."""
    overtaken = []
    for step in planned.steps:
        try:
            _perform(context, step)
        except (OvertakenError, PrefectConflictError) as error:
            context.log.info("overtaken", step=describe(step), reason=str(error))
            overtaken.append(step)
    return tuple(overtaken)


def _perform(context: ProvisionContext, step: Step) -> None:
    match step:
        case CreateServiceLinkedRole():
            context.service_linked_role.create()
        case CreateStack(definition):
            context.stacks.create(definition)
        case UpdateStack(stack_id, definition, _):
            context.stacks.update(stack_id, definition)
        case DeleteStack(stack_id, _, _):
            context.stacks.delete(stack_id)
        case PutTargets():
            context.deliveries.put_targets(step)
        case PutInvokeConfig():
            context.deliveries.put_invoke_config(step)
        case CreateWorkPool(name, template):
            context.work_pools.create(name, template)
        case ChangeWorkPool(name, template):
            context.work_pools.change(name, template)
        case _:
            assert_never(step)
