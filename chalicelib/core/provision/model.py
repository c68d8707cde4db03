"""The words of provisioning: the stack as it is, the deliveries to functions, and the steps.

Dead-letter queues, retries and failure destinations are steps of their own, not resources of the
stack: each deploy writes a rule's targets anew, without queue or retry policy, and knows no
event-invoke config.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, assert_never

from chalicelib.core.model.text import one_line
from chalicelib.core.provision.concurrency import PutConcurrency as PutConcurrency
from chalicelib.core.provision.pool_template import Template
from chalicelib.core.provision.problems import failures_in as failures_in

TEMPLATE_TAG: Final = "prefect-spot:template"
"""The stack's tag with its template's hash, in every release; without it a stack is not ours."""
STAGE_PARAMETER: Final = "Stage"
"""The parameter that says which stage's stack it is, in every release."""


class ProvisionState(StrEnum):
    """How far provisioning is: the `state` of the function's answer."""

    READY = "ready"
    PENDING = "pending"
    CREATING = "creating"
    UPDATING = "updating"
    RECOVERING = "recovering"
    DELETING = "deleting"
    BLOCKED = "blocked"
    FAILED = "failed"


STATUSES: Final[Mapping[str, ProvisionState]] = {
    status: state
    for state, statuses in {
        ProvisionState.READY: (
            "CREATE_COMPLETE UPDATE_COMPLETE UPDATE_ROLLBACK_COMPLETE IMPORT_COMPLETE "
            "IMPORT_ROLLBACK_COMPLETE"
        ),
        ProvisionState.CREATING: "CREATE_IN_PROGRESS DELETE_COMPLETE",
        ProvisionState.UPDATING: (
            "UPDATE_IN_PROGRESS UPDATE_COMPLETE_CLEANUP_IN_PROGRESS UPDATE_FAILED "
            "IMPORT_IN_PROGRESS"
        ),
        ProvisionState.RECOVERING: (
            "CREATE_FAILED ROLLBACK_IN_PROGRESS ROLLBACK_FAILED ROLLBACK_COMPLETE "
            "DELETE_FAILED UPDATE_ROLLBACK_IN_PROGRESS "
            "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS IMPORT_ROLLBACK_IN_PROGRESS"
        ),
        ProvisionState.DELETING: "DELETE_IN_PROGRESS",
        ProvisionState.FAILED: "UPDATE_ROLLBACK_FAILED REVIEW_IN_PROGRESS IMPORT_ROLLBACK_FAILED",
    }.items()
    for status in statuses.split()
}
"""How far each status is. A rollback without UPDATE in its name is that of a first creation."""
BROKEN: Final = ("CREATE_FAILED", "ROLLBACK_FAILED", "ROLLBACK_COMPLETE", "DELETE_FAILED")
"""Never complete, or could not be deleted: deleted, to be created anew."""
ROLLED_BACK: Final = ("UPDATE_ROLLBACK_COMPLETE", "IMPORT_ROLLBACK_COMPLETE")
"""Where the stack's tags may still be those of the update that failed."""


@dataclass(frozen=True, slots=True)
class Stack:
    """A stack as CloudFormation describes it. `id` is one life's: a successor has another.

    `template_hash`: of the template it has; empty where unknown. `is_ours`: it has our tag, which
    every stage's stack has. `failures`: as `failures_in` returns them.
    """

    id: str
    name: str
    status: str
    template_hash: str = ""
    is_ours: bool = True
    description: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    failures: tuple[str, ...] = ()

    @property
    def is_busy(self) -> bool:
        """Whether CloudFormation is at work."""
        return self.status.endswith("_IN_PROGRESS")

    @property
    def is_gone(self) -> bool:
        """Whether it has been deleted: its name is free."""
        return self.status == "DELETE_COMPLETE"

    def owner_other_than(self, stage: str) -> str:
        """Return whose it is, in words; empty where it is the stage's, and so ours to change."""
        if not self.is_ours:
            described = f" ({one_line(self.description, 80)})" if self.description else ""
            return f"something other than prefect-spot{described}"
        made_for = self.parameters.get(STAGE_PARAMETER, stage)
        return "" if made_for == stage else f"prefect-spot's stage {one_line(made_for, 80)}"


def state_of(stack: Stack | None) -> ProvisionState:
    """Return how far a stack is; a status that is newer than the table, by its ending."""
    if stack is None:
        return ProvisionState.CREATING
    newer = ProvisionState.PENDING if stack.is_busy else ProvisionState.FAILED
    return STATUSES.get(stack.status, newer)


RETRY_POLICY: Final = {"MaximumRetryAttempts": 185, "MaximumEventAgeInSeconds": 86_400}
"""EventBridge's default, spelt out: with a queue behind it, giving up earlier gains nothing."""
SCHEDULED: Final = ("sweep", "provision")
"""Functions that are called again within minutes, with the same event: one that fails, or waits
longer than a minute, is worth neither a retry nor a place in the failure queue."""
_DELIVERY: Final = ("RetryPolicy", "DeadLetterConfig")
NO_RETRIES: Final = {"MaximumRetryAttempts": 0, "MaximumEventAgeInSeconds": 60}
Target = Mapping[str, object]
"""A rule's target, as EventBridge gives and takes it."""


@dataclass(frozen=True, slots=True)
class InvokeConfig:
    """How Lambda treats asynchronous events; `on_failure`: an ARN, or empty."""

    on_failure: str
    retries: int = 2
    age_seconds: int = 21_600


@dataclass(frozen=True, slots=True)
class Delivery:
    """How events come to a function: its rules' targets, by the rule, and its event-invoke config.

    A function without rules is not deployed: a rule invokes each of ours.
    """

    function: str
    arn: str
    targets: Mapping[str, tuple[Target, ...]]
    invoke_config: InvokeConfig | None


# The steps: a closed set; `AwsAccount` performs those in AWS.


@dataclass(frozen=True, slots=True)
class CreateServiceLinkedRole:
    """ECS's own role, which a new account lacks; the first cluster would fail without it."""


@dataclass(frozen=True, slots=True)
class StackDefinition:
    """What CloudFormation gets; `template_hash` becomes a tag of the stack."""

    name: str
    template_body: str
    template_hash: str
    parameters: Mapping[str, str]


CREATION_MINUTES: Final = 20
"""After which CloudFormation gives a creation up; else it waits up to 36 hours for a service that
never gets steady. Long enough for three failed starts: ECS's circuit breaker then says more."""


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
class PutTargets:
    """Give a rule's targets their dead-letter queue and retry policy."""

    rule: str
    targets: tuple[Target, ...]


@dataclass(frozen=True, slots=True)
class PutInvokeConfig:
    """Give a function its retries and its failure destination."""

    function: str
    config: InvokeConfig


@dataclass(frozen=True, slots=True)
class PutRetention:
    """Have a function's log group keep its events for so many days."""

    log_group: str
    days: int


@dataclass(frozen=True, slots=True)
class CreateWorkPool:
    """Create the work pool."""

    name: str
    base_job_template: Template


@dataclass(frozen=True, slots=True)
class ChangeWorkPool:
    """Give the work pool a base job template; everything else of it stays."""

    name: str
    base_job_template: Template


AwsStep = (
    CreateServiceLinkedRole
    | CreateStack
    | UpdateStack
    | DeleteStack
    | PutTargets
    | PutInvokeConfig
    | PutConcurrency
    | PutRetention
)
Step = AwsStep | CreateWorkPool | ChangeWorkPool


def describe(step: Step) -> str:
    """Return a step in words, for the function's answer and log."""
    match step:
        case CreateServiceLinkedRole():
            return "create ECS's service-linked role"
        case CreateStack(definition):
            return f"create the stack {definition.name}"
        case UpdateStack(_, definition, reason):
            return f"update the stack {definition.name}: {reason}"
        case DeleteStack(_, name, reason):
            return f"delete the stack {name}: {reason}"
        case PutTargets() | PutInvokeConfig():
            return _describe_delivery(step)
        case PutConcurrency(function, reserved):
            return f"set the reserved concurrency of the function {function} to {reserved}"
        case PutRetention(log_group, days):
            return f"keep the log group {log_group} for {days} days"
        case CreateWorkPool(name, _):
            return f"create the work pool {name}"
        case ChangeWorkPool(name, _):
            return f"write the base job template of the work pool {name}, our part restored"
        case _:
            assert_never(step)


def _describe_delivery(step: PutTargets | PutInvokeConfig) -> str:
    """Return it in words that are true of a first deploy as well as of a later one."""
    if isinstance(step, PutTargets):
        is_kept = any("DeadLetterConfig" in each for each in step.targets)
        ours = "dead-letter queue and retry policy" if is_kept else "no retries"
        return f"set {ours} for the rule {step.rule}"
    ours = "retries and failure destination" if step.config.on_failure else "no retries"
    return f"set {ours} for the function {step.function}"


def delivery_steps(deliveries: Iterable[Delivery], queue_arn: str) -> tuple[AwsStep, ...]:
    """Return the steps after which `queue_arn` gets each event that nothing could handle.

    But for a schedule's: see `SCHEDULED`.
    """
    steps: list[AwsStep] = []
    for delivery in deliveries:
        ours = {"RetryPolicy": RETRY_POLICY, "DeadLetterConfig": {"Arn": queue_arn}}
        config = InvokeConfig(queue_arn)
        if is_scheduled(delivery.function):
            ours, config = {"RetryPolicy": NO_RETRIES}, InvokeConfig("", 0, 60)
        for rule, targets in delivery.targets.items():
            to_function = [dict(t) for t in targets if t.get("Arn") == delivery.arn]
            wanted = [
                {n: v for n, v in t.items() if n not in _DELIVERY} | ours for t in to_function
            ]
            changed = tuple(w for t, w in zip(to_function, wanted, strict=True) if t != w)
            if changed:
                steps.append(PutTargets(rule, changed))
        if delivery.targets and delivery.invoke_config != config:
            steps.append(PutInvokeConfig(delivery.function, config))
    return tuple(steps)


def is_scheduled(function: str) -> bool:
    """Return whether a function, by its name in Lambda, is called by a schedule."""
    return function.rpartition("-")[2] in SCHEDULED


def retention_steps(retentions: Mapping[str, int | None], days: int) -> tuple[AwsStep, ...]:
    """Return the steps after which each log group is kept for `days`, whatever was set before."""
    return tuple(PutRetention(group, days) for group, kept in retentions.items() if kept != days)
