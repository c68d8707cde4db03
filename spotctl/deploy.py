"""`spotctl deploy`: `chalice deploy`, then provisioning, a step per call, until all is ready.

`provision` goes on by itself, by schedule; here it is called without a pause, and watched.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum, auto
from typing import Final

from chalicelib.errors import PrefectSpotError
from spotctl.context import Context
from spotctl.policies import write_policies
from spotctl.rows import Row, State, failed, ok
from spotctl.status.provisioning import FUNCTION, READY, Provisioned, provision
from spotctl.status.stack import describe_stack

PAUSE_SECONDS: Final = 5.0
LONGEST: Final = timedelta(minutes=45)

MOST_WAITS_FOR_WORKER: Final = 24

MOST_ERRORS: Final = 5
"""How often the function may fail in a row: after a first deploy its role takes a while to hold."""

_CLOUDFORMATION_IS_AT_IT: Final = frozenset({"creating", "updating", "deleting", "recovering"})
_BEGUN: Final = frozenset({"creating", "updating"})
_NEXT: Final = "fix that, then run spotctl deploy again"


class Next(Enum):
    """What follows from an answer."""

    WAIT = auto()
    DONE = auto()
    GIVE_UP = auto()


@dataclass(frozen=True, slots=True)
class Course:
    """What was seen so far. `has_begun`: the stack was being made or changed while we watched."""

    has_begun: bool = False
    errors: int = 0

    def after(self, answer: Provisioned) -> tuple["Course", Next]:
        """Return the course and what to do now that `provision` answered this.

        A stack that failed before we came is recovered, and tried again; one that fails before our
        eyes would fail again and again.
        """
        if not answer.state:
            course = replace(self, errors=self.errors + 1)
            return course, Next.GIVE_UP if course.errors >= MOST_ERRORS else Next.WAIT
        course = Course(self.has_begun or answer.state in _BEGUN)
        if answer.state == READY:
            return course, Next.DONE
        if answer.is_over or (answer.state == "recovering" and self.has_begun):
            return course, Next.GIVE_UP
        return course, Next.WAIT


def deploy(context: Context, tell: Callable[[str], None]) -> list[Row]:
    """Deploy the functions and provision all the rest; a failed row where that did not succeed.

    Raises botocore's errors, SettingError and RefusedError.
    """
    project = context.project
    for path in write_policies(project):
        tell(f"wrote {path.name} anew")
    tell(f"chalice deploy --stage {project.stage}")
    if code := context.chalice("deploy", tell):
        return [failed("chalice deploy", f"it ended with exit code {code}", _NEXT)]
    context.aws.client("lambda").get_waiter("function_active_v2").wait(
        FunctionName=project.function_name(FUNCTION)
    )
    rows = [ok("chalice deploy", "the functions are deployed"), _provision(context, tell)]
    if rows[-1].state is State.OK and not project.is_rescue_only:
        _wait_for_worker(context, tell)
    return rows


def _provision(context: Context, tell: Callable[[str], None]) -> Row:
    course, told = Course(), ""
    ends_at = context.now() + LONGEST
    while True:
        answer = provision(context, dry_run=False)
        line = _line(context, answer)
        if line != told:
            tell(f"provision: {line}")
            told = line
        course, following = course.after(answer)
        match following:
            case Next.DONE:
                return ok("provision", "up to date")
            case Next.GIVE_UP:
                problems = "; ".join(answer.problems) or "it does not say why"
                return failed("provision", f"{answer.state or 'it failed'}: {problems}", _NEXT)
            case Next.WAIT if context.now() > ends_at:
                minutes = int(LONGEST.total_seconds() // 60)
                told = f"{answer.state} after {minutes} min"
                return failed("provision", told, "look at the stack's events in CloudFormation")
            case Next.WAIT:
                context.pause(PAUSE_SECONDS)


def _wait_for_worker(context: Context, tell: Callable[[str], None]) -> None:
    """Give the worker time to be heard of by Prefect; the status that follows says what came."""
    for number in range(MOST_WAITS_FOR_WORKER):
        try:
            workers = context.prefect.workers(context.project.settings.work_pool)
        except PrefectSpotError:
            return  # the status says that, too
        if any(worker.is_online for worker in workers):
            return
        if number == 0:
            tell("worker: waiting until Prefect hears of it")
        context.pause(PAUSE_SECONDS)


def _line(context: Context, answer: Provisioned) -> str:
    """Say where it stands: what was done, how many resources there are, what stands in the way."""
    parts = [answer.state or "failed", *answer.steps, *answer.problems]
    if answer.state in _CLOUDFORMATION_IS_AT_IT:
        parts.append(_resources(context))
    return "; ".join(part for part in parts if part)


def _resources(context: Context) -> str:
    """Say how many of the stack's resources are there; empty while there is no stack."""
    if describe_stack(context) is None:
        return ""
    client = context.aws.client("cloudformation")
    resources = client.describe_stack_resources(StackName=context.project.stack)["StackResources"]
    done = sum(r["ResourceStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE") for r in resources)
    return f"{done} of {len(resources)} resources so far"
