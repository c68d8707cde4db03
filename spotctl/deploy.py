"""`spotctl deploy`: `chalice deploy`, then provisioning, one step per call, until it is ready.

A schedule calls `provision` as well; here it is called every five seconds, and its progress shown.
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from enum import Enum, auto
from typing import Final

from chalicelib.core.provision.model import CreateServiceLinkedRole, describe
from chalicelib.errors import PrefectSpotError
from spotctl.context import Context
from spotctl.output import Row, State, failed, ok
from spotctl.policies import write_policies
from spotctl.status import stopped
from spotctl.status.provisioning import FUNCTION, READY, SETTLED, Provisioned, provision
from spotctl.status.stack import describe_stack
from spotctl.status.stopped import Stopped

PAUSE_SECONDS: Final = 5.0
ROLE_SECONDS: Final = 60.0
"""Until ECS can assume its new service-linked role: IAM needs tens of seconds."""
LONGEST: Final = timedelta(minutes=45)

MOST_WAITS_FOR_WORKER: Final = 24

MOST_ERRORS: Final = 5
"""How often in a row `provision` may fail: its role takes a while to apply after a first deploy."""

_CLOCKS_DIFFER: Final = timedelta(minutes=1)
"""At most, this machine's and ECS's."""
_VARIES: Final = re.compile(r"\b[0-9a-f-]{8,}\b|\d+(?:[:.,]\d+)+|\d{4,}")
"""Ids, times and ports in a log; a status or exit code is shorter."""
_STACK_CHANGES: Final = frozenset({"creating", "updating", "deleting", "recovering"})
_NEXT_STEP: Final = "fix it, then run spotctl deploy again"


class Next(Enum):
    """What to do after an answer of `provision`."""

    WAIT = auto()
    DONE = auto()
    GIVE_UP = auto()


def deploy(context: Context) -> list[Row]:
    """Deploy the functions and provision the rest; return a failed row for what did not succeed.

    Raises botocore's errors, SettingError and RefusedError.
    """
    project = context.project
    for path in write_policies(project):
        context.progress(f"wrote {path.name} anew")
    context.progress(f"chalice deploy --stage {project.stage}")
    if code := context.chalice("deploy"):
        return [failed("chalice deploy", f"it ended with exit code {code}", _NEXT_STEP)]
    context.aws.client("lambda").get_waiter("function_active_v2").wait(
        FunctionName=project.function_name(FUNCTION)
    )
    worker = _Worker(context)
    rows = [ok("chalice deploy", "the functions are deployed"), _provision(context, worker)]
    if rows[-1].state is not State.OK:
        return [*rows, *stopped.rows(worker.stopped, runs=False, is_steady=False)]
    if not project.is_rescue_only:
        _wait_for_worker(context, worker)
    return rows


def next_after(answers: Sequence[Provisioned]) -> Next:
    """Return what to do after these answers of `provision`, the latest last.

    A stack that had failed before this deploy is recovered, then created or updated again; one that
    fails during it would fail again each time.
    """
    latest = answers[-1]
    if not latest.state:
        last = answers[-MOST_ERRORS:]
        keeps_failing = len(last) == MOST_ERRORS and not any(answer.state for answer in last)
        return Next.GIVE_UP if keeps_failing else Next.WAIT
    if latest.state == READY:
        return Next.DONE
    failed_now = latest.state == "recovering" and any(
        answer.state in ("creating", "updating") for answer in answers
    )
    return Next.GIVE_UP if latest.state in SETTLED or failed_now else Next.WAIT


class _Worker:
    """Why the worker's newest task stopped during this deploy: printed once, and kept.

    Where the stack is rolled back, ECS and CloudWatch Logs have nothing of it afterwards. Another
    task with other times and ids in its log stopped for the same reason.
    """

    def __init__(self, context: Context) -> None:
        self.stopped: Stopped | None = None
        self._printed: set[str] = set()
        self._context, self._since = context, context.now() - _CLOCKS_DIFFER

    def show(self) -> None:
        """Look once."""
        found = stopped.read(self._context)
        if found is None or (found.age and self._context.now() - found.age < self._since):
            return
        self.stopped = found
        same = _VARIES.sub("", "\n".join((found.reason, *found.log)))
        if same in self._printed:
            return
        self._printed.add(same)
        self._context.progress(f"worker: {found.reason}; {found.next_step}")
        for line in found.log:
            self._context.progress(f"worker's log: {line}")


def _provision(context: Context, worker: _Worker) -> Row:
    answers: list[Provisioned] = []
    shown = ""
    ends_at = context.now() + LONGEST
    while True:
        answer = provision(context, dry_run=False)
        answers.append(answer)
        if (line := _line(context, answer)) != shown:
            context.progress(f"provision: {line}")
            shown = line
        if answer.state in _STACK_CHANGES and not context.project.is_rescue_only:
            worker.show()
        match next_after(answers):
            case Next.DONE:
                return ok("provision", "up to date")
            case Next.GIVE_UP:
                problems = "; ".join(answer.problems) or "it gives no reason"
                found = f"{answer.state or 'it failed'}: {problems}"
                return failed("provision", found, _NEXT_STEP)
            case Next.WAIT if context.now() > ends_at:
                found = f"{answer.state} after {LONGEST // timedelta(minutes=1)} min"
                return failed("provision", found, "look at the stack's events in CloudFormation")
            case Next.WAIT:
                is_role_new = describe(CreateServiceLinkedRole()) in answer.steps
                context.pause(ROLE_SECONDS if is_role_new else PAUSE_SECONDS)


def _wait_for_worker(context: Context, worker: _Worker) -> None:
    """Wait two minutes at most for the worker's first heartbeat; the status then shows the rest."""
    for number in range(MOST_WAITS_FOR_WORKER):
        try:
            workers = context.prefect.workers(*context.project.settings.work_pools)
        except PrefectSpotError:
            return  # the status shows that, too
        if any(worker.is_online for worker in workers):
            return
        if number == 0:
            context.progress("worker: waiting for its first heartbeat in Prefect")
        worker.show()
        context.pause(PAUSE_SECONDS)


def _line(context: Context, answer: Provisioned) -> str:
    """State, steps taken, problems, warnings, and how many of the stack's resources exist."""
    parts = [answer.state or "failed", *answer.steps, *answer.problems, *answer.warnings]
    if answer.state in _STACK_CHANGES and describe_stack(context) is not None:
        client = context.aws.client("cloudformation")
        stack = context.project.stack
        resources = client.describe_stack_resources(StackName=stack)["StackResources"]
        done = sum(r["ResourceStatus"] in ("CREATE_COMPLETE", "UPDATE_COMPLETE") for r in resources)
        parts.append(f"{done} of {len(resources)} resources so far")
    return "; ".join(parts)
