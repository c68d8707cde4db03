"""What keeps us from provisioning, with the next step, and what only takes time."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from chalicelib.core.model.text import one_line
from chalicelib.errors import PrefectSpotError

if TYPE_CHECKING:
    from chalicelib.core.provision.model import Stack

_TIMED_OUT: Final = "exceeded the specified timeout"
"""Of CloudFormation's reason for a rollback (docker-archive/ecs-plugin#177)."""
_ROLE_IS_NEW: Final = re.compile(
    "(unable to|cannot) assume .{,99}(service[- ]linked role|AWSServiceRoleForECS)", re.IGNORECASE
)
"""ECS's words tens of seconds after a role's creation (cloudformation-coverage-roadmap#818)."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What keeps us from provisioning, with the next step. `name` is its error's."""

    name: str
    what: str
    next_step: str

    @property
    def message(self) -> str:
        """Both in one line, as an error shows them."""
        return str(PrefectSpotError(self.what, self.next_step))


def failures_in(newest_first: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the resources that failed in the stack's last operation, with type and AWS's reason.

    Five at most, the cause first: later ones follow from it. Those that were only cancelled are
    named after a time-out. `newest_first`: of DescribeStackEvents, read to the operation's begin.
    """
    failed: list[str] = []
    cancelled: list[str] = []
    timed_out = ""
    for event in newest_first:
        status, reason = event.get("ResourceStatus", ""), event.get("ResourceStatusReason", "")
        if event.get("PhysicalResourceId") == event["StackId"]:  # about the stack itself
            if status.removesuffix("_IN_PROGRESS") in ("CREATE", "UPDATE", "DELETE", "IMPORT"):
                break
            timed_out = one_line(reason, 200) if _TIMED_OUT in reason else timed_out
        elif status.endswith("_FAILED"):
            resource = f"{event.get('LogicalResourceId', '')} ({event.get('ResourceType', '')})"
            if "cancelled" in reason:
                cancelled.append(resource)
            else:
                failed.append(f"{resource}: {one_line(reason, 400)}")
    if timed_out:
        failed.append(f"{timed_out} Not complete: {', '.join(reversed(cancelled)) or 'unknown'}")
    return tuple(reversed(failed))[:5]


def unnamed(stack: str) -> tuple[str, ...]:
    """Return where to find what stack events leave out: what the validation before them refused.

    CloudFormation user guide, "Validate stack deployments".
    """
    command = f"aws cloudformation describe-events --stack-name {stack} --filters FailedEvents=true"
    return (f"no resource is named; {command} shows what the validation refused",)


def foreign(stack: "Stack | None", stage: str) -> tuple[Problem, ...]:
    """Return the problem with a stack that another stage or tool created."""
    owner = stack.owner_other_than(stage) if stack and not stack.is_gone else ""
    if stack is None or not owner:
        return ()
    what = f"stack {stack.name} was created by {owner}, and is neither changed nor deleted"
    return (Problem("StackNotOurs", what, next_step="set STACK_NAME to a name that is free"),)


def failed(stack: "Stack | None") -> tuple[Problem, ...]:
    """Return the problem with a stack whose last operation failed."""
    if stack is None or not stack.failures or waits(stack):
        return ()
    what = f"stack {stack.name} is in {stack.status}: {'; '.join(stack.failures)}"
    next_step = "fix what failed; the next run retries"
    if any(_TIMED_OUT in failure for failure in stack.failures):
        next_step = (
            "look at what was not complete while the next run retries: for WorkerService at its"
            f" stopped tasks (spotctl status), the log group /ecs/{stack.name}, and whether its"
            " subnets lead to Prefect, AWS and the image registry"
        )
    return (Problem("StackFailed", what, next_step),)


def waits(stack: "Stack") -> tuple[Problem, ...]:
    """Return what a stack that was not created waits for; empty where anything else failed."""
    is_first = stack.status.startswith(("CREATE_", "ROLLBACK_"))
    if not (is_first and stack.failures and all(map(_ROLE_IS_NEW.search, stack.failures))):
        return ()
    what = f"ECS cannot assume its service-linked role yet, so stack {stack.name} was not created"
    return (Problem("ServiceLinkedRole", what, next_step="wait: the next run creates it again"),)


def stuck(stack: "Stack") -> Problem:
    """Return the problem with a stack in a status that only an operator can end."""
    remedies = {
        "UPDATE_ROLLBACK_FAILED": "fix what failed, then run: aws cloudformation"
        f" continue-update-rollback --stack-name {stack.name}",
        "REVIEW_IN_PROGRESS": "execute its change set, or delete the stack",
        "IMPORT_ROLLBACK_FAILED": "fix what failed, then roll the import back again",
    }
    step = remedies.get(stack.status, "bring the stack out of this status by hand")
    return Problem("StackStuck", f"stack {stack.name} is in {stack.status}", next_step=step)
