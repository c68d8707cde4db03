"""The `provision` Lambda: creates stack and work pool, and keeps them up to date, a step per call.

It is called by schedule and by hand; `{"dry_run": true}` only shows what it would do. All is read
before anything is changed. A scheduled call raises its problems, for the function's alarm.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

from chalicelib.core.ports import Log
from chalicelib.core.provision import model
from chalicelib.core.provision.concurrency import Concurrency
from chalicelib.core.provision.images import secrets_flaw, worker_flaw
from chalicelib.core.provision.model import ProvisionState, Step, describe
from chalicelib.core.provision.plan import Desired, Observed, Plan, Problem, plan
from chalicelib.core.provision.pool_template import Template, WorkPool, wrong_type
from chalicelib.errors import (
    ConcurrencyError,
    ConcurrentUpdateError,
    NotProvisionedError,
    PrefectConflictError,
    PrefectRefusedError,
    PrefectRejectedError,
    PrefectSpotError,
    WorkPoolError,
)

if TYPE_CHECKING:
    from chalicelib.adapters.provisioning import AwsAccount

T = TypeVar("T")


class WorkPools(Protocol):
    """Prefect's work pools. Each method raises what `core.ports.Prefect` says."""

    def read(self, name: str) -> WorkPool | None:
        """Return the pool; None when Prefect does not know it."""

    def server_version(self) -> str:
        """Return the server's version; empty where it is not served: Prefect Cloud has none."""

    def create(self, name: str, base_job_template: Template) -> None:
        """Create a pool of type ecs. Raises PrefectConflictError when it exists."""

    def change(self, name: str, base_job_template: Template) -> None:
        """Replace the pool's base job template; limits, queues and the rest stay."""


@dataclass(frozen=True, slots=True)
class ProvisionContext:
    """What is desired, and everything that one call may read and change."""

    desired: Desired
    aws: "AwsAccount"
    work_pools: WorkPools
    log: Log


@dataclass(frozen=True, slots=True)
class ProvisionReport:
    """What a call did, or would do, in words; `overtaken`: the steps that another caller did."""

    state: ProvisionState
    dry_run: bool
    stack: Mapping[str, str]
    steps: tuple[str, ...]
    overtaken: tuple[str, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]

    @property
    def summary(self) -> Mapping[str, object]:
        """The function's answer.

        `state`: `ready`: up to date. `pending`: a later call does the rest. `creating`, `updating`,
        `deleting`, `recovering` (from what `problems` says): CloudFormation is at work; a later
        call goes on. `blocked`, `failed`: an operator has to do what `problems` says.
        `steps` were done, or with `dry_run` would be. `problems`: each with `error`, its name, and
        `message`, which ends with the next step. `warnings`: the same; they stand in no way.
        """
        found = {
            kind: [{"error": each.name, "message": each.message} for each in each_of]
            for kind, each_of in (("problems", self.problems), ("warnings", self.warnings))
        }
        return {**asdict(self), "state": self.state.value, **found}


def provision(context: ProvisionContext, event: object) -> ProvisionReport:
    """Take the next step towards what is desired; return what was done, and the state.

    Raises:
        NotProvisionedError: there are problems, and the call came by schedule.
        botocore's errors, where AWS fails or refuses: retryable.
    """
    given = event if isinstance(event, Mapping) else {}
    dry_run = bool(given.get("dry_run"))
    observed = _observe(context)
    status = observed.stack.status if observed.stack else ""
    planned = plan(context.desired, observed)
    overtaken: tuple[Step, ...] = ()
    if dry_run:
        unreserved = _unreserved(planned)
        planned = replace(planned, warnings=(*planned.warnings, *unreserved))
        # Lambda may refuse a reservation each time, and a dry run cannot know.
        is_undone = len(planned.steps) > len(unreserved)
    else:
        planned, overtaken = _perform_all(context, planned)
        is_undone = bool(overtaken)
    is_pending = is_undone and planned.state is ProvisionState.READY
    report = ProvisionReport(
        state=ProvisionState.PENDING if is_pending else planned.state,
        dry_run=dry_run,
        stack={"name": context.desired.stack_name, "status": status},
        steps=tuple(map(describe, planned.steps)),
        overtaken=tuple(map(describe, overtaken)),
        problems=planned.problems,
        warnings=planned.warnings,
    )
    context.log.info("provisioned", **report.summary)
    if report.problems and given.get("source") == "aws.events":
        found = "; ".join(f"{problem.name}: {problem.what}" for problem in report.problems)
        raise NotProvisionedError(
            f"{report.state.value}: {found}",
            next_step="; ".join(problem.next_step for problem in report.problems),
        )
    return report


def _observe(context: ProvisionContext) -> Observed:
    """Read all, a known failure as a problem; AWS first, since Prefect may take all the time."""
    desired = context.desired
    problems: list[Problem] = []
    warnings: list[Problem] = []

    def read(call: Callable[[], T]) -> T | None:
        try:
            return call()
        except PrefectSpotError as error:
            (warnings if isinstance(error, ConcurrencyError) else problems).append(_problem(error))
            return None

    aws = context.aws
    stack = aws.read_stack(desired.stack_name)
    network, has_role = None, True
    if desired.is_full:
        network = read(lambda: aws.find_network(desired))
        if stack is None or stack.is_gone:
            has_role = aws.has_service_linked_role()
    named = desired.secrets.items()
    found = {setting: read(partial(aws.arn_of, setting, name)) for setting, name in named}
    arns = {setting: arn for setting, arn in found.items() if arn is not None}
    deliveries = tuple(aws.read_delivery(name) for name in desired.functions)
    concurrency = read(lambda: aws.read_concurrency(desired.concurrency)) or Concurrency()
    retentions = aws.read_retentions(desired.functions)
    is_readable = arns.keys() == found.keys()
    asks = desired.is_full and is_readable
    version = read(context.work_pools.server_version) if asks else ""
    names = desired.work_pools if is_readable and version is not None else ()
    pools: list[WorkPool] = []
    for name in names:
        before = len(problems)
        pools += filter(None, [read(partial(_work_pool, context, name))])
        if any(problem.name != "WorkPool" for problem in problems[before:]):
            break  # Prefect would say of the others what it said of this
    image = desired.parameters["WorkerImage"]
    if version and (flaw := worker_flaw(image, version)):
        problems.append(Problem("WorkerNewerThanServer", *flaw))
    has_more = len(arns) > sum("_API_" in setting for setting in arns) > 0  # than a credential
    if desired.is_full and has_more and (flaw := secrets_flaw(image)):
        problems.append(Problem("WorkerTooOld", *flaw))
    return Observed(
        stack, network, arns, tuple(pools), deliveries, has_role, retentions, tuple(problems),
        concurrency, tuple(warnings),
    )  # fmt: skip


def _problem(error: PrefectSpotError) -> Problem:
    return Problem(type(error).__name__.removesuffix("Error"), error.what, error.next_step)


def _work_pool(context: ProvisionContext, name: str) -> WorkPool | None:
    """Read the pool, and so learn whether Prefect can be reached at all."""
    is_full = context.desired.is_full
    pool = context.work_pools.read(name)
    if pool is None and not is_full:
        raise WorkPoolError(
            f"work pool {name!r} is not known to Prefect",
            next_step="create it, or set WORK_POOL to the pool of your worker",
        )
    if pool is not None and (reason := wrong_type(pool.type, is_full=is_full)):
        raise WorkPoolError(f"work pool {name!r} {reason[0]}", next_step=reason[1])
    return pool


def _unreserved(planned: Plan) -> list[Problem]:
    """What the next call tries to reserve."""
    next_step = "wait for the next run of provision; where that changes nothing, its log says why"
    return [
        Problem("Concurrency", f"{step.function} has no reserved concurrency yet", next_step)
        for step in planned.steps
        if isinstance(step, model.PutConcurrency)
    ]


def _perform_all(context: ProvisionContext, planned: Plan) -> tuple[Plan, tuple[Step, ...]]:
    """Perform the steps; return the plan with those that were done, and what another did first.

    What Prefect refuses is a problem: after it, only what stands in no way is done. A reservation
    that Lambda refuses is a warning. The next call tries both again.
    """
    done: list[Step] = []
    overtaken: list[Step] = []
    refused: list[Problem] = []
    warned: list[Problem] = []
    for step in planned.steps:
        if refused and not isinstance(step, model.PutConcurrency | model.PutRetention):
            continue
        try:
            match step:
                case model.CreateWorkPool(name, template):
                    context.work_pools.create(name, template)
                case model.ChangeWorkPool(name, template):
                    context.work_pools.change(name, template)
                case _:
                    context.aws.perform(step)
        except (ConcurrentUpdateError, PrefectConflictError) as error:
            context.log.info("overtaken", step=describe(step), reason=str(error))
            overtaken.append(step)
        except (PrefectRefusedError, PrefectRejectedError) as error:
            refused.append(_problem(error))
        except ConcurrencyError as error:
            warned.append(_problem(error))
        else:
            done.append(step)
    state = ProvisionState.BLOCKED if refused else planned.state
    problems, warnings = (*planned.problems, *refused), (*planned.warnings, *warned)
    return Plan(state, tuple(done), problems, warnings), tuple(overtaken)
